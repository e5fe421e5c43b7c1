"""What we know of Matrix rooms: members, names, power levels; asked from the homeserver, forgotten on change.

Answers are kept `FRESH_S` and dropped by the events that change them, so a kick counts at once (S31). A
room is known only where our bot is joined.
Not here: sending (`link`, `outbound`), what a rank allows (`bridge.conference`).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from bridge.conference.errors import Unavailable
from bridge.conference.ids import Role
from bridge.gateway import MatrixProfile, Membership
from bridge.gateways.matrix import wire
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.names import Namespace, clean_name, parse_user_id

FRESH_S: Final = 60.0  # events make it forget earlier; this bounds what a lost event can cost
MAX_KEPT: Final = 10_000
MODERATOR_LEVEL: Final = 50
OWNER_LEVEL: Final = 100

K = TypeVar("K")
V = TypeVar("V")


class Fresh(Generic[K, V]):
    """A small dictionary whose values grow old."""

    def __init__(self, keep_s: float, clock: Callable[[], float], most: int = MAX_KEPT) -> None:
        self._keep_s, self._clock, self._most = keep_s, clock, most
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        if found is None or found[0] < self._clock():
            return None
        return found[1]

    def put(self, key: K, value: V, keep_s: float | None = None) -> None:
        until = self._clock() + (self._keep_s if keep_s is None else keep_s)
        self._kept[key] = (until, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> None:
        self._kept.pop(key, None)


@dataclass(frozen=True, slots=True)
class Person:
    """A room member as the room shows it."""

    mxid: str
    membership: str
    name: str
    avatar: str


class Rooms:
    """Questions about rooms. Raises `Unavailable`; `Denied` 403 where the bot is not inside."""

    def __init__(
        self,
        link: Link,
        own: Namespace,
        admins: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._own = own
        self._admins = frozenset(admins)
        self._people: Fresh[tuple[str, str], Person] = Fresh(FRESH_S, clock)
        self._levels: Fresh[str, wire.PowerLevels] = Fresh(FRESH_S, clock)
        self._members: Fresh[str, tuple[Person, ...]] = Fresh(FRESH_S, clock, 1_000)
        self._outside: Fresh[str, bool] = Fresh(10.0, clock)

    def saw(self, event: wire.Incoming) -> None:
        """An event changed what we believed."""
        match event:
            case wire.Member():
                self._people.drop((event.room, event.user))
                self._members.drop(event.room)
                if event.user == self._own.bot_mxid:
                    self._outside.drop(event.room)
            case wire.RoomChanged():
                self._levels.drop(event.room)
            case _:
                pass

    async def person(self, room: str, mxid: str) -> Person:
        """A member, present or not. Somebody who never was in the room has left it."""
        known = self._people.get((room, mxid))
        if known is not None:
            return known
        if self._outside.get(room):
            raise Denied(403, "M_FORBIDDEN", "The bot is not in the room.")
        try:
            content = await self._link.state(room, "m.room.member", mxid)
        except Denied as why:
            if why.is_forbidden:
                self._outside.put(room, True)
            if not why.is_absent:
                raise
            content = {"membership": "leave"}
        person = _person(mxid, content)
        self._people.put((room, mxid), person)
        return person

    async def members(self, room: str) -> tuple[Person, ...]:
        """Everybody joined."""
        known = self._members.get(room)
        if known is None:
            joined = await self._link.joined_members(room)
            known = tuple(
                Person(mxid, "join", _name(value.get("display_name"), mxid), _avatar(value))
                for mxid, value in joined.items()
                if isinstance(value, Mapping)
            )
            self._members.put(room, known)
        return known

    async def levels(self, room: str) -> wire.PowerLevels:
        known = self._levels.get(room)
        if known is None:
            try:
                content: Mapping[str, Any] | None = await self._link.state(
                    room, "m.room.power_levels"
                )
            except Denied as why:
                if not why.is_absent:
                    raise
                content = None
            create = await self._link.state(room, "m.room.create", whole=True)
            known = wire.parse_power_levels(content, create)
            self._levels.put(room, known)
        return known

    async def role(self, room: str, mxid: str) -> Role:
        """Rank by power level; configured administrators own everything."""
        if mxid in self._admins:
            return Role.OWNER
        return role_of((await self.levels(room)).of(mxid))

    async def membership(self, room: str, mxid: str) -> Membership:
        """Is he in the room? UNKNOWN only when the bot itself is outside.

        The bot is asked for too: somebody who has left may still read the state of that moment.
        """
        try:
            if (await self.person(room, self._own.bot_mxid)).membership != "join":
                return Membership.UNKNOWN
            person = await self.person(room, mxid)
        except Denied:
            return Membership.UNKNOWN
        return Membership.JOINED if person.membership == "join" else Membership.ABSENT

    async def profile(self, room: str | None, mxid: str) -> MatrixProfile:
        """Name and avatar as the room shows them, otherwise the global ones; never fails for want of a name."""
        local, _ = parse_user_id(mxid)
        role = Role.OWNER if mxid in self._admins else Role.MEMBER
        try:
            if room is not None:
                person = await self.person(room, mxid)
                if person.membership == "join":
                    return MatrixProfile(person.name, person.avatar, await self.role(room, mxid))
        except (Denied, Unavailable):
            pass
        try:
            content = await self._link.profile(mxid)
        except (Denied, Unavailable):
            return MatrixProfile(clean_name(local) or mxid, "", role)
        return MatrixProfile(_name(content.get("displayname"), mxid), _avatar(content), role)

    async def title(self, room: str) -> str:
        """The room's name, if it has one."""
        try:
            content = await self._link.state(room, "m.room.name")
        except Denied:
            return ""
        name = content.get("name")
        return clean_name(name) if isinstance(name, str) else ""


def role_of(level: int) -> Role:
    """Matrix power level -> rank (house.md: 100 owner, 50 moderator)."""
    if level >= OWNER_LEVEL:
        return Role.OWNER
    return Role.MODERATOR if level >= MODERATOR_LEVEL else Role.MEMBER


def _person(mxid: str, content: Mapping[str, Any]) -> Person:
    membership = content.get("membership")
    return Person(
        mxid,
        membership if isinstance(membership, str) else "leave",
        _name(content.get("displayname"), mxid),
        _avatar(content),
    )


def _name(value: object, mxid: str) -> str:
    shown = clean_name(value) if isinstance(value, str) else ""
    return shown or mxid[1:].partition(":")[0]


def _avatar(content: Mapping[str, Any]) -> str:
    return wire.mxc(content.get("avatar_url"))
