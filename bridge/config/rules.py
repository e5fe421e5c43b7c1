"""What makes a deployment safe: rules over a well-typed configuration (S16, S20, S40).

They run when a file is loaded, not when a model is built, so that tests may build any value.
Not here: types and ranges (`models`).
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from bridge.config.models import (
    Config,
    HttpSection,
    Listen,
    MatrixSection,
    MediaSection,
    TurnSection,
    XmppSection,
)

_SECRET_BYTES: Final = 32  # S20: what HMAC-SHA256 is worth
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")  # an XMPP localpart and a path segment
_LOCALPART: Final = re.compile(
    r"[a-z0-9._=/+-]+"
)  # Matrix user ids, appendix 4.2.1 of the specification
_INTERFACE: Final = re.compile(
    r"(?=.*[A-Za-z*])[A-Za-z0-9_.*?-]{1,15}"
)  # what the worker reads too
# RFC 7065 section 3.1
_TURN_URL: Final = re.compile(
    r"turns?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(\?transport=(udp|tcp))?"
)
_NEW_SECRET: Final = "set it to 32 random bytes or more, for example from `openssl rand -hex 32`"

_MAX_LISTEN: Final = 31  # addresses of one data-plane thread (engine/io)


def problems(config: Config) -> Iterator[str]:
    """Everything wrong with a well-typed configuration: one sentence each, with key and fix."""
    yield from _http_problems(config.http)
    yield from _secret_problems(config)
    yield from _codec_problems(config.livekit.video_codecs)
    yield from _address_problems(config)
    yield from _database_problems(config)
    if config.sfu.mode == "spawn":
        yield from _media_problems(config.media)
    if config.turn:
        yield from _turn_problems(config.turn)
    if config.matrix:
        yield from _matrix_problems(config.matrix)
    if config.xmpp:
        yield from _xmpp_problems(config.xmpp)
    yield from _conference_problems(config)


def is_loopback(host: str) -> bool:
    """Is this host, as configured, this machine only?"""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _http_problems(http: HttpSection) -> Iterator[str]:
    if not (is_loopback(http.public.host) or http.tls or http.trusted_proxies):
        yield (
            f"http.public.host: {http.public.host} is not loopback and would carry tokens in the clear: "
            "set http.tls, or http.trusted_proxies if a TLS proxy stands in front"
        )
    for index, item in enumerate(http.trusted_proxies):
        try:
            ip_network(item, strict=False)
        except ValueError:
            yield (
                f"http.trusted_proxies.{index}: {item!r} is no address or network: write 192.0.2.1 or 192.0.2.0/24"
            )
    taken: dict[tuple[str, int], str] = {}
    for name in ("public", "internal", "ops"):
        listen: Listen = getattr(http, name)
        other = taken.setdefault((listen.host, listen.port), name)
        if listen.port and other != name:
            yield f"http.{name}.port: {listen.port} is http.{other}'s already: choose another"


def _secret_problems(config: Config) -> Iterator[str]:
    if not config.livekit.keys:
        yield (
            "livekit.keys: is empty, so nobody could join: add one, `- {key: parley, secret: ...}` "
            "with a secret from `openssl rand -hex 32`"
        )
    secrets = [
        (f"livekit.keys.{index}.secret", pair.secret)
        for index, pair in enumerate(config.livekit.keys)
    ]
    if config.web:
        secrets.append(("web.invite_secret", config.web.invite_secret))
    if config.turn:
        secrets.append(("turn.secret", config.turn.secret))
    if config.matrix:
        secrets.append(("matrix.as_token", config.matrix.as_token))
        secrets.append(("matrix.hs_token", config.matrix.hs_token))
    for key, secret in secrets:
        size = len(secret.get_secret_value().encode())
        if size < _SECRET_BYTES:
            yield f"{key}: has {size} bytes: {_NEW_SECRET}"
    names = [pair.key for pair in config.livekit.keys]
    for index, name in enumerate(names):
        if not name or names.index(name) != index:
            yield f"livekit.keys.{index}.key: {name!r} is empty or used twice: give each key its own name"


def _codec_problems(codecs: Sequence[str]) -> Iterator[str]:
    for index, codec in enumerate(codecs):
        if codecs.index(codec) != index:
            yield f"livekit.video_codecs.{index}: {codec} is there twice: name each codec once"


def _address_problems(config: Config) -> Iterator[str]:
    addresses = [("http.public_url", config.http.public_url, ("http", "https"))]
    if config.livekit.url:
        addresses.append(("livekit.url", config.livekit.url, ("ws", "wss")))
    if config.matrix:
        addresses.append(("matrix.homeserver", config.matrix.homeserver, ("http", "https")))
        if config.matrix.livekit_service_url:
            addresses.append(
                (
                    "matrix.livekit_service_url",
                    config.matrix.livekit_service_url,
                    ("http", "https"),
                )
            )
        for server, url in config.matrix.federation_overrides.items():
            addresses.append((f"matrix.federation_overrides.{server}", url, ("http", "https")))
    for key, url, schemes in addresses:
        parts = _split(url)
        if parts is None or parts.scheme not in schemes or not parts.hostname or parts.username:
            yield f"{key}: must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}"
        elif parts.query or parts.fragment:
            yield f"{key}: must end with the path: remove the `?` or `#` part"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed, and refused, only when asked for
    except ValueError:
        return None
    return parts


def _database_problems(config: Config) -> Iterator[str]:
    url = config.database.url
    # COMPAT: configurations of 2026-11 say "+aiosqlite"; the file is the same. Look again in 2027-11.
    scheme, is_url, file = url.partition(":///")
    is_sqlite = bool(is_url) and scheme in ("sqlite", "sqlite+aiosqlite")
    if is_sqlite and file.partition("?")[0] in ("", ":memory:"):
        yield (
            "database.url: names no file, so every restart would forget calls and messages: "
            "write sqlite:///parley.db"
        )
    if not is_sqlite and not url.startswith("postgresql+asyncpg://"):
        yield (
            "database.url: must begin with sqlite:/// (then a file) "
            "or postgresql+asyncpg:// (then user:password@host/name)"
        )
    if config.cluster.mode == "nats":
        if is_sqlite:
            yield (
                "cluster.mode: several parleys cannot share an SQLite file: set database.url to PostgreSQL, "
                "or cluster.mode to memory"
            )
        else:
            yield "cluster.mode: nats is not in this release: set it to memory and run one parley"


def _media_problems(media: MediaSection) -> Iterator[str]:
    for key, addresses in (("listen", media.listen), ("advertise", media.advertise)):
        for index, address in enumerate(addresses):
            try:
                ip = ip_address(address)
            except ValueError:
                yield f"media.{key}.{index}: {address!r} is no IP address: write it in numbers"
                continue
            if ip.is_unspecified and key == "advertise":
                yield f"media.advertise.{index}: {address} is nowhere: write the address clients reach"
    for key, filters in (("allow", media.allow), ("deny", media.deny)):
        for index, text in enumerate(filters):
            try:
                ip_network(text, strict=False)
            except ValueError:
                if not _INTERFACE.fullmatch(text):
                    yield (
                        f"media.{key}.{index}: {text!r} is no address, network or interface: "
                        "write 192.0.2.1, 192.0.2.0/24 or docker*"
                    )
    if media.advertise and (media.allow or media.deny):
        yield (
            "media.advertise: says exactly what clients are told, so media.allow and media.deny mean nothing: "
            "remove the one or the others"
        )
    if not media.listen:
        yield "media.listen: is empty: name at least one address, for example 0.0.0.0"
    if len(media.listen) > _MAX_LISTEN:
        yield f"media.listen: has more than {_MAX_LISTEN} addresses: name fewer, or 0.0.0.0 for all"


def _turn_problems(turn: TurnSection) -> Iterator[str]:
    if not turn.urls:
        yield "turn.urls: is empty: write turn:turn.example.org:3478, or remove the section"
    for index, url in enumerate(turn.urls):
        if not _TURN_URL.fullmatch(url):
            yield (
                f"turn.urls.{index}: {url!r} is no TURN address: "
                "write turn:HOST:PORT or turns:HOST:PORT, with ?transport=tcp or ?transport=udp if need be"
            )


def _matrix_problems(matrix: MatrixSection) -> Iterator[str]:
    if matrix.as_token == matrix.hs_token:
        yield "matrix.hs_token: equals matrix.as_token: give each direction a token of its own"
    for key in ("bot", "ghost_prefix"):
        if not _LOCALPART.fullmatch(getattr(matrix, key)):
            yield f"matrix.{key}: must be part of a Matrix user id: a-z, 0-9 and any of ._=/+-"
    for index, admin in enumerate(matrix.admins):
        if not (admin.startswith("@") and ":" in admin):
            yield f"matrix.admins.{index}: {admin!r} is no Matrix id: write @user:server"


def _xmpp_problems(xmpp: XmppSection) -> Iterator[str]:
    if not (xmpp.tls or is_loopback(xmpp.host)):
        yield (
            f"xmpp.secret: would cross the network to {xmpp.host} in the clear: set xmpp.tls, "
            "or run the component on the XMPP server's machine (S40)"
        )
    if not xmpp.secret.get_secret_value():
        yield "xmpp.secret: is empty: set it to the component secret of the XMPP server"
    for index, admin in enumerate(xmpp.admins):
        if not 0 < admin.find("@") < len(admin) - 1 or "/" in admin:
            yield f"xmpp.admins.{index}: {admin!r} is no bare JID: write user@server"


def _conference_problems(config: Config) -> Iterator[str]:
    slugs: set[str] = set()
    places: dict[str, str] = {}
    for index, conference in enumerate(config.conferences):
        key = f"conferences.{index}"
        if not _SLUG.fullmatch(conference.slug):
            yield f"{key}.slug: {conference.slug!r} must be 1 to 63 of a-z, 0-9 and ._- (not first)"
        if conference.slug in slugs:
            yield f"{key}.slug: {conference.slug!r} is used twice: give each conference its own"
        slugs.add(conference.slug)
        for network, addresses in (("matrix", conference.matrix), ("xmpp", conference.xmpp)):
            if addresses and getattr(config, network) is None:
                yield f"{key}.{network}: there is no {network} section: add it or remove the places"
            for address in addresses:
                if places.setdefault(address, key) != key:
                    yield f"{key}.{network}: {address} belongs to {places[address]}: bind it once"
