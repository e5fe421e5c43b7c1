"""A call as a leg of the conference and as a party of a Jingle session: the steps that calls are made of.

Join, publish, mute and leave on one side; iqs and Jingle messages of ours on the other.
Not here: when which step is taken (`call`), changes of a running session (`callchanges`).
"""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

import sfu.description as sd
from bridge.conference.commands import Join, Leave, Publish, SetMuted
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
from bridge.gateway import Context
from bridge.gateways.xmpp import callstate as cs
from bridge.gateways.xmpp import jmi
from bridge.gateways.xmpp import stanza as st
from bridge.gateways.xmpp.jingle import describe
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.print import print_jingle
from bridge.gateways.xmpp.jingle.session import State
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.wire import Wire

log = logging.getLogger(__name__)

GATEWAY: Final = "xmpp"
ANSWER_S: Final = 15.0  # an iq of ours

_SOURCES: Final = {
    sd.MediaKind.AUDIO: TrackSource.MICROPHONE,
    sd.MediaKind.VIDEO: TrackSource.CAMERA,
}
_TRACK_KINDS: Final = {
    sd.MediaKind.AUDIO: TrackKind.AUDIO,
    sd.MediaKind.VIDEO: TrackKind.VIDEO,
}


class Over(Exception):
    """The call ends: Jingle's condition for the peer (None = they ended it) and our reason."""

    def __init__(self, condition: str | None, reason: LeaveReason, text: str = "") -> None:
        super().__init__(condition or "ended by the peer")
        self.condition = condition
        self.reason = reason
        self.text = text


class CallLeg:
    """What one call knows and can do; `Call` decides."""

    def __init__(
        self,
        context: Context,
        wire: Wire,
        facts: cs.Facts,
        conference: ConferenceRecord | None = None,
    ) -> None:
        self.context = context
        self.wire = wire
        self.facts = facts
        self.conference = conference
        self.on_leg: Callable[[LegId], None] = lambda _: None

    # --- in the conference ---------------------------------------------------------------------------

    async def join(self, conference: ConferenceRecord, admission: cs.Admission) -> LegId:
        leg = LegId("PA_" + secrets.token_hex(8))
        self.facts.leg = leg
        self.on_leg(leg)
        await self.context.submit(
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

    async def expect(self, name: str, kind: sd.MediaKind, creator: v.Party) -> None:
        if self.facts.leg is None:
            raise Unavailable("the leg is gone")
        part = cs.Part(name, kind, TrackId("TR_" + secrets.token_hex(8)), creator)
        self.facts.parts[name] = part
        await self.context.media.expect(
            self.facts.leg, part.track, _TRACK_KINDS[kind], _SOURCES[kind], mid=name
        )

    async def publish(self, part: cs.Part) -> None:
        if self.conference is None or self.facts.leg is None or part.is_published:
            return
        part.is_published = True
        await self.context.submit(
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

    async def set_muted(self, parts: Iterable[cs.Part], muted: bool) -> None:
        if self.conference is None or self.facts.leg is None:
            return
        for part in parts:
            part.is_muted = muted
            if not part.is_published:
                continue
            try:
                await self.context.submit(
                    self.conference.id, SetMuted(self.facts.leg, part.track, muted), None
                )
            except Refused:
                await self.show_forced(part.track, True)  # still held shut by a moderator

    async def show_forced(self, track: TrackId, muted: bool) -> None:
        """Jingle cannot mute the other side; the display of the call can at least show it."""
        part = next((p for p in self.facts.parts.values() if p.track == track), None)
        if part is not None:
            await self._show_muted(part, muted)

    async def show_paused(self, paused: bool) -> None:
        """The one video stream to them is held back for want of bandwidth, or goes on (XEP-0167 section 8).

        Dino shows it as the other side's camera being off; who does not know session-info shows the last picture.
        """
        for part in self.facts.parts.values():
            if part.kind is sd.MediaKind.VIDEO:
                await self._show_muted(part, paused)

    async def _show_muted(self, part: cs.Part, muted: bool) -> None:
        if self.facts.state is not State.ACTIVE:
            return
        kind = v.InfoKind.MUTE if muted else v.InfoKind.UNMUTE
        info = v.Info(kind, part.name, part.creator)
        try:
            await self.request(v.Jingle(v.Action.SESSION_INFO, self.facts.sid, info=info))
        except (Over, Unavailable):
            log.debug("peer does not take session-info")  # a display, not worth the call

    async def save(self) -> None:
        """Before the peer is told (house.md section 7). A call goes on without the store, it then dies with us."""
        if self.conference is None or self.facts.leg is None:
            return
        try:
            await self.context.legs.save(
                self.conference.id, self.facts.leg, GATEWAY, cs.to_wire_state(self.facts)
            )
        except Unavailable:
            log.warning("leg not saved: the store is away")

    async def renegotiate(self) -> sd.Description:
        """Offer the peer's present state to the worker again; returns our answer."""
        if self.facts.leg is None or self.facts.remote is None:
            raise Malformed("renegotiation before the session stands")
        offer = describe.to_description(
            self.facts.remote, self.facts.we.other, sd.DescriptionType.OFFER
        )
        return await self.context.media.offer(self.facts.leg, offer)

    def remote_content(self, name: str) -> v.Content | None:
        contents = self.facts.remote.contents if self.facts.remote is not None else ()
        return next((content for content in contents if content.name == name), None)

    def replace_remote(self, content: v.Content) -> None:
        if self.facts.remote is not None:
            contents = tuple(
                content if c.name == content.name else c for c in self.facts.remote.contents
            )
            self.facts.remote = replace(self.facts.remote, contents=contents)

    # --- on the wire ----------------------------------------------------------------------------------

    async def request(self, jingle: v.Jingle) -> None:
        """One iq of ours. Whatever the peer answers but a result ends the call."""
        try:
            await self.wire.request(self.jingle_iq(jingle), timeout_s=ANSWER_S)
        except RequestFailed as why:
            log.info(
                "peer refused", extra={"action": jingle.action.value, "condition": why.condition}
            )
            lost = why.condition in (
                "item-not-found",
                "service-unavailable",
                "recipient-unavailable",
            )
            raise Over(
                None if lost else "general-error", LeaveReason.LOST if lost else LeaveReason.FAILED
            ) from why

    def jingle_iq(self, jingle: v.Jingle) -> Element:
        iq = st.iq(str(self.facts.peer), str(self.facts.me), "set", "")
        iq.append(print_jingle(jingle))
        return iq

    def ring_message(self, verb: jmi.Verb, reason: str = "", media: tuple[str, ...] = ()) -> None:
        to = (
            self.facts.peer.bare
            if verb in (jmi.Verb.PROPOSE, jmi.Verb.RETRACT)
            else str(self.facts.peer)
        )
        message = st.message(to, str(self.facts.me), "chat", id=secrets.token_hex(8))
        self.wire.send(jmi.put_jmi(message, jmi.Jmi(verb, self.facts.sid, media, reason)))

    async def leave(self, leg: LegId, reason: LeaveReason) -> None:
        if self.conference is None:
            return
        try:
            await self.context.submit(self.conference.id, Leave(leg, reason), None)
        except (Refused, Unavailable) as why:
            log.warning("leave not taken", extra={"why": str(why)})
        try:
            await self.context.media.close(leg, reason.value)
        except (Refused, Unavailable):
            log.debug("session was closed already")
        try:
            await self.context.legs.forget(leg)
        except Unavailable:
            log.warning("leg not forgotten: the store is away")
