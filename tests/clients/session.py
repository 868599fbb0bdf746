"""An SMB client that keeps handles open. Reads one JSON request a line, answers with one JSON line each.

Started as: session.py HOST PORT SHARE, with {"user": .., "password": ..} as the first line.
"""

import base64
import contextlib
import json
import random
import struct
import sys

from impacket.ldap import ldaptypes
from impacket.smb3 import SMB3
from impacket.smb3structs import SMB2_DIALECT_30
from impacket.smbconnection import SMBConnection

ACCESS = 0x001F01FF  # everything that a client with full control asks for
SHARE_ALL = 7
DISPOSITIONS = {"supersede": 0, "open": 1, "create": 2, "open_if": 3, "overwrite": 4, "overwrite_if": 5}
ATTRIBUTE_NORMAL = 0x80
INFO_FILE, INFO_SECURITY = 1, 3
BASIC, RENAME, LINK, DISPOSITION, END_OF_FILE = 4, 10, 11, 13, 20
DACL = 4
FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA = 0x000900C4, 0x000980C8
FSCTL_REQUEST_RESUME_KEY, FSCTL_COPYCHUNK = 0x00140078, 0x001480F2
IS_FSCTL = 1
WRITE_LIMIT = 1 << 20
DIRECTORY, NON_DIRECTORY = 0x1, 0x40
# 2001-01-01 in units of 100 ns since 1601
NEW_MILLENNIUM = 126227808000000000


class Client:
    def __init__(self, host, port, share, login):
        connection = SMBConnection(host, host, sess_port=port, preferredDialect=SMB2_DIALECT_30)
        connection.login(login["user"], login["password"])
        self.smb: SMB3 = connection.getSMBServer()
        self.tree = connection.connectTree(share)
        self.connection = connection
        self.handles = {}

    def create(self, path, disposition="open_if", options=0):
        name = path.replace("/", "\\")
        handle = self.smb.create(
            self.tree, name, ACCESS, SHARE_ALL, options, DISPOSITIONS[disposition], ATTRIBUTE_NORMAL
        )
        number = len(self.handles) + 1
        self.handles[number] = handle
        return {"handle": number}

    def write(self, handle, offset, data):
        self._write(handle, base64.b64decode(data), offset)
        return {}

    def random_writes(self, handle, count, size, span, seed):
        """`count` writes of `size` random bytes, each at its own multiple of `size` below `span`."""
        source = random.Random(seed)
        offsets = [place * size for place in source.sample(range(span // size), count)]
        for offset in offsets:
            self._write(handle, source.randbytes(size), offset)
        return {"offsets": offsets}

    def fill(self, handle, offset, length, seed):
        """Random bytes, one after another."""
        source = random.Random(seed)
        for start in range(offset, offset + length, WRITE_LIMIT):
            self._write(handle, source.randbytes(min(WRITE_LIMIT, offset + length - start)), start)
        return {}

    def truncate(self, handle, size):
        self._set(handle, END_OF_FILE, struct.pack("<Q", size))
        return {}

    def set_sparse(self, handle):
        self._fsctl(handle, FSCTL_SET_SPARSE, b"\x01")
        return {}

    def zero(self, handle, start, end):
        self._fsctl(handle, FSCTL_SET_ZERO_DATA, struct.pack("<QQ", start, end))
        return {}

    def copy_range(self, source, source_offset, target, target_offset, length):
        """The server copies: the bytes do not come through the client."""
        key = self._fsctl(source, FSCTL_REQUEST_RESUME_KEY, b"", 32)[:24]
        chunk = struct.pack("<QQII", source_offset, target_offset, length, 0)
        self._fsctl(target, FSCTL_COPYCHUNK, key + struct.pack("<II", 1, 0) + chunk, 12)
        return {}

    def flush(self, handle):
        self.smb.flush(self.tree, self.handles[handle])
        return {}

    def close(self, handle):
        try:
            self.smb.close(self.tree, self.handles[handle])
        except KeyError:
            # The server has closed it; impacket keeps files by name and stumbles over a second handle of one.
            pass
        return {}

    def delete_on_close(self, handle):
        self._set(handle, DISPOSITION, b"\x01")
        return {}

    def rename_open(self, handle, new, replace):
        self._set(handle, RENAME, _target(new, replace))
        return {}

    def storm(self, seed, count, names):
        """`count` random changes among `names` files and directories that other clients change at the same time.
        What the server refuses, because a name is taken or gone, is part of it. Returns how many it took."""
        source = random.Random(seed)
        done = 0
        for _ in range(count):
            change = source.choice(STORM)
            try:
                change(self, source, names)
                done += 1
            except KeyError:
                done += 1  # see close()
            except Exception as error:
                if "STATUS" not in str(error):
                    raise
        return {"done": done}

    def _storm_write(self, source, names):
        with self._opened(_place(source, names), "open_if") as handle:
            for _ in range(source.randint(1, 4)):
                content = source.randbytes(source.choice([1, 100, 5000, 70000]))
                self._write(handle, content, source.choice([0, 10, 65536, 100000]))

    def _storm_truncate(self, source, names):
        with self._opened(_place(source, names), "open") as handle:
            self.truncate(handle, source.choice([0, 1, 65536, 65537, 200000]))

    def _storm_overwrite(self, source, names):
        with self._opened(_place(source, names), source.choice(["overwrite_if", "supersede"])) as handle:
            self._write(handle, source.randbytes(300), 0)

    def _storm_rename(self, source, names):
        with self._opened(_place(source, names), "open") as handle:
            self.rename_open(handle, _place(source, names), source.random() < 0.7)

    def _storm_rename_directory(self, source, names):
        with self._opened(_directory(source, names), "open", DIRECTORY) as handle:
            self.rename_open(handle, _directory(source, names), False)

    def _storm_link(self, source, names):
        with self._opened(_place(source, names), "open") as handle:
            self._set(handle, LINK, _target(_place(source, names), source.random() < 0.5))

    def _storm_delete(self, source, names):
        with self._opened(_place(source, names), "open") as handle:
            self.delete_on_close(handle)
            if source.random() < 0.3:
                self._write(handle, b"gone soon", 0)

    def _storm_make_directory(self, source, names):
        with self._opened(_directory(source, names), "create", DIRECTORY):
            pass

    def _storm_remove_directory(self, source, names):
        with self._opened(_directory(source, names), "open", DIRECTORY) as handle:
            self.delete_on_close(handle)

    def _storm_times(self, source, names):
        with self._opened(_place(source, names), "open") as handle:
            time = NEW_MILLENNIUM + source.randint(0, 10**15)
            self._set(handle, BASIC, struct.pack("<QQQQII", 0, time, time, 0, source.choice([0x20, 0x80]), 0))

    @contextlib.contextmanager
    def _opened(self, path, disposition, options=NON_DIRECTORY):
        number = self.create(path, disposition, options)["handle"]
        try:
            yield number
        finally:
            self.close(number)

    def grant(self, handle, sid, mask):
        """Adds an entry to the file's access control list."""
        answer = self.smb.queryInfo(
            self.tree, self.handles[handle], infoType=INFO_SECURITY, fileInfoClass=0, additionalInformation=DACL
        )
        descriptor = ldaptypes.SR_SECURITY_DESCRIPTOR(data=answer)
        entry = ldaptypes.ACE()
        entry["AceType"] = ldaptypes.ACCESS_ALLOWED_ACE.ACE_TYPE
        entry["AceFlags"] = 0
        allowed = ldaptypes.ACCESS_ALLOWED_ACE()
        allowed["Mask"] = ldaptypes.ACCESS_MASK()
        allowed["Mask"]["Mask"] = mask
        allowed["Sid"] = ldaptypes.LDAP_SID()
        allowed["Sid"].fromCanonical(sid)
        entry["Ace"] = allowed
        descriptor["Dacl"].aces.append(entry)
        self.smb.setInfo(
            self.tree,
            self.handles[handle],
            descriptor.getData(),
            infoType=INFO_SECURITY,
            fileInfoClass=0,
            additionalInformation=DACL,
        )
        return {}

    def _write(self, handle, content, offset):
        for start in range(0, len(content), WRITE_LIMIT):
            part = content[start : start + WRITE_LIMIT]
            self.smb.write(self.tree, self.handles[handle], part, offset + start, len(part))

    def _set(self, handle, information, blob):
        self.smb.setInfo(
            self.tree, self.handles[handle], blob, infoType=INFO_FILE, fileInfoClass=information
        )

    def _fsctl(self, handle, code, blob, answer=0):
        return self.smb.ioctl(
            self.tree, self.handles[handle], code, IS_FSCTL, blob, maxInputResponse=0, maxOutputResponse=answer
        )


def _target(path, replace):
    """Where a rename or a link leads."""
    name = path.replace("/", "\\").encode("utf-16le")
    return struct.pack("<B7xQI", replace, 0, len(name)) + name


def _directory(source, names):
    number = source.randrange(names)
    return f"d{number}" if number % 3 else f"d{source.randrange(names)}/d{number}"


def _place(source, names):
    name = f"f{source.randrange(names)}"
    return name if source.random() < 0.3 else f"{_directory(source, names)}/{name}"


# Each as often as it stands here.
STORM = [Client._storm_write] * 6 + [
    Client._storm_truncate,
    Client._storm_overwrite,
    Client._storm_rename,
    Client._storm_rename,
    Client._storm_rename_directory,
    Client._storm_link,
    Client._storm_delete,
    Client._storm_make_directory,
    Client._storm_make_directory,
    Client._storm_make_directory,
    Client._storm_remove_directory,
    Client._storm_times,
]


def main():
    host, port, share = sys.argv[1:4]
    client = Client(host, int(port), share, json.loads(sys.stdin.readline()))
    print(json.dumps({"ok": {}}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        operation = getattr(client, request.pop("do"))
        try:
            answer = {"ok": operation(**request)}
        except Exception as error:
            if "STATUS" not in str(error):
                raise
            answer = {"refused": str(error)}
        print(json.dumps(answer), flush=True)


main()
