"""Core values <-> versioned JSON text.

ASCII only, so that NUL and lone surrogates stay escaped and every database takes the text. A reader accepts
unknown fields (an older parley may read a newer row after a downgrade) and fills in absent ones.
Not here: which column holds what (`tables`).
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from bridge.conference.ids import Place

T = TypeVar("T")

VERSION: Final = 1
_MAX_ID: Final = 512  # characters; Matrix event ids end at 255, stanza ids are ours to bound
_BASE32: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing to mix up


class Unreadable(ValueError):
    """A row that this version cannot read: written by a much newer parley, or damaged."""


def to_text(value: object) -> str:
    """A core value (frozen dataclass) as `{"v": 1, "value": ...}`."""
    return dumps({"v": VERSION, "value": msgspec.to_builtins(value)})


def from_text(text: str, kind: type[T]) -> T:
    """The inverse of `to_text`. Raises `Unreadable`."""
    try:
        outer = json.loads(text)
        if outer["v"] != VERSION:
            raise Unreadable(
                f"{kind.__name__} of version {outer['v']}, this parley reads {VERSION}"
            )
        return msgspec.convert(outer["value"], kind)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as why:
        raise Unreadable(f"{kind.__name__}: {why}") from why


def dumps(value: object) -> str:
    """JSON in ASCII. Raises ValueError, TypeError or RecursionError for what JSON cannot say."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def loads(text: str) -> Mapping[str, object]:
    """The inverse of `dumps` for an object. Raises `Unreadable`."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise Unreadable(f"expected a JSON object, got {type(value).__name__}")
    return value


def bounded_id(source_id: str) -> str:
    """A peer's id as a key column can hold it: long or unprintable ones become their hash, others stay."""
    if len(source_id) <= _MAX_ID and source_id.isprintable():
        return source_id
    # "surrogatepass": a peer's JSON may hold half a surrogate pair.
    return "sha256:" + hashlib.sha256(source_id.encode("utf-8", "surrogatepass")).hexdigest()


def outbox_key(source: str, source_id: str, place: Place) -> str:
    """The same line to the same place always has this key: Matrix transaction id, XMPP origin-id."""
    parts = dumps([source, source_id, place.network.value, place.address])
    return hashlib.sha256(parts.encode("ascii")).hexdigest()[:40]  # 160 bits: no accidental clash


def random_name(characters: int) -> str:
    """5 random bits per character, lower case, fit for an XMPP localpart and a URL."""
    return "".join(secrets.choice(_BASE32) for _ in range(characters))
