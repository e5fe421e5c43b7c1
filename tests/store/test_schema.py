"""The migrations make exactly the tables of the code, go down again, and are asked for at start (R17)."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import Bound, Joined, MuteRuled
from bridge.conference.ids import TrackKind
from bridge.config import Config
from bridge.store import Stores, open_directory, open_store
from bridge.store.database import Database, make_engine
from bridge.store.schema import downgrade, head, migrate
from bridge.store.tables import metadata
from tests.store.people import BOB, BY, MUC, ROOM, leg, said


async def test_migrated_tables_equal_the_metadata(config: Config) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found: list[object] = compare_metadata(context, metadata)
        checks = {
            table: {
                str(check["name"]) for check in inspect(connection).get_check_constraints(table)
            }
            for table in metadata.tables
        }
        assert checks["inbox"] == {"ck_inbox_state"}
        assert checks["epoch"] == {"ck_epoch_one_row"}
        return found

    database = Database(make_engine(config.database.url))
    async with database.read() as db:
        assert await db.run_sync(differences) == []
    await database.close()


async def test_a_filled_database_goes_down_and_up(url: str, tmp_path: Path) -> None:
    assert await migrate(url) == (None, head())
    assert await migrate(url) == (head(), head())
    config = Config.model_validate({"state_dir": tmp_path, "database": {"url": url}})
    stores = await open_store(config)
    record = await stores.directory.create(room="r")
    events = [Bound(ROOM, BY), Bound(MUC, BY), Joined(leg(), True), said("e1")]
    events.append(MuteRuled(BOB, TrackKind.AUDIO, True, BY))
    await stores.inbox.put("matrix", "t", [("e", {})])
    await stores.store.put("matrix", "k", {})
    await stores.epoch()
    assert await stores.journal.commit(record, events)
    await stores.close()
    assert await downgrade(url, "base") == (head(), None)
    database = Database(make_engine(url))
    async with database.read() as db:
        left = await db.run_sync(lambda connection: inspect(connection).get_table_names())
    assert set(left) <= {"alembic_version"}
    await database.close()
    assert await migrate(url) == (None, head())
    assert await downgrade(url, "base") == (head(), None)


async def test_an_unmigrated_database_refuses_to_start(url: str, tmp_path: Path) -> None:
    config = Config.model_validate({"state_dir": tmp_path, "database": {"url": url}})
    for _ in range(2):  # twice: the lock of the first try was given back
        with pytest.raises(Refused, match="run `parley migrate`"):
            await open_store(config)


async def test_a_database_of_the_future_refuses_to_start(config: Config) -> None:
    database = Database(make_engine(config.database.url))
    async with database.write() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refused, match="revision 9999"):
        await open_store(config)
    with pytest.raises(Refused, match="revision 9999 and this parley knows no way"):
        await migrate(config.database.url)
    async with database.write() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": head()})
    await database.close()


async def test_one_parley_per_database(stores: Stores, config: Config) -> None:
    with pytest.raises(Refused, match="another parley is running"):
        await open_store(config)
    async with open_directory(config) as directory:  # reading verbs may come in
        assert await directory.all() == []
    await stores.close()
    again = await open_store(config)
    assert await again.epoch() == 1
    await again.close()


async def test_the_epoch_rises_by_one_per_start(config: Config) -> None:
    for expected in (1, 2, 3):
        stores = await open_store(config)
        assert [await stores.epoch(), await stores.epoch()] == [expected, expected]
        await stores.close()


async def test_sqlite_is_set_up_for_power_cuts(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/parley.db"
    await migrate(url)
    database = Database(make_engine(url))
    async with database.read() as db:
        for pragma, value in {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }.items():
            assert (await db.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value
    await database.close()


async def test_a_writing_transaction_has_the_lock_from_its_beginning(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/parley.db"
    await migrate(url)
    first, second = Database(make_engine(url)), Database(make_engine(url))
    async with first.write():  # nothing written yet
        async with second.read() as db:
            await db.execute(text("SELECT 1"))
            await db.execute(text("PRAGMA busy_timeout = 1"))
        with pytest.raises(Unavailable, match="database is locked"):
            async with second.write():
                pass
    async with second.write():
        pass
    await first.close()
    await second.close()


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://parley@127.0.0.1:1/none"
    config = Config.model_validate({"state_dir": tmp_path, "database": {"url": url}})
    with pytest.raises(Unavailable):
        await open_store(config)


@pytest.mark.peers
async def test_postgresql_errors_are_sentences(postgres_url: str, tmp_path: Path) -> None:
    wrong = postgres_url.replace("/postgres", "/nothing")
    config = Config.model_validate({"state_dir": tmp_path, "database": {"url": wrong}})
    with pytest.raises(Unavailable, match='database "nothing" does not exist'):
        await open_store(config)
