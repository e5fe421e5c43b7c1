"""The one outgoing HTTP fetcher for addresses that others name (S18).

A name is resolved once per hop, every address it has must be public, and the connection goes to exactly these
addresses: a second, private answer of the same name server (DNS rebinding) is never asked for. Addresses
written as numbers take the same path, in every spelling the system knows (`0x7f.1`). Special-purpose
blocks: RFC 6890 and its registries; IPv6 forms that carry an IPv4 address (mapped, 6to4, Teredo, NAT64)
count as that address too.
Not here: who is asked for what (gateways), caching.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bridge.conference.errors import Refused, Unavailable

_URL_CHARACTERS: Final = 8_192
_HOST: Final = 253  # characters, RFC 1035 section 2.3.4
_CHUNK_BYTES: Final = 65_536
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})

_CLOSED_V4: Final = tuple(
    map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4"))
)  # beside what ipaddress calls private: protocol assignments, 6to4 relays, multicast
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052; the local-use 64:ff9b:1::/48 stays closed
_UNICAST: Final = IPv6Network("2000::/3")  # all else is local, mapped, multicast or unassigned
_CLOSED_V6: Final = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)  # IETF protocols with Teredo and ORCHID, documentation, 6to4 (RFC 7526), documentation


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer, already capped in size."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Resolves, checks every address, pins the connection, follows <= 3 checked redirects, 10 s, capped body."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: trust for https; by default the system's certificate authorities."""
        self._tls = tls

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 1 << 20,
        timeout_s: float = 10.0,
        allow_private: bool = False,
        max_redirects: int = 3,
    ) -> Fetched:
        """Raises `Refused` (address or scheme not allowed, too large) or `Unavailable` (network, timeout)."""
        target = _checked_url(url)
        sent = dict(headers or {})
        try:
            async with asyncio.timeout(timeout_s), self._session(allow_private) as session:
                for _ in range(max_redirects + 1):
                    answer = await _ask(session, target, sent, max_bytes)
                    if isinstance(answer, Fetched):
                        return answer
                    if answer.origin() != target.origin():
                        # What was meant for one server is not for the next.
                        sent = {k: v for k, v in sent.items() if k.lower() not in _CREDENTIALS}
                    target = answer
        except TimeoutError as why:
            raise Unavailable(f"{target.host}: no whole answer in {timeout_s:g} s") from why
        raise Refused(f"{target.host}: more than {max_redirects} redirects")

    @asynccontextmanager
    async def _session(self, allow_private: bool) -> AsyncIterator[aiohttp.ClientSession]:
        # A session per call: no pooled connection outlives the check it was made under.
        def make_socket(info: aiohttp.AddrInfoType) -> socket.socket:
            # The last line, and the only one that an address written as a number passes.
            if not allow_private:
                _require_public(str(info[4][0]), str(info[4][0]))
            return socket.socket(info[0], info[1], info[2])

        resolver = _CheckedResolver(allow_private)
        connector = aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls or True,
            socket_factory=make_socket,
        )
        try:
            async with aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy would connect on our behalf, unchecked
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session:
                yield session
        finally:
            await resolver.close()


async def _ask(
    session: aiohttp.ClientSession, target: URL, headers: Mapping[str, str], max_bytes: int
) -> Fetched | URL:
    """One hop: the answer, or where it redirects to (checked)."""
    try:
        async with session.get(target, headers=headers, allow_redirects=False) as answer:
            location = answer.headers.get("Location")
            if answer.status in _REDIRECTS and location is not None:
                return _redirected(target, location)
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes:
                    raise Refused(f"{target.host}: the answer is larger than {max_bytes} bytes")
            return Fetched(answer.status, answer.headers.copy(), bytes(body))
    except aiohttp.InvalidURL as why:
        raise Refused("not a web address that we follow") from why
    except (aiohttp.ClientError, OSError, ValueError) as why:
        # Never the address itself: its query may carry a token.
        raise Unavailable(f"{target.host}: {type(why).__name__}") from why


def _checked_url(text: str) -> URL:
    """http or https, a host, no user, no bytes that parsers disagree about."""
    if len(text) > _URL_CHARACTERS or not text.isprintable() or set(text) & set(" \\"):
        raise Refused("not a web address that we follow")
    try:
        url = URL(text)
        is_ours = (
            url.scheme in ("http", "https")
            and 0 < len(url.raw_host or "") <= _HOST
            and url.port != 0
        )
        has_user = url.user is not None or url.password is not None or "@" in url.raw_authority
    except ValueError as why:
        raise Refused("not a web address that we follow") from why
    if not is_ours or has_user:
        raise Refused("not a web address that we follow: http or https with a host and no user")
    return url.with_fragment(None)


def _redirected(target: URL, location: str) -> URL:
    if len(location) > _URL_CHARACTERS or not location.isprintable() or "\\" in location:
        raise Refused(f"{target.host}: redirects to no web address")
    try:
        joined = target.join(URL(location))
    except ValueError as why:
        raise Refused(f"{target.host}: redirects to no web address") from why
    found = _checked_url(str(joined))
    if target.scheme == "https" and found.scheme == "http":
        raise Refused(f"{target.host}: redirects from https to http")
    return found


class _CheckedResolver(AbstractResolver):
    """The system's resolver, but one forbidden address condemns the name."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._resolver = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not self._allow_private:
            for result in found:
                _require_public(host, result["host"])
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _require_public(name: str, address: str) -> None:
    if not is_public(address):
        raise Refused(f"{name} is not on the public Internet")


def is_public(address: str) -> bool:
    """Is this a unicast address of the public Internet, in itself and in what it embeds?"""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return ip.is_global and not any(ip in block for block in _CLOSED_V4)
    if ip in _NAT64:
        # DNS64 gives this form to every IPv4-only server: what counts is whom the translator reaches.
        return is_public(str(IPv4Address(int(ip) & 0xFFFF_FFFF)))
    return ip.scope_id is None and ip in _UNICAST and not any(ip in block for block in _CLOSED_V6)
