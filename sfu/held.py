"""A listening socket that outlives the process that opened it, so that connections wait instead of being refused.

The worker survives a killed parley (house.md section 2). It holds a second descriptor of the public listener: while
nobody accepts, the kernel completes connections and keeps them in the backlog, and the next parley takes them up.
Some clients (the native LiveKit SDK) begin their whole call anew when the port refuses them once.
One SOCK_SEQPACKET connection per owner, one word per message, the descriptor beside it (SCM_RIGHTS, unix(7)). When
the owner's connection breaks, the worker holds on for `HOLD_S`; who waits longer is better refused.
Not here: which listener that is (`bridge.app`), the control protocol (`sfu.owner`).
"""

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Final, Self

log = logging.getLogger(__name__)

HOLD_S: Final = 20.0
ANSWER_S: Final = 2.0
MAX_OWNERS: Final = (
    4  # connected at once; a new parley comes while the old one's end is not noticed yet
)
_MESSAGE_BYTES: Final = 16
_MAX_DESCRIPTORS: Final = (
    4  # received in one message: more than one is nonsense, and all must be closed
)

_TAKE: Final = b"take"
_KEEP: Final = b"keep"
_DROP: Final = b"drop"
_HERE: Final = b"here"
_NONE: Final = b"none"


def path_beside(control: Path) -> Path:
    """Where the worker with this control socket holds listeners."""
    return control.with_name(control.name + ".held")


async def _readable(end: socket.socket) -> None:
    """Wait until there is a message or the end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(end.fileno(), wake)
    try:
        await ready
    finally:
        loop.remove_reader(end.fileno())


async def _receive(end: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """One message and the sockets beside it; empty at the end."""
    while True:
        await _readable(end)
        with contextlib.suppress(BlockingIOError):
            word, descriptors, _, _ = socket.recv_fds(end, _MESSAGE_BYTES, _MAX_DESCRIPTORS)
            return word, _sockets(descriptors)


def _sockets(descriptors: list[int]) -> list[socket.socket]:
    """What of it is sockets; the rest is closed."""
    found = []
    for descriptor in descriptors:
        try:
            found.append(socket.socket(fileno=descriptor))
        except OSError:
            os.close(descriptor)
    return found


class Holder:
    """The worker's side."""

    def __init__(self, path: Path, hold_s: float = HOLD_S) -> None:
        self._path = path
        self._hold_s = hold_s
        self._held: socket.socket | None = None
        self._owner: socket.socket | None = None  # whose end starts the clock

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the path cannot be used."""
        loop = asyncio.get_running_loop()
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.setblocking(False)
            door.bind(str(self._path))
            self._path.chmod(0o600)
            door.listen(MAX_OWNERS)
            places = asyncio.Semaphore(MAX_OWNERS)
            try:
                async with asyncio.TaskGroup() as tasks:
                    while True:
                        await places.acquire()
                        owner, _ = await loop.sock_accept(door)
                        serving = tasks.create_task(self._serve(owner), name="held-listener")
                        serving.add_done_callback(lambda _: places.release())
            finally:
                self._let_go()
                self._path.unlink(missing_ok=True)

    async def _serve(self, owner: socket.socket) -> None:
        with owner, contextlib.suppress(OSError):
            while word := await self._hear(owner):
                if word == _TAKE and self._held is not None:
                    socket.send_fds(owner, [_HERE], [self._held.fileno()])
                elif word == _TAKE:
                    owner.send(_NONE)
                elif word == _DROP:
                    self._let_go()
        if self._owner is owner:
            self._owner = None
            await asyncio.sleep(self._hold_s)
            if self._owner is None:
                self._let_go()

    async def _hear(self, owner: socket.socket) -> bytes:
        word, sockets = await _receive(owner)
        for one in sockets:
            if word == _KEEP and one is sockets[0] and _is_listening(one):
                self._let_go()
                self._held, self._owner = one, owner
            else:
                one.close()
        return word

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


class Owner:
    """Parley's side: hold it open as long as this process accepts connections."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def connect(cls, path: Path) -> Self | None:
        """None when no worker holds sockets here."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.setblocking(False)
        try:
            end.connect(str(path))
        except OSError:
            end.close()
            return None
        return cls(end)

    async def take(self, address: tuple[str, int]) -> socket.socket | None:
        """The listener that a former process left, if it is bound to this address."""
        try:
            async with asyncio.timeout(ANSWER_S):
                sockets = await self._ask()
                if not sockets:
                    return None
                (one,) = sockets
                if _is_listening(one) and one.getsockname()[:2] == address:
                    one.setblocking(False)
                    return one
                one.close()  # of another configuration: it would be in the way
                self._end.send(_DROP)
                await self._ask()  # and that is done by now
        except (OSError, TimeoutError, ValueError) as why:
            log.warning("no answer about held listeners", extra={"why": str(why)})
        return None

    async def _ask(self) -> list[socket.socket]:
        self._end.send(_TAKE)
        _, sockets = await _receive(self._end)
        return sockets

    def keep(self, listening: socket.socket) -> None:
        """Let the worker hold it too. Best effort: without it a restart refuses connections for a moment."""
        try:
            socket.send_fds(self._end, [_KEEP], [listening.fileno()])
        except OSError as why:
            log.warning("listener not held", extra={"why": str(why)})

    def drop(self) -> None:
        """An orderly end: whoever comes is to be refused."""
        with contextlib.suppress(OSError):
            self._end.send(_DROP)

    def close(self) -> None:
        self._end.close()


def _is_listening(one: socket.socket) -> bool:
    try:
        return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
