"""One Jingle call of one XMPP device with the focus: a task that owns the session.

XEP-0166, XEP-0167 section 8 (mute), XEP-0353. The peer's actions arrive acknowledged and in order; everything
slow (focus, worker, store) happens here, so an iq is never kept waiting.
Order of an incoming call: Join, open, expect per content he sends, Publish, offer, save, session-accept.
Not here: which call a stanza belongs to (`calls`), the steps (`callleg`, `callchanges`), XML (`jingle`).
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import sfu.description as sd
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import LeaveReason
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Context, SessionOver, SessionSilent, SessionUp, StreamPaused
from bridge.gateways.xmpp import callstate as cs
from bridge.gateways.xmpp import disco, jmi, profiles
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.callchanges import Changes
from bridge.gateways.xmpp.callleg import Over
from bridge.gateways.xmpp.jingle import describe
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.session import Event, Ours, State, step
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

QUEUE: Final = 256  # news of one call; trickled candidates are the most
RING_S: Final = 60.0  # until somebody picks up
INITIATE_S: Final = 30.0  # from proceed to session-initiate
ACCEPT_S: Final = 60.0  # from session-initiate to session-accept
GOODBYE_S: Final = 3.0

Admit = Callable[[ConferenceRecord, st.Jid], Awaitable[cs.Admission]]
FindConference = Callable[[str], Awaitable[ConferenceRecord | None]]


class Call(Changes):
    """`tell` from anywhere, `run` once."""

    def __init__(
        self,
        context: Context,
        wire: Wire,
        facts: cs.Facts,
        find: FindConference,
        admit: Admit,
        conference: ConferenceRecord | None = None,
    ) -> None:
        super().__init__(context, wire, facts, conference)
        self._find = find
        self._admit = admit
        self._news: asyncio.Queue[cs.News] = asyncio.Queue(QUEUE)
        self._offer: sd.Description | None = None
        self._is_silent = False
        self._is_peer_gone = False

    def tell(self, news: cs.News) -> bool:
        """False when the peer floods us: the caller answers with an error."""
        try:
            self._news.put_nowait(news)
        except asyncio.QueueFull:
            return False
        return True

    def step(self, event: Event) -> None:
        """Move the state; raises `Malformed` for a peer's event out of order."""
        self.facts.state = step(self.facts.state, event)

    async def run(self) -> None:
        """Live until the call is over; says goodbye exactly once."""
        try:
            while True:
                await self._take(await self._next())
        except Over as over:
            await self._finish(over)
        except (Refused, Unavailable) as why:
            condition = "decline" if isinstance(why, Refused) else "general-error"
            await self._finish(Over(condition, LeaveReason.FAILED, str(why)))
        except (Malformed, sd.Malformed) as why:
            log.info("call ended: the peer broke the protocol", extra={"fault": str(why)})
            await self._finish(Over("failed-application", LeaveReason.FAILED))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("call ended by our own fault")  # one call, not the gateway
            await self._finish(Over("general-error", LeaveReason.FAILED))

    async def _next(self) -> cs.News:
        limit_s = {
            State.RINGING: INITIATE_S,
            State.CALLING: RING_S,
            State.OUTGOING: ACCEPT_S,
        }.get(self.facts.state)  # an active call waits without limit: the worker tells silence
        try:
            async with asyncio.timeout(limit_s):
                return await self._news.get()
        except TimeoutError:
            raise Over("timeout", LeaveReason.LOST) from None

    async def _take(self, news: cs.News) -> None:
        match news:
            case cs.Rung():
                await self._ring()
            case cs.Start(media):
                self._propose(media)
            case cs.Message(verb, sender):
                await self._message(verb, sender)
            case cs.Asked(jingle):
                await self._action(jingle)
            case cs.Media(StreamPaused(paused=paused)):
                await self.show_paused(paused)
            case cs.Media(signal):
                self._signal(signal)
            case cs.Forced(track, muted):
                await self.show_forced(track, muted)
            case cs.LegLeft(reason):
                self.facts.leg = None  # gone already: nobody to tell
                raise Over(cs.TERMINATE_FOR[reason], reason)
            case cs.PeerPresence(is_gone):
                self._is_peer_gone = is_gone
                self._check_gone()

    async def _ring(self) -> None:
        """A propose. Refusal is said at once: a phone that rings for nothing is worse."""
        try:
            await self._admitted()
        except (Refused, Unavailable) as why:
            log.info("call refused", extra={"why": str(why)})
            self.ring_message(
                jmi.Verb.REJECT, "decline" if isinstance(why, Refused) else "general-error"
            )
            self.facts.via_jmi = False  # nothing to finish
            raise Over(None, LeaveReason.FAILED) from why
        self.ring_message(jmi.Verb.RINGING)
        self.ring_message(jmi.Verb.PROCEED)

    async def _admitted(self) -> tuple[ConferenceRecord, cs.Admission]:
        conference = self.conference or await self._find(self.facts.me.node)
        if conference is None:
            raise Refused("There is no such conference.")
        self.conference = conference
        return conference, await self._admit(conference, self.facts.peer)

    async def _message(self, verb: jmi.Verb, sender: st.Jid) -> None:
        if verb is jmi.Verb.PROCEED and self.facts.state is State.INVITED:
            self.facts.peer = sender
            await self._initiate()
        elif verb in (jmi.Verb.REJECT, jmi.Verb.RETRACT):
            raise Over(None, LeaveReason.LEFT)

    async def _answer(self, jingle: v.Jingle) -> None:
        facts = self.facts
        description = describe.to_description(jingle, v.Party.INITIATOR, sd.DescriptionType.OFFER)
        facts.profile = profiles.for_offer(description.bundle)
        facts.remote = jingle
        conference, admission = await self._admitted()
        leg = await self.join(conference, admission)
        await self.context.media.open(conference.id, leg, leg, facts.profile, receives=True)
        for section in description.sections:
            await self.expect(section.mid, section.kind, v.Party.INITIATOR)
            if section.direction.sends:
                await self.publish(facts.parts[section.mid])
        answer = await self.context.media.offer(leg, description)
        await self.save()
        if self.facts.state is State.INCOMING:  # else they hung up meanwhile; that news is next
            self.step(Ours.ACCEPT)  # before it is sent: their next action may overtake the result
            await self._send_answer(answer, jingle)

    async def _send_answer(self, answer: sd.Description, offer: v.Jingle) -> None:
        creators = {content.name: content.creator for content in offer.contents}
        contents = tuple(
            replace(content, creator=creators.get(content.name, content.creator))
            for content in describe.to_contents(answer, v.Party.RESPONDER)
        )
        if not contents:
            raise Over("failed-application", LeaveReason.FAILED)
        await self.request(
            v.Jingle(
                v.Action.SESSION_ACCEPT,
                self.facts.sid,
                initiator=str(self.facts.peer),
                responder=str(self.facts.me),
                contents=contents,
                bundle=answer.bundle,
            )
        )

    def _propose(self, media: tuple[str, ...]) -> None:
        self.facts.via_jmi = True
        self.ring_message(jmi.Verb.PROPOSE, media=media)

    async def _initiate(self) -> None:
        facts = self.facts
        conference, admission = await self._admitted()
        facts.profile = profiles.for_features(await self._peer_features())
        leg = await self.join(conference, admission)
        kinds = (sd.MediaKind.AUDIO, sd.MediaKind.VIDEO)
        await self.context.media.open(
            conference.id, leg, leg, facts.profile, receives=True, media=kinds
        )
        offer = await self.context.media.make_offer(leg)
        for section in offer.sections:
            await self.expect(section.mid, section.kind, v.Party.INITIATOR)
        self._offer = offer
        await self.save()
        if facts.state is not State.INVITED:
            return
        self.step(Ours.INITIATE)
        await self.request(
            v.Jingle(
                v.Action.SESSION_INITIATE,
                facts.sid,
                initiator=str(facts.me),
                contents=describe.to_contents(offer, v.Party.INITIATOR),
                bundle=offer.bundle,
            )
        )

    async def _peer_features(self) -> frozenset[str]:
        iq = st.iq(str(self.facts.peer), str(self.facts.me), "get", "")
        st.add(iq, disco.INFO, "query")
        try:
            return disco.features_of(await self.wire.request(iq, timeout_s=5.0))
        except (RequestFailed, Unavailable):
            return frozenset()  # the plain profile works with everybody

    async def _accepted(self, jingle: v.Jingle) -> None:
        if self._offer is None or self.facts.leg is None:
            raise Malformed("session-accept before our offer")
        answer = describe.to_description(jingle, v.Party.RESPONDER, sd.DescriptionType.ANSWER)
        missing = tuple(
            replace(section, direction=sd.Direction.INACTIVE, rejected=True)
            for section in self._offer.sections
            if answer.section(section.mid) is None
        )
        await self.context.media.answer(
            self.facts.leg, replace(answer, sections=answer.sections + missing)
        )
        for section in answer.sections:
            part = self.facts.parts.get(section.mid)
            if part is not None and section.direction.sends:
                await self.publish(part)
        self.facts.remote = jingle
        await self.save()

    async def _action(self, jingle: v.Jingle) -> None:
        match jingle.action:
            case v.Action.SESSION_INITIATE:
                await self._answer(jingle)
            case v.Action.SESSION_ACCEPT:
                await self._accepted(jingle)
            case v.Action.SESSION_INFO:
                await self.info(jingle.info)
            case v.Action.SESSION_TERMINATE:
                raise Over(None, LeaveReason.LEFT)
            case v.Action.TRANSPORT_INFO:
                await self.transport_info(jingle)
            case v.Action.CONTENT_ADD:
                await self.content_add(jingle)
            case v.Action.CONTENT_REMOVE:
                await self.content_remove(jingle)
            case v.Action.CONTENT_MODIFY:
                await self.content_modify(jingle)
            case v.Action.TRANSPORT_REPLACE:
                await self.request(
                    v.Jingle(v.Action.TRANSPORT_REJECT, self.facts.sid, contents=jingle.contents)
                )
            case _:
                log.debug("jingle action ignored", extra={"action": jingle.action.value})

    def _signal(self, signal: object) -> None:
        match signal:
            case SessionUp():
                self._is_silent = False
            case SessionSilent():
                self._is_silent = True
                self._check_gone()
            case SessionOver(reason=why):
                reason, condition = cs.SESSION_OVER.get(why, (LeaveReason.FAILED, "general-error"))
                raise Over(condition, reason)

    def _check_gone(self) -> None:
        """A presence may flap while media flows; a dead device has neither."""
        if self._is_silent and self._is_peer_gone:
            raise Over("gone", LeaveReason.LOST)

    def farewell(self) -> None:
        """parley and its worker stop: one word, no waiting."""
        if self.facts.state in (State.INCOMING, State.OUTGOING, State.ACTIVE):
            goodbye = v.Jingle(v.Action.SESSION_TERMINATE, self.facts.sid, reason=v.Reason("gone"))
            iq = self.jingle_iq(goodbye)
            iq.set("id", secrets.token_hex(8))
            self.wire.send(iq)

    async def _finish(self, over: Over) -> None:
        before = self.facts.state
        self.step(Ours.END)
        leg, self.facts.leg = self.facts.leg, None
        if leg is not None and self.conference is not None:
            await self.leave(leg, over.reason)
        try:
            await self._goodbye(before, over)
        except (Unavailable, Refused):
            log.debug("peer did not take our goodbye")

    async def _goodbye(self, before: State, over: Over) -> None:
        if before in (State.CALLING, State.INVITED) and over.condition is not None:
            self.ring_message(jmi.Verb.RETRACT)
            return
        if before in (State.INCOMING, State.OUTGOING, State.ACTIVE) and over.condition is not None:
            reason = v.Reason(over.condition, over.text)
            goodbye = v.Jingle(v.Action.SESSION_TERMINATE, self.facts.sid, reason=reason)
            await self.wire.request(self.jingle_iq(goodbye), timeout_s=GOODBYE_S)
        if self.facts.via_jmi and before is State.ACTIVE:
            self.ring_message(jmi.Verb.FINISH, over.condition or "success")
