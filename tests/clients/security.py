"""Security descriptors in self-relative form ([MS-DTYP] 2.4)."""

import struct

SELF_RELATIVE, DACL_PRESENT, DACL_PROTECTED = 0x8000, 0x0004, 0x1000
OWNER, GROUP, DACL = 1, 2, 4
ALLOW, DENY = 0, 1


def sid(text):
    parts = [int(part) for part in text.split("-")[1:]]
    revision, authority, subs = parts[0], parts[1], parts[2:]
    return struct.pack("<BB", revision, len(subs)) + authority.to_bytes(6, "big") + struct.pack(f"<{len(subs)}I", *subs)


def descriptor(owner=None, group=None, entries=None, protected=False):
    """`entries` of the access list: {"sid", "mask", "flags", "deny"}. Gives the bytes, and which parts they have."""
    control, parts, body = SELF_RELATIVE, 0, b""
    offsets = [0, 0, 0]
    for index, (part, content) in enumerate(
        [
            (OWNER, owner and sid(owner)),
            (GROUP, group and sid(group)),
            (DACL, None if entries is None else _acl(entries)),
        ]
    ):
        if content is not None:
            offsets[index] = 20 + len(body)
            body += content
            parts |= part
    if entries is not None:
        control |= DACL_PRESENT | (DACL_PROTECTED if protected else 0)
    owner_at, group_at, dacl_at = offsets
    return struct.pack("<BBHIIII", 1, 0, control, owner_at, group_at, 0, dacl_at) + body, parts


def with_entry(old, entry):
    """The access list of the descriptor `old` with one entry more, as a descriptor that has nothing else."""
    (start,) = struct.unpack_from("<I", old, 16)
    _, _, size, count, _ = struct.unpack_from("<BBHHH", old, start)
    body = old[start + 8 : start + size] + _entry(entry)
    control = SELF_RELATIVE | DACL_PRESENT
    return struct.pack("<BBHIIII", 1, 0, control, 0, 0, 0, 20) + _list(body, count + 1)


def _acl(entries):
    return _list(b"".join(map(_entry, entries)), len(entries))


def _list(body, count):
    return struct.pack("<BBHHH", 2, 0, 8 + len(body), count, 0) + body


def _entry(entry):
    who = sid(entry["sid"])
    kind = DENY if entry.get("deny") else ALLOW
    return struct.pack("<BBHI", kind, entry.get("flags", 0), 8 + len(who), entry["mask"]) + who
