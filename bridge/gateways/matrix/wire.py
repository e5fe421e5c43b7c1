"""Raw Matrix JSON -> values. Client-server API v1.15: room events, m.room.message, m.room.member.

Parsed from raw JSON, not through typed event classes: a strict class drops a lenient client's event
without a word. Only `sender` says who spoke; content fields never do (S32). Pure.
Not here: what the values lead to (`inbound`), their arrival (`intake`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridge.conference.errors import Malformed
from bridge.gateways.matrix.names import MAX_ID_BYTES, parse_room_id, parse_user_id

CALL_MEMBER: Final = "org.matrix.msc3401.call.member"
MAX_BODY_CHARS: Final = 32_768  # an event is <= 65,536 bytes by the specification
MAX_MENTIONS: Final = 50
MAX_REASON_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Message:
    """m.room.message of type m.text or m.emote, without a reply's fallback.

    `is_notice`: from a bot, never answered. `is_edit`, `is_reply`: never executed as a command (S33).
    """

    room: str
    event_id: str
    sender: str
    at_ms: int
    text: str
    is_emote: bool = False
    is_notice: bool = False
    is_edit: bool = False
    is_reply: bool = False
    mentions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """m.room.member: `user` is now invite, join, leave, ban or knock, because of `sender`."""

    room: str
    event_id: str
    sender: str
    user: str
    membership: str
    name: str = ""
    avatar: str = ""


@dataclass(frozen=True, slots=True)
class CallMember:
    """A MatrixRTC membership in state form. `is_leave`: empty content."""

    room: str
    event_id: str
    sender: str
    state_key: str
    is_leave: bool


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """State that roles and names depend on (power levels, create) has a new value."""

    room: str
    event_id: str
    sender: str
    kind: str


@dataclass(frozen=True, slots=True)
class Other:
    """Well formed and nothing to us."""

    event_id: str


Incoming = Message | Member | CallMember | RoomChanged | Other
_MEMBERSHIPS: Final = frozenset({"invite", "join", "leave", "ban", "knock"})
_TEXT_TYPES: Final = frozenset({"m.text", "m.emote", "m.notice"})
_ROOM_STATE: Final = frozenset({"m.room.power_levels", "m.room.create"})


def event_id_of(event: object) -> str:
    """The id of a raw event: the key of exactly-once."""
    if not isinstance(event, Mapping):
        raise Malformed("event: not an object")
    event_id = event.get("event_id")
    if not isinstance(event_id, str) or not 1 < len(event_id) <= MAX_ID_BYTES or event_id[0] != "$":
        raise Malformed("event: no event_id")
    return event_id


def parse_event(event: object) -> Incoming:
    """What an event means. Raises `Malformed` for what no homeserver sends."""
    event_id = event_id_of(event)
    assert isinstance(event, Mapping)
    kind = event.get("type")
    if not isinstance(kind, str):
        raise Malformed("event: no type")
    if kind not in ("m.room.message", "m.room.member", CALL_MEMBER) and kind not in _ROOM_STATE:
        return Other(event_id)
    room = parse_room_id(event.get("room_id"))
    sender = event.get("sender")
    parse_user_id(sender)
    assert isinstance(sender, str)
    content = event.get("content")
    if not isinstance(content, Mapping):
        raise Malformed("event: no content")
    if kind == "m.room.message":
        return _message(event, room, event_id, sender, content)
    state_key = event.get("state_key")
    if not isinstance(state_key, str) or len(state_key.encode()) > MAX_ID_BYTES:
        raise Malformed("state event: state_key")
    if kind == "m.room.member":
        return _member(room, event_id, sender, state_key, content)
    if kind == CALL_MEMBER:
        if not owns_state_key(sender, state_key):
            raise Malformed("call membership: state key of somebody else")  # S32
        return CallMember(room, event_id, sender, state_key, is_leave=not content)
    return RoomChanged(room, event_id, sender, kind)


def owns_state_key(sender: str, state_key: str) -> bool:
    """The state key is the sender's id, or begins with it (MSC3757, MSC3779; with `_` in other rooms)."""
    owned = state_key.removeprefix("_")
    return owned == sender or owned.startswith(f"{sender}_")


def _member(
    room: str, event_id: str, sender: str, user: str, content: Mapping[str, object]
) -> Member:
    parse_user_id(user)
    membership = content.get("membership")
    if membership not in _MEMBERSHIPS:
        raise Malformed("membership: unknown value")
    assert isinstance(membership, str)
    return Member(
        room,
        event_id,
        sender,
        user,
        membership,
        name=_text(content.get("displayname")),
        avatar=mxc(content.get("avatar_url")),
    )


def _message(
    event: Mapping[str, object],
    room: str,
    event_id: str,
    sender: str,
    content: Mapping[str, object],
) -> Message | Other:
    kind = content.get("msgtype")
    if kind is None and not content:
        return Other(event_id)  # redacted before it came
    if not isinstance(kind, str):
        raise Malformed("message: no msgtype")
    if kind not in _TEXT_TYPES:
        return Other(event_id)
    body = content.get("body")
    if not isinstance(body, str):
        raise Malformed("message: no body")
    if len(body) > MAX_BODY_CHARS:
        raise Malformed(f"message: body of {len(body)} characters")
    relation = content.get("m.relates_to")
    relation = relation if isinstance(relation, Mapping) else {}
    is_reply = isinstance(relation.get("m.in_reply_to"), Mapping)
    at_ms = event.get("origin_server_ts")
    return Message(
        room,
        event_id,
        sender,
        at_ms if isinstance(at_ms, int) and 0 <= at_ms < 1 << 53 else 0,
        strip_reply_fallback(body) if is_reply else body,
        is_emote=kind == "m.emote",
        is_notice=kind == "m.notice",
        is_edit=relation.get("rel_type") == "m.replace",
        is_reply=is_reply,
        mentions=_mentions(content.get("m.mentions")),
    )


def strip_reply_fallback(body: str) -> str:
    """The text without the quoted lines that older clients put above a reply."""
    lines = body.split("\n")
    quoted = 0
    while quoted < len(lines) and lines[quoted].startswith("> "):
        quoted += 1
    if not quoted:
        return body
    if quoted < len(lines) and not lines[quoted]:
        quoted += 1
    rest = "\n".join(lines[quoted:])
    return rest or body  # a reply that is nothing but a quotation is the person's own text


def _mentions(value: object) -> tuple[str, ...]:
    users = value.get("user_ids") if isinstance(value, Mapping) else None
    if not isinstance(users, list):
        return ()
    return tuple(str(user) for user in users[:MAX_MENTIONS] if _is_user(user))


def _is_user(value: object) -> bool:
    try:
        parse_user_id(value)
    except Malformed:
        return False
    return True


def _text(value: object) -> str:
    return value[:MAX_REASON_CHARS] if isinstance(value, str) else ""


def mxc(value: object) -> str:
    """An mxc address, or nothing: other schemes would make clients fetch what a stranger names."""
    if isinstance(value, str) and value.startswith("mxc://") and len(value) <= MAX_ID_BYTES:
        return value
    return ""


@dataclass(frozen=True, slots=True)
class PowerLevels:
    """m.room.power_levels, and the creators that outrank it (room version 12)."""

    users: Mapping[str, int]
    users_default: int
    events: Mapping[str, int]
    events_default: int
    state_default: int
    kick: int
    creators: frozenset[str]

    def of(self, user: str) -> int:
        """Power of a user; a creator's has no end (MSC4289)."""
        return 1 << 53 if user in self.creators else self.users.get(user, self.users_default)

    def needed(self, kind: str, *, is_state: bool) -> int:
        return self.events.get(kind, self.state_default if is_state else self.events_default)


def parse_power_levels(content: object, create: object = None) -> PowerLevels:
    """Defaults as in the specification; strings count as numbers (rooms before version 10)."""
    levels: Mapping[str, object] = content if isinstance(content, Mapping) else {}
    has_levels = isinstance(content, Mapping)
    return PowerLevels(
        users=_numbers(levels.get("users")),
        users_default=_number(levels.get("users_default"), 0),
        events=_numbers(levels.get("events")),
        events_default=_number(levels.get("events_default"), 0),
        state_default=_number(levels.get("state_default"), 50 if has_levels else 0),
        kick=_number(levels.get("kick"), 50),
        creators=_creators(create),
    )


def _creators(create: object) -> frozenset[str]:
    """Sender and additional creators of a room of version 12 or later, from the full create event."""
    if not isinstance(create, Mapping) or not isinstance(content := create.get("content"), Mapping):
        return frozenset()
    version = content.get("room_version", "1")
    if not isinstance(version, str) or not version.isdigit() or int(version) < 12:
        return frozenset()
    more = content.get("additional_creators")
    people = [create.get("sender"), *(more if isinstance(more, list) else ())]
    return frozenset(person for person in people if isinstance(person, str))


def _numbers(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {
        key: _number(level, 0)
        for key, level in value.items()
        if isinstance(key, str) and _is_number(level)
    }


def _is_number(value: object) -> bool:
    try:
        _strict_number(value)
    except ValueError:
        return False
    return True


def _number(value: object, default: int) -> int:
    try:
        return _strict_number(value)
    except ValueError:
        return default


def _strict_number(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError("not a level")
    if isinstance(value, int):
        return value
    if isinstance(value, str) and len(value) <= 20:
        return int(value.strip())
    raise ValueError("not a level")
