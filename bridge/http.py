"""The HTTP listeners: public, internal (appservice) and ops; gateways hand in their routes before start.

Bodies are capped (1 MiB unless a route asks for more, counted after decompression; S23), the request line at
128 KiB (`/rtc/v1?join_request=` carries a whole offer), and no access log is written: query strings carry
tokens (S42). TLS is for the public listener; behind a proxy the client's address comes from X-Forwarded-For,
from trusted peers only.
Not here: what the routes do (gateways), outgoing requests (`bridge.fetch`).
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from aiohttp import web

from bridge.conference.errors import Refused
from bridge.config import HttpSection, Listen, Tls
from bridge.ops.health import Health

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Bind = Callable[[str, int], Awaitable[socket.socket | None]]
"""Host and port -> a listening socket, or None to bind as usual; raises OSError."""

_BODY_BYTES: Final = 1 << 20
_LINE_BYTES: Final = 128 << 10
_FIELD_BYTES: Final = 16 << 10  # one header; an access token is about 1 KiB
_KEEP_ALIVE_S: Final = 75.0  # above the 60 s after which common proxies give up a connection
_STOP_S: Final = 3.0  # for requests under way; sockets of gateways are closed by them


class Listener(Enum):
    """Which socket serves a route. OPS stays on loopback by default (S44)."""

    PUBLIC = "public"
    INTERNAL = "internal"
    OPS = "ops"


class Http:
    """Collects routes, then serves them: `async with http.serve(): ...`."""

    def __init__(self, section: HttpSection | None = None, health: Health | None = None) -> None:
        self._section = section or HttpSection()
        self._health = health or Health()
        self._proxies = tuple(
            ip_network(item, strict=False) for item in self._section.trusted_proxies
        )
        self._apps = {listener: self._app() for listener in Listener}
        self._taken: set[tuple[Listener, str, str]] = set()
        self._ports: dict[Listener, int] = {}
        self.route(Listener.PUBLIC, "GET", "/healthz", self._healthz)
        self.route(Listener.OPS, "GET", "/healthz", self._healthz_in_detail)

    def route(
        self,
        listener: Listener,
        method: str,
        path: str,
        handler: Handler,
        *,
        max_body_bytes: int = _BODY_BYTES,
    ) -> None:
        """Serve `path` (aiohttp pattern). Raises ValueError when two gateways want the same one."""
        key = (listener, method.upper(), path)
        if key in self._taken:
            raise ValueError(f"{key[1]} {path} on the {listener.value} listener is taken")
        self._taken.add(key)
        self._apps[listener].router.add_route(method, path, _capped(handler, max_body_bytes))

    def static(
        self,
        listener: Listener,
        prefix: str,
        folder: Path,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Serve the files of a folder under `prefix` (ends in `/`), `index.html` at the prefix itself.

        Only files inside the folder, whatever the path or a link says. `headers` go on every answer.
        """
        root = folder.resolve()

        async def send(request: web.Request) -> web.StreamResponse:
            try:
                file = (root / (request.match_info["file"] or "index.html")).resolve()
                is_there = file.is_relative_to(root) and file.is_file()
            except (ValueError, OSError):  # NUL in the path, name too long
                is_there = False
            if not is_there:
                raise web.HTTPNotFound
            return web.FileResponse(file, headers=headers)

        self.route(listener, "GET", prefix + "{file:.*}", send)
        self.route(listener, "HEAD", prefix + "{file:.*}", send)

    def client_address(self, request: web.Request) -> str:
        """Who asks: the peer, or what trusted proxies say, read from the right. Empty when unknown."""
        address = request.remote or ""
        hops = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for hop in reversed(hops):
            if not self._is_proxy(address) or not hop.strip():
                break
            address = hop.strip()
        return address

    def port(self, listener: Listener) -> int:
        """The port a running listener is bound to (of interest when 0 was configured)."""
        return self._ports[listener]

    @asynccontextmanager
    async def serve(self, public: Bind | None = None) -> AsyncIterator[None]:
        """Listen until the block ends, then let requests under way finish (3 s).

        `public` may have the public listener's socket already (None: it has not). Raises `Refused` when a socket cannot be bound or the certificate cannot be used.
        """
        section = self._section
        context = _tls(section.tls) if section.tls else None
        async with AsyncExitStack() as stack:
            for listener, listen in (
                (Listener.PUBLIC, section.public),
                (Listener.INTERNAL, section.internal),
                (Listener.OPS, section.ops),
            ):
                tls = context if listener is Listener.PUBLIC else None
                bind = public if listener is Listener.PUBLIC else None
                await self._listen(stack, listener, listen, tls, bind)
            yield

    async def _listen(
        self,
        stack: AsyncExitStack,
        listener: Listener,
        listen: Listen,
        tls: ssl.SSLContext | None,
        bind: Bind | None,
    ) -> None:
        runner = web.AppRunner(
            self._apps[listener],
            access_log=None,
            shutdown_timeout=_STOP_S,
            keepalive_timeout=_KEEP_ALIVE_S,
            max_line_size=_LINE_BYTES,
            max_field_size=_FIELD_BYTES,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            bound = await bind(listen.host, listen.port) if bind else None
            if bound is None:
                site: web.BaseSite = web.TCPSite(runner, listen.host, listen.port, ssl_context=tls)
            else:
                site = web.SockSite(runner, bound, ssl_context=tls)
            await site.start()
        except OSError as why:
            raise Refused(
                f"http.{listener.value}: cannot listen on {listen.host}:{listen.port} "
                f"({why.strerror or why}): free the port or choose another"
            ) from why
        self._ports[listener] = runner.addresses[0][1]
        _log.info(
            "listening",
            extra={"listener": listener.value, "host": listen.host, "port": self._ports[listener]},
        )

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_BYTES)
        app.on_response_prepare.append(_hide_version)
        return app

    def _is_proxy(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._proxies)

    async def _healthz(self, _request: web.Request) -> web.Response:
        """Well or not; what is wrong is nobody's business on the public side."""
        is_well = (await self._health.report()).is_well
        return web.Response(status=200 if is_well else 503, text="ok" if is_well else "unwell")

    async def _healthz_in_detail(self, _request: web.Request) -> web.Response:
        report = await self._health.report()
        parts = {
            part.name: {"well": part.is_well, "vital": part.is_vital, "detail": part.detail}
            for part in report.parts
        }
        return web.json_response(
            {"well": report.is_well, "parts": parts}, status=200 if report.is_well else 503
        )


def _capped(handler: Handler, max_body_bytes: int) -> Handler:
    """The handler behind its body cap. A declared length over it is refused before a byte is read."""

    async def run(request: web.Request) -> web.StreamResponse:
        if (request.content_length or 0) > max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(max_body_bytes)
        if max_body_bytes != _BODY_BYTES:
            request = request.clone(client_max_size=max_body_bytes)
        return await handler(request)

    return run


async def _hide_version(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


def _tls(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as why:  # ssl.SSLError is one
        raise Refused(
            f"http.tls: cannot use {tls.cert} with {tls.key} ({why.strerror or why}): "
            "both must be readable PEM files that belong together"
        ) from why
    return context
