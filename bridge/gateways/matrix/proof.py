"""Is this really @user:server? Keeps the port `IdentityProof` for token services.

Server-server API v1.15: server discovery (without SRV: a target that differs from the certificate's name
cannot be fetched by URL; such servers need `matrix.federation_overrides` or a well-known), OpenID userinfo.
Everything in the request is the client's claim (S30): names are parsed strictly, fetched through the one
fetcher that is safe against SSRF, and the answer counts only for the server that was asked. The token is a
secret of somebody else: never logged, never part of an error's text or chain.
Not here: minting media tokens (livekit gateway), the fetcher's checks (`bridge.fetch`).
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.fetch import Fetched, Fetcher
from bridge.gateway import MatrixProfile, Membership, OpenIdToken
from bridge.gateways.matrix.names import ServerName, parse_server_name, parse_user_id
from bridge.gateways.matrix.rooms import Fresh, Rooms

PROVE_S: Final = 10.0  # discovery and question together
CACHE_S: Final = 60.0
DISCOVERY_S: Final = 3_600.0  # a well-known, found or not, for an hour
PER_SERVER: Final = 4
MAX_SERVERS: Final = 64  # asked at the same time
MAX_TOKEN_CHARS: Final = 4_096
MAX_ANSWER_BYTES: Final = 64 << 10
FEDERATION_PORT: Final = 8448
_NOT_VALID: Final = "The homeserver does not confirm this identity."


@dataclass(frozen=True, slots=True)
class Base:
    """Where a server's federation API is. `trusted`: written in our own configuration."""

    url: str
    trusted: bool


@dataclass(slots=True)
class _Gate:
    """Concurrency of one server, alive while somebody waits or asks."""

    seats: asyncio.Semaphore
    users: int = 0


class Proof:
    """The port, over the one fetcher and what our homeserver sees."""

    def __init__(
        self,
        fetch: Fetcher,
        rooms: Rooms,
        *,
        server_name: str,
        homeserver: str,
        overrides: Mapping[str, str],
        allowed: tuple[str, ...],
        allow_private: bool,
        clock: Callable[[], float] = time.monotonic,
        prove_s: float = PROVE_S,
    ) -> None:
        self._fetch, self._rooms = fetch, rooms
        self._known = {server_name: homeserver.rstrip("/")} | {
            name: url.rstrip("/") for name, url in overrides.items()
        }
        self._allowed = frozenset(allowed)
        self._allow_private = allow_private
        self._prove_s = prove_s
        self._gates: dict[str, _Gate] = {}
        self._proven: Fresh[bytes, str] = Fresh(CACHE_S, clock)
        self._bases: Fresh[str, Base] = Fresh(DISCOVERY_S, clock, 1_000)

    # --- the port ---------------------------------------------------------------------------------------

    def allows_homeserver(self, server_name: str) -> bool:
        """Whose users may have media tokens (`livekit.full_access_homeservers`)."""
        return "*" in self._allowed or server_name in self._allowed

    async def membership(self, room_id: str, user_id: str) -> Membership:
        return await self._rooms.membership(room_id, user_id)

    async def profile(self, room_id: str | None, user_id: str) -> MatrixProfile:
        return await self._rooms.profile(room_id, user_id)

    async def prove(self, token: OpenIdToken) -> str:
        """The verified Matrix id."""
        server = _claimed_server(token)
        if not self.allows_homeserver(str(server)):
            raise Refused("Users of this homeserver may not join here.")
        if not 0 < len(token.access_token) <= MAX_TOKEN_CHARS or not token.access_token.isascii():
            raise Refused(_NOT_VALID)
        key = hashlib.sha256(f"{server}\0{token.access_token}".encode()).digest()
        known = self._proven.get(key)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self._prove_s), self._turn(str(server)):
                answer = await self._ask(server, token.access_token)
        except TimeoutError:
            raise Unavailable("The homeserver did not answer in time.") from None
        user = _subject(answer, str(server))
        self._proven.put(key, user, max(0, min(int(CACHE_S), token.expires_in)))
        return user

    # --- asking -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _turn(self, server: str) -> AsyncIterator[None]:
        """At most `PER_SERVER` questions to one server, and `MAX_SERVERS` servers, at the same time."""
        gate = self._gates.get(server)
        if gate is None:
            if len(self._gates) >= MAX_SERVERS:
                raise Unavailable("Too many homeservers are being asked; try again.")
            gate = self._gates[server] = _Gate(asyncio.Semaphore(PER_SERVER))
        gate.users += 1
        try:
            async with gate.seats:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[server]

    async def _ask(self, server: ServerName, access_token: str) -> Fetched:
        base = await self._base(server)
        url = (
            f"{base.url}/_matrix/federation/v1/openid/userinfo"
            f"?access_token={quote(access_token, safe='')}"
        )
        try:
            return await self._fetch.get(
                url,
                max_bytes=MAX_ANSWER_BYTES,
                timeout_s=self._prove_s,
                allow_private=base.trusted or self._allow_private,
                max_redirects=0,  # a redirect would carry the token elsewhere
            )
        except Refused:
            raise Refused("This homeserver's address may not be asked.") from None
        except Unavailable:
            raise Unavailable("The homeserver cannot be reached.") from None

    async def _base(self, server: ServerName) -> Base:
        """Server discovery (server-server API section "Resolving server names")."""
        name = str(server)
        if name in self._known:
            return Base(self._known[name], trusted=True)
        if server.is_literal or server.port is not None:
            return Base(_https(server), trusted=False)
        known = self._bases.get(name)
        if known is None:
            delegated, keep_s = await self._delegated(server)
            known = Base(_https(delegated), trusted=False)
            self._bases.put(name, known, keep_s)
        return known

    async def _delegated(self, server: ServerName) -> tuple[ServerName, float]:
        """Whom `.well-known/matrix/server` names, else the server itself; and how long to believe that."""
        try:
            found = await self._fetch.get(
                f"https://{server.host}/.well-known/matrix/server",
                max_bytes=MAX_ANSWER_BYTES,
                timeout_s=self._prove_s / 2,
                allow_private=self._allow_private,
            )
            named = _object(found.body).get("m.server") if found.status == 200 else None
            if isinstance(named, str):
                return parse_server_name(named), DISCOVERY_S
        except Unavailable:
            return server, CACHE_S
        except (Refused, Malformed):
            pass
        return server, DISCOVERY_S


def _https(server: ServerName) -> str:
    return f"https://{server.host}:{server.port or FEDERATION_PORT}"


def _claimed_server(token: OpenIdToken) -> ServerName:
    try:
        return parse_server_name(token.matrix_server_name)
    except Malformed:
        raise Refused("This is not the name of a homeserver.") from None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("answer: not JSON") from None
    if not isinstance(value, Mapping):
        raise Malformed("answer: not an object")
    return value


def _subject(answer: Fetched, server: str) -> str:
    """`sub` of an answer, if this server may speak for it (S30)."""
    if answer.status >= 500 or answer.status == 429:
        raise Unavailable("The homeserver cannot confirm identities now.")
    if answer.status != 200:
        raise Refused(_NOT_VALID)
    try:
        subject = _object(answer.body).get("sub")
        _, home = parse_user_id(subject)
    except Malformed:
        raise Refused(_NOT_VALID) from None
    if home != server:
        raise Refused(_NOT_VALID)
    assert isinstance(subject, str)
    return subject
