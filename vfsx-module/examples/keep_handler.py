#!/usr/bin/env python3
"""A handler for `vfsx:handler`: nothing whose name ends in .keep can be deleted.

    keep_handler.py [--verbose] [/run/vfsx/handler.sock]

Needs Python 3.7 and nothing else. The protocol is described in docs/handler.md. To make a handler of your own, give
`Policy` a method for each operation that you care about; what has no method goes on.
"""

import argparse
import os
import signal
import socketserver
import sys
import urllib.parse

GO_ON, ERROR, AUTHORIZATION = 0, -1, -2
BLOCK = 512
# Longer questions are never sent.
LIMIT = 65536 + BLOCK


class Policy:
    """What is refused. Paths are bytes, relative to the share's directory `root`, which is bytes too."""

    def unlink(self, user, root, path):
        return refuse_if(is_kept(path))

    # A directory may have such a name.
    rmdir = unlink

    def rename(self, user, root, old, new):
        # Over what is kept, or away from the name that keeps it. To such a name is no deletion.
        replaces = is_kept(new) and os.path.lexists(os.path.join(root, new))
        return refuse_if(is_kept(old) or replaces)

    def removexattr(self, user, root, path, name):
        # Samba deletes a file's alternate streams first, and only then the file.
        return refuse_if(is_kept(path) and name.startswith(b"user.DosStream."))


def is_kept(path):
    # A stream is FILE//STREAM. Clients do not tell upper from lower case.
    return path.split(b"//")[0].lower().endswith(b".keep")


def refuse_if(condition):
    return AUTHORIZATION if condition else GO_ON


def parse(text):
    """`operation:user:root:arg1,arg2` -> operation, user, root, arguments"""
    operation, *fields = text.split(b":")
    user, root, *rest = fields
    arguments = [unescape(word) for word in rest[0].split(b",")] if rest else []
    return operation.decode("ascii"), unescape(user), unescape(root), arguments


unescape = urllib.parse.unquote_to_bytes


class Connection(socketserver.BaseRequestHandler):
    """One tree connect of a client: questions one after another, each answered before the next."""

    def handle(self):
        while True:
            text = self.question()
            if text is None:
                return
            answer = self.answer(text)
            if self.server.verbose:
                print(answer, text.decode("utf-8", "replace"), flush=True)
            self.request.sendall(b"%d\n" % answer)

    def question(self):
        """Blocks of 512 bytes up to one that ends with NUL."""
        data = b""
        while not data or len(data) % BLOCK or data[-1]:
            part = self.request.recv(BLOCK - len(data) % BLOCK)
            if not part or len(data) > LIMIT:
                return None
            data += part
        return data.rstrip(b"\0")

    def answer(self, text):
        operation, user, root, arguments = parse(text)
        method = getattr(self.server.policy, operation, None)
        return method(user, root, *arguments) if method else GO_ON


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # smbd never waits for a place in the queue: every process of it may connect at the same moment.
    request_queue_size = 128


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("socket", nargs="?", default="/run/vfsx/handler.sock")
    options.add_argument("--verbose", action="store_true", help="print every question and its answer")
    options = options.parse_args()
    # Only root may ask: smbd connects as root.
    os.umask(0o177)
    if os.path.lexists(options.socket):
        os.unlink(options.socket)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Server(options.socket, Connection) as server:
        server.policy, server.verbose = Policy(), options.verbose
        server.serve_forever()


if __name__ == "__main__":
    main()
