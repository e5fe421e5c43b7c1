"""Group commit: one transaction for whoever waits, each of them with his own fate."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import OperationalError

from bridge.conference.errors import IllegalTransition, Unavailable
from bridge.store.database import Database
from bridge.store.schema import migrate
from bridge.store.sqlite import Sqlite
from bridge.store.statements import upsert
from bridge.store.tables import key_values

WRITERS = 50


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/parley.db"
    await migrate(url)
    opened = Database(url)
    yield opened
    await opened.close()


def put(db: Connection, key: str) -> None:
    row = {"gateway": "test", "key": key, "value": "{}"}
    db.execute(upsert(db, key_values, "value"), row)


async def keys(database: Database) -> set[str]:
    query = select(key_values.c.key)
    return set(await database.read(lambda db: db.execute(query).scalars().all()))


async def test_who_waits_together_shares_a_commit(database: Database) -> None:
    commits: list[object] = []
    backend = database._backend
    assert isinstance(backend, Sqlite)
    event.listen(backend._engine, "commit", commits.append)
    await asyncio.gather(
        *(database.write(lambda db, key=f"k{n}": put(db, key)) for n in range(WRITERS))  # type: ignore[misc]
    )
    assert len(commits) == 1
    assert await keys(database) == {f"k{n}" for n in range(WRITERS)}


@pytest.mark.parametrize("count", [1, 2])
async def test_a_stray_stop_iteration_is_an_error_and_the_next_is_served(
    database: Database, count: int
) -> None:
    """No future takes this one; unanswered, everybody would wait for ever."""

    def stop(_: Connection) -> None:
        next(iter(()))

    async with asyncio.timeout(5):
        found = await asyncio.gather(
            *(database.write(stop) for _ in range(count)), return_exceptions=True
        )
        assert [type(one) for one in found] == [RuntimeError] * count
        await database.write(lambda db: put(db, "next"))
    assert await keys(database) == {"next"}


async def test_what_one_raises_takes_back_its_own_statements_only(database: Database) -> None:
    def refuse(db: Connection) -> None:
        put(db, "refused")
        raise ValueError("no")

    def violate(db: Connection) -> None:
        put(db, "violated")
        db.execute(text("INSERT INTO key_values VALUES ('test', 'violated', '{}')"))

    outcomes = await asyncio.gather(
        database.write(lambda db: put(db, "before")),
        database.write(refuse),
        database.write(violate),
        database.write(lambda db: put(db, "after")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [
        *(type(None), ValueError, IllegalTransition, type(None)),
    ]
    assert await keys(database) == {"before", "after"}


async def test_nobody_is_answered_before_the_commit(database: Database) -> None:
    """The commit fails, for example because the disk is full: all of them are told, nothing is there."""
    backend = database._backend
    assert isinstance(backend, Sqlite)

    def fail(_: Connection) -> None:
        raise OperationalError("COMMIT", None, Exception("disk is full"))

    event.listen(backend._engine, "commit", fail)
    writes = [database.write(lambda db: put(db, "one")), database.write(lambda db: put(db, "two"))]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    event.remove(backend._engine, "commit", fail)
    assert await keys(database) == set()


async def test_a_transaction_that_sqlite_ended_is_over_for_all(database: Database) -> None:
    """Some errors roll back everything; later savepoints must not become transactions of their own."""

    def end(db: Connection) -> None:
        db.exec_driver_sql("ROLLBACK")

    outcomes = await asyncio.gather(
        database.write(lambda db: put(db, "before")),
        database.write(end),
        database.write(lambda db: put(db, "after")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert await keys(database) == set()
    await database.write(lambda db: put(db, "next"))
    assert await keys(database) == {"next"}


async def test_a_caller_that_is_gone_costs_the_others_nothing(database: Database) -> None:
    gone = asyncio.ensure_future(database.write(lambda db: put(db, "gone")))
    stays = asyncio.ensure_future(database.write(lambda db: put(db, "stays")))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert "stays" in await keys(database)


async def test_the_older_spelling_names_the_same_file(database: Database, tmp_path: Path) -> None:
    await database.write(lambda db: put(db, "there"))
    older = Database(f"sqlite+aiosqlite:///{tmp_path}/parley.db")
    assert await keys(older) == {"there"}
    await older.close()


async def test_a_closed_database_says_so(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable, match="closed"):
        await database.ping()
