"""Order, commits, outages and the life of a focus."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bridge.conference import commands as c
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.events import (
    Bound,
    Event,
    Joined,
    Left,
    LegChanged,
    MuteRuled,
    Said,
    TrackMuted,
    TrackPublished,
)
from bridge.conference.ids import ConferenceId, LegId, LegState, TrackKind
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.focus import Registry
from bridge.focus import ledger as ledger_module
from tests.conference.plays import BOB, MUC, RECORD, actor, join, publish, say
from tests.fakes import ComputedGhosts, MemoryJournal, Recorder


class Scene:
    def __init__(self, tasks: asyncio.TaskGroup, idle_s: float) -> None:
        self.journal = MemoryJournal(RECORD)
        self.media = Recorder()
        self.gateway = Recorder()
        self.listeners: list[object] = [self.media, self.gateway]
        self.registry = Registry(
            tasks,
            self.journal,
            ComputedGhosts(),
            self.listeners,  # type: ignore[arg-type]
            now_ms=lambda: 7,
            idle_s=idle_s,
        )

    async def do(self, command: c.Command, cause: Cause | None = None) -> tuple[Event, ...]:
        return await self.registry.submit(RECORD.id, command, cause)

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not claim():  # noqa: ASYNC110 - state, not a signal
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(idle_s: float = 30.0) -> AsyncIterator[Scene]:
    async with asyncio.TaskGroup() as tasks:
        yield Scene(tasks, idle_s)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("focus-"):
                task.cancel()


async def test_a_join_without_identity_asks_for_one_then_everybody_is_told_and_it_is_written() -> (
    None
):
    async with scene() as s:
        (event,) = await s.do(replace(join("PA_1", BOB), identity=None))
        assert isinstance(event, Joined)
        assert event.leg.identity == "ghost/bob@b.example/PA_1"
        assert event.leg.joined_ms == 7
        assert s.media.events == s.gateway.events == [event]
        assert [leg.id for leg in s.registry.view(RECORD.id)] == ["PA_1"]
        await s.registry.flush()
        assert s.journal.events == [event]


async def test_media_hears_first() -> None:
    heard: list[str] = []

    class Ear:
        def __init__(self, name: str) -> None:
            self.name = name

        def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
            heard.append(self.name)

    async with scene() as s:
        s.listeners[:] = [Ear("media"), Ear("gateway")]
        await s.do(join())
        assert heard == ["media", "gateway"]


async def test_text_is_committed_before_anybody_hears_of_it_and_only_once() -> None:
    async with scene() as s:
        committed_when_told: list[bool] = []

        class Ear:
            def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
                committed_when_told.append(list(events) == s.journal.events[-1:])

        s.listeners.append(Ear())
        (said,) = await s.do(say(), Cause(4))
        assert isinstance(said, Said)
        assert committed_when_told == [True]
        assert s.journal.commits == [((said,), Cause(4))]
        assert await s.do(say()) == ()
        assert s.gateway.events == [said]


async def test_a_cause_is_done_even_when_nothing_changes() -> None:
    async with scene() as s:
        assert await s.do(c.Leave(LegId("PA_gone")), Cause(9)) == ()
        await s.registry.flush()
        assert s.journal.commits == [((), Cause(9))]


async def test_while_the_database_is_away_calls_go_on_and_text_waits_at_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene() as s:
        await s.do(join("PA_1", BOB))
        await s.do(publish("PA_1", "TR_1"))
        await s.registry.flush()
        s.journal.away = True
        await s.do(c.Mute(actor(), BOB), Cause(1))
        assert isinstance(s.media.events[-1], TrackMuted)
        await s.do(join("PA_2"))
        await s.do(c.Leave(LegId("PA_2")))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await s.do(say())
        assert not any(isinstance(e, Said) for e in s.gateway.events)
        s.journal.away = False
        async with asyncio.timeout(5):
            await s.registry.flush()
        assert [type(e) for e in s.journal.events] == [
            Joined,
            TrackPublished,
            MuteRuled,
            TrackMuted,
            Joined,
            Left,
        ]
        assert s.journal.events == s.gateway.events
        await s.do(say())


async def test_a_line_that_waits_behind_a_failing_commit_is_given_back() -> None:
    async with scene() as s:
        await s.do(join("PA_1", BOB))
        await s.registry.flush()
        s.journal.away = True
        joining = asyncio.create_task(s.do(join("PA_2")))
        saying = asyncio.create_task(s.do(say()))
        await joining
        with pytest.raises(Unavailable):
            await saying


async def test_a_line_that_landed_though_its_commit_failed_is_told_once_by_the_next_attempt() -> (
    None
):
    async with scene() as s:
        s.journal.loses_answers = True
        with pytest.raises(Unavailable):
            await s.do(say(), Cause(4))
        assert s.gateway.events == []
        s.journal.loses_answers = False
        (said,) = await s.do(say(), Cause(4))
        assert isinstance(said, Said)
        assert s.gateway.events == [said]
        assert await s.do(say(), Cause(4)) == ()
        assert s.gateway.events == [said]
        assert s.journal.events == [said]


async def test_a_black_holed_database_does_not_stop_the_focus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "AWAY_AFTER_S", 0.02)
    monkeypatch.setattr(ledger_module, "COMMIT_TIMEOUT_S", 0.2)
    async with scene() as s:
        await s.do(join("PA_1", BOB))
        await s.registry.flush()
        s.journal.hangs = True
        saying = asyncio.create_task(s.do(say()))
        await asyncio.sleep(0.03)
        async with asyncio.timeout(0.1):
            await s.do(c.SetLegState(LegId("PA_1"), LegState.ACTIVE))
            with pytest.raises(Unavailable):
                await s.do(say("another"))
        with pytest.raises(Unavailable):
            await saying
        s.journal.hangs = False
        async with asyncio.timeout(5):
            await s.registry.flush()
        assert isinstance(s.journal.events[-1], LegChanged)


async def test_a_full_buffer_lets_nobody_in_but_everybody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_BUFFERED_EVENTS", 3)
    async with scene() as s:
        await s.do(join("PA_1", BOB))
        await s.registry.flush()
        s.journal.away = True
        await s.do(join("PA_2"))
        await s.do(publish("PA_2", "TR_1"))
        await s.do(publish("PA_1", "TR_2"))
        with pytest.raises(Unavailable):
            await s.do(join("PA_3"))
        await s.do(c.SetLegState(LegId("PA_1"), LegState.ACTIVE))  # acts, but is not written
        await s.do(c.Mute(actor(), BOB))
        await s.do(c.Leave(LegId("PA_2")))
        assert [type(e) for e in s.media.events[-3:]] == [MuteRuled, TrackMuted, Left]
        s.journal.away = False
        await s.registry.flush()
        assert [type(e) for e in s.journal.events] == [
            Joined,
            Joined,
            TrackPublished,
            TrackPublished,
            MuteRuled,
            Left,
        ]
        await s.do(join("PA_3"))


async def test_what_the_database_rejects_does_not_block_the_rest() -> None:
    async with scene() as s:
        await s.do(join("PA_0", BOB))
        s.journal.away = True
        await s.do(join("PA_1", BOB))
        await s.do(publish("PA_1", "TR_1"))
        await s.do(c.Leave(LegId("PA_1")))
        s.journal.rejects = TrackPublished
        s.journal.away = False
        await s.registry.flush()
        assert [type(e) for e in s.journal.events] == [Joined, Joined, Left]


async def test_an_idle_focus_ends_and_comes_back_as_it_was() -> None:
    async with scene(idle_s=0.02) as s:
        await s.do(join("PA_1", BOB))
        await s.do(c.Mute(actor(), BOB, TrackKind.AUDIO))
        await asyncio.sleep(0.06)
        assert s.registry.record(RECORD.id) is not None  # somebody is in
        await s.do(c.Leave(LegId("PA_1")))
        await s.until(lambda: s.registry.record(RECORD.id) is None)
        assert s.registry.view(RECORD.id) == ()
        await s.do(join("PA_2", BOB))
        (event,) = await s.do(publish("PA_2", "TR_1"))
        assert isinstance(event, TrackPublished)
        assert event.track.forced


async def test_an_unknown_conference_is_refused_and_an_absent_database_said() -> None:
    async with scene() as s:
        with pytest.raises(Refused):
            await s.registry.submit(ConferenceId("c_x"), join())
        s.journal.away = True
        with pytest.raises(Unavailable):
            await s.do(join())
        s.journal.away = False
        await s.do(join())


async def test_legs_of_before_a_restart_are_there_before_any_command() -> None:
    async with scene() as s:
        await s.do(join("PA_1", BOB))
        await s.registry.flush()
        async with asyncio.TaskGroup() as tasks:
            second = Registry(tasks, s.journal, ComputedGhosts(), (), idle_s=0.01)
            assert [leg.id for leg in await second.adopt(RECORD.id)] == ["PA_1"]
            await second.submit(RECORD.id, c.Leave(LegId("PA_1")))


async def test_a_fault_is_only_the_askers() -> None:
    async with scene() as s:

        class Broken:
            def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
                raise ValueError("listener")

        s.listeners.insert(0, Broken())
        await s.do(join("PA_1", BOB))
        with pytest.raises(Malformed):
            await s.do(replace(join("PA_2"), leg=LegId("")))
        with pytest.raises(Refused):
            await s.do(c.Remove(actor(BOB), join("PA_9").account))
        assert len(s.gateway.events) == 1


async def test_bindings_and_text_keep_their_order() -> None:
    async with scene() as s:
        from_muc = replace(say("from the muc"), origin=MUC)
        bound, said = await asyncio.gather(s.do(c.Bind(actor(), MUC)), s.do(from_muc))
        assert isinstance(bound[0], Bound)
        assert isinstance(said[0], Said)
        record = s.registry.record(RECORD.id)
        assert record is not None
        assert MUC in record.places


async def test_a_caller_who_gave_up_is_not_joined() -> None:
    async with scene() as s:
        joining = asyncio.create_task(s.do(join("PA_1", BOB)))
        await asyncio.sleep(0)
        joining.cancel()
        await s.do(join("PA_2"))
        assert [leg.id for leg in s.registry.view(RECORD.id)] == ["PA_2"]
