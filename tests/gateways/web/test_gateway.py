"""The web gateway over a real HTTP listener: page, headers, invitation, token."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from pydantic import SecretStr

from bridge.conference.ids import ConferenceId, Network
from bridge.conference.ports import ConferenceRecord
from bridge.config import HttpSection, Listen, WebSection
from bridge.gateway import Context, Grant
from bridge.gateways.web import create, invite
from bridge.gateways.web import gateway as module
from bridge.http import Http, Listener

SECRET = "i" * 32
DEMO = ConferenceRecord(ConferenceId("c_1"), "demo", "room-alias", title="Weekly")


class OneConference:
    async def by_slug(self, slug: str) -> ConferenceRecord | None:
        return DEMO if slug == DEMO.slug else None


@dataclass
class Mint:
    url: str = "ws://localhost:1"
    grants: list[Grant] = field(default_factory=list)

    def mint(self, grant: Grant) -> str:
        self.grants.append(grant)
        return "token"


@dataclass
class Served:
    url: str
    mint: Mint
    http: aiohttp.ClientSession

    async def post(self, path: str, **body: object) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + path, json=body) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>Parley</title>")
    (tmp_path / "assets" / "index-1.js").write_text("1")
    monkeypatch.setattr(module, "STATIC", tmp_path)
    any_port = Listen(host="127.0.0.1", port=0)
    section = HttpSection(public=any_port, internal=any_port, ops=any_port)
    web = WebSection(invite_secret=SecretStr(SECRET))
    http, mint = Http(section), Mint()
    context = SimpleNamespace(
        config=SimpleNamespace(web=web, http=section),
        http=http,
        tokens=mint,
        directory=OneConference(),
    )
    create(cast(Context, context))
    async with http.serve(), aiohttp.ClientSession() as client:
        yield Served(f"http://127.0.0.1:{http.port(Listener.PUBLIC)}", mint, client)


def fresh(slug: str = "demo") -> str:
    return invite.mint(SECRET, slug, ttl_s=3_600, now_s=int(time.time()))


async def test_a_guest_gets_a_token_for_the_room_of_the_link(served: Served) -> None:
    assert await served.post("/api/invitation", invite=fresh()) == (200, {"title": "Weekly"})
    status, body = await served.post("/api/join", invite=fresh(), name="  Zoe  ")
    assert (status, body) == (
        200,
        {"url": "ws://localhost:1", "token": "token", "title": "Weekly"},
    )
    grant = served.mint.grants[0]
    assert (grant.room, grant.name, grant.origin) == ("room-alias", "Zoe", Network.WEB)
    assert len(grant.subject) > 32


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"invite": "nonsense", "name": "Zoe"}, "not valid"),
        ({"name": "Zoe"}, "not valid"),
        ({"invite": fresh(), "name": " "}, "name"),
        ({"invite": fresh("gone"), "name": "Zoe"}, "does not exist"),
    ],
)
async def test_a_refusal_is_a_sentence(served: Served, body: dict[str, str], sentence: str) -> None:
    status, answer = await served.post("/api/join", **body)
    assert status == 403
    assert sentence in answer["error"]
    assert not served.mint.grants


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b"\xff", b"x" * 100_000])
async def test_hostile_bodies_are_refused(served: Served, raw: bytes) -> None:
    async with served.http.post(f"{served.url}/api/join", data=raw) as answer:
        assert answer.status in (400, 403, 413)


async def test_the_page_is_strict_about_everything_foreign(served: Served) -> None:
    async with served.http.get(f"{served.url}/j/{fresh()}") as answer:
        assert answer.status == 200
        assert "<title>Parley" in await answer.text()
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_assets_are_served_and_nothing_beside_them(served: Served) -> None:
    async with served.http.get(f"{served.url}/page/assets/index-1.js") as answer:
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
    for path in ("/page/assets/..%2findex.html", "/page/assets/none.js", "/page/index.html"):
        async with served.http.get(aiohttp.client.URL(served.url + path, encoded=True)) as answer:
            assert answer.status == 404
