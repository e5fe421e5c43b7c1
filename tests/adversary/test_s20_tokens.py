"""S20: hostile access tokens. The algorithm belongs to the key, times are numbers, `iss` leads nowhere.

Every row is refused with the same sentence; good tokens of both keys, and one of a LiveKit back end, pass.
"""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from bridge.conference.errors import Refused
from bridge.conference.ids import Account, Network, Role
from bridge.config import ApiKey, LivekitSection
from bridge.gateway import Grant
from bridge.gateways.livekit.tokens import AccessTokens, Key, keys_of

OURS, THEIRS = Key("ours", "o" * 40), Key("theirs", "t" * 40)
NOW = 1_800_000_000.0


def _tokens(now: float = NOW) -> AccessTokens:
    return AccessTokens((OURS, THEIRS), "ws://x.test", lambda: now)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _payload(**change: Any) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "iss": "ours",
        "sub": "alice",
        "nbf": int(NOW),
        "exp": int(NOW) + 600,
        "video": {"roomJoin": True, "room": "r"},
    }
    payload.update(change)
    return {key: value for key, value in payload.items() if value is not ...}


def _sign(
    payload: object, header: object = None, secret: str = OURS.secret, hash_: str = "sha256"
) -> str:
    head = header if header is not None else {"alg": "HS256", "typ": "JWT"}
    first = head if isinstance(head, bytes) else json.dumps(head).encode()
    second = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    text = f"{_b64(first)}.{_b64(second)}"
    mac = hmac.new(secret.encode(), text.encode(), hash_).digest()
    return f"{text}.{_b64(mac)}"


def _raw(text: str) -> bytes:
    return text.encode()


def _good_text() -> str:
    return json.dumps(_payload())


HOSTILE: dict[str, str] = {
    "empty": "",
    "one part": "abc",
    "four parts": _sign(_payload()) + ".x",
    "not base64": "!!.??.--",
    "header no JSON": _sign(_payload(), b"{"),
    "header a list": _sign(_payload(), b"[]"),
    "payload a list": _sign(b"[]"),
    "payload a number": _sign(b"1"),
    "nested payload": _sign(b"[" * 4000),
    "alg none": f"{_b64(json.dumps({'alg': 'none'}).encode())}.{_b64(json.dumps(_payload()).encode())}.",
    "alg None": _sign(_payload(), {"alg": "None"}),
    "alg missing": _sign(_payload(), {"typ": "JWT"}),
    "alg HS384": _sign(_payload(), {"alg": "HS384"}, hash_="sha384"),
    "alg HS512": _sign(_payload(), {"alg": "HS512"}, hash_="sha512"),
    "alg RS256": _sign(_payload(), {"alg": "RS256"}),
    "alg ES256": _sign(_payload(), {"alg": "ES256"}),
    "alg a list": _sign(_payload(), {"alg": ["HS256"]}),
    "alg twice": _sign(_payload(), b'{"alg":"none","alg":"HS256"}'),
    "crit": _sign(_payload(), {"alg": "HS256", "crit": ["exp"]}),
    "b64 false": _sign(_payload(), {"alg": "HS256", "b64": False}),
    "no signature": _sign(_payload()).rsplit(".", 1)[0] + ".",
    "signature of another payload": ".".join(
        [*_sign(_payload(sub="mallory")).split(".")[:2], _sign(_payload()).split(".")[2]]
    ),
    "signature cut": _sign(_payload())[:-4],
    "signed with an empty secret": _sign(_payload(), secret=""),
    "signed with the key's name": _sign(_payload(), secret="ours"),
    "other key's iss": _sign(_payload(iss="theirs")),
    "unknown iss": _sign(_payload(iss="nobody")),
    "iss a path": _sign(_payload(iss="../../../dev/null"), secret=""),
    "iss a URL": _sign(_payload(iss="https://evil.test/key")),
    "iss SQL": _sign(_payload(iss="' OR 1=1 --")),
    "iss missing": _sign(_payload(iss=...)),
    "iss a list": _sign(_payload(iss=["ours"])),
    "iss null": _sign(_payload(iss=None)),
    "iss with a space": _sign(_payload(iss="ours ")),
    "sub missing": _sign(_payload(sub=...)),
    "sub empty": _sign(_payload(sub="")),
    "sub a number": _sign(_payload(sub=7)),
    "sub too long": _sign(_payload(sub="s" * 600)),
    "sub with NUL": _sign(_payload(sub="a\x00b")),
    "video missing": _sign(_payload(video=...)),
    "video a string": _sign(_payload(video="all")),
    "roomJoin a string": _sign(_payload(video={"roomJoin": "yes", "room": "r"})),
    "room a list": _sign(_payload(video={"roomJoin": True, "room": ["r"]})),
    "exp missing": _sign(_payload(exp=...)),
    "exp a string": _sign(_payload(exp=str(int(NOW) + 600))),
    "exp a float": _sign(_payload(exp=NOW + 600.5)),
    "exp NaN": _sign(_raw(_good_text().replace(str(int(NOW) + 600), "NaN"))),
    "exp Infinity": _sign(_raw(_good_text().replace(str(int(NOW) + 600), "Infinity"))),
    "exp 1e400": _sign(_raw(_good_text().replace(str(int(NOW) + 600), "1e400"))),
    "exp huge": _sign(_payload(exp=10**30)),
    "exp of 5,000 digits": _sign(_raw(_good_text().replace(str(int(NOW) + 600), "9" * 5000))),
    "exp true": _sign(_payload(exp=True)),
    "exp negative": _sign(_payload(exp=-1)),
    "exp null": _sign(_payload(exp=None)),
    "expired by leeway + 1": _sign(_payload(nbf=int(NOW) - 600, exp=int(NOW) - 11)),
    "nbf missing": _sign(_payload(nbf=...)),
    "nbf in leeway + 1": _sign(_payload(nbf=int(NOW) + 11, exp=int(NOW) + 600)),
    "nbf after exp": _sign(_payload(nbf=int(NOW) + 5, exp=int(NOW) + 5)),
    "iat in the future": _sign(_payload(iat=int(NOW) + 60)),
    "lives 7 hours": _sign(_payload(exp=int(NOW) + 7 * 3600)),
    "lives since long": _sign(_payload(nbf=int(NOW) - 7 * 3600)),
    "claim twice": _sign(_raw(_good_text().replace('"sub": "alice"', '"sub": "bob", "sub": "alice"'))),
    "nested claim twice": _sign(
        _raw(_good_text().replace('"room": "r"', '"room": "x", "room": "r"'))
    ),
    "parley role as boolean": _sign(
        _payload(parley={"network": "matrix", "address": "@a:b", "role": True})
    ),
    "parley network unknown": _sign(
        _payload(parley={"network": "irc", "address": "a", "role": 0})
    ),
    "20,000 characters": _sign(_payload(metadata="m" * 20_000)),
    "outside ASCII": _sign(_payload()) + "é",
}  # fmt: skip


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_token_is_refused_with_one_sentence(trick: str) -> None:
    began = time.perf_counter()
    with pytest.raises(Refused) as why:
        _tokens().verify(HOSTILE[trick])
    assert str(why.value) == "The access token is not valid."
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        {"alg": "HS256", "kid": "../../../dev/null"},
        {"alg": "HS256", "kid": "theirs"},
        {"alg": "HS256", "jku": "https://evil.test/jwks", "x5u": "file:///etc/passwd"},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": _b64(b"evil" * 10)}},
    ],
)
def test_headers_that_point_somewhere_lead_nowhere(header: dict[str, Any]) -> None:
    """The signature counts, by the key that `iss` names; with the evil key it is refused."""
    assert _tokens().verify(_sign(_payload(), header)).subject == "alice"
    with pytest.raises(Refused):
        _tokens().verify(_sign(_payload(), header, secret="evil" * 10))


def test_times_at_the_edge_of_the_leeway() -> None:
    tokens = _tokens()
    assert tokens.verify(_sign(_payload(nbf=int(NOW) - 600, exp=int(NOW) - 9))).subject
    assert tokens.verify(_sign(_payload(nbf=int(NOW) + 10, exp=int(NOW) + 600))).subject
    assert tokens.verify(_sign(_payload(exp=int(NOW) + 6 * 3600))).subject


def test_a_token_of_a_livekit_back_end_is_good() -> None:
    token = (
        api.AccessToken(THEIRS.name, THEIRS.secret)
        .with_identity("bob")
        .with_name("Bob")
        .with_metadata("m")
        .with_attributes({"k": "v"})
        .with_grants(api.VideoGrants(room_join=True, room="r", can_publish=False))
        .to_jwt()
    )
    claims = _tokens(time.time()).verify(token)
    assert (claims.subject, claims.name, claims.metadata) == ("bob", "Bob", "m")
    assert claims.attributes == (("k", "v"),)
    assert (claims.video.room, claims.video.can_publish, claims.video.can_subscribe) == (
        "r",
        False,
        True,
    )
    assert claims.acts_as == Account(Network.TOKEN, "bob")
    assert claims.ranks_as is Role.GUEST


def test_only_our_own_key_may_say_who_somebody_is() -> None:
    claim = {"network": "matrix", "address": "@admin:hs.test", "role": 3}
    ours = _tokens().verify(_sign(_payload(parley=claim)))
    assert (ours.acts_as, ours.ranks_as) == (Account(Network.MATRIX, "@admin:hs.test"), Role.OWNER)
    theirs = _tokens().verify(_sign(_payload(iss="theirs", parley=claim), secret=THEIRS.secret))
    assert (theirs.acts_as, theirs.ranks_as) == (Account(Network.TOKEN, "alice"), Role.GUEST)


def test_what_we_mint_we_verify_and_browsers_read_with_atob() -> None:
    tokens = _tokens()
    for name in ("Who? ~ > \x7f", "Zoë 🙂", '"\\', "a" * 512):
        token = tokens.mint(Grant("room", "sub", name, Network.WEB, is_moderator=True, ttl_s=10**6))
        middle = token.split(".")[1]
        assert not set("-_") & set(middle)
        payload = json.loads(base64.b64decode(middle + "=" * (-len(middle) % 4), validate=True))
        assert payload["exp"] - payload["nbf"] == 6 * 3600  # the cap, whatever was asked
        claims = tokens.verify(token)
        assert (claims.name, claims.acts_as) == (name, Account(Network.WEB, "sub"))
        assert claims.ranks_as is Role.MODERATOR


def test_a_refreshed_token_grants_the_same() -> None:
    tokens = _tokens()
    first = tokens.verify(_sign(_payload(video={"roomJoin": True, "room": "r", "hidden": True})))
    assert tokens.verify(tokens.refresh(first)) == first


def test_bad_keys_refuse_to_start() -> None:
    for keys in ((), (Key("a", "short"),), (OURS, OURS)):
        with pytest.raises(ValueError, match=r"livekit\.keys"):
            AccessTokens(keys, "ws://x.test", time.time)


def test_without_configured_keys_our_own_outlives_a_restart(tmp_path: Path) -> None:
    first = keys_of(LivekitSection(), tmp_path)
    assert first == keys_of(LivekitSection(), tmp_path)
    assert len(first[0].secret) >= 32
    assert (tmp_path / "livekit.secret").stat().st_mode & 0o777 == 0o600
    configured = LivekitSection(keys=(ApiKey(key="k", secret="s" * 40),))
    assert keys_of(configured, tmp_path) == (Key("k", "s" * 40),)


def test_hashes_are_really_compared() -> None:
    """The table above would also pass if everything were refused."""
    good = _sign(_payload())
    assert _tokens().verify(good).video.room == "r"
    mac = hmac.new(OURS.secret.encode(), good.rsplit(".", 1)[0].encode(), hashlib.sha256)
    assert good.endswith(_b64(mac.digest()))
