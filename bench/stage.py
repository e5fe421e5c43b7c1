"""A worker with a cast: everybody's sockets, their joins, and what is measured while they send.

The worker is a process of its own (`python -m sfu`); everything reaches it through `sfu.client`. With two CPUs or
more and one shard, the worker has one CPU and the load tool another.
Not here: who takes part (`bench.scenarios`), what a run prints and stores.
"""

import asyncio
import contextlib
import os
import resource
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.cast import Cast
from bench.handshake import RECEIVE_BUFFER_BYTES, new_socket, now_ns
from bench.load import Load, build, load
from bench.peer import Peer, Wanted, track_name
from sfu import client as sfu_client
from sfu.client import Client, Happening, WorkerOptions
from sfu.dtls import Certificate

JOIN_S: Final = 60.0
JOINS_AT_ONCE: Final = 4
WINDOW: Final = 128  # packets ahead of the slowest receiver when saturating
UNLIMITED: Final = 1_000_000  # packets/s
WARM_UP_S: Final = 1.0
CAUGHT_UP_S: Final = 1.0  # who joined last is at the present by then
WORKER_END_S: Final = 10.0
Hear = Callable[[Happening], None]
MAX_BUFFERS_BYTES: Final = 512 << 20  # of all sockets together, when nobody reads
_COUNTED: Final = (
    *(
        "sent",
        "sent_bytes",
        "resent",
        "copies",
        "bytes",
        "layer_0",
        "layer_1",
        "layer_2",
        "lost",
        "lost_audio",
    ),
    *("recovered", "opened", "forged", "others", "eaten", "keys_asked", "nacks", "asked"),
    *("sink_cpu_ns", "sender_cpu_ns"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the worker runs. `environment` is added to ours.

    A worker that is saturated on purpose must not shed the video that is to be counted.
    """

    shards: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    sheds: bool = False


@dataclass(slots=True)
class Stage:
    """A worker with its cast; nobody has joined yet."""

    client: Client
    pid: int
    tool: Load
    speakers: list[Peer]
    listeners: list[Peer]
    join_ms: list[float] = field(default_factory=list)
    handshake_ms: list[float] = field(default_factory=list)
    join_cpu: machine.Cpu = field(default_factory=lambda: machine.Cpu(0, 0, 0))
    join_wall_s: float = 0.0

    async def join(
        self, *, at_once: int = JOINS_AT_ONCE, hears: bool = True, speaks: bool = True
    ) -> None:
        """The speakers, then everybody else, so many at the same time; each until its first decrypted packet."""
        for peer in self.speakers:
            await peer.open()
        await in_turn(self.speakers, at_once, self._arrive)
        if speaks:
            self.speak()
        started_ns, before = now_ns(), machine.cpu(self.pid)

        async def arrive(peer: Peer) -> None:
            began_ns = now_ns()
            await peer.open()
            await self._arrive(peer)
            self.handshake_ms.append((now_ns() - began_ns) / 1e6)
            if hears:
                first_ns = await self.tool.first_packet(peer.number, JOIN_S)
                self.join_ms.append((first_ns - began_ns) / 1e6)

        await in_turn(self.listeners, at_once, arrive)
        self.join_cpu = machine.cpu(self.pid).since(before)
        self.join_wall_s = (now_ns() - started_ns) / 1e9
        await asyncio.sleep(CAUGHT_UP_S)

    def speak(self) -> None:
        """Everybody who has something to send begins."""
        for peer in self.speakers:
            for stream in peer.sending:
                self.tool.send(stream)

    async def _arrive(self, peer: Peer) -> None:
        self.tool.add(peer.number, await peer.connect())

    async def saturate(self, seconds: float) -> dict[str, Any]:
        """As much of track 0 as the worker takes, for so long."""
        self.tool.pace(UNLIMITED, window=WINDOW)
        found = await self.measure(seconds)
        self.tool.pace(0)
        return found

    async def offer(self, packets_per_s: int, seconds: float) -> dict[str, Any]:
        """A fixed rate of track 0, whatever comes of it."""
        return await offer(self.tool, self.pid, packets_per_s, seconds)

    async def measure(self, seconds: float) -> dict[str, Any]:
        """What happens meanwhile, after a moment to settle."""
        return await measure(self.tool, self.pid, seconds)


async def in_turn(all_of: list[Any], at_once: int, do: Callable[[Any], Awaitable[None]]) -> None:
    """`do` with each of them, so many at the same time."""
    waiting = all_of[::-1]

    async def work() -> None:
        while waiting:
            await do(waiting.pop())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(at_once, len(all_of))):
            tasks.create_task(work())


async def offer(tool: Load, pid: int, packets_per_s: int, seconds: float) -> dict[str, Any]:
    """What happens at a fixed rate of track 0."""
    tool.pace(packets_per_s)
    found = await measure(tool, pid, seconds)
    tool.pace(0)
    return found


async def measure(tool: Load, pid: int, seconds: float) -> dict[str, Any]:
    """What the tool and a server's process count meanwhile."""
    await asyncio.sleep(WARM_UP_S)
    before, cpu_before = await tool.report(), machine.cpu(pid)
    sends_before = machine.udp_sends()
    await asyncio.sleep(seconds)
    after, cpu_after = await tool.report(), machine.cpu(pid)
    sends = machine.udp_sends() - sends_before
    used = cpu_after.since(cpu_before)
    wall_s = (after["now_ns"] - before["now_ns"]) / 1e9
    counted = {name: after[name] - before[name] for name in _COUNTED}
    copies = counted["copies"]
    others = counted["sent"] + counted["resent"] + counted["asked"]
    server_sends = max(sends - others, 1)  # a few are other people's
    return {
        **counted,
        "incoming": after["incoming"],
        "wall_s": wall_s,
        "server_cpu_s": used.process_s,
        "server_cpu_share": used.process_s / wall_s,
        "engine_cpu_s": used.engine_s,
        "engine_waited_s": used.engine_waited_s,
        "shards_cpu_s": used.shards_s,
        "engine_busy": (used.engine_s + used.engine_waited_s) / wall_s,
        "copies_per_s": copies / wall_s,
        "copies_per_cpu_s": copies / used.process_s if used.process_s else 0.0,
        "down_bps": counted["bytes"] * 8 / wall_s,
        "copies_per_send": copies / server_sends,
        "copy_bytes": counted["bytes"] / copies if copies else 0.0,
        **{name: after[name] for name in after if name.startswith(("delay", "repair"))},
        "resident_bytes": machine.resident_bytes(pid),
        "load_average": machine.load_average(),
    }


@asynccontextmanager
async def worker(
    directory: Path, setting: Setting, heard: Hear | None = None
) -> AsyncIterator[tuple[Client, int]]:
    """`python -m sfu` on loopback, and an owner connected to it, who is told its events."""
    options = WorkerOptions(
        socket=directory / "sfu.sock",
        lock=directory / "sfu.lock",
        log=directory / "sfu.log",
        shards=setting.shards,
        orphan_s=60,
        log_level="warning",
    )
    environment = {} if setting.sheds else {"PARLEY_NO_SHEDDING": "1"}
    with _environment({**environment, **setting.environment}):
        process = await sfu_client.spawn(options)
    assert process is not None
    machine.pin(process.pid, machine.SERVER if setting.shards == 1 else None)
    client = Client(options.socket, owner="bench", epoch=1)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.run())
            tasks.create_task(_hear_events(client, heard))
            try:
                await client.connected()
                yield client, process.pid
                await sfu_client.stop(client)
            finally:
                client.close()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, WORKER_END_S)


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Any:
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def _hear_events(client: Client, heard: Hear | None) -> None:
    async for event in client.events():
        if heard is not None:
            heard(event)


def allow_files(count: int) -> None:
    """Sockets for so many people, here and in processes we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


@asynccontextmanager
async def stage(
    cast: Cast, setting: Setting = Setting(), heard: Hear | None = None
) -> AsyncIterator[Stage]:
    """A worker, the load tool and everybody's sockets."""
    binary = await asyncio.to_thread(build)
    allow_files(cast.people + 256)
    buffer = min(RECEIVE_BUFFER_BYTES, MAX_BUFFERS_BYTES // cast.people)
    with contextlib.ExitStack() as files:
        directory = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="parley-bench-")))
        sockets = [files.enter_context(new_socket(buffer_bytes=buffer)) for _ in range(cast.people)]
        async with (
            worker(directory, setting, heard) as (client, pid),
            load(binary, [one.fileno() for one in sockets]) as tool,
        ):
            machine.pin(tool.pid, machine.LOAD if setting.shards == 1 else None)
            found = Stage(client, pid, tool, [], [])
            _populate(found, cast, sockets)
            yield found


def _populate(stage: Stage, cast: Cast, sockets: list[Any]) -> None:
    certificate = Certificate()
    turn = track = 0

    def wanted(tracks: list[tuple[int, Any]]) -> tuple[Wanted, ...]:
        nonlocal turn
        found = []
        for number, media in tracks:
            found.append(
                Wanted(track_name(number), media.kind, cast.wishes[turn % len(cast.wishes)])
            )
            turn += media.kind is media.kind.VIDEO
        return tuple(found)

    for room in range(cast.rooms):
        sends: list[tuple[tuple[int, Any], ...]] = []
        for _ in range(cast.speakers):
            sends.append(tuple(enumerate(cast.media, start=track)))
            track += len(cast.media)
        for seat in range(cast.speakers + cast.listeners):
            number = room * (cast.speakers + cast.listeners) + seat
            is_speaker = seat < cast.speakers
            watches = not is_speaker or cast.speakers_watch
            seen = [one for at, theirs in enumerate(sends) if at != seat for one in theirs]
            peer = Peer(
                stage.client,
                certificate,
                sockets[number],
                number,
                f"room-{room}",
                sends[seat] if is_speaker else (),
                wanted(seen) if watches else (),
                cast.is_unlimited,
            )
            (stage.speakers if is_speaker else stage.listeners).append(peer)
