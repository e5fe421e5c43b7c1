"""The schema's version: upgrade, downgrade, and the check at start.

alembic runs inside our connection, so both databases migrate by the same path as they are used.
Not here: the revisions (`migrations/versions`).
"""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from bridge.conference.errors import Refused
from bridge.store.database import Database, is_sqlite, sqlite_file


def _settings() -> AlembicConfig:
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    return settings


def head() -> str:
    """The newest revision this parley knows."""
    revision = ScriptDirectory.from_config(_settings()).get_current_head()
    if revision is None:
        raise RuntimeError("no revision in migrations/versions")
    return revision


def _current(db: Connection) -> str | None:
    return MigrationContext.configure(db).get_current_revision()


async def require_head(database: Database) -> None:
    """Raises `Refused` unless the schema is at our head: a half-known schema must not be written to."""
    current = await database.read(_current)
    if current != head():
        raise Refused(
            f"the database is at revision {current or 'none'} and this parley needs {head()}: "
            "run `parley migrate` (with the same -c) first"
        )


async def migrate(url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Upgrade to a revision, in one transaction; returns the revisions before and after."""
    return await _run(url, lambda settings: command.upgrade(settings, revision))


async def downgrade(url: str, revision: str) -> tuple[str | None, str | None]:
    """Go back to a revision (`base` = empty)."""
    return await _run(url, lambda settings: command.downgrade(settings, revision))


async def _run(url: str, action: Callable[[AlembicConfig], Any]) -> tuple[str | None, str | None]:
    if is_sqlite(url):
        folder = sqlite_file(url).parent
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    database = Database(url)

    def apply(db: Connection) -> tuple[str | None, str | None]:
        settings = _settings()
        settings.attributes["connection"] = db
        before = _current(db)
        try:
            action(settings)
        except CommandError as why:
            raise Refused(
                f"the database is at revision {before or 'none'} and this parley knows no way from there: {why}"
            ) from why
        return before, _current(db)

    try:
        return await database.write(apply)
    finally:
        await database.close()
