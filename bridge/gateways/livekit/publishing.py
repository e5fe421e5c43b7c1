"""A leg's own tracks: announced, matched to media sections, ended.

LiveKit matches a media section by its msid track id, which is the announced `cid` (fact sheet section 2.3);
a track ends when none of its sections sends any more.
Not here: the rest of negotiation (`single`, `dual`), who may publish (the conference; sources here).
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from livekit.protocol import rtc

from bridge.conference.commands import Publish, Unpublish
from bridge.conference.errors import ConferenceError, Malformed, Refused
from bridge.conference.events import TrackPublished
from bridge.conference.ids import ConferenceId, LegId, TrackId
from bridge.gateway import Context
from bridge.gateways.livekit import wire
from bridge.gateways.livekit.state import WireState
from sfu.description import Codec, Description, MediaKind, Section

MAX_ANNOUNCED: Final = 32  # the conference allows fewer live ones; ended ones leave


class Publications:
    """Announced tracks of one leg. `save` writes the wire state; the peer is told afterwards."""

    def __init__(
        self,
        context: Context,
        conference: ConferenceId,
        leg: LegId,
        state: WireState,
        save: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._conference = conference
        self._leg = leg
        self._state = state
        self._save = save

    async def announce(self, session: str, ask: rtc.AddTrackRequest) -> rtc.SignalResponse:
        """Make the track known everywhere; returns `track_published`, or why not."""
        try:
            return await self._announce(session, ask)
        except Refused as why:
            return _refusal(ask, rtc.RequestResponse.NOT_ALLOWED, why)
        except Malformed as why:
            return _refusal(ask, rtc.RequestResponse.INVALID_REQUEST, why)

    async def _announce(self, session: str, ask: rtc.AddTrackRequest) -> rtc.SignalResponse:
        if ask.sid:
            raise Refused("Backup codecs are not enabled.")
        track = TrackId("TR_" + secrets.token_hex(8))
        command = wire.publish_of(self._leg, track, ask, self._context.config.livekit.video_codecs)
        allowed = self._state.claims.video.can_publish_sources
        if allowed and command.source.value not in allowed:
            raise Refused("Your token does not allow this source.")
        if len(self._state.cids) >= MAX_ANNOUNCED:
            raise Refused("Too many tracks.")
        cids = wire.cids_of(ask)
        self._state.cids[track] = list(cids)
        self._state.codecs[track] = wire.codec_of(command, ask)
        if command.disable_dtx:
            self._state.steady.append(track)
        try:
            await self._save()
            await self._expect(session, command, cids)
            events = await self._context.submit(self._conference, command, None)
        except ConferenceError:
            self._state.forget(track)
            raise
        published = next(e for e in events if isinstance(e, TrackPublished))
        answer = rtc.TrackPublishedResponse(cid=ask.cid, track=wire.track_info(published.track))
        return rtc.SignalResponse(track_published=answer)

    async def _expect(self, session: str, command: Publish, cids: tuple[str, ...]) -> None:
        await self._context.media.expect(
            session,
            command.track,
            command.kind,
            command.source,
            match=cids,
            layers=wire.layer_specs(command.layers),
            encrypted=command.encrypted,
        )

    def preferred(self, offer: Description) -> Description:
        """The offer with each track's announced codec in front: who answers decides what is sent.

        livekit's clients offer all they know in one order, and expect their server to sort.
        """
        owners = self._owners()

        def sorted_section(section: Section) -> Section:
            wanted = self._state.codecs.get(owners.get(section.track or "", ""), "").lower()
            codecs = sorted(section.codecs, key=lambda codec: codec.name.lower() != wanted)
            return replace(section, codecs=tuple(codecs))

        return replace(offer, sections=tuple(map(sorted_section, offer.sections)))

    def pausing(self, answer: Description) -> Description:
        """The answer that asks for pauses in silence (Opus DTX), except where the client announced to make none.

        libwebrtc makes them if the other side asks, and livekit's clients expect their server to ask.
        """

        def asked(section: Section) -> Section:
            owner = self._state.mids.get(section.mid)
            if section.kind is not MediaKind.AUDIO or owner is None or owner in self._state.steady:
                return section
            return replace(section, codecs=tuple(map(_with_pauses, section.codecs)))

        return replace(answer, sections=tuple(map(asked, answer.sections)))

    def _owners(self) -> dict[str, str]:
        return {cid: track for track, cids in self._state.cids.items() for cid in cids}

    async def match(self, offer: Description) -> tuple[TrackId, ...]:
        """Note which section carries which track; returns tracks that no section sends any more."""
        mids = self._state.mids
        before = dict(mids)
        owners = self._owners()
        for section in offer.sections:
            if section.kind is MediaKind.APPLICATION:
                continue
            if section.rejected or not section.direction.sends:
                mids.pop(section.mid, None)
            elif (owner := owners.get(section.track or "")) is not None:
                mids[section.mid] = owner
        ended = {track for track in before.values() if track not in mids.values()}
        for track in ended:
            self._state.forget(track)
        if mids != before:
            await self._save()
        return tuple(TrackId(track) for track in ended)

    async def unpublish(self, tracks: tuple[TrackId, ...]) -> None:
        for track in tracks:
            await self._context.submit(self._conference, Unpublish(self._leg, track), None)

    def forget(self, track: TrackId) -> None:
        """The conference ended it."""
        self._state.forget(track)
        self._state.mids = {mid: t for mid, t in self._state.mids.items() if t != track}


def _with_pauses(codec: Codec) -> Codec:
    if codec.name.lower() != "opus" or codec.parameter("usedtx") is not None:
        return codec
    return replace(codec, parameters=(*codec.parameters, ("usedtx", "1")))


def _refusal(
    ask: rtc.AddTrackRequest, reason: rtc.RequestResponse.Reason, why: ConferenceError
) -> rtc.SignalResponse:
    answer = rtc.RequestResponse(reason=reason, message=str(why), add_track=ask)
    return rtc.SignalResponse(request_response=answer)
