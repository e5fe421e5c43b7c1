"""S30: whose token is it? Everything a client claims about its homeserver may be a lie.

A homeserver of the attacker (`Homeserver`) answers whatever serves him; `Script` stands for the Internet
where names must resolve.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web

from bridge.conference.errors import ConferenceError, Refused, Unavailable
from bridge.fetch import Fetched, Fetcher
from bridge.gateway import OpenIdToken
from bridge.gateways.matrix.proof import PER_SERVER, Proof

SECRET = "a-token-that-must-not-be-seen"


class Homeserver:
    """Answers `openid/userinfo`; `handler` decides how."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.paths: list[str] = []
        self.busy = self.most_busy = 0
        self.url = ""
        self.answer: Any = {"sub": "@mallory:evil.test"}
        self.status = 200
        self.delay_s = 0.0
        self.headers: dict[str, str] = {}
        self.drip = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.asked.append(request.query.get("access_token", ""))
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.delay_s)
            if self.drip:
                return await self._drip(request)
            body = (
                self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
            )
            return web.Response(status=self.status, body=body, headers=self.headers)
        finally:
            self.busy -= 1

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response


@pytest.fixture
async def evil() -> AsyncIterator[Homeserver]:
    server = Homeserver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Script(Fetcher):
    """Fetches from a table; what is not in it cannot be reached."""

    def __init__(self, pages: Mapping[str, tuple[int, Any]]) -> None:
        super().__init__()
        self.pages = pages
        self.urls: list[str] = []
        self.options: list[dict[str, Any]] = []

    async def get(self, url: str, **options: Any) -> Fetched:
        bare = url.partition("?")[0]
        self.urls.append(bare)
        self.options.append(options)
        await asyncio.sleep(0)
        if bare not in self.pages:
            raise Unavailable("nobody there")
        status, page = self.pages[bare]
        return Fetched(status, {}, json.dumps(page).encode())


def proof(fetch: Fetcher, **options: Any) -> Proof:
    settings: dict[str, Any] = {
        "server_name": "hs.test",
        "homeserver": "http://127.0.0.1:9",
        "overrides": {},
        "allowed": ("*",),
        "allow_private": False,
        **options,
    }
    nothing: Any = None
    return Proof(fetch, nothing, **settings)


def against(evil: Homeserver, **options: Any) -> Proof:
    return proof(Fetcher(), overrides={"evil.test": evil.url}, **options)


def claim(server: str = "evil.test", token: str = SECRET, expires_in: int = 3600) -> OpenIdToken:
    return OpenIdToken(token, "Bearer", server, expires_in)


async def test_a_server_speaks_for_its_own_users(evil: Homeserver) -> None:
    assert await against(evil).prove(claim()) == "@mallory:evil.test"
    assert evil.paths == ["/_matrix/federation/v1/openid/userinfo"]
    assert evil.asked == [SECRET]


@pytest.mark.parametrize(
    "answer",
    [
        {"sub": "@admin:hs.test"},
        {"sub": "@admin:evil.test.hs.test"},
        {"sub": "@admin:notevil.test"},
        {"sub": "@admin:hs.test:evil.test"},
        {"sub": "@a:evil.test:8448"},
        {"sub": "@a:EVIL.test"},
        {"sub": "@:evil.test"},
        {"sub": "a:evil.test"},
        {"sub": "@a b:evil.test"},
        {"sub": "@a\n:evil.test"},
        {"sub": "@a\u0000:evil.test"},
        {"sub": "@\u0430dmin:evil.test"},
        {"sub": "@" + "a" * 300 + ":evil.test"},
        {"sub": ["@a:evil.test"]},
        {"sub": None},
        {"user": "@a:evil.test"},
        {},
        [],
        "@a:evil.test",
        b"not json",
        b"",
        b'{"sub": "@a:evil.test"',
        b"[" * 50_000,
        b"\xff\xff",
    ],
)
async def test_every_other_subject_is_refused(evil: Homeserver, answer: Any) -> None:
    evil.answer = answer
    with pytest.raises(Refused):
        await against(evil).prove(claim())


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (401, Refused),
        (403, Refused),
        (404, Refused),
        (204, Refused),
        (500, Unavailable),
        (503, Unavailable),
        (429, Unavailable),
    ],
)
async def test_other_answers(evil: Homeserver, status: int, fault: type[ConferenceError]) -> None:
    evil.status = status
    with pytest.raises(fault):
        await against(evil).prove(claim())


@pytest.mark.parametrize(
    "server",
    [
        "",
        "evil.test/../hs.test",
        "evil.test@hs.test",
        "hs.test#@evil.test",
        "evil.test?x=hs.test",
        "evil.test\\hs.test",
        "evil.test:99999",
        "evil.test:0",
        "evil.test:80:80",
        "evil.test:\u0668\u0660",
        "ev\u0456l.test",
        "evil\u3002test",
        "evil.test ",
        "evil.test\r\nHost: hs.test",
        "[::1",
        "[::1%25lo]",
        "127.1",
        "0x7f.1",
        "2130706433",
        "a" * 300,
    ],
)
async def test_names_that_are_none_are_refused_before_anything_is_fetched(server: str) -> None:
    script = Script({})
    with pytest.raises(Refused):
        await proof(script).prove(claim(server))
    assert not script.urls


async def test_private_addresses_are_not_asked(evil: Homeserver) -> None:
    port = evil.url.rpartition(":")[2]
    asked = proof(Fetcher())
    for server in (
        f"127.0.0.1:{port}",
        f"[::1]:{port}",
        f"[::ffff:127.0.0.1]:{port}",
        f"localhost:{port}",
        "169.254.169.254",
        "169.254.169.254:80",
        "10.0.0.1",
        "[fd00::1]",
    ):
        with pytest.raises(ConferenceError):
            await asked.prove(claim(server))
    assert not evil.paths


async def test_a_redirect_is_not_followed_with_the_token(evil: Homeserver) -> None:
    for target in (f"{evil.url}/elsewhere", "http://169.254.169.254/latest/meta-data/"):
        evil.paths.clear()
        evil.status, evil.headers = 302, {"Location": target}
        with pytest.raises(Refused):
            await against(evil).prove(claim())
        assert evil.paths == ["/_matrix/federation/v1/openid/userinfo"]


async def test_a_huge_answer_is_cut_off(evil: Homeserver) -> None:
    evil.answer = b'{"sub": "@a:evil.test", "x": "' + b"x" * (10 << 20) + b'"}'
    with pytest.raises(Refused):
        await against(evil).prove(claim())


async def test_a_dripping_answer_is_given_up(evil: Homeserver) -> None:
    evil.drip = True
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await against(evil, prove_s=0.5).prove(claim())
    assert asyncio.get_running_loop().time() - began < 2


async def test_at_most_four_questions_to_one_server_at_the_same_time(evil: Homeserver) -> None:
    evil.delay_s = 0.1
    asked = against(evil)
    await asyncio.gather(*(asked.prove(claim(token=f"t{n}")) for n in range(12)))
    assert evil.most_busy == PER_SERVER
    assert not asked._gates, "gates of idle servers stay behind"


async def test_a_slow_server_does_not_hold_up_another(evil: Homeserver) -> None:
    evil.delay_s = 1.0
    script = Fetcher()
    fast = Homeserver()
    asked = proof(script, overrides={"evil.test": evil.url, "fast.test": "http://127.0.0.1:1"})
    async with asyncio.TaskGroup() as tasks:
        slow = [tasks.create_task(asked.prove(claim(token=f"t{n}"))) for n in range(8)]
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):  # nobody listens there, which is told at once
            await asked.prove(claim("fast.test"))
        assert asyncio.get_running_loop().time() - began < 0.5
        for task in slow:
            await task
    assert not fast.paths


async def test_the_cache_is_short_and_knows_server_and_token(evil: Homeserver) -> None:
    clock = Clock()
    asked = proof(Fetcher(), overrides={"evil.test": evil.url, "other.test": evil.url}, clock=clock)
    await asked.prove(claim())
    await asked.prove(claim())
    assert len(evil.asked) == 1
    with pytest.raises(Refused):  # the same token at another server is another question
        await asked.prove(claim("other.test"))
    assert len(evil.asked) == 2
    clock.now += 61
    await asked.prove(claim())
    assert len(evil.asked) == 3
    await asked.prove(claim(token="brief", expires_in=5))
    clock.now += 6
    await asked.prove(claim(token="brief", expires_in=10**400))
    assert len(evil.asked) == 5
    evil.status = 401
    clock.now += 61
    with pytest.raises(Refused):  # a proof that was withdrawn does not live on
        await asked.prove(claim())


async def test_a_refusal_is_not_remembered(evil: Homeserver) -> None:
    asked = against(evil)
    evil.status = 500
    with pytest.raises(Unavailable):
        await asked.prove(claim())
    evil.status = 200
    assert await asked.prove(claim()) == "@mallory:evil.test"


async def test_only_allowed_homeservers_are_asked(evil: Homeserver) -> None:
    asked = against(evil, allowed=("hs.test",))
    with pytest.raises(Refused):
        await asked.prove(claim())
    assert not evil.paths
    assert asked.allows_homeserver("hs.test")
    assert not asked.allows_homeserver("sub.hs.test")


async def test_the_token_is_in_no_log_and_no_error(
    evil: Homeserver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    asked = against(evil, prove_s=0.5)
    for change in (
        {},
        {"status": 500},
        {"status": 403},
        {"answer": b"x"},
        {"answer": {"sub": "@a:b"}},
        {"answer": b"x" * (1 << 20)},
        {"status": 302, "headers": {"Location": "http://10.0.0.1/"}},
        {"drip": True},
    ):
        for name, value in change.items():
            setattr(evil, name, value)
        try:
            await asked.prove(claim(token=f"{SECRET}{len(texts)}"))
            texts.append("")
        except ConferenceError as why:
            texts.append("".join(traceback.format_exception(why)))
    with pytest.raises(ConferenceError) as gone:
        await proof(Fetcher(), overrides={"evil.test": "http://127.0.0.1:1"}).prove(claim())
    texts.append("".join(traceback.format_exception(gone.value)))
    assert len(texts) == 9
    assert not any(SECRET in text for text in texts)
    assert SECRET not in caplog.text
    assert not any(SECRET in str(record.__dict__) for record in caplog.records)


# --- where a server is --------------------------------------------------------------------------------

USERINFO = "/_matrix/federation/v1/openid/userinfo"
WELL_KNOWN = "https://evil.test/.well-known/matrix/server"
SUB = (200, {"sub": "@mallory:evil.test"})


@pytest.mark.parametrize(
    ("well_known", "base"),
    [
        (None, "https://evil.test:8448"),
        ((404, {}), "https://evil.test:8448"),
        ((200, {"m.server": "matrix.evil.test"}), "https://matrix.evil.test:8448"),
        ((200, {"m.server": "matrix.evil.test:443"}), "https://matrix.evil.test:443"),
        ((200, {"m.server": "1.2.3.4"}), "https://1.2.3.4:8448"),
        ((200, {"m.server": "http://169.254.169.254/"}), "https://evil.test:8448"),
        ((200, {"m.server": "a@b:443"}), "https://evil.test:8448"),
        ((200, {"m.server": 5}), "https://evil.test:8448"),
        ((200, []), "https://evil.test:8448"),
    ],
)
async def test_discovery(well_known: tuple[int, Any] | None, base: str) -> None:
    pages: dict[str, tuple[int, Any]] = {base + USERINFO: SUB}
    if well_known is not None:
        pages[WELL_KNOWN] = well_known
    script = Script(pages)
    assert await proof(script).prove(claim()) == "@mallory:evil.test"
    assert script.urls == [WELL_KNOWN, base + USERINFO]
    assert all(option["allow_private"] is False for option in script.options)
    assert script.options[-1]["max_redirects"] == 0
    asked = proof(script)
    assert await asked.prove(claim()) == await asked.prove(claim(token="second"))
    assert script.urls.count(WELL_KNOWN) == 2, "the well-known was fetched for each token"


async def test_a_port_or_an_address_needs_no_discovery() -> None:
    for server in ("evil.test:1234", "1.2.3.4:443"):
        script = Script({f"https://{server}{USERINFO}": (200, {"sub": f"@m:{server}"})})
        assert await proof(script).prove(claim(server)) == f"@m:{server}"
        assert len(script.urls) == 1


async def test_only_our_own_configuration_may_name_private_addresses() -> None:
    script = Script({f"http://127.0.0.1:9{USERINFO}": (200, {"sub": "@a:hs.test"})})
    assert await proof(script).prove(claim("hs.test")) == "@a:hs.test"
    assert script.options[0]["allow_private"] is True
