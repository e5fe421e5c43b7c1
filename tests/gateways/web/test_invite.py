"""Invitations: accepted until they expire, refused when anything else is off."""

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.conference.errors import Refused
from bridge.gateways.web import invite

SECRET = "s" * 32


def test_a_fresh_link_names_its_conference() -> None:
    token = invite.mint(SECRET, "demo", ttl_s=60, now_s=1_000)
    assert invite.read(SECRET, token, now_s=1_059) == invite.Invite("demo", 1_060)
    assert invite.link("http://h/", token) == f"http://h/j/{token}"


def test_two_links_differ() -> None:
    first, second = (invite.mint(SECRET, "demo", ttl_s=60, now_s=1) for _ in range(2))
    assert first != second


def test_an_old_link_says_so() -> None:
    token = invite.mint(SECRET, "demo", ttl_s=60, now_s=1_000)
    with pytest.raises(Refused, match="expired"):
        invite.read(SECRET, token, now_s=1_060)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "demo", "exp": 9e9, "jti": "x"},
        {"aud": "parley:invite", "sub": "demo", "jti": "x"},
        {"aud": "parley:invite", "sub": 5, "exp": 10**10, "jti": "x"},
        {"aud": "other", "sub": "demo", "exp": 10**10, "jti": "x"},
    ],
)
def test_hostile_claims_are_refused(claims: dict[str, object]) -> None:
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    with pytest.raises(Refused):
        invite.read(SECRET, token, now_s=1)


def test_another_secret_or_algorithm_is_refused() -> None:
    token = invite.mint("t" * 32, "demo", ttl_s=60, now_s=1_000)
    with pytest.raises(Refused):
        invite.read(SECRET, token, now_s=1_000)
    unsigned = jwt.encode(
        {"aud": "parley:invite", "sub": "demo", "exp": 10**10, "jti": "x"}, "", algorithm="none"
    )
    with pytest.raises(Refused):
        invite.read(SECRET, unsigned, now_s=1_000)


@given(st.text(max_size=3_000))
def test_property_any_text_is_refused_or_read(token: str) -> None:
    with pytest.raises(Refused):
        invite.read(SECRET, token, now_s=1)
