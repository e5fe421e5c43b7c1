"""The one outgoing HTTP fetcher for addresses that others name (S18)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer, already capped in size."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Resolves, checks every address, pins the connection, follows <= 3 checked redirects, 10 s, capped body."""

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 1 << 20,
        timeout_s: float = 10.0,
        allow_private: bool = False,
        max_redirects: int = 3,
    ) -> Fetched:
        """Raises `Refused` (address or scheme not allowed, too large) or `Unavailable` (network, timeout)."""
        raise NotImplementedError
