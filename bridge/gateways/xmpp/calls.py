"""All calls of this gateway: which one a stanza means, limits, and the answers that Jingle demands at once.

XEP-0166 sections 6 and 10 (acknowledgement, unknown-session, out-of-order, tie-break), XEP-0353 section 3.
An action counts only from the exact full JID of the session and to the focus address it was made with.
Not here: the session itself (`call`).
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element

from bridge.conference.commands import Leave
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.events import Event, Left, TrackMuted
from bridge.conference.ids import LeaveReason, LegId
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import (
    Context,
    MediaSignal,
    SavedLeg,
    SessionOver,
    SessionSilent,
    SessionUp,
    StreamPaused,
)
from bridge.gateways.xmpp import callstate as cs
from bridge.gateways.xmpp import jmi, names
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.call import Admit, Call, FindConference
from bridge.gateways.xmpp.callleg import GATEWAY
from bridge.gateways.xmpp.jingle import session as table
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.parse import parse_jingle
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

MAX_CALLS: Final = 1_000
FAREWELL_S: Final = 30.0
MAX_CALLS_PER_PERSON: Final = 4  # devices of one bare JID, and a ringing one

_RINGS: Final = {
    jmi.Verb.PROCEED: table.Ring.PROCEED,
    jmi.Verb.REJECT: table.Ring.REJECT,
    jmi.Verb.RETRACT: table.Ring.RETRACT,
}
_SIGNALLING: Final = (table.State.RINGING, table.State.INCOMING, table.State.ACTIVE)


class Calls:
    """`run` hosts the call tasks; everything else is synchronous and quick."""

    def __init__(
        self,
        context: Context,
        wire: Wire,
        find: FindConference,
        admit: Admit,
        up: asyncio.Event,
    ) -> None:
        self._up = up
        self._context = context
        self._wire = wire
        self._find = find
        self._admit = admit
        self._by_sid: dict[tuple[str, str], Call] = {}  # (peer's bare JID, sid)
        self._by_leg: dict[LegId, Call] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._adopted: list[Call] = []
        self._lost: list[SavedLeg] = []

    def __len__(self) -> int:
        return len(self._by_sid)

    async def run(self) -> None:
        """Until cancelled. Calls adopted before start go on here."""
        async with asyncio.TaskGroup() as self._tasks:
            for call in self._adopted:
                self._start(call)
            self._adopted.clear()
            for saved in self._lost:
                await self._end_lost(saved)
            self._lost.clear()
            await asyncio.Event().wait()  # unbounded: the group lives as long as the gateway

    # --- across restarts ---------------------------------------------------------------------------------

    def readopt(self, legs: Sequence[SavedLeg]) -> None:
        for saved in legs:
            try:
                facts = cs.from_wire_state(saved.leg.id, saved.wire_state)
            except Malformed as why:
                log.warning("leg not adopted", extra={"fault": str(why)})
                self._lost.append(saved)
                continue
            if not saved.alive:
                self._lost.append(saved)
                continue
            call = self._make(facts, saved.conference)
            self._by_leg[saved.leg.id] = call
            self._adopted.append(call)

    async def _end_lost(self, saved: SavedLeg) -> None:
        try:
            await self._context.submit(
                saved.conference.id, Leave(saved.leg.id, LeaveReason.LOST), None
            )
            await self._context.legs.forget(saved.leg.id)
        except (Refused, Unavailable) as why:
            log.warning("lost leg not ended", extra={"why": str(why)})
        with contextlib.suppress(Malformed):  # unreadable: its peer cannot be named
            facts = cs.from_wire_state(saved.leg.id, saved.wire_state)
            call = Call(self._context, self._wire, facts, self._find, self._admit)
            if self._tasks is not None:
                self._tasks.create_task(self._farewell_when_up(call), name="xmpp-farewell")

    async def _farewell_when_up(self, call: Call) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._up.wait()
            call.farewell()
        except (TimeoutError, Unavailable):
            log.debug("peer of a lost leg not told")  # its own ICE has noticed by now

    # --- making ------------------------------------------------------------------------------------------

    def _make(self, facts: cs.Facts, conference: ConferenceRecord | None = None) -> Call:
        call = Call(self._context, self._wire, facts, self._find, self._admit, conference)
        call.on_leg = lambda leg: self._by_leg.__setitem__(leg, call)
        self._by_sid[facts.peer.bare, facts.sid] = call
        return call

    def _start(self, call: Call) -> None:
        if self._tasks is None:
            raise Unavailable("the gateway is not running")
        self._tasks.create_task(self._host(call), name="xmpp-call")

    async def _host(self, call: Call) -> None:
        key = (call.facts.peer.bare, call.facts.sid)
        try:
            await call.run()
        finally:
            self._by_sid.pop(key, None)
            for leg in [leg for leg, other in self._by_leg.items() if other is call]:
                del self._by_leg[leg]

    def _refuse_too_many(self, peer: st.Jid) -> None:
        theirs = sum(1 for bare, _ in self._by_sid if bare == peer.bare)
        if theirs >= MAX_CALLS_PER_PERSON or len(self._by_sid) >= MAX_CALLS:
            raise Refused("Too many calls at once.")

    def dial(self, conference: ConferenceRecord, peer: st.Jid) -> None:
        """Ring somebody (XEP-0353). Raises `Refused`, `Unavailable`."""
        self._refuse_too_many(peer)
        me = st.Jid(conference.slug.lower(), self._wire.domain, names.FOCUS_RESOURCE)
        facts = cs.Facts(
            me, st.Jid(peer.node, peer.domain), secrets.token_hex(16), True, table.State.CALLING
        )
        call = self._make(facts, conference)
        call.tell(cs.Start(("audio", "video")))
        self._start(call)

    # --- Jingle messages ---------------------------------------------------------------------------------

    def message(self, to: st.Jid, sender: st.Jid, news: jmi.Jmi) -> None:
        """A Jingle message to a focus. Faults are dropped: messages have no answer to carry an error."""
        call = self._by_sid.get((sender.bare, news.sid))
        if news.verb is jmi.Verb.PROPOSE:
            if call is None and sender.resource:
                self._proposed(to, sender, news)
            return
        event = _RINGS.get(news.verb)
        if call is None or event is None or to.bare != call.facts.me.bare:
            return
        try:
            call.step(event)
        except Malformed as why:
            log.info("jingle message out of order", extra={"fault": str(why)})
            return
        call.tell(cs.Message(news.verb, sender))

    def _proposed(self, to: st.Jid, sender: st.Jid, news: jmi.Jmi) -> None:
        ours = self._our_ring(to, sender)
        if ours is not None and table.we_win_tie(ours.facts.sid, news.sid):
            return  # our propose stands; theirs is answered by their own side's same rule
        if ours is not None:
            ours.step(table.Ring.REJECT)
            ours.tell(cs.Message(jmi.Verb.REJECT, sender))
        me = to.at(names.FOCUS_RESOURCE)
        facts = cs.Facts(me, sender, news.sid, False, table.State.RINGING, via_jmi=True)
        try:
            self._refuse_too_many(sender)
        except Refused:
            busy = st.message(str(sender), str(me), "chat", id=secrets.token_hex(8))
            self._wire.send(jmi.put_jmi(busy, jmi.Jmi(jmi.Verb.REJECT, news.sid, reason="busy")))
            return
        call = self._make(facts)
        call.tell(cs.Rung(sender, news.media))
        self._start(call)

    def _our_ring(self, to: st.Jid, sender: st.Jid) -> Call | None:
        for (bare, _), call in self._by_sid.items():
            facts = call.facts
            if (
                bare == sender.bare
                and facts.me.bare == to.bare
                and facts.we_initiate
                and facts.state in (table.State.CALLING, table.State.OUTGOING)
            ):
                return call
        return None

    # --- Jingle iqs --------------------------------------------------------------------------------------

    def iq(self, iq: Element, node: Element, to: st.Jid, sender: st.Jid) -> None:
        """Answer at once, then let the call's task do the work."""
        try:
            jingle = parse_jingle(node)
        except Malformed as why:
            log.info("malformed jingle", extra={"fault": str(why)})
            self._wire.send(st.error_of(iq, "modify", "bad-request"))
            return
        if to.resource != names.FOCUS_RESOURCE:
            self._wire.send(st.error_of(iq, "cancel", "service-unavailable"))
            return
        call = self._by_sid.get((sender.bare, jingle.sid))
        if call is None and jingle.action is v.Action.SESSION_INITIATE:
            self._initiated(iq, jingle, to, sender)
        elif call is None or not self._belongs(call, jingle, to, sender):
            self._wire.send(
                st.error_of(iq, "cancel", "item-not-found", detail=(v.ERRORS, "unknown-session"))
            )
        else:
            self._acted(iq, jingle, call, sender)

    def _belongs(self, call: Call, jingle: v.Jingle, to: st.Jid, sender: st.Jid) -> bool:
        facts = call.facts
        if facts.me != to:
            return False
        if facts.state is table.State.RINGING and jingle.action is v.Action.SESSION_INITIATE:
            return facts.peer.bare == sender.bare  # another device of theirs may carry on
        return facts.peer == sender

    def _initiated(self, iq: Element, jingle: v.Jingle, to: st.Jid, sender: st.Jid) -> None:
        ours = self._our_ring(to, sender)
        if ours is not None and table.we_win_tie(ours.facts.sid, jingle.sid):
            self._wire.send(st.error_of(iq, "cancel", "conflict", detail=(v.ERRORS, "tie-break")))
            return
        if not jingle.contents:
            self._wire.send(st.error_of(iq, "modify", "bad-request"))
            return
        try:
            self._refuse_too_many(sender)
        except Refused:
            self._wire.send(st.error_of(iq, "wait", "resource-constraint"))
            return
        if ours is not None:
            ours.step(table.Ring.REJECT)
            ours.tell(cs.Message(jmi.Verb.REJECT, sender))
        call = self._make(cs.Facts(to, sender, jingle.sid, False, table.State.INCOMING))
        self._wire.send(st.result_of(iq))
        call.tell(cs.Asked(jingle))
        self._start(call)

    def _acted(self, iq: Element, jingle: v.Jingle, call: Call, sender: st.Jid) -> None:
        if jingle.has_unknown_info:
            self._wire.send(
                st.error_of(
                    iq, "modify", "feature-not-implemented", detail=(v.ERRORS, "unsupported-info")
                )
            )
            return
        try:
            call.step(jingle.action)
        except Malformed as why:
            log.info("jingle out of order", extra={"fault": str(why)})
            self._wire.send(
                st.error_of(iq, "wait", "unexpected-request", detail=(v.ERRORS, "out-of-order"))
            )
            return
        call.facts.peer = sender
        if call.tell(cs.Asked(jingle)):
            self._wire.send(st.result_of(iq))
        else:
            self._wire.send(st.error_of(iq, "wait", "resource-constraint"))

    # --- the rest of the house ----------------------------------------------------------------------------

    def presence(self, sender: st.Jid, is_gone: bool) -> None:
        for (bare, _), call in tuple(self._by_sid.items()):
            if (
                bare == sender.bare
                and call.facts.peer == sender
                and call.facts.state in _SIGNALLING
            ):
                call.tell(cs.PeerPresence(is_gone))

    def signal(self, leg: LegId, signal: MediaSignal) -> None:
        if not isinstance(signal, SessionUp | SessionSilent | SessionOver | StreamPaused):
            return  # levels and grades have no place in Jingle
        call = self._by_leg.get(leg)
        if call is not None and not call.tell(cs.Media(signal)):
            log.warning("media signal dropped: the call does not keep up")

    def event(self, event: Event) -> None:
        match event:
            case Left(leg=leg, reason=reason) if leg.gateway == GATEWAY:
                call = self._by_leg.get(leg.id)
                if call is not None and call.facts.leg is not None:
                    call.tell(cs.LegLeft(reason))
            case TrackMuted(leg=leg, track=track, by=by) if by is not None:
                call = self._by_leg.get(leg.id)
                if call is not None:
                    call.tell(cs.Forced(track.id, track.forced))
            case _:
                pass

    def farewell(self) -> None:
        """parley stops and takes its worker along: every peer is told, nobody is waited for."""
        for call in self._by_sid.values():
            try:
                call.farewell()
            except Unavailable:
                return
