"""One database: engine, transactions, process lock, and its errors in our words.

SQLite: WAL, synchronous=FULL, foreign keys on, busy_timeout 5 s; a writing transaction is BEGIN IMMEDIATE, so
it never fails half-way for want of the lock, and writers of this process queue here instead of spinning in
the library. One parley per database by an flock beside the file; on PostgreSQL, one per state directory.
Not here: tables, queries.
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bridge.conference.errors import IllegalTransition, Malformed, Refused, Unavailable
from bridge.config import Config

_CONNECT_S: Final = 5.0
_TRANSACTION_S: Final = 15.0  # above busy_timeout and statement timeout: those tell more
_STATEMENT_S: Final = 10.0
_BUSY_MS: Final = 5_000
_DATA_EXCEPTION: Final = "22"  # SQLSTATE class
_UNSTORABLE: Final = "a value that the database cannot store"
_POOL: Final = 5  # connections; text and membership changes, never media


def now_ms() -> int:
    """Wall clock of the rows."""
    return time.time_ns() // 1_000_000


def make_engine(url: str) -> AsyncEngine:
    """An engine for either database. Connects lazily; its errors quote no parameters (S42)."""
    if not is_sqlite(url):
        return create_async_engine(
            url,
            pool_size=_POOL,
            pool_timeout=_CONNECT_S,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": _CONNECT_S, "command_timeout": _STATEMENT_S},
        )
    engine = create_async_engine(
        url, pool_size=_POOL, pool_timeout=_CONNECT_S, hide_parameters=True
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def sqlite_file(url: str) -> Path:
    """The file of an SQLite URL, relative to the working directory. Raises `Refused` for one in memory."""
    name = make_url(url).database
    if not name or name == ":memory:":
        raise Refused("database.url names no file: a database in memory forgets calls and messages")
    return Path(name)


def _prepare_sqlite(connection: Any, _record: object) -> None:
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


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("parley_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """Transactions over one engine. Every failure leaves in the words of `conference.errors`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(parley_writes=True)
        self.dialect = engine.dialect.name
        self._turn: AbstractAsyncContextManager[object] = (
            asyncio.Lock() if self.dialect == "sqlite" else nullcontext()
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction; committed when the block ends, rolled back when it raises."""
        async with _translated(), self._turn, self._writer.begin() as connection:
            yield connection

    async def ping(self) -> None:
        async with self.read() as db:
            await db.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self._engine.dispose()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_TRANSACTION_S):
            yield
    except DataError as why:
        raise Malformed(_UNSTORABLE) from why
    except (IntegrityError, ProgrammingError) as why:
        # A conference that is not in SQL, a key used twice, a wrong statement: ours, and no retry heals it.
        raise IllegalTransition(f"database: {why.orig}") from why
    except UnicodeEncodeError as why:
        raise Malformed(_UNSTORABLE) from why  # half a surrogate pair in a key
    except DBAPIError as why:
        if str(getattr(why.orig, "sqlstate", "")).startswith(_DATA_EXCEPTION):
            raise Malformed(_UNSTORABLE) from why  # a NUL in a PostgreSQL text, in a key
        raise Unavailable(f"database: {_first_line(why.orig)}") from why
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as why:
        # While connecting (wrong password, no such database, starting up) nobody wraps them.
        raise Unavailable(f"database: {_first_line(why)}") from why
    except (PoolTimeout, TimeoutError) as why:
        raise Unavailable("database: no answer in time") from why
    except OSError as why:
        raise Unavailable(f"database: {why.strerror or type(why).__name__}") from why


def _first_line(why: object) -> str:
    """The driver's sentence: it names users and files, never passwords or parameters."""
    text = str(why).partition("\n")[0]
    return text.rpartition(">: ")[2] or type(why).__name__


class ProcessLock:
    """An flock held for the life of the process; the kernel gives it back however the process ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as why:
            os.close(self._fd)
            if why.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise Refused(
                f"another parley is running: it holds {path}; stop that one first"
            ) from why

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock_for(config: Config) -> ProcessLock:
    """Raises `Refused` when another parley holds it, or when its directory cannot be written."""
    path = config.state_dir / "parley.lock"
    if is_sqlite(config.database.url):
        file = sqlite_file(config.database.url)
        path = file.with_name(file.name + ".lock")
    try:
        return ProcessLock(path)
    except OSError as why:
        raise Refused(f"cannot write {path}: {why.strerror}") from why
