"""Jingle's vocabulary as frozen values. Codecs, candidates and the like are those of `sfu.description`.

Not here: XML (`parse`, `print`).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sfu.description import (
    Candidate,
    Codec,
    Extension,
    Feedback,
    Fingerprint,
    Setup,
    Source,
    SourceGroup,
)

JINGLE: Final = "urn:xmpp:jingle:1"
ERRORS: Final = "urn:xmpp:jingle:errors:1"
RTP: Final = "urn:xmpp:jingle:apps:rtp:1"
RTP_INFO: Final = "urn:xmpp:jingle:apps:rtp:info:1"
ICE: Final = "urn:xmpp:jingle:transports:ice-udp:1"
DTLS: Final = "urn:xmpp:jingle:apps:dtls:0"
FEEDBACK: Final = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"
HEADER_EXTENSIONS: Final = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0"
SOURCES: Final = "urn:xmpp:jingle:apps:rtp:ssma:0"
GROUPING: Final = "urn:xmpp:jingle:apps:grouping:0"


class Action(Enum):
    """XEP-0166 section 7.2."""

    CONTENT_ACCEPT = "content-accept"
    CONTENT_ADD = "content-add"
    CONTENT_MODIFY = "content-modify"
    CONTENT_REJECT = "content-reject"
    CONTENT_REMOVE = "content-remove"
    DESCRIPTION_INFO = "description-info"
    SECURITY_INFO = "security-info"
    SESSION_ACCEPT = "session-accept"
    SESSION_INFO = "session-info"
    SESSION_INITIATE = "session-initiate"
    SESSION_TERMINATE = "session-terminate"
    TRANSPORT_ACCEPT = "transport-accept"
    TRANSPORT_INFO = "transport-info"
    TRANSPORT_REJECT = "transport-reject"
    TRANSPORT_REPLACE = "transport-replace"


class Party(Enum):
    """A side of the session; also who created a content."""

    INITIATOR = "initiator"
    RESPONDER = "responder"

    @property
    def other(self) -> "Party":
        return Party.RESPONDER if self is Party.INITIATOR else Party.INITIATOR


class Senders(Enum):
    BOTH = "both"
    INITIATOR = "initiator"
    RESPONDER = "responder"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rtp:
    """XEP-0167 description. `feedback` is that of every codec (XEP-0293 section 3)."""

    media: str
    codecs: tuple[Codec, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    extensions: tuple[Extension, ...] = ()
    sources: tuple[Source, ...] = ()
    source_groups: tuple[SourceGroup, ...] = ()
    rtcp_mux: bool = False


@dataclass(frozen=True, slots=True)
class IceUdp:
    """XEP-0176 transport with XEP-0320 fingerprints. Empty ufrag and pwd are legal in transport-info."""

    ufrag: str = ""
    pwd: str = ""
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: Setup | None = None
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """One content. `description` is None when it is absent or not RTP, `transport` likewise."""

    name: str
    creator: Party = Party.INITIATOR
    senders: Senders = Senders.BOTH
    description: Rtp | None = None
    transport: IceUdp | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """XEP-0166 section 7.4: a condition such as `success` or `decline`, and words for people."""

    condition: str
    text: str = ""


class InfoKind(Enum):
    """XEP-0167 section 8: what a session-info says."""

    ACTIVE = "active"
    HOLD = "hold"
    MUTE = "mute"
    RINGING = "ringing"
    UNHOLD = "unhold"
    UNMUTE = "unmute"


@dataclass(frozen=True, slots=True)
class Info:
    """`name` empty = every content."""

    kind: InfoKind
    name: str = ""
    creator: Party | None = None


@dataclass(frozen=True, slots=True)
class Jingle:
    """One `<jingle/>`. `bundle` lists content names of the BUNDLE group (XEP-0338).

    `has_unknown_info` = a session-info payload that we do not know (answered with unsupported-info).
    """

    action: Action
    sid: str
    initiator: str = ""
    responder: str = ""
    contents: tuple[Content, ...] = ()
    bundle: tuple[str, ...] = ()
    reason: Reason | None = None
    info: Info | None = None
    has_unknown_info: bool = False
