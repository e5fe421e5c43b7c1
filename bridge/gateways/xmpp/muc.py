"""What a chat room says: presence, lines, archived lines -> values (pure).

XEP-0045 (sections 7 and 9: presence, status codes, groupchat), XEP-0359 (stanza-id, origin-id), XEP-0421
(occupant-id), XEP-0203 (delay), XEP-0313 with XEP-0059 (archive pages).
S37: an occupant is known by real JID or occupant-id, never by nickname; where a service shows neither, he
is known for the length of one visit.
Not here: joining and catching up (`rooms`), speaking for others (`puppets`).
"""

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, Network, Role
from bridge.gateways.xmpp import stanza as st

MUC: Final = "http://jabber.org/protocol/muc"
MUC_USER: Final = "http://jabber.org/protocol/muc#user"
MUC_OWNER: Final = "http://jabber.org/protocol/muc#owner"
OCCUPANT_ID: Final = "urn:xmpp:occupant-id:0"
STANZA_ID: Final = "urn:xmpp:sid:0"
DELAY: Final = "urn:xmpp:delay"
MAM: Final = "urn:xmpp:mam:2"
RSM: Final = "http://jabber.org/protocol/rsm"
FORWARD: Final = "urn:xmpp:forward:0"
REPLACE: Final = "urn:xmpp:message-correct:0"
DATA_FORM: Final = "jabber:x:data"

SELF: Final = 110
CREATED: Final = 201
NICK_CHANGED: Final = 303
MAX_BODY: Final = 16_384  # characters of one line
MAX_OCCUPANTS: Final = 10_000  # of one room
MAX_OCCUPANT_ID: Final = 128  # characters (XEP-0421 section 3)


@dataclass(frozen=True, slots=True)
class Occupant:
    """One person's presence in a room. `key` is the identity (S37)."""

    nick: str
    key: str
    real: str = ""  # bare JID, when we may see it
    device: str = ""  # the full one
    occupant_id: str = ""
    affiliation: str = "none"
    role: str = "none"

    @property
    def rank(self) -> Role:
        if self.affiliation == "owner":
            return Role.OWNER
        if self.affiliation == "admin" or self.role == "moderator":
            return Role.MODERATOR
        return Role.MEMBER


@dataclass(frozen=True, slots=True)
class Seen:
    """What one presence changed. `gone` and `here` are both set on a change of nickname or role."""

    here: Occupant | None
    gone: Occupant | None
    codes: frozenset[int]
    is_self: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A groupchat line as it was said. `source_id` is unique in the room; `archive_id` is the room's own id."""

    nick: str
    text: str
    is_emote: bool
    message_id: str
    archive_id: str
    occupant_id: str
    real: str
    at_ms: int
    is_correction: bool = False
    is_delayed: bool = False

    @property
    def source_id(self) -> str:
        return self.archive_id or f"{self.occupant_id or self.nick}:{self.message_id}"


@dataclass(slots=True)
class Roster:
    """Who is in one room, by nickname, with identities that survive nickname changes."""

    room: str
    by_nick: dict[str, Occupant] = field(default_factory=dict)

    def clear(self) -> None:
        self.by_nick.clear()

    def account(self, occupant: Occupant) -> Account:
        address = occupant.real or f"{self.room}/{occupant.key}"
        return Account(Network.XMPP, address)

    def by_real(self, bare: str) -> Occupant | None:
        """The highest-ranking presence of this account, if its real JID is visible."""
        found = [occupant for occupant in self.by_nick.values() if occupant.real == bare]
        return max(found, key=lambda occupant: occupant.rank, default=None)

    def apply(self, presence: Element) -> Seen | None:
        """Take one presence from `room/nick` in. None for what is not an occupant's. Raises `Malformed`."""
        nick = st.parse_jid(presence.get("from")).resource
        kind = presence.get("type", "")
        if not nick or kind not in ("", "unavailable"):
            return None
        user = presence.find(f"{{{MUC_USER}}}x")
        codes = _codes(user)
        before = self.by_nick.get(nick)
        if kind == "unavailable":
            self.by_nick.pop(nick, None)
            moved = self._renamed(before, user) if NICK_CHANGED in codes else None
            return Seen(moved, before, codes, SELF in codes)
        if before is None and len(self.by_nick) >= MAX_OCCUPANTS:
            raise Malformed(f"room of more than {MAX_OCCUPANTS}")
        occupant = _occupant(nick, presence, user)
        if before is not None and not occupant.real and not occupant.occupant_id:
            occupant = replace(occupant, key=before.key)
        self.by_nick[nick] = occupant
        return Seen(occupant, before, codes, SELF in codes)

    def _renamed(self, before: Occupant | None, user: Element | None) -> Occupant | None:
        item = None if user is None else user.find(f"{{{MUC_USER}}}item")
        nick = "" if item is None else item.get("nick", "")
        if before is None or not nick:
            return None
        moved = replace(before, nick=nick)
        self.by_nick[nick] = moved
        return moved


def _codes(user: Element | None) -> frozenset[int]:
    if user is None:
        return frozenset()
    texts = (status.get("code", "") for status in user.findall(f"{{{MUC_USER}}}status"))
    return frozenset(
        int(text) for text in texts if text.isascii() and text.isdecimal() and len(text) == 3
    )


def _occupant(nick: str, presence: Element, user: Element | None) -> Occupant:
    item = None if user is None else user.find(f"{{{MUC_USER}}}item")
    occupant_id = _occupant_id(presence)
    real = _real(item)
    return Occupant(
        nick=nick,
        key=occupant_id or real or f"visit-{secrets.token_hex(8)}",
        real=real,
        device="" if item is None else item.get("jid", ""),
        occupant_id=occupant_id,
        affiliation="none" if item is None else item.get("affiliation", "none"),
        role="none" if item is None else item.get("role", "none"),
    )


def _real(item: Element | None) -> str:
    text = None if item is None else item.get("jid")
    return st.bare_of(text) if text else ""


def _occupant_id(stanza: Element) -> str:
    node = stanza.find(f"{{{OCCUPANT_ID}}}occupant-id")
    value = "" if node is None else node.get("id", "")
    return value if len(value) <= MAX_OCCUPANT_ID else ""


def parse_line(message: Element, room: str, now_ms: int, archive_id: str = "") -> Line | None:
    """A line of text in `room`, live, replayed or archived. None for subjects, markers and the room's own words.

    Raises `Malformed`. `archive_id` is given for archived lines, whose wrapper carries it.
    """
    sender = st.parse_jid(message.get("from"))
    if sender.bare != room:
        raise Malformed("line from another room")
    body = message.findtext(st.BODY)
    if message.get("type") != "groupchat" or not sender.resource or not body:
        return None
    text = body[:MAX_BODY]
    is_emote = text.startswith("/me ")
    # Only an archive's wrapper vouches for this mark: in a live line the sender may have written it.
    user = message.find(f"{{{MUC_USER}}}x") if archive_id else None
    delay = message.find(f"{{{DELAY}}}delay")
    origin = message.find(f"{{{STANZA_ID}}}origin-id")
    return Line(
        nick=sender.resource,
        text=text[4:] if is_emote else text,
        is_emote=is_emote,
        message_id=(origin.get("id", "") if origin is not None else "")[: st.MAX_ID]
        or message.get("id", "")[: st.MAX_ID]
        or secrets.token_hex(8),
        archive_id=archive_id or _stanza_id(message, room),
        occupant_id=_occupant_id(message),
        real=_real(None if user is None else user.find(f"{{{MUC_USER}}}item")),
        at_ms=now_ms if delay is None else stamp_ms(delay.get("stamp", ""), now_ms),
        is_correction=message.find(f"{{{REPLACE}}}replace") is not None,
        is_delayed=delay is not None,
    )


def _stanza_id(message: Element, room: str) -> str:
    """Only the room's own mark counts (XEP-0359 section 5): a sender could add others."""
    for node in message.findall(f"{{{STANZA_ID}}}stanza-id"):
        if node.get("by", "").lower() == room:
            return node.get("id", "")[: st.MAX_ID]
    return ""


def stamp_ms(stamp: str, default_ms: int) -> int:
    """XEP-0082 date-time -> milliseconds since the epoch."""
    try:
        at = datetime.fromisoformat(stamp.replace("Z", "+00:00")[:40])
    except ValueError:
        return default_ms
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def stamp_of(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def account_of(line: Line, room: str, present: Occupant | None) -> Account:
    """Who said it. An archived line of somebody unknown and gone gets an identity of its own (S37)."""
    if line.real:
        return Account(Network.XMPP, line.real)
    if present is not None and (present.occupant_id == line.occupant_id or not line.occupant_id):
        return Account(Network.XMPP, present.real or f"{room}/{present.key}")
    digest = hashlib.sha256(line.nick.encode("utf-8", "replace")).hexdigest()[:16]
    return Account(Network.XMPP, f"{room}/{line.occupant_id or 'past-' + digest}")


# --- archive (XEP-0313) -------------------------------------------------------------------------------


def archive_query(
    to: str,
    sender: str,
    query_id: str,
    *,
    after: str = "",
    since_ms: int = 0,
    page: int,
    last: bool = False,
) -> Element:
    """One page, oldest first; `last` = the newest page of the archive."""
    iq = st.iq(to, sender, "set", "")
    query = st.add(iq, MAM, "query", queryid=query_id)
    if since_ms:
        form = st.add(query, DATA_FORM, "x", type="submit")
        for name, value in (("FORM_TYPE", MAM), ("start", stamp_of(since_ms))):
            st.add(st.add(form, DATA_FORM, "field", var=name), DATA_FORM, "value", value)
    rsm = st.add(query, RSM, "set")
    st.add(rsm, RSM, "max", str(page))
    if after:
        st.add(rsm, RSM, "after", after)
    elif last:
        st.add(rsm, RSM, "before")
    return iq


@dataclass(frozen=True, slots=True)
class Page:
    """The end of one archive page."""

    is_complete: bool
    last: str


def parse_page(answer: Element) -> Page:
    fin = answer.find(f"{{{MAM}}}fin")
    if fin is None:
        raise Malformed("archive answer without fin")
    return Page(fin.get("complete") == "true", fin.findtext(f"{{{RSM}}}set/{{{RSM}}}last") or "")


def archived(message: Element) -> tuple[str, str, Element, str] | None:
    """(query id, archive id, the line, its stamp) of an archive result, None for other messages."""
    result = message.find(f"{{{MAM}}}result")
    forwarded = None if result is None else result.find(f"{{{FORWARD}}}forwarded")
    inner = None if forwarded is None else forwarded.find(st.MESSAGE)
    if result is None or forwarded is None or inner is None:
        return None
    delay = forwarded.find(f"{{{DELAY}}}delay")
    stamp = "" if delay is None else delay.get("stamp", "")
    return result.get("queryid", ""), result.get("id", "")[: st.MAX_ID], inner, stamp
