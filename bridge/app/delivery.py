"""Lines of text on their way out: one sender per place, rows strictly in order, exactly once.

An attempt is counted in SQL before anything is sent, so a gateway that finds `attempts` > 0 looks before it
sends again. What can never be delivered becomes a dead letter and does not hold up what follows.
Not here: rendering and sending (`Gateway.deliver`), how rows come to be (`ports.Journal`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import Place
from bridge.gateway import Gateway, OutboxRow

log = logging.getLogger(__name__)

WAIT_S: Final = 30.0  # without news, look anyway
DELIVER_TIMEOUT_S: Final = 60.0
BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)  # R1, R2: backlog applied <= 5 s after the return
MAX_BROKEN_ATTEMPTS: Final = 5  # of a row that makes its gateway break


class Outgoing(Protocol):
    """The app's side of the outbox. Kept by the store; raises `Unavailable`."""

    async def places(self) -> Sequence[Place]: ...
    async def next(self, place: Place) -> OutboxRow | None: ...
    async def begin(self, row: int) -> None: ...
    async def confirm(self, row: int, remote_id: str) -> None: ...
    async def dead(self, row: int, why: str) -> None: ...
    async def wait(self, timeout_s: float, seen: int = 0) -> int: ...


class Delivery:
    """`gateways` by name; a place's network is its gateway's name."""

    def __init__(
        self,
        outbox: Outgoing,
        gateways: Mapping[str, Gateway],
        *,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._outbox = outbox
        self._gateways = gateways
        self._backoff_s = backoff_s
        self._calls: dict[Place, asyncio.Event] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            seen = 0
            while True:
                try:
                    for place in await self._outbox.places():
                        self._call(place, tasks)
                    seen = await self._outbox.wait(WAIT_S, seen)
                except Unavailable:
                    await asyncio.sleep(self._backoff_s[-1])

    def _call(self, place: Place, tasks: asyncio.TaskGroup) -> None:
        if place not in self._calls:
            self._calls[place] = asyncio.Event()
            tasks.create_task(self._send_to(place), name=f"sender-{place.network.value}")
        self._calls[place].set()

    async def _send_to(self, place: Place) -> None:
        call = self._calls[place]
        failures = 0
        while True:
            await call.wait()  # unbounded: a room may be silent for ever
            call.clear()  # before looking, so that a row added meanwhile calls again
            is_done = False
            while not is_done:
                try:
                    is_done = await self._send_next(place)
                    failures = 0
                except Unavailable as why:
                    failures += 1
                    network = place.network.value
                    log.info("line waits", extra={"network": network, "why": str(why)})
                    await asyncio.sleep(self._backoff_s[min(failures, len(self._backoff_s)) - 1])

    async def _send_next(self, place: Place) -> bool:
        """True when nothing is left. Raises `Unavailable`: the same row again, later."""
        row = await self._outbox.next(place)
        if row is None:
            return True
        gateway = self._gateways.get(place.network.value)
        if gateway is None:
            await self._bury(row, "no gateway serves this network any more")
            return False
        await self._outbox.begin(row.id)
        try:
            async with asyncio.timeout(DELIVER_TIMEOUT_S):
                remote_id = await gateway.deliver(row)
        except TimeoutError as why:
            raise Unavailable("the network did not confirm in time") from why
        except (Refused, Malformed) as why:
            await self._bury(row, str(why))
        except Unavailable:
            raise
        except Exception as why:
            log.exception("delivery broke", extra={"row": row.id, "attempts": row.attempts})
            if row.attempts + 1 < MAX_BROKEN_ATTEMPTS:
                raise Unavailable("the gateway broke") from why
            await self._bury(row, f"broke its gateway: {type(why).__name__}")
        else:
            await self._confirm(row, remote_id or "")
        return False

    async def _confirm(self, row: OutboxRow, remote_id: str) -> None:
        """It is out: never send it again because SQL is away for a moment."""
        failures = 0
        while True:
            try:
                await self._outbox.confirm(row.id, remote_id)
            except Unavailable:
                failures += 1
                await asyncio.sleep(self._backoff_s[min(failures, len(self._backoff_s)) - 1])
            else:
                return

    async def _bury(self, row: OutboxRow, why: str) -> None:
        log.warning("dead letter", extra={"row": row.id, "why": why})
        await self._outbox.dead(row.id, why)
