"""Call memberships of ghosts: what makes Element Call show people of other networks.

State form `org.matrix.msc3401.call.member` (MSC3401, MSC4143 as of 2026-07; content as Element Call 0.26.1
reads it). Each membership is tended by one task: a delayed leave (MSC4140) is scheduled before the join and
kept from firing, the membership is sent anew before it expires and when somebody or something emptied it.
What is out there is in the key-value store before the homeserver is told, so a restart can clean up.
Not here: who should have a membership (`outbound`), the ghost itself (`ghosts`).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.ids import Account, ConferenceId, LegId, Network
from bridge.gateway import Store
from bridge.gateways.matrix.ghosts import GhostBook
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.wire import CALL_MEMBER

log = logging.getLogger(__name__)

NAME: Final = "matrix"
PREFIX: Final = "membership:"
EXPIRES_MS: Final = 14_400_000  # 4 h, as Element Call writes it
REFRESH_S: Final = 10_800.0  # 3 h of 4
LEAVE_DELAY_MS: Final = 60_000
RESTART_S: Final = 20.0  # two restarts may fail before the leave fires
RESTART_SPREAD: Final = 0.15  # so that a hundred ghosts do not knock together
REPUBLISH_PAUSE_S: Final = 5.0  # at most so often against somebody who keeps emptying it
REFUSED_S: Final = 60.0  # no right to publish: try again so late, or when power levels change
BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a membership shows."""

    account: Account
    name: str
    avatar: str


@dataclass(slots=True, eq=False)
class Seat:
    """One device's membership in one room; `leg` is the leg that has it now.

    `published_s` is monotonic; None = not out there as far as we know.
    """

    leg: LegId
    conference: ConferenceId
    room: str
    ghost: str
    device: str
    person: Person
    wanted: bool = True
    delay_id: str = ""
    published_s: float | None = None
    shown: Person | None = None
    doubtful: bool = False  # look at the room's state before believing `published_s`
    may_exist: bool = False  # something of it may be in the room
    is_refused: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> tuple[str, str]:
        return self.state_key, self.room

    @property
    def state_key(self) -> str:
        """The leading underscore: rooms without owned state (MSC3757) keep `@` keys for their owner's event."""
        return f"_{self.ghost}_{self.device}_m.call"

    @property
    def row(self) -> str:
        return f"{PREFIX}{self.room} {self.state_key}"


def content(ghost: str, device: str, service_url: str) -> dict[str, Any]:
    """A membership as Element Call writes and reads it; the leave is `{}`."""
    return {
        "application": "m.call",
        "call_id": "",
        "scope": "m.room",
        "device_id": device,
        "membershipID": f"{ghost}:{device}",
        "expires": EXPIRES_MS,
        "m.call.intent": "video",
        "focus_active": {"type": "livekit", "focus_selection": "multi_sfu"},
        "foci_preferred": [{"type": "livekit", "livekit_service_url": service_url}],
    }


class Memberships:
    """Keeps every seat as wanted. `start` before use; tasks live in the caller's group."""

    def __init__(
        self,
        link: Link,
        ghosts: GhostBook,
        store: Store,
        service_url: str,
        *,
        on_refused: Callable[[str], None] = lambda room: None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        restart_s: float = RESTART_S,
        leave_delay_ms: int = LEAVE_DELAY_MS,
    ) -> None:
        self._link, self._ghosts, self._store, self._service_url = link, ghosts, store, service_url
        self._on_refused = on_refused
        self._clock, self._wall_clock = clock, wall_clock
        self._restart_s, self._leave_delay_ms = restart_s, leave_delay_ms
        self._seats: dict[tuple[str, str], Seat] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._has_delays = True

    @property
    def has_delays(self) -> bool:
        """False once the homeserver has shown that it does not know MSC4140."""
        return self._has_delays

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Take over what an earlier process left in rooms: unwanted until `hold` says otherwise."""
        self._tasks = tasks
        for _, saved in await self._store.items(NAME, PREFIX):
            seat = self._recall(saved)
            if seat is not None and seat.key not in self._seats:
                self._seat(seat)

    # --- what should be ---------------------------------------------------------------------------------

    def hold(
        self, conference: ConferenceId, leg: LegId, device: str, room: str, person: Person
    ) -> None:
        """The leg is in the call: show it in this room. A leg that replaces another takes over its seat."""
        ghost = self._ghosts.of(person.account).mxid
        wanted = Seat(leg, conference, room, ghost, device, person)
        seat = self._seats.get(wanted.key)
        if seat is None:
            self._seat(wanted)
            return
        seat.leg, seat.conference, seat.person, seat.wanted = leg, conference, person, True
        seat.changed.set()

    def release(self, seat_filter: Callable[[Seat], bool]) -> None:
        """These are gone: withdraw them."""
        for seat in self._seats.values():
            if seat.wanted and seat_filter(seat):
                seat.wanted = False
                seat.changed.set()

    def rename(self, leg: LegId, person: Person) -> None:
        for seat in self._seats.values():
            if seat.leg == leg and seat.person != person:
                seat.person = person
                seat.changed.set()

    def seats(self) -> tuple[Seat, ...]:
        """For tests and status."""
        return tuple(self._seats.values())

    # --- what was seen ----------------------------------------------------------------------------------

    def emptied(self, room: str, state_key: str) -> None:
        """A leave of a ghost of ours was seen (an overdue delayed one, or somebody else's doing)."""
        for seat in self._seats.values():
            if seat.room == room and seat.state_key == state_key and seat.wanted:
                seat.doubtful = True
                seat.changed.set()

    def poke(self, room: str) -> None:
        """Power levels changed: what was refused may be possible now."""
        for seat in self._seats.values():
            if seat.room == room and seat.is_refused:
                seat.changed.set()

    # --- tending ----------------------------------------------------------------------------------------

    def _seat(self, seat: Seat) -> None:
        if self._tasks is None:
            raise Unavailable("matrix gateway is not running")
        self._seats[seat.key] = seat
        self._tasks.create_task(self._tend(seat), name=f"membership {seat.leg}")

    async def _tend(self, seat: Seat) -> None:
        """Until withdrawn. Only cancellation ends it earlier: then the delayed leave or the next start cleans up."""
        failures = 0
        while True:
            seat.changed.clear()
            try:
                pause_s = await (self._hold(seat) if seat.wanted else self._withdraw(seat))
                failures = 0
            except Unavailable as why:
                pause_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)] * random.uniform(0.8, 1.2)
                failures += 1
                log.warning("membership waits", extra={"leg": seat.leg, "why": str(why)})
            except Refused as why:
                pause_s = self._refused(seat, why)
            if not seat.wanted and not seat.may_exist:
                self._seats.pop(seat.key, None)
                return
            await self._wait(seat, pause_s)

    @staticmethod
    async def _wait(seat: Seat, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await seat.changed.wait()
        except TimeoutError:
            pass

    def _refused(self, seat: Seat, why: Refused) -> float:
        if not seat.wanted:  # put out of the room: nothing of ours counts there any more
            seat.may_exist = False
        elif not seat.is_refused:
            seat.is_refused = True
            log.warning("membership refused", extra={"leg": seat.leg, "why": str(why)})
            if isinstance(why, Denied) and why.is_forbidden:
                self._on_refused(seat.room)
        return REFUSED_S

    async def _hold(self, seat: Seat) -> float:
        """Make it so; returns how long it will last without us."""
        now = self._clock()
        if seat.doubtful and seat.published_s is not None:
            fresh_s = seat.published_s + REPUBLISH_PAUSE_S - now
            if fresh_s > 0:
                return fresh_s
            if not await self._is_out(seat):
                seat.published_s = None
            seat.doubtful = False
        if seat.published_s is None or now - seat.published_s >= REFRESH_S:
            await self._publish(seat)
        elif seat.shown != seat.person:
            await self._show(seat)
        elif seat.delay_id and not await self._link.restart_later(seat.delay_id, user=seat.ghost):
            seat.delay_id = ""  # it fired: we were away too long
            await self._publish(seat)
        return self._restart_s * random.uniform(1 - RESTART_SPREAD, 1 + RESTART_SPREAD)

    async def _is_out(self, seat: Seat) -> bool:
        try:
            return bool(await self._link.state(seat.room, CALL_MEMBER, seat.state_key))
        except Denied:
            return False

    async def _show(self, seat: Seat) -> None:
        person = seat.person
        await self._ghosts.show(person.account, person.name, person.avatar, seat.room)
        seat.shown = person

    async def _publish(self, seat: Seat) -> None:
        await self._show(seat)
        seat.may_exist = True
        await self._save(seat)
        if not seat.delay_id:
            seat.delay_id = await self._link.put_state_later(
                seat.room,
                CALL_MEMBER,
                seat.state_key,
                {},
                user=seat.ghost,
                delay_ms=self._leave_delay_ms,
            )
            await self._save(seat)
        body = content(seat.ghost, seat.device, self._service_url)
        await self._link.put_state(seat.room, CALL_MEMBER, seat.state_key, body, user=seat.ghost)
        if bool(seat.delay_id) != self._has_delays:
            self._has_delays = bool(seat.delay_id)
            if not seat.delay_id:
                log.warning("homeserver without delayed events (MSC4140): a crash leaves ghosts")
        seat.published_s = self._clock()
        seat.is_refused = seat.doubtful = False
        await self._save(seat)

    async def _withdraw(self, seat: Seat) -> float:
        if not seat.may_exist:
            return 0.0
        await self._link.put_state(seat.room, CALL_MEMBER, seat.state_key, {}, user=seat.ghost)
        seat.published_s = None
        if seat.delay_id:
            await self._link.cancel_later(seat.delay_id, user=seat.ghost)
            seat.delay_id = ""
        await self._store.delete(NAME, seat.row)
        seat.may_exist = False
        return 0.0

    # --- what survives a restart ------------------------------------------------------------------------

    async def _save(self, seat: Seat) -> None:
        age_s = 0.0 if seat.published_s is None else self._clock() - seat.published_s
        await self._store.put(
            NAME,
            seat.row,
            {
                "v": 1,
                "leg": seat.leg,
                "conference": seat.conference,
                "room": seat.room,
                "ghost": seat.ghost,
                "device": seat.device,
                "network": seat.person.account.network.value,
                "address": seat.person.account.address,
                "name": seat.person.name,
                "avatar": seat.person.avatar,
                "delay_id": seat.delay_id,
                "published_ms": None
                if seat.published_s is None
                else int((self._wall_clock() - age_s) * 1000),
            },
        )

    def _recall(self, saved: Mapping[str, object]) -> Seat | None:
        try:
            account = Account(Network(str(saved["network"])), str(saved["address"]))
            seat = Seat(
                LegId(str(saved["leg"])),
                ConferenceId(str(saved["conference"])),
                str(saved["room"]),
                str(saved["ghost"]),
                str(saved["device"]),
                Person(account, str(saved["name"]), str(saved["avatar"])),
                wanted=False,
                delay_id=str(saved["delay_id"]),
                may_exist=True,
                doubtful=True,
            )
        except (KeyError, ValueError):
            log.warning("membership row unreadable")
            return None
        published = saved.get("published_ms")
        if isinstance(published, int):
            age_s = min(max(self._wall_clock() - published / 1000, 0.0), REFRESH_S)
            seat.published_s = self._clock() - age_s
        seat.shown = seat.person
        return seat
