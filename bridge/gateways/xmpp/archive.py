"""Pages of a chat room's archive (XEP-0313, XEP-0059): asked one at a time, taken only from whom was asked (S36).

Not here: what is done with the lines (`rooms`), their parsing (`muc`).
"""

import logging
import secrets
import time
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

from bridge.gateways.xmpp import muc
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

PAGE: Final = 100  # lines of one page
REQUEST_S: Final = 10.0


class Archive:
    def __init__(self, wire: Wire, room: str, focus: str) -> None:
        self._wire = wire
        self._room = room
        self._focus = focus
        self._queries: dict[str, list[muc.Line]] = {}

    def result(self, query_id: str, archive_id: str, inner: Element, stamp: str) -> None:
        """One line of a page under way. Raises `Malformed`."""
        lines = self._queries.get(query_id)
        if lines is None or len(lines) > PAGE:  # a result nobody asked for
            log.warning("unasked archive result dropped")
            return
        line = muc.parse_line(inner, self._room, muc.stamp_ms(stamp, now_ms()), archive_id)
        if line is not None:
            lines.append(replace(line, is_delayed=True))

    async def page(self, *, after: str, since_ms: int) -> tuple[list[muc.Line], muc.Page]:
        """The next page after an archive id, or since a time. Raises `RequestFailed`, `Unavailable`."""
        query_id = secrets.token_hex(8)
        lines: list[muc.Line] = []
        self._queries[query_id] = lines
        try:
            answer = await self._wire.request(
                muc.archive_query(
                    self._room,
                    self._focus,
                    query_id,
                    after=after,
                    since_ms=max(0, since_ms),
                    page=PAGE,
                ),
                timeout_s=REQUEST_S,
            )
        finally:
            del self._queries[query_id]
        return lines, muc.parse_page(answer)


def now_ms() -> int:
    return int(time.time() * 1000)
