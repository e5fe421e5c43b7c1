"""A running session changes: mute, candidates, ICE restart, contents that come and go.

XEP-0166 section 6 (content actions), XEP-0167 section 8 (mute), XEP-0176 sections 5.2 and 6.
DEVIATES: transport-replace (ICE restart of XEP-0176 section 6) is refused with transport-reject; no client
we know sends it. An ICE restart by new credentials in transport-info (Conversations) is answered.
Not here: the life of the call (`call`).
"""

import logging
from dataclasses import replace

import sfu.description as sd
from bridge.conference.commands import Unpublish
from bridge.conference.ids import LeaveReason
from bridge.gateways.xmpp.callleg import CallLeg, Over
from bridge.gateways.xmpp.jingle import describe
from bridge.gateways.xmpp.jingle import values as v

log = logging.getLogger(__name__)


class Changes(CallLeg):
    async def info(self, info: v.Info | None) -> None:
        if info is None or info.kind not in (v.InfoKind.MUTE, v.InfoKind.UNMUTE):
            return
        parts = [p for p in self.facts.parts.values() if info.name in ("", p.name)]
        await self.set_muted(parts, info.kind is v.InfoKind.MUTE)

    async def transport_info(self, jingle: v.Jingle) -> None:
        if self.facts.leg is None:
            return
        restarted = False
        for content in jingle.contents:
            if content.name not in self.facts.parts or content.transport is None:
                continue
            known = self.remote_content(content.name)
            if known is not None and _is_restart(known.transport, content.transport):
                self.replace_remote(
                    replace(known, transport=_merged(known.transport, content.transport))
                )
                restarted = True
                continue
            candidates = describe.usable(content.transport.candidates)
            if candidates:
                await self.context.media.candidates(self.facts.leg, content.name, candidates)
        if restarted:
            await self.restarted()

    async def restarted(self) -> None:
        answer = await self.renegotiate()
        await self.save()
        contents = tuple(
            replace(content, description=None)
            for content in describe.to_contents(answer, v.Party.RESPONDER)
        )
        await self.request(v.Jingle(v.Action.TRANSPORT_INFO, self.facts.sid, contents=contents))

    async def content_add(self, jingle: v.Jingle) -> None:
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
            await self.request(
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
        await self.expect(content.name, section.kind, content.creator)
        if section.direction.sends:
            await self.publish(self.facts.parts[content.name])
        answer = await self.renegotiate()
        await self.save()
        ours = tuple(
            replace(c, creator=content.creator)
            for c in describe.to_contents(answer, self.facts.we)
            if c.name == content.name
        )
        action = v.Action.CONTENT_ACCEPT if ours else v.Action.CONTENT_REJECT
        await self.request(
            v.Jingle(
                action,
                self.facts.sid,
                contents=ours or (replace(content, description=None, transport=None),),
                bundle=answer.bundle,
            )
        )

    async def content_remove(self, jingle: v.Jingle) -> None:
        for content in jingle.contents:
            part = self.facts.parts.pop(content.name, None)
            known = self.remote_content(content.name)
            if part is None:
                continue
            if known is not None:
                self.replace_remote(replace(known, senders=v.Senders.NONE))
            if part.is_published and self.conference is not None and self.facts.leg is not None:
                await self.context.submit(
                    self.conference.id, Unpublish(self.facts.leg, part.track), None
                )
        if not self.facts.parts:
            raise Over("success", LeaveReason.LEFT)
        await self.save()

    async def content_modify(self, jingle: v.Jingle) -> None:
        """Whether they send: the camera's or microphone's switch of some clients."""
        for content in jingle.contents:
            part = self.facts.parts.get(content.name)
            if part is not None:
                direction = describe.direction_of(content.senders, self.facts.we.other)
                if direction.sends:
                    await self.publish(part)
                await self.set_muted([part], not direction.sends)


def _is_restart(known: v.IceUdp | None, new: v.IceUdp) -> bool:
    return (
        known is not None and bool(new.ufrag) and (new.ufrag, new.pwd) != (known.ufrag, known.pwd)
    )


def _merged(known: v.IceUdp | None, new: v.IceUdp) -> v.IceUdp:
    """New credentials, the old certificate unless a new one is named."""
    if known is None or new.fingerprints:
        return new
    return replace(new, fingerprints=known.fingerprints, setup=known.setup)
