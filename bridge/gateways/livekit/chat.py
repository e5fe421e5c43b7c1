"""Text lines as LiveKit text streams on topic `lk.chat`, both ways. Pure.

livekit/protocol DataStream (2026-08): a header, numbered chunks, a trailer; short texts may sit in the
header itself, deflated or not. Such streams are not relayed as packets: they become a line of the
conference (`Say`), and every line of the conference (`Said`) becomes a stream to each leg but its author's,
so that all networks hear the same and the rules apply once. Attributes tell who wrote it:
`parley.name`, `parley.network`, `parley.avatar`. COMPAT: legacy ChatMessage packets are read, never sent.
Not here: the channel (`data`), who may write (the conference).
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol import models

from bridge.conference.errors import Malformed
from bridge.conference.events import Said
from bridge.gateways.livekit import frames

TOPIC: Final = "lk.chat"
MAX_TEXT_BYTES: Final = 64 * 1024  # as the conference
MAX_OPEN: Final = 8  # streams of one client at once; the oldest gives way
MAX_ID: Final = 128  # characters
CHUNK_BYTES: Final = 15_000  # what LiveKit's own SDKs send, below every SCTP message limit


@dataclass(frozen=True, slots=True)
class Line:
    """A complete text that a client wrote."""

    stream_id: str
    text: str
    at_ms: int


@dataclass(slots=True)
class _Open:
    at_ms: int
    chunks: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Streams:
    """Collects one client's chat streams."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def take(self, packet: models.DataPacket) -> tuple[bool, Line | None]:
        """Whether this packet is chat, and the line it completes. Raises `Malformed`."""
        kind = packet.WhichOneof("value")
        if kind == "stream_header":
            return self._header(packet)
        if kind == "stream_chunk":
            return self._chunk(packet.stream_chunk)
        if kind == "stream_trailer":
            return self._trailer(packet.stream_trailer)
        if kind == "chat_message":
            return self._legacy(packet.chat_message)
        return False, None

    def _header(self, packet: models.DataPacket) -> tuple[bool, Line | None]:
        header = packet.stream_header
        is_text = header.WhichOneof("content_header") == "text_header"
        if header.topic != TOPIC or not is_text or packet.destination_identities:
            return False, None  # a private or foreign stream: relayed as it is
        if header.text_header.operation_type != models.DataStream.OperationType.CREATE:
            return True, None
        _check_id(header.stream_id)
        if header.total_length > MAX_TEXT_BYTES:
            raise Malformed("text too long")
        if header.inline_content:
            content = header.inline_content
            if header.compression == models.DataStream.CompressionType.DEFLATE_RAW:
                content = frames.inflate_raw(content, MAX_TEXT_BYTES)
            return True, Line(header.stream_id, _text(content), header.timestamp)
        self._open[header.stream_id] = _Open(header.timestamp)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return True, None

    def _chunk(self, chunk: models.DataStream.Chunk) -> tuple[bool, Line | None]:
        stream = self._open.get(chunk.stream_id)
        if stream is None:
            return False, None
        stream.size += len(chunk.content) - len(stream.chunks.get(chunk.chunk_index, b""))
        if stream.size > MAX_TEXT_BYTES or len(stream.chunks) > MAX_TEXT_BYTES // 64:
            del self._open[chunk.stream_id]
            raise Malformed("text too long")
        stream.chunks[chunk.chunk_index] = chunk.content
        return True, None

    def _trailer(self, trailer: models.DataStream.Trailer) -> tuple[bool, Line | None]:
        stream = self._open.pop(trailer.stream_id, None)
        if stream is None:
            return False, None
        if trailer.reason:
            return True, None  # the writer gave up
        content = b"".join(stream.chunks[index] for index in sorted(stream.chunks))
        return True, Line(trailer.stream_id, _text(content), stream.at_ms)

    def _legacy(self, message: models.ChatMessage) -> tuple[bool, Line | None]:
        if message.deleted or message.edit_timestamp:
            return True, None
        _check_id(message.id)
        return True, Line(message.id, message.message, message.timestamp)


def source_id(leg: str, line: Line) -> str:
    """Unique however clients choose their stream ids."""
    return f"{leg}/{line.stream_id}"


def is_from(leg: str, said: Said) -> bool:
    """Whether this leg itself wrote the line, here."""
    return said.source == "livekit" and said.source_id.startswith(f"{leg}/")


def packets(said: Said, identity: str) -> Iterator[models.DataPacket]:
    """The stream that carries a line. `identity` is the author's in this conference, if he is in it."""
    content = said.text.encode()
    attributes = {"parley.name": said.by.name, "parley.network": said.by.account.network.value}
    if said.avatar:
        attributes["parley.avatar"] = said.avatar
    header = models.DataStream.Header(
        stream_id=said.message_id,
        timestamp=said.at_ms,
        topic=TOPIC,
        mime_type="text/plain",
        total_length=len(content),
        attributes=attributes,
        text_header=models.DataStream.TextHeader(),
    )
    yield _packet(identity, stream_header=header)
    for index, part in enumerate(_parts(said.text)):
        chunk = models.DataStream.Chunk(stream_id=said.message_id, chunk_index=index, content=part)
        yield _packet(identity, stream_chunk=chunk)
    trailer = models.DataStream.Trailer(stream_id=said.message_id)
    yield _packet(identity, stream_trailer=trailer)


def _packet(
    identity: str,
    *,
    stream_header: models.DataStream.Header | None = None,
    stream_chunk: models.DataStream.Chunk | None = None,
    stream_trailer: models.DataStream.Trailer | None = None,
) -> models.DataPacket:
    return models.DataPacket(
        participant_identity=identity,
        stream_header=stream_header,
        stream_chunk=stream_chunk,
        stream_trailer=stream_trailer,
    )


def _parts(text: str) -> Iterator[bytes]:
    """Cut between characters: readers decode chunk by chunk."""
    step = CHUNK_BYTES // 4  # a character has at most 4 bytes
    for at in range(0, len(text), step):
        yield text[at : at + step].encode()


def _check_id(stream_id: str) -> None:
    if not 0 < len(stream_id) <= MAX_ID:
        raise Malformed("stream id of a bad length")


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as why:
        raise Malformed("text is not UTF-8") from why
