"""Ghost memberships in time: what is sent, in which order, and when again. Hours pass by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from bridge.conference.errors import Unavailable
from bridge.conference.ids import Account, ConferenceId, LegId, Network
from bridge.gateways.matrix import memberships as subject
from bridge.gateways.matrix.ghosts import Ghost, GhostBook
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.memberships import Memberships, Person, Seat, content
from tests.fakes import MemoryStore
from tests.gateways.matrix.rig import until

LEG, ROOM, CONFERENCE = LegId("PA_1"), "!r:hs.test", ConferenceId("c_1")
BOB = Person(Account(Network.XMPP, "bob@example.org"), "Bob", "")
GHOST = "@_parley_xmpp_bob:hs.test"


class Recording:
    """Stands for link and ghosts; `log` is what reached the homeserver, in order."""

    def __init__(self, store: MemoryStore) -> None:
        self.log: list[str] = []
        self.state_now: Mapping[str, Any] = {}
        self.delays = 0
        self.alive: set[str] = set()
        self.away = False
        self.denied: Denied | None = None
        self.store = store
        self.rows_at_join: list[Mapping[str, object]] = []

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("homeserver")

    def of(self, account: Account) -> Ghost:
        return Ghost(GHOST, account)

    async def show(self, account: Account, name: str, avatar: str, room: str) -> Ghost:
        self._reach()
        self.log.append(f"show {name}")
        return Ghost(GHOST, account)

    async def put_state_later(self, *args: Any, user: str, delay_ms: int) -> str:
        self._reach()
        assert args[3] == {}
        self.delays += 1
        self.alive.add(f"d{self.delays}")
        self.log.append(f"later {delay_ms}")
        return f"d{self.delays}"

    async def put_state(
        self, room: str, kind: str, key: str, value: Mapping[str, Any], *, user: str
    ) -> str:
        self._reach()
        if self.denied is not None:
            raise self.denied
        self.rows_at_join += [row for _, row in await self.store.items("matrix", "membership:")]
        self.state_now = value
        self.log.append("join" if value else "leave")
        return "$e"

    async def state(self, *args: Any) -> Mapping[str, Any]:
        self._reach()
        return self.state_now

    async def restart_later(self, delay_id: str, *, user: str) -> bool:
        self._reach()
        self.log.append("restart")
        return delay_id in self.alive

    async def cancel_later(self, delay_id: str, *, user: str) -> bool:
        self._reach()
        self.log.append("cancel")
        self.alive.discard(delay_id)
        return True


class Play:
    def __init__(self, store: MemoryStore) -> None:
        self.now = 1_000.0
        self.store = store
        self.wire = Recording(store)
        self.refused: list[str] = []
        self.memberships = Memberships(
            cast(Link, self.wire),
            cast(GhostBook, self.wire),
            store,
            "http://localhost:8480",
            on_refused=self.refused.append,
            clock=lambda: self.now,
            wall_clock=lambda: self.now + 1e9,
        )

    def hold(self, person: Person = BOB, leg: LegId = LEG) -> None:
        self.memberships.hold(CONFERENCE, leg, "PDEV", ROOM, person)

    def release(self) -> None:
        self.memberships.release(lambda seat: seat.leg == LEG)

    @property
    def seat(self) -> Seat:
        (seat,) = self.memberships.seats()
        return seat

    async def after(self, seconds: float) -> list[str]:
        """Let time pass, wake the task, and see what it did."""
        before = len(self.wire.log)
        self.now += seconds
        self.seat.changed.set()
        await settle()
        return self.wire.log[before:]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def play(store: MemoryStore | None = None) -> AsyncIterator[Play]:
    here = Play(store or MemoryStore())
    async with asyncio.TaskGroup() as tasks:
        made: list[asyncio.Task[Any]] = []

        class Recorded:
            def create_task(self, work: Any, name: str = "") -> asyncio.Task[Any]:
                made.append(tasks.create_task(work, name=name))
                return made[-1]

        await here.memberships.start(cast(Any, Recorded()))
        yield here
        for task in made:
            task.cancel()


def test_the_content_is_what_element_call_reads() -> None:
    assert content(GHOST, "PDEV", "https://call.example") == {
        "application": "m.call",
        "call_id": "",
        "scope": "m.room",
        "device_id": "PDEV",
        "membershipID": f"{GHOST}:PDEV",
        "expires": 14_400_000,
        "m.call.intent": "video",
        "focus_active": {"type": "livekit", "focus_selection": "multi_sfu"},
        "foci_preferred": [{"type": "livekit", "livekit_service_url": "https://call.example"}],
    }


async def test_the_leave_is_scheduled_and_written_down_before_the_join() -> None:
    async with play() as here:
        here.hold()
        await settle()
        assert here.wire.log == ["show Bob", "later 60000", "join"]
        (row,) = here.wire.rows_at_join
        assert (row["delay_id"], row["leg"]) == ("d1", LEG)
        here.release()
        await settle()
        assert here.wire.log[3:] == ["leave", "cancel"]
        assert not here.memberships.seats()
        assert not here.store.rows


async def test_the_leave_is_restarted_and_the_membership_renewed_after_three_hours() -> None:
    async with play() as here:
        here.hold()
        await settle()
        assert await here.after(20) == ["restart"]
        assert await here.after(subject.REFRESH_S - 60) == ["restart"]
        assert await here.after(60) == ["show Bob", "join"]
        assert await here.after(20) == ["restart"]
        assert subject.REFRESH_S * 1000 < subject.EXPIRES_MS


async def test_the_pauses_are_spread_and_well_inside_the_delay() -> None:
    async with play() as here:
        here.hold()
        await settle()
        pauses = {round(await here.memberships._hold(here.seat), 3) for _ in range(50)}
        assert len(pauses) > 10
        assert 15 < min(pauses) < max(pauses) < 25
        assert 2 * max(pauses) * 1000 < subject.LEAVE_DELAY_MS


async def test_a_leave_that_fired_is_answered_by_a_new_membership() -> None:
    async with play() as here:
        here.hold()
        await settle()
        here.wire.alive.clear()
        here.wire.state_now = {}
        assert await here.after(20) == ["restart", "show Bob", "later 60000", "join"]


async def test_an_emptied_membership_is_published_again_but_not_in_a_loop() -> None:
    async with play() as here:
        here.hold()
        await settle()
        here.wire.state_now = {}
        here.memberships.emptied(ROOM, here.seat.state_key)
        assert await here.after(0) == [], "at most every 5 s"
        assert await here.after(6) == ["show Bob", "join"]
        here.memberships.emptied(ROOM, here.seat.state_key)
        assert await here.after(6) == ["restart"], "it stands: an old leave was seen late"


async def test_the_homeserver_away_delays_and_loses_nothing() -> None:
    async with play() as here:
        here.wire.away = True
        here.hold()
        await settle()
        assert here.wire.log == []
        here.release()
        await settle()
        assert not here.memberships.seats(), "never published, so nothing to withdraw"
        here.hold()
        here.wire.away = False
        await settle()
        assert here.wire.log[-1] == "join"
        here.wire.away = True
        here.release()
        await settle()
        assert here.seat.may_exist, "given up before it was withdrawn"
        here.wire.away = False
        here.seat.changed.set()
        await until(lambda: not here.memberships.seats())
        assert here.wire.log[-2:] == ["leave", "cancel"]


async def test_back_before_the_withdrawal_went_out() -> None:
    async with play() as here:
        here.hold()
        await settle()
        here.release()
        here.hold()
        await settle()
        assert here.wire.log == ["show Bob", "later 60000", "join", "restart"]


async def test_a_leg_that_replaces_another_keeps_the_seat_in_either_order() -> None:
    newer = LegId("PA_2")
    for order in ("left first", "joined first"):
        async with play() as here:
            here.hold()
            await settle()
            if order == "left first":
                here.release()
                here.hold(leg=newer)
            else:
                here.hold(leg=newer)
                here.release()
            await settle()
            assert "leave" not in here.wire.log, order
            assert here.seat.leg == newer


async def test_a_new_name_is_shown_without_a_new_membership() -> None:
    async with play() as here:
        here.hold()
        await settle()
        here.memberships.rename(LEG, Person(BOB.account, "Robert", ""))
        assert await here.after(0) == ["show Robert"]


async def test_what_is_refused_is_told_once_and_tried_again_when_powers_change() -> None:
    async with play() as here:
        here.wire.denied = Denied(403, "M_FORBIDDEN", "no")
        here.hold()
        await settle()
        await here.after(60)
        assert here.refused == [ROOM]
        here.wire.denied = None
        here.memberships.poke(ROOM)
        await settle()
        assert here.wire.log[-1] == "join"
        here.wire.denied = Denied(403, "M_FORBIDDEN", "no longer in the room")
        here.release()
        await settle()
        assert not here.memberships.seats()


async def test_a_start_takes_over_what_lives_and_withdraws_what_does_not() -> None:
    store = MemoryStore()
    async with play(store) as here:
        here.hold()
        await settle()
    async with play(store) as here:
        here.wire.alive.add("d1")
        here.wire.state_now = {"application": "m.call"}
        here.hold()
        here.now += 10
        await settle()
        await here.after(10)
        assert set(here.wire.log) == {"restart"}, "it stands: no second membership event"
    async with play(store) as here:
        here.wire.alive.add("d1")
        await settle()
        assert here.wire.log == ["leave", "cancel"]
        assert not store.rows


async def test_an_unreadable_row_is_left_alone() -> None:
    store = MemoryStore()
    await store.put("matrix", "membership:x", {"v": 9})
    async with play(store) as here:
        assert not here.memberships.seats()
