"""Wake-ups inside the process: whoever waits for rows is told after the commit that made them."""

import asyncio


class Bell:
    """Counts rings, so that a ring between a look and a wait is not lost."""

    def __init__(self) -> None:
        self.rings = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        self.rings += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, timeout_s: float, seen: int) -> int:
        """Until `rings` is beyond `seen`, or the time is over; returns `rings`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.rings <= seen:
                    await self._event.wait()
        except TimeoutError:
            pass
        return self.rings
