"""An SMB1 client with the UNIX extensions. Started as: unix1.py HOST PORT SHARE; see serve.py."""

import base64
import struct

from impacket import smb
from impacket.smbconnection import SMBConnection
from serve import serve

SET_FS_INFORMATION, SET_PATH_INFORMATION = 0x0004, 0x0006
# Levels of both
UNIX_INFO = 0x0200
UNIX_BASIC, UNIX_LINK, UNIX_HARD_LINK, POSIX_ACL = 0x0200, 0x0201, 0x0203, 0x0204
POSIX_OPEN, POSIX_UNLINK = 0x0209, 0x020A
READ_AND_WRITE, NO_LEVEL = 4, 0xFFFF
CAPABILITIES = 0x3F  # locks, ACLs, attributes, paths with slashes, opens by path
KEEP = (1 << 64) - 1
KINDS = {"file": 0, "directory": 1, "symlink": 2, "character": 3, "block": 4, "fifo": 5, "socket": 6}
TAGS = {"user_object": 0x01, "user": 0x02, "group_object": 0x04, "group": 0x08, "mask": 0x10, "other": 0x20}
UNICODE = 0x8000
# Before each text and each block of bytes of the oldest commands
BLOCK, TEXT = b"\x01", b"\x04"
# In place of a number of ACL entries
IGNORE = 0xFFFF


class Client:
    def __init__(self, host, port, share, login):
        connection = SMBConnection(host, host, sess_port=port, preferredDialect=smb.SMB_DIALECT)
        connection.login(login["user"], login["password"])
        self.smb = connection.getSMBServer()
        self.tree = connection.connectTree(share)
        self.connection = connection
        version = struct.pack("<HHQ", 1, 0, CAPABILITIES)
        self._transact(SET_FS_INFORMATION, struct.pack("<HH", 0, UNIX_INFO), version)

    def mknod(self, path, kind, mode, major=0, minor=0):
        self._set_basic(path, kind=kind, mode=mode, major=major, minor=minor)

    def chmod(self, path, kind, mode):
        self._set_basic(path, kind=kind, mode=mode)

    def chown(self, path, kind, uid, gid):
        self._set_basic(path, kind=kind, uid=uid, gid=gid)

    def symlink(self, path, target):
        self._set_path(path, UNIX_LINK, target.encode("utf-16le") + b"\0\0")

    def hard_link(self, path, existing):
        self._set_path(path, UNIX_HARD_LINK, existing.encode("utf-16le") + b"\0\0")

    def set_acl(self, path, access, default):
        """Entries are lists of a tag, the rights as a number, and an id where the tag has one. Files have no `default`."""
        entries = b"".join(_entry(*entry) for entry in access + (default or []))
        of_default = IGNORE if default is None else len(default)
        self._set_path(path, POSIX_ACL, struct.pack("<HHH", 1, len(access), of_default) + entries)

    def open(self, path):
        """A file that is there, for reading and writing."""
        answer = self._set_path(path, POSIX_OPEN, struct.pack("<IIQH", 0, READ_AND_WRITE, 0, NO_LEVEL))
        return {"file": struct.unpack_from("<H", answer, 2)[0]}

    def close(self, file):
        self.smb.close(self.tree, file)

    def write(self, file, offset, data):
        """By the oldest command for it. Without data it sets the size."""
        content = base64.b64decode(data)
        words = struct.pack("<HHIH", file, len(content), offset, 0)
        self._ask(smb.SMB.SMB_COM_WRITE, words, BLOCK + struct.pack("<H", len(content)) + content)

    def write_andx(self, file, offset, data):
        self.smb.write_andx(self.tree, file, base64.b64decode(data), offset)

    def unlink(self, path):
        self._set_path(path, POSIX_UNLINK, struct.pack("<H", 0))

    def rename(self, path, new):
        # The second text begins at an odd place, and is to stand at an even one.
        texts = TEXT + path.encode("utf-16le") + b"\0\0" + TEXT + b"\0" + new.encode("utf-16le") + b"\0\0"
        self._ask(smb.SMB.SMB_COM_RENAME, struct.pack("<H", 0x16), texts)

    def _set_basic(self, path, kind, mode=KEEP, uid=KEEP, gid=KEEP, major=0, minor=0):
        values = struct.pack(
            "<QQQQQQQIQQQQQ", KEEP, KEEP, KEEP, KEEP, KEEP, uid, gid, KINDS[kind], major, minor, 0, mode, KEEP
        )
        self._set_path(path, UNIX_BASIC, values)

    def _set_path(self, path, level, content):
        parameters = struct.pack("<HI", level, 0) + path.encode("utf-16le") + b"\0\0"
        return self._transact(SET_PATH_INFORMATION, parameters, content)

    def _transact(self, function, parameters, content):
        """Gives the data of the answer."""
        head = 32 + 1 + 2 * 15 + 2 + 3  # header, word count, words, byte count, empty name with its padding
        start = head + len(parameters) + -(head + len(parameters)) % 4
        words = struct.pack(
            "<HHHHBBHIHHHHHBBH", len(parameters), len(content), 2, 0, 0, 0, 0, 0, 0,
            len(parameters), head, len(content), start, 1, 0, function,
        )  # fmt: skip
        content = bytes(3) + parameters + bytes(start - head - len(parameters)) + content
        words, content = self._ask(smb.SMB.SMB_COM_TRANSACTION2, words, content)
        length, place = struct.unpack_from("<HH", words, 12)
        place -= 32 + 1 + len(words) + 2
        return content[place : place + length]

    def _ask(self, command, words, content):
        """Gives words and content of the answer."""
        packet = smb.NewSMBPacket()
        packet["Tid"] = self.tree
        packet["Flags2"] = UNICODE
        request = smb.SMBCommand(command)
        request["Parameters"] = words
        request["Data"] = content
        packet.addCommand(request)
        self.smb.sendSMB(packet)
        answer = self.smb.recvSMB()
        answer.isValidAnswer(command)
        answer = smb.SMBCommand(answer["Data"][0])
        return answer["Parameters"], answer["Data"]


def _entry(tag, rights, identity=None):
    return struct.pack("<BBQ", TAGS[tag], rights, KEEP if identity is None else identity)


serve(Client)
