"""The homeserver's door: transactions into the durable inbox, ping, queries (application service API v1.15).

Answered 200 only after the inbox has committed (S29). The token counts in the header only, compared in
constant time (S28). Never served on a public listener.
Not here: what the events mean (`wire`, `inbound`). To-device and ephemeral events are not taken yet.
"""

import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from bridge.conference.errors import Malformed, Unavailable
from bridge.gateway import Inbox
from bridge.gateways.matrix import wire
from bridge.http import Http, Listener

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 10 << 20
MAX_EVENTS: Final = 10_000
MAX_TXN_CHARS: Final = 255
NAME: Final = "matrix"
_NO_ID: Final = "$malformed:"


async def _at_once(_rooms: Collection[str]) -> None:
    """Nothing to wait for."""


class Intake:
    """Routes of one appservice. The inbox holds all state."""

    def __init__(
        self,
        inbox: Inbox,
        hs_token: str,
        before: Callable[[Collection[str]], Awaitable[None]] = _at_once,
    ) -> None:
        """`before` is awaited ahead of each transaction, with the rooms it is about (`catchup`)."""
        self._inbox, self._before = inbox, before
        self._token = hs_token.encode()

    def mount(self, http: Http) -> None:
        base = "/_matrix/app/v1"
        routes: tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]], ...] = (
            ("PUT", f"{base}/transactions/{{txn}}", self._transaction),
            ("POST", f"{base}/ping", self._ping),
            ("GET", f"{base}/users/{{user}}", self._unknown),
            ("GET", f"{base}/rooms/{{alias}}", self._unknown),
        )
        for method, path, handler in routes:
            http.route(
                Listener.INTERNAL,
                method,
                path,
                self._guarded(handler),
                max_body_bytes=MAX_BODY_BYTES,
            )

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._is_homeserver(request):
                return _error(403, "M_FORBIDDEN")
            return await handler(request)

        return guarded

    def _is_homeserver(self, request: web.Request) -> bool:
        """Exactly one `Authorization: Bearer` with the token; a query parameter is never looked at."""
        given = request.headers.getall("Authorization", [])
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(" ")
        offered = token.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(offered, self._token) and scheme.lower() == "bearer"

    async def _transaction(self, request: web.Request) -> web.Response:
        txn = request.match_info["txn"]
        if not 0 < len(txn) <= MAX_TXN_CHARS:
            return _error(400, "M_INVALID_PARAM")
        try:
            items = read_transaction(await _body(request))
        except Malformed as why:
            log.warning("matrix transaction refused", extra={"why": str(why)})
            return _error(400, "M_NOT_JSON")
        except OverflowError:
            return _error(413, "M_TOO_LARGE")
        await self._before(_rooms(items))
        try:
            is_new = await self._inbox.put(NAME, _batch(txn, items), items)
        except Unavailable as why:
            log.warning("matrix transaction not stored", extra={"why": str(why)})
            return _error(503, "M_UNKNOWN")  # the homeserver will come again
        log.debug("matrix transaction", extra={"events": len(items), "new": is_new})
        return web.json_response({})

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _unknown(self, request: web.Request) -> web.Response:
        """Accounts and aliases are made by us before anybody needs them, never on demand."""
        return _error(404, "M_NOT_FOUND")


async def _body(request: web.Request) -> bytes:
    """The whole body, never more than the cap. Raises OverflowError."""
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise OverflowError
    body = bytearray()
    async for chunk in request.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise OverflowError
    return bytes(body)


def read_transaction(body: bytes) -> list[tuple[str, Mapping[str, object]]]:
    """(event id, raw event) in order. An event without a usable id gets one from the body and its place,
    so that it reaches the dead letters instead of blocking the queue."""
    try:
        transaction = json.loads(body)
    except (ValueError, RecursionError) as why:
        raise Malformed("transaction: not JSON") from why
    events = transaction.get("events") if isinstance(transaction, Mapping) else None
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise Malformed("transaction: no list of events")
    items: list[tuple[str, Mapping[str, object]]] = []
    digest = hashlib.sha256(body).hexdigest()[:32]
    for place, event in enumerate(events):
        try:
            items.append((wire.event_id_of(event), event))
        except Malformed:
            name = f"{_NO_ID}{digest}:{place}"
            items.append((name, event if isinstance(event, Mapping) else {"raw": event}))
    return items


def _rooms(items: Sequence[tuple[str, Mapping[str, object]]]) -> set[str]:
    return {str(event.get("room_id")) for _, event in items}


def _error(status: int, errcode: str) -> web.Response:
    """Without detail: whoever asks without the token learns nothing."""
    body: dict[str, Any] = {"errcode": errcode, "error": errcode}
    return web.json_response(body, status=status)


def _batch(txn: str, items: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """What makes a transaction the same one: its id and the ids of its events.

    COMPAT: Synapse 1.163.2 on SQLite counts transactions from 1 again after a restart, so an id alone would
    make us drop new lines as repeated ones (re-check 2027-06).
    """
    digest = hashlib.sha256("\0".join(source for source, _ in items).encode()).hexdigest()
    return f"{txn}:{digest[:32]}"
