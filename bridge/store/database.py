"""One database: transactions, process lock, and its errors in our words.

A transaction is a function of a connection: it runs in a thread (SQLite) or a greenlet (PostgreSQL), so it
waits for nothing but its statements. One parley per database by an flock beside the file; on PostgreSQL, one
per state directory.
Not here: tables, queries, how SQLite shares its transactions (`sqlite`).
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

import asyncpg
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from bridge.conference.errors import IllegalTransition, Malformed, Refused, Unavailable
from bridge.config import Config
from bridge.store.sqlite import Sqlite

T = TypeVar("T")

_CONNECT_S: Final = 5.0
_TRANSACTION_S: Final = 15.0  # above SQLite's busy_timeout and statement timeout: those tell more
_STATEMENT_S: Final = 10.0
_DATA_EXCEPTION: Final = "22"  # SQLSTATE class
_UNSTORABLE: Final = "a value that the database cannot store"
_POOL: Final = 5  # connections; text and membership changes, never media


def now_ms() -> int:
    """Wall clock of the rows."""
    return time.time_ns() // 1_000_000


def is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def sqlite_file(url: str) -> Path:
    """The file of an SQLite URL, relative to the working directory. Raises `Refused` for one in memory."""
    name = make_url(url).database
    if not name or name == ":memory:":
        raise Refused("database.url names no file: a database in memory forgets calls and messages")
    return Path(name)


class Backend(Protocol):
    """One kind of database."""

    async def run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        """`work` as one transaction, wholly or not at all."""

    async def close(self) -> None: ...


class Postgres:
    """Keeps `Backend`. Transactions run side by side; the server has its own group commit."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=_POOL,
            pool_timeout=_CONNECT_S,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": _CONNECT_S, "command_timeout": _STATEMENT_S},
        )

    async def run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


class Database:
    """Transactions. Every failure leaves in the words of `conference.errors`; those quote no parameters (S42)."""

    def __init__(self, url: str) -> None:
        """Connects lazily."""
        self._backend: Backend = Sqlite(url) if is_sqlite(url) else Postgres(url)

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with _translated():
            return await self._backend.run(work, writes=False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """One transaction; committed when `work` returns, rolled back when it raises."""
        async with _translated():
            return await self._backend.run(work, writes=True)

    async def ping(self) -> None:
        await self.read(lambda db: db.execute(text("SELECT 1")).scalar_one())

    async def close(self) -> None:
        await self._backend.close()


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
