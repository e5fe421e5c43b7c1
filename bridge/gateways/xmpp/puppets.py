"""People of other networks as occupants of a chat room: one address, one nickname each.

XEP-0045 (enter, nickname conflict, groupchat), XEP-0359 (origin-id). A puppet enters when its person speaks or
joins the call and leaves when the person left the call or was silent for `IDLE_S`.
Exactly once (R14): a line carries the outbox key as id and origin-id; it counts as sent when the room
reflects it; a repeated attempt looks for it first.
Not here: hearing the room (`rooms`).
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.errors import Refused, Unavailable
from bridge.conference.ids import Account
from bridge.gateway import Context, OutboxRow
from bridge.gateways.xmpp import disco, muc, names
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.rooms import GATEWAY, JOIN_S, Room
from bridge.gateways.xmpp.wire import Wire

ECHO_S: Final = 15.0
IDLE_S: Final = 1_800.0
MAX_PUPPETS: Final = 500  # in one room
MAX_TEXT: Final = 16_384  # characters of one line
LOOK_BACK_MS: Final = 86_400_000  # for a line that does not know when it was said

# What a room answers when it will never take the line (RFC 6120 section 8.3.3).
_FINAL: Final = frozenset({"forbidden", "not-allowed", "policy-violation", "bad-request", "gone"})


@dataclass(slots=True)
class Puppet:
    account: Account
    jid: st.Jid
    nick: str = ""
    is_in: bool = False
    in_call: bool = False
    active_s: float = 0.0  # monotonic
    entering: asyncio.Future[muc.Occupant] | None = None


class Puppets:
    """Those of one room."""

    def __init__(self, context: Context, wire: Wire, room: Room) -> None:
        self._context = context
        self._wire = wire
        self._room = room
        self._by_account: dict[Account, Puppet] = {}
        self._by_node: dict[str, Puppet] = {}
        self._turn = asyncio.Lock()  # one enters at a time, so that nickname choices see each other

    async def enter(self, account: Account, name: str, *, in_call: bool = False) -> Puppet:
        """Make sure this person's puppet is in the room. Raises `Unavailable` or `Refused`."""
        async with self._turn:
            puppet = self._get(account)
            puppet.in_call = puppet.in_call or in_call
            puppet.active_s = time.monotonic()
            if not puppet.is_in:
                await self._take_nick(puppet, name)
            return puppet

    def _get(self, account: Account) -> Puppet:
        puppet = self._by_account.get(account)
        if puppet is None:
            if len(self._by_account) >= MAX_PUPPETS:
                raise Unavailable("too many people of other networks in this room")
            jid = st.Jid(names.puppet_node(account), self._wire.domain, names.PUPPET_RESOURCE)
            puppet = self._by_account[account] = self._by_node[jid.node] = Puppet(account, jid)
        return puppet

    async def _take_nick(self, puppet: Puppet, name: str) -> None:
        section = self._context.config.xmpp
        suffix = section.muc_nick_suffix if section else ""
        wished = names.nick_for(puppet.account, name)
        for nick in names.candidates(wished, suffix, self._room.taken_for(str(puppet.jid))):
            try:
                occupant = await self._try_nick(puppet, nick)
            except RequestFailed as why:
                if why.condition == "conflict":
                    continue
                raise
            puppet.nick, puppet.is_in = occupant.nick, True
            self._room.own(occupant, str(puppet.jid))
            self._room.left_behind.pop(puppet.jid.node, None)
            await self._room.save_own()
            return
        raise Refused("no free nickname in the room")

    async def _try_nick(self, puppet: Puppet, nick: str) -> muc.Occupant:
        entry = st.presence(f"{self._room.address}/{nick}", str(puppet.jid))
        st.add(st.add(entry, muc.MUC, "x"), muc.MUC, "history", maxstanzas="0")
        disco.put_caps(entry, disco.PUPPET)
        puppet.entering = asyncio.get_running_loop().create_future()
        try:
            self._wire.send(entry)
            async with asyncio.timeout(JOIN_S):
                return await puppet.entering
        except TimeoutError as why:
            raise Unavailable("the room did not let the person in in time") from why
        finally:
            puppet.entering = None

    def presence(self, node: str, presence: Element) -> None:
        """A presence of the room to one of ours: only its own entry, refusal and removal matter."""
        puppet = self._by_node.get(node)
        if puppet is None:
            return
        if presence.get("type") == "error":
            if puppet.entering is not None and not puppet.entering.done():
                puppet.entering.set_exception(RequestFailed(st.condition_of(presence)))
            return
        roster = muc.Roster(self._room.address)
        seen = roster.apply(presence)
        if seen is None or not seen.is_self:
            return
        if seen.here is None:
            self._room.disown(puppet.nick)
            puppet.is_in = False
        elif puppet.entering is not None and not puppet.entering.done():
            puppet.entering.set_result(seen.here)

    def message(self, message: Element) -> None:
        if message.get("type") == "error":
            self._room.refused(message)

    async def deliver(self, row: OutboxRow) -> str | None:
        """As `Gateway.deliver`."""
        if not self._room.is_joined:
            raise Unavailable("not in the room yet")
        if row.attempts > 0:
            found = await self._room.find(row.key, row.said.at_ms or _now_ms() - LOOK_BACK_MS)
            if found is not None:
                return found
        text = row.said.text.strip()[:MAX_TEXT]
        if not text:
            return None
        try:
            puppet = await self.enter(row.said.by.account, row.said.by.name)
        except RequestFailed as why:
            raise Unavailable(f"the room refused the person: {why.condition}") from why
        if not self._room.knows_occupants:
            await self._context.store.put(GATEWAY, f"sent:{row.key}", {})
        return await self._speak(puppet, row.key, f"/me {text}" if row.said.is_emote else text)

    async def _speak(self, puppet: Puppet, key: str, text: str) -> str:
        line = st.message(self._room.address, str(puppet.jid), "groupchat", id=key)
        st.add(line, st.CLIENT, "body", text)
        st.add(line, muc.STANZA_ID, "origin-id", id=key)
        echo = self._room.await_echo(key)
        try:
            self._wire.send(line)
            async with asyncio.timeout(ECHO_S):
                return await echo
        except TimeoutError as why:
            raise Unavailable("the room did not reflect the line in time") from why
        except RequestFailed as why:
            if why.condition in _FINAL:
                raise Refused(
                    f"the room does not take lines of this person: {why.condition}"
                ) from why
            puppet.is_in = False  # not-acceptable: the room lost us
            self._room.disown(puppet.nick)
            raise Unavailable(f"the room refused the line: {why.condition}") from why
        finally:
            echo.cancel()

    def call_ended(self, account: Account) -> None:
        puppet = self._by_account.get(account)
        if puppet is not None:
            puppet.in_call = False
            self.leave(puppet)

    def leave(self, puppet: Puppet) -> None:
        if puppet.is_in:
            goodbye = st.presence(
                f"{self._room.address}/{puppet.nick}", str(puppet.jid), "unavailable"
            )
            with contextlib.suppress(Unavailable):  # the stream is gone and the room with it
                self._wire.send(goodbye)
            puppet.is_in = False
            self._room.disown(puppet.nick)
        self._by_account.pop(puppet.account, None)
        self._by_node.pop(puppet.jid.node, None)

    def leave_idle(self) -> None:
        limit_s = time.monotonic() - IDLE_S
        for puppet in tuple(self._by_account.values()):
            if not puppet.in_call and puppet.active_s < limit_s and puppet.entering is None:
                self.leave(puppet)

    async def dismiss_left_behind(self) -> None:
        """Occupants of ours that a killed process left in the room, and that nobody needs now (R2)."""
        for node, nick in tuple(self._room.left_behind.items()):
            if node not in self._by_node:
                jid = st.Jid(node, self._wire.domain, names.PUPPET_RESOURCE)
                self._wire.send(
                    st.presence(f"{self._room.address}/{nick}", str(jid), "unavailable")
                )
        self._room.left_behind.clear()
        await self._room.save_own()

    def leave_all(self) -> None:
        for puppet in tuple(self._by_account.values()):
            self.leave(puppet)

    def lost(self) -> None:
        """The stream is gone: nobody is in."""
        for puppet in self._by_account.values():
            puppet.is_in = False

    @property
    def in_call(self) -> tuple[tuple[Account, str], ...]:
        return tuple((p.account, p.nick) for p in self._by_account.values() if p.in_call)


def _now_ms() -> int:
    return int(time.time() * 1000)
