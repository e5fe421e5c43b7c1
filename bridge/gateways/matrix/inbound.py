"""Matrix values -> commands: one row of the durable inbox after the other.

A row is done when its effect is committed, or when it has none; what cannot be understood becomes a dead
letter and never blocks the queue (S29). Our own voice is never read back (S33). The homeserver decides who
is in a room: leaving, a kick or a ban there ends the media here (S31).
Not here: parsing (`wire`), verbs (`commands`).
"""

import asyncio
import hashlib
import logging
from typing import Final

from bridge.conference.commands import Leave, Remove, Rename, Say
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import Account, Actor, LeaveReason, Network, Place, Role
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.gateway import Context, InboxRow, Membership
from bridge.gateways.matrix import wire
from bridge.gateways.matrix.commands import Commands, is_command
from bridge.gateways.matrix.ghosts import GhostBook
from bridge.gateways.matrix.link import Denied, Link
from bridge.gateways.matrix.memberships import Memberships
from bridge.gateways.matrix.names import Namespace
from bridge.gateways.matrix.outbound import Outbound, rooms_of
from bridge.gateways.matrix.proof import Proof
from bridge.gateways.matrix.rooms import Rooms

log = logging.getLogger(__name__)

NAME: Final = "matrix"
BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
GIVE_UP_S: Final = (
    600.0  # a dependency away for longer: the row becomes a dead letter, the rest goes on
)


class Inbound:
    """The consumer of the inbox. `run` in the gateway's task group."""

    def __init__(
        self,
        context: Context,
        link: Link,
        own: Namespace,
        rooms: Rooms,
        ghosts: GhostBook,
        memberships: Memberships,
        outbound: Outbound,
        proof: Proof,
    ) -> None:
        self._context, self._link, self._own, self._rooms = context, link, own, rooms
        self._ghosts, self._memberships, self._outbound = ghosts, memberships, outbound
        self._proof = proof
        self._commands = Commands(context, link, own, rooms, ghosts)

    async def run(self) -> None:
        async for row in self._context.inbox.rows(NAME):
            await self._finish(row)

    async def _finish(self, row: InboxRow) -> None:
        """Until the row is done or dead, in order: later lines of a room never overtake an earlier one."""
        waited_s, attempt = 0.0, 0
        while True:
            try:
                await self.handle(row)
                await self._context.inbox.done(row.id)
                return
            except Malformed as why:
                reason = f"malformed: {why}"
            except Refused as why:
                log.info("matrix event refused", extra={"row": row.id, "why": str(why)})
                reason = ""
            except Unavailable as why:
                pause_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                attempt, waited_s = attempt + 1, waited_s + pause_s
                if waited_s < GIVE_UP_S:
                    await asyncio.sleep(pause_s)
                    continue
                reason = f"unavailable: {why}"
            except Exception as why:  # one event of a stranger must not end the program
                log.exception("matrix event failed", extra={"row": row.id})
                reason = f"bug: {type(why).__name__}"
            if await self._settle(row, reason):
                return

    async def _settle(self, row: InboxRow, reason: str) -> bool:
        """Dead letter with a reason, done without one. False: the store is away, the row comes again."""
        try:
            if reason:
                await self._context.inbox.dead(row.id, reason)
            else:
                await self._context.inbox.done(row.id)
        except Unavailable:
            await asyncio.sleep(BACKOFF_S[-1])
            return False
        return True

    async def handle(self, row: InboxRow) -> None:
        event = wire.parse_event(row.payload)
        self._rooms.saw(event)
        match event:
            case wire.Message():
                await self._message(event, Cause(row.id))
            case wire.Member():
                await self._member(event)
            case wire.CallMember():
                if event.is_leave and self._own.is_ghost(event.sender):
                    self._memberships.emptied(event.room, event.state_key)
            case wire.RoomChanged():
                self._memberships.poke(event.room)
            case wire.Other():
                pass

    # --- text -------------------------------------------------------------------------------------------

    async def _message(self, message: wire.Message, cause: Cause) -> None:
        if self._own.owns(message.sender) or message.is_notice or message.is_edit:
            return
        if is_command(message.text):
            if not message.is_reply:
                await self._command(message, cause)
            return
        place = Place(Network.MATRIX, message.room)
        conference = await self._context.directory.by_place(place)
        if conference is None or not message.text.strip():
            return
        profile = await self._rooms.profile(message.room, message.sender)
        by = Actor(Account(Network.MATRIX, message.sender), profile.role, profile.name)
        await self._context.submit(
            conference.id,
            Say(
                by,
                message.text,
                message.event_id,
                NAME,
                place,
                profile.avatar,
                message.is_emote,
                message.at_ms,
            ),
            cause,
        )

    async def _command(self, message: wire.Message, cause: Cause) -> None:
        """Run and answer. The answer's transaction id comes from the event: a repeated row is one answer."""
        by = await self._actor(message.room, message.sender)
        try:
            answer = await self._commands.run(message, by, cause)
        except Unavailable as why:
            log.warning("command failed", extra={"why": str(why)})
            answer = "That did not work just now: something I need is away. Please try again."
        if answer:
            key = hashlib.sha256(f"answer {message.event_id}".encode()).hexdigest()[:32]
            await self._outbound.say(message.room, answer, key)

    async def _actor(self, room: str, mxid: str) -> Actor:
        role = await self._rooms.role(room, mxid)
        name = (await self._rooms.profile(room, mxid)).name
        return Actor(Account(Network.MATRIX, mxid), role, name)

    # --- coming and going -------------------------------------------------------------------------------

    async def _member(self, event: wire.Member) -> None:
        is_out = event.membership in ("leave", "ban")
        if event.user == self._own.bot_mxid:
            await self._bot(event, is_out=is_out)
        elif self._own.is_ghost(event.user):
            await self._ghost(event, is_out=is_out)
        elif is_out:
            await self._gone(event)
        elif event.membership == "join":
            await self._renamed(event)

    async def _bot(self, event: wire.Member, *, is_out: bool) -> None:
        if is_out:
            await self._link.forget_join(event.room, event.user)
        elif event.membership == "invite":
            if self._proof.allows_homeserver(event.sender.partition(":")[2]):
                await self._link.join(event.room, event.user, again=True)
            else:
                await self._link.leave(event.room, event.user)
        elif event.membership == "join":
            self._memberships.poke(event.room)

    async def _ghost(self, event: wire.Member, *, is_out: bool) -> None:
        """Put out by somebody: respected in the room and in the call. Invited by somebody: welcome again."""
        if self._own.owns(event.sender):
            return
        if event.membership == "invite":
            await self._ghosts.welcomed(event.room, event.user)
        elif is_out:
            if await self._is_back(event):
                return
            await self._ghosts.kicked(event.room, event.user)
            account = await self._ghosts.account(event.user)
            if account is not None:
                await self._remove(event, account)

    async def _renamed(self, event: wire.Member) -> None:
        """Somebody in the call has a new name or avatar in this room."""
        conference = await self._commands.conference_of(event.room)
        if conference is None:
            return
        account = Account(Network.MATRIX, event.user)
        legs = [leg for leg in self._context.view(conference.id) if leg.account == account]
        if not legs:
            return
        shown = await self._rooms.person(event.room, event.user)  # now, not as of an old event
        if any((leg.name, leg.avatar) != (shown.name, shown.avatar) for leg in legs):
            rename = Rename(account, shown.name, shown.avatar)
            await self._context.submit(conference.id, rename, None)

    async def _gone(self, event: wire.Member) -> None:
        account = Account(Network.MATRIX, event.user)
        if event.sender != event.user:
            if not await self._is_back(event):
                await self._remove(event, account)
            return
        conference = await self._commands.conference_of(event.room)
        if conference is None or await self._is_elsewhere(event, conference):
            return
        for leg in self._context.view(conference.id):
            if leg.account == account:
                await self._context.submit(conference.id, Leave(leg.id, LeaveReason.LEFT), None)

    async def _remove(self, event: wire.Member, account: Account) -> None:
        conference = await self._commands.conference_of(event.room)
        if conference is None:
            return
        if all(leg.account != account for leg in self._context.view(conference.id)):
            return
        # The homeserver has let this person put the other one out: in this room that outranks.
        name = (await self._rooms.profile(event.room, event.sender)).name
        by = Actor(Account(Network.MATRIX, event.sender), Role.OWNER, name)
        await self._context.submit(conference.id, Remove(by, account), None)

    async def _is_back(self, event: wire.Member) -> bool:
        """The event is old (we were away) and the person has come back since."""
        try:
            return (await self._rooms.person(event.room, event.user)).membership == "join"
        except Denied:
            return False

    async def _is_elsewhere(self, event: wire.Member, conference: ConferenceRecord) -> bool:
        """Still in a room of this conference (this one, if the event is old)."""
        for room in {event.room, *rooms_of(conference)}:
            if await self._rooms.membership(room, event.user) is Membership.JOINED:
                return True
        return False
