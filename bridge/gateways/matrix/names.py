"""Spelling of Matrix identifiers, ghosts' ids and display names.

Matrix appendices "Identifier grammar" (v1.15): user ids, localparts, server names. MSC4195: room alias.
The ghost's localpart is an injective escape of network and address, so two accounts never share a ghost
(S37, S38). Pure.
Not here: registering ghosts (`ghosts`), reading events (`wire`).
"""

import base64
import hashlib
import ipaddress
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, Identity, LegId, Network

MAX_ID_BYTES: Final = 255  # user, room and event ids; also type and state_key
MAX_GHOST_BYTES: Final = 200  # leaves room for `_..._DEVICE_m.call` in a state key of 255 bytes
MAX_NAME_CHARS: Final = 100  # longer display names break every client's layout
MAX_MARKS: Final = 3  # combining marks in a row (S38); more is decoration
SLOT: Final = "m.call#ROOM"

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789.-_")
# Historical localparts may hold any printable ASCII but the colon; new ones are narrower.
_USER: Final = re.compile(r"@([\x21-\x39\x3b-\x7e]+):([A-Za-z0-9.\-:\[\]]+)", re.ASCII)
_HOST: Final = re.compile(
    r"(?=.{1,253}(?:\Z))(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\.?",
    re.ASCII | re.IGNORECASE,
)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ServerName:
    """A homeserver's name, taken apart. `host` keeps the brackets of an IPv6 literal."""

    host: str
    port: int | None
    is_literal: bool

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def parse_server_name(text: str) -> ServerName:
    """`host`, `host:port`, IPv4 or [IPv6]; nothing else: no user info, path, percent sign or Unicode."""
    if not text or len(text) > MAX_ID_BYTES or not text.isascii():
        raise Malformed(f"server name of {len(text)} characters")
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
        if not bracket or (rest and not rest.startswith(":")):
            raise Malformed("server name: unclosed bracket")
        port_text = rest[1:] if rest else None
        literal = host[1:-1]
        if "%" in literal:
            raise Malformed("server name: zone in an address")
    else:
        host, colon, tail = text.partition(":")
        port_text = tail if colon else None
        literal = host
    port = _port(port_text)
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        if host.startswith("[") or not _HOST.fullmatch(host):
            raise Malformed("server name: neither host nor address") from None
        # COMPAT: URL parsers read `127.1` or `0x7f000001` as an address (WHATWG); no such host name exists.
        last = host.rstrip(".").rsplit(".", 1)[-1]
        if last.isdigit() or last.lower().startswith("0x"):
            raise Malformed("server name: number where a name should be") from None
        return ServerName(host, port, is_literal=False)
    if (address.version == 6) != host.startswith("["):
        raise Malformed("server name: IPv6 without brackets")
    return ServerName(host, port, is_literal=True)


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not _PORT.fullmatch(text) or not 0 < int(text) <= 65535:
        raise Malformed("server name: port")
    return int(text)


def parse_user_id(text: object) -> tuple[str, str]:
    """(localpart, server name) of a Matrix user id."""
    if not isinstance(text, str) or len(text) > MAX_ID_BYTES:
        raise Malformed("user id: not a short string")
    found = _USER.fullmatch(text)
    if found is None:
        raise Malformed("user id: wrong form")
    parse_server_name(found[2])
    return found[1], found[2]


def is_user_id(text: object) -> bool:
    try:
        parse_user_id(text)
    except Malformed:
        return False
    return True


def parse_room_id(text: object) -> str:
    """A room id; since room version 12 it has no server part."""
    if not isinstance(text, str) or not text.startswith("!") or not 1 < len(text) <= MAX_ID_BYTES:
        raise Malformed("room id: wrong form")
    if not text.isprintable() or " " in text:
        raise Malformed("room id: unprintable")
    return text


def escape_localpart(text: str) -> str:
    """Lower-case letters, digits and `.-_` stay; every other byte becomes `=xx`. Injective."""
    return "".join(chr(b) if b in _PLAIN else f"={b:02x}" for b in text.encode())


def unescape_localpart(text: str) -> str:
    """The inverse of `escape_localpart`."""
    parts = text.split("=")
    try:
        raw = parts[0].encode("ascii") + b"".join(
            bytes.fromhex(part[:2]) + part[2:].encode("ascii") for part in parts[1:]
        )
        plain = raw.decode()
    except (ValueError, UnicodeError):
        raise Malformed("localpart: wrong escape") from None
    if escape_localpart(plain) != text:
        raise Malformed("localpart: not our spelling")
    return plain


@dataclass(frozen=True, slots=True)
class Namespace:
    """The user ids that are ours."""

    server_name: str
    ghost_prefix: str
    bot: str

    @property
    def bot_mxid(self) -> str:
        return f"@{self.bot}:{self.server_name}"

    def owns(self, mxid: str) -> bool:
        """Bot or ghost: our own voice, never to be read back (S33)."""
        return mxid == self.bot_mxid or self.is_ghost(mxid)

    def is_ghost(self, mxid: str) -> bool:
        return mxid.startswith(f"@{self.ghost_prefix}") and mxid.endswith(f":{self.server_name}")

    def ghost(self, account: Account) -> str:
        """`@{prefix}{network}_{escaped address}:{server}`; an address too long for that is hashed.

        `=h` cannot come out of the escape (it is not hexadecimal), so hashed and plain never meet.
        """
        head = f"@{self.ghost_prefix}{account.network.value}_"
        tail = f":{self.server_name}"
        body = escape_localpart(account.address)
        if len(head) + len(body) + len(tail) > MAX_GHOST_BYTES:
            body = "=h" + hashlib.sha256(account.address.encode()).hexdigest()
        return head + body + tail

    def account(self, mxid: str) -> Account | None:
        """Whose ghost this is, as far as the id alone tells (not for hashed addresses)."""
        if not self.is_ghost(mxid):
            return None
        body = mxid[len(self.ghost_prefix) + 1 : -len(self.server_name) - 1]
        network, _, escaped = body.partition("_")
        try:
            return Account(Network(network), unescape_localpart(escaped))
        except (ValueError, Malformed):
            return None

    def identity(self, account: Account, leg: LegId) -> Identity:
        """MatrixRTC's name of a leg: `@user:server:DEVICE` (MSC4195, legacy form).

        A guest's id and a token's subject stand for one device: joining again replaces the older leg, as
        LiveKit clients expect. Other people may call with several devices at once.
        """
        owner = account.address if account.network is Network.MATRIX else self.ghost(account)
        is_one_device = account.network in (Network.WEB, Network.TOKEN)
        return Identity(f"{owner}:{device_of(str(account) if is_one_device else leg)}")

    def device(self, account: Account, identity: Identity) -> str | None:
        """The device in the identity of a ghost's leg; None when the identity is not the ghost's."""
        head = f"{self.ghost(account)}:"
        return identity.removeprefix(head) if identity.startswith(head) else None


def device_of(seed: str) -> str:
    """A device id from a leg's or an account's name. 60 bits: a clash needs a billion legs of one person."""
    digest = hashlib.sha256(seed.encode()).digest()
    return "P" + base64.b32encode(digest)[:12].decode()


def room_alias(room_id: str, slot: str = SLOT) -> str:
    """LiveKit room name of a Matrix room's call: hash of room and slot (MSC4195)."""
    text = json.dumps([room_id, slot], separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def clean_name(text: str) -> str:
    """A display name fit to be shown: NFKC, no control, bidi or zero-width characters, capped (S38)."""
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFKC", text[: 4 * MAX_NAME_CHARS]):
        category = unicodedata.category(char)
        if category in ("Zs", "Zl", "Zp") or char in "\t\n\r":
            char = " "
        elif category[0] == "C":  # controls, formats (bidi, zero width), surrogates, private use
            continue
        marks = marks + 1 if category[0] == "M" else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return " ".join("".join(kept).split())[:MAX_NAME_CHARS].strip()


def skeleton(name: str) -> str:
    """What two names share when a hurried reader takes one for the other (a small part of UTS 39)."""
    folded = unicodedata.normalize("NFKD", clean_name(name).casefold())
    plain = "".join(char for char in folded if unicodedata.category(char)[0] != "M")
    return plain.translate(_CONFUSABLE).replace(" ", "")


# The letters that Latin, Greek and Cyrillic share by shape: what name theft is made of in practice.
_CONFUSABLE: Final = str.maketrans(
    {
        "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "һ": "h", "і": "i", "ј": "j", "к": "k",
        "ӏ": "l", "м": "m", "о": "o", "р": "p", "ԛ": "q", "ѕ": "s", "т": "t", "ѵ": "v", "ԝ": "w",
        "х": "x", "у": "y", "α": "a", "β": "b", "ε": "e", "ι": "i", "κ": "k", "ν": "v", "ο": "o",
        "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "0": "o", "1": "l", "|": "l",
    }
)  # fmt: skip
