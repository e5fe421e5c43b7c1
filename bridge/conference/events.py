"""Everything that can have happened in a conference. Gateways' `outbound`, media and store listen to these.

Each event is complete in itself: a listener needs no look-up to render it. Pure values.
"""

from dataclasses import dataclass

from bridge.conference.commands import Layer
from bridge.conference.ids import (
    Account,
    Actor,
    Identity,
    LeaveReason,
    LegId,
    LegState,
    Place,
    Receives,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.streams import StreamChoice, StreamRule


@dataclass(frozen=True, slots=True)
class Track:
    """A published track. `forced` = a moderator holds it shut."""

    id: TrackId
    leg: LegId
    kind: TrackKind
    source: TrackSource
    name: str = ""
    muted: bool = False
    forced: bool = False
    encrypted: bool = False
    mime_type: str = ""
    width: int = 0
    height: int = 0
    layers: tuple[Layer, ...] = ()
    stream: str = ""
    disable_dtx: bool = False
    stereo: bool = False


@dataclass(frozen=True, slots=True)
class Leg:
    """A device in the conference, with its tracks."""

    id: LegId
    gateway: str
    account: Account
    identity: Identity
    name: str
    role: Role
    receives: Receives
    state: LegState = LegState.JOINING
    avatar: str = ""
    token_subject: str = ""
    can_publish: bool = True
    can_subscribe: bool = True
    hidden: bool = False
    joined_ms: int = 0
    version: int = 1
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True, slots=True)
class Joined:
    """A leg is in. `first` = the account had no other leg (announce the person, not the device)."""

    leg: Leg
    first: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A leg is gone. `last` = the account has no leg left."""

    leg: Leg
    reason: LeaveReason
    last: bool
    by: Actor | None = None


@dataclass(frozen=True, slots=True)
class LegChanged:
    """State, name, avatar or version of a leg changed; `leg` is the whole new value."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class TrackPublished:
    leg: Leg
    track: Track


@dataclass(frozen=True, slots=True)
class TrackUnpublished:
    leg: Leg
    track: Track


@dataclass(frozen=True, slots=True)
class TrackMuted:
    """Muted or unmuted, by its publisher (`by` None) or by force. `leg` and `track` are the new values.

    `gate_open` is what the worker must do now.
    """

    leg: Leg
    track: Track
    gate_open: bool
    by: Actor | None = None


@dataclass(frozen=True, slots=True)
class MuteRuled:
    """A force-mute was set or lifted for an account (also when it publishes nothing yet)."""

    target: Account
    kind: TrackKind | None
    muted: bool
    by: Actor


@dataclass(frozen=True, slots=True)
class Said:
    """A line of text, bound for every place but `origin`, and for the legs in the call."""

    message_id: str
    by: Actor
    text: str
    source_id: str
    source: str
    origin: Place | None
    avatar: str
    is_emote: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Bound:
    place: Place
    by: Actor


@dataclass(frozen=True, slots=True)
class Unbound:
    place: Place
    by: Actor


@dataclass(frozen=True, slots=True)
class StreamsRuled:
    """A moderator changed what is forwarded. `choice` is the new whole; `rule` and `value` as in `RuleStreams`."""

    choice: StreamChoice
    rule: StreamRule | None
    value: int | None
    by: Actor


@dataclass(frozen=True, slots=True)
class Ended:
    by: Actor | None = None


Event = (
    Joined
    | Left
    | LegChanged
    | TrackPublished
    | TrackUnpublished
    | TrackMuted
    | MuteRuled
    | Said
    | Bound
    | Unbound
    | StreamsRuled
    | Ended
)
