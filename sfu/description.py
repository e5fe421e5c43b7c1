"""What two peers agree on before media flows: values between SDP and Jingle, belonging to neither.

RFC 8866 (SDP), RFC 8829 (JSEP), RFC 8839 (ICE in SDP), RFC 8853 (simulcast), RFC 8285 (header
extensions); XEP-0167, XEP-0176, XEP-0320, XEP-0338, XEP-0339, XEP-0293, XEP-0294 say the same in XML.
Pure values; msgspec encodes them as they are, so the control protocol carries them unchanged.
Not here: SDP text (`sfu.sdp`), Jingle XML (`bridge.gateways.xmpp`), who offers when (a gateway).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

MAX_SECTIONS: Final = (
    256  # media sections of one description; mids only grow in a LiveKit single connection
)
MAX_CODECS: Final = 128  # one per payload type
MAX_CANDIDATES: Final = 64  # of one transport
MAX_EXTENSIONS: Final = 64  # of one section
MAX_SOURCES: Final = 64  # of one section
MAX_RIDS: Final = 4  # simulcast layers of one section


class MediaKind(Enum):
    """What a section or track carries. APPLICATION is the SCTP association of data channels."""

    AUDIO = "audio"
    VIDEO = "video"
    APPLICATION = "application"


class Direction(Enum):
    """As seen by whoever wrote the description (RFC 3264 section 5.1)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)

    @property
    def reversed(self) -> "Direction":
        """The same agreement as the other side would write it."""
        return _REVERSED.get(self, self)


_REVERSED: Final = {
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
}


class Setup(Enum):
    """DTLS role offered or taken (RFC 8842 section 5, XEP-0320)."""

    ACTPASS = "actpass"
    ACTIVE = "active"
    PASSIVE = "passive"


class DescriptionType(Enum):
    OFFER = "offer"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One RTCP feedback kind of a codec (RFC 4585): `nack`, `nack pli`, `transport-cc`, ..."""

    kind: str
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload type. `name` keeps the sender's spelling; compare case-insensitively.

    `parameters` are the fmtp pairs in order; a bare token has the empty string as its value. An rtx
    entry is a codec named `rtx` whose parameter `apt` names the payload type it repeats (RFC 4588).
    """

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: tuple[tuple[str, str], ...] = ()
    feedback: tuple[Feedback, ...] = ()

    def parameter(self, name: str) -> str | None:
        """The first fmtp value under this name, or None."""
        return next((value for key, value in self.parameters if key == name), None)


@dataclass(frozen=True, slots=True)
class Extension:
    """An RTP header extension: local id 1..255 (1..14 in one-byte form) and its URI."""

    id: int
    uri: str


@dataclass(frozen=True, slots=True)
class Source:
    """A synchronisation source somebody announces (RFC 5576, XEP-0339)."""

    ssrc: int
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """SSRCs that belong together: `FID` (media, its rtx) or `SIM` (simulcast layers)."""

    semantics: str
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rid:
    """A restriction id (RFC 8851); `send` as the author of the description sees it."""

    id: str
    send: bool


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hash of a DTLS certificate; `algorithm` lower case (`sha-256`), `value` upper-case hex with colons."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate (RFC 8839 section 5.1). `address` may be a name; we never resolve it (S19)."""

    foundation: str
    component: int
    protocol: str
    priority: int
    address: str
    port: int
    kind: str = "host"
    tcp_type: str | None = None


@dataclass(frozen=True, slots=True)
class Transport:
    """ICE and DTLS of one 5-tuple to be. A bundled description repeats one transport in its sections."""

    ufrag: str
    pwd: str
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: Setup = Setup.ACTPASS
    candidates: tuple[Candidate, ...] = ()
    ice_lite: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line, one Jingle content. `stream` and `track` are the two words of its msid (RFC 8830).

    `mixed_extensions`: elements of one byte and of two may alternate (RFC 8285 section 6); without it libwebrtc leaves
    out those longer than 16 bytes, structures of dependency descriptors among them. `rejected` is port 0 / content-reject. `sctp_port` and `max_message_size` (bytes) only matter for
    APPLICATION. `creator_initiator` is Jingle's `creator`; SDP ignores it.
    """

    mid: str
    kind: MediaKind
    direction: Direction
    transport: Transport
    codecs: tuple[Codec, ...] = ()
    extensions: tuple[Extension, ...] = ()
    sources: tuple[Source, ...] = ()
    source_groups: tuple[SourceGroup, ...] = ()
    rids: tuple[Rid, ...] = ()
    stream: str | None = None
    track: str | None = None
    rtcp_mux: bool = True
    rejected: bool = False
    sctp_port: int | None = None
    max_message_size: int | None = None
    creator_initiator: bool = True
    mixed_extensions: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """An offer or an answer. `bundle` lists the mids that share the first one's transport."""

    kind: DescriptionType
    sections: tuple[Section, ...]
    bundle: tuple[str, ...] = ()

    def section(self, mid: str) -> Section | None:
        return next((s for s in self.sections if s.mid == mid), None)


class Downstream(Enum):
    """How a session wants to receive."""

    EACH = "each"  # a stream per subscribed track
    COMPACT = (
        "compact"  # one audio and one video stream; what they carry follows the active speaker
    )
    NONE = "none"  # only publishes


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A data channel the server makes (RFC 8832). `max_retransmits` None = reliable."""

    label: str
    ordered: bool = True
    max_retransmits: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a family of clients can do, as data: a row in a table instead of an `if`.

    audio, video:         codecs in our order of preference, with feedback; payload types are used when we offer.
    fixed_payload_types:  True: our numbers are used in answers too (COMPAT: Dino 0.4.2 compares them across
                          sessions); False: an answer follows the offer's numbers.
    extensions:           header extension URIs we accept; ids follow the offer, or count from 1 when we offer.
    bundle:               False: a transport per section, each with its own ufrag and DTLS association.
    ice_lite:             True writes ice-lite in our descriptions (SDP peers); Jingle has no such flag.
    channels:             data channels we create (must be in the first offer of a dual connection).
    """

    name: str
    audio: tuple[Codec, ...]
    video: tuple[Codec, ...]
    extensions: tuple[str, ...] = ()
    fixed_payload_types: bool = False
    bundle: bool = True
    ice_lite: bool = False
    downstream: Downstream = Downstream.EACH
    channels: tuple[ChannelSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a subscriber wants of one track. Zero width, height or fps = no limit; `paused` = nothing now.

    `quality` caps the simulcast layer: 0 lowest, 1, 2 highest. `priority` 1..255, higher first.
    """

    width: int = 0
    height: int = 0
    fps: int = 0
    quality: int = 2
    priority: int = 1
    paused: bool = False


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A simulcast layer the publisher announced; `rid` empty when it sends a single stream. Index 0 is the lowest."""

    rid: str
    width: int = 0
    height: int = 0
    bitrate_bps: int = 0


class Malformed(ValueError):
    """A peer sent what no peer may send. The message names the fault, never the content."""
