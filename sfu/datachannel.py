"""Data channels of one transport: SCTP by aiortc, with our caps around it (S13).

RFC 8831, RFC 8832, RFC 9260. SCTP packets arrive decrypted from `sfu.dtls` and leave through it; nothing
reaches this module before the peer is authenticated.
Not here: DTLS (`sfu.dtls`), what the messages mean (nobody in the worker knows).
"""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from sfu.description import ChannelSpec
from sfu.errors import ChannelGone, Refused
from sfu.protocol import MESSAGE_BACKLOG_BYTES

log = logging.getLogger(__name__)

SCTP_PORT: Final = 5_000
MAX_MESSAGE_BYTES: Final = 65_536  # S13; told to the peer, and enforced
MAX_CHANNELS: Final = 16  # S13, of one session
MAX_LABEL_CHARACTERS: Final = 256
SLOW_READER_S: Final = 10.0  # a reliable channel above its backlog for so long is closed (S13)
_WINDOW_SLACK_BYTES: Final = 65_536  # a peer may probe a closed window; more is an attack
_SCTP_HEADER_BYTES: Final = 12
_DATA_CHUNK: Final = 0


class ChannelListener(Protocol):
    """Who is told about channels."""

    def channel_opened(self, channel: str) -> None: ...
    def channel_closed(self, channel: str) -> None: ...
    def message(self, channel: str, data: bytes, binary: bool) -> None: ...
    def backlog_bytes(self) -> int:
        """Bytes of messages that wait for the owner."""
        ...


class _Pipe:
    """Stands where aiortc's SCTP expects its DTLS transport."""

    def __init__(self, send: Callable[[bytes], bool], *, is_client: bool) -> None:
        self.state = "connected"
        self._role = "client" if is_client else "server"
        self._send = send
        self.receiver: RTCSctpTransport | None = None

    def _register_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self.receiver = receiver

    def _unregister_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self.receiver = None

    async def _send_data(self, data: bytes) -> None:
        # A packet that cannot go is a lost packet: SCTP repeats it, or is closed with us anyway.
        self._send(data)


def _run(step: Coroutine[Any, Any, None]) -> None:
    """Finish a coroutine that never waits.

    aiortc's SCTP is written with `async`, but the only thing it awaits is the pipe, which returns at
    once. Running it here keeps packets in order without a task per packet.
    """
    try:
        step.send(None)
    except StopIteration:
        return
    step.close()
    raise RuntimeError("SCTP waited for something")


class Channels:
    """The data channels of one transport."""

    def __init__(
        self,
        listener: ChannelListener,
        send: Callable[[bytes], bool],
        *,
        is_client: bool,
        remote_port: int,
        remote_max_message_bytes: int,
        ours: tuple[ChannelSpec, ...],
    ) -> None:
        """Start the association; both sides do (RFC 8841 section 9.3)."""
        self._listener = listener
        self._channels: list[RTCDataChannel] = []
        self._slow_since: dict[RTCDataChannel, float] = {}
        self._is_over = False
        self._pipe = _Pipe(send, is_client=is_client)
        self._sctp = RTCSctpTransport(self._pipe, port=SCTP_PORT)  # type: ignore[arg-type]
        self._sctp.on("datachannel", self._accept)
        _run(
            self._sctp.start(
                RTCSctpCapabilities(maxMessageSize=remote_max_message_bytes), remote_port
            )
        )
        for spec in ours[:MAX_CHANNELS]:
            parameters = RTCDataChannelParameters(
                label=spec.label, ordered=spec.ordered, maxRetransmits=spec.max_retransmits
            )
            self._watch(RTCDataChannel(self._sctp, parameters))

    def receive(self, packet: bytes) -> None:
        """One SCTP packet. Whatever it does to the association, it does not reach the session."""
        if self._is_over or self._pipe.receiver is None:
            return
        if self._listener.backlog_bytes() > MESSAGE_BACKLOG_BYTES and _carries_data(packet):
            return  # not acknowledged, so the peer keeps it and slows down
        try:
            _run(self._sctp._handle_data(packet))
            if self._sctp._advertised_rwnd < -_WINDOW_SLACK_BYTES:
                raise Refused("peer ignores the receive window")
        except Exception as why:  # aiortc asserts on what a hostile peer can send
            log.warning("sctp association ended", extra={"fault": type(why).__name__})
            self.close()

    def send(self, label: str, data: bytes, *, binary: bool) -> None:
        """Queue a message. Raises `ChannelGone`, `Refused` (too large, or the reader is too slow)."""
        channel = next(
            (c for c in self._channels if c.label == label and c.readyState == "open"), None
        )
        if channel is None:
            raise ChannelGone(label)
        if channel.bufferedAmount + len(data) > MESSAGE_BACKLOG_BYTES:
            if channel.maxRetransmits is None and channel.maxPacketLifeTime is None:
                self._too_slow(channel)
            return  # a lossy channel loses
        self._slow_since.pop(channel, None)
        try:
            channel.send(data if binary else data.decode())
        except (ValueError, UnicodeDecodeError) as why:
            raise Refused("message not sendable") from why

    def open_labels(self) -> tuple[str, ...]:
        return tuple(c.label for c in self._channels if c.readyState == "open")

    def close(self) -> None:
        """Abort the association and tell about every channel that was open. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        for channel in tuple(self._channels):
            self._closed(channel)
        try:
            _run(self._sctp.stop())
        except Exception as why:
            log.debug("sctp stop failed", extra={"fault": type(why).__name__})

    def _accept(self, channel: RTCDataChannel) -> None:
        if len(self._channels) >= MAX_CHANNELS or len(channel.label) > MAX_LABEL_CHARACTERS:
            channel.close()
            return
        self._watch(channel)
        self._listener.channel_opened(channel.label)

    def _watch(self, channel: RTCDataChannel) -> None:
        self._channels.append(channel)
        channel.on("open", lambda: self._listener.channel_opened(channel.label))
        channel.on("close", lambda: self._closed(channel))
        channel.on("message", lambda data: self._message(channel, data))

    def _closed(self, channel: RTCDataChannel) -> None:
        if channel in self._channels:
            self._channels.remove(channel)
            self._slow_since.pop(channel, None)
            self._listener.channel_closed(channel.label)

    def _message(self, channel: RTCDataChannel, data: bytes | str) -> None:
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > MAX_MESSAGE_BYTES:
            channel.close()
            return
        is_lossy = channel.maxRetransmits is not None or channel.maxPacketLifeTime is not None
        if is_lossy and self._listener.backlog_bytes() > MESSAGE_BACKLOG_BYTES:
            return
        self._listener.message(channel.label, raw, isinstance(data, bytes))

    def _too_slow(self, channel: RTCDataChannel) -> None:
        now = time.monotonic()
        since = self._slow_since.setdefault(channel, now)
        if now - since > SLOW_READER_S:
            channel.close()
            raise ChannelGone(channel.label)
        raise Refused("reader too slow")


def _carries_data(packet: bytes) -> bool:
    """Whether a DATA chunk is in it (RFC 9260 section 3.2). Malformed counts as yes: it is dropped either way."""
    position = _SCTP_HEADER_BYTES
    while position + 4 <= len(packet):
        if packet[position] == _DATA_CHUNK:
            return True
        length = int.from_bytes(packet[position + 2 : position + 4], "big")
        if length < 4:
            return True
        position += (length + 3) & ~3
    return False
