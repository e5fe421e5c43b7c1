"""The control plane's end of the seam: one worker, kept connected, its commands answered and events in order.

Asyncio only; never loads the engine or aiortc. Every connection, the first one too, begins with a snapshot in
the event stream (`Adopted`): what is not in it is closed(lost). A command whose connection broke is sent
again under the same id, so it happens once.
Not here: the worker (`sfu.worker`), conferences (`bridge.media`).
"""

import asyncio
import contextlib
import itertools
import logging
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from sfu import framing, lock, protocol
from sfu.description import Malformed

log = logging.getLogger(__name__)

REQUEST_S: Final = 10.0  # from asking to the answer, reconnects included
HELLO_S: Final = 5.0
SPAWN_S: Final = 15.0  # from starting a worker process to its welcome
DRAIN_S: Final = 10.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 2.0  # backoff doubles between them, with jitter
MAX_EVENTS: Final = 65_536  # unread; above it the connection is dropped and a snapshot taken
MAX_REQUESTS: Final = 4_096  # unanswered
_EXIT_LOCKED: Final = 3  # as `sfu.__main__`


class ClientError(Exception):
    """Base of what a request can end with. `code` is the worker's, or ours."""

    code: ClassVar[str] = "bug"


class Refused(ClientError):
    code = "refused"


class PeerMalformed(ClientError):
    """The description that was handed in cannot be right."""

    code = "malformed"


class WorkerUnavailable(ClientError):
    """No worker, no answer in time, or it is too busy."""

    code = "unavailable"


class Fenced(WorkerUnavailable):
    """Another owner with a higher epoch has the worker, or it speaks no version of ours: give up."""

    code = "fenced"


class UnknownSession(ClientError):
    code = "unknown_session"


class UnknownTrack(ClientError):
    code = "unknown_track"


class ChannelGone(ClientError):
    code = "closed"


class WorkerBug(ClientError):
    code = "bug"


_ERRORS: Final[dict[str, type[ClientError]]] = {
    kind.code: kind
    for kind in (
        Refused,
        PeerMalformed,
        WorkerUnavailable,
        UnknownSession,
        UnknownTrack,
        ChannelGone,
        WorkerBug,
    )
}


@dataclass(frozen=True, slots=True)
class Adopted:
    """A connection stands. `snapshot` is the whole truth as of now; later events follow.

    `instance` changes when it is another worker process: then everything before is gone.
    """

    instance: str
    port: int
    snapshot: protocol.Snapshot


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke; media goes on. An `Adopted` follows unless the client was closed or fenced."""


Happening = Adopted | Lost | protocol.Event


class Client:
    """One worker, from `run` to `close`. Safe within one event loop."""

    def __init__(self, socket: Path, *, owner: str, epoch: int) -> None:
        self._socket: Final = socket
        self._hello: Final = protocol.Hello(
            low=protocol.OLDEST_VERSION, high=protocol.VERSION, owner=owner, epoch=epoch
        )
        self._ids = (f"{number:x}" for number in itertools.count(1))
        self._frames = framing.ServerFrames()
        self._asked: dict[str, tuple[bytes, asyncio.Future[protocol.Reply]]] = {}
        self._snapshot_id = ""
        self._writer: asyncio.StreamWriter | None = None
        self._events: deque[Happening] = deque()
        self._news = asyncio.Event()
        self._connected = asyncio.Event()
        self._is_closed = False
        self._fault: ClientError | None = None

    async def run(self) -> None:
        """Stay connected until `close`, or raise `Fenced`. Run it in the caller's TaskGroup."""
        delay_s = FIRST_RETRY_S
        try:
            while not self._has_ended():
                try:
                    if await self._attend():
                        delay_s = FIRST_RETRY_S
                except (OSError, TimeoutError, Malformed) as why:
                    log.debug("worker not reached", extra={"fault": type(why).__name__})
                if self._has_ended():
                    return
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
        except Fenced as why:
            self._fault = why
            raise
        finally:
            self._is_closed = True
            self._news.set()
            self._connected.set()
            for _, answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(self._fault or WorkerUnavailable("client closed"))
            self._asked.clear()

    async def connected(self, timeout_s: float = SPAWN_S) -> None:
        """Return when a connection stands. Raises `WorkerUnavailable`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise WorkerUnavailable("no worker") from None
        if self._has_ended():
            raise self._fault or WorkerUnavailable("client closed")

    async def request(
        self, command: protocol.Command, *, timeout_s: float = REQUEST_S
    ) -> protocol.Reply:
        """The worker's answer; a `Failure` is raised as its error. Sent again after a reconnect."""
        if self._has_ended():
            raise self._fault or WorkerUnavailable("client closed")
        if len(self._asked) >= MAX_REQUESTS:
            raise WorkerUnavailable("too many unanswered commands")
        name = next(self._ids)
        frame = framing.encode(protocol.Request(id=name, command=command))
        answer: asyncio.Future[protocol.Reply] = asyncio.get_running_loop().create_future()
        self._asked[name] = (frame, answer)
        try:
            if self._writer is not None:
                self._writer.write(frame)
            async with asyncio.timeout(timeout_s):
                reply = await answer
        except TimeoutError:
            raise WorkerUnavailable(f"no answer to {type(command).__name__}") from None
        finally:
            self._asked.pop(name, None)
        if isinstance(reply, protocol.Failure):
            raise _ERRORS.get(reply.code, WorkerBug)(reply.text)
        return reply

    async def events(self) -> AsyncIterator[Happening]:
        """Everything that happens, in order, until `close`. One reader only."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._has_ended():
                return
            self._news.clear()
            await self._news.wait()  # no timeout: a worker may be silent for hours

    def close(self) -> None:
        """End `run` and `events`. The worker keeps its sessions."""
        self._is_closed = True
        self._news.set()
        if self._writer is not None:
            self._writer.close()

    # --- inside

    def _has_ended(self) -> bool:
        return self._is_closed

    async def _attend(self) -> bool:
        """One connection from hello to its end; whether it stood."""
        async with asyncio.timeout(HELLO_S):
            reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(framing.encode(self._hello))
            async with asyncio.timeout(HELLO_S):
                first = await self._frames.read(reader)
            if isinstance(first, protocol.Goodbye):
                self._take_goodbye(first)
                return False
            if not isinstance(first, protocol.Welcome):
                return False
            self._writer = writer
            self._ask_everything(writer)
            return await self._read(reader, first)
        finally:
            was_connected = self._connected.is_set() and not self._is_closed
            self._writer = None
            self._connected.clear()
            writer.close()
            if was_connected:
                self._add(Lost())

    def _ask_everything(self, writer: asyncio.StreamWriter) -> None:
        """First what was asked and never answered, then the snapshot that includes its effects."""
        for frame, _ in self._asked.values():
            writer.write(frame)
        self._snapshot_id = f"snapshot-{next(self._ids)}"
        writer.write(
            framing.encode(protocol.Request(id=self._snapshot_id, command=protocol.TakeSnapshot()))
        )

    async def _read(self, reader: asyncio.StreamReader, welcome: protocol.Welcome) -> bool:
        while not self._has_ended():
            frame = await self._frames.read(reader)
            match frame:
                case None:
                    return True
                case protocol.Notice(event=event):
                    if not self._add(event):
                        return True
                case protocol.Response(id=name, reply=protocol.Snapshot() as snapshot) if (
                    name == self._snapshot_id
                ):
                    self._add(Adopted(welcome.instance, welcome.port, snapshot))
                    self._connected.set()
                case protocol.Response(id=name, reply=reply):
                    _, answer = self._asked.get(name, (b"", None))
                    if answer is not None and not answer.done():
                        answer.set_result(reply)
                case protocol.Goodbye():
                    self._take_goodbye(frame)
                    return True
                case _:
                    return False
        return True

    def _take_goodbye(self, goodbye: protocol.Goodbye) -> None:
        if goodbye.reason in ("fenced", "version"):
            raise Fenced(goodbye.reason)
        log.warning("worker said goodbye", extra={"reason": goodbye.reason})

    def _add(self, happening: Happening) -> bool:
        """Queue for the reader; False when it is too far behind, and then only a snapshot helps."""
        if len(self._events) >= MAX_EVENTS:
            log.error("events not read", extra={"events": len(self._events)})
            self._events.clear()
            return False
        self._events.append(happening)
        self._news.set()
        return True


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How to start a worker process."""

    socket: Path
    lock: Path
    log: Path
    listen: Sequence[str] = ("127.0.0.1",)
    port: int = 0
    advertise: Sequence[str] = ()
    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    tcp: bool = True
    dscp: bool = True
    shards: int = 1
    orphan_s: float = 600.0
    log_level: str = "info"

    def command_line(self) -> list[str]:
        lists = {
            "--advertise": self.advertise,
            "--allow": self.allow,
            "--deny": self.deny,
        }
        return [
            *(sys.executable, "-m", "sfu"),
            *("--socket", str(self.socket), "--lock", str(self.lock)),
            *("--listen", *self.listen, "--port", str(self.port)),
            *(word for name, items in lists.items() if items for word in (name, *items)),
            "--tcp" if self.tcp else "--no-tcp",
            "--dscp" if self.dscp else "--no-dscp",
            *("--shards", str(self.shards)),
            *("--orphan-s", str(self.orphan_s), "--log-level", self.log_level),
        ]


async def spawn(options: WorkerOptions) -> subprocess.Popen[bytes] | None:
    """Make sure a worker listens on the socket: use the one that runs, or start one.

    The process if we started one; keep it, its exit status is read through it. It lives in a session of
    its own, so it survives us; it holds the lock, so two of us cannot start two.
    Raises `WorkerUnavailable`.
    """
    if await _listens(options.socket):
        return None
    deadline = time.monotonic() + SPAWN_S
    process: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        if process is None and lock.is_free(options.lock):
            process = _start(options)
            log.info("worker started", extra={"pid": process.pid})
        if await _listens(options.socket):
            return process
        if process is not None and process.poll() is not None:
            if process.returncode != _EXIT_LOCKED:
                raise WorkerUnavailable(f"worker ended with {process.returncode}; see its log")
            process = None  # somebody else was faster; his will listen soon
        await asyncio.sleep(FIRST_RETRY_S)
    raise WorkerUnavailable("worker does not listen")


def _start(options: WorkerOptions) -> subprocess.Popen[bytes]:
    # Not asyncio's subprocess: its transport kills the child when our loop ends.
    try:
        descriptor = os.open(
            options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
    except OSError as why:
        raise WorkerUnavailable("worker log cannot be written") from why
    try:
        return subprocess.Popen(
            options.command_line(),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    except OSError as why:
        raise WorkerUnavailable("worker cannot be started") from why
    finally:
        os.close(descriptor)


async def _listens(socket: Path) -> bool:
    try:
        async with asyncio.timeout(HELLO_S):
            _, writer = await asyncio.open_unix_connection(socket)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def stop(client: Client) -> None:
    """Drain the worker: it closes everything and ends. Silent when it is gone already."""
    with contextlib.suppress(ClientError):
        await client.request(protocol.Drain(), timeout_s=DRAIN_S)
