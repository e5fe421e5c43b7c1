"""Everything anybody may ask of a conference. Read this and `events` first.

A gateway's `inbound` makes these from its wire; the focus queues them; `Conference.apply` answers with
events or raises `errors.Refused`. Pure values.
"""

from dataclasses import dataclass

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
from bridge.conference.streams import StreamRule


@dataclass(frozen=True, slots=True)
class Join:
    """A device enters with media. `identity` is set by gateways that have a MatrixRTC identity; otherwise
    the focus asks `ports.Ghosts` for one before this is applied. A second leg with the same identity
    replaces the first. `name` is untrusted display text; `token_subject` is what the client calls itself."""

    leg: LegId
    gateway: str
    account: Account
    name: str
    role: Role
    receives: Receives
    identity: Identity | None = None
    avatar: str = ""
    token_subject: str = ""
    can_publish: bool = True
    can_subscribe: bool = True
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    leg: LegId
    reason: LeaveReason = LeaveReason.LEFT


@dataclass(frozen=True, slots=True)
class SetLegState:
    """The worker says a leg's transport came up, fell silent, or came back."""

    leg: LegId
    state: LegState


@dataclass(frozen=True, slots=True)
class Rename:
    """A participant's display name or avatar changed on its own network."""

    account: Account
    name: str
    avatar: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """An announced simulcast layer; index in the tuple = rank, lowest first."""

    rid: str
    width: int
    height: int
    bitrate_bps: int = 0
    quality: int = 2


@dataclass(frozen=True, slots=True)
class Publish:
    """A leg announces a track. `muted` is the publisher's own mute."""

    leg: LegId
    track: TrackId
    kind: TrackKind
    source: TrackSource
    name: str = ""
    muted: bool = False
    encrypted: bool = False
    mime_type: str = ""
    width: int = 0
    height: int = 0
    layers: tuple[Layer, ...] = ()
    stream: str = ""
    disable_dtx: bool = False
    stereo: bool = False


@dataclass(frozen=True, slots=True)
class Unpublish:
    leg: LegId
    track: TrackId


@dataclass(frozen=True, slots=True)
class SetMuted:
    """The publisher mutes or unmutes its own track. Unmuting a force-muted track is refused."""

    leg: LegId
    track: TrackId
    muted: bool


@dataclass(frozen=True, slots=True)
class Mute:
    """Force-mute: the server drops the packets. `kind` None = audio and video. Survives re-joins of the account."""

    by: Actor
    target: Account
    kind: TrackKind | None = TrackKind.AUDIO


@dataclass(frozen=True, slots=True)
class Unmute:
    """Lift a force-mute; the target decides itself when to speak again."""

    by: Actor
    target: Account
    kind: TrackKind | None = TrackKind.AUDIO


@dataclass(frozen=True, slots=True)
class Remove:
    """Put somebody out of the call."""

    by: Actor
    target: Account


@dataclass(frozen=True, slots=True)
class Say:
    """A line of text. `source_id` is unique in `source` (event id, stanza-id, LiveKit stream id): the key of
    exactly-once. `origin` None = said inside the call (page, SDK), so every bound place gets it."""

    by: Actor
    text: str
    source_id: str
    source: str
    origin: Place | None = None
    avatar: str = ""
    is_emote: bool = False
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Bind:
    """Connect a chat place with this conference; text flows among bound places from now on."""

    by: Actor
    place: Place


@dataclass(frozen=True, slots=True)
class Unbind:
    by: Actor
    place: Place


@dataclass(frozen=True, slots=True)
class RuleStreams:
    """What of the call is forwarded from now on. `rule` None = all of them; `value` None = as configured, 0 = off."""

    by: Actor
    rule: StreamRule | None
    value: int | None


@dataclass(frozen=True, slots=True)
class End:
    """Everybody out. Bindings stay."""

    by: Actor


Command = (
    Join
    | Leave
    | SetLegState
    | Rename
    | Publish
    | Unpublish
    | SetMuted
    | Mute
    | Unmute
    | Remove
    | Say
    | Bind
    | Unbind
    | RuleStreams
    | End
)
