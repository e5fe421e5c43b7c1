"""`!conf ...` typed into a bound chat room: a table of words, ranks and what they do.

The rank is the room's affiliation and role, read when the line was said (S33: never from a puppet, a
correction or the archive). Answers are one line by the focus.
Not here: who may do what in the conference (`bridge.conference.policy`): it is asked as well.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.conference.commands import End, Mute, Unmute
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.events import Leg
from bridge.conference.ids import Account, Actor, Network, Role, TrackKind
from bridge.conference.ports import ConferenceRecord
from bridge.conference.steering import USAGE, describe, parse
from bridge.gateway import Context
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.rooms import Room

PREFIX: Final = "!conf"
MAX_NAMES: Final = 20  # listed by status


@dataclass(frozen=True, slots=True)
class Asked:
    """Who typed what, where."""

    by: Actor
    word: str
    rest: str
    conference: ConferenceRecord
    room: Room


Dial = Callable[[ConferenceRecord, st.Jid], None]


def split(text: str) -> tuple[str, str] | None:
    """`!conf mute @bob` -> ("mute", "@bob"); None for an ordinary line."""
    first, _, rest = text.strip().partition(" ")
    if first.lower() != PREFIX:
        return None
    word, _, argument = rest.strip().partition(" ")
    return word.lower() or "help", argument.strip()


class Commands:
    def __init__(self, context: Context, dial: Dial) -> None:
        self._context = context
        self._dial = dial

    async def run(self, asked: Asked) -> str:
        """The answer for the room: what happened or what to do. Empty when the conference's notice says it."""
        row = TABLE.get(asked.word)
        if row is None:
            return f"I do not know {PREFIX} {asked.word[:20]}. {PREFIX} help lists what I do."
        if asked.by.role < row.rank:
            return f"{PREFIX} {asked.word} is for moderators of this room."
        try:
            return await row.act(self, asked)
        except Refused as why:
            return str(why)
        except Unavailable:
            return "That did not work just now; please try again in a moment."

    async def help(self, _: Asked) -> str:
        return "\n".join(f"{PREFIX} {row.usage}: {row.text}" for row in TABLE.values())

    async def status(self, asked: Asked) -> str:
        legs = [leg for leg in self._context.view(asked.conference.id) if not leg.hidden]
        people = list(dict.fromkeys(leg.name or leg.account.address for leg in legs))
        shown = ", ".join(people[:MAX_NAMES]) + (" and more" if len(people) > MAX_NAMES else "")
        gateways = "; ".join(
            f"{name}: {gw.status()}" for name, gw in self._context.gateways.items()
        )
        who = f"{len(people)} in the call: {shown}." if people else "Nobody is in the call."
        media = self._context.summary(asked.conference.id)
        who += f" {media[0].upper()}{media[1:]}." if media else ""
        return f"{asked.conference.title or asked.conference.slug}. {who} {gateways}".strip()

    async def mute(self, asked: Asked) -> str:
        target, name = self._target(asked)
        await self._context.submit(
            asked.conference.id, Mute(asked.by, target, TrackKind.AUDIO), None
        )
        return f"{name} is muted."

    async def unmute(self, asked: Asked) -> str:
        target, name = self._target(asked)
        await self._context.submit(
            asked.conference.id, Unmute(asked.by, target, TrackKind.AUDIO), None
        )
        return f"{name} may speak again, and decides when."

    async def policy(self, asked: Asked) -> str:
        if asked.rest:
            ruling = parse(asked.by, asked.rest)
            events = await self._context.submit(asked.conference.id, ruling, None)
            return "" if events else "It is so already."
        now = await self._context.directory.by_id(asked.conference.id) or asked.conference
        return describe(now.streams, self._context.streams(now))

    async def end(self, asked: Asked) -> str:
        await self._context.submit(asked.conference.id, End(asked.by), None)
        return "The call has ended."

    async def call(self, asked: Asked) -> str:
        try:
            peer = st.parse_jid(asked.rest)
        except Malformed:
            raise Refused(f"Say whom: {PREFIX} call somebody@example.org") from None
        if not peer.node:
            raise Refused(f"Say whom: {PREFIX} call somebody@example.org")
        self._dial(asked.conference, peer)
        return f"Calling {peer.bare}."

    def _target(self, asked: Asked) -> tuple[Account, str]:
        """By address, by nickname in this room, or by name in the call; two of one name is no answer."""
        wanted = asked.rest.strip()
        if not wanted:
            raise Refused(f"Say whom: {PREFIX} {asked.word} @name")
        found = self._matches(wanted, asked)
        if not found and wanted.startswith("@"):
            found = self._matches(wanted[1:], asked)
        if not found:
            raise Refused(f"I do not see {wanted[:60]} in the call.")
        if len(found) > 1:
            raise Refused(f"There are several people called {wanted[:60]}; please use an address.")
        return next(iter(found.items()))

    def _matches(self, wanted: str, asked: Asked) -> dict[Account, str]:
        legs: Sequence[Leg] = self._context.view(asked.conference.id)
        exact = {leg.account: leg.name for leg in legs if leg.account.address == wanted}
        if exact:
            return exact
        folded = wanted.casefold()
        found = {leg.account: leg.name for leg in legs if leg.name.casefold() == folded}
        occupant = next(
            (o for nick, o in asked.room.roster.by_nick.items() if nick.casefold() == folded), None
        )
        if occupant is not None and occupant.nick not in asked.room.own_nicks:
            found.setdefault(asked.room.roster.account(occupant), occupant.nick)
        if not found and "@" in wanted and not wanted.startswith("@"):
            found[Account(Network.XMPP, wanted.lower())] = wanted
        return found


@dataclass(frozen=True, slots=True)
class Row:
    usage: str
    text: str
    rank: Role
    act: Callable[[Commands, Asked], Awaitable[str]]


TABLE: Final = {
    "help": Row("help", "this list.", Role.GUEST, Commands.help),
    "status": Row(
        "status", "who is in the call, and what is connected.", Role.MEMBER, Commands.status
    ),
    "mute": Row(
        "mute @name", "nobody hears that person until unmuted.", Role.MODERATOR, Commands.mute
    ),
    "unmute": Row("unmute @name", "lift a mute.", Role.MODERATOR, Commands.unmute),
    "call": Row("call user@host", "ring somebody's XMPP client.", Role.MODERATOR, Commands.call),
    "policy": Row(USAGE, "what of a large call is forwarded.", Role.GUEST, Commands.policy),
    "end": Row("end", "end the call for everybody.", Role.MODERATOR, Commands.end),
}
