"""Data channels of one transport: SCTP by aiortc, with our caps around it (S13).

RFC 8831, RFC 8832, RFC 9260. SCTP packets arrive decrypted from `sfu.dtls` and leave through it; nothing
reaches this module before the peer is authenticated.
What a packet may cost is decided before aiortc sees it (`sfu.sctp`), because some of aiortc's work grows with
what the peer claims, not with what it sent. A packet too many is dropped, not acknowledged: an honest peer
slows down and repeats it. State that no honest peer needs ends the association.
Not here: DTLS (`sfu.dtls`), what the messages mean (nobody in the worker knows).
"""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from sfu.allowance import Allowance
from sfu.description import ChannelSpec, Malformed
from sfu.errors import ChannelGone, Refused
from sfu.protocol import MESSAGE_BACKLOG_BYTES
from sfu.sctp import Look, look
from sfu.sctpstack import (
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCSctpCapabilities,
    RTCSctpTransport,
    rtcsctptransport,
)

log = logging.getLogger(__name__)

SCTP_PORT: Final = 5_000
MAX_MESSAGE_BYTES: Final = 65_536  # S13; told to the peer, and enforced
MAX_CHANNELS: Final = 16  # S13, of one session
MAX_LABEL_CHARACTERS: Final = 256
SLOW_READER_S: Final = 10.0  # a reliable channel above its backlog for so long is closed (S13)
TOTAL_BACKLOG_BYTES: Final = 4 * MESSAGE_BACKLOG_BYTES  # of all channels: 16 slow ones are one peer
PEER_BYTES_PER_S: Final = 1 << 20  # S13; a second's worth may come at once
CHANNELS_PER_S: Final = 4  # opened by the peer, after the first `MAX_CHANNELS`
_WINDOW_SLACK_BYTES: Final = 65_536  # a peer may probe a closed window; more is an attack
# What one association may keep in aiortc's lists, each of which it searches for every chunk:
_MAX_MISORDERED: Final = 512  # chunks beyond a missing one: half a second at full rate
_MAX_FRAGMENTS: Final = 2_048  # of unfinished messages; 64 KiB are 57
_MAX_STREAMS: Final = 4 * MAX_CHANNELS  # heard of; a closed channel's may linger
_ACKNOWLEDGED_SLACK: Final = 64  # gap blocks may name so many more chunks than are out


# Payload of one SCTP chunk, bytes, a multiple of 4: with 28 of SCTP and 37 of DTLS 1,185 of UDP, less than the 1,200
# that we promise (N9). aiortc's own 1,160 come to 1,225, and it has no setting for this.
rtcsctptransport.USERDATA_MAX_LENGTH = 1_120


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the association; both sides do (RFC 8841 section 9.3)."""
        self._listener = listener
        self._channels: list[RTCDataChannel] = []
        self._slow_since: dict[RTCDataChannel, float] = {}
        self._is_over = False
        self._clock = clock
        self._bytes = Allowance(per_s=PEER_BYTES_PER_S, burst=PEER_BYTES_PER_S, now=clock())
        self._opened = Allowance(per_s=CHANNELS_PER_S, burst=MAX_CHANNELS, now=clock())
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
        if self._is_over or self._pipe.receiver is None or not self._may_cost(packet):
            return
        try:
            _run(self._sctp._handle_data(packet))
            self._check_state()
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
        waiting = sum(c.bufferedAmount for c in self._channels)
        if (
            channel.bufferedAmount + len(data) > MESSAGE_BACKLOG_BYTES
            or waiting + len(data) > TOTAL_BACKLOG_BYTES
        ):
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
        if (
            len(self._channels) >= MAX_CHANNELS
            or len(channel.label) > MAX_LABEL_CHARACTERS
            or not self._opened.take(1, self._clock())
        ):
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

    def _may_cost(self, packet: bytes) -> bool:
        """Whether aiortc shall work on this packet."""
        try:
            asked = look(packet)
        except Malformed:
            return False
        if asked.acknowledged > len(self._sctp._sent_queue) + _ACKNOWLEDGED_SLACK:
            return False
        return not asked.has_data or self._may_bring_data(asked)

    def _may_bring_data(self, asked: Look) -> bool:
        if self._listener.backlog_bytes() > MESSAGE_BACKLOG_BYTES:
            return False
        if len(self._sctp._sack_misordered) >= _MAX_MISORDERED:
            due = ((self._sctp._last_received_tsn or 0) + 1) % (1 << 32)
            if asked.first_tsn != due:
                return False  # only what closes the first hole helps now
        return self._bytes.take(asked.charge_bytes, self._clock())

    def _check_state(self) -> None:
        """Raise `Refused` if the peer made the association keep what no honest peer needs."""
        if self._sctp._advertised_rwnd < -_WINDOW_SLACK_BYTES:
            raise Refused("peer ignores the receive window")
        streams = self._sctp._inbound_streams
        if len(streams) > _MAX_STREAMS or len(self._sctp._data_channels) > 2 * MAX_CHANNELS:
            raise Refused("too many streams")
        if sum(len(stream.reassembly) for stream in streams.values()) > _MAX_FRAGMENTS:
            raise Refused("too many fragments")

    def _too_slow(self, channel: RTCDataChannel) -> None:
        now = self._clock()
        since = self._slow_since.setdefault(channel, now)
        if now - since > SLOW_READER_S:
            channel.close()
            raise ChannelGone(channel.label)
        raise Refused("reader too slow")
