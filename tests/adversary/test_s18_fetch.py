"""S18: whatever address a stranger names, we never connect to anything but the public Internet."""

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference.errors import Refused, Unavailable
from bridge.fetch import Fetcher, is_public

Answer = Callable[[web.Request], Any]


class Names(AbstractResolver):
    """A name server of the attacker: each look-up of a name takes the next answer."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        rounds = self.answers[host]
        found = rounds.pop(0) if len(rounds) > 1 else rounds[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Names]:
    def use(**answers: list[list[str]]) -> Names:
        fake = Names({name.replace("_", "."): rounds for name, rounds in answers.items()})
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: fake)
        return fake

    return use


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when anything is about to be connected."""

    async def forbidden(_loop: object, _socket: object, address: object) -> None:
        pytest.fail(f"connects to {address}")

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", forbidden)


@pytest.fixture
async def server() -> AsyncIterator[Callable[[Answer], Any]]:
    runners: list[web.AppRunner] = []

    async def start(answer: Answer) -> int:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    yield start
    for runner in runners:
        await runner.cleanup()


PRIVATE = [
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8"),
    *("100::1", "2001::1", "2001:0:7f00:1::1", "2001:10::1", "2001:20::1", "2001:db8::1"),
    *("2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1"),
    *("fe80::1", "fe80::1%eth0", "2606:4700::1111%eth0", "fec0::1", "ff02::1", "ff0e::1"),
    *("", "localhost", "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "1.2.3.4.5", "１２７.0.0.1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "192.0.1.1", "198.17.255.255", "223.255.255.255", "172.32.0.1"),
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_special_purpose_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_never_more_public_than_itself(v4: ipaddress.IPv4Address) -> None:
    number = int(v4)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    nat64 = ipaddress.IPv6Address((0x0064_FF9B << 96) | number)
    assert not is_public(str(mapped))
    assert not is_public(str(sixtofour))
    assert is_public(str(nat64)) == is_public(str(v4))


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:8008/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1%25lo]/",
        "http://0/",
        "http://0.0.0.0/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://017700000001/",
        "http://2130706433/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://localhost/",
        "http://LOCALHOST:8008/",
        "http://ⓛocalhost/",
        "http://１２７。０。０。１/",
        "https://user@1.1.1.1/",
        "https://1.1.1.1@127.0.0.1/",
        "https://:@1.1.1.1/",
        "https://1.1.1.1:80@127.0.0.1:8008/",
        "https://1.1.1.1\\@127.0.0.1/",
        "https://1.1.1.1#@127.0.0.1\\/",
        "https://1.1.1.1 @127.0.0.1/",
        "http://1.1.1.1\r\nHost: x/",
        "http://1.1.1.1\t/",
        "http:///path",
        "http://1.1.1.1:0/",
        "http://1.1.1.1:99999/",
        "//1.1.1.1/",
        "1.1.1.1",
        "",
        "file:///etc/passwd",
        "ftp://1.1.1.1/",
        "gopher://1.1.1.1:70/_x",
        "unix:///run/socket",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "http://1.1.1.1/" + "a" * 10_000,
        "http://[::1",
        "http://[v1.x]/",
    ],
)
async def test_hostile_addresses_make_no_connection(url: str) -> None:
    # Unavailable: the resolver knows no such name; either way nothing was connected.
    with pytest.raises((Refused, Unavailable)):
        await Fetcher().get(url, timeout_s=5)


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["::1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::ffff:10.0.0.1"]],
)
async def test_one_private_address_condemns_the_name(
    names: Callable[..., Names], found: list[str]
) -> None:
    names(evil_test=[found])
    with pytest.raises(Refused, match=r"evil\.test is not on the public Internet"):
        await Fetcher().get("http://evil.test/")


async def test_a_name_is_asked_once_and_the_connection_pinned(
    names: Callable[..., Names], server: Any
) -> None:
    """DNS rebinding: the second answer would lead elsewhere, but nobody asks a second time."""

    async def who(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    port = await server(who)
    fake = names(evil_test=[["127.0.0.1"], ["127.0.0.2"]])
    fetched = await Fetcher().get(f"http://evil.test:{port}/", allow_private=True)
    assert fetched.body == f"evil.test:{port}".encode()
    assert fake.asked == ["evil.test"]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:1/",
        "//127.0.0.2:1/",
        "file:///etc/passwd",
        "http://user@first.test/",
        "http://[::1]/",
        "http://inner.test/",
        "\\\\127.0.0.2\\x",
        "http://a" + "a" * 8_192,
    ],
)
async def test_redirects_are_checked_like_the_first_address(
    names: Callable[..., Names], server: Any, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location[:8_000]})

    port = await server(redirect)
    names(first_test=[["127.0.0.1"]], inner_test=[["10.0.0.1"]])
    # The first server stands for a public one; everything else is judged as ever.
    monkeypatch.setattr("bridge.fetch.is_public", lambda a: a == "127.0.0.1" or is_public(a))
    with pytest.raises(Refused):
        await Fetcher().get(f"http://first.test:{port}/")


@pytest.mark.parametrize(("hops", "works"), [(3, True), (4, False)])
async def test_three_redirects_and_no_more(server: Any, hops: int, works: bool) -> None:
    async def down(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        if not left:
            return web.Response(text="there")
        return web.Response(status=307, headers={"Location": f"/{left - 1}"})

    port = await server(down)
    fetching = Fetcher().get(f"http://127.0.0.1:{port}/{hops}", allow_private=True)
    if works:
        assert (await fetching).body == b"there"
    else:
        with pytest.raises(Refused, match="more than 3 redirects"):
            await fetching


async def test_credentials_stay_with_the_server_they_were_meant_for(server: Any) -> None:
    async def show(request: web.Request) -> web.Response:
        return web.json_response(dict(request.headers))

    last = await server(show)

    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{last}/"})

    first = await server(redirect)
    fetched = await Fetcher().get(
        f"http://127.0.0.1:{first}/",
        headers={"AUTHORIZATION": "Bearer x", "X-Kept": "y"},
        allow_private=True,
    )
    assert b"Bearer" not in fetched.body
    assert b"X-Kept" in fetched.body


@pytest.mark.parametrize("is_gzip", [False, True])
async def test_a_body_over_the_cap_is_refused_while_it_is_read(server: Any, is_gzip: bool) -> None:
    served = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal served
        answer = web.StreamResponse(headers={"Content-Encoding": "gzip"} if is_gzip else {})
        await answer.prepare(request)
        chunk = gzip.compress(b"\0" * (32 << 20)) if is_gzip else b"x" * 65_536
        while True:
            await answer.write(chunk)
            served += len(chunk)

    port = await server(endless)
    with pytest.raises(Refused, match="larger than 1000000 bytes"):
        await Fetcher().get(f"http://127.0.0.1:{port}/", allow_private=True, max_bytes=1_000_000)
    assert served < 32 << 20


async def test_a_slow_drip_ends_in_time(server: Any) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0.05)

    port = await server(drip)
    with pytest.raises(Unavailable, match="no whole answer"):
        await Fetcher().get(f"http://127.0.0.1:{port}/", allow_private=True, timeout_s=0.5)


async def test_errors_do_not_tell_the_query(server: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(Unavailable) as caught:
            await Fetcher().get(f"http://127.0.0.1:{port}/?access_token=canary", allow_private=True)
    assert "canary" not in str(caught.value)
