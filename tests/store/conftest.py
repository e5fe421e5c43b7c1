"""Both databases: each test of the store runs on SQLite, and on PostgreSQL where it is installed."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.store import Stores, open_store
from bridge.store.schema import downgrade, migrate
from tests.peers import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if postgres.find() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    # Not pytest's own directory: only its owner may enter that, and the server is another account.
    with tempfile.TemporaryDirectory(prefix="parley-pg-") as folder:
        Path(folder).chmod(0o755)
        with postgres.server(Path(folder)) as url:
            yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/parley.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
async def config(url: str, tmp_path: Path) -> AsyncIterator[Config]:
    """Of a migrated database; emptied afterwards."""
    await migrate(url)
    yield Config.model_validate({"state_dir": tmp_path / "state", "database": {"url": url}})
    await downgrade(url, "base")


@pytest.fixture
async def stores(config: Config) -> AsyncIterator[Stores]:
    opened = await open_store(config)
    yield opened
    await opened.close()
