"""S28 and the edge of S29: only our homeserver may hand us events, and nothing it sends can hurt."""

import asyncio
import hmac
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference.errors import Malformed
from bridge.config import HttpSection, Listen
from bridge.gateways.matrix import intake
from bridge.gateways.matrix.intake import Intake, read_transaction
from bridge.http import Http, Listener
from tests.gateways.matrix.rig import MemoryInbox

TOKEN = "hs-token-of-thirty-two-characters"
EVENT = {"event_id": "$one", "type": "m.room.message"}


class Door:
    """The intake on a real listener."""

    def __init__(self, http: Http, inbox: MemoryInbox, session: aiohttp.ClientSession) -> None:
        self.http, self.inbox, self.session = http, inbox, session

    def url(self, path: str, listener: Listener = Listener.INTERNAL) -> str:
        return f"http://127.0.0.1:{self.http.port(listener)}/_matrix/app/v1/{path}"

    async def put(
        self, txn: str = "t", *, data: Any = None, headers: Any = None, query: str = ""
    ) -> tuple[int, bytes]:
        if headers is None:
            headers = [("Authorization", f"Bearer {TOKEN}")]
        if data is None:
            data = json.dumps({"events": [EVENT]})
        async with self.session.put(
            self.url(f"transactions/{txn}{query}"), data=data, headers=headers
        ) as answer:
            return answer.status, await answer.read()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    any_port = Listen(port=0)
    http = Http(HttpSection(public=any_port, internal=any_port, ops=any_port))
    inbox = MemoryInbox()
    Intake(inbox, TOKEN).mount(http)
    async with http.serve(), aiohttp.ClientSession() as session:
        yield Door(http, inbox, session)


HOSTILE: list[tuple[str, list[tuple[str, str]]]] = [
    ("nothing", []),
    ("empty", [("Authorization", "")]),
    ("no scheme", [("Authorization", TOKEN)]),
    ("other scheme", [("Authorization", f"Basic {TOKEN}")]),
    ("wrong", [("Authorization", "Bearer wrong")]),
    ("prefix", [("Authorization", f"Bearer {TOKEN[:-1]}")]),
    ("longer", [("Authorization", f"Bearer {TOKEN}x")]),
    ("trailing space", [("Authorization", f"Bearer  {TOKEN}")]),
    ("other case", [("Authorization", f"Bearer {TOKEN.upper()}")]),
    ("not ASCII", [("Authorization", "Bearer t\u00f6ken")]),
    ("two headers", [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]),
    ("two good headers", [("Authorization", f"Bearer {TOKEN}")] * 2),
    ("cookie", [("Cookie", f"access_token={TOKEN}")]),
]


async def test_nobody_without_the_token_gets_in_or_learns_why(door: Door) -> None:
    answers = set()
    for name, headers in HOSTILE:
        for query in ("", f"?access_token={TOKEN}"):
            status, body = await door.put(headers=headers, query=query)
            assert status == 403, name
            answers.add(body)
    assert len(answers) == 1, "the refusals differ"
    assert not door.inbox.batches
    for method, path in (("POST", "ping"), ("GET", "users/@x:y"), ("GET", "rooms/%23x:y")):
        async with door.session.request(method, door.url(path)) as answer:
            assert answer.status == 403, path


async def test_the_token_is_compared_in_constant_time(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(intake.hmac, "compare_digest", spy)
    for offered in ("wrong", TOKEN[:-1], TOKEN):
        await door.put(headers=[("Authorization", f"Bearer {offered}")])
    assert compared == [(t.encode(), TOKEN.encode()) for t in ("wrong", TOKEN[:-1], TOKEN)]


async def test_the_door_is_not_on_the_public_side(door: Door) -> None:
    for listener in (Listener.PUBLIC, Listener.OPS):
        async with door.session.put(
            door.url("transactions/1", listener),
            json={"events": []},
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as answer:
            assert answer.status == 404


async def test_the_homeserver_gets_200_only_after_the_commit(door: Door) -> None:
    door.inbox.away = True
    status, _ = await door.put()
    assert status == 503
    door.inbox.away = False
    assert (await door.put())[0] == 200
    assert [row.source_id for row in door.inbox.waiting] == ["$one"]


async def test_the_same_transaction_five_times_at_once_counts_once(door: Door) -> None:
    answers = await asyncio.gather(*(door.put("same") for _ in range(5)))
    assert [status for status, _ in answers] == [200] * 5
    assert (await door.put("another"))[0] == 200  # the same event in another transaction
    assert len(door.inbox.waiting) == 1


async def test_a_homeserver_that_counts_from_one_again_loses_nothing(door: Door) -> None:
    await door.put("1")
    other = json.dumps({"events": [EVENT | {"event_id": "$two"}]})
    assert (await door.put("1", data=other))[0] == 200
    assert [row.source_id for row in door.inbox.waiting] == ["$one", "$two"]


async def test_a_body_over_the_cap_is_refused_declared_or_not(door: Door) -> None:
    assert (await door.put(data=io.BytesIO(b" " * (intake.MAX_BODY_BYTES + 1))))[0] == 413

    async def undeclared() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * (1 << 20)

    assert (await door.put(data=undeclared()))[0] == 413
    nearly = json.dumps({"events": [], "padding": "x" * (intake.MAX_BODY_BYTES - 100)})
    assert (await door.put("big", data=io.BytesIO(nearly.encode())))[0] == 200


async def test_ping_and_queries_answer_the_homeserver(door: Door) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for method, path, status in (
        ("POST", "ping", 200),
        ("GET", "users/@_parley_x:y", 404),
        ("GET", "rooms/%23x:y", 404),
    ):
        async with door.session.request(method, door.url(path), headers=headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"events": 5}',
        b'{"events": {"a": 1}}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"events": [1] * 10_001}).encode(),
    ],
)
async def test_a_broken_transaction_is_refused(door: Door, body: bytes) -> None:
    status, _ = await door.put(data=body or b"\x00")
    assert status == 400
    assert not door.inbox.batches


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_whatever_the_events_are_each_gets_a_row_of_its_own(event: object) -> None:
    body = json.dumps({"events": [event, EVENT, event]}).encode()
    rows = read_transaction(body)
    assert len(rows) == 3
    assert rows[1] == ("$one", EVENT)
    assert all(row_id for row_id, _ in rows)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_transaction_or_malformed(body: bytes) -> None:
    try:
        rows = read_transaction(body)
    except Malformed:
        return
    assert isinstance(rows, list)
