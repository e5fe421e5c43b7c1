"""The media worker: every session, every group, and what commands and engine events do to them.

Commands run to their end at once, so their order is the order of the socket. One session's fault ends that
session and nothing else (`Closed("bug")`).
Not here: the socket and its owner (`sfu.owner`), process life (`sfu.__main__`), sessions themselves.
"""

import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sfu import protocol
from sfu.answers import Answers, CommandKey
from sfu.description import Malformed
from sfu.dtls import Certificate
from sfu.errors import Refused, UnknownSession, UnknownTrack, WorkerError
from sfu.group import Group
from sfu.ice import host_candidates
from sfu.outbox import Outbox
from sfu.overload import Watch
from sfu.plane import Handle, Plane
from sfu.quality import Grades
from sfu.resync import resync
from sfu.session import Session, Surroundings
from sfu.stats import loads, statistics
from sfu.tracks import Track

log = logging.getLogger(__name__)

MAX_TOMBSTONES: Final = (
    4_096  # the oldest go first: an owner that never forgets costs no more than this
)
TICK_S: Final = 0.1
STATISTICS_EVERY_S: Final = 1.0
STATISTICS_FOR_S: Final = 10.0  # after somebody asked; asking again prolongs
QUALITY_EVERY_S: Final = 1.5  # three of them in 5 s: a cut link is lost after two that are silent
RESYNC_AFTER_S: Final = 0.5  # the engine's counters are at most 0.25 s old
_READ_ONLY: Final = (protocol.TakeSnapshot, protocol.ReadStatistics)
_OF_NO_TRANSPORT: Final = ("levels", "keyframe", "paused", "resumed")  # engine events


class Worker:
    """State of one media worker. Single-threaded: call it from the loop only."""

    def __init__(
        self,
        plane: Plane,
        addresses: tuple[str, ...],
        *,
        tcp: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outbox = Outbox()  # replaced with every owner connection
        self.on_event: Callable[[], None] = lambda: None  # somebody should empty the outbox
        self.has_owner = False
        self.is_draining = False
        self._plane: Final = plane
        self._clock: Final = clock
        self._around: Final = Surroundings(
            plane=plane,
            certificate=Certificate(),
            candidates=host_candidates(addresses, plane.port, tcp=tcp),
            emit=self._emit,
            backlog_bytes=lambda session: self.outbox.backlog(session),
            ended=self._ended,
        )
        self._sessions: dict[str, Session] = {}
        self._groups: dict[str, Group] = {}
        self._group_numbers = itertools.count(1)
        self._tracks: dict[str, Track] = {}
        self._tombstones: OrderedDict[str, protocol.SessionState] = OrderedDict()
        self._by_transport: dict[Handle, Session] = {}
        self._answers = Answers()
        self._grades = Grades()
        self._watch = Watch()
        self._statistics_until = 0.0
        self._statistics_at = 0.0
        self._quality_at = 0.0
        self._resync_at: float | None = None  # events were lost; look at the engine's states then

    # --- commands

    def carry_out(self, key: CommandKey, command: protocol.Command) -> protocol.Reply:
        """Run one command, or repeat the answer it already had."""
        kept = self._answers.get(key)
        if kept is not None:
            return kept
        group = self._group_of(command)
        try:
            reply = self._run(command)
        except Malformed as why:
            reply = protocol.Failure(code="malformed", text=str(why))
        except WorkerError as why:
            reply = protocol.Failure(code=why.code, text=str(why))
        except Exception:
            log.exception("command failed", extra={"command": type(command).__name__})
            self._break(self._sessions.get(getattr(command, "session", "")))
            reply = protocol.Failure(code="bug", text=type(command).__name__)
        if not isinstance(command, _READ_ONLY):
            self._answers.keep(group, key, reply)
        return reply

    def _run(self, command: protocol.Command) -> protocol.Reply:
        if self.is_draining and not isinstance(
            command, (*_READ_ONLY, protocol.Forget, protocol.Drain)
        ):
            raise Refused("draining")
        match command:
            case protocol.Open():
                self._open(command)
            case protocol.Policy():
                self._groups_named(command.group).set_policy(command)
            case protocol.Gate():
                track = self._track(command.track)
                self._session(track.session).group.gate(track, is_open=command.open)
            case protocol.Forget():
                for name in command.sessions:
                    self._tombstones.pop(name, None)
            case protocol.Drain():
                self.drain()
            case protocol.TakeSnapshot():
                return self.snapshot()
            case protocol.ReadStatistics():
                self._statistics_until = self._clock() + STATISTICS_FOR_S
                return statistics(self._plane.statistics(), self._sessions.values())[0]
            case _:
                return self._run_in_session(self._session(command.session), command)
        return protocol.Done()

    def _run_in_session(self, session: Session, command: protocol.Command) -> protocol.Reply:
        match command:
            case protocol.Offer():
                described = session.offer(command.description)
                self._index(session)
                return protocol.Described(description=described)
            case protocol.MakeOffer():
                described = session.make_offer(restart_ice=command.restart_ice)
                self._index(session)
                return protocol.Described(description=described)
            case protocol.Answer():
                session.answer(command.description)
            case protocol.Candidates():
                session.note_candidates(command)
            case protocol.RestartIce():
                session.restart_ice()
            case protocol.Send():
                session.send(command.channel, command.data, binary=command.binary)
            case protocol.Limits():
                session.limit(command)
            case protocol.Close():
                self._remove(session)
                session.close()
            case _:
                self._run_on_track(session, command)
        return protocol.Done()

    def _run_on_track(self, session: Session, command: protocol.Command) -> None:
        match command:
            case protocol.Expect():
                known = self._tracks.get(command.track)
                if known is not None and known.session != session.name:
                    raise Refused("a track of another session")
                session.up.expect(command)
                self._tracks[command.track] = session.up.tracks[command.track]
            case protocol.Unexpect():
                track = session.up.tracks.get(command.track)
                if track is None:
                    raise UnknownTrack(command.track)
                session.up.unexpect(track)
                self._tracks.pop(command.track, None)
            case protocol.Subscribe():
                track = self._track(command.track)
                if self._session(track.session).group is not session.group:
                    raise Refused("a track of another group")
                session.down.subscribe(command, track)
            case protocol.Unsubscribe():
                # A track that is gone took its subscriptions along: nothing left to do.
                gone = self._tracks.get(command.track)
                if gone is not None:
                    session.down.unsubscribe(gone)
            case protocol.Want():
                session.down.want(self._track(command.track), command.wish)
            case _:
                raise Refused(f"unknown command {type(command).__name__}")

    def _open(self, command: protocol.Open) -> None:
        if command.session in self._sessions:
            raise Refused("the session exists")
        self._tombstones.pop(command.session, None)
        group = self._groups_named(command.group)
        session = Session(self._around, group, command.session, command.profile, command.media)
        group.sessions[session.name] = session
        self._sessions[session.name] = session

    def snapshot(self) -> protocol.Snapshot:
        """Everything open, and who ended unheard. `seq` is filled in when it leaves."""
        sessions = self._sessions.values()
        return protocol.Snapshot(
            seq=0,
            sessions=(*(s.state() for s in sessions), *self._tombstones.values()),
            tracks=tuple(t.state() for t in self._tracks.values()),
            subscriptions=tuple(
                subscription.state()
                for session in sessions
                for subscription in session.down.subscriptions.values()
            ),
            policies=tuple(
                group.policy
                for group in self._groups.values()
                if group.policy != protocol.Policy(group.name)
            ),
        )

    def drain(self) -> None:
        """Take no more sessions and close all there are."""
        self.is_draining = True
        for session in tuple(self._sessions.values()):
            self._guarded(session, lambda s=session: s.over("drained"))  # type: ignore[misc]

    # --- owners

    def adopt(self) -> None:
        """A new owner connection: a fresh outbox, with what a snapshot cannot say."""
        left = self.outbox.unread()
        self.outbox = Outbox()
        self.has_owner = True
        for event in left:
            if isinstance(event, protocol.Message) and event.session in self._sessions:
                self.outbox.add_event(event)
        for session in tuple(self._sessions.values()):
            self._guarded(session, session.announce)

    def abandon(self) -> None:
        """The owner is gone; what it did not read of ended sessions becomes tombstones."""
        self.has_owner = False
        for event in self.outbox.unread():
            if isinstance(event, protocol.Closed):
                self._bury(event)

    # --- engine

    def take_engine_events(self) -> None:
        """Handle what the engine has to say; call when its descriptor is readable."""
        for name, handle, detail in self._plane.poll():
            try:
                self._engine_event(name, handle, detail)
            except Exception:
                log.exception("engine event failed", extra={"event": name})
                self._break(self._session_of(name, handle))

    def tick(self) -> None:
        """Every `TICK_S`: silence, reports."""
        now = self._clock()
        for group in tuple(self._groups.values()):
            group.tick(now)
        if self._resync_at is not None and now >= self._resync_at:
            self._resync_at = None
            resync(self._plane.statistics(), tuple(self._sessions.values()), self._emit)
        is_asked = now < self._statistics_until and now - self._statistics_at >= STATISTICS_EVERY_S
        is_graded = bool(self._sessions) and now - self._quality_at >= QUALITY_EVERY_S
        if not self.has_owner or not (is_asked or is_graded):
            return
        read = self._plane.statistics()
        self._watch.look(loads(read.get("loads", [])))
        if is_asked:
            self._statistics_at = now
            for part in statistics(read, self._sessions.values()):
                self._emit(part)
        if is_graded:
            self._quality_at = now
            for quality in self._grades.changes(read, self._sessions.values()):
                self._emit(quality)

    def _engine_event(self, name: str, handle: Handle, detail: object) -> None:
        match name, detail:
            case "datagram", bytes():
                session = self._by_transport.get(handle)
                transport = session.transport(handle) if session is not None else None
                if transport is not None:
                    transport.datagram(detail)
            case "levels", list():
                group = next((g for g in self._groups.values() if g.number == handle), None)
                if group is not None:
                    group.hear(detail, self._clock())
            case "first_packet", (int() as layer, int() as payload_type):
                self._first_packet(handle, layer, payload_type)
            case "bye", _:
                track = self._publication(handle)
                ended = track.silenced() if track is not None else None
                if ended is not None:
                    self._emit(ended)
            case "overflow", _:
                log.error("engine events lost", extra={"lost": detail})
                self._resync_at = self._clock() + RESYNC_AFTER_S
            case "paused" | "resumed" | "keyframe", _:
                self._subscription_event(name, handle)
            case _:
                self._transport_event(name, handle)

    def _subscription_event(self, name: str, handle: Handle) -> None:
        if name == "keyframe":
            return  # a switch became visible; nobody asks yet
        for group in self._groups.values():
            if group.starve(handle, is_starved=name == "paused"):
                return

    def _transport_event(self, name: str, handle: Handle) -> None:
        session = self._by_transport.get(handle)
        transport = session.transport(handle) if session is not None else None
        if session is None or transport is None:
            return  # closed a moment ago
        match name:
            case "validated":
                transport.validated()
            case "silent":
                session.silent(transport)
                self._quality_at = 0.0  # say so with the next tick
            case "heard":
                session.heard(transport)
            case "expired":
                session.over("lost")
            case _:
                log.error("unknown engine event", extra={"event": name})

    def _first_packet(self, publication: Handle, layer: int, payload_type: int) -> None:
        track = self._publication(publication)
        if track is None:
            return
        news = track.heard(layer, payload_type)
        if news is not None:
            self._emit(news)
            self._session(track.session).group.follow()

    # --- inside

    def _emit(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.Closed) and not self.has_owner:
            self._bury(event)
            return
        if not self.has_owner and not isinstance(event, protocol.Message):
            return  # the next owner takes a snapshot
        self.outbox.add_event(event)
        self.on_event()

    def _bury(self, event: protocol.Closed) -> None:
        self._tombstones[event.session] = protocol.SessionState(
            session=event.session, group="", state="closed", reason=event.reason
        )
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _ended(self, session: Session) -> None:
        self._remove(session)

    def _remove(self, session: Session) -> None:
        self._sessions.pop(session.name, None)
        for handle in [h for h, s in self._by_transport.items() if s is session]:
            del self._by_transport[handle]
        for track in [t for t in self._tracks.values() if t.session == session.name]:
            del self._tracks[track.id]
        group = session.group
        group.sessions.pop(session.name, None)
        if not group.sessions and self._groups.get(group.name) is group:
            del self._groups[group.name]
            group.close()

    def _index(self, session: Session) -> None:
        for handle in session.transport_handles():
            self._by_transport[handle] = session

    def _break(self, session: Session | None) -> None:
        """A fault of ours inside one session ends that session only."""
        if session is None:
            return
        try:
            session.over("bug")
        except Exception:
            log.exception("closing a broken session failed")
            self._remove(session)
            self._emit(protocol.Closed(session=session.name, reason="bug"))

    def _guarded(self, session: Session, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            log.exception("session failed")
            self._break(session)

    def _group_of(self, command: protocol.Command) -> str:
        match command:
            case protocol.Open(group=group) | protocol.Policy(group=group):
                return group
            case protocol.Gate(track=track):
                known = self._tracks.get(track)
                session = self._sessions.get(known.session) if known is not None else None
            case _:
                session = self._sessions.get(getattr(command, "session", ""))
        return session.group.name if session is not None else ""

    def _groups_named(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = Group(name, next(self._group_numbers), self._plane, self._emit)
            self._groups[name] = group
        return group

    def _session(self, name: str) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise UnknownSession(name)
        return session

    def _session_of(self, name: str, handle: Handle) -> Session | None:
        if name in ("first_packet", "bye"):
            track = self._publication(handle)
            return self._sessions.get(track.session) if track is not None else None
        return self._by_transport.get(handle) if name not in _OF_NO_TRANSPORT else None

    def _track(self, name: str) -> Track:
        track = self._tracks.get(name)
        if track is None:
            raise UnknownTrack(name)
        return track

    def _publication(self, handle: Handle) -> Track | None:
        return next((t for t in self._tracks.values() if t.publication == handle), None)
