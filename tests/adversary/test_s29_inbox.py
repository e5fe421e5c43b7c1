"""S29: a transaction counts once however often it comes, and a poisonous event stops nobody. R14: also under kills."""

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from bridge.conference.events import Bound
from bridge.config import Config
from bridge.store import Stores, open_store
from bridge.store.tables import inbox
from tests.adversary import exactly_once
from tests.store.conftest import config, postgres_url, stores, url
from tests.store.people import BY, MUC, ROOM

__all__ = ["config", "postgres_url", "stores", "url"]  # fixtures: both databases

ROOT = Path(__file__).resolve().parents[2]


async def waiting(stores: Stores, count: int) -> list[str]:
    """The source ids that a reader of the inbox gets."""
    rows = stores.inbox.rows("matrix")
    async with asyncio.timeout(10):
        found = [(await anext(rows)).source_id for _ in range(count)]
        with pytest.raises(TimeoutError):  # and no more
            async with asyncio.timeout(0.1):
                await anext(rows)
    return found


async def test_the_same_transaction_five_times_at_once(stores: Stores) -> None:
    events = [(f"$e{i}", {"body": i}) for i in range(20)]
    answers = await asyncio.gather(*(stores.inbox.put("matrix", "t1", events) for _ in range(5)))
    assert sorted(answers) == [False] * 4 + [True]
    assert await waiting(stores, 20) == [source_id for source_id, _ in events]


async def test_the_same_event_in_another_transaction(stores: Stores) -> None:
    assert await stores.inbox.put("matrix", "t1", [("$a", {}), ("$b", {}), ("$b", {"x": 1})])
    assert await stores.inbox.put("matrix", "t2", [("$b", {}), ("$c", {})])
    assert await stores.inbox.put("xmpp", "t1", [("$a", {})])  # another network's ids are its own
    assert await waiting(stores, 3) == ["$a", "$b", "$c"]


async def test_a_done_event_stays_done(stores: Stores) -> None:
    await stores.inbox.put("matrix", "t1", [("$a", {})])
    rows = stores.inbox.rows("matrix")
    await stores.inbox.done((await anext(rows)).id)
    await rows.aclose()  # type: ignore[attr-defined]
    await stores.inbox.put("matrix", "t2", [("$a", {}), ("$b", {})])
    assert await waiting(stores, 1) == ["$b"]


async def test_after_a_crash_the_transaction_is_known(config: Config) -> None:
    stores = await open_store(config)
    assert await stores.inbox.put("matrix", "t1", [("$a", {"n": 1})])
    await stores.close()
    stores = await open_store(config)
    assert not await stores.inbox.put("matrix", "t1", [("$a", {"n": 2})])
    assert await waiting(stores, 1) == ["$a"]
    await stores.close()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


POISON: dict[str, Any] = {
    "nul": {"body": "\0"},
    "half a surrogate pair": {"body": "\ud800"},
    "a surrogate key": {"\udfff": 1},
    "huge number": {"n": 10**400},
    "not a number": {"n": float("nan")},
    "deep": nested(100_000),
    "no JSON at all": {"x": object()},
    "long": {"body": "x" * 2_000_000},
    "sql": {"body": "'); DROP TABLE inbox; --"},
}


@pytest.mark.parametrize("name", POISON)
async def test_a_poisonous_event_does_not_stop_its_batch(stores: Stores, name: str) -> None:
    batch = [("$before", {}), ("$poison", POISON[name]), ("$after", {})]
    assert await stores.inbox.put("matrix", "t1", batch)
    rows = await stores._database.read(lambda db: db.execute(select(inbox)).all())
    found = {row.source_id: row for row in rows}
    assert set(found) == {"$before", "$poison", "$after"}
    is_dead = name in ("deep", "no JSON at all")
    assert found["$poison"].state == ("dead" if is_dead else "new")
    assert len(await waiting(stores, 2 if is_dead else 3)) >= 2


@pytest.mark.parametrize("source_id", ["", "\0", "\ud800", "x" * 100_000, "a\nb", "'; --"])
async def test_a_poisonous_id_is_kept_apart_from_others(stores: Stores, source_id: str) -> None:
    assert await stores.inbox.put("matrix", source_id, [(source_id, {}), (source_id + "y", {})])
    assert not await stores.inbox.put("matrix", source_id, [(source_id, {})])
    assert await stores.inbox.put("matrix", source_id + "y", [(source_id, {}), ("$after", {})])
    assert len(await waiting(stores, 3)) == 3


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=10,
)


@given(payload=st.dictionaries(st.text(), _json, max_size=5))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_json_says_comes_back(stores: Stores, payload: dict[str, Any]) -> None:
    name = f"${time.monotonic_ns()}"
    await stores.inbox.put("matrix", name, [(name, payload)])
    rows = stores.inbox.rows("matrix")
    row = await anext(rows)
    await rows.aclose()  # type: ignore[attr-defined]
    await stores.inbox.done(row.id)
    assert (row.source_id, row.payload) == (name, json.loads(json.dumps(payload)))


@pytest.mark.slow  # six starts of Python and 1,000 commits on disk: 7 s on an idle machine
@pytest.mark.timeout(180)
async def test_200_lines_through_5_kills_arrive_once_and_in_order(
    config: Config, tmp_path: Path
) -> None:
    """R14 at the store: SIGKILL at random moments between arrival, commit, sending and confirmation."""
    total, kills = 200, 5
    stores = await open_store(config)
    record = await stores.directory.create(room="r1", slug="demo")
    await stores.journal.commit(record, [Bound(ROOM, BY), Bound(MUC, BY)])
    await stores.close()
    chance = random.Random(29)
    confirmed = tmp_path / "confirmed"
    for turn in range(kills + 1):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.adversary.exactly_once"),
            *(str(tmp_path), config.database.url, str(total)),
            cwd=ROOT,
        )
        if turn == kills:
            assert await asyncio.wait_for(child.wait(), 90) == 0
            break
        until = len(exactly_once.lines(confirmed)) + chance.randint(10, 35)
        while len(exactly_once.lines(confirmed)) < until:
            assert child.returncode is None, "ended before it was killed"
            await asyncio.sleep(0.002)
        await asyncio.sleep(chance.random() * 0.02)
        child.kill()
        await child.wait()
    arrived = [line.split(" ", 1)[1] for line in exactly_once.lines(tmp_path / "muc")]
    assert arrived == [f"line {i}" for i in range(total)]
