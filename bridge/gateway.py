"""What a gateway is, and the ports that gateways keep for each other.

A gateway turns one network's wire into commands (`inbound`) and events into its wire (`outbound`). It
never imports another gateway, the focus, the store or the worker: it gets a `Context`.
Not here: the rules (`bridge.conference`), the composition (`bridge.app`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from bridge.conference.commands import Command
from bridge.conference.events import Event, Leg, Said
from bridge.conference.ids import (
    ConferenceId,
    LegId,
    Network,
    Place,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.ports import Cause, ConferenceRecord, Directory, Ghosts
from bridge.conference.streams import StreamPolicy
from sfu.description import Candidate, Description, LayerSpec, MediaKind, Profile, Wish

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.fetch import Fetcher
    from bridge.http import Http


class Ability(Enum):
    """What people on a network can do in a call; scenario tests pair gateways by these."""

    TEXT = "text"
    PRESENCE = "presence"
    AUDIO = "audio"
    VIDEO = "video"
    LAYERS = "layers"
    SCREEN = "screen"
    HAND = "hand"
    COMMANDS = "commands"


# --- media, as a gateway sees it ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionUp:
    """ICE and DTLS are up (again)."""

    session: str


@dataclass(frozen=True, slots=True)
class SessionSilent:
    """Nothing authenticated for 5 s."""

    session: str


@dataclass(frozen=True, slots=True)
class SessionOver:
    """The session ended in the worker; see `sfu.protocol.Closed` for reasons."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True)
class NegotiationWanted:
    """Arrange this many more sections with the peer, or make an offer (see `sfu.protocol.NegotiationNeeded`)."""

    session: str
    audios: int
    videos: int
    changed: bool


@dataclass(frozen=True, slots=True)
class TrackIsLive:
    """First media of a published track of this leg."""

    session: str
    track: TrackId
    codec: str


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    session: str
    channel: str
    data: bytes
    binary: bool


@dataclass(frozen=True, slots=True)
class Speaking:
    """Levels 0..1 of everyone who speaks, loudest first. Sent to every leg of the conference.

    `recent`: the dominant speaker and those before, the latest first; `margin` 0..1: how clear the election is.
    """

    levels: tuple[tuple[LegId, TrackId, float, bool], ...]
    dominant: TrackId | None
    recent: tuple[TrackId, ...] = ()
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class QualityGrade:
    """0 lost, 1 poor, 2 good, 3 excellent, of this leg's session."""

    session: str
    grade: int


@dataclass(frozen=True, slots=True)
class StreamPaused:
    """A stream towards this leg was paused for want of bandwidth (or runs again)."""

    session: str
    track: TrackId
    paused: bool


@dataclass(frozen=True, slots=True)
class LayersWanted:
    """The highest layer (0 lowest) that anybody wants of this leg's track; -1 = none. Already debounced."""

    session: str
    track: TrackId
    highest: int


MediaSignal = (
    SessionUp
    | SessionSilent
    | SessionOver
    | NegotiationWanted
    | TrackIsLive
    | ChannelMessage
    | Speaking
    | QualityGrade
    | StreamPaused
    | LayersWanted
)


class Media(Protocol):
    """Sessions of a leg in the worker. Kept by `bridge.media`; its signals arrive at `Gateway.signal`.

    A leg has one session, or two (a LiveKit dual connection). The gateway names them, globally unique,
    for example `PA_x` or `PA_x.pub` and `PA_x.sub`. Subscriptions follow the conference's events by
    themselves: `receives=True` marks the session they go to. Raises `Malformed` (the peer's
    description), `Refused`, `Unavailable` (worker away).
    """

    async def open(
        self,
        conference: ConferenceId,
        leg: LegId,
        session: str,
        profile: Profile,
        *,
        receives: bool,
        media: Sequence[MediaKind] = (),
        auto_subscribe: bool = True,
    ) -> None: ...
    async def offer(self, session: str, description: Description) -> Description:
        """The peer offers; returns our answer."""

    async def make_offer(self, session: str, *, restart_ice: bool = False) -> Description: ...
    async def answer(self, session: str, description: Description) -> None: ...
    async def candidates(self, session: str, mid: str, candidates: Sequence[Candidate]) -> None: ...
    async def restart_ice(self, session: str) -> None: ...
    async def expect(
        self,
        session: str,
        track: TrackId,
        kind: TrackKind,
        source: TrackSource,
        *,
        match: Sequence[str] = (),
        mid: str | None = None,
        layers: Sequence[LayerSpec] = (),
        encrypted: bool = False,
    ) -> None:
        """Announce a publication before the offer that carries it. Then submit `Publish`."""

    async def set_subscribed(self, leg: LegId, track: TrackId, subscribed: bool) -> None:
        """The client's explicit choice; wins over auto-subscribe."""

    async def wish(self, leg: LegId, track: TrackId, wish: Wish) -> None: ...
    async def limit(self, session: str, *, egress_bps: int) -> None:
        """Send no more than this, whatever the link carries; 0 = all that it carries."""

    async def send(
        self, session: str, channel: str, data: bytes, *, binary: bool = True
    ) -> None: ...
    async def close(self, session: str, reason: str = "") -> None: ...


# --- ports that gateways keep for each other -----------------------------------------------------------


class Membership(Enum):
    """Is somebody in a Matrix room? UNKNOWN: our bot is not there, so nobody can tell."""

    JOINED = "joined"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OpenIdToken:
    """As a Matrix client got it from its homeserver. Every field is the client's claim."""

    access_token: str
    token_type: str
    matrix_server_name: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class MatrixProfile:
    """Name, avatar and rank of a Matrix user in a room, as far as our homeserver sees it."""

    name: str
    avatar: str
    role: Role


class IdentityProof(Protocol):
    """Kept by the matrix gateway: is this really @user, and is he in that room? (S30, S31)"""

    async def prove(self, token: OpenIdToken) -> str:
        """The verified Matrix id. Raises `Refused` (not valid, wrong server) or `Unavailable`."""

    async def membership(self, room_id: str, user_id: str) -> Membership: ...
    async def profile(self, room_id: str | None, user_id: str) -> MatrixProfile: ...
    def allows_homeserver(self, server_name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows. `conference_room` is the LiveKit room name; ttl in seconds."""

    room: str
    subject: str
    name: str = ""
    origin: Network | None = None
    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    is_moderator: bool = False
    ttl_s: int = 3600


class Tokens(Protocol):
    """Kept by the livekit gateway: mints its own access tokens, and says where clients connect."""

    def mint(self, grant: Grant) -> str: ...
    @property
    def url(self) -> str:
        """WebSocket URL of the signalling endpoint (ws:// or wss://)."""


class Legs(Protocol):
    """Kept by the store. `wire_state` is versioned JSON, written before the peer is told (house.md section 7)."""

    async def save(
        self, conference: ConferenceId, leg: LegId, gateway: str, wire_state: Mapping[str, object]
    ) -> None: ...
    async def forget(self, leg: LegId) -> None: ...


@dataclass(frozen=True, slots=True)
class SavedLeg:
    """A leg to re-adopt after a restart. `alive` = the worker still has its sessions."""

    conference: ConferenceRecord
    leg: Leg
    wire_state: Mapping[str, object]
    sessions: tuple[str, ...]
    alive: bool


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A durable incoming item; `payload` is JSON as the gateway stored it."""

    id: int
    gateway: str
    source_id: str
    payload: Mapping[str, object]


class Inbox(Protocol):
    """Kept by the store: durable, deduplicated arrival of what must not be lost (S29)."""

    async def put(
        self, gateway: str, batch: str, items: Sequence[tuple[str, Mapping[str, object]]]
    ) -> bool:
        """Store (source_id, payload) items of one batch (a Matrix transaction id, a stanza-id) in one commit.

        False when the whole batch was seen before. Items already seen by source_id are skipped.
        """

    def rows(self, gateway: str) -> AsyncIterator[InboxRow]:
        """Undone rows in order of arrival, waiting for more forever."""

    async def done(self, row: int) -> None:
        """Nothing (more) to do with this row. Rows that lead to a command are done by `Journal.commit`."""

    async def dead(self, row: int, why: str) -> None:
        """Keep it as a dead letter; never blocks the queue."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A line to deliver to one place. `key` is deterministic: transaction id, origin-id.

    `attempts` > 0 means an earlier attempt may have reached the network: look before sending again if
    the network does not deduplicate by itself.
    """

    id: int
    conference: ConferenceRecord
    place: Place
    said: Said
    key: str
    attempts: int


class Outbox(Protocol):
    """Kept by the store. The app runs one sender per place: rows of a place strictly in order."""

    async def confirm(self, row: int, remote_id: str) -> None:
        """The network took it under this id (event id, stanza-id). Also fills the message map."""


class Store(Protocol):
    """Small durable key-value state of one gateway (for example ghosts already registered). Values are JSON."""

    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None: ...
    async def put(self, gateway: str, key: str, value: Mapping[str, object]) -> None: ...
    async def delete(self, gateway: str, key: str) -> None: ...
    async def items(
        self, gateway: str, prefix: str
    ) -> Sequence[tuple[str, Mapping[str, object]]]: ...


Submit = Callable[[ConferenceId, Command, Cause | None], Awaitable[tuple[Event, ...]]]
"""Queue a command to the conference's focus and await what came of it. Raises `Refused`, `Unavailable`."""


@dataclass(slots=True)
class Context:
    """What the app hands to every gateway. Ports kept by gateways (`proof`, `ghosts`, `tokens`) are filled in before `run`."""

    config: "Config"
    submit: Submit
    view: Callable[[ConferenceId], Sequence[Leg]]
    """The legs of a live conference right now (empty when nobody is in)."""
    media: Media
    directory: Directory
    legs: Legs
    inbox: Inbox
    outbox: Outbox
    store: Store
    http: "Http"
    fetch: "Fetcher"
    summary: Callable[[ConferenceId], str] = lambda _: ""
    """One line about a live conference's media for `!conf status`; empty when nothing is known."""
    streams: Callable[[ConferenceRecord], StreamPolicy] = lambda _: StreamPolicy()
    """What of a conference is forwarded as configured, before what its moderators chose."""
    proof: IdentityProof | None = None
    ghosts: Ghosts | None = None
    tokens: Tokens | None = None
    gateways: dict[str, "Gateway"] = field(default_factory=dict)
    """By name, for status texts only; no gateway calls another through it."""


class Gateway(Protocol):
    """One network's way in. Module `bridge.gateways.<name>` has `create(context) -> Gateway`.

    Life: `create` (hands routes to `context.http`, fills its ports, no I/O) -> `run` (connects, reconnects,
    until cancelled) with `notify`, `signal`, `deliver` called meanwhile.
    """

    name: str
    abilities: frozenset[Ability]

    async def run(self) -> None:
        """Live until cancelled; reconnect by itself. An exception here ends the program."""

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        """Called once, before `run` and before any event, with this gateway's legs of before the restart.

        Legs that cannot go on are ended with `Leave(leg, LOST)` after `run` began.
        """

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        """As `ports.Listener.notify`: all events of all conferences, this gateway's own included."""

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        """Of this gateway's own legs. Must not block."""

    async def deliver(self, row: OutboxRow) -> str | None:
        """Send one line to a place of this network; returns the remote id once the network confirmed it.

        None = nothing to send (for example an empty rendering). Raises `Unavailable` to be called again
        later with `attempts` + 1, `Refused` when it can never be delivered (the app logs a dead letter).
        """

    def status(self) -> str:
        """One short line for `!conf status` and health: `connected`, or what is wrong."""
