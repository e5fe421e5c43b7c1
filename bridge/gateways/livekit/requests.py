"""What a client asks over an open socket: SignalRequest -> commands and media calls (inbound).

Fact sheet section 2.5. Pings are answered in `signalling`. Read over, because nothing depends on them here:
update_layers, subscription_permission, simulate, update_audio_track, update_video_track, data blobs.
Not here: order and time limits (`device`), what is allowed (the conference).
"""

import json
import logging
from typing import Final

from livekit.protocol import rtc

from bridge.conference.commands import Rename, SetMuted
from bridge.conference.errors import Malformed, Refused
from bridge.conference.ids import LeaveReason, TrackId
from bridge.gateways.livekit import wire
from bridge.gateways.livekit.device import Device
from bridge.gateways.livekit.grants import MAX_ATTRIBUTES, MAX_METADATA, MAX_NAME
from sfu.description import Malformed as MalformedDescription
from sfu.description import Wish
from sfu.sdp import parse_candidate

log = logging.getLogger(__name__)

MAX_SIDS: Final = 1024  # tracks named in one message
MAX_CANDIDATE: Final = 4096  # characters of a candidateInit


async def handle(device: Device, request: rtc.SignalRequest) -> None:
    """Raises `Malformed` when the client broke the protocol; refusals are answered here."""
    match request.WhichOneof("message"):
        case "offer":
            await device.negotiator.offer(request.offer)
        case "answer":
            await device.negotiator.answer(request.answer)
        case "trickle":
            await trickle(device, request.trickle)
        case "add_track":
            session = await device.negotiator.for_publishing()
            device.send(await device.publications.announce(session, request.add_track))
        case "mute":
            await mute(device, request.mute)
        case "subscription":
            await subscribe(device, request.subscription)
        case "track_setting":
            await track_setting(device, request.track_setting)
        case "leave":
            await device.leave(LeaveReason.LEFT)
        case "sync_state":
            await sync_state(device, request.sync_state)
        case "update_metadata":
            await update_metadata(device, request.update_metadata)
        case "publish_data_track_request":
            refusal = rtc.RequestResponse(
                reason=rtc.RequestResponse.UNSUPPORTED_TYPE,
                publish_data_track=request.publish_data_track_request,
            )
            device.send(rtc.SignalResponse(request_response=refusal))
        case _:
            log.debug("request read over")


async def trickle(device: Device, request: rtc.TrickleRequest) -> None:
    """A remote candidate. Only its existence matters: we never send to a named address (S18)."""
    session = device.negotiator.session_of(request.target)
    if session is None or not request.candidateInit:
        return
    if len(request.candidateInit) > MAX_CANDIDATE:
        raise Malformed("candidate too long")
    try:
        init = json.loads(request.candidateInit)
    except (ValueError, RecursionError) as why:
        raise Malformed("candidate is not JSON") from why
    text = init.get("candidate") if isinstance(init, dict) else None
    if not isinstance(text, str):
        raise Malformed("candidate without text")
    if not text.strip():
        return  # the end of candidates
    try:
        candidate = parse_candidate(text)
    except MalformedDescription as why:
        raise Malformed(str(why)) from why
    mid = init.get("sdpMid")
    mid = mid[:32] if isinstance(mid, str) else ""
    await device.services.context.media.candidates(session, mid, (candidate,))


async def mute(device: Device, request: rtc.MuteTrackRequest) -> None:
    command = SetMuted(device.leg_id, TrackId(request.sid), request.muted)
    try:
        await device.services.context.submit(device.conference.id, command, None)
    except Refused as why:
        log.info("unmute refused", extra={"leg": device.leg_id, "why": str(why)})
        again = rtc.MuteTrackRequest(sid=request.sid, muted=True)
        device.send(rtc.SignalResponse(mute=again))


async def subscribe(device: Device, request: rtc.UpdateSubscription) -> None:
    sids = list(request.track_sids)
    for named in request.participant_tracks:
        sids.extend(named.track_sids)
    if not device.state.claims.video.can_subscribe:
        return
    for track in _known(device, sids):
        await device.services.context.media.set_subscribed(device.leg_id, track, request.subscribe)


async def track_setting(device: Device, request: rtc.UpdateTrackSettings) -> None:
    for track in _known(device, list(request.track_sids)):
        await _wish(device, track, wire.wish_of(request))


async def sync_state(device: Device, request: rtc.SyncState) -> None:
    """After a resume. A published track that we do not know means our memories differ: start over."""
    leg = device.leg
    ours = set() if leg is None else {track.id for track in leg.tracks}
    if any(published.track.sid not in ours for published in request.publish_tracks):
        log.info("resume with an unknown track", extra={"leg": device.leg_id})
        device.send(wire.start_over())
        await device.leave(LeaveReason.FAILED)
        return
    if request.HasField("subscription"):
        await subscribe(device, request.subscription)
    for track in _known(device, list(request.track_sids_disabled)):
        await _wish(device, track, Wish(paused=True))


async def update_metadata(device: Device, request: rtc.UpdateParticipantMetadata) -> None:
    reason, why = rtc.RequestResponse.OK, ""
    try:
        await _update_metadata(device, request)
    except Refused as refused:
        reason, why = rtc.RequestResponse.NOT_ALLOWED, str(refused)
    except Malformed as malformed:
        reason, why = rtc.RequestResponse.LIMIT_EXCEEDED, str(malformed)
    answer = rtc.RequestResponse(
        request_id=request.request_id, reason=reason, message=why, update_metadata=request
    )
    device.send(rtc.SignalResponse(request_response=answer))


async def _update_metadata(device: Device, request: rtc.UpdateParticipantMetadata) -> None:
    leg, state = device.leg, device.state
    if leg is None or not state.claims.video.can_update_own_metadata:
        raise Refused("Your token does not allow changing metadata.")
    attributes = dict(state.attributes)
    for key, value in request.attributes.items():
        if len(key) + len(value) > MAX_NAME:
            raise Malformed("attribute too long")
        attributes[key] = value
        if not value:
            del attributes[key]  # LiveKit: an empty value removes the attribute
    if len(attributes) > MAX_ATTRIBUTES or len(request.metadata) > MAX_METADATA:
        raise Malformed("metadata too long")
    if len(request.name) > MAX_NAME:
        raise Malformed("name too long")
    if request.name and request.name != leg.name and not state.claims.is_matrix:
        rename = Rename(leg.account, request.name, leg.avatar)
        await device.services.context.submit(device.conference.id, rename, None)
    metadata = request.metadata or state.metadata
    if (metadata, attributes) != (state.metadata, state.attributes):
        state.metadata, state.attributes = metadata, attributes
        state.bump += 1
        await device.save()
        device.services.rooms.tell_of(device.leg or leg)


async def _wish(device: Device, track: TrackId, wish: Wish) -> None:
    try:
        await device.services.context.media.wish(device.leg_id, track, wish)
    except Refused as why:  # not subscribed (any more): the message crossed an end
        log.debug("wish refused", extra={"leg": device.leg_id, "why": str(why)})


def _known(device: Device, sids: list[str]) -> list[TrackId]:
    """Those that exist, and are somebody else's; clients name tracks that ended a moment ago."""
    if len(sids) > MAX_SIDS:
        raise Malformed("too many tracks named")
    wanted = set(sids)
    return [
        track.id
        for leg in device.services.rooms.legs(device.conference.id)
        if leg.id != device.leg_id
        for track in leg.tracks
        if track.id in wanted
    ]
