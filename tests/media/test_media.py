"""The adapter: calls, events, faults, rows, restarts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from bridge.conference import commands as c
from bridge.conference.conference import Conference
from bridge.conference.errors import IllegalTransition, Malformed, Refused, Unavailable
from bridge.conference.events import Leg
from bridge.conference.ids import (
    ConferenceId,
    LeaveReason,
    LegId,
    LegState,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.ports import ConferenceRecord, Restored
from bridge.gateway import (
    ChannelMessage,
    LayersWanted,
    MediaSignal,
    NegotiationWanted,
    QualityGrade,
    SessionOver,
    SessionSilent,
    SessionUp,
    Speaking,
    StreamPaused,
    TrackIsLive,
)
from bridge.media import Held, WorkerMedia
from bridge.media import rows as rows_module
from sfu import client, protocol
from sfu.description import Wish
from tests.conference.plays import ANN, BOB, RECORD, actor, conference, join, publish
from tests.fakes import MemoryStore
from tests.media.worker import EACH, ERRORS, OFFER, FakeWorker

LEAVE_AFTER_S = (
    0.15  # long enough for a busy machine to do something before it, short enough to wait for
)


@dataclass
class Stage:
    """A conference whose events go to media, and whose commands come from it."""

    worker: FakeWorker
    store: MemoryStore
    conference: Conference = field(default_factory=conference)
    signals: list[tuple[LegId, MediaSignal]] = field(default_factory=list)
    asked: list[c.Command] = field(default_factory=list)
    media: WorkerMedia = field(init=False)
    refuse: bool = False

    async def submit(self, conference_id: ConferenceId, command: c.Command) -> None:
        if self.refuse:
            raise Refused("no")
        self.asked.append(command)
        self.do(command)

    def deliver(self, record: ConferenceRecord, leg: Leg, signal: MediaSignal) -> None:
        self.signals.append((leg.id, signal))

    def do(self, command: c.Command) -> None:
        self.media.notify(self.conference.record, self.conference.apply(command, 0))

    async def person(self, leg: str, command: c.Join, track: str = "") -> None:
        self.do(command)
        await self.media.open(RECORD.id, LegId(leg), leg, EACH, receives=True)
        if track:
            await self.media.expect(
                leg, TrackId(track), TrackKind.AUDIO, TrackSource.MICROPHONE, match=("cid",)
            )
            self.do(publish(leg, track))

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not claim():  # noqa: ASYNC110 - state, not a signal
                await asyncio.sleep(0.002)


@asynccontextmanager
async def stage(
    worker: FakeWorker | None = None,
    store: MemoryStore | None = None,
    before: Conference | None = None,
    prepare: Callable[[Stage], Awaitable[None]] | None = None,
) -> AsyncIterator[Stage]:
    async with asyncio.TaskGroup() as tasks:
        s = Stage(worker or FakeWorker(), store or MemoryStore())
        if before is not None:
            s.conference = before
        s.media = WorkerMedia(
            s.worker, s.store, tasks, s.deliver, s.submit, leave_after_s=LEAVE_AFTER_S
        )
        if prepare is not None:
            await prepare(s)
        else:
            await s.media.readopt({})
        s.worker.commands.clear()
        running = tasks.create_task(s.media.run())
        yield s
        await asyncio.sleep(0.03)
        running.cancel()


async def test_two_people_hear_each_other() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        await s.person("PA_b", join("PA_b", BOB), "TR_b")
        await s.until(lambda: len(s.worker.subscriptions) == 2)
        assert s.worker.sessions["PA_a"].group == RECORD.id
        (expected,) = [e for e in s.worker.of(protocol.Expect) if e.track == "TR_a"]  # type: ignore[union-attr]
        assert expected.match == ("cid",)  # type: ignore[union-attr]
        await s.until(lambda: all(t.gate_open for t in s.worker.tracks.values()))


async def test_a_force_mute_shuts_the_gate_before_anything_else() -> None:
    async with stage() as s:
        await s.person("PA_b", join("PA_b", BOB), "TR_b")
        s.do(c.Mute(actor(), BOB))
        await s.until(lambda: not s.worker.tracks["TR_b"].gate_open)
        s.do(c.Unmute(actor(), BOB))
        await s.until(lambda: s.worker.tracks["TR_b"].gate_open)


async def test_what_the_worker_says_reaches_the_legs_gateway_and_the_conference() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        s.worker.tell(
            protocol.Connected("PA_a"),
            protocol.NegotiationNeeded("PA_a", audios=1, videos=2, changed=True),
            protocol.TrackLive("PA_a", "TR_a", "opus"),
            protocol.StreamState("PA_a", "TR_x", True),
            protocol.Quality("PA_a", 3),
            protocol.Message("PA_a", "_reliable", b"hi", False),
            protocol.LayersWanted("PA_a", "TR_a", 1),
            protocol.ChannelOpened("PA_a", "_reliable"),
            protocol.Connected("nobody"),
            protocol.Disconnected("PA_a"),
            protocol.Connected("PA_a"),
        )
        await s.until(lambda: len(s.asked) == 3)
        assert [signal for _, signal in s.signals] == [
            SessionUp("PA_a"),
            NegotiationWanted("PA_a", 1, 2, True),
            TrackIsLive("PA_a", TrackId("TR_a"), "opus"),
            StreamPaused("PA_a", TrackId("TR_x"), True),
            QualityGrade("PA_a", 3),
            ChannelMessage("PA_a", "_reliable", b"hi", False),
            LayersWanted("PA_a", TrackId("TR_a"), 1),
            SessionSilent("PA_a"),
            SessionUp("PA_a"),
        ]
        assert s.asked == [
            c.SetLegState(LegId("PA_a"), state)
            for state in (LegState.ACTIVE, LegState.LOST, LegState.ACTIVE)
        ]


async def test_a_leg_of_two_sessions_is_lost_when_both_are_silent() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN))
        await s.media.open(RECORD.id, LegId("PA_a"), "PA_a.sub", EACH, receives=False)
        s.worker.tell(protocol.Connected("PA_a"), protocol.Connected("PA_a.sub"))
        s.worker.tell(protocol.Disconnected("PA_a"))
        await s.until(lambda: len(s.signals) == 3)
        assert s.asked == [c.SetLegState(LegId("PA_a"), LegState.ACTIVE)]
        s.worker.tell(protocol.Disconnected("PA_a.sub"))
        await s.until(lambda: len(s.asked) == 2)
        assert s.asked[-1] == c.SetLegState(LegId("PA_a"), LegState.LOST)


async def test_speakers_reach_every_leg_without_those_nobody_may_hear() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        await s.person("PA_b", join("PA_b", BOB), "TR_b")
        s.do(c.Mute(actor(), BOB))
        levels = tuple(protocol.SpeakerLevel(t, 0.5, True) for t in ("TR_b", "TR_a", "TR_x"))
        s.worker.tell(protocol.Speakers(RECORD.id, levels, "TR_b"), protocol.Speakers("c_9", ()))
        await s.until(lambda: len(s.signals) == 2)
        said = Speaking(((LegId("PA_a"), TrackId("TR_a"), 0.5, True),), None)
        assert s.signals == [(LegId("PA_a"), said), (LegId("PA_b"), said)]


async def test_a_session_that_ends_is_told_and_its_leg_ended_if_nobody_does() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        await s.person("PA_b", join("PA_b", BOB))
        s.worker.carry_out(protocol.Close("PA_a"))
        s.worker.tell(protocol.Closed("PA_a", "failed"))
        await s.until(lambda: bool(s.asked))
        assert s.signals == [(LegId("PA_a"), SessionOver("PA_a", "failed"))]
        assert s.asked == [c.Leave(LegId("PA_a"), LeaveReason.LOST)]
        assert [key for _, key in s.store.rows] == ["PA_b"]


async def test_a_leg_with_a_new_session_stays() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN))
        s.worker.tell(protocol.Closed("PA_a", "lost"))
        await s.until(lambda: bool(s.signals))
        await s.media.open(RECORD.id, LegId("PA_a"), "PA_a.2", EACH, receives=True)
        await asyncio.sleep(2 * LEAVE_AFTER_S)
        assert s.asked == []


async def test_leaving_closes_the_sessions_without_an_echo() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN))
        s.do(c.Leave(LegId("PA_a")))
        s.worker.tell(protocol.Closed("PA_a", "close"))
        await s.until(lambda: not s.worker.sessions and not s.store.rows)
        await asyncio.sleep(2 * LEAVE_AFTER_S)
        assert s.signals == []
        assert s.asked == []


async def test_closing_twice_and_a_name_that_is_taken() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN))
        with pytest.raises(IllegalTransition):
            await s.media.open(RECORD.id, LegId("PA_a"), "PA_a", EACH, receives=True)
        await s.person("PA_b", join("PA_b", BOB), "TR_b")
        for session, error in (("PA_a", IllegalTransition), ("PA_x", Refused)):
            with pytest.raises(error):
                await s.media.expect(
                    session, TrackId("TR_b"), TrackKind.AUDIO, TrackSource.MICROPHONE
                )
        await s.media.close("PA_a")
        await s.media.close("PA_a")
        assert len(s.worker.of(protocol.Close)) == 1


async def test_somebody_who_leaves_while_his_session_opens_has_none() -> None:
    async with stage() as s:
        s.do(join("PA_a", ANN))
        opening = asyncio.create_task(
            s.media.open(RECORD.id, LegId("PA_a"), "PA_a", EACH, receives=True)
        )
        await asyncio.sleep(0)
        s.do(c.Leave(LegId("PA_a")))
        with pytest.raises(Refused):
            await opening
        assert s.worker.sessions == {}
        assert s.store.rows == {}


async def test_signals_of_a_leg_that_has_not_joined_wait_for_it() -> None:
    async with stage() as s:
        await s.media.open(RECORD.id, LegId("PA_a"), "PA_a", EACH, receives=True)
        s.worker.tell(protocol.Connected("PA_a"))
        await asyncio.sleep(0.01)
        assert s.signals == []
        s.do(join("PA_a", ANN))
        assert s.signals == []  # not before the gateways have heard of the leg
        await s.until(lambda: bool(s.signals) and bool(s.asked))
        assert s.signals == [(LegId("PA_a"), SessionUp("PA_a"))]
        assert s.asked == [c.SetLegState(LegId("PA_a"), LegState.ACTIVE)]


async def test_the_workers_failures_are_named_by_fault() -> None:
    codes = {
        "malformed": Malformed,
        "refused": Refused,
        "unknown_session": Refused,
        "closed": Refused,
        "unavailable": Unavailable,
        "bug": Unavailable,
    }

    class Failing(FakeWorker):
        code = ""

        async def request(self, command: protocol.Command) -> protocol.Reply:
            raise ERRORS[self.code]

    worker = Failing()
    async with stage(worker) as s:
        for code, error in codes.items():
            worker.code = code
            with pytest.raises(error):
                await s.media.offer("PA_a", OFFER)
            with pytest.raises(error):
                await s.media.open(RECORD.id, LegId("PA_a"), "PA_a", EACH, receives=True)
        assert s.store.rows == {}


async def test_every_call_becomes_its_command() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN))
        await s.media.offer("PA_a", OFFER)
        await s.media.make_offer("PA_a", restart_ice=True)
        await s.media.answer("PA_a", OFFER)
        await s.media.candidates("PA_a", "0", [])
        await s.media.restart_ice("PA_a")
        await s.media.send("PA_a", "_lossy", b"x", binary=False)
        assert s.worker.commands[1:] == [
            protocol.Offer("PA_a", OFFER),
            protocol.MakeOffer("PA_a", True),
            protocol.Answer("PA_a", OFFER),
            protocol.Candidates("PA_a", "0", ()),
            protocol.RestartIce("PA_a"),
            protocol.Send("PA_a", "_lossy", b"x", False),
        ]
        await s.media.wish(LegId("nobody"), TrackId("TR"), Wish())
        await s.media.set_subscribed(LegId("nobody"), TrackId("TR"), True)


async def test_a_database_that_is_away_does_not_keep_anybody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows_module, "RETRY_S", 0.01)

    class Away(MemoryStore):
        away = True

        async def put(self, gateway: str, key: str, value: object) -> None:
            if self.away:
                raise Unavailable("database")
            await super().put(gateway, key, value)  # type: ignore[arg-type]

    store = Away()
    async with stage(store=store) as s:
        await s.person("PA_a", join("PA_a", ANN))
        await s.person("PA_b", join("PA_b", BOB))
        await s.media.close("PA_b")
        store.away = False
        await s.until(lambda: bool(store.rows))
        await asyncio.sleep(0.03)
        assert [key for _, key in store.rows] == ["PA_a"]


async def crash() -> tuple[FakeWorker, MemoryStore, Conference]:
    """Two people talk, then parley is gone."""
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        await s.person("PA_b", join("PA_b", BOB), "TR_b")
        await s.until(lambda: len(s.worker.subscriptions) == 2)
        await s.until(lambda: all(t.gate_open for t in s.worker.tracks.values()))
    state = s.conference.state
    s.worker.commands.clear()
    return s.worker, s.store, Conference(Restored(state.record, tuple(state.legs.values())))


async def test_after_a_restart_a_running_call_needs_no_command_at_all() -> None:
    worker, store, before = await crash()

    async def prepare(s: Stage) -> None:
        readopted = await s.media.readopt({before.record: before.legs})
        assert readopted.sessions == {"PA_a": ("PA_a",), "PA_b": ("PA_b",)}
        assert readopted.alive == {"PA_a", "PA_b"}
        assert readopted.held == ()

    async with stage(worker, store, before, prepare) as s:
        await asyncio.sleep(0.03)
        assert worker.commands == []
        s.do(c.Mute(actor(), BOB))
        await s.until(lambda: not worker.tracks["TR_b"].gate_open)
        s.do(c.Leave(LegId("PA_b")))
        await s.until(lambda: list(worker.sessions) == ["PA_a"])


async def test_after_a_restart_the_dead_are_reported_and_strangers_closed() -> None:
    worker, store, before = await crash()
    worker.sessions["PA_a"] = protocol.SessionState("PA_a", RECORD.id, "closed", "failed")
    worker.sessions["PA_x"] = protocol.SessionState("PA_x", RECORD.id, "connected")
    worker.sessions["PA_y"] = protocol.SessionState("PA_y", RECORD.id, "closed", "lost")
    del worker.sessions["PA_b"]

    async def prepare(s: Stage) -> None:
        readopted = await s.media.readopt({before.record: before.legs})
        assert readopted.alive == frozenset()
        assert s.signals == []

    async with stage(worker, store, before, prepare) as s:
        await s.until(lambda: len(s.asked) == 2)
        assert sorted(s.signals, key=str) == [
            (LegId("PA_a"), SessionOver("PA_a", "failed")),
            (LegId("PA_b"), SessionOver("PA_b", "lost")),
        ]
        assert {command.leg for command in s.asked} == {"PA_a", "PA_b"}  # type: ignore[union-attr]
        assert worker.sessions == {}
        assert store.rows == {}


async def test_a_gate_that_sql_does_not_know_stays_shut_until_somebody_rules() -> None:
    worker, store, before = await crash()
    worker.carry_out(protocol.Gate("TR_b", open=False))

    async def prepare(s: Stage) -> None:
        readopted = await s.media.readopt({before.record: before.legs})
        assert readopted.held == (Held(RECORD.id, BOB, TrackKind.AUDIO),)

    async with stage(worker, store, before, prepare) as s:
        s.do(c.SetMuted(LegId("PA_b"), TrackId("TR_b"), True))
        await asyncio.sleep(0.02)
        assert not worker.tracks["TR_b"].gate_open
        s.do(c.Mute(actor(), BOB))
        s.do(c.Unmute(actor(), BOB))
        await s.until(lambda: worker.tracks["TR_b"].gate_open)


async def test_a_mute_that_sql_knows_is_carried_out_again() -> None:
    worker, store, before = await crash()
    before.apply(c.Mute(actor(), BOB), 0)

    async def prepare(s: Stage) -> None:
        await s.media.readopt({before.record: before.legs})

    async with stage(worker, store, before, prepare) as s:
        await s.until(lambda: not worker.tracks["TR_b"].gate_open)


async def test_a_new_worker_has_none_of_our_sessions() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        s.worker.away = True
        s.do(c.Mute(actor(), ANN))
        with pytest.raises(Unavailable):
            await s.media.offer("PA_a", OFFER)
        await asyncio.sleep(0.01)
        s.worker.away = False
        s.worker.sessions.clear()
        s.worker.tracks.clear()
        s.worker.tell(client.Lost(), s.worker.adopted())
        await s.until(s.worker.inbox.empty)
        await asyncio.sleep(0.01)
        assert s.signals == [(LegId("PA_a"), SessionOver("PA_a", "lost"))]


async def test_a_connection_that_came_back_is_put_right() -> None:
    async with stage() as s:
        await s.person("PA_a", join("PA_a", ANN), "TR_a")
        await asyncio.sleep(0.01)
        s.worker.away = True
        s.do(c.Mute(actor(), ANN))
        await asyncio.sleep(0.01)
        s.worker.away = False
        state = s.worker.sessions["PA_a"]
        s.worker.sessions["PA_a"] = protocol.SessionState(state.session, state.group, "connected")
        s.worker.tell(client.Lost(), s.worker.adopted())
        await s.until(s.worker.inbox.empty)
        await asyncio.sleep(0.01)
        await s.until(lambda: not s.worker.tracks["TR_a"].gate_open)
        await s.until(lambda: s.asked == [c.SetLegState(LegId("PA_a"), LegState.ACTIVE)])


async def test_rows_of_another_version_are_dropped() -> None:
    store = MemoryStore()
    await store.put("media", "PA_1", {"version": 9})
    await store.put("media", "PA_2", {"version": 1, "leg": 5})

    async def prepare(s: Stage) -> None:
        assert (await s.media.readopt({replace(RECORD): ()})).sessions == {}

    async with stage(store=store, prepare=prepare):
        assert store.rows == {}
