"""The worker's socket: one owner at a time, fenced by epoch, answers and events in one order.

The rules are in `sfu.protocol`. A full socket fills the outbox and nothing else: media never waits.
Not here: commands (`sfu.worker`), encoding (`sfu.framing`), the other end (`sfu.client`).
"""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Final

from sfu import framing, protocol
from sfu.answers import CommandKey
from sfu.description import Malformed
from sfu.outbox import Outbox
from sfu.worker import Worker

log = logging.getLogger(__name__)

HELLO_S: Final = 5.0  # from connecting to the hello
GOODBYE_S: Final = 1.0  # to take our last words
BATCH_BYTES: Final = 65_536  # written between two looks at the socket's buffer
MAX_PENDING: Final = 4_096  # entries in the outbox above which we stop reading commands


class _Connection:
    """One owner connection after its hello."""

    def __init__(
        self, hello: protocol.Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.hello: Final = hello
        self.reader: Final = reader
        self.writer: Final = writer
        self.wake = asyncio.Event()
        self.written = asyncio.Event()
        self._is_ended = False

    def is_over(self) -> bool:
        return self._is_ended

    def end(self, goodbye: protocol.Goodbye | None) -> None:
        """Close from our side; both loops notice. Idempotent."""
        if self._is_ended:
            return
        self._is_ended = True
        if goodbye is not None:
            self.writer.write(framing.encode(goodbye))
        self.writer.close()
        self.wake.set()
        self.written.set()


class OwnerSocket:
    """Listens for owners and serves the one with the highest epoch."""

    def __init__(self, worker: Worker, path: Path) -> None:
        self.instance: Final = secrets.token_hex(8)
        self._worker: Final = worker
        self._path: Final = path
        self._frames = framing.ClientFrames()
        self._highest = (0, "")  # epoch and the owner that has it
        self._current: _Connection | None = None
        self._port = 0
        self._server: asyncio.Server | None = None
        self.drained = asyncio.Event()  # the owner, or somebody, asked us to stop and all is closed
        self.alone_since = time.monotonic()
        worker.on_event = self._wake

    async def open(self, port: int) -> None:
        """Listen. The lock is held by our caller, so a socket file that is there is stale."""
        self._port = port
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Say what is left to say, and stop listening."""
        connection = self._current
        if connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    while len(self._worker.outbox) and not connection.is_over():
                        connection.written.clear()
                        await connection.written.wait()
            connection.end(None)
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._server.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    @property
    def has_owner(self) -> bool:
        return self._current is not None

    def _wake(self) -> None:
        if self._current is not None:
            self._current.wake.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end. Never raises: asyncio would only print what nobody can handle."""
        try:
            connection = await self._greet(reader, writer)
            if connection is not None:
                await self._own(connection)
        except ConnectionError:
            pass  # the owner went away while we wrote; it will come back
        except asyncio.CancelledError:
            # The loop ends and takes its tasks along. It awaits this one, but the stream protocol's callback
            # asks the task for its exception and would log the cancellation as a fault (CPython before 3.12).
            log.debug("owner connection cancelled")
        except Exception:
            log.exception("owner connection failed")
        finally:
            writer.close()

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> _Connection | None:
        """Read the hello; an accepted connection, or None after a goodbye."""
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await self._frames.read(reader)
        except (TimeoutError, Malformed):
            _refuse(writer, "malformed")
            return None
        if hello is None:
            return None  # somebody looked whether we listen
        if not isinstance(hello, protocol.Hello):
            _refuse(writer, "malformed")
            return None
        version = min(hello.high, protocol.VERSION)
        if version < max(hello.low, protocol.OLDEST_VERSION):
            _refuse(writer, "version")
            return None
        if self._worker.is_draining:
            _refuse(writer, "draining")
            return None
        epoch, owner = self._highest
        if hello.epoch < epoch or (hello.epoch == epoch and owner not in ("", hello.owner)):
            _refuse(writer, "fenced")
            return None
        self._highest = (hello.epoch, hello.owner)
        writer.write(
            framing.encode(
                protocol.Welcome(version=version, instance=self.instance, port=self._port)
            )
        )
        return _Connection(hello, reader, writer)

    async def _own(self, connection: _Connection) -> None:
        """Serve one owner until its connection ends or another one takes over."""
        before = self._current
        if before is not None:
            before.end(protocol.Goodbye(reason="fenced"))
            self._worker.abandon()
        self._current = connection
        self._worker.adopt()
        log.info("owner connected", extra={"epoch": connection.hello.epoch})
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(connection), name="owner-write")
                tasks.create_task(self._read(connection), name="owner-read")
        except* ConnectionError:
            pass
        finally:
            connection.end(None)
            if self._current is connection:
                self._current = None
                self.alone_since = time.monotonic()
                self._worker.abandon()
                log.info("owner gone")

    async def _read(self, connection: _Connection) -> None:
        hello = connection.hello
        while not connection.is_over():
            if len(self._worker.outbox) > MAX_PENDING:
                # It does not read our answers: no more questions. Ends with the connection.
                connection.written.clear()
                await connection.written.wait()
                continue
            try:
                frame = await self._frames.read(connection.reader)
            except Malformed:
                connection.end(protocol.Goodbye(reason="malformed"))
                return
            if connection.is_over():
                return  # fenced while we waited: whatever it says now comes too late
            if frame is None:
                connection.end(None)
                return
            if not isinstance(frame, protocol.Request):
                connection.end(protocol.Goodbye(reason="malformed"))
                return
            key = CommandKey(hello.owner, hello.epoch, frame.id)
            reply = self._worker.carry_out(key, frame.command)
            self._worker.outbox.add_response(protocol.Response(id=frame.id, reply=reply))
            connection.wake.set()
            if isinstance(frame.command, protocol.Drain):
                self.drained.set()
            await asyncio.sleep(0)  # a burst of commands must not hold up handshakes

    async def _write(self, connection: _Connection) -> None:
        outbox = self._worker.outbox
        while True:
            # No timeout: an owner may be silent for hours. Its end or our own wakes us.
            await connection.wake.wait()
            connection.wake.clear()
            while not connection.is_over() and len(outbox):
                if outbox.overflowed:
                    log.error("owner too slow", extra={"entries": len(outbox)})
                    connection.end(None)
                    break
                connection.writer.write(_batch(outbox))
                # No timeout: a stuck owner only fills its outbox, and that is bounded.
                await connection.writer.drain()
                connection.written.set()
            if connection.is_over():
                return


def _refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    log.warning("owner refused", extra={"reason": reason})
    writer.write(framing.encode(protocol.Goodbye(reason=reason)))


def _batch(outbox: Outbox) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < BATCH_BYTES and (frame := outbox.pop()) is not None:
        try:
            encoded = framing.encode(frame)
        except Malformed:
            log.exception("frame too large")
            if not isinstance(frame, protocol.Response):
                continue
            failure = protocol.Failure(code="unavailable", text="answer too large")
            encoded = framing.encode(protocol.Response(id=frame.id, reply=failure))
        parts.append(encoded)
        size += len(encoded)
    return b"".join(parts)
