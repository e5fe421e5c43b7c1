"""A served gateway for every test that asks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateways.livekit.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path).serving() as served:
        yield served
