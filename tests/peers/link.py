"""A link between two network namespaces: a TUN device in each, this process in between.

Delay, jitter, loss (single or in bursts), reordering, a rate with a bounded queue, an outage, a path that silently
swallows what is too large. It takes shapes as JSON lines on stdin and answers each with what it saw since the last.
Kernel `netem` is not needed. Python carries about 5,000 packets/s: enough for a call.
Not here: who makes the namespaces (`tests.peers.spaces`), virtual time (engine/core/src/emulator.rs).
"""

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
MAX_PACKET_BYTES = 65_536
MAX_FLYING = 20_000  # packets


@dataclass(frozen=True, slots=True)
class Shape:
    """One direction."""

    latency_ms: float = 0
    jitter_ms: float = 0  # added, uniform from 0; the order is kept
    loss_percent: float = 0
    burst: float = 1  # mean length of a loss
    reorder_percent: float = 0  # packets that fall behind by up to `reorder_ms`
    reorder_ms: float = 0
    rate_kbit: float = 0  # IP bits; 0 = no limit
    queue_ms: float = 300  # what would wait longer for the rate is dropped
    blocked: bool = False
    mtu: int = 0  # larger IP packets vanish without a word; 0 = no limit


@dataclass(slots=True)
class Seen:
    """Since the last question."""

    packets: int = 0
    lost: int = 0
    overflowed: int = 0
    too_large: int = 0
    largest_udp: int = 0  # bytes of payload
    kbytes: float = 0
    longest_queue_ms: float = 0


@dataclass(slots=True)
class Direction:
    out: int  # descriptor
    random: random.Random
    shape: Shape = field(default_factory=Shape)
    seen: Seen = field(default_factory=Seen)
    is_bad: bool = False
    free_at: float = 0
    last_due: float = 0
    count: int = 0
    flying: list[tuple[float, int, bytes]] = field(default_factory=list)

    def _is_lost(self) -> bool:
        shape = self.shape
        if shape.blocked:
            return True
        if shape.loss_percent <= 0:
            return False
        ends = 1 / max(shape.burst, 1)
        share = shape.loss_percent / 100
        if shape.burst <= 1:
            return self.random.random() < share
        begins = ends * share / (1 - share)
        if self.random.random() < (ends if self.is_bad else begins):
            self.is_bad = not self.is_bad
        return self.is_bad

    def enter(self, packet: bytes, now: float) -> None:
        shape, seen, size = self.shape, self.seen, len(packet)
        seen.packets += 1
        if packet[0] >> 4 == 4 and packet[9] == 17:
            seen.largest_udp = max(seen.largest_udp, size - 28)
        if shape.mtu and size > shape.mtu:
            seen.too_large += 1
            return
        if self._is_lost():
            seen.lost += 1
            return
        due = now
        if shape.rate_kbit:
            begins = max(self.free_at, now)
            wait_ms = (begins - now) * 1000
            if wait_ms > shape.queue_ms or len(self.flying) > MAX_FLYING:
                seen.overflowed += 1
                return
            seen.longest_queue_ms = max(seen.longest_queue_ms, wait_ms)
            due = self.free_at = begins + size * 8 / (shape.rate_kbit * 1000)
        seen.kbytes += size / 1000
        due += (shape.latency_ms + self.random.random() * shape.jitter_ms) / 1000
        if self.random.random() * 100 < shape.reorder_percent:
            due += self.random.random() * shape.reorder_ms / 1000
        else:
            due = self.last_due = max(due, self.last_due)
        self.count += 1
        heapq.heappush(self.flying, (due, self.count, packet))

    def leave(self, now: float) -> None:
        while self.flying and self.flying[0][0] <= now:
            try:
                os.write(self.out, heapq.heappop(self.flying)[2])
            except OSError:
                self.seen.overflowed += 1  # the device is going away


def tun(space: str, device: str) -> int:
    """A TUN device made inside a namespace; its descriptor works from anywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path(f"/run/netns/{space}").open() as other:
        if libc.setns(other.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")
        try:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(
                descriptor, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI)
            )
        finally:
            libc.setns(own.fileno(), CLONE_NEWNET)
    return descriptor


def _read_all(descriptor: int, direction: Direction) -> None:
    now = time.monotonic()
    for _ in range(256):
        try:
            packet = os.read(descriptor, MAX_PACKET_BYTES)
        except BlockingIOError:
            return
        direction.enter(packet, now)


def _take_orders(buffer: bytes, down: Direction, up: Direction) -> bytes:
    *lines, rest = buffer.split(b"\n")
    for line in lines:
        order = json.loads(line)
        for name, direction in (("down", down), ("up", up)):
            if name in order:
                direction.shape = Shape(**order[name])
                direction.free_at = 0
        answer = {
            "ok": {
                name: {key: getattr(direction.seen, key) for key in Seen.__slots__}
                for name, direction in (("down", down), ("up", up))
            }
        }
        down.seen, up.seen = Seen(), Seen()
        print(json.dumps(answer), flush=True)
    return rest


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--near", required=True, help="namespace:device of the server's end")
    options.add_argument("--far", required=True, help="namespace:device of the client's end")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    near, far = (tun(*end.split(":")) for end in (given.near, given.far))
    down = Direction(far, random.Random(given.seed))
    up = Direction(near, random.Random(given.seed + 1))
    print(json.dumps({"ready": True}), flush=True)
    orders = sys.stdin.fileno()
    buffer = b""
    while True:
        dues = [way.flying[0][0] for way in (down, up) if way.flying]
        wait_s = max(0.0, min(dues) - time.monotonic()) if dues else 1.0
        ready, _, _ = select.select([near, far, orders], [], [], wait_s)
        if near in ready:
            _read_all(near, down)
        if far in ready:
            _read_all(far, up)
        if orders in ready:
            data = os.read(orders, 65_536)
            if not data:
                return
            buffer = _take_orders(buffer + data, down, up)
        now = time.monotonic()
        down.leave(now)
        up.leave(now)


if __name__ == "__main__":
    main()
