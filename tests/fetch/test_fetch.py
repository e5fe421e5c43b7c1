"""What the fetcher gives back from a server it may talk to (what it refuses: tests.adversary.test_s18_fetch)."""

import asyncio
import gzip
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bridge.conference.errors import Refused, Unavailable
from bridge.fetch import Fetcher
from bridge.http import Handler


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{any:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def hello(request: web.Request) -> web.Response:
    return web.json_response(
        {"query": dict(request.query), "agent": request.headers.get("X-Ask", "")},
        status=404 if request.path == "/none" else 200,
        headers={"X-Answer": "yes"},
    )


async def test_status_headers_and_body() -> None:
    async with serving(hello) as port:
        got = await Fetcher().get(
            f"http://127.0.0.1:{port}/none?a=1#part", headers={"X-Ask": "me"}, allow_private=True
        )
    assert got.status == 404  # an answer all the same
    assert got.headers["x-answer"] == "yes"
    assert got.body == b'{"query": {"a": "1"}, "agent": "me"}'


async def test_a_name_of_the_hosts_file_resolves() -> None:
    async with serving(hello) as port:
        got = await Fetcher().get(f"http://localhost:{port}/", allow_private=True)
    assert got.status == 200


async def test_compressed_answers_are_opened() -> None:
    async def packed(_request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b"x" * 1_000), headers={"Content-Encoding": "gzip"})

    async with serving(packed) as port:
        fetch = Fetcher().get
        url = f"http://127.0.0.1:{port}/"
        assert (await fetch(url, allow_private=True, max_bytes=1_000)).body == b"x" * 1_000
        with pytest.raises(Refused):
            await fetch(url, allow_private=True, max_bytes=999)


@pytest.mark.parametrize("location", ["/b", "b", "?b", "//localhost:{port}/b"])
async def test_relative_redirects(location: str) -> None:
    async def move(request: web.Request) -> web.Response:
        if "b" in request.path_qs.removeprefix("/a"):
            return web.Response(text=request.path_qs)
        return web.Response(status=301, headers={"Location": location.format(port=port)})

    async with serving(move) as port:
        got = await Fetcher().get(f"http://localhost:{port}/a", allow_private=True)
    assert got.body in (b"/b", b"/a?b")


async def test_a_redirect_without_a_location_is_an_answer() -> None:
    async def nowhere(_request: web.Request) -> web.Response:
        return web.Response(status=302, text="well")

    async with serving(nowhere) as port:
        got = await Fetcher().get(f"http://127.0.0.1:{port}/", allow_private=True)
    assert (got.status, got.body) == (302, b"well")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_https_needs_a_trusted_certificate(certificate: tuple[Path, Path]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    trusting = Fetcher(tls=ssl.create_default_context(cafile=str(certificate[0])))
    async with serving(hello, server) as port:
        got = await trusting.get(f"https://localhost:{port}/", allow_private=True)
        assert got.status == 200
        with pytest.raises(Unavailable, match="Certificate"):
            await Fetcher().get(f"https://localhost:{port}/", allow_private=True)
        with pytest.raises(Unavailable, match="Certificate"):  # right authority, wrong name
            await trusting.get(f"https://127.0.0.1:{port}/", allow_private=True)


async def test_https_does_not_redirect_to_http(certificate: tuple[Path, Path]) -> None:
    async def down(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://localhost:1/"})

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    trusting = Fetcher(tls=ssl.create_default_context(cafile=str(certificate[0])))
    async with serving(down, server) as port:
        with pytest.raises(Refused, match="from https to http"):
            await trusting.get(f"https://localhost:{port}/", allow_private=True)


async def test_a_server_that_is_away_or_talks_nonsense_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable):
            await Fetcher().get(f"http://127.0.0.1:{closed.getsockname()[1]}/", allow_private=True)

    async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable):
            await Fetcher().get(f"http://127.0.0.1:{port}/", allow_private=True)
