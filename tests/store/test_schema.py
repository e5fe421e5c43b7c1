"""The migrations make exactly the tables of the code, go down again, and are asked for at start (R17)."""

import asyncio
import threading
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
from bridge.store.database import Database
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

    database = Database(config.database.url)
    assert await database.read(differences) == []
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
    database = Database(url)
    left = await database.read(lambda db: inspect(db).get_table_names())
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
    database = Database(config.database.url)
    future = text("UPDATE alembic_version SET version_num = '9999'")
    await database.write(lambda db: db.execute(future))
    with pytest.raises(Refused, match="revision 9999"):
        await open_store(config)
    with pytest.raises(Refused, match="revision 9999 and this parley knows no way"):
        await migrate(config.database.url)
    present = text("UPDATE alembic_version SET version_num = :head")
    await database.write(lambda db: db.execute(present, {"head": head()}))
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
    url = f"sqlite:///{tmp_path}/parley.db"
    await migrate(url)
    database = Database(url)
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}

    def read(db: Connection) -> dict[str, object]:
        return {name: db.execute(text(f"PRAGMA {name}")).scalar_one() for name in wanted}

    assert await database.read(read) == wanted
    assert await database.write(read) == wanted
    await database.close()


async def test_a_writing_transaction_has_the_lock_from_its_beginning(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/parley.db"
    await migrate(url)
    first, second = Database(url), Database(url)
    has_begun, may_end = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        has_begun.set()  # nothing written yet
        may_end.wait(20)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first.write(hold))
        await asyncio.to_thread(has_begun.wait, 5)
        try:
            await second.read(lambda db: db.execute(text("SELECT 1")).scalar_one())
            await second.read(lambda db: db.execute(text("PRAGMA busy_timeout = 1")))
            with pytest.raises(Unavailable, match="database is locked"):
                await second.write(lambda db: None)
        finally:
            may_end.set()
    await second.write(lambda db: None)
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
