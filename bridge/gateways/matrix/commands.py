"""`!conf` in a Matrix room: one table of verbs, each a sentence in and a sentence out.

Rank comes from the room's power levels; what a rank allows is the conference's business (`Refused` texts pass
through). Never run for ghosts, edits, replies or notices: that is `inbound`'s door (S33).
Not here: reading events (`wire`), sending the answer (`inbound`).
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.conference.commands import Bind, Command, End, Mute, Unbind, Unmute
from bridge.conference.errors import Refused
from bridge.conference.events import Event, Leg
from bridge.conference.ids import Account, Actor, Network, Place, Role, TrackKind
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.conference.steering import USAGE, describe, parse
from bridge.gateway import Context
from bridge.gateways.matrix.ghosts import GhostBook
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.names import Namespace, clean_name, is_user_id, room_alias
from bridge.gateways.matrix.rooms import Rooms
from bridge.gateways.matrix.wire import CALL_MEMBER, Message

WORD: Final = "!conf"
MAX_LISTED: Final = 20
CALL_EVENTS: Final = (CALL_MEMBER, "m.call.member")
_KINDS: Final[dict[str, TrackKind | None]] = {
    "audio": TrackKind.AUDIO,
    "video": TrackKind.VIDEO,
    "all": None,
}
# RFC 7622 in the part that a person types: a localpart, a domain, no resource.
_JID: Final = re.compile(r"[^\s@/<>\"'&:]{1,200}@[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?")
_NETWORKS: Final = {
    Network.MATRIX: "Matrix",
    Network.XMPP: "XMPP",
    Network.WEB: "guest",
    Network.TOKEN: "call",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line with who, where, and what the room's conference is (None: nobody made one yet)."""

    message: Message
    by: Actor
    rest: str
    conference: ConferenceRecord | None
    cause: Cause | None

    @property
    def place(self) -> Place:
        return Place(Network.MATRIX, self.message.room)


@dataclass(frozen=True, slots=True)
class Verb:
    """A row of the table: `needs` is the least rank before anything is done at all."""

    name: str
    usage: str
    summary: str
    needs: Role
    run: Callable[["Commands", Asked], Awaitable[str]]


def is_command(text: str) -> bool:
    word, _, _ = text.strip().partition(" ")
    return word.casefold() == WORD


class Commands:
    """Runs a line and says what happened. Raises `Unavailable` only."""

    def __init__(
        self, context: Context, link: Link, own: Namespace, rooms: Rooms, ghosts: GhostBook
    ) -> None:
        self._context, self._link, self._own = context, link, own
        self._rooms, self._ghosts = rooms, ghosts

    async def conference_of(self, room: str) -> ConferenceRecord | None:
        """The conference this room is bound to, or the one its unbound call has."""
        directory = self._context.directory
        bound = await directory.by_place(Place(Network.MATRIX, room))
        return bound or await directory.by_room(room_alias(room))

    async def run(self, message: Message, by: Actor, cause: Cause | None) -> str:
        """The answer; empty when the conference's own notice already says it."""
        line = message.text.strip()[len(WORD) :].strip()
        name, _, rest = line.partition(" ")
        verb = VERBS.get(name.casefold() or "help")
        if verb is None:
            return f"I do not know “{clean_name(name)}”. Try {WORD} help."
        if by.role < verb.needs:
            return f"Only moderators of this room may use {WORD} {verb.name}."
        try:
            conference = await self.conference_of(message.room)
            return await verb.run(self, Asked(message, by, rest.strip(), conference, cause))
        except Denied as why:
            return f"The homeserver did not allow it: {why}"
        except Refused as why:
            return str(why)

    async def _submit(
        self, conference: ConferenceRecord, command: Command, cause: Cause | None = None
    ) -> tuple[Event, ...]:
        return await self._context.submit(conference.id, command, cause)

    # --- verbs ------------------------------------------------------------------------------------------

    async def help(self, asked: Asked) -> str:
        lines = [
            f"{WORD} {verb.usage} — {verb.summary}"
            for verb in VERBS.values()
            if asked.by.role >= verb.needs
        ]
        return "\n".join(lines)

    async def link(self, asked: Asked) -> str:
        jid = parse_muc(asked.rest)
        muc = Place(Network.XMPP, jid)
        theirs = await self._context.directory.by_place(muc)
        conference = asked.conference
        if theirs is not None and (conference is None or theirs.id != conference.id):
            raise Refused(f"{jid} already belongs to another conference; unlink it there first.")
        if conference is None:
            conference = await self._context.directory.create(
                room=room_alias(asked.message.room), title=await self._title(asked.message.room)
            )
        if muc in conference.places and asked.place in conference.places:
            return f"This room is already linked with {jid}."
        for place in (asked.place, muc):
            if place not in conference.places:
                await self._submit(conference, Bind(asked.by, place))
        return f"This room and {jid} are one conference now: text and calls reach both."

    async def _title(self, room: str) -> str:
        try:
            return await self._rooms.title(room)
        except Denied:
            return ""

    async def unlink(self, asked: Asked) -> str:
        conference = self._need(asked)
        mucs = [place for place in conference.places if place.network is Network.XMPP]
        if asked.rest:
            jid = parse_muc(asked.rest)
            mucs = [place for place in mucs if place.address == jid]
        if not mucs:
            return "This room is not linked with that MUC." if asked.rest else "Nothing is linked."
        for place in mucs:
            await self._submit(conference, Unbind(asked.by, place))
        names = ", ".join(place.address for place in mucs)
        return f"Unlinked: {names}. Text no longer crosses; the call of this room goes on."

    async def status(self, asked: Asked) -> str:
        conference = asked.conference
        legs = self._legs(conference)
        if legs:
            people = ", ".join(_person(legs, account) for account in _accounts(legs)[:MAX_LISTED])
            more = len(_accounts(legs)) - MAX_LISTED
            lines = [f"In the call: {people}{f' and {more} more' if more > 0 else ''}."]
            media = self._context.summary(conference.id) if conference else ""
            lines += [f"{media[0].upper()}{media[1:]}."] if media else []
        else:
            lines = ["Nobody is in the call."]
        others = [p.address for p in conference.places if p != asked.place] if conference else []
        is_bound = conference is not None and asked.place in conference.places
        if is_bound and others:
            lines.append(f"Linked with {', '.join(others)}.")
        else:
            lines.append(f"Not linked with any MUC; {WORD} link room@muc.example does it.")
        states = [f"{name}: {door.status()}" for name, door in self._context.gateways.items()]
        if states:
            lines.append("; ".join(states) + ".")
        return "\n".join(lines)

    async def mute(self, asked: Asked) -> str:
        return await self._rule(asked, is_mute=True)

    async def unmute(self, asked: Asked) -> str:
        return await self._rule(asked, is_mute=False)

    async def _rule(self, asked: Asked, *, is_mute: bool) -> str:
        conference = self._need(asked)
        who, kind = split_kind(asked.rest)
        target = await self._whom(asked, conference, who)
        what = "audio and video" if kind is None else kind.value
        command = (Mute if is_mute else Unmute)(asked.by, target, kind)
        name = _name(self._legs(conference), target)
        events = await self._submit(conference, command, asked.cause)
        if not events:
            return f"{name} already is {'muted' if is_mute else 'not muted'} ({what})."
        if asked.place in conference.places:
            return ""  # every bound room hears it from the conference
        return f"{name} was {'muted' if is_mute else 'unmuted'} ({what})."

    async def policy(self, asked: Asked) -> str:
        conference = self._need(asked)
        if not asked.rest:
            return describe(conference.streams, self._context.streams(conference))
        ruling = parse(asked.by, asked.rest)
        if not await self._submit(conference, ruling, asked.cause):
            return "It is so already."
        if asked.place in conference.places:
            return ""  # as for mutes
        return "Done; it holds for this room's calls from now on."

    async def end(self, asked: Asked) -> str:
        conference = self._need(asked)
        if not self._legs(conference):
            return "Nobody is in the call."
        await self._submit(conference, End(asked.by), asked.cause)
        return "The call was ended for everybody."

    async def fix_permissions(self, asked: Asked) -> str:
        room = asked.message.room
        levels = await self._rooms.levels(room)
        if all(levels.needed(kind, is_state=True) <= levels.users_default for kind in CALL_EVENTS):
            return "Everybody may already join calls here; nothing to fix."
        needed = levels.needed("m.room.power_levels", is_state=True)
        if levels.of(self._own.bot_mxid) < needed:
            return (
                f"I lack the power for that (I need {needed}). Either give me that power level, or set the "
                f"permission for {CALL_MEMBER} to 0 in the room's settings."
            )
        content = dict(await self._link.state(room, "m.room.power_levels"))
        await self._link.put_state(room, "m.room.power_levels", "", opened(content))
        return "Done: everybody in this room may join calls now, people from other networks too."

    # --- who is meant -----------------------------------------------------------------------------------

    def _need(self, asked: Asked) -> ConferenceRecord:
        if asked.conference is None:
            raise Refused("There is no call in this room, and nothing is linked.")
        return asked.conference

    def _legs(self, conference: ConferenceRecord | None) -> Sequence[Leg]:
        return self._context.view(conference.id) if conference is not None else ()

    async def _whom(self, asked: Asked, conference: ConferenceRecord, who: str) -> Account:
        """Mention, Matrix id, ghost, JID or display name. Raises `Refused` when none or several are meant."""
        mentioned = [m for m in asked.message.mentions if m != self._own.bot_mxid]
        if len(mentioned) == 1:
            return await self._account(mentioned[0])
        if not who:
            raise Refused(f"Whom? For example: {WORD} mute @alice:example.org")
        if is_user_id(who):
            return await self._account(who)
        legs = self._legs(conference)
        plain = who.removeprefix("@")
        folded = clean_name(plain).casefold()
        exact = [
            a for a in _accounts(legs) if a.address.casefold() in (who.casefold(), plain.casefold())
        ]
        found = exact or [
            account
            for account in _accounts(legs)
            if any(_is_called(leg, account, folded) for leg in legs)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(account.address for account in found[:MAX_LISTED])
            raise Refused(f"Several people are called that: {choices}. Use one of these.")
        if _JID.fullmatch(who.lower()):
            return Account(Network.XMPP, who.lower())
        raise Refused(f"Nobody called “{clean_name(who)}” is in the call.")

    async def _account(self, mxid: str) -> Account:
        if mxid == self._own.bot_mxid:
            raise Refused("I am not in the call.")
        if self._own.is_ghost(mxid):
            account = await self._ghosts.account(mxid)
            if account is None:
                raise Refused("I do not know whose account that is.")
            return account
        return Account(Network.MATRIX, mxid)


def parse_muc(text: str) -> str:
    """A MUC's bare JID, lower case. Raises `Refused` with an example."""
    jid = text.strip().removeprefix("xmpp:").removesuffix("?join").lower()
    if not _JID.fullmatch(jid):
        raise Refused(
            f"That is not the address of a MUC. For example: {WORD} link room@muc.example.org"
        )
    return jid


def split_kind(rest: str) -> tuple[str, TrackKind | None]:
    """`@who [audio|video|all]` -> who and what; audio when unsaid. None = both."""
    who, _, last = rest.rpartition(" ")
    if who and last.casefold() in _KINDS:
        return who.strip(), _KINDS[last.casefold()]
    return rest.strip(), TrackKind.AUDIO


def opened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Power levels in which everybody may publish a call membership; all else as it was."""
    events = content.get("events")
    kept = dict(events) if isinstance(events, Mapping) else {}
    return {**content, "events": {**kept, **dict.fromkeys(CALL_EVENTS, 0)}}


def _accounts(legs: Sequence[Leg]) -> list[Account]:
    return list(dict.fromkeys(leg.account for leg in legs if not leg.hidden))


def _is_called(leg: Leg, account: Account, folded: str) -> bool:
    if leg.account != account or not folded:
        return False
    name = clean_name(leg.name).casefold()
    label = _NETWORKS[account.network].casefold()
    local = account.address.removeprefix("@").partition(
        "@" if account.network is not Network.MATRIX else ":"
    )[0]
    return folded in (name, f"{name} ({label})", local.casefold())


def _name(legs: Sequence[Leg], account: Account) -> str:
    for leg in legs:
        if leg.account == account and leg.name:
            return clean_name(leg.name) or account.address
    return account.address


def _person(legs: Sequence[Leg], account: Account) -> str:
    own = [leg for leg in legs if leg.account == account]
    is_forced = any(track.forced for leg in own for track in leg.tracks)
    label = _NETWORKS[account.network] + (", muted" if is_forced else "")
    return f"{_name(own, account)} ({label})"


VERBS: Final[dict[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb("help", "help", "what I can do", Role.GUEST, Commands.help),
        Verb(
            "status",
            "status",
            "who is in the call, and what is linked",
            Role.GUEST,
            Commands.status,
        ),
        Verb(
            "link",
            "link room@muc.example",
            "make this room and a MUC one conference",
            Role.MODERATOR,
            Commands.link,
        ),
        Verb(
            "unlink",
            "unlink [room@muc.example]",
            "take it apart again",
            Role.MODERATOR,
            Commands.unlink,
        ),
        Verb(
            "mute",
            "mute @who [audio|video|all]",
            "nobody hears or sees them until unmuted",
            Role.MODERATOR,
            Commands.mute,
        ),
        Verb(
            "unmute",
            "unmute @who [audio|video|all]",
            "let them speak again",
            Role.MODERATOR,
            Commands.unmute,
        ),
        Verb("policy", USAGE, "what of a large call is forwarded", Role.GUEST, Commands.policy),
        Verb("end", "end", "end the call for everybody", Role.MODERATOR, Commands.end),
        Verb(
            "fix-permissions",
            "fix-permissions",
            "let everybody in this room join calls",
            Role.MODERATOR,
            Commands.fix_permissions,
        ),
    )
}
