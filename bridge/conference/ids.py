"""Identifiers and small values that the whole control plane shares.

Not here: how networks spell them (each gateway's `wire`).
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NewType

ConferenceId = NewType("ConferenceId", str)
"""Opaque, ours, stable for the life of the conference (`c_` and 26 characters)."""

LegId = NewType("LegId", str)
"""One device's media session through one gateway. A LiveKit leg's id is its participant sid (`PA_...`)."""

TrackId = NewType("TrackId", str)
"""One published track, unique everywhere (`TR_...`); also the worker's name for it."""

Identity = NewType("Identity", str)
"""What MatrixRTC calls a leg: `@user:server:DEVICE`, a hash, or a ghost's `@ghost:server:DEVICE`."""


class Network(StrEnum):
    """Where an account lives."""

    MATRIX = "matrix"
    XMPP = "xmpp"
    WEB = "web"  # guests by link
    TOKEN = "token"  # LiveKit SDK with a token minted elsewhere


@dataclass(frozen=True, slots=True)
class Account:
    """Who somebody is: `@user:server`, `bare@jid`, a guest id or a token's subject. Display names are elsewhere.

    For a MUC occupant whose real JID is hidden the address is `room@muc/<occupant-id>`.
    """

    network: Network
    address: str

    def __str__(self) -> str:
        return f"{self.network.value}:{self.address}"


class Role(IntEnum):
    """Rank in a conference, given by the network that knows: power level, affiliation, token grant."""

    GUEST = 0  # by link or foreign token
    MEMBER = 1  # in the room or MUC
    MODERATOR = 2  # power level >= 50; MUC admin or moderator
    OWNER = 3  # power level >= 100; MUC owner; configured administrators


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, with the rank the asking gateway has verified."""

    account: Account
    role: Role
    name: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A chat place that a conference is bound to: a Matrix room id, or a MUC's bare JID."""

    network: Network
    address: str


class TrackKind(StrEnum):
    AUDIO = "audio"
    VIDEO = "video"


class TrackSource(StrEnum):
    """What is captured (names as in the LiveKit protocol, lower case)."""

    MICROPHONE = "microphone"
    CAMERA = "camera"
    SCREEN_SHARE = "screen_share"
    SCREEN_SHARE_AUDIO = "screen_share_audio"
    UNKNOWN = "unknown"


class Receives(StrEnum):
    """How a leg receives the others' media."""

    EACH = "each"
    COMPACT = "compact"
    NONE = "none"


class LegState(StrEnum):
    """Transport truth of a leg, as the worker tells it."""

    JOINING = "joining"
    ACTIVE = "active"
    LOST = "lost"


class LeaveReason(StrEnum):
    """Why a leg ended; gateways spell it in their own words."""

    LEFT = "left"
    LOST = "lost"  # silent for too long
    REPLACED = "replaced"  # a newer leg with the same identity
    REMOVED = "removed"  # by a moderator
    ENDED = "ended"  # the conference ended
    FAILED = "failed"  # media or protocol failure
