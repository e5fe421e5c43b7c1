"""Durable, deduplicated arrival (`gateway.Inbox`, S29)."""

from collections.abc import AsyncIterator, Mapping, Sequence

from bridge.gateway import InboxRow


class SqlInbox:
    """Keeps `gateway.Inbox`."""

    async def put(
        self, gateway: str, batch: str, items: Sequence[tuple[str, Mapping[str, object]]]
    ) -> bool:
        raise NotImplementedError

    def rows(self, gateway: str) -> AsyncIterator[InboxRow]:
        """Each undone row once per call of this, oldest first; a database outage only makes it wait."""
        raise NotImplementedError

    async def done(self, row: int) -> None:
        raise NotImplementedError

    async def dead(self, row: int, why: str) -> None:
        raise NotImplementedError
