"""One WebSocket's life: reading with a rate limit, writing from a bounded queue, pings.

LiveKit signalling frames are binary protobuf, one message each. Keep-alive is twofold: the client's `ping`
and `ping_req` (answered here, ahead of slow negotiation) and WebSocket pings of ours every 10 s.
The queue holds at most 1,000 messages or 1 MiB (S25); news about others that still waits is merged, last state
wins; when it has gone, the next waits 100 ms for company, so that a storm of joins is not three writes for
everybody per person. A peer that does not read is closed.
Not here: what the messages do (`device`), caps of their parts (`frames`).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import ClientConnectionError, WSCloseCode, WSMsgType, web
from livekit.protocol import rtc

from bridge.conference.errors import Malformed
from bridge.gateways.livekit import frames
from bridge.gateways.livekit.news import Merged

log = logging.getLogger(__name__)

MAX_QUEUED: Final = 1000  # messages
MAX_QUEUED_BYTES: Final = 1 << 20
WRITE_TIMEOUT_S: Final = 10.0  # a message that does not leave in this time never will
COMPANY_S: Final = 0.1  # between news and news, a blink of an eye; anything else goes at once
HEARTBEAT_S: Final = 10.0  # as livekit's server; a dead peer is noticed after 15 s
RATE_PER_S: Final = 50.0  # messages of one connection (S24)
BURST: Final = 200.0
_MAX_FRAME_BYTES: Final = frames.MAX_SDP_BYTES + 1024

Handler = Callable[[rtc.SignalRequest], Awaitable[None]]


@dataclass(slots=True)
class _Batch:
    """Elements by what they are about, the last state of each."""

    kind: Merged
    elements: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Latest:
    """One message, replaced while it waits."""

    key: str
    data: bytes


class Overflow(Exception):
    """The peer reads too slowly."""


class Outgoing:
    """Messages that wait for the socket."""

    def __init__(self) -> None:
        self._waiting: deque[bytes | _Batch | _Latest] = deque()
        self._latest: dict[str, _Latest] = {}
        self._bytes = 0
        self._batches: dict[Merged, _Batch] = {}
        self._ready = asyncio.Event()
        self._is_over = False
        self._company_at_s = 0.0  # before it, what can be merged waits
        self._is_waiting_for_company = False

    def put(self, data: bytes) -> None:
        """Raises `Overflow`."""
        self._check(len(data))
        self._bytes += len(data)
        self._waiting.append(data)
        self._ready.set()

    def merge(self, kind: Merged, key: str, element: bytes) -> None:
        """Into the message of this kind that still waits: earlier is fine, it precedes every later answer."""
        batch = self._batches.get(kind)
        if batch is None:
            self._check(0)
            batch = self._batches[kind] = _Batch(kind)
            self._waiting.append(batch)
        batch.elements[key] = element
        self._wake()

    def put_latest(self, key: str, data: bytes) -> None:
        """A message that replaces one of the same key that still waits."""
        waiting = self._latest.get(key)
        if waiting is not None:
            waiting.data = data
            return
        self._check(0)
        self._latest[key] = _Latest(key, data)
        self._waiting.append(self._latest[key])
        self._wake()

    def finish(self) -> None:
        """Nothing more will come; `take` returns None once the queue is empty."""
        self._is_over = True
        self._ready.set()

    async def take(self) -> bytes | None:
        while not self._waiting:
            if self._is_over:
                return None
            self._ready.clear()
            await self._ready.wait()  # no timeout: idle is normal, and the connection's end cancels
        await self._wait_for_company()
        item = self._waiting.popleft()
        if isinstance(item, bytes):
            self._bytes -= len(item)
            return item
        if not self._waiting:
            self._company_at_s = asyncio.get_running_loop().time() + COMPANY_S
        if isinstance(item, _Latest):
            del self._latest[item.key]
            return item.data
        del self._batches[item.kind]
        return item.kind.response(item.elements.values())

    async def _wait_for_company(self) -> None:
        loop = asyncio.get_running_loop()
        if self._company_at_s <= loop.time() or self._bytes or self._is_over:
            return
        self._ready.clear()
        self._is_waiting_for_company = True
        timer = loop.call_at(self._company_at_s, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            timer.cancel()
            self._is_waiting_for_company = False

    def _wake(self) -> None:
        """Something that can be merged waits; whoever waits for company lets it come."""
        if not self._is_waiting_for_company:
            self._ready.set()

    def _check(self, size: int) -> None:
        if len(self._waiting) >= MAX_QUEUED or self._bytes + size > MAX_QUEUED_BYTES:
            raise Overflow


class Bucket:
    """A token bucket; time is an argument."""

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._level, self._at_s = burst, now_s

    def takes(self, now_s: float) -> bool:
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Connection:
    """An open signalling socket. Nothing here that sends blocks; a slow reader is closed instead."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._outgoing = Outgoing()
        self._close_code = int(WSCloseCode.OK)

    def send(self, message: rtc.SignalResponse) -> None:
        self.send_encoded(message.SerializeToString())

    def send_encoded(self, data: bytes) -> None:
        try:
            self._outgoing.put(data)
        except Overflow:
            self._give_up()

    def merge(self, kind: Merged, key: str, element: bytes) -> None:
        try:
            self._outgoing.merge(kind, key, element)
        except Overflow:
            self._give_up()

    def send_latest(self, key: str, data: bytes) -> None:
        try:
            self._outgoing.put_latest(key, data)
        except Overflow:
            self._give_up()

    def close(self, code: int = WSCloseCode.OK) -> None:
        """Write what waits, then close."""
        self._close_code = int(code)
        self._outgoing.finish()

    async def run(self, handle: Handler) -> None:
        """Return when the socket is closed, by whomever."""
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(handle), name="signalling-reader")
            writer = tasks.create_task(self._write(), name="signalling-writer")
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                reader.cancel()
            else:
                writer.cancel()

    def _give_up(self) -> None:
        log.info("signalling reader too slow")
        self._close_code = int(WSCloseCode.TRY_AGAIN_LATER)
        self._outgoing = Outgoing()  # what waited is lost; the client resumes or joins again
        self._outgoing.finish()
        transport = self._socket.get_extra_info("transport") if self._socket.prepared else None
        if transport is not None:
            transport.abort()

    async def _write(self) -> None:
        try:
            while (data := await self._outgoing.take()) is not None:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._socket.send_bytes(data)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._socket.close(code=self._close_code)
        except (ClientConnectionError, ConnectionError, TimeoutError):
            log.info("signalling socket broke while writing")

    async def _read(self, handle: Handler) -> None:
        bucket = Bucket(RATE_PER_S, BURST, time.monotonic())
        async for frame in self._socket:
            if not bucket.takes(time.monotonic()):
                self.close(WSCloseCode.POLICY_VIOLATION)
                return await self._drain()
            if frame.type is not WSMsgType.BINARY:
                self.close(WSCloseCode.UNSUPPORTED_DATA)
                return await self._drain()
            try:
                request = await frames.read_request(frame.data)
            except Malformed as why:
                log.info("signalling message malformed", extra={"why": str(why)})
                self.close(WSCloseCode.PROTOCOL_ERROR)
                return await self._drain()
            if not self._answers_ping(request):
                await handle(request)
        return None

    async def _drain(self) -> None:
        """Leave the end to the writer: it sends what waits and the close code."""
        await asyncio.sleep(WRITE_TIMEOUT_S)

    def _answers_ping(self, request: rtc.SignalRequest) -> bool:
        kind = request.WhichOneof("message")
        now_ms = time.time_ns() // 1_000_000
        if kind == "ping":
            self.send(rtc.SignalResponse(pong=now_ms))
        elif kind == "ping_req":
            stamp = request.ping_req.timestamp
            pong = rtc.Pong(last_ping_timestamp=stamp, timestamp=now_ms)
            self.send(rtc.SignalResponse(pong_resp=pong))
        else:
            return False
        return True


def upgrade() -> web.WebSocketResponse:
    """The server's side of a handshake; compression is off (S23)."""
    return web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=_MAX_FRAME_BYTES, compress=False
    )
