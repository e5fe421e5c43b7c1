"""One Jingle call of one XMPP device with the focus: a task that owns the session.

XEP-0166, XEP-0167 section 8 (mute), XEP-0353. The peer's actions arrive acknowledged and in order; everything
slow (focus, worker, store) happens here, so an iq is never kept waiting.
Order of an incoming call: Join, open, expect per content he sends, Publish, offer, save, session-accept.
DEVIATES: transport-replace (ICE restart of XEP-0176 section 6) is refused with transport-reject; no client
we know sends it. An ICE restart by new credentials in transport-info (Conversations) is answered.
Not here: which call a stanza belongs to (`calls`), XML (`jingle`).
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

import sfu.description as sd
from bridge.conference.commands import Join, Leave, Publish, SetMuted, Unpublish
from bridge.conference.errors import Malformed, Refused, Unavailable
from bridge.conference.ids import (
    Account,
    LeaveReason,
    LegId,
    Network,
    Receives,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.conference.ports import ConferenceRecord
from bridge.gateway import Context, SessionOver, SessionSilent, SessionUp
from bridge.gateways.xmpp import callstate as cs
from bridge.gateways.xmpp import disco, jmi, profiles
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.jingle import describe
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.print import print_jingle
from bridge.gateways.xmpp.jingle.session import Event, Ours, State, step
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

GATEWAY: Final = "xmpp"
QUEUE: Final = 256  # news of one call; trickled candidates are the most
RING_S: Final = 60.0  # until somebody picks up
INITIATE_S: Final = 30.0  # from proceed to session-initiate
ACCEPT_S: Final = 60.0  # from session-initiate to session-accept
ANSWER_S: Final = 15.0  # an iq of ours
GOODBYE_S: Final = 3.0

_SOURCES: Final = {
    sd.MediaKind.AUDIO: TrackSource.MICROPHONE,
    sd.MediaKind.VIDEO: TrackSource.CAMERA,
}
_TRACK_KINDS: Final = {
    sd.MediaKind.AUDIO: TrackKind.AUDIO,
    sd.MediaKind.VIDEO: TrackKind.VIDEO,
}

Admit = Callable[[ConferenceRecord, st.Jid], Awaitable[cs.Admission]]
FindConference = Callable[[str], Awaitable[ConferenceRecord | None]]


class _Over(Exception):
    """The call ends: Jingle's condition for the peer (None = they ended it) and our reason."""

    def __init__(self, condition: str | None, reason: LeaveReason, text: str = "") -> None:
        super().__init__(condition or "ended by the peer")
        self.condition = condition
        self.reason = reason
        self.text = text


class Call:
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
        self.facts = facts
        self.conference = conference
        self.on_leg: Callable[[LegId], None] = lambda _: None
        self._context = context
        self._wire = wire
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
        except _Over as over:
            await self._finish(over)
        except (Refused, Unavailable) as why:
            condition = "decline" if isinstance(why, Refused) else "general-error"
            await self._finish(_Over(condition, LeaveReason.FAILED, str(why)))
        except (Malformed, sd.Malformed) as why:
            log.info("call ended: the peer broke the protocol", extra={"fault": str(why)})
            await self._finish(_Over("failed-application", LeaveReason.FAILED))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("call ended by our own fault")  # one call, not the gateway
            await self._finish(_Over("general-error", LeaveReason.FAILED))

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
            raise _Over("timeout", LeaveReason.LOST) from None

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
            case cs.Media(signal):
                self._signal(signal)
            case cs.Forced(track, muted):
                await self._show_forced(track, muted)
            case cs.LegLeft(reason):
                self.facts.leg = None  # gone already: nobody to tell
                raise _Over(cs.TERMINATE_FOR[reason], reason)
            case cs.PeerPresence(is_gone):
                self._is_peer_gone = is_gone
                self._check_gone()

    # --- they call -------------------------------------------------------------------------------------

    async def _ring(self) -> None:
        """A propose. Refusal is said at once: a phone that rings for nothing is worse."""
        try:
            await self._admitted()
        except (Refused, Unavailable) as why:
            log.info("call refused", extra={"why": str(why)})
            self._jmi(jmi.Verb.REJECT, "decline" if isinstance(why, Refused) else "general-error")
            self.facts.via_jmi = False  # nothing to finish
            raise _Over(None, LeaveReason.FAILED) from why
        self._jmi(jmi.Verb.RINGING)
        self._jmi(jmi.Verb.PROCEED)

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
            raise _Over(None, LeaveReason.LEFT)

    async def _answer(self, jingle: v.Jingle) -> None:
        facts = self.facts
        description = describe.to_description(jingle, v.Party.INITIATOR, sd.DescriptionType.OFFER)
        facts.profile = profiles.for_offer(description.bundle)
        facts.remote = jingle
        conference, admission = await self._admitted()
        leg = await self._join(conference, admission)
        await self._context.media.open(conference.id, leg, leg, facts.profile, receives=True)
        for section in description.sections:
            await self._expect(section.mid, section.kind, v.Party.INITIATOR)
            if section.direction.sends:
                await self._publish(facts.parts[section.mid])
        answer = await self._context.media.offer(leg, description)
        await self._save()
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
            raise _Over("failed-application", LeaveReason.FAILED)
        await self._request(
            v.Jingle(
                v.Action.SESSION_ACCEPT,
                self.facts.sid,
                initiator=str(self.facts.peer),
                responder=str(self.facts.me),
                contents=contents,
                bundle=answer.bundle,
            )
        )

    # --- we call ------------------------------------------------------------------------------------------

    def _propose(self, media: tuple[str, ...]) -> None:
        self.facts.via_jmi = True
        self._jmi(jmi.Verb.PROPOSE, media=media)

    async def _initiate(self) -> None:
        facts = self.facts
        conference, admission = await self._admitted()
        facts.profile = profiles.for_features(await self._peer_features())
        leg = await self._join(conference, admission)
        kinds = (sd.MediaKind.AUDIO, sd.MediaKind.VIDEO)
        await self._context.media.open(
            conference.id, leg, leg, facts.profile, receives=True, media=kinds
        )
        offer = await self._context.media.make_offer(leg)
        for section in offer.sections:
            await self._expect(section.mid, section.kind, v.Party.INITIATOR)
        self._offer = offer
        await self._save()
        if facts.state is not State.INVITED:
            return
        self.step(Ours.INITIATE)
        await self._request(
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
            return disco.features_of(await self._wire.request(iq, timeout_s=5.0))
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
        await self._context.media.answer(
            self.facts.leg, replace(answer, sections=answer.sections + missing)
        )
        for section in answer.sections:
            part = self.facts.parts.get(section.mid)
            if part is not None and section.direction.sends:
                await self._publish(part)
        self.facts.remote = jingle
        await self._save()

    # --- both --------------------------------------------------------------------------------------------

    async def _join(self, conference: ConferenceRecord, admission: cs.Admission) -> LegId:
        leg = LegId("PA_" + secrets.token_hex(8))
        self.facts.leg = leg
        self.on_leg(leg)
        await self._context.submit(
            conference.id,
            Join(
                leg=leg,
                gateway=GATEWAY,
                account=Account(Network.XMPP, self.facts.peer.bare),
                name=admission.name,
                role=admission.role,
                receives=Receives.COMPACT,
            ),
            None,
        )
        return leg

    async def _expect(self, name: str, kind: sd.MediaKind, creator: v.Party) -> None:
        if self.facts.leg is None:
            raise Unavailable("the leg is gone")
        part = cs.Part(name, kind, TrackId("TR_" + secrets.token_hex(8)), creator)
        self.facts.parts[name] = part
        await self._context.media.expect(
            self.facts.leg, part.track, _TRACK_KINDS[kind], _SOURCES[kind], mid=name
        )

    async def _publish(self, part: cs.Part) -> None:
        if self.conference is None or self.facts.leg is None or part.is_published:
            return
        part.is_published = True
        await self._context.submit(
            self.conference.id,
            Publish(
                self.facts.leg,
                part.track,
                _TRACK_KINDS[part.kind],
                _SOURCES[part.kind],
                muted=part.is_muted,
                mime_type="audio/opus" if part.kind is sd.MediaKind.AUDIO else "video/VP8",
            ),
            None,
        )

    async def _save(self) -> None:
        """Before the peer is told (house.md section 7). A call goes on without the store, it then dies with us."""
        if self.conference is None or self.facts.leg is None:
            return
        try:
            await self._context.legs.save(
                self.conference.id, self.facts.leg, GATEWAY, cs.to_wire_state(self.facts)
            )
        except Unavailable:
            log.warning("leg not saved: the store is away")

    async def _action(self, jingle: v.Jingle) -> None:
        match jingle.action:
            case v.Action.SESSION_INITIATE:
                await self._answer(jingle)
            case v.Action.SESSION_ACCEPT:
                await self._accepted(jingle)
            case v.Action.SESSION_INFO:
                await self._info(jingle.info)
            case v.Action.SESSION_TERMINATE:
                raise _Over(None, LeaveReason.LEFT)
            case v.Action.TRANSPORT_INFO:
                await self._transport_info(jingle)
            case v.Action.CONTENT_ADD:
                await self._content_add(jingle)
            case v.Action.CONTENT_REMOVE:
                await self._content_remove(jingle)
            case v.Action.CONTENT_MODIFY:
                await self._content_modify(jingle)
            case v.Action.TRANSPORT_REPLACE:
                await self._request(
                    v.Jingle(v.Action.TRANSPORT_REJECT, self.facts.sid, contents=jingle.contents)
                )
            case _:
                log.debug("jingle action ignored", extra={"action": jingle.action.value})

    async def _info(self, info: v.Info | None) -> None:
        if info is None or info.kind not in (v.InfoKind.MUTE, v.InfoKind.UNMUTE):
            return
        parts = [p for p in self.facts.parts.values() if info.name in ("", p.name)]
        await self._set_muted(parts, info.kind is v.InfoKind.MUTE)

    async def _set_muted(self, parts: Iterable[cs.Part], muted: bool) -> None:
        if self.conference is None or self.facts.leg is None:
            return
        for part in parts:
            part.is_muted = muted
            if not part.is_published:
                continue
            try:
                await self._context.submit(
                    self.conference.id, SetMuted(self.facts.leg, part.track, muted), None
                )
            except Refused:
                await self._show_forced(part.track, True)  # still held shut by a moderator

    async def _show_forced(self, track: TrackId, muted: bool) -> None:
        """Jingle cannot mute the other side; the display of the call can at least show it."""
        part = next((p for p in self.facts.parts.values() if p.track == track), None)
        if part is None or self.facts.state is not State.ACTIVE:
            return
        kind = v.InfoKind.MUTE if muted else v.InfoKind.UNMUTE
        info = v.Info(kind, part.name, part.creator)
        try:
            await self._request(v.Jingle(v.Action.SESSION_INFO, self.facts.sid, info=info))
        except (_Over, Unavailable):
            log.debug("peer does not take session-info")  # a display, not worth the call

    async def _transport_info(self, jingle: v.Jingle) -> None:
        if self.facts.leg is None:
            return
        restarted = False
        for content in jingle.contents:
            if content.name not in self.facts.parts or content.transport is None:
                continue
            known = self._remote_content(content.name)
            if known is not None and _is_restart(known.transport, content.transport):
                self._replace_remote(
                    replace(known, transport=_merged(known.transport, content.transport))
                )
                restarted = True
                continue
            candidates = describe.usable(content.transport.candidates)
            if candidates:
                await self._context.media.candidates(self.facts.leg, content.name, candidates)
        if restarted:
            await self._restarted()

    async def _restarted(self) -> None:
        answer = await self._renegotiate()
        await self._save()
        contents = tuple(
            replace(content, description=None)
            for content in describe.to_contents(answer, v.Party.RESPONDER)
        )
        await self._request(v.Jingle(v.Action.TRANSPORT_INFO, self.facts.sid, contents=contents))

    def _remote_content(self, name: str) -> v.Content | None:
        contents = self.facts.remote.contents if self.facts.remote is not None else ()
        return next((content for content in contents if content.name == name), None)

    def _replace_remote(self, content: v.Content) -> None:
        if self.facts.remote is not None:
            contents = tuple(
                content if c.name == content.name else c for c in self.facts.remote.contents
            )
            self.facts.remote = replace(self.facts.remote, contents=contents)

    async def _renegotiate(self) -> sd.Description:
        """Offer the peer's present state to the worker again; returns our answer."""
        if self.facts.leg is None or self.facts.remote is None:
            raise Malformed("renegotiation before the session stands")
        offer = describe.to_description(
            self.facts.remote, self.facts.we.other, sd.DescriptionType.OFFER
        )
        return await self._context.media.offer(self.facts.leg, offer)

    async def _content_add(self, jingle: v.Jingle) -> None:
        """A camera switched on in an audio call. One content per medium: the others are rejected."""
        remote = self.facts.remote
        present = {part.kind for part in self.facts.parts.values()}
        added = [
            content
            for content in jingle.contents
            if content.description is not None
            and content.name not in self.facts.parts
            and sd.MediaKind(describe.to_section(content, self.facts.we.other).kind) not in present
        ]
        if remote is None or self.facts.leg is None or len(added) != 1 or len(jingle.contents) != 1:
            await self._request(
                v.Jingle(
                    v.Action.CONTENT_REJECT,
                    self.facts.sid,
                    contents=tuple(
                        replace(c, description=None, transport=None) for c in jingle.contents
                    ),
                    reason=v.Reason("failed-application"),
                )
            )
            return
        content = added[0]
        bundle = jingle.bundle or ((*remote.bundle, content.name) if remote.bundle else ())
        self.facts.remote = replace(remote, contents=(*remote.contents, content), bundle=bundle)
        section = describe.to_section(content, self.facts.we.other)
        await self._expect(content.name, section.kind, content.creator)
        if section.direction.sends:
            await self._publish(self.facts.parts[content.name])
        answer = await self._renegotiate()
        await self._save()
        ours = tuple(
            replace(c, creator=content.creator)
            for c in describe.to_contents(answer, self.facts.we)
            if c.name == content.name
        )
        action = v.Action.CONTENT_ACCEPT if ours else v.Action.CONTENT_REJECT
        await self._request(
            v.Jingle(
                action,
                self.facts.sid,
                contents=ours or (replace(content, description=None, transport=None),),
                bundle=answer.bundle,
            )
        )

    async def _content_remove(self, jingle: v.Jingle) -> None:
        for content in jingle.contents:
            part = self.facts.parts.pop(content.name, None)
            known = self._remote_content(content.name)
            if part is None:
                continue
            if known is not None:
                self._replace_remote(replace(known, senders=v.Senders.NONE))
            if part.is_published and self.conference is not None and self.facts.leg is not None:
                await self._context.submit(
                    self.conference.id, Unpublish(self.facts.leg, part.track), None
                )
        if not self.facts.parts:
            raise _Over("success", LeaveReason.LEFT)
        await self._save()

    async def _content_modify(self, jingle: v.Jingle) -> None:
        """Whether they send: the camera's or microphone's switch of some clients."""
        for content in jingle.contents:
            part = self.facts.parts.get(content.name)
            if part is not None:
                direction = describe.direction_of(content.senders, self.facts.we.other)
                if direction.sends:
                    await self._publish(part)
                await self._set_muted([part], not direction.sends)

    def _signal(self, signal: object) -> None:
        match signal:
            case SessionUp():
                self._is_silent = False
            case SessionSilent():
                self._is_silent = True
                self._check_gone()
            case SessionOver(reason=why):
                reason, condition = cs.SESSION_OVER.get(why, (LeaveReason.FAILED, "general-error"))
                raise _Over(condition, reason)

    def _check_gone(self) -> None:
        """A presence may flap while media flows; a dead device has neither."""
        if self._is_silent and self._is_peer_gone:
            raise _Over("gone", LeaveReason.LOST)

    # --- the wire ----------------------------------------------------------------------------------------

    async def _request(self, jingle: v.Jingle) -> None:
        """One iq of ours. Whatever the peer answers but a result ends the call."""
        try:
            await self._wire.request(self._iq(jingle), timeout_s=ANSWER_S)
        except RequestFailed as why:
            log.info(
                "peer refused", extra={"action": jingle.action.value, "condition": why.condition}
            )
            lost = why.condition in (
                "item-not-found",
                "service-unavailable",
                "recipient-unavailable",
            )
            raise _Over(
                None if lost else "general-error", LeaveReason.LOST if lost else LeaveReason.FAILED
            ) from why

    def _iq(self, jingle: v.Jingle) -> Element:
        iq = st.iq(str(self.facts.peer), str(self.facts.me), "set", "")
        iq.append(print_jingle(jingle))
        return iq

    def _jmi(self, verb: jmi.Verb, reason: str = "", media: tuple[str, ...] = ()) -> None:
        to = (
            self.facts.peer.bare
            if verb in (jmi.Verb.PROPOSE, jmi.Verb.RETRACT)
            else str(self.facts.peer)
        )
        message = st.message(to, str(self.facts.me), "chat", id=secrets.token_hex(8))
        self._wire.send(jmi.put_jmi(message, jmi.Jmi(verb, self.facts.sid, media, reason)))

    def farewell(self) -> None:
        """parley and its worker stop: one word, no waiting."""
        if self.facts.state in (State.INCOMING, State.OUTGOING, State.ACTIVE):
            goodbye = v.Jingle(v.Action.SESSION_TERMINATE, self.facts.sid, reason=v.Reason("gone"))
            iq = self._iq(goodbye)
            iq.set("id", secrets.token_hex(8))
            self._wire.send(iq)

    async def _finish(self, over: _Over) -> None:
        before = self.facts.state
        self.step(Ours.END)
        leg, self.facts.leg = self.facts.leg, None
        if leg is not None and self.conference is not None:
            await self._leave(leg, over.reason)
        try:
            await self._goodbye(before, over)
        except (Unavailable, Refused):
            log.debug("peer did not take our goodbye")

    async def _leave(self, leg: LegId, reason: LeaveReason) -> None:
        if self.conference is None:
            return
        try:
            await self._context.submit(self.conference.id, Leave(leg, reason), None)
        except (Refused, Unavailable) as why:
            log.warning("leave not taken", extra={"why": str(why)})
        try:
            await self._context.media.close(leg, reason.value)
        except (Refused, Unavailable):
            log.debug("session was closed already")
        try:
            await self._context.legs.forget(leg)
        except Unavailable:
            log.warning("leg not forgotten: the store is away")

    async def _goodbye(self, before: State, over: _Over) -> None:
        if before is State.CALLING and over.condition is not None:
            self._jmi(jmi.Verb.RETRACT)
            return
        if before in (State.INCOMING, State.OUTGOING, State.ACTIVE) and over.condition is not None:
            reason = v.Reason(over.condition, over.text)
            goodbye = v.Jingle(v.Action.SESSION_TERMINATE, self.facts.sid, reason=reason)
            await self._wire.request(self._iq(goodbye), timeout_s=GOODBYE_S)
        if self.facts.via_jmi and before is State.ACTIVE:
            self._jmi(jmi.Verb.FINISH, over.condition or "success")


def _is_restart(known: v.IceUdp | None, new: v.IceUdp) -> bool:
    return (
        known is not None and bool(new.ufrag) and (new.ufrag, new.pwd) != (known.ufrag, known.pwd)
    )


def _merged(known: v.IceUdp | None, new: v.IceUdp) -> v.IceUdp:
    """New credentials, the old certificate unless a new one is named."""
    if known is None or new.fingerprints:
        return new
    return replace(new, fingerprints=known.fingerprints, setup=known.setup)
