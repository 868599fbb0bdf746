"""An SMB client that keeps handles open. Started as: session.py HOST PORT SHARE; see serve.py."""

import base64
import random
import struct
import time

import security
import smb2
from serve import serve
from storm import storm

FULL_ACCESS = 0x001F01FF  # everything that a client with full control asks for
SHARE_ALL = 7
DISPOSITIONS = {"supersede": 0, "open": 1, "create": 2, "open_if": 3, "overwrite": 4, "overwrite_if": 5}
DIRECTORY, NON_DIRECTORY, DELETE_ON_CLOSE = 0x1, 0x40, 0x1000
NORMAL = 0x80
BATCH_OPLOCK = 9
FILE, SECURITY = 1, 3
BASIC, RENAME, LINK, DISPOSITION, EXTENDED, ALLOCATION, END_OF_FILE = 4, 10, 11, 13, 15, 19, 20
SET_SPARSE, SET_ZERO_DATA, SET_COMPRESSION = 0x000900C4, 0x000980C8, 0x0009C040
EXCLUSIVE_LOCK = 2
REQUEST_RESUME_KEY, COPYCHUNK, DUPLICATE_EXTENTS = 0x00140078, 0x001480F2, 0x00098344
WRITE_LIMIT = 1 << 20
# smbd finds out that a client is gone when it reads from the connection; takes milliseconds.
RECONNECT_LIMIT = 20


class Client:
    def __init__(self, host, port, share, login):
        self.target = (host, port, share, login)
        self.smb = smb2.Connection(*self.target)
        self.handles = {}
        self.paths = {}
        self.last = 0

    def create(
        self,
        path,
        disposition="open_if",
        directory=None,
        delete_on_close=False,
        attributes=NORMAL,
        access=None,
        durable=False,
        allocation=None,
        extended=None,
        descriptor=None,
        apple=False,
        snapshot=None,
    ):
        options = {None: 0, True: DIRECTORY, False: NON_DIRECTORY}[directory]
        if delete_on_close:
            options |= DELETE_ON_CLOSE
        contexts = []
        if extended is not None:
            contexts.append((b"ExtA", _extended(extended)))
        if descriptor is not None:
            contexts.append((b"SecD", security.descriptor(**descriptor)[0]))
        if allocation is not None:
            contexts.append((b"AlSi", struct.pack("<Q", allocation)))
        if durable:
            contexts.append((b"DHnQ", bytes(16)))
        if apple:
            # What a Mac asks of its first file: what server and volume can do.
            contexts.append((b"AAPL", struct.pack("<IIQQ", 1, 0, 7, 7)))
        if snapshot is not None:
            contexts.append((b"TWrp", struct.pack("<Q", snapshot)))
        file = self.smb.create(
            path,
            FULL_ACCESS if access is None else access,
            SHARE_ALL,
            DISPOSITIONS[disposition],
            options,
            attributes,
            BATCH_OPLOCK if durable else 0,
            contexts,
        )
        return self._remember(path, file)

    def create_write_close(self, path, data):
        """In one packet."""
        content = base64.b64decode(data)
        body = smb2.create(path, FULL_ACCESS, SHARE_ALL, DISPOSITIONS["overwrite_if"], NON_DIRECTORY, NORMAL)
        self.smb.compound(
            [
                (smb2.CREATE, body),
                (smb2.WRITE, smb2.write(smb2.SAME_FILE, content, 0)),
                (smb2.CLOSE, smb2.close(smb2.SAME_FILE)),
            ]
        )

    def lose_connection(self):
        self.smb.drop()

    def reconnect(self, handle):
        """Comes back to a durable handle after the connection was lost; the others are gone."""
        self.smb = smb2.Connection(*self.target)
        path, file = self.paths[handle], self.handles[handle]
        arguments = (path, FULL_ACCESS, SHARE_ALL, DISPOSITIONS["open"], 0, NORMAL, BATCH_OPLOCK, [(b"DHnC", file)])
        end = time.monotonic() + RECONNECT_LIMIT
        while True:
            try:
                return self._remember(path, self.smb.create(*arguments))
            except smb2.Refused:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def read(self, handle, offset, length):
        return {"data": base64.b64encode(self.smb.read(self.handles[handle], offset, length)).decode()}

    def write(self, handle, offset, data, through=False):
        self.write_bytes(handle, base64.b64decode(data), offset, smb2.WRITE_THROUGH if through else 0)

    def write_bytes(self, handle, content, offset, flags=0):
        for start in range(0, len(content), WRITE_LIMIT):
            part = content[start : start + WRITE_LIMIT]
            self.smb.write(self.handles[handle], part, offset + start, flags)

    def post(self, handle, offset, length, seed):
        """A write whose answer nobody waits for. No other request may follow on this connection."""
        content = random.Random(seed).randbytes(length)
        self.smb.post(smb2.WRITE, smb2.write(self.handles[handle], content, offset), smb2.charge(content))

    def cut_write(self, handle, offset, data, missing):
        """A write whose last bytes never come: the connection ends before. Only `reconnect` may follow."""
        content = base64.b64decode(data)
        self.smb.cut(smb2.WRITE, smb2.write(self.handles[handle], content, offset), smb2.charge(content), missing)

    def cancelled_write(self, handle, offset, data):
        """A write that the client wants no more as soon as it is sent. The server may end it or not."""
        content = base64.b64decode(data)
        number = self.smb.post(smb2.WRITE, smb2.write(self.handles[handle], content, offset), smb2.charge(content))
        self.smb.cancel(number)
        self.smb.answer(number)

    def lock(self, handle, offset, length):
        """Bytes that nobody else may write; waits until they are free."""
        self.smb.request(smb2.LOCK, smb2.lock(self.handles[handle], offset, length, EXCLUSIVE_LOCK))

    def cancelled_lock(self, handle, offset, length):
        """Bytes that another client has locked: waits for them, and wants them no more. Gives what the server says of that."""
        number = self.smb.post(smb2.LOCK, smb2.lock(self.handles[handle], offset, length, EXCLUSIVE_LOCK))
        self.smb.cancel(number)
        try:
            self.smb.answer(number)
        except smb2.Refused as refused:
            return {"status": str(refused)}
        return {"status": "STATUS_SUCCESS"}

    def random_writes(self, handle, count, size, span, seed):
        """`count` writes of `size` random bytes, each at its own multiple of `size` below `span`."""
        source = random.Random(seed)
        offsets = [place * size for place in source.sample(range(span // size), count)]
        for offset in offsets:
            self.write_bytes(handle, source.randbytes(size), offset)
        return {"offsets": offsets}

    def fill(self, handle, offset, length, seed):
        """Random bytes, one after another."""
        source = random.Random(seed)
        for start in range(offset, offset + length, WRITE_LIMIT):
            self.write_bytes(handle, source.randbytes(min(WRITE_LIMIT, offset + length - start)), start)

    def truncate(self, handle, size):
        self._set(handle, END_OF_FILE, struct.pack("<Q", size))

    def allocate(self, handle, size):
        """Sets the space that is kept for the file; less than its size cuts it."""
        self._set(handle, ALLOCATION, struct.pack("<Q", size))

    def set_sparse(self, handle, sparse=True):
        self._fsctl(handle, SET_SPARSE, bytes([sparse]))

    def zero(self, handle, start, end):
        self._fsctl(handle, SET_ZERO_DATA, struct.pack("<QQ", start, end))

    def compress(self, handle):
        self._fsctl(handle, SET_COMPRESSION, struct.pack("<H", 1))

    def copy_range(self, source, source_offset, target, target_offset, length):
        """The server copies: the bytes do not come through the client."""
        chunk = struct.pack("<QQII", source_offset, target_offset, length, 0)
        self._copy(source, target, struct.pack("<II", 1, 0) + chunk)

    def copy_file(self, source, target):
        """As a Mac asks for a copy of a whole file: with no range at all."""
        self._copy(source, target, struct.pack("<II", 0, 0))

    def duplicate_range(self, source, source_offset, target, target_offset, length):
        """Both files have the same space on disk afterwards."""
        ranges = struct.pack("<QQQ", source_offset, target_offset, length)
        self._fsctl(target, DUPLICATE_EXTENTS, self.handles[source] + ranges)

    def flush(self, handle):
        self.smb.flush(self.handles[handle])

    def begin_flush(self, handle):
        """Sends it, and leaves the answer where it is until `end_flush`."""
        self.flushing = self.smb.post(smb2.FLUSH, smb2.flush(self.handles[handle]))

    def end_flush(self):
        self.smb.answer(self.flushing)

    def close(self, handle):
        self.smb.close(self.handles.pop(handle))

    def delete_on_close(self, handle, delete=True):
        self._set(handle, DISPOSITION, bytes([delete]))

    def rename_open(self, handle, new, replace):
        self._set(handle, RENAME, _target(new, replace))

    def link(self, handle, new, replace):
        self._set(handle, LINK, _target(new, replace))

    def set_basic(self, handle, created=0, accessed=0, written=0, attributes=0):
        """Times in units of 100 ns since 1601, and DOS attributes; 0 leaves them."""
        self._set(handle, BASIC, struct.pack("<QQQQII", created, accessed, written, 0, attributes, 0))

    def set_extended(self, handle, attributes):
        """Sets extended attributes; one without a value is removed."""
        self._set(handle, EXTENDED, _extended(attributes))

    def set_security(self, handle, descriptor):
        content, parts = security.descriptor(**descriptor)
        self.smb.set_info(self.handles[handle], SECURITY, 0, content, parts)

    def grant(self, handle, sid, mask):
        """Adds an entry to the file's access control list."""
        file = self.handles[handle]
        old = self.smb.query_info(file, SECURITY, 0, security.DACL)
        self.smb.set_info(file, SECURITY, 0, security.with_entry(old, {"sid": sid, "mask": mask}), security.DACL)

    def storm(self, seed, count, names):
        return {"done": storm(self, seed, count, names)}

    def _remember(self, path, file):
        self.last += 1
        self.handles[self.last] = file
        self.paths[self.last] = path
        return {"handle": self.last}

    def _set(self, handle, information, content):
        self.smb.set_info(self.handles[handle], FILE, information, content)

    def _fsctl(self, handle, code, content):
        return self.smb.ioctl(self.handles[handle], code, content)

    def _copy(self, source, target, ranges):
        key = self._fsctl(source, REQUEST_RESUME_KEY, b"")[:24]
        self._fsctl(target, COPYCHUNK, key + ranges)


def _target(path, replace):
    """Where a rename or a link leads."""
    name = path.replace("/", "\\").encode("utf-16le")
    return struct.pack("<B7xQI", replace, 0, len(name)) + name


def _extended(attributes):
    """FILE_FULL_EA_INFORMATION, one after another at multiples of 4."""
    blob = b""
    for index, (name, value) in enumerate(attributes.items()):
        name, value = name.encode(), value.encode()
        one = struct.pack("<BBH", 0, len(name), len(value)) + name + b"\0" + value
        one += bytes(-len(one) % 4)
        last = index == len(attributes) - 1
        blob += struct.pack("<I", 0 if last else 4 + len(one)) + one
    return blob


serve(Client)
