"""A gateway and an outbox of dictionaries."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.conference.events import Event, Said
from bridge.conference.ids import LegId, Network, Place
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Ability, MediaSignal, OutboxRow, SavedLeg
from tests.conference.plays import ANN, RECORD, actor

MUC = Place(Network.XMPP, "room@muc")
ROOM = Place(Network.MATRIX, "!room:a")


@dataclass
class FakeGateway:
    """Keeps `gateway.Gateway`; `answer` decides what a delivery comes to."""

    name: str = "xmpp"
    abilities: frozenset[Ability] = frozenset()
    answer: Callable[[OutboxRow], str | None] = lambda row: f"id-{row.id}"
    delivered: list[tuple[int, int]] = field(default_factory=list)
    readopted: list[SavedLeg] | None = None
    events: list[Event] = field(default_factory=list)
    signals: list[tuple[LegId, MediaSignal]] = field(default_factory=list)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        assert self.readopted is None
        self.readopted = list(legs)

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        self.events += events

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        self.signals.append((leg, signal))

    async def deliver(self, row: OutboxRow) -> str | None:
        self.delivered.append((row.id, row.attempts))
        await asyncio.sleep(0)
        return self.answer(row)

    def status(self) -> str:
        return "connected"


def row(number: int, place: Place = MUC) -> OutboxRow:
    said = Said(f"m_{number}", actor(ANN), "hi", f"${number}", "matrix", None, "", False, 0)
    return OutboxRow(number, RECORD, place, said, f"key-{number}", 0)


class MemoryOutbox:
    """Keeps `app.delivery.Outgoing`."""

    def __init__(self, *rows: OutboxRow) -> None:
        self.rows = {one.id: one for one in rows}
        self.attempts: dict[int, int] = {}
        self.confirmed: dict[int, str] = {}
        self.buried: dict[int, str] = {}
        self._commits = 0
        self._news = asyncio.Event()

    def add(self, one: OutboxRow) -> None:
        self.rows[one.id] = one
        self._commits += 1
        self._news.set()
        self._news = asyncio.Event()

    def _open(self, place: Place | None = None) -> list[OutboxRow]:
        gone = self.confirmed.keys() | self.buried.keys()
        return [
            one
            for number, one in sorted(self.rows.items())
            if number not in gone and place in (None, one.place)
        ]

    async def places(self) -> Sequence[Place]:
        return list({one.place for one in self._open()})

    async def next(self, place: Place) -> OutboxRow | None:
        await asyncio.sleep(0)
        for one in self._open(place):
            attempts = self.attempts.get(one.id, 0)
            return OutboxRow(one.id, one.conference, one.place, one.said, one.key, attempts)
        return None

    async def begin(self, row: int) -> None:
        self.attempts[row] = self.attempts.get(row, 0) + 1

    async def confirm(self, row: int, remote_id: str) -> None:
        self.confirmed[row] = remote_id

    async def dead(self, row: int, why: str) -> None:
        self.buried[row] = why

    async def wait(self, timeout_s: float, seen: int = 0) -> int:
        if self._commits <= seen:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        return self._commits
