"""The web gateway: serves the built page, reads invitations, hands out access tokens.

Not here: rules, media, chat; a guest is a livekit leg whose origin is the web.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

from bridge.conference.errors import ConferenceError, Refused, Unavailable
from bridge.conference.events import Event
from bridge.conference.ids import LegId, Network
from bridge.conference.ports import ConferenceRecord
from bridge.config import WebSection
from bridge.gateway import Ability, Context, Grant, MediaSignal, OutboxRow, SavedLeg
from bridge.gateways.web import invite
from bridge.http import Listener

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"
MAX_NAME_CHARS: Final = 64
_MAX_BODY_BYTES: Final = 8_192

# S46: nothing from elsewhere, no framing, no referrer (the link is a secret). Camera and screen for ourselves only.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_Work = Callable[[dict[str, object]], Awaitable[dict[str, str]]]
_LONG_CACHE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}  # names carry a hash


class WebGateway:
    """Keeps `bridge.gateway.Gateway`. It has no legs and no chat places of its own."""

    name = "web"
    abilities = frozenset(
        {
            Ability.TEXT,
            Ability.PRESENCE,
            Ability.AUDIO,
            Ability.VIDEO,
            Ability.LAYERS,
            Ability.SCREEN,
        }
    )

    def __init__(self, context: Context, settings: WebSection) -> None:
        self._context = context
        self._settings = settings
        self._secret = settings.invite_secret.get_secret_value()
        route = context.http.route
        route(Listener.PUBLIC, "GET", "/j/{invite}", self._page)
        context.http.static(
            Listener.PUBLIC, "/page/assets/", STATIC / "assets", headers=HEADERS | _LONG_CACHE
        )
        for path, handler in (("/api/invitation", self._invitation), ("/api/join", self._join)):
            route(Listener.PUBLIC, "POST", path, handler, max_body_bytes=_MAX_BODY_BYTES)

    async def run(self) -> None:
        """Everything happens in requests."""
        await asyncio.Event().wait()

    async def readopt(self, legs: Sequence[SavedLeg]) -> None:
        """Guests are legs of the livekit gateway."""

    def notify(self, conference: ConferenceRecord, events: Sequence[Event]) -> None:
        """The page hears of everything through its livekit leg."""

    def signal(self, conference: ConferenceRecord, leg: LegId, signal: MediaSignal) -> None:
        """No leg is ours."""

    async def deliver(self, row: OutboxRow) -> str | None:
        raise Refused("The web has no chat places.")

    def status(self) -> str:
        return "serving" if self._index().is_file() else "the page is not built: run `make setup`"

    def link(self, slug: str) -> str:
        """A fresh invitation link of a conference."""
        ttl_s = self._settings.invite_ttl_s
        token = invite.mint(self._secret, slug, ttl_s=ttl_s, now_s=int(time.time()))
        return invite.link(self._context.config.http.public_url, token)

    @staticmethod
    def _index() -> Path:
        return STATIC / "index.html"

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if not self._index().is_file():
            raise web.HTTPServiceUnavailable(text="The page is not built.")
        return web.FileResponse(self._index(), headers=HEADERS)

    async def _invitation(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._read_invitation)

    async def _join(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._admit)

    async def _answer(self, request: web.Request, work: _Work) -> web.Response:
        """JSON in, JSON out; a refusal is `{"error": sentence}`."""
        try:
            body = await _json_object(request)
            return web.json_response(await work(body), headers=HEADERS)
        except Refused as why:
            return web.json_response({"error": str(why)}, status=403, headers=HEADERS)
        except Unavailable:
            log.warning("a guest could not be served", extra={"path": request.path})
            text = "The server is busy. Try again in a moment."
            return web.json_response({"error": text}, status=503, headers=HEADERS)
        except ConferenceError as why:
            return web.json_response({"error": str(why)}, status=400, headers=HEADERS)

    async def _conference(self, body: dict[str, object]) -> ConferenceRecord:
        token = body.get("invite")
        if not isinstance(token, str):
            raise Refused("This invitation is not valid.")
        invitation = invite.read(self._secret, token, now_s=int(time.time()))
        record = await self._context.directory.by_slug(invitation.slug)
        if record is None:
            raise Refused("This conference does not exist any more.")
        return record

    async def _read_invitation(self, body: dict[str, object]) -> dict[str, str]:
        record = await self._conference(body)
        return {"title": record.title or record.slug}

    async def _admit(self, body: dict[str, object]) -> dict[str, str]:
        record = await self._conference(body)
        name = body.get("name")
        if not isinstance(name, str) or not name.strip():
            raise Refused("Please give a name.")
        tokens = self._context.tokens
        if tokens is None:
            raise Unavailable("no token mint")
        grant = Grant(
            room=record.room,
            subject=f"guest-{secrets.token_hex(16)}",
            name=name.strip()[:MAX_NAME_CHARS],
            origin=Network.WEB,
            ttl_s=self._settings.token_ttl_s,
        )
        return {
            "url": tokens.url,
            "token": tokens.mint(grant),
            "title": record.title or record.slug,
        }


async def _json_object(request: web.Request) -> dict[str, object]:
    try:
        body = json.loads(await request.read())
    except ValueError as why:
        raise Refused("The request is not understood.") from why
    if not isinstance(body, dict):
        raise Refused("The request is not understood.")
    return body


def create(context: Context) -> WebGateway:
    """Called by the app when `web` is configured."""
    settings = context.config.web
    if settings is None:
        raise ValueError("the web section is missing")
    return WebGateway(context, settings)
