"""Invitations: who holds the link may join one conference until it expires.

A JWT (RFC 7519, HS256) of its own audience; the 128-bit `jti` makes links unguessable and different (S21).
Pure: `now_s` is an argument.
Not here: the access token that the page gets for it (`Tokens.mint`).
"""

import secrets
from dataclasses import dataclass
from typing import Final

import jwt

from bridge.conference.errors import Refused

_AUDIENCE: Final = "parley:invite"
_MAX_BYTES: Final = 2_048  # an invitation is about 300 bytes


@dataclass(frozen=True, slots=True)
class Invite:
    """What a link says: the conference's slug, and until when (seconds since 1970)."""

    slug: str
    expires_s: int


def mint(secret: str, slug: str, *, ttl_s: int, now_s: int) -> str:
    """A link's token."""
    claims = {
        "aud": _AUDIENCE,
        "sub": slug,
        "exp": now_s + ttl_s,
        "jti": secrets.token_urlsafe(16),
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def read(secret: str, token: str, *, now_s: int) -> Invite:
    """Raises `Refused` with a sentence for the guest."""
    if len(token) > _MAX_BYTES:
        raise Refused("This invitation is not valid.")
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=_AUDIENCE,
            options={"require": ["exp", "sub", "aud", "jti"], "verify_exp": False},
        )
    except jwt.PyJWTError as why:
        raise Refused("This invitation is not valid.") from why
    expires, slug = claims["exp"], claims["sub"]
    if not isinstance(expires, int) or not isinstance(slug, str):
        raise Refused("This invitation is not valid.")
    if expires <= now_s:
        raise Refused("This invitation has expired. Ask for a new link.")
    return Invite(slug, expires)


def link(public_url: str, token: str) -> str:
    """What is sent to a guest."""
    return f"{public_url.rstrip('/')}/j/{token}"
