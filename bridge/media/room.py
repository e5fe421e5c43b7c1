"""What the worker should do for one conference, computed from events: gates, subscriptions, closings.

Pure: events and gateways' choices in, commands of the seam out, in the order they must be sent (gates
first). It remembers what the worker has been told, so a repeated question costs nothing.
Not here: sending, waiting, persistence (`media.media`), matching a restarted worker (`media.readoption`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from bridge.conference.events import (
    Event,
    Joined,
    Left,
    Leg,
    LegChanged,
    Track,
    TrackMuted,
    TrackPublished,
    TrackUnpublished,
)
from bridge.conference.ids import ConferenceId, LegId, LegState, TrackId
from bridge.conference.ports import ConferenceRecord
from bridge.conference.streams import StreamPolicy
from bridge.media.policy import command
from sfu import protocol
from sfu.description import Wish


class Transport(Enum):
    """What the worker last said of a session."""

    NEW = "new"
    UP = "up"
    SILENT = "silent"


@dataclass(slots=True)
class Session:
    """One session of a leg. `follows` = COMPACT: the worker chooses what it carries."""

    name: str
    leg: LegId
    receives: bool
    follows: bool = False
    auto_subscribe: bool = True
    transport: Transport = Transport.NEW


@dataclass(slots=True)
class Room:
    """Everything media knows about one conference."""

    conference: ConferenceId
    record: ConferenceRecord | None = None  # as of the last event; None before anybody joined
    legs: dict[LegId, Leg] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    publishers: dict[TrackId, str] = field(default_factory=dict)  # track -> session that expects it
    gates: dict[TrackId, bool] = field(default_factory=dict)  # as told; absent = open
    held: set[TrackId] = field(default_factory=set)  # closed before a restart, SQL knows no rule
    subscribed: dict[str, set[TrackId]] = field(default_factory=dict)  # session -> tracks, as told
    choices: dict[tuple[LegId, TrackId], bool] = field(default_factory=dict)
    wishes: dict[tuple[LegId, TrackId], Wish] = field(default_factory=dict)
    told: dict[LegId, LegState] = field(default_factory=dict)  # what the conference was told
    rules: StreamPolicy = field(default_factory=StreamPolicy)
    policy: protocol.Policy = field(init=False)  # as told
    _tracks: dict[TrackId, Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forget_policy()

    @property
    def is_empty(self) -> bool:
        return not self.legs and not self.sessions

    def sessions_of(self, leg: LegId) -> list[Session]:
        return [session for session in self.sessions.values() if session.leg == leg]

    def transport_of(self, leg: LegId) -> LegState | None:
        """One truth of all sessions of a leg; None while nothing is known."""
        transports = {session.transport for session in self.sessions_of(leg)}
        if Transport.UP in transports:
            return LegState.ACTIVE
        return LegState.LOST if Transport.SILENT in transports else None

    def audible(self, track: TrackId) -> Track | None:
        """The published track, unless nobody may hear it or its publisher muted it."""
        known = self._tracks.get(track)
        return known if known is not None and self._gate(known) and not known.muted else None

    # --- the conference's events -----------------------------------------------------------------------

    def apply(self, event: Event) -> list[protocol.Command]:
        return [*self._apply(event), *self._plan_policy()]

    def _apply(self, event: Event) -> list[protocol.Command]:
        match event:
            case Joined(leg):
                return self.enter(leg)
            case Left(leg):
                return self._leave(leg)
            case LegChanged(leg):
                self.legs[leg.id] = leg
            case TrackPublished(leg, track):
                self.legs[leg.id] = leg
                self._tracks[track.id] = track
                return self.plan_track(track.id)
            case TrackUnpublished(leg, track):
                self.legs[leg.id] = leg
                return self._unpublish(track)
            case TrackMuted(leg, track):
                self.legs[leg.id] = leg
                self._tracks[track.id] = track
                if track.forced or event.by is not None:
                    self.held.discard(track.id)  # somebody has ruled since
                return list(self._plan_gate(track))
            case _:
                pass
        return []

    def enter(self, leg: Leg) -> list[protocol.Command]:
        """The leg is in, perhaps (after a restart) with tracks."""
        self.legs[leg.id] = leg
        commands: list[protocol.Command] = []
        for track in leg.tracks:
            self._tracks[track.id] = track
            commands += self.plan_track(track.id)
        for session in self.sessions_of(leg.id):
            commands += self._plan_session(session)
        return commands

    def _leave(self, leg: Leg) -> list[protocol.Command]:
        commands: list[protocol.Command] = []
        for session in self.sessions_of(leg.id):
            commands.append(protocol.Close(session.name, "left"))
            self.ended(session.name)
        for track in leg.tracks:
            self._forget_track(track.id)
        self.legs.pop(leg.id, None)
        self.told.pop(leg.id, None)
        for key in [key for key in self.choices if key[0] == leg.id]:
            del self.choices[key]
        for key in [key for key in self.wishes if key[0] == leg.id]:
            del self.wishes[key]
        return commands

    def _unpublish(self, track: Track) -> list[protocol.Command]:
        publisher = self.publishers.get(track.id)
        self._forget_track(track.id)
        return [] if publisher is None else [protocol.Unexpect(publisher, track.id)]

    # --- what gateways do ------------------------------------------------------------------------------

    def opened(self, session: Session) -> list[protocol.Command]:
        self.sessions[session.name] = session
        self.subscribed[session.name] = set()
        return [*self._plan_policy(), *self._plan_session(session)]

    def heard(self, session: Session, event: protocol.Connected | protocol.Disconnected) -> None:
        is_up = isinstance(event, protocol.Connected)
        session.transport = Transport.UP if is_up else Transport.SILENT

    def ended(self, name: str) -> None:
        """The session is gone, or told to go: with it its publications and subscriptions."""
        self.sessions.pop(name, None)
        self.subscribed.pop(name, None)
        if not self.sessions:
            self.forget_policy()
        for track in [t for t, publisher in self.publishers.items() if publisher == name]:
            del self.publishers[track]
            self.gates.pop(track, None)
            for tracks in self.subscribed.values():
                tracks.discard(track)

    def expected(self, session: str, track: TrackId) -> list[protocol.Command]:
        """The worker knows the track now, gate open. It is shut until the conference has let it in."""
        self.publishers[track] = session
        self.gates.pop(track, None)
        if track not in self._tracks:
            self.gates[track] = False
            return [protocol.Gate(track, open=False)]
        return self.plan_track(track)

    def choose(self, leg: LegId, track: TrackId, subscribed: bool) -> list[protocol.Command]:
        self.choices[leg, track] = subscribed
        return [c for s in self.sessions_of(leg) for c in self._plan(s, track)]

    def wish(self, leg: LegId, track: TrackId, wish: Wish) -> list[protocol.Command]:
        self.wishes[leg, track] = wish
        return [
            protocol.Want(session.name, track, wish)
            for session in self.sessions_of(leg)
            if track in self.subscribed[session.name]
        ]

    # --- plans -----------------------------------------------------------------------------------------

    def plan_track(self, track: TrackId) -> list[protocol.Command]:
        """Gate first, then every session that should have it."""
        known = self._tracks.get(track)
        if known is None:
            return []
        commands = list(self._plan_gate(known))
        for session in self.sessions.values():
            commands += self._plan(session, track)
        return commands

    def plan_all(self) -> list[protocol.Command]:
        """The difference between what should be and what the worker has (as last told, or as its snapshot says)."""
        commands: list[protocol.Command] = [*self._plan_policy()]
        for track in self._tracks.values():
            commands += self._plan_gate(track)
        for session in self.sessions.values():
            commands += self._plan_session(session)
        return commands

    def missed(self, command: protocol.Command) -> None:
        """The worker did not know the session or track: ask again when it does."""
        match command:
            case protocol.Subscribe(session=session, track=track):
                self.subscribed.get(session, set()).discard(TrackId(track))
            case protocol.Gate(track=track):
                self.gates.pop(TrackId(track), None)
            case _:
                pass

    def _plan_policy(self) -> Iterable[protocol.Command]:
        sessions = ((session.name, session.leg) for session in self.sessions.values())
        policy = command(self.conference, self.rules, self.legs, sessions)
        if policy == self.policy or not self.sessions:
            return ()
        self.policy = policy
        return (policy,)

    def forget_policy(self) -> None:
        """The worker knows a group while it has sessions; a new one begins without rules."""
        self.policy = protocol.Policy(self.conference)

    def _plan_session(self, session: Session) -> list[protocol.Command]:
        return [c for track in tuple(self._tracks) for c in self._plan(session, track)]

    def _plan(self, session: Session, track: TrackId) -> Iterator[protocol.Command]:
        has = self.subscribed[session.name]
        wants = self._should_have(session, track)
        if wants and track not in has:
            has.add(track)
            yield self._subscribe(session, self._tracks[track])
        elif not wants and track in has:
            has.discard(track)
            yield protocol.Unsubscribe(session.name, track)

    def _plan_gate(self, track: Track) -> Iterable[protocol.Command]:
        wanted = self._gate(track)
        if self.gates.get(track.id, True) is wanted:
            return ()
        self.gates[track.id] = wanted
        return (protocol.Gate(track.id, open=wanted),)

    def _gate(self, track: Track) -> bool:
        """Hidden legs are shut too: a COMPACT session follows any speaker it can hear."""
        leg = self.legs.get(track.leg)
        hidden = leg is None or leg.hidden
        return not (track.forced or hidden or track.id in self.held)

    def _should_have(self, session: Session, track: TrackId) -> bool:
        known = self._tracks.get(track)
        leg = self.legs.get(session.leg)
        if known is None or leg is None or known.leg == leg.id:
            return False
        publisher = self.legs.get(known.leg)
        if publisher is None or publisher.hidden:
            return False
        if not session.receives or session.follows or not leg.can_subscribe:
            return False
        return self.choices.get((leg.id, track), session.auto_subscribe)

    def _subscribe(self, session: Session, track: Track) -> protocol.Subscribe:
        return protocol.Subscribe(
            session.name,
            track.id,
            self.wishes.get((session.leg, track.id), Wish()),
            stream_label=f"{track.leg}|{track.stream or track.id}",
            track_label=track.id,
        )

    def _forget_track(self, track: TrackId) -> None:
        """The worker forgets it with the publication: nothing to send."""
        self._tracks.pop(track, None)
        self.publishers.pop(track, None)
        self.gates.pop(track, None)
        self.held.discard(track)
        for tracks in self.subscribed.values():
            tracks.discard(track)
        for choices in (self.choices, self.wishes):
            for key in [key for key in choices if key[1] == track]:
                del choices[key]
