"""The listeners with a real client on loopback: routes, caps, long lines, proxies, TLS, health."""

import asyncio
import io
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from bridge.conference.errors import Refused, Unavailable
from bridge.config import HttpSection, Listen, Tls
from bridge.http import Http, Listener
from bridge.ops.health import Health


def section(**more: Any) -> HttpSection:
    listen = Listen(port=0)
    return HttpSection(public=listen, internal=listen, ops=listen, **more)


async def echo_length(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


@asynccontextmanager
async def client(
    http: Http, listener: Listener = Listener.PUBLIC
) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        http.serve(),
        aiohttp.ClientSession(f"http://127.0.0.1:{http.port(listener)}") as session,
    ):
        yield session


async def test_each_listener_serves_only_its_own_routes() -> None:
    http = Http(section())
    http.route(Listener.INTERNAL, "POST", "/txn/{id}", echo_length)
    async with client(http, Listener.INTERNAL) as session:
        async with session.post("/txn/1", data=b"abc") as answer:
            assert await answer.text() == "3"
            assert "Server" not in answer.headers
        async with session.post(f"http://127.0.0.1:{http.port(Listener.PUBLIC)}/txn/1") as answer:
            assert answer.status == 404


def test_a_route_is_given_once() -> None:
    http = Http(section())
    http.route(Listener.PUBLIC, "GET", "/x", echo_length)
    http.route(Listener.INTERNAL, "GET", "/x", echo_length)
    with pytest.raises(ValueError, match="GET /x on the public listener is taken"):
        http.route(Listener.PUBLIC, "get", "/x", echo_length)


@pytest.mark.parametrize(("path", "cap"), [("/small", 1 << 20), ("/large", 10 << 20)])
async def test_bodies_end_at_the_routes_cap(path: str, cap: int) -> None:
    http = Http(section())
    http.route(Listener.PUBLIC, "POST", "/small", echo_length)
    http.route(Listener.PUBLIC, "POST", "/large", echo_length, max_body_bytes=10 << 20)
    async with client(http) as session:
        async with session.post(path, data=io.BytesIO(b"x" * cap)) as answer:
            assert await answer.text() == str(cap)
        async with session.post(path, data=io.BytesIO(b"x" * (cap + 1))) as answer:
            assert answer.status == 413


async def test_a_body_without_a_length_and_a_gzip_bomb_end_there_too() -> None:
    http = Http(section())
    http.route(Listener.PUBLIC, "POST", "/", echo_length)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65_536

    bomb = zlib.compressobj(wbits=31)
    body = bomb.compress(b"\0" * (8 << 20)) + bomb.flush()
    assert len(body) < 1 << 14
    async with client(http) as session:
        async with session.post("/", data=chunks()) as answer:
            assert answer.status == 413
        async with session.post("/", data=body, headers={"Content-Encoding": "gzip"}) as answer:
            assert answer.status == 413


async def test_a_join_request_of_100_kib_fits_the_request_line() -> None:
    async def length(request: web.Request) -> web.Response:
        return web.Response(text=str(len(request.query["join_request"])))

    http = Http(section())
    http.route(Listener.PUBLIC, "GET", "/rtc/v1", length)
    async with client(http) as session:
        async with session.get("/rtc/v1", params={"join_request": "a" * 100_000}) as answer:
            assert await answer.text() == "100000"
        async with session.get("/rtc/v1", params={"join_request": "a" * 200_000}) as answer:
            assert answer.status == 400


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        ((), "198.51.100.7", "127.0.0.1"),  # nobody is trusted
        (("127.0.0.0/8",), "198.51.100.7", "198.51.100.7"),
        (("127.0.0.1",), "203.0.113.9, 198.51.100.7", "198.51.100.7"),  # the left one is a claim
        (("127.0.0.1", "198.51.100.0/24"), "203.0.113.9, 198.51.100.7", "203.0.113.9"),
        (("127.0.0.1",), "", "127.0.0.1"),
        (("127.0.0.1",), "spoofed, not-an-address", "not-an-address"),
    ],
)
async def test_the_clients_address_behind_proxies(
    proxies: tuple[str, ...], forwarded: str, expected: str
) -> None:
    http = Http(section(trusted_proxies=proxies))

    async def who(request: web.Request) -> web.Response:
        return web.Response(text=http.client_address(request))

    http.route(Listener.PUBLIC, "GET", "/who", who)
    async with (
        client(http) as session,
        session.get("/who", headers={"X-Forwarded-For": forwarded}) as answer,
    ):
        assert await answer.text() == expected


async def test_the_page_is_served_from_its_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "page"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("hello")
    (root / "assets" / "a.js").write_text("js")
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    http = Http(section())
    http.static(Listener.PUBLIC, "/page/", root, headers={"Content-Security-Policy": "x"})
    async with client(http) as session:
        for path, status in {
            "/page/": 200,
            "/page/assets/a.js": 200,
            "/page/assets": 404,
            "/page/link": 404,
            "/page/%2e%2e/secret": 404,
            "/page/..%2fsecret": 404,
            "/page/%00": 404,
            "/page/" + "a" * 5_000: 404,
        }.items():
            url = URL(f"http://127.0.0.1:{http.port(Listener.PUBLIC)}{path}", encoded=True)
            async with session.get(url) as answer:
                assert (path, answer.status) == (path, status)
                if status == 200:
                    assert answer.headers["Content-Security-Policy"] == "x"


async def test_health_is_terse_in_public_and_detailed_on_ops() -> None:
    health = Health()
    health.watch("database", _well)
    http = Http(section(), health)
    async with client(http) as session:
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        health.watch("xmpp", _away, is_vital=False)
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        health.watch("worker", _away)
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "unwell")
        async with session.get(f"http://127.0.0.1:{http.port(Listener.OPS)}/healthz") as answer:
            assert answer.status == 503
            assert (await answer.json())["parts"]["worker"] == {
                "well": False,
                "vital": True,
                "detail": "gone",
            }


async def _well() -> str:
    return "fine"


async def _away() -> str:
    raise Unavailable("gone")


async def test_stopping_lets_a_request_finish() -> None:
    entered = asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        entered.set()
        await asyncio.sleep(0.2)
        return web.Response(text="done")

    http = Http(section())
    http.route(Listener.PUBLIC, "GET", "/slow", slow)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:

        async def ask(port: int) -> str:
            async with session.get(f"http://127.0.0.1:{port}/slow") as answer:
                return await answer.text()

        async with http.serve():
            asked = tasks.create_task(ask(http.port(Listener.PUBLIC)))
            async with asyncio.timeout(5):
                await entered.wait()
    assert asked.result() == "done"


async def test_a_taken_port_is_one_sentence() -> None:
    first = Http(section())
    async with first.serve():
        taken = Listen(port=first.port(Listener.OPS))
        second = Http(HttpSection(public=Listen(port=0), internal=Listen(port=0), ops=taken))
        with pytest.raises(Refused, match=r"http\.ops: cannot listen on 127\.0\.0\.1"):
            async with second.serve():
                pass


async def test_the_public_listener_speaks_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    http = Http(section(tls=Tls(cert=cert, key=key)))
    trust = ssl.create_default_context(cafile=str(cert))
    async with http.serve(), aiohttp.ClientSession() as session:
        url = f"https://localhost:{http.port(Listener.PUBLIC)}/healthz"
        async with session.get(url, ssl=trust) as answer:
            assert answer.status == 200
    with pytest.raises(Refused, match=r"http\.tls: cannot use"):
        async with Http(section(tls=Tls(cert=cert, key=cert))).serve():
            pass
