"""The core's and the gateways' ports in memory, for tests that need no database.

Not here: fakes of one part only (beside that part's tests).
"""

import asyncio
from collections.abc import Mapping, Sequence

from bridge.conference.errors import Unavailable
from bridge.conference.events import Event, Said
from bridge.conference.ids import Account, ConferenceId, Identity, LegId
from bridge.conference.ports import Cause, ConferenceRecord, Restored
from bridge.conference.state import State


class MemoryJournal:
    """Keeps `ports.Journal`. `away` raises, `hangs` never answers, `rejects` is a broken event type.

    `loses_answers`: what is committed stays so, and nobody is told.
    """

    def __init__(self, *records: ConferenceRecord) -> None:
        self.states = {record.id: State(record) for record in records}
        self.commits: list[tuple[tuple[Event, ...], Cause | None]] = []
        self.away = False
        self.hangs = False
        self.loses_answers = False
        self.rejects: type[Event] | None = None
        self._said: set[tuple[str, str]] = set()

    @property
    def events(self) -> list[Event]:
        return [event for events, _ in self.commits for event in events]

    async def commit(
        self, conference: ConferenceRecord, events: Sequence[Event], cause: Cause | None = None
    ) -> bool:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise Unavailable("database")
        if self.rejects is not None and any(isinstance(e, self.rejects) for e in events):
            raise ValueError("constraint")
        for event in events:
            if isinstance(event, Said):
                if (event.source, event.source_id) in self._said:
                    return False
                self._said.add((event.source, event.source_id))
        self.commits.append((tuple(events), cause))
        self.states[conference.id] = self.states[conference.id].after_all(events)
        if self.loses_answers:
            raise Unavailable("the answer is lost")
        return True

    async def restore(self, conference: ConferenceId) -> Restored | None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("database")
        state = self.states.get(conference)
        if state is None:
            return None
        return Restored(state.record, tuple(state.legs.values()), tuple(state.mutes))

    async def live(self) -> Sequence[ConferenceId]:
        return [key for key, state in self.states.items() if state.legs]


class ComputedGhosts:
    """Keeps `ports.Ghosts`."""

    async def ensure(
        self, conference: ConferenceRecord, account: Account, name: str, leg: LegId
    ) -> Identity:
        return Identity(f"ghost/{account.address}/{leg}")


class Recorder:
    """Keeps `ports.Listener`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        self.events += events


class MemoryStore:
    """Keeps `gateway.Store`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Mapping[str, object]] = {}

    async def get(self, gateway: str, key: str) -> Mapping[str, object] | None:
        return self.rows.get((gateway, key))

    async def put(self, gateway: str, key: str, value: Mapping[str, object]) -> None:
        self.rows[gateway, key] = value

    async def delete(self, gateway: str, key: str) -> None:
        self.rows.pop((gateway, key), None)

    async def items(self, gateway: str, prefix: str) -> Sequence[tuple[str, Mapping[str, object]]]:
        return [
            (key, value)
            for (owner, key), value in self.rows.items()
            if owner == gateway and key.startswith(prefix)
        ]
