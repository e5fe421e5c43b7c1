"""What an outage, a cancelled caller or a lost connection may do to the store: delay, and nothing else (R3)."""

import asyncio
import random

import pytest
from sqlalchemy import text

from bridge.conference.errors import Unavailable
from bridge.conference.events import Bound, Joined
from bridge.config import Config
from bridge.store import Stores, open_store
from bridge.store.database import Database
from tests.store.people import BY, MUC, ROOM, leg, said


async def test_cancelled_callers_leave_the_store_well(stores: Stores) -> None:
    """A gateway's timeout may strike in any await of a transaction."""
    record = await stores.directory.create(room="r1")
    await stores.journal.commit(record, [Bound(ROOM, BY), Bound(MUC, BY)])
    chance = random.Random(3)

    async def call(number: int) -> None:
        try:
            async with asyncio.timeout(chance.random() * 0.02):
                await stores.inbox.put("matrix", f"t{number}", [(f"$e{number}", {})])
                await stores.journal.commit(record, [said(f"$e{number}")])
                await stores.outbox.next(MUC)
        except (TimeoutError, Unavailable):
            pass

    for start in range(0, 120, 12):
        async with asyncio.timeout(20):
            await asyncio.gather(*(call(number) for number in range(start, start + 12)))
    # Whatever was cancelled happened wholly or not at all, and can be asked for again.
    for number in range(120):
        await stores.journal.commit(record, [said(f"$e{number}")])
    seen: list[str] = []
    while (row := await stores.outbox.next(MUC)) is not None:
        seen.append(row.said.source_id)
        await stores.outbox.confirm(row.id, f"s{row.id}")
    assert sorted(seen) == sorted(f"$e{number}" for number in range(120))


async def test_writers_at_once_queue_instead_of_failing(stores: Stores) -> None:
    records = [await stores.directory.create(room=f"r{number}") for number in range(10)]
    async with asyncio.timeout(20):
        await asyncio.gather(
            *(
                stores.journal.commit(record, [Joined(leg(f"PA_{record.room}_{turn}"), True)])
                for record in records
                for turn in range(10)
            )
        )
    for record in records:
        found = await stores.journal.restore(record.id)
        assert found is not None
        assert len(found.legs) == 10


async def _drop_connections(database: Database) -> None:
    statement = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await database.write(lambda db: db.execute(statement))


@pytest.mark.parametrize(
    "url", [pytest.param("postgresql", marks=pytest.mark.peers)], indirect=True
)
async def test_dropped_connections_are_made_again(stores: Stores) -> None:
    record = await stores.directory.create(room="r1")
    async with asyncio.TaskGroup() as tasks:  # several connections in the pool
        for _ in range(4):
            tasks.create_task(stores.ping())
    await _drop_connections(stores._database)
    async with asyncio.timeout(10):
        assert await stores.journal.commit(record, [Joined(leg(), True)])
        await stores.ping()


async def test_a_reader_waits_an_outage_out(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = await open_store(config)
    rows = stores.inbox.rows("matrix")
    reading = asyncio.ensure_future(anext(rows))
    await asyncio.sleep(0.05)
    page = stores.inbox._page
    calls = 0

    async def away(gateway: str, after: int) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("database: gone")
        return await page(gateway, after)

    monkeypatch.setattr(stores.inbox, "_page", away)
    await stores.inbox.put("matrix", "t", [("$e", {})])
    async with asyncio.timeout(5):
        assert (await reading).source_id == "$e"
    assert calls == 2
    await rows.aclose()  # type: ignore[attr-defined]
    await stores.close()


async def test_a_closed_store_says_so(config: Config) -> None:
    stores = await open_store(config)
    await stores.close()
    await stores.close()  # twice is fine
