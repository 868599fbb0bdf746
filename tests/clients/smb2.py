"""SMB2/3 requests as bytes on the wire ([MS-SMB2] 2.2), over a connection that impacket has made and logged in.

impacket has no compound requests, no create contexts, and does not know what becomes of a file with two handles.
"""

import struct

from impacket.nt_errors import ERROR_MESSAGES
from impacket.smb3structs import SMB2_DIALECT_30
from impacket.smbconnection import SMBConnection

CREATE, CLOSE, FLUSH, READ, WRITE, LOCK, IOCTL, CANCEL, QUERY_INFO, SET_INFO = 5, 6, 7, 8, 9, 10, 11, 12, 16, 17
RELATED = 4
# In a related request: the file that the one before it has opened.
SAME_FILE = b"\xff" * 16
HEADER = 64
WRITE_THROUGH = 1
IS_FSCTL = 1
# What the server may answer to an ioctl.
IOCTL_ANSWER = 1024


class Refused(Exception):
    """The server's status, by name."""

    def __init__(self, status):
        super().__init__(ERROR_MESSAGES.get(status, (f"STATUS_{status:#x}",))[0])


class Connection:
    def __init__(self, host, port, share, login):
        self.made = SMBConnection(host, host, sess_port=port, preferredDialect=SMB2_DIALECT_30)
        self.made.login(login["user"], login["password"])
        self.smb = self.made.getSMBServer()
        self.tree = self.made.connectTree(share)

    def drop(self):
        """As when the cable is cut: no logoff, no close."""
        self.smb.get_socket().close()

    def request(self, command, body, charge=1):
        """Sends one request and gives the body of its answer."""
        return self.answer(self._send(command, body, charge))

    def answer(self, number):
        """Waits for the answer to a request that was sent; others may be sent and answered meanwhile."""
        answer = self.smb.recvSMB(number)
        if answer["Status"] != 0:
            raise Refused(answer["Status"])
        return answer["Data"]

    def post(self, command, body, charge=1):
        """Sends one request; its answer is left where it is."""
        number = self._send(command, body, charge)
        # Each credit takes a number of its own. impacket counts the first when it sends, the others with the answer.
        self.smb._Connection["SequenceWindow"] = number + charge
        return number

    def cut(self, command, body, charge, missing):
        """Sends one request but for its last `missing` bytes, and then the cable is cut."""
        packet = self._packet(command, body)
        packet["CreditCharge"] = charge
        packet["MessageID"] = self.smb._Connection["SequenceWindow"]
        packet["SessionID"] = self.smb._Session["SessionID"]
        data = packet.getData()
        self.smb.get_socket().sendall(struct.pack(">I", len(data)) + data[: len(data) - missing])
        self.drop()

    def _send(self, command, body, charge):
        packet = self._packet(command, body)
        packet["CreditCharge"] = charge
        return self.smb.sendSMB(packet)

    def cancel(self, number):
        """Asks for the end of a request that was sent. It has no answer of its own, and no number."""
        packet = self._packet(CANCEL, struct.pack("<HH", 4, 0))
        packet["MessageID"] = number
        packet["SessionID"] = self.smb._Session["SessionID"]
        self.smb._NetBIOSSession.send_packet(packet.getData())

    def compound(self, requests):
        """Sends (command, body) pairs in one packet, each about the file of the first."""
        state = self.smb._Connection
        wire = b""
        for index, (command, body) in enumerate(requests):
            packet = self._packet(command, body)
            packet["CreditCharge"] = 1
            packet["CreditRequestResponse"] = 127
            packet["Flags"] = RELATED if index else 0
            packet["MessageID"] = state["SequenceWindow"]
            packet["SessionID"] = self.smb._Session["SessionID"]
            state["SequenceWindow"] += 1
            data = packet.getData()
            if index < len(requests) - 1:
                data += bytes(-len(data) % 8)
                packet["NextCommand"] = len(data)
                data = packet.getData() + bytes(len(data) - len(packet.getData()))
            wire += data
        self.smb._NetBIOSSession.send_packet(wire)
        received = 0
        while received < len(requests):
            part = self.smb._NetBIOSSession.recv_packet(60).get_trailer()
            while part:
                (following,) = struct.unpack_from("<I", part, 20)
                (status,) = struct.unpack_from("<I", part, 8)
                if status != 0:
                    raise Refused(status)
                received += 1
                part = part[following:] if following else b""

    def _packet(self, command, body):
        packet = self.smb.SMB_PACKET()
        packet["Command"] = command
        packet["TreeID"] = self.tree
        packet["Data"] = body
        return packet

    def create(self, *arguments, **options):
        """Gives the file's id."""
        return self.request(CREATE, create(*arguments, **options))[64:80]

    def close(self, file):
        self.request(CLOSE, close(file))

    def flush(self, file):
        self.request(FLUSH, flush(file))

    def write(self, file, content, offset, flags=0):
        self.request(WRITE, write(file, content, offset, flags), charge(content))

    def read(self, file, offset, length):
        head = struct.pack("<HBBIQ16sIIIHHB", 49, 0, 0, length, offset, file, 0, 0, 0, 0, 0, 0)
        answer = self.request(READ, head)
        (start,) = struct.unpack_from("<B", answer, 2)
        (got,) = struct.unpack_from("<I", answer, 4)
        return answer[start - HEADER : start - HEADER + got]

    def set_info(self, file, kind, info_class, content, additional=0):
        head = struct.pack("<HBBIHHI16s", 33, kind, info_class, len(content), HEADER + 32, 0, additional, file)
        self.request(SET_INFO, head + content)

    def query_info(self, file, kind, info_class, additional=0):
        head = struct.pack("<HBBIHHIII16s", 41, kind, info_class, 65536, 0, 0, 0, additional, 0, file)
        answer = self.request(QUERY_INFO, head + b"\0")
        start, length = struct.unpack_from("<HI", answer, 2)
        return answer[start - HEADER : start - HEADER + length]

    def ioctl(self, file, code, content):
        head = struct.pack(
            "<HHI16sIIIIIIII", 57, 0, code, file, HEADER + 56, len(content), 0, 0, 0, IOCTL_ANSWER, IS_FSCTL, 0
        )
        answer = self.request(IOCTL, head + content)
        start, length = struct.unpack_from("<II", answer, 32)
        return answer[start - HEADER : start - HEADER + length]


def create(path, access, share, disposition, options, attributes, oplock=0, contexts=()):
    """`contexts`: pairs of a name and the data."""
    name = path.replace("/", "\\").encode("utf-16le")
    blob = _contexts(contexts)
    start = HEADER + 56 + len(name)
    padding = bytes(-start % 8)
    head = struct.pack(
        "<HBBIQQIIIIIHHII", 57, 0, oplock, 2, 0, 0, access, attributes, share, disposition, options,
        HEADER + 56, len(name), start + len(padding) if blob else 0, len(blob),
    )  # fmt: skip
    return head + (name + padding + blob if blob else name or b"\0")


def write(file, content, offset, flags=0):
    return struct.pack("<HHIQ16sIIHHI", 49, HEADER + 48, len(content), offset, file, 0, 0, 0, 0, flags) + content


def lock(file, offset, length, flags):
    return struct.pack("<HHI16sQQII", 48, 1, 0, file, offset, length, flags, 0)


def flush(file):
    return struct.pack("<HHI16s", 24, 0, 0, file)


def close(file):
    return struct.pack("<HHI16s", 24, 0, 0, file)


def charge(content):
    """Credits that a request with that much content costs."""
    return 1 + max(len(content) - 1, 0) // 65536


def _contexts(contexts):
    blob = b""
    for index, (name, data) in enumerate(contexts):
        head = 16 + len(name)
        start = head + -head % 8
        one = struct.pack("<HHHHI", 16, len(name), 0, start if data else 0, len(data))
        one += name + bytes(start - head) + data
        one += bytes(-(4 + len(one)) % 8)
        last = index == len(contexts) - 1
        blob += struct.pack("<I", 0 if last else 4 + len(one)) + one
    return blob
