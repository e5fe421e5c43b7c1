"""SQLite by threads of our own: whatever waits at the same time is one transaction (group commit).

A statement is cheaper than the way to another thread and back, and a commit is an fsync. So a caller hands in
all its statements as one function, a thread takes every function that waits, and one commit answers them all.
Each is a savepoint of its own: what one of them raises takes back its own statements only. Nobody is answered
before the commit. WAL, synchronous=FULL, foreign keys on, busy_timeout 5 s; a writing transaction is BEGIN
IMMEDIATE, so it never fails half-way for want of the lock. Readers have another thread, and wait for no fsync.
Not here: errors in our words, the other database (`database`).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from bridge.conference.errors import Unavailable

T = TypeVar("T")

_BUSY_MS: Final = 5_000
_MAX_BATCH: Final = 256  # works of one transaction: it stays short
_MAX_WAITING: Final = 20_000  # works; callers wait for their answers, so this many is a bug


@dataclass(frozen=True, slots=True)
class _Item:
    work: Callable[[Connection], Any]
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Failed:
    why: Exception


class Sqlite:
    """Keeps `database.Backend`."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(make_url(url).set(drivername="sqlite"), hide_parameters=True)
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._reader = _Thread(self._engine, writes=False)
        self._writer = _Thread(self._engine, writes=True)

    async def run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        thread = self._writer if writes else self._reader
        return await thread.run(work)

    async def close(self) -> None:
        """After the transactions that run."""
        await self._reader.close()
        await self._writer.close()
        self._engine.dispose()


class _Thread:
    """Works in order of arrival."""

    def __init__(self, engine: Engine, *, writes: bool) -> None:
        self._engine = engine.execution_options(parley_writes=writes)
        name = "database-writer" if writes else "database-reader"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[_Item] = deque()
        self._is_busy = False
        self._is_closed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        """A caller that is cancelled meanwhile may find its work done or not, but never in part."""
        if self._is_closed:
            raise Unavailable("database: closed")
        if len(self._waiting) >= _MAX_WAITING:
            raise Unavailable("database: overloaded")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Item(work, answer))
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._start)  # not at once: whoever asks in this round comes along
        return await answer

    async def close(self) -> None:
        self._is_closed = True
        for item in self._waiting:
            if not item.answer.done():
                item.answer.set_exception(Unavailable("database: closed"))
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)

    def _start(self) -> None:
        batch: list[_Item] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            item = self._waiting.popleft()
            if not item.answer.done():
                batch.append(item)
        if not batch:
            self._is_busy = False
            return
        works = [item.work for item in batch]
        running = self._thread.submit(self._transact, works)
        asyncio.wrap_future(running).add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: Sequence[_Item], done: asyncio.Future[list[Any]]) -> None:
        why = done.exception()  # of the transaction itself, and then nothing is written
        found = done.result() if why is None else [_Failed(why)] * len(batch)  # type: ignore[arg-type]
        for item, outcome in zip(batch, found, strict=True):
            if item.answer.done():
                continue
            if isinstance(outcome, _Failed):
                item.answer.set_exception(outcome.why)
            else:
                item.answer.set_result(outcome)
        self._start()

    # --- in the thread

    def _transact(self, works: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        with self._engine.begin() as db:
            if len(works) == 1:
                return [_result(db, works[0])]
            return [_part(db, work) for work in works]


def _result(db: Connection, work: Callable[[Connection], Any]) -> Any:
    try:
        return work(db)
    except StopIteration as why:
        # No future takes one (PEP 479), so nobody would ever be answered again.
        raise RuntimeError("a transaction raised StopIteration") from why


def _part(db: Connection, work: Callable[[Connection], Any]) -> Any:
    """Its result, or why its savepoint was rolled back."""
    # Not `begin_nested`: SQLAlchemy compiles its statements anew each time, which costs more than the work.
    db.exec_driver_sql("SAVEPOINT part")
    try:
        found = _result(db, work)
    except Exception as why:
        if not db.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
            raise  # a full disk, for one, ends the whole transaction by itself
        db.exec_driver_sql("ROLLBACK TO part")
        found = _Failed(why)
    db.exec_driver_sql("RELEASE part")
    return found


def _prepare(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself, or it would begin deferred ones.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    writes = connection.get_execution_options().get("parley_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
