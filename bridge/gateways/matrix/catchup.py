"""Lines that the homeserver took but never handed to us, fetched after every interruption.

COMPAT: Synapse 1.163.2 moves its appservice position before a transaction is stored, so events accepted in
the last moments before it stops reach no appservice (seen with SIGTERM; re-check 2027-06). Its backoff after
an absence of ours is minutes long, too. And what it accepts in the moment in which it finds us again stays in
its queue until the next absence, while later events go out. So: when the connection comes (back), bound rooms
are read from before the interruption, and for a while the rooms of each transaction are read ahead of it; the
inbox drops what it has seen.
Not here: noticing the interruption (`door`), the usual way in (`intake`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from bridge.conference.errors import Malformed, Unavailable
from bridge.gateway import Context
from bridge.gateways.matrix import wire
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.names import Namespace
from bridge.gateways.matrix.outbound import rooms_of

log = logging.getLogger(__name__)

NAME: Final = "matrix"
ROW: Final = "read-until"
MARGIN_MS: Final = 120_000  # clocks of two machines, and events on their way
HOLD_S: Final = 10.0  # order is worth so much delay, and less than the homeserver's patience
YOUNG_S: Final = 30.0  # by then whatever was left behind has been read by a `run` of its own
PAGE: Final = 50
MAX_PAGES: Final = 40  # per room; beyond it the homeserver's own queue has to do


class CatchUp:
    """`run` whenever the connection is (back) there."""

    def __init__(
        self,
        context: Context,
        link: Link,
        own: Namespace,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._context, self._link, self._own = context, link, own
        self._wall_clock = wall_clock
        self._current = asyncio.Event()
        # What is older was read before; None: nothing was ever ours.
        self._floor_ms: int | None = None
        self._young_until_s = 0.0

    def interrupted(self) -> None:
        """The connection broke: what comes next may have a gap before it."""
        self._current.clear()

    async def before_more(self, rooms: Collection[str]) -> None:
        """Transactions wait here, so that later lines of `rooms` do not overtake those that were missed."""
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(HOLD_S):
                await self._current.wait()
                if self._floor_ms is not None and time.monotonic() < self._young_until_s:
                    await self._since(self._floor_ms, rooms)

    async def run(self) -> None:
        """Put what may have been missed into the inbox. Raises `Unavailable`: nothing is lost, run again."""
        now_ms = int(self._wall_clock() * 1000)
        saved = await self._context.store.get(NAME, ROW)
        since_ms = saved.get("at_ms") if saved is not None else None
        if isinstance(since_ms, int):  # otherwise the first start: nothing was ever ours
            self._floor_ms = since_ms - MARGIN_MS
            await self._since(self._floor_ms)
        await self._context.store.put(NAME, ROW, {"at_ms": now_ms})
        if not self._current.is_set():
            self._young_until_s = time.monotonic() + YOUNG_S
            self._current.set()

    async def _since(self, floor_ms: int, only: Collection[str] | None = None) -> None:
        for conference in await self._context.directory.all():
            for room in rooms_of(conference):
                if only is not None and room not in only:
                    continue
                try:
                    await self._room(room, floor_ms)
                except Denied as why:
                    log.info("room not read", extra={"why": str(why)})

    async def _room(self, room: str, floor_ms: int) -> None:
        newest_first: list[tuple[str, Mapping[str, object]]] = []
        token = ""
        for _ in range(MAX_PAGES):
            events, token = await self._link.page_back(room, token, limit=PAGE)
            for event in events:
                if self._is_before(event, floor_ms):
                    token = ""
                    break
                try:
                    newest_first.append((wire.event_id_of(event), event))
                except Malformed:
                    continue
            if not token:
                break
        if newest_first:
            batch = f"again {newest_first[0][0]} {floor_ms}"
            await self._context.inbox.put(NAME, batch, newest_first[::-1])

    def _is_before(self, event: Mapping[str, Any], floor_ms: int) -> bool:
        """Older than the interruption, or than our coming into the room: not said to us."""
        at_ms = event.get("origin_server_ts")
        content = event.get("content")
        is_our_join = (
            event.get("type") == "m.room.member"
            and event.get("state_key") == self._own.bot_mxid
            and isinstance(content, Mapping)
            and content.get("membership") == "join"
        )
        return is_our_join or not isinstance(at_ms, int) or at_ms < floor_ms
