"""LiveKit's protobuf values <-> ours. Pure.

livekit/protocol (livekit_models.proto, livekit_rtc.proto, 2026-08): ParticipantInfo, TrackInfo, AddTrack,
Room, LeaveRequest and friends.
Not here: caps before parsing (`frames`), when something is sent (`device`), data packets (`data`).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from livekit.protocol import models, rtc

from bridge.conference.commands import Layer, Publish
from bridge.conference.errors import Malformed
from bridge.conference.events import Leg, Track
from bridge.conference.ids import LeaveReason, LegId, LegState, TrackId, TrackKind, TrackSource
from bridge.conference.ports import ConferenceRecord
from bridge.gateways.livekit.grants import MAX_NAME, VideoGrant
from sfu.description import LayerSpec, Wish

PROTOCOL: Final = 17  # what client-sdk-js 2.22 speaks
PING_INTERVAL_S: Final = 5
PING_TIMEOUT_S: Final = 15
MAX_LAYERS: Final = 4
MAX_PIXELS: Final = 16_384  # of one side of a picture
AUDIO_CODECS: Final = ("audio/opus", "audio/red")
SERVER_VERSION: Final = "1.9.0"  # clients switch features by it: data streams and v1 are in

_SOURCES: Final = {
    models.TrackSource.UNKNOWN: TrackSource.UNKNOWN,
    models.TrackSource.CAMERA: TrackSource.CAMERA,
    models.TrackSource.MICROPHONE: TrackSource.MICROPHONE,
    models.TrackSource.SCREEN_SHARE: TrackSource.SCREEN_SHARE,
    models.TrackSource.SCREEN_SHARE_AUDIO: TrackSource.SCREEN_SHARE_AUDIO,
}
_SOURCE_NUMBERS: Final = {source: number for number, source in _SOURCES.items()}
_STATES: Final = {
    LegState.JOINING: models.ParticipantInfo.JOINED,
    LegState.ACTIVE: models.ParticipantInfo.ACTIVE,
    LegState.LOST: models.ParticipantInfo.ACTIVE,  # LiveKit has no word; quality LOST says it
}
_RIDS: Final = {models.VideoQuality.LOW: "q", models.VideoQuality.MEDIUM: "h"}

_GOODBYES: Final = {
    LeaveReason.LEFT: (models.DisconnectReason.CLIENT_INITIATED, rtc.LeaveRequest.DISCONNECT),
    LeaveReason.LOST: (models.DisconnectReason.CONNECTION_TIMEOUT, rtc.LeaveRequest.RECONNECT),
    LeaveReason.REPLACED: (models.DisconnectReason.DUPLICATE_IDENTITY, rtc.LeaveRequest.DISCONNECT),
    LeaveReason.REMOVED: (models.DisconnectReason.PARTICIPANT_REMOVED, rtc.LeaveRequest.DISCONNECT),
    LeaveReason.ENDED: (models.DisconnectReason.ROOM_DELETED, rtc.LeaveRequest.DISCONNECT),
    LeaveReason.FAILED: (models.DisconnectReason.MEDIA_FAILURE, rtc.LeaveRequest.RECONNECT),
}


@dataclass(frozen=True, slots=True)
class Extras:
    """What LiveKit knows of a participant and the conference does not. `bump` counts its changes."""

    grant: VideoGrant
    metadata: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    bump: int = 0
    subject: str = ""


def participant_info(
    leg: Leg, extras: Extras | None = None, *, to_itself: bool = False
) -> models.ParticipantInfo:
    """`to_itself`: a client with a foreign token knows itself by its token's subject."""
    info = models.ParticipantInfo(
        sid=leg.id,
        identity=(leg.token_subject or leg.identity) if to_itself else leg.identity,
        name=leg.name,
        state=_STATES[leg.state],
        tracks=[track_info(track) for track in leg.tracks],
        joined_at=leg.joined_ms // 1000,
        joined_at_ms=leg.joined_ms,
        version=leg.version,
        is_publisher=bool(leg.tracks),
        kind=models.ParticipantInfo.STANDARD,
        permission=models.ParticipantPermission(
            can_subscribe=leg.can_subscribe,
            can_publish=leg.can_publish,
            can_publish_data=True,
            hidden=leg.hidden,
        ),
    )
    if extras is not None:
        info.metadata = extras.metadata
        info.attributes.update(dict(extras.attributes))
        info.version = leg.version + extras.bump
        info.permission.can_publish_data = extras.grant.can_publish_data
        info.permission.can_update_metadata = extras.grant.can_update_own_metadata
    return info


def departed_info(
    leg: Leg, reason: LeaveReason, extras: Extras | None = None
) -> models.ParticipantInfo:
    info = participant_info(leg, extras)
    info.state = models.ParticipantInfo.DISCONNECTED
    info.disconnect_reason = _GOODBYES[reason][0]
    del info.tracks[:]
    return info


def track_info(track: Track) -> models.TrackInfo:
    """`muted` is what the others hear: the publisher's own mute or a moderator's."""
    layers = [
        models.VideoLayer(
            quality=_quality(layer.quality),
            width=layer.width,
            height=layer.height,
            bitrate=layer.bitrate_bps,
            rid=layer.rid,
        )
        for layer in track.layers
    ]
    is_audio = track.kind is TrackKind.AUDIO
    info = models.TrackInfo(
        sid=track.id,
        type=models.TrackType.AUDIO if is_audio else models.TrackType.VIDEO,
        name=track.name,
        muted=track.muted or track.forced,
        width=track.width,
        height=track.height,
        simulcast=len(layers) > 1,
        source=_SOURCE_NUMBERS[track.source],
        layers=layers,
        mime_type=track.mime_type or ("audio/opus" if is_audio else "video/VP8"),
        disable_dtx=track.disable_dtx,
        stereo=track.stereo,
        disable_red=track.encrypted,  # or nobody could take it out for those who do not know it
        stream=track.stream,
        encryption=models.Encryption.GCM if track.encrypted else models.Encryption.NONE,
    )
    info.codecs.append(models.SimulcastCodecInfo(mime_type=info.mime_type, layers=layers))
    return info


def publish_of(
    leg: LegId, track: TrackId, ask: rtc.AddTrackRequest, video_codecs: Sequence[str]
) -> Publish:
    """The announcement in our words. Raises `Malformed`."""
    if ask.type not in (models.TrackType.AUDIO, models.TrackType.VIDEO):
        raise Malformed("track of an unknown type")
    if not 0 < len(ask.cid) <= MAX_NAME or len(ask.name) > MAX_NAME or len(ask.stream) > MAX_NAME:
        raise Malformed("cid, name or stream of a bad length")
    kind = TrackKind.AUDIO if ask.type == models.TrackType.AUDIO else TrackKind.VIDEO
    codec = ask.simulcast_codecs[0].codec if ask.simulcast_codecs else ""
    if len(codec) > 64:
        raise Malformed("codec name too long")
    return Publish(
        leg=leg,
        track=track,
        kind=kind,
        source=_SOURCES.get(ask.source, TrackSource.UNKNOWN),
        name=ask.name,
        muted=ask.muted,
        encrypted=ask.encryption != models.Encryption.NONE,
        mime_type=_mime(kind, codec, video_codecs),
        width=min(ask.width, MAX_PIXELS),
        height=min(ask.height, MAX_PIXELS),
        layers=_layers(ask) if kind is TrackKind.VIDEO else (),
        stream=ask.stream,
        disable_dtx=ask.disable_dtx,
        stereo=ask.stereo,
    )


def cids_of(ask: rtc.AddTrackRequest) -> tuple[str, ...]:
    """Every name under which the track's media section may arrive (its msid track id)."""
    if len(ask.simulcast_codecs) > 4:
        raise Malformed("too many simulcast codecs")
    cids = [ask.cid, *(codec.cid for codec in ask.simulcast_codecs)]
    if any(len(cid) > MAX_NAME for cid in cids):
        raise Malformed("cid too long")
    return tuple(dict.fromkeys(cid for cid in cids if cid))


def codec_of(command: Publish, ask: rtc.AddTrackRequest) -> str:
    """The encoding name it shall be sent in. RED hides Opus from us under encryption: nobody could be spared it."""
    if command.kind is TrackKind.AUDIO:
        return "opus" if ask.disable_red or command.encrypted else "red"
    return command.mime_type.rpartition("/")[2]


def layer_specs(layers: Sequence[Layer]) -> tuple[LayerSpec, ...]:
    return tuple(LayerSpec(la.rid, la.width, la.height, la.bitrate_bps) for la in layers)


def _layers(ask: rtc.AddTrackRequest) -> tuple[Layer, ...]:
    """Lowest first. A single layer has no rid (client-sdk-js sends it without)."""
    found = list(ask.layers) or [la for codec in ask.simulcast_codecs[:1] for la in codec.layers]
    if len(found) > MAX_LAYERS:
        raise Malformed("too many layers")
    found.sort(key=lambda layer: layer.quality)
    return tuple(
        Layer(
            rid=_rid(layer, alone=len(found) == 1),
            width=min(layer.width, MAX_PIXELS),
            height=min(layer.height, MAX_PIXELS),
            bitrate_bps=layer.bitrate,
            quality=min(layer.quality, 2),
        )
        for layer in found
    )


def _rid(layer: models.VideoLayer, *, alone: bool) -> str:
    if layer.rid:
        if len(layer.rid) > 16:
            raise Malformed("rid too long")
        return layer.rid
    return "" if alone else _RIDS.get(layer.quality, "f")


def _mime(kind: TrackKind, codec: str, video_codecs: Sequence[str]) -> str:
    """What will be sent: the codec asked for if it is allowed, else the first that is."""
    if kind is TrackKind.AUDIO:
        return "audio/opus"
    name = codec.lower().removeprefix("video/").upper() or "VP8"
    return f"video/{name if name in video_codecs else video_codecs[0]}"


def _enabled(video_codecs: Iterable[str]) -> list[models.Codec]:
    mimes = (*AUDIO_CODECS, *(f"video/{codec}" for codec in video_codecs))
    return [models.Codec(mime=mime) for mime in mimes]


def _quality(rank: int) -> models.VideoQuality:
    return (models.VideoQuality.LOW, models.VideoQuality.MEDIUM, models.VideoQuality.HIGH)[
        max(0, min(rank, 2))
    ]


def _priority(theirs: int) -> int:
    """LiveKit: 1 is the highest, 0 unset. Ours: higher goes first, 1 is nothing special."""
    return 1 if theirs == 0 else max(2, 256 - theirs)


def subscribed_quality(track: Track, highest: int) -> rtc.SignalResponse:
    """Dynacast: which qualities a publisher need not encode. `highest` is an index of its layers, -1 = none.

    COMPAT: the message has the same twice, by codec (client-sdk-js 2.x, rust-sdks) and without (older ones).
    Publishers without dynacast ignore it; nothing in the protocol tells us who they are.
    """
    top = models.VideoQuality.HIGH
    if highest < 0:
        limit = -1
    elif highest >= len(track.layers) - 1:
        limit = top
    else:
        limit = track.layers[highest].quality
    qualities = [
        rtc.SubscribedQuality(quality=_quality(rank), enabled=rank <= limit)
        for rank in range(top + 1)
    ]
    codec = (track.mime_type or "video/VP8").rpartition("/")[2].lower()
    update = rtc.SubscribedQualityUpdate(
        track_sid=track.id,
        subscribed_qualities=qualities,
        subscribed_codecs=[rtc.SubscribedCodec(codec=codec, qualities=qualities)],
    )
    return rtc.SignalResponse(subscribed_quality_update=update)


def wish_of(setting: rtc.UpdateTrackSettings) -> Wish:
    """A pixel size wins over the quality: adaptive streams leave the latter at its zero, which is LOW."""
    has_size = setting.width > 0 and setting.height > 0
    return Wish(
        width=min(setting.width, MAX_PIXELS) if has_size else 0,
        height=min(setting.height, MAX_PIXELS) if has_size else 0,
        fps=min(setting.fps, 240),
        quality=2 if has_size else min(setting.quality, 2),
        priority=_priority(setting.priority),
        paused=setting.disabled or setting.quality == models.VideoQuality.OFF,
    )


def room_info(
    record: ConferenceRecord, legs: Iterable[Leg], video_codecs: Iterable[str]
) -> models.Room:
    visible = [leg for leg in legs if not leg.hidden]
    created = min((leg.joined_ms for leg in visible), default=0)
    return models.Room(
        sid="RM_" + hashlib.sha256(record.id.encode()).hexdigest()[:12],
        name=record.room,
        creation_time=created // 1000,
        creation_time_ms=created,
        enabled_codecs=_enabled(video_codecs),
        num_participants=len(visible),
        num_publishers=sum(1 for leg in visible if leg.tracks),
    )


def server_info() -> models.ServerInfo:
    return models.ServerInfo(
        edition=models.ServerInfo.Standard,
        version=SERVER_VERSION,
        protocol=PROTOCOL,
        node_id="ND_parley",
    )


def join_response(
    record: ConferenceRecord,
    own: models.ParticipantInfo,
    legs: Sequence[Leg],
    *,
    subscriber_primary: bool,
    sif_trailer: bytes,
    video_codecs: Sequence[str],
    ice_servers: Sequence[rtc.ICEServer] = (),
) -> rtc.JoinResponse:
    """Without the others, whom `news` appends."""
    return rtc.JoinResponse(
        room=room_info(record, legs, video_codecs),
        participant=own,
        server_version=SERVER_VERSION,
        subscriber_primary=subscriber_primary,
        client_configuration=client_configuration(),
        ping_timeout=PING_TIMEOUT_S,
        ping_interval=PING_INTERVAL_S,
        server_info=server_info(),
        sif_trailer=sif_trailer,
        ice_servers=ice_servers,
        enabled_publish_codecs=_enabled(video_codecs),
    )


def client_configuration() -> models.ClientConfiguration:
    return models.ClientConfiguration(resume_connection=models.ClientConfigSetting.ENABLED)


def leave(reason: LeaveReason) -> rtc.SignalResponse:
    why, action = _GOODBYES[reason]
    return leave_with(why, action)


def leave_with(why: models.DisconnectReason, action: rtc.LeaveRequest.Action) -> rtc.SignalResponse:
    can_reconnect = action != rtc.LeaveRequest.DISCONNECT
    goodbye = rtc.LeaveRequest(can_reconnect=can_reconnect, reason=why, action=action)
    return rtc.SignalResponse(leave=goodbye)


def start_over() -> rtc.SignalResponse:
    """We do not know this session (any more): join afresh."""
    return leave_with(models.DisconnectReason.STATE_MISMATCH, rtc.LeaveRequest.RECONNECT)


def refuse() -> rtc.SignalResponse:
    """The client broke the protocol: trying again would not help."""
    return leave_with(models.DisconnectReason.JOIN_FAILURE, rtc.LeaveRequest.DISCONNECT)
