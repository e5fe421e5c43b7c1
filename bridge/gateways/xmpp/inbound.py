"""Stanzas in: who is addressed, what is asked, what becomes a command.

XEP-0030 and 0199 answers, RFC 6121 subscriptions to a focus, chat room traffic, Jingle. Lines of text come
back from the durable inbox and become `Say`, or a `!conf` command.
S36: the link has checked our domain; here a stanza reaches only the part whose address it names.
Not here: calls (`calls`), rooms (`rooms`), events out (`outbound`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.commands import Say
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import Account, Actor, Network, Place, Role
from bridge.conference.ports import Cause, ConferenceRecord
from bridge.gateway import Context, InboxRow
from bridge.gateways.xmpp import callstate as cs
from bridge.gateways.xmpp import commands, disco, jmi, names
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.calls import Calls
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.puppets import Puppets
from bridge.gateways.xmpp.rooms import GATEWAY, Room
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0

Places = Mapping[str, tuple[Room, Puppets]]
"""Bound rooms by their bare JID."""


class Door:
    """Who may call, and who is whom: what calls and commands ask about people."""

    def __init__(self, context: Context, domain: str, places: Places) -> None:
        section = context.config.xmpp
        self._context = context
        self._places = places
        self._parent = domain.partition(".")[2]
        self._admins = frozenset(st.bare_of(jid) for jid in (section.admins if section else ()))

    async def find(self, slug: str) -> ConferenceRecord | None:
        found = await self._context.directory.by_slug(slug)
        # A room that nobody bound is a conference without bridging (house.md section 7).
        return None if found is None or found.auto else found

    async def admit(self, conference: ConferenceRecord, peer: st.Jid) -> cs.Admission:
        """Accounts of our own server, occupants of a bound room whose address is known, administrators."""
        rooms = [self._places[p.address] for p in conference.places if p.address in self._places]
        seats = [seat for room, _ in rooms if (seat := room.roster.by_real(peer.bare)) is not None]
        best = max(seats, key=lambda seat: seat.rank, default=None)
        is_admin = peer.bare in self._admins
        if best is None and not is_admin and peer.domain != self._parent:
            raise Refused("Only people of this server or of the conference's chat room may call.")
        if best is not None and best.affiliation == "outcast":
            raise Refused("You are banned from the conference's chat room.")
        role = Role.OWNER if is_admin else best.rank if best is not None else Role.MEMBER
        return cs.Admission(best.nick if best is not None else peer.node or peer.domain, role)

    def is_admin(self, address: str) -> bool:
        return address in self._admins


class Inbound:
    def __init__(
        self,
        context: Context,
        wire: Wire,
        calls: Calls,
        places: Places,
        door: Door,
    ) -> None:
        self._context = context
        self._wire = wire
        self._calls = calls
        self._places = places
        self._door = door
        self._commands = commands.Commands(context, calls.dial)
        self._questions: asyncio.Queue[Callable[[], Element | None]] = asyncio.Queue(256)
        self.slugs: frozenset[str] = frozenset()

    # --- stanzas (synchronous: the socket waits) ---------------------------------------------------------

    def stanza(self, element: Element) -> None:
        """Any stanza but iq answers. Never raises: one stanza must not end the stream."""
        try:
            to, sender = st.parse_jid(element.get("to")), st.parse_jid(element.get("from"))
            if element.tag == st.IQ:
                self._iq(element, to, sender)
            elif element.tag == st.PRESENCE:
                self._presence(element, to, sender)
            elif element.tag == st.MESSAGE:
                self._message(element, to, sender)
        except Malformed as why:
            log.info("malformed stanza", extra={"fault": str(why)})
        except Unavailable:
            log.info("answer not sent: the stream is gone")
        except Exception:
            log.exception("stanza handling failed")

    def _iq(self, iq: Element, to: st.Jid, sender: st.Jid) -> None:
        payload = next(iter(iq), None)
        if payload is None:
            self._wire.send(st.error_of(iq, "modify", "bad-request"))
        elif payload.tag == f"{{{v.JINGLE}}}jingle" and iq.get("type") == "set":
            self._calls.iq(iq, payload, to, sender)
        elif payload.tag == f"{{{disco.PING}}}ping" and iq.get("type") == "get":
            self._wire.send(st.result_of(iq))
        elif payload.tag == f"{{{disco.INFO}}}query" and iq.get("type") == "get":
            self._info(iq, payload.get("node", ""), to)
        elif payload.tag == f"{{{disco.ITEMS}}}query" and iq.get("type") == "get":
            answer = st.result_of(iq)
            st.add(answer, disco.ITEMS, "query")  # conferences are not listed to strangers
            self._wire.send(answer)
        else:
            self._wire.send(st.error_of(iq, "cancel", "service-unavailable"))

    def _capabilities(self, to: st.Jid) -> disco.Capabilities | None:
        if not to.node:
            return disco.COMPONENT
        if to.node.startswith("g-"):
            return disco.PUPPET
        return disco.FOCUS if to.node in self.slugs else None

    def _info(self, iq: Element, node: str, to: st.Jid) -> None:
        known = self._capabilities(to)
        if known is None or node not in ("", f"{disco.NODE}#{known.version}"):
            self._wire.send(st.error_of(iq, "cancel", "item-not-found"))
            return
        answer = st.result_of(iq)
        disco.put_info(answer, known, node)
        self._wire.send(answer)

    def _presence(self, presence: Element, to: st.Jid, sender: st.Jid) -> None:
        place = self._places.get(sender.bare)
        if place is not None:
            room, puppets = place
            if to == room.focus:
                room.presence(presence)
            else:
                puppets.presence(to.node, presence)
            return
        kind = presence.get("type", "")
        if to.node not in self.slugs:
            return
        me = to.at(names.FOCUS_RESOURCE)
        if kind == "subscribe":
            self._wire.send(st.presence(sender.bare, me.bare, "subscribed"))
            self._wire.send(st.presence(sender.bare, me.bare, "subscribe"))
            self._show(sender.bare, me)
        elif kind == "probe":
            self._show(str(sender), me)
        elif kind in ("", "unavailable"):
            self._calls.presence(sender, kind == "unavailable")

    def _show(self, to: str, me: st.Jid) -> None:
        """Directed presence with capabilities: without it clients do not offer to call."""
        here = st.presence(to, str(me))
        disco.put_caps(here, disco.FOCUS)
        self._wire.send(here)

    def _message(self, message: Element, to: st.Jid, sender: st.Jid) -> None:
        place = self._places.get(sender.bare)
        if place is not None:
            room, puppets = place
            if to != room.focus:
                puppets.message(message)
            elif message.get("type") != "error":
                room.message(message)
            return
        if message.get("type") in ("error", "groupchat"):
            return
        news = jmi.find_jmi(message)
        if news is not None and to.node in self.slugs:
            self._calls.message(to, sender, news)

    # --- lines from the inbox ----------------------------------------------------------------------------

    async def take_lines(self) -> None:
        """Each line becomes a command exactly once; one that cannot is kept aside, never in the way."""
        async for row in self._context.inbox.rows(GATEWAY):
            while True:
                try:
                    await self._take(row)
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY_S)

    async def _take(self, row: InboxRow) -> None:
        try:
            say = _say(row)
        except (KeyError, TypeError, ValueError) as why:
            await self._context.inbox.dead(row.id, f"damaged row: {type(why).__name__}")
            return
        place = say.origin
        conference = await self._context.directory.by_place(place) if place is not None else None
        if place is None or conference is None:
            await self._context.inbox.done(row.id)  # unbound meanwhile
            return
        command = commands.split(say.text)
        if command is not None:
            if row.payload.get("fresh") is True:
                await self._command(conference, place, say, command)
            await self._context.inbox.done(row.id)
            return
        try:
            await self._context.submit(conference.id, say, Cause(row.id))
        except Refused as why:
            await self._context.inbox.dead(row.id, str(why))

    async def _command(
        self, conference: ConferenceRecord, place: Place, say: Say, command: tuple[str, str]
    ) -> None:
        found = self._places.get(place.address)
        if found is None:
            return
        room, _ = found
        by = Actor(Account(Network.XMPP, say.by.account.address), self._rank(say.by), say.by.name)
        answer = await self._commands.run(commands.Asked(by, *command, conference, room))
        if answer:
            room.say(answer)

    def _rank(self, by: Actor) -> Role:
        return Role.OWNER if self._door.is_admin(by.account.address) else by.role


def _say(row: InboxRow) -> Say:
    payload = row.payload
    role, at_ms = payload["role"], payload["at_ms"]
    if not isinstance(role, int) or not isinstance(at_ms, int):
        raise ValueError("role or time is not a number")
    account = Account(Network.XMPP, str(payload["account"]))
    return Say(
        by=Actor(account, Role(role), str(payload["name"])),
        text=str(payload["text"]),
        source_id=row.source_id,
        source=GATEWAY,
        origin=Place(Network.XMPP, str(payload["room"])),
        is_emote=payload["emote"] is True,
        at_ms=at_ms,
    )
