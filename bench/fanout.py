"""Scenario A: one publisher, many receivers, the data-plane thread saturated; joins timed on the way.

The worker is a process of its own (`python -m sfu`); everything reaches it through `sfu.client`.
Not here: what a run prints and stores (`bench.quick`).
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.load import Load, load
from bench.peer import PAYLOAD_TYPE, Peer, new_socket, now_ns
from sfu import client as sfu_client
from sfu import protocol
from sfu.client import Client, WorkerOptions
from sfu.dtls import Certificate

PACKET_BYTES: Final = 1_200  # of SRTP, as sent by the publisher
JOIN_RATE: Final = 300  # packets/s while people join: 30 frames/s, 2.9 Mbit/s
JOIN_S: Final = 30.0
WINDOW: Final = 128  # packets ahead of the slowest receiver when saturating
UNLIMITED: Final = 1_000_000
PUBLISHER_SSRC: Final = 0x0BADCAFE
WARM_UP_S: Final = 1.0
CAUGHT_UP_S: Final = 1.0  # who joined last is at the present by then
WORKER_END_S: Final = 10.0


@dataclass(slots=True)
class Room:
    """A worker with one conference in it."""

    client: Client
    pid: int
    tool: Load
    peers: list[Peer]
    join_ms: list[float] = field(default_factory=list)
    handshake_ms: list[float] = field(default_factory=list)
    join_cpu: machine.Cpu = field(default_factory=lambda: machine.Cpu(0, 0, 0))


@asynccontextmanager
async def worker(directory: Path) -> AsyncIterator[tuple[Client, int]]:
    """`python -m sfu` on loopback, and an owner connected to it."""
    options = WorkerOptions(
        socket=directory / "sfu.sock",
        lock=directory / "sfu.lock",
        log=directory / "sfu.log",
        orphan_s=60,
        log_level="warning",
    )
    process = await sfu_client.spawn(options)
    assert process is not None
    client = Client(options.socket, owner="bench", epoch=1)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.run())
            tasks.create_task(_forget_events(client))
            try:
                await client.connected()
                yield client, process.pid
                await sfu_client.stop(client)
            finally:
                client.close()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, WORKER_END_S)


async def _forget_events(client: Client) -> None:
    async for _ in client.events():
        pass


@asynccontextmanager
async def room(binary: Path, receivers: int) -> AsyncIterator[Room]:
    """A worker, the load tool and everybody's sockets; nobody has joined yet."""
    with contextlib.ExitStack() as files:
        directory = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        sockets = [files.enter_context(new_socket()) for _ in range(receivers + 1)]
        certificate = Certificate()
        async with (
            worker(directory) as (client, pid),
            load(binary, [one.fileno() for one in sockets]) as tool,
        ):
            peers = [
                Peer(client, certificate, one, f"peer-{number}", 0 if number else PUBLISHER_SSRC)
                for number, one in enumerate(sockets)
            ]
            yield Room(client, pid, tool, peers)


async def join(room: Room, at_once: int, progress: Callable[[str], None]) -> None:
    """The publisher, then everybody else, so many at the same time; each until its first decrypted packet."""
    publisher, *receivers = room.peers
    keyed = await publisher.connect("room", "camera")
    limits = protocol.Limits(publisher.session, ingress_bps=10**10, ingress_pps=10**6)
    await room.client.request(limits)
    room.tool.publish(
        0, keyed, ssrc=PUBLISHER_SSRC, payload_type=PAYLOAD_TYPE, packet_bytes=PACKET_BYTES
    )
    room.tool.pace(JOIN_RATE)
    waiting = list(enumerate(receivers, start=1))[::-1]

    async def arrive() -> None:
        while waiting:
            number, peer = waiting.pop()
            started_ns = now_ns()
            keyed = await peer.connect("room", "camera")
            room.handshake_ms.append((now_ns() - started_ns) / 1e6)
            room.tool.receive(number, keyed)
            first_ns = await room.tool.first_packet(number, JOIN_S)
            room.join_ms.append((first_ns - started_ns) / 1e6)

    before = machine.cpu(room.pid)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(arrive())
    room.join_cpu = machine.cpu(room.pid).since(before)
    await asyncio.sleep(CAUGHT_UP_S)
    progress(f"{len(room.join_ms)} receivers joined, {at_once} at a time")


async def saturate(room: Room, seconds: float) -> dict[str, Any]:
    """As much as the worker takes, for so long."""
    room.tool.pace(UNLIMITED, window=WINDOW)
    return await _measure(room, seconds)


async def offer(room: Room, packets_per_s: int, seconds: float) -> dict[str, Any]:
    """A fixed rate, whatever comes of it."""
    room.tool.pace(packets_per_s)
    return await _measure(room, seconds)


async def _measure(room: Room, seconds: float) -> dict[str, Any]:
    await asyncio.sleep(WARM_UP_S)
    before, cpu_before = await room.tool.report(), machine.cpu(room.pid)
    sends_before = machine.udp_sends()
    await asyncio.sleep(seconds)
    after, cpu_after = await room.tool.report(), machine.cpu(room.pid)
    sends = machine.udp_sends() - sends_before
    room.tool.pace(0)
    used = cpu_after.since(cpu_before)
    wall_s = (after["now_ns"] - before["now_ns"]) / 1e9
    counted = {
        name: after[name] - before[name]
        for name in (
            *("sent", "copies", "bytes", "lost", "opened", "forged", "others"),
            *("keys_asked", "nacks", "sink_cpu_ns", "sender_cpu_ns"),
        )
    }
    copies = counted["copies"]
    worker_sends = max(sends - counted["sent"], 1)  # a few are other people's
    return {
        **counted,
        "wall_s": wall_s,
        "worker_cpu_s": used.process_s,
        "engine_cpu_s": used.engine_s,
        "engine_waited_s": used.engine_waited_s,
        "copies_per_s": copies / wall_s,
        "copies_per_cpu_s": copies / used.process_s if used.process_s else 0.0,
        "copies_per_engine_cpu_s": copies / used.engine_s if used.engine_s else 0.0,
        "engine_busy": (used.engine_s + used.engine_waited_s) / wall_s,
        "copies_per_send": copies / worker_sends,
        "copy_bytes": counted["bytes"] / copies if copies else 0.0,
        "delay_samples": after["delays"],
        "delay_p50_us": after["delay_p50_us"],
        "delay_p99_us": after["delay_p99_us"],
        "resident_bytes": machine.resident_bytes(room.pid),
        "load_average": machine.load_average(),
    }
