"""Lines to deliver, in order per place (`gateway.Outbox`) and the app's reading side."""

from collections.abc import Sequence

from bridge.conference.ids import Place
from bridge.gateway import OutboxRow


class SqlOutbox:
    """Keeps `gateway.Outbox`. A sender of one place loops: `next`, `begin`, `deliver`, `confirm` or `dead`."""

    async def places(self) -> Sequence[Place]:
        """Places with undelivered rows."""
        raise NotImplementedError

    async def next(self, place: Place) -> OutboxRow | None:
        """The oldest undelivered row. `attempts` counts earlier attempts, not the one about to be made."""
        raise NotImplementedError

    async def begin(self, row: int) -> None:
        """Count one attempt durably, before anything is sent."""
        raise NotImplementedError

    async def confirm(self, row: int, remote_id: str) -> None:
        """Delivered. An empty `remote_id` means there was nothing to send."""
        raise NotImplementedError

    async def dead(self, row: int, why: str) -> None:
        """Never to be delivered; the next row of the place is free to go."""
        raise NotImplementedError

    async def wait(self, timeout_s: float, seen: int = 0) -> int:
        """Until a commit added rows or the time is over; returns how many such commits there were so far.

        Returns at once when that count is beyond `seen`, so a caller that passes back what it got
        misses no wake-up: `seen = await outbox.wait(30, seen)`. Any number of tasks may wait.
        """
        raise NotImplementedError
