"""The MatrixRTC authorization service: a Matrix OpenID token in, a LiveKit token out.

MSC4195 (2026-07) and its first implementation: `POST /sfu/get` (legacy identity), `POST /get_token`
(hashed identity). Unknown JSON fields are tolerated, errors are Matrix-style, CORS is open because the
bearer is in the body.
The delegated-delayed-leave paths answer 404: any other answer makes Element Call hand its one-hour leave
to us (fact sheet section 1.3), and we do not run those.
Not here: proving who somebody is (the port IdentityProof), what a token says (`tokens`).
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from bridge.conference.errors import ConferenceError, Malformed, Refused, Unavailable
from bridge.conference.ids import Network, Place
from bridge.gateway import Context, IdentityProof, Membership, OpenIdToken
from bridge.gateways.livekit import conferences
from bridge.gateways.livekit.backoff import Backoff
from bridge.gateways.livekit.tokens import AccessTokens
from bridge.http import Listener

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 64 * 1024
MAX_FIELD: Final = 512  # characters; Matrix ids have at most 255 bytes
MAX_OPENID: Final = 4096  # characters of an OpenID access token
CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": (
        "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization"
    ),
}
DELEGATION_PATHS: Final = (
    "/delegate_delayed_leave",
    "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave",
    "/_matrix/client/v1/rtc/livekit/delegate_delayed_leave",
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Either form, made alike. `claimed_user` None = the form does not claim one."""

    room_id: str
    slot_id: str
    openid: OpenIdToken
    device_id: str
    member_id: str | None = None
    claimed_user: str | None = None


class NotAllowed(Refused):
    """The person is known and may not (403); a plain `Refused` means we do not believe who it is (401)."""


def read_legacy(body: Mapping[str, object]) -> TokenRequest:
    return TokenRequest(
        room_id=_room(body, "room"),
        slot_id=conferences.LEGACY_SLOT,
        openid=_openid(body),
        device_id=_text(body, "device_id"),
    )


def read_current(body: Mapping[str, object]) -> TokenRequest:
    member = body.get("member")
    if not isinstance(member, dict):
        raise Malformed("member is missing")
    return TokenRequest(
        room_id=_room(body, "room_id"),
        slot_id=_text(body, "slot_id"),
        openid=_openid(body),
        device_id=_text(member, "claimed_device_id"),
        member_id=_text(member, "id"),
        claimed_user=_text(member, "claimed_user_id"),
    )


def _openid(body: Mapping[str, object]) -> OpenIdToken:
    token = body.get("openid_token")
    if not isinstance(token, dict):
        raise Malformed("openid_token is missing")
    expires = token.get("expires_in", 0)
    return OpenIdToken(
        access_token=_text(token, "access_token", MAX_OPENID),
        token_type=_text(token, "token_type", default="Bearer"),
        matrix_server_name=_text(token, "matrix_server_name"),
        expires_in=expires if isinstance(expires, int) else 0,
    )


def _room(body: Mapping[str, object], name: str) -> str:
    room = _text(body, name)
    if not room.startswith("!"):
        raise Malformed(f"{name} is not a room id")
    return room


def _text(
    body: Mapping[str, object], name: str, most: int = MAX_FIELD, default: str | None = None
) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise Malformed(f"{name} is missing or not usable")
    return value


class Authorization:
    """The routes. Everything of a request that fails is answered in Matrix' words."""

    def __init__(self, context: Context, tokens: AccessTokens) -> None:
        self._context = context
        self._tokens = tokens
        self._backoff = Backoff()
        route = context.http.route
        for path, handler in (("/sfu/get", self._legacy), ("/get_token", self._current)):
            route(Listener.PUBLIC, "POST", path, handler)
            route(Listener.PUBLIC, "OPTIONS", path, _preflight)
        for path in DELEGATION_PATHS:
            route(Listener.PUBLIC, "POST", path, _not_here)
            route(Listener.PUBLIC, "OPTIONS", path, _preflight)

    async def _legacy(self, request: web.Request) -> web.Response:
        return await self._answer(request, read_legacy)

    async def _current(self, request: web.Request) -> web.Response:
        return await self._answer(request, read_current)

    async def _answer(
        self, request: web.Request, read: Callable[[Mapping[str, object]], TokenRequest]
    ) -> web.Response:
        guesser = ""
        try:
            ask = read(await _body(request))
            # Each try costs a request to that homeserver, so waiting comes first, but per homeserver:
            # a stranger's guesses must not shut out everybody behind the same address.
            guesser = (
                f"{self._context.http.client_address(request)} {ask.openid.matrix_server_name}"
            )
            wait_s = self._backoff.wait_s(guesser, time.monotonic())
            if wait_s > 0:
                return _limited(wait_s)
            return _json(200, await self._serve(ask))
        except Malformed as why:
            return _error(400, "M_BAD_JSON", str(why))
        except NotAllowed as why:
            return _error(403, "M_FORBIDDEN", str(why))
        except Refused as why:
            self._backoff.failed(guesser, time.monotonic())
            return _error(401, "M_UNAUTHORIZED", str(why))
        except Unavailable:
            log.warning("authorization not possible now", extra={"path": request.path})
            return _error(503, "M_LOOKUP_FAILED", "Try again in a moment.")
        except ConferenceError:
            log.exception("authorization broke")
            return _error(500, "M_UNKNOWN", "This is our fault.")

    async def _serve(self, ask: TokenRequest) -> dict[str, object]:
        proof = self._context.proof
        if proof is None:
            raise Unavailable("no matrix gateway")
        user = await proof.prove(ask.openid)
        if ask.claimed_user not in (None, user):
            raise Refused("The token belongs to somebody else.")
        server = user.partition(":")[2]
        if not proof.allows_homeserver(server):
            raise NotAllowed("Calls are not open to users of this homeserver.")
        await self._check_membership(proof, ask.room_id, user)
        record = await conferences.of_matrix_room(self._context.directory, ask.room_id, ask.slot_id)
        profile = await proof.profile(ask.room_id, user)
        jwt = self._tokens.mint_matrix(
            room=record.room,
            identity=_identity(ask, user),
            user_id=user,
            name=profile.name,
            role=profile.role,
        )
        return {"url": self._tokens.url, "jwt": jwt}

    async def _check_membership(self, proof: IdentityProof, room_id: str, user: str) -> None:
        """Enforced wherever the bot is, and always in bound rooms (S31)."""
        membership = await proof.membership(room_id, user)
        if membership is Membership.ABSENT:
            raise NotAllowed("You are not in this room.")
        if membership is Membership.UNKNOWN and await self._is_bound(room_id):
            raise NotAllowed("Nobody here can see whether you are in this room.")

    async def _is_bound(self, room_id: str) -> bool:
        place = Place(Network.MATRIX, room_id)
        return await self._context.directory.by_place(place) is not None


def _identity(ask: TokenRequest, user: str) -> str:
    if ask.member_id is None:
        return conferences.legacy_identity(user, ask.device_id)
    return conferences.rtc_identity(user, ask.device_id, ask.member_id)


async def _body(request: web.Request) -> Mapping[str, object]:
    """A JSON object of bounded size, whatever its declared type."""
    raw = bytearray()
    async for part in request.content.iter_chunked(8192):
        raw += part
        if len(raw) > MAX_BODY_BYTES:
            raise Malformed("body too long")
    try:
        body = json.loads(bytes(raw))
    except (ValueError, RecursionError) as why:
        raise Malformed("body is not JSON") from why
    if not isinstance(body, dict):
        raise Malformed("body is not an object")
    return body


async def _preflight(_: web.Request) -> web.Response:
    return web.Response(headers=CORS)


async def _not_here(_: web.Request) -> web.Response:
    return _error(404, "M_UNRECOGNIZED", "Delayed leaves are not delegated here.")


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.json_response(body, status=status, headers=CORS)


def _limited(wait_s: float) -> web.Response:
    body = {
        "errcode": "M_LIMIT_EXCEEDED",
        "error": "Too many failures; wait a little.",
        "retry_after_ms": round(wait_s * 1000),
    }
    return _json(429, body)


def _error(status: int, code: str, text: str) -> web.Response:
    return _json(status, {"errcode": code, "error": text})
