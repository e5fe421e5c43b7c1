"""One data-plane thread, and four behind the same port: what is promised of the media port (S1 to S15) holds for both.

With four, peers are at home in one shard after the other and the kernel gives their datagrams to any socket, so that
most of what a test sends crosses a ring. Tests that last long run with one in `make test-fast`, with four in `make
scenarios`.
"""

from typing import Final

import pytest

SHARDS: Final = (1, 4)


@pytest.fixture(params=SHARDS, ids=["one shard", "four shards"])
def shards(request: pytest.FixtureRequest) -> int:
    return int(request.param)
