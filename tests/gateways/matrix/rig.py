"""The matrix gateway on its own, with the real rules behind it and memory instead of SQL.

Not here: homeservers (`homeserver` fakes one, `tests.peers.synapse` runs one).
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bridge.conference.commands import Command, Join
from bridge.conference.errors import Unavailable
from bridge.conference.events import Event, Said
from bridge.conference.ids import (
    Account,
    Actor,
    ConferenceId,
    LegId,
    Network,
    Place,
    Receives,
    Role,
)
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.conference.state import State
from bridge.config import Config, HttpSection, Listen, LivekitSection, MatrixSection
from bridge.fetch import Fetcher
from bridge.focus import Registry
from bridge.gateway import Context, InboxRow, OutboxRow
from bridge.gateways.matrix.door import MatrixGateway, create
from bridge.http import Http, Listener
from tests.fakes import MemoryJournal, MemoryStore

WAIT_S = 10.0


class MemoryInbox:
    """Keeps `gateway.Inbox`: deduplicates batches and ids, remembers what became of each row."""

    def __init__(self) -> None:
        self.batches: set[str] = set()
        self.waiting: list[InboxRow] = []
        self.ids: set[str] = set()
        self.finished: list[int] = []
        self.letters: dict[int, str] = {}
        self.away = False
        self._next = 1
        self._bell = asyncio.Event()

    async def put(
        self, gateway: str, batch: str, items: Sequence[tuple[str, Mapping[str, object]]]
    ) -> bool:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("database")
        if batch in self.batches:
            return False
        self.batches.add(batch)
        for source_id, payload in items:
            if source_id not in self.ids:
                self.ids.add(source_id)
                self.waiting.append(InboxRow(self._next, gateway, source_id, payload))
                self._next += 1
        self._bell.set()
        return True

    async def rows(self, gateway: str) -> AsyncIterator[InboxRow]:
        last = 0
        while True:
            for row in [row for row in self.waiting if row.id > last]:
                last = row.id
                yield row
            self._bell.clear()
            if not any(row.id > last for row in self.waiting):
                await self._bell.wait()

    async def done(self, row: int) -> None:
        self.finished.append(row)

    async def dead(self, row: int, why: str) -> None:
        self.letters[row] = why

    @property
    def is_idle(self) -> bool:
        ended = {*self.finished, *self.letters}
        return all(row.id in ended for row in self.waiting)


class MemoryDirectory:
    """Keeps `ports.Directory` over the journal's states."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def all(self) -> Sequence[ConferenceRecord]:
        return [state.record for state in self._journal.states.values()]

    async def _one(self, claim: Callable[[ConferenceRecord], bool]) -> ConferenceRecord | None:
        return next((record for record in await self.all() if claim(record)), None)

    async def by_id(self, conference: ConferenceId) -> ConferenceRecord | None:
        return await self._one(lambda record: record.id == conference)

    async def by_room(self, room: str) -> ConferenceRecord | None:
        return await self._one(lambda record: record.room == room)

    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return await self._one(lambda record: record.slug == slug)

    async def by_place(self, place: Place) -> ConferenceRecord | None:
        return await self._one(lambda record: place in record.places)

    async def create(
        self, *, room: str, slug: str = "", title: str = "", auto: bool = False
    ) -> ConferenceRecord:
        known = await self.by_room(room)
        if known is not None:
            return known
        number = len(self._journal.states) + 1
        record = ConferenceRecord(
            ConferenceId(f"c_{number}"), slug or f"s{number}", room, title, (), auto
        )
        self._journal.states[record.id] = State(record)
        return record


@dataclass(slots=True)
class Rig:
    """What a test holds in its hand. `deliveries` stands for the app's outbox sender."""

    gateway: MatrixGateway
    context: Context
    registry: Registry
    journal: MemoryJournal
    inbox: MemoryInbox
    directory: MemoryDirectory
    http: Http
    store: MemoryStore
    said: list[Said] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        self.events += events
        self.said += [event for event in events if isinstance(event, Said)]
        self.gateway.notify(conference, events)

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.http.port(Listener.INTERNAL)}"

    async def conference(self, *places: Place, slug: str = "") -> ConferenceRecord:
        """A conference bound to these places."""
        record = await self.directory.create(room=f"room-{secrets.token_hex(4)}", slug=slug)
        record = replace(record, places=places)
        self.journal.states[record.id] = State(record)
        return record

    async def joins(
        self, record: ConferenceRecord, address: str, name: str, network: Network = Network.XMPP
    ) -> LegId:
        leg = LegId(f"PA_{secrets.token_hex(6)}")
        role = Role.MEMBER
        await self.submit(
            record, Join(leg, "test", Account(network, address), name, role, Receives.EACH)
        )
        return leg

    async def submit(self, record: ConferenceRecord, command: Command) -> tuple[Event, ...]:
        return await self.registry.submit(record.id, command, None)

    async def deliver(
        self, record: ConferenceRecord, room: str, by: Actor, text: str, **changes: Any
    ) -> str | None:
        key = changes.pop("key", secrets.token_hex(8))
        attempts = changes.pop("attempts", 0)
        said = Said("m", by, text, key, "test", None, "", changes.pop("is_emote", False), 0)
        row = OutboxRow(1, record, Place(Network.MATRIX, room), said, key, attempts)
        return await self.gateway.deliver(row)


async def until(claim: Callable[[], bool], what: str = "", wait_s: float = WAIT_S) -> None:
    """Poll a claim; its failure is the test's."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while not claim():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(what or "did not happen in time")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def rig(
    homeserver: str,
    *,
    server_name: str = "hs.test",
    as_token: str = "a" * 32,
    hs_token: str = "h" * 32,
    internal_port: int = 0,
    admins: tuple[str, ...] = (),
    allowed: tuple[str, ...] = ("*",),
    store: MemoryStore | None = None,
    journal: MemoryJournal | None = None,
    fetch: Fetcher | None = None,
    overrides: Mapping[str, str] | None = None,
    prepare: Callable[[MatrixGateway], None] = lambda gateway: None,
) -> AsyncIterator[Rig]:
    """The gateway running, its internal listener open."""
    loopback = Listen(port=0)
    config = Config(
        http=HttpSection(public=loopback, internal=Listen(port=internal_port), ops=loopback),
        livekit=LivekitSection(full_access_homeservers=allowed),
        matrix=MatrixSection(
            homeserver=homeserver,
            server_name=server_name,
            as_token=as_token,  # type: ignore[arg-type]  # pydantic wraps it
            hs_token=hs_token,  # type: ignore[arg-type]
            admins=admins,
            livekit_service_url="http://localhost:8480",
            federation_overrides=dict(overrides or {}),
        ),
    )
    journal = journal or MemoryJournal()
    store = store or MemoryStore()
    inbox, directory, http = MemoryInbox(), MemoryDirectory(journal), Http(config.http)
    nothing = cast(Any, None)
    async with asyncio.TaskGroup() as tasks:
        context = Context(
            config=config,
            submit=nothing,
            view=nothing,
            media=nothing,
            directory=directory,
            legs=nothing,
            inbox=inbox,
            outbox=nothing,
            store=store,
            http=http,
            fetch=fetch or Fetcher(),
        )
        gateway = create(context)
        prepare(gateway)
        assert context.ghosts is not None
        here = Rig(gateway, context, nothing, journal, inbox, directory, http, store)
        foci = _Foci(tasks)
        registry = Registry(cast(Any, foci), journal, context.ghosts, [here], idle_s=3600)
        here.registry = registry

        async def submit(
            conference: ConferenceId, command: Command, cause: Cause | None
        ) -> tuple[Event, ...]:
            return await registry.submit(conference, command, cause)

        context.submit, context.view = submit, registry.view
        context.gateways["matrix"] = gateway
        for conference in await journal.live():
            await registry.adopt(conference)
        async with http.serve():
            life = tasks.create_task(gateway.run())
            try:
                yield here
            finally:
                life.cancel()
                foci.end()
                await asyncio.wait([life])


class _Foci:
    """As much of a TaskGroup as the registry needs, with an end."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._made: list[asyncio.Task[Any]] = []

    def create_task(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        task = self._tasks.create_task(work, name=name)
        self._made.append(task)
        return task

    def end(self) -> None:
        for task in self._made:
            task.cancel()
