"""Inbox, outbox and key-value state: order, waiting, dead letters, attempts."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from bridge.conference.events import Bound
from bridge.conference.ids import Network, Place
from bridge.conference.ports import ConferenceRecord
from bridge.config import Config
from bridge.store import Stores, open_store
from bridge.store.tables import inbox, message_places, outbox
from bridge.store.values import bounded_id, outbox_key
from tests.store.people import BY, MUC, ROOM, said


@pytest.fixture
async def record(stores: Stores) -> ConferenceRecord:
    made = await stores.directory.create(room="r1")
    await stores.journal.commit(made, [Bound(ROOM, BY), Bound(MUC, BY)])
    return made


async def test_rows_come_in_order_and_only_of_their_gateway(stores: Stores) -> None:
    for number in range(250):  # more than one page
        await stores.inbox.put("matrix", f"t{number}", [(f"e{number}", {"n": number})])
    await stores.inbox.put("xmpp", "t0", [("e0", {})])
    rows = stores.inbox.rows("matrix")
    async with asyncio.timeout(10):
        assert [(await anext(rows)).payload["n"] for _ in range(250)] == list(range(250))
    await rows.aclose()  # type: ignore[attr-defined]


async def test_a_waiting_reader_is_woken_at_once(stores: Stores) -> None:
    rows = stores.inbox.rows("matrix")
    waiting = asyncio.ensure_future(anext(rows))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await stores.inbox.put("xmpp", "other", [("x", {})])
    await stores.inbox.put("matrix", "t", [("e", {"a": [1, None, "é"]})])
    async with asyncio.timeout(10):  # far below the 30 s after which it looks by itself
        row = await waiting
    assert (row.gateway, row.source_id, row.payload) == ("matrix", "e", {"a": [1, None, "é"]})
    await rows.aclose()  # type: ignore[attr-defined]


async def test_undone_rows_come_back_after_a_restart_and_done_ones_do_not(config: Config) -> None:
    stores = await open_store(config)
    await stores.inbox.put("matrix", "t", [(name, {}) for name in "abc"])
    rows = stores.inbox.rows("matrix")
    seen = [await anext(rows) for _ in range(3)]
    await stores.inbox.done(seen[0].id)
    await stores.inbox.dead(seen[1].id, "poison \0")
    await rows.aclose()  # type: ignore[attr-defined]
    await stores.close()
    stores = await open_store(config)
    rows = stores.inbox.rows("matrix")
    assert await anext(rows) == seen[2]
    await rows.aclose()  # type: ignore[attr-defined]
    query = select(inbox).order_by(inbox.c.id)
    found = await stores._database.read(lambda db: db.execute(query).all())
    assert [(row.state, row.payload) for row in found] == [
        ("done", None),
        ("dead", "{}"),  # kept, to look into
        ("new", "{}"),
    ]
    await stores.close()


async def test_a_place_gets_its_lines_in_order(stores: Stores, record: ConferenceRecord) -> None:
    for number in range(3):
        await stores.journal.commit(record, [said(f"e{number}", f"line {number}")])
    assert await stores.outbox.places() == [MUC]
    assert await stores.outbox.next(ROOM) is None
    first = await stores.outbox.next(MUC)
    assert first is not None
    assert (first.said.text, first.attempts, first.place) == ("line 0", 0, MUC)
    assert first.conference.places == (ROOM, MUC)
    assert await stores.outbox.next(MUC) == first  # until it is delivered
    await stores.outbox.begin(first.id)
    again = await stores.outbox.next(MUC)
    assert again is not None
    assert (again.key, again.attempts) == (first.key, 1)
    await stores.outbox.confirm(first.id, "stanza-1")
    second = await stores.outbox.next(MUC)
    assert second is not None
    assert second.said.text == "line 1"
    await stores.outbox.dead(second.id, "too long")
    third = await stores.outbox.next(MUC)
    assert third is not None
    await stores.outbox.confirm(third.id, "")  # nothing to send
    assert await stores.outbox.places() == []
    query = select(outbox).order_by(outbox.c.id)
    rows = await stores._database.read(lambda db: db.execute(query).all())
    places = select(message_places).order_by(message_places.c.message, message_places.c.network)
    ids = await stores._database.read(lambda db: db.execute(places).all())
    assert [(row.state, row.said is None) for row in rows] == [
        *(("done", True), ("dead", False), ("done", True)),
    ]
    # The message map knows the line's id where it came from and where it went.
    assert [(row.message, row.network, row.remote_id) for row in ids] == [
        ("m-e0", "matrix", "e0"),
        ("m-e0", "xmpp", "stanza-1"),
        ("m-e1", "matrix", "e1"),
        ("m-e2", "matrix", "e2"),
    ]


async def test_confirming_twice_is_harmless(stores: Stores, record: ConferenceRecord) -> None:
    await stores.journal.commit(record, [said("e")])
    row = await stores.outbox.next(MUC)
    assert row is not None
    await stores.outbox.confirm(row.id, "one")
    await stores.outbox.confirm(row.id, "one")
    await stores.outbox.confirm(row.id + 1000, "none")
    assert await stores.outbox.places() == []


async def test_senders_are_woken_and_miss_nothing(stores: Stores, record: ConferenceRecord) -> None:
    assert await stores.outbox.wait(0.01) == 0
    waiting = [asyncio.ensure_future(stores.outbox.wait(5, 0)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await stores.journal.commit(record, [said("e1")])
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert await stores.outbox.wait(5, 0) == 1  # the ring before the wait counts
    assert not await stores.journal.commit(record, [said("e1")])  # a repetition rings nobody
    assert await stores.outbox.wait(0.01, 1) == 1


def test_the_key_of_a_delivery_never_changes() -> None:
    # Networks deduplicate by it across restarts and upgrades: a change would double lines.
    assert outbox_key("matrix", "$e", MUC) == "eeceb77f4a3908f81845870c667c2f65b41dec2b"


@given(
    st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)), unique=True)
)
def test_different_deliveries_have_different_keys(parts: list[tuple[str, str, str]]) -> None:
    made = {outbox_key(a, b, Place(Network.XMPP, c)) for a, b, c in parts}
    assert len(made) == len(parts)


@given(st.text(st.characters(exclude_categories=()), max_size=2_000))
def test_ids_fit_a_key_column_and_stay_apart(text: str) -> None:
    made = bounded_id(text)
    assert len(made) <= 512
    assert made.isprintable()
    assert bounded_id(made) == made
    assert bounded_id(text + "\0") != made


async def test_key_values(stores: Stores) -> None:
    kv = stores.store
    assert await kv.get("matrix", "ghost/a") is None
    await kv.put("matrix", "ghost/a", {"n": 1})
    await kv.put("matrix", "ghost/a", {"n": 2, "deep": {"x": [None, True, 1.5, "\0\ud800"]}})
    await kv.put("matrix", "ghost/B", {})
    await kv.put("matrix", "ghos%", {})
    await kv.put("xmpp", "ghost/a", {"n": 9})
    assert await kv.get("matrix", "ghost/a") == {
        "n": 2,
        "deep": {"x": [None, True, 1.5, "\0\ud800"]},
    }
    assert {key for key, _ in await kv.items("matrix", "ghost/")} == {"ghost/a", "ghost/B"}
    assert [key for key, _ in await kv.items("matrix", "ghos%")] == ["ghos%"]
    assert await kv.items("matrix", "GHOST") == []
    assert len(await kv.items("matrix", "")) == 3
    await kv.delete("matrix", "ghost/a")
    await kv.delete("matrix", "ghost/a")
    assert await kv.get("matrix", "ghost/a") is None
    assert await kv.get("xmpp", "ghost/a") == {"n": 9}
