"""What the core and the focus need kept by others. Implementations: store, gateways, media, memory (tests).

Errors: `Unavailable` when the dependency is away; nothing else unless said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.conference.events import Event, Leg
from bridge.conference.ids import (
    Account,
    ConferenceId,
    Identity,
    LegId,
    Place,
    TrackKind,
)
from bridge.conference.streams import AS_CONFIGURED, StreamChoice


@dataclass(frozen=True, slots=True)
class ConferenceRecord:
    """The durable head of a conference.

    slug: short human name, unique; the XMPP focus is `slug@component/focus`.
    room: LiveKit room name, unique; for a Matrix room the MatrixRTC alias (hash of room and slot).
    places: bound Matrix rooms and MUCs. `auto` = made for an unbound room, without bridging.
    streams: what moderators chose of the policy; media adds what is configured.
    """

    id: ConferenceId
    slug: str
    room: str
    title: str = ""
    places: tuple[Place, ...] = ()
    auto: bool = False
    streams: StreamChoice = AS_CONFIGURED


@dataclass(frozen=True, slots=True)
class MuteRule:
    """A standing force-mute. `kind` None = audio and video."""

    target: Account
    kind: TrackKind | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What SQL remembers of a conference: the start of a focus, also after a crash."""

    record: ConferenceRecord
    legs: tuple[Leg, ...] = ()
    mutes: tuple[MuteRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """The inbox row that led to a command; marked done in the same commit. None of it for live signalling."""

    inbox_id: int


class Directory(Protocol):
    """Which conference is meant."""

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None: ...
    async def by_room(self, room: str) -> ConferenceRecord | None: ...
    async def by_slug(self, slug: str) -> ConferenceRecord | None: ...
    async def by_place(self, place: Place) -> ConferenceRecord | None: ...
    async def all(self) -> Sequence[ConferenceRecord]: ...
    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        """The conference of this LiveKit room, made if absent. An empty slug gets a short random one.

        An `auto` one becomes a named one when asked for with `auto=False`. Raises `Refused` when another
        conference has the slug.
        """


class Journal(Protocol):
    """One transaction: inbox row done, state, audit, outbox rows for `Said`.

    A repeated `Said.source_id` of the same source is dropped: `commit` returns False and nothing is written
    but the inbox row's end. `commit` raises `Refused` when a `Bound` place belongs to another conference.
    """

    async def commit(
        self, conference: ConferenceRecord, events: Sequence[Event], cause: Cause | None = None
    ) -> bool: ...
    async def restore(self, conference: ConferenceId) -> Restored | None: ...
    async def live(self) -> Sequence[ConferenceId]:
        """Conferences with legs at the time of the last commit: what a start after a crash re-adopts."""


class Ghosts(Protocol):
    """Identity of people whom MatrixRTC does not know."""

    async def ensure(
        self, conference: ConferenceRecord, account: Account, name: str, leg: LegId
    ) -> Identity:
        """A stable identity of this leg. Works also when the homeserver is away (it is computed, not asked)."""


class Listener(Protocol):
    """Told of every event, in order, after apply. Must not block: queue and return. Raises nothing."""

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None: ...
