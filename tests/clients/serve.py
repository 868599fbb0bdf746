"""Reads one JSON request a line, answers with one JSON line each: {"ok": ..} or {"refused": status}."""

import json
import sys

from impacket.nmb import NetBIOSError, NetBIOSTimeout


def serve(make_client):
    """The first line is {"user": .., "password": ..}; `make_client` gets host, port, share and that. A request's `do` names a
    method of the client, its other members are the arguments. What is not the server's refusal ends the program."""
    host, port, share = sys.argv[1:4]
    login = json.loads(sys.stdin.readline())
    try:
        client = make_client(host, int(port), share, login)
    except (OSError, NetBIOSError, NetBIOSTimeout) as error:
        sys.exit(f"SMB client: no connection: {error}")
    print(json.dumps({"ok": {}}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        operation = getattr(client, request.pop("do"))
        try:
            answer = {"ok": operation(**request) or {}}
        except (OSError, NetBIOSError, NetBIOSTimeout) as error:
            sys.exit(f"SMB client: the connection is lost: {error}")
        except Exception as error:
            if "STATUS" not in str(error):
                raise
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)
