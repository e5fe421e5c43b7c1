"""Text out: strictly in order per place, attempts counted first, nothing in the way for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bridge.app.delivery import MAX_BROKEN_ATTEMPTS, Delivery
from bridge.conference.errors import Refused, Unavailable
from bridge.gateway import OutboxRow
from tests.app.fakes import ROOM, FakeGateway, MemoryOutbox, row


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - state, not a signal
            await asyncio.sleep(0.002)


@asynccontextmanager
async def delivering(outbox: MemoryOutbox, *gateways: FakeGateway) -> AsyncIterator[None]:
    by_name = {gateway.name: gateway for gateway in gateways}
    task = asyncio.create_task(Delivery(outbox, by_name, backoff_s=(0.001, 0.002)).run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_rows_of_before_and_new_ones_go_out_in_order() -> None:
    outbox, xmpp = MemoryOutbox(row(1), row(2)), FakeGateway()
    async with delivering(outbox, xmpp):
        await until(lambda: len(outbox.confirmed) == 2)
        outbox.add(row(3))
        outbox.add(row(4))
        await until(lambda: len(outbox.confirmed) == 4)
    assert xmpp.delivered == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert outbox.confirmed[4] == "id-4"


async def test_a_network_that_is_away_gets_the_same_row_again_and_nothing_overtakes() -> None:
    failures = 3

    def answer(one: OutboxRow) -> str:
        if one.attempts < failures:
            raise Unavailable("away")
        return "late"

    outbox, xmpp = MemoryOutbox(row(1), row(2)), FakeGateway(answer=answer)
    matrix = FakeGateway("matrix")
    outbox.add(row(9, ROOM))
    async with delivering(outbox, xmpp, matrix):
        await until(lambda: len(outbox.confirmed) == 3)
    assert xmpp.delivered == [(n, a) for n in (1, 2) for a in range(failures + 1)]
    assert matrix.delivered == [(9, 0)]


async def test_what_can_never_be_delivered_is_buried_and_the_next_goes() -> None:
    def answer(one: OutboxRow) -> str | None:
        if one.id == 1:
            raise Refused("the room is gone")
        if one.id == 2:
            raise ValueError("bug")
        return None

    outbox, xmpp = MemoryOutbox(row(1), row(2), row(3)), FakeGateway(answer=answer)
    async with delivering(outbox, xmpp):
        await until(lambda: bool(outbox.confirmed))
    assert outbox.confirmed == {3: ""}
    assert outbox.buried[1] == "the room is gone"
    assert outbox.attempts[2] == MAX_BROKEN_ATTEMPTS
    assert "ValueError" in outbox.buried[2]


async def test_a_network_without_gateway_keeps_no_rows() -> None:
    outbox = MemoryOutbox(row(1))
    async with delivering(outbox):
        await until(lambda: 1 in outbox.buried)


async def test_a_confirmation_is_not_lost_with_the_database() -> None:
    class Shaky(MemoryOutbox):
        failures = 2

        async def confirm(self, row: int, remote_id: str) -> None:
            if self.failures:
                self.failures -= 1
                raise Unavailable("database")
            await super().confirm(row, remote_id)

    outbox, xmpp = Shaky(row(1)), FakeGateway()
    async with delivering(outbox, xmpp):
        await until(lambda: bool(outbox.confirmed))
    assert xmpp.delivered == [(1, 0)]


async def test_the_attempt_is_counted_before_the_sending() -> None:
    outbox = MemoryOutbox(row(1))
    counted: list[int] = []

    def answer(one: OutboxRow) -> str:
        counted.append(outbox.attempts[one.id])
        return "x"

    async with delivering(outbox, FakeGateway(answer=answer)):
        await until(lambda: bool(outbox.confirmed))
    assert counted == [1]
