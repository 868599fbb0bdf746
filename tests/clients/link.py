"""A link between two network namespaces: IP packets between two TUN devices, each way late, lossy or cut.

Started as: link.py SEED NAMESPACE DEVICE ADDRESS NAMESPACE DEVICE ADDRESS. A line of JSON sets the ways, {"there": {"cut": false,
"delay_ms": 0, "loss": 0}, "back": {..}}, and is answered with "ok". A kernel without netem can do this; what is lost is lost to the
TCP of both ends as on a bad line. The devices go with this process, which ends when its input does.
"""

import collections
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET = 65536
# Packets on their way in one direction; a router drops more, too.
QUEUE = 1000
PREFIX = 30


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def device(namespace, name, address):
    """The end of the link that gives and takes what the namespace sends and receives."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    asked = struct.pack("16sH22x", b"vfsx%d", IFF_TUN | IFF_NO_PI)
    given = fcntl.ioctl(end, TUNSETIFF, asked)[:16].rstrip(b"\0").decode()
    ip("link", "set", given, "netns", namespace, "name", name)
    ip("-n", namespace, "address", "add", f"{address}/{PREFIX}", "dev", name)
    ip("-n", namespace, "link", "set", name, "up")
    return end


class Way:
    def __init__(self, source, target, seed):
        self.source, self.target = source, target
        self.chance = random.Random(seed)
        self.queue = collections.deque()
        self.set(False, 0, 0)

    def set(self, cut, delay_ms, loss):
        self.cut, self.delay, self.loss = cut, delay_ms / 1000, loss

    def take(self):
        try:
            packet = os.read(self.source, PACKET)
        except OSError:
            return
        lost = self.cut or self.chance.random() < self.loss or len(self.queue) >= QUEUE
        if not lost:
            self.queue.append((time.monotonic() + self.delay, packet))

    def pass_on(self):
        """What is due. Gives the time of the next one."""
        while self.queue and self.queue[0][0] <= time.monotonic():
            _, packet = self.queue.popleft()
            # What is on its way when the line is cut is lost, too.
            if not self.cut:
                try:
                    os.write(self.target, packet)
                except OSError:
                    pass
        return self.queue[0][0] if self.queue else None


def main():
    seed = sys.argv[1]
    near, far = device(*sys.argv[2:5]), device(*sys.argv[5:8])
    ways = {"there": Way(near, far, seed + "there"), "back": Way(far, near, seed + "back")}
    print("ok", flush=True)
    told = b""
    while True:
        due = [at for at in (way.pass_on() for way in ways.values()) if at is not None]
        wait = max(0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([near, far, 0], [], [], wait)
        for way in ways.values():
            if way.source in readable:
                way.take()
        if 0 in readable:
            part = os.read(0, PACKET)
            if not part:
                return
            *lines, told = (told + part).split(b"\n")
            for line in lines:
                for name, condition in json.loads(line).items():
                    ways[name].set(**condition)
                print("ok", flush=True)


main()
