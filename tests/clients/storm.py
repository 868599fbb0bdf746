"""Random changes among few names that other clients change at the same time."""

import contextlib
import random


def storm(client, seed, count, names):
    """What the server refuses, because a name is taken or gone, is part of it. Returns how many changes it took."""
    source = random.Random(seed)
    done = 0
    for _ in range(count):
        change = source.choice(CHANGES)
        try:
            change(client, source, names)
            done += 1
        except Exception as error:
            if "STATUS" not in str(error):
                raise
    return done


def write(client, source, names):
    with opened(client, place(source, names), "open_if") as handle:
        for _ in range(source.randint(1, 4)):
            content = source.randbytes(source.choice([1, 100, 5000, 70000]))
            client.write_bytes(handle, content, source.choice([0, 10, 65536, 100000]))


def truncate(client, source, names):
    with opened(client, place(source, names), "open") as handle:
        client.truncate(handle, source.choice([0, 1, 65536, 65537, 200000]))


def overwrite(client, source, names):
    with opened(client, place(source, names), source.choice(["overwrite_if", "supersede"])) as handle:
        client.write_bytes(handle, source.randbytes(300), 0)


def rename(client, source, names):
    with opened(client, place(source, names), "open") as handle:
        client.rename_open(handle, place(source, names), source.random() < 0.7)


def rename_directory(client, source, names):
    with opened(client, directory(source, names), "open", True) as handle:
        client.rename_open(handle, directory(source, names), False)


def link(client, source, names):
    with opened(client, place(source, names), "open") as handle:
        client.link(handle, place(source, names), source.random() < 0.5)


def delete(client, source, names):
    with opened(client, place(source, names), "open") as handle:
        client.delete_on_close(handle)
        if source.random() < 0.3:
            client.write_bytes(handle, b"gone soon", 0)


def make_directory(client, source, names):
    with opened(client, directory(source, names), "create", True):
        pass


def remove_directory(client, source, names):
    with opened(client, directory(source, names), "open", True) as handle:
        client.delete_on_close(handle)


def times(client, source, names):
    with opened(client, place(source, names), "open") as handle:
        # 2001 and the years after it, in units of 100 ns since 1601
        time = 126227808000000000 + source.randint(0, 10**15)
        client.set_basic(handle, accessed=time, written=time, attributes=source.choice([0x20, 0x80]))


@contextlib.contextmanager
def opened(client, path, disposition, is_directory=False):
    handle = client.create(path, disposition, directory=is_directory)["handle"]
    try:
        yield handle
    finally:
        client.close(handle)


def directory(source, names):
    number = source.randrange(names)
    return f"d{number}" if number % 3 else f"d{source.randrange(names)}/d{number}"


def place(source, names):
    name = f"f{source.randrange(names)}"
    return name if source.random() < 0.3 else f"{directory(source, names)}/{name}"


# Each as often as it stands here.
CHANGES = [write] * 6 + [
    truncate,
    overwrite,
    rename,
    rename,
    rename_directory,
    link,
    delete,
    make_directory,
    make_directory,
    make_directory,
    remove_directory,
    times,
]
