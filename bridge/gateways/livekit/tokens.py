"""Access tokens: minting ours and verifying everybody's (S20).

RFC 7519 and RFC 7515 as LiveKit uses them: HS256, `iss` names the API key. The algorithm belongs to the
key, never to the header; `iss` is only ever a dictionary key; nothing in the header leads anywhere.
Payloads are plain ASCII without `>`, `?` and `~`, because Element Call reads them with `atob`, which does
not know base64url's `-` and `_`.
Not here: what the claims mean (`grants`), who gets a token (`matrixrtc`, the web gateway).
"""

import base64
import binascii
import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from bridge.conference.errors import ConferenceError, Malformed, Refused
from bridge.conference.ids import Account, Network, Role
from bridge.config import LivekitSection
from bridge.gateway import Grant
from bridge.gateways.livekit.grants import (
    PRIVATE_CLAIM,
    Claims,
    VideoGrant,
    claim_of,
    private_claim_of,
    read_claims,
)

log = logging.getLogger(__name__)

ALGORITHM: Final = "HS256"
LEEWAY_S: Final = 10
MAX_LIFETIME_S: Final = 6 * 3600
MAX_TOKEN_CHARACTERS: Final = 16 * 1024
MIN_SECRET_BYTES: Final = 32
MAX_TIME_S: Final = 1 << 40  # far beyond any date, far below where arithmetic hurts
REFRESH_TTL_S: Final = 600  # LiveKit refreshes with 10 min so that reconnects work
OWN_KEY: Final = "parley"
_REFUSAL: Final = "The access token is not valid."

_JWS: Final = PyJWS(algorithms=[ALGORITHM])


@dataclass(frozen=True, slots=True)
class Key:
    """An API key. Tokens of the first one may carry our private claim."""

    name: str
    secret: str


def keys_of(settings: LivekitSection, state_dir: Path) -> tuple[Key, ...]:
    """The configured keys; without any, one of our own that outlives a restart (0600 in the state directory)."""
    keys = tuple(Key(k.key, k.secret.get_secret_value()) for k in settings.keys)
    return keys or (Key(OWN_KEY, _own_secret(state_dir / "livekit.secret")),)


def _own_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_urlsafe(48)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret)
        return secret


class AccessTokens:
    """Keeps `bridge.gateway.Tokens`. `now_s` is the wall clock: token times are calendar times."""

    def __init__(self, keys: Sequence[Key], url: str, now_s: Callable[[], float]) -> None:
        if not keys:
            raise ValueError("livekit.keys: at least one key is needed")
        for key in keys:
            if len(key.secret.encode()) < MIN_SECRET_BYTES:
                raise ValueError(f"livekit.keys: secret of {key.name!r} is under 32 bytes")
        self._secrets = {key.name: key.secret for key in keys}
        if len(self._secrets) != len(keys):
            raise ValueError("livekit.keys: two keys of one name")
        self._own = keys[0].name
        self._url = url
        self._now_s = now_s
        self._decoy = secrets.token_urlsafe(48)

    @property
    def url(self) -> str:
        return self._url

    def mint(self, grant: Grant) -> str:
        account = None if grant.origin is None else Account(grant.origin, grant.subject)
        role = Role.MODERATOR if grant.is_moderator else Role.GUEST
        video = VideoGrant(
            room=grant.room,
            room_admin=grant.is_moderator,
            can_publish=grant.can_publish,
            can_subscribe=grant.can_subscribe,
            can_publish_data=grant.can_publish_data,
            can_update_own_metadata=True,
        )
        claims = Claims(self._own, grant.subject, video, grant.name, account=account, role=role)
        return self.sign(claims, grant.ttl_s)

    def mint_matrix(self, *, room: str, identity: str, user_id: str, name: str, role: Role) -> str:
        """A token of the MatrixRTC authorization service (MSC4195; claims as its first implementation)."""
        video = VideoGrant(room=room, can_update_own_metadata=True)
        account = Account(Network.MATRIX, user_id)
        claims = Claims(self._own, identity, video, name, account=account, role=role)
        return self.sign(claims, 3600)

    def refresh(self, claims: Claims) -> str:
        """The same rights for a little longer, so that a client can reconnect."""
        return self.sign(claims, REFRESH_TTL_S)

    def sign(self, claims: Claims, ttl_s: int) -> str:
        now = int(self._now_s())
        payload: dict[str, object] = {
            "iss": claims.issuer,
            "sub": claims.subject,
            "nbf": now,
            "exp": now + min(max(1, ttl_s), MAX_LIFETIME_S),
            "video": claim_of(claims.video),
        }
        if claims.name:
            payload["name"] = claims.name
        if claims.metadata:
            payload["metadata"] = claims.metadata
        if claims.attributes:
            payload["attributes"] = dict(claims.attributes)
        if claims.account is not None:
            payload[PRIVATE_CLAIM] = private_claim_of(claims.account, claims.ranks_as)
        secret = self._secrets[claims.issuer]
        return _JWS.encode(_plain_json(payload), secret, algorithm=ALGORITHM)

    def verify(self, token: str) -> Claims:
        """The claims. Raises `Refused`, with one sentence for every fault of signature, time or shape."""
        try:
            return self._verify(token)
        except ConferenceError as why:
            log.info("token refused", extra={"why": str(why)})
            raise Refused(_REFUSAL) from why

    def _verify(self, token: str) -> Claims:
        if not token or len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Malformed("token length or alphabet")
        parts = token.split(".")
        if len(parts) != 3:
            raise Malformed("token has not three parts")
        header, payload = _object(parts[0]), _object(parts[1])
        if (
            header.get("alg") != ALGORITHM
            or "crit" in header
            or header.get("b64", True) is not True
        ):
            raise Malformed("token header")
        issuer = payload.get("iss")
        known = isinstance(issuer, str) and issuer in self._secrets
        # An unknown issuer costs the same time as a known one with a wrong signature.
        secret = self._secrets[str(issuer)] if known else self._decoy
        try:
            _JWS.decode_complete(token, secret, algorithms=[ALGORITHM])
        except PyJWTError as why:
            raise Malformed("signature") from why
        if not known:
            raise Malformed("issuer")
        self._check_times(payload)
        return read_claims(payload, trusts_private=issuer == self._own)

    def _check_times(self, payload: dict[str, object]) -> None:
        expires, begins = _time(payload, "exp"), _time(payload, "nbf")
        now = self._now_s()
        if now >= expires + LEEWAY_S:
            raise Malformed("expired")
        if now < begins - LEEWAY_S:
            raise Malformed("not valid yet")
        if not 0 < expires - begins <= MAX_LIFETIME_S + LEEWAY_S:
            raise Malformed("lifetime")
        if "iat" in payload and _time(payload, "iat") > now + LEEWAY_S:
            raise Malformed("issued in the future")


def _time(payload: dict[str, object], name: str) -> int:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TIME_S:
        raise Malformed(f"{name} is not a time")
    return value


def _object(part: str) -> dict[str, object]:
    """A JSON object of the token, read strictly: no claim twice, no NaN, no deep nesting."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        value = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (binascii.Error, ValueError, RecursionError) as why:
        raise Malformed("token part is not JSON") from why
    if not isinstance(value, dict):
        raise Malformed("token part is not an object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a claim twice")
    return found


def _no_constant(_: str) -> object:
    raise Malformed("NaN or Infinity")


def _plain_json(payload: dict[str, object]) -> bytes:
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=True)
    for character in ">?~\x7f":  # only inside strings: JSON's own syntax has none of them
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("ascii")
