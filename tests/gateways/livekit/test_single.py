"""One connection (`/rtc/v1`): join, offers with ids, requirements, publishing, leaving."""

import json

import aiohttp
import pytest
from livekit.protocol import models, rtc

from bridge.conference.commands import Mute, Publish, Remove, SetMuted, Unpublish
from bridge.conference.ids import (
    Account,
    Actor,
    Identity,
    LeaveReason,
    Network,
    Role,
    TrackId,
    TrackKind,
)
from bridge.gateway import (
    LayersWanted,
    NegotiationWanted,
    QualityGrade,
    SessionOver,
    SessionUp,
    Speaking,
    StreamPaused,
)
from sfu import sdp
from sfu.description import DescriptionType, Direction, MediaKind
from tests.gateways.livekit.rig import Rig, eventually, offer_text, section, wrap

A, V, D = MediaKind.AUDIO, MediaKind.VIDEO, MediaKind.APPLICATION
ADMIN = Actor(Account(Network.MATRIX, "@admin:hs.test"), Role.OWNER)


async def test_the_first_message_is_the_join_then_the_answer_with_the_offers_id(rig: Rig) -> None:
    client = await rig.single("alice", section("0"), section("1", V), section("2", D))
    first = (await client.next()).join
    assert first.room.name == "room"
    assert first.room.sid.startswith("RM_")
    assert first.participant.identity == "alice"  # its own token's subject
    assert first.participant.sid.startswith("PA_")
    assert first.participant.state == models.ParticipantInfo.JOINED
    assert not first.subscriber_primary
    assert (first.ping_interval, first.ping_timeout) == (5, 15)
    mimes = [codec.mime for codec in first.enabled_publish_codecs]
    assert mimes == ["audio/opus", "audio/red", "video/VP8"]
    answer = await client.until("answer")
    assert (answer.type, answer.id) == ("answer", 1)
    described = sdp.parse(answer.sdp, DescriptionType.ANSWER)
    assert described.sections[0].transport.ice_lite
    assert rig.media.of("open")[0][1:] == ("livekit-single", True, True)


async def test_wire_state_is_saved_before_the_client_is_told(rig: Rig) -> None:
    client = await rig.single("alice")
    sid = (await client.next()).join.participant.sid
    assert rig.legs.saved[sid]["v"] == 1
    info = await client.add_track("cid-1")
    assert rig.legs.saved[sid]["cids"] == {info.sid: ["cid-1"]}


async def test_an_offer_without_id_is_answered_without(rig: Rig) -> None:
    client = await rig.single("alice")
    await client.send(offer=rtc.SessionDescription(type="offer", sdp=offer_text(section("0"))))
    assert (await client.until("answer")).id == 0


async def test_others_hear_of_a_newcomer_under_the_ghosts_identity(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    bob = await rig.single("bob")
    join = await bob.until("join")
    assert [p.name for p in join.other_participants] == ["Alice"]
    assert join.other_participants[0].identity.startswith("@_parley_alice:hs.test")
    assert join.participant.identity == "bob"
    seen = await alice.until_participant(lambda p: p.name == "Bob")
    assert seen.identity.startswith("@_parley_bob:hs.test")
    assert seen.sid == join.participant.sid
    await alice.until("room_update", lambda u: u.room.num_participants == 2)


async def test_a_matrix_account_keeps_its_matrixrtc_identity(rig: Rig) -> None:
    token = rig.matrix_token("@carol:hs.test", "@carol:hs.test:DEVICE")
    client = await rig.single("", token=token)
    join = await client.until("join")
    assert join.participant.identity == "@carol:hs.test:DEVICE"
    leg = rig.leg("@carol:hs.test:DEVICE")
    assert leg.account == Account(Network.MATRIX, "@carol:hs.test")
    assert leg.identity == Identity("@carol:hs.test:DEVICE")
    assert leg.role is Role.MEMBER


async def test_a_foreign_token_is_a_guest_and_its_room_admin_a_moderator(rig: Rig) -> None:
    await (await rig.single("guest", issuer="theirs")).until("join")
    await (await rig.single("boss", issuer="theirs", room_admin=True)).until("join")
    assert rig.leg("guest").account == Account(Network.TOKEN, "guest")
    assert (rig.leg("guest").role, rig.leg("boss").role) == (Role.GUEST, Role.MODERATOR)


async def test_publishing_is_expected_then_published_then_told(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    bob = await rig.single("bob")
    await bob.until("join")
    layers = [
        models.VideoLayer(quality=models.VideoQuality.HIGH, width=1280, height=720, bitrate=1),
        models.VideoLayer(quality=models.VideoQuality.LOW, width=320, height=180),
        models.VideoLayer(quality=models.VideoQuality.MEDIUM, width=640, height=360),
    ]
    info = await alice.add_track(
        "cam",
        type=models.TrackType.VIDEO,
        source=models.TrackSource.CAMERA,
        layers=layers,
        simulcast_codecs=[rtc.SimulcastCodec(codec="vp8", cid="cam-2")],
        encryption=models.Encryption.GCM,
    )
    assert info.sid.startswith("TR_")
    assert (info.simulcast, info.mime_type) == (True, "video/VP8")
    assert info.encryption == models.Encryption.GCM
    session, track, kind, _, how = rig.media.of("expect")[0]
    assert (session, track, kind) == (rig.leg("alice").id, info.sid, TrackKind.VIDEO)
    assert how["match"] == ("cam", "cam-2")
    assert [layer.rid for layer in how["layers"]] == ["q", "h", "f"]
    assert how["encrypted"]
    order = [type(c) for c in rig.commands if isinstance(c, Publish)]
    assert order == [Publish]
    seen = await bob.until_participant(lambda p: len(p.tracks) == 1)
    assert seen.tracks[0].sid == info.sid
    assert seen.is_publisher


async def test_a_single_layer_has_no_rid(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.add_track(
        "cam", type=models.TrackType.VIDEO, layers=[models.VideoLayer(quality=2, width=640)]
    )
    assert [layer.rid for layer in rig.media.of("expect")[0][4]["layers"]] == [""]


async def test_a_token_that_may_not_publish_is_told_so(rig: Rig) -> None:
    alice = await rig.single("alice", can_publish=False)
    request = rtc.AddTrackRequest(cid="mic", type=models.TrackType.AUDIO)
    await alice.send(add_track=request)
    refused = await alice.until("request_response")
    assert refused.reason == rtc.RequestResponse.NOT_ALLOWED
    assert refused.add_track.cid == "mic"


async def test_a_source_outside_the_grant_is_refused(rig: Rig) -> None:
    alice = await rig.single("alice", can_publish_sources=("camera",))
    await alice.send(
        add_track=rtc.AddTrackRequest(
            cid="s", type=models.TrackType.VIDEO, source=models.TrackSource.SCREEN_SHARE
        )
    )
    assert (await alice.until("request_response")).reason == rtc.RequestResponse.NOT_ALLOWED


async def test_a_track_ends_when_its_section_stops_sending(rig: Rig) -> None:
    alice = await rig.single("alice")
    info = await alice.add_track("mic")
    for number, direction in ((2, Direction.SENDONLY), (3, Direction.INACTIVE)):
        text = offer_text(section("7", A, direction, "mic"))
        await alice.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=number))
        await alice.until("answer", lambda a, n=number: a.id == n)
    await eventually(lambda: any(isinstance(c, Unpublish) for c in rig.commands))
    ended = [c for c in rig.commands if isinstance(c, Unpublish)]
    assert ended == [Unpublish(rig.leg("alice").id, info.sid)]
    assert "track_unpublished" not in alice.kinds()  # its own doing


async def test_a_restarted_track_with_another_msid_lives_on(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.add_track("mic")
    for number, track in ((2, "mic"), (3, "another-name")):
        text = offer_text(section("7", A, Direction.SENDRECV, track))
        await alice.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=number))
        await alice.until("answer", lambda a, n=number: a.id == n)
    assert len(rig.leg("alice").tracks) == 1


async def test_a_requirement_follows_missing_sections_and_is_not_repeated(rig: Rig) -> None:
    alice = await rig.single("alice", section("0"))
    await alice.until("answer")
    leg = rig.leg("alice")
    rig.signal(NegotiationWanted(leg.id, 1, 1, True), leg)
    need = await alice.until("media_sections_requirement")
    assert (need.num_audios, need.num_videos) == (1, 1)
    rig.signal(NegotiationWanted(leg.id, 2, 1, True), leg)  # one more, while the client works
    need = await alice.until("media_sections_requirement")
    assert (need.num_audios, need.num_videos) == (1, 0)
    rig.media.placed = {"1": ("PA_x|c", "TR_a"), "2": ("PA_x|c", "TR_b"), "3": ("PA_x|c", "TR_v")}
    text = offer_text(section("0"), section("1"), section("2"), section("3", V))
    await alice.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=2))
    answer = await alice.until("answer")
    assert dict(answer.mid_to_track_id) == {"1": "TR_a", "2": "TR_b", "3": "TR_v"}
    await alice.send(ping=1)
    await alice.until("pong")
    assert alice.kinds().count("media_sections_requirement") == 2


async def test_a_requirement_waits_for_the_first_answer(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    leg = rig.leg("alice")
    rig.signal(NegotiationWanted(leg.id, 1, 0, True), leg)
    text = offer_text(section("0", D))
    await alice.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=1))
    need = await alice.until("media_sections_requirement")
    assert need.num_audios == 1
    assert alice.kinds().index("answer") < alice.kinds().index("media_sections_requirement")


async def test_an_ended_track_forces_one_offer(rig: Rig) -> None:
    alice = await rig.single("alice", section("0"))
    await alice.until("answer")
    leg = rig.leg("alice")
    for _ in range(3):
        rig.signal(NegotiationWanted(leg.id, 0, 0, True), leg)
    need = await alice.until("media_sections_requirement")
    assert (need.num_audios, need.num_videos) == (0, 0)
    await alice.send(ping=1)
    await alice.until("pong")
    assert alice.kinds().count("media_sections_requirement") == 1


async def test_a_participant_is_known_before_an_answer_names_its_stream(rig: Rig) -> None:
    alice = await rig.single("alice", section("0"), section("1"))
    await alice.until("answer")
    bob = await rig.single("bob")
    info = await bob.add_track("mic")
    rig.media.placed = {"1": (f"{rig.leg('bob').id}|x", info.sid)}
    text = offer_text(section("0"), section("1"))
    await alice.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=2))
    await alice.until("answer", lambda a: a.id == 2)
    told = [
        p.sid
        for message in alice.log
        if message.WhichOneof("message") == "update"
        for p in message.update.participants
        if p.tracks
    ]
    assert rig.leg("bob").id in told
    assert (await bob.until("track_subscribed")).track_sid == info.sid


async def test_mute_and_unmute_by_the_client(rig: Rig) -> None:
    alice = await rig.single("alice")
    info = await alice.add_track("mic")
    bob = await rig.single("bob")
    await bob.until("join")
    await alice.send(mute=rtc.MuteTrackRequest(sid=info.sid, muted=True))
    await bob.until_participant(lambda p: bool(p.tracks) and p.tracks[0].muted)
    await alice.send(mute=rtc.MuteTrackRequest(sid=info.sid, muted=False))
    await bob.until_participant(lambda p: bool(p.tracks) and not p.tracks[0].muted)
    assert [c.muted for c in rig.commands if isinstance(c, SetMuted)] == [True, False]


async def test_a_force_mute_reaches_the_client_and_cannot_be_undone_by_it(rig: Rig) -> None:
    alice = await rig.single("alice")
    info = await alice.add_track("mic")
    leg = rig.leg("alice")
    await rig.submit(rig.directory.records[0].id, Mute(ADMIN, leg.account, TrackKind.AUDIO))
    told = await alice.until("mute")
    assert (told.sid, told.muted) == (info.sid, True)
    await alice.send(mute=rtc.MuteTrackRequest(sid=info.sid, muted=False))
    assert (await alice.until("mute")).muted


async def test_subscriptions_and_wishes_reach_media(rig: Rig) -> None:
    alice = await rig.single("alice")
    info = await alice.add_track("cam", type=models.TrackType.VIDEO)
    bob = await rig.single("bob")
    await bob.until("join")
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[info.sid], subscribe=False))
    await bob.send(
        track_setting=rtc.UpdateTrackSettings(track_sids=[info.sid], width=900, height=600)
    )
    await bob.send(
        track_setting=rtc.UpdateTrackSettings(
            track_sids=[info.sid, "TR_unknown"],
            quality=models.VideoQuality.MEDIUM,
            fps=12,
            priority=7,
        )
    )
    await bob.send(
        track_setting=rtc.UpdateTrackSettings(track_sids=[info.sid], disabled=True, quality=2)
    )
    await eventually(lambda: len(rig.media.of("wish")) == 3)
    assert rig.media.of("set_subscribed") == [(rig.leg("bob").id, info.sid, False)]
    sized, ranked, paused = [call[2] for call in rig.media.of("wish")]
    assert (sized.width, sized.height, sized.quality) == (900, 600, 2)
    assert (ranked.width, ranked.quality, ranked.fps, ranked.priority) == (0, 1, 12, 249)
    assert (sized.fps, sized.priority) == (0, 1)
    assert paused.paused


async def test_both_pings_are_answered(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.send(ping=5)
    await alice.send(ping_req=rtc.Ping(timestamp=77))
    assert (await alice.until("pong")) > 0
    assert (await alice.until("pong_resp")).last_ping_timestamp == 77


async def test_active_state_speakers_quality_and_pauses_are_told(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    bob = await rig.single("bob")
    info = await bob.add_track("cam", type=models.TrackType.VIDEO)
    leg, other = rig.leg("alice"), rig.leg("bob")
    rig.signal(SessionUp(leg.id), leg)
    speaking = Speaking(((other.id, info.sid, 0.9, True),), info.sid)
    rig.signal(speaking, leg)
    rig.signal(speaking, leg)
    rig.signal(Speaking((), None), leg)
    first = await alice.until("speakers_changed")
    assert [(s.sid, s.active) for s in first.speakers] == [(other.id, True)]
    second = await alice.until("speakers_changed")
    assert [(s.sid, s.active, s.level) for s in second.speakers] == [(other.id, False, 0.0)]
    rig.signal(QualityGrade(leg.id, 0), leg)
    grade = (await alice.until("connection_quality")).updates[0]
    assert (grade.participant_sid, grade.quality) == (leg.id, models.ConnectionQuality.LOST)
    rig.signal(StreamPaused(leg.id, info.sid, True), leg)
    paused = (await alice.until("stream_state_update")).stream_states[0]
    assert (paused.participant_sid, paused.track_sid) == (other.id, info.sid)
    assert paused.state == rtc.StreamState.PAUSED


LAYERS = [
    models.VideoLayer(quality=models.VideoQuality.LOW, width=320, height=180),
    models.VideoLayer(quality=models.VideoQuality.MEDIUM, width=640, height=360),
    models.VideoLayer(quality=models.VideoQuality.HIGH, width=1280, height=720),
]


@pytest.mark.parametrize("is_single", [True, False], ids=["single", "dual"])
async def test_pauses_are_asked_of_those_who_did_not_refuse_them(
    rig: Rig, *, is_single: bool
) -> None:
    """MP19. Of what we send nothing is said: libwebrtc would take it for how it shall send."""
    alice = await (rig.single if is_single else rig.dual)("alice")
    await alice.until("join")
    await alice.add_track("voice")
    await alice.add_track("music", disable_dtx=True)
    sections = [section("0", track="voice", direction=Direction.SENDONLY)]
    sections += [section("1", track="music", direction=Direction.SENDONLY), section("2")]
    description = rtc.SessionDescription(type="offer", sdp=offer_text(*sections), id=7)
    await alice.send(offer=description)
    answer = sdp.parse((await alice.until("answer")).sdp, DescriptionType.ANSWER)
    asked = [one.codecs[0].parameter("usedtx") for one in answer.sections if one.codecs]
    assert asked[:2] == ["1", None]
    assert set(asked[2:]) <= {None}


async def test_a_publisher_hears_which_layers_nobody_watches(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    info = await alice.add_track(
        "cam",
        type=models.TrackType.VIDEO,
        layers=LAYERS,
        simulcast_codecs=[rtc.SimulcastCodec(codec="vp8", cid="cam")],
    )
    leg = rig.leg("alice")
    for highest, enabled in ((0, [0]), (2, [0, 1, 2]), (-1, []), (1, [0, 1])):
        rig.signal(LayersWanted(leg.id, TrackId(info.sid), highest), leg)
        told = await alice.until("subscribed_quality_update")
        assert told.track_sid == info.sid
        (codec,) = told.subscribed_codecs
        assert codec.codec == "vp8"
        for qualities in (told.subscribed_qualities, codec.qualities):
            assert [q.quality for q in qualities] == [0, 1, 2]
            assert [q.quality for q in qualities if q.enabled] == enabled


@pytest.mark.parametrize(
    ("ranks", "highest", "enabled"),
    [([2], 0, [0, 1, 2]), ([0, 1], 1, [0, 1, 2]), ([0, 1], 0, [0]), ([], 2, [0, 1, 2])],
)
async def test_the_last_announced_layer_is_everything(
    rig: Rig, ranks: list[int], highest: int, enabled: list[int]
) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    layers = [models.VideoLayer(quality=models.VideoQuality.ValueType(r)) for r in ranks]
    info = await alice.add_track("cam", type=models.TrackType.VIDEO, layers=layers)
    leg = rig.leg("alice")
    rig.signal(LayersWanted(leg.id, TrackId(info.sid), highest), leg)
    told = await alice.until("subscribed_quality_update")
    assert [q.quality for q in told.subscribed_qualities if q.enabled] == enabled


async def test_trickled_candidates_reach_media_and_the_empty_one_is_the_end(rig: Rig) -> None:
    alice = await rig.single("alice")
    text = "candidate:1 1 udp 1 192.0.2.1 5 typ host"
    for one in (text, ""):
        init = json.dumps({"candidate": one, "sdpMid": "0", "sdpMLineIndex": 0})
        await alice.send(trickle=rtc.TrickleRequest(candidateInit=init))
    await alice.send(ping=1)
    await alice.until("pong")
    await eventually(lambda: len(rig.media.of("candidates")) == 1)
    assert rig.media.of("candidates")[0][1] == "0"


async def test_update_metadata_is_answered_and_told(rig: Rig) -> None:
    alice = await rig.single("alice")
    bob = await rig.single("bob")
    await bob.until("join")
    before = rig.leg("alice").version
    request = rtc.UpdateParticipantMetadata(metadata="m", name="Alicia", request_id=9)
    request.attributes["k"] = "v"
    await alice.send(update_metadata=request)
    answer = await alice.until("request_response")
    assert (answer.request_id, answer.reason) == (9, rtc.RequestResponse.OK)
    told = await bob.until_participant(lambda p: p.metadata == "m")
    assert (told.name, dict(told.attributes)) == ("Alicia", {"k": "v"})
    assert told.version > before


@pytest.mark.parametrize(
    ("reason", "why", "action"),
    [
        (LeaveReason.REMOVED, models.DisconnectReason.PARTICIPANT_REMOVED, 0),
        (LeaveReason.ENDED, models.DisconnectReason.ROOM_DELETED, 0),
        (LeaveReason.REPLACED, models.DisconnectReason.DUPLICATE_IDENTITY, 0),
        (LeaveReason.LOST, models.DisconnectReason.CONNECTION_TIMEOUT, 2),
        (LeaveReason.FAILED, models.DisconnectReason.MEDIA_FAILURE, 2),
    ],
)
async def test_why_a_leg_ended_is_said_in_livekits_words(
    rig: Rig, reason: LeaveReason, why: int, action: int
) -> None:
    from bridge.conference.commands import Leave

    alice = await rig.single("alice")
    await alice.until("join")
    leg = rig.leg("alice")
    await rig.submit(rig.directory.records[0].id, Leave(leg.id, reason))
    goodbye = await alice.until("leave")
    assert (goodbye.reason, goodbye.action) == (why, action)
    await alice.closed()
    await eventually(lambda: rig.media.of("close") != [])
    assert leg.id not in rig.legs.saved


async def test_a_client_that_leaves_is_gone_for_the_others(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    bob = await rig.single("bob")
    await bob.until("join")
    await alice.send(leave=rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED))
    gone = await bob.until_participant(lambda p: p.state == models.ParticipantInfo.DISCONNECTED)
    assert gone.disconnect_reason == models.DisconnectReason.CLIENT_INITIATED
    assert await alice.closed() is not None
    assert "leave" not in alice.kinds()


async def test_removed_by_a_moderator(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    await rig.submit(rig.directory.records[0].id, Remove(ADMIN, rig.leg("alice").account))
    assert (await alice.until("leave")).reason == models.DisconnectReason.PARTICIPANT_REMOVED


async def test_a_second_join_of_one_subject_replaces_the_first(rig: Rig) -> None:
    old = await rig.single("alice")
    await old.until("join")
    new = await rig.single("alice")
    await new.until("join")
    assert (await old.until("leave")).reason == models.DisconnectReason.DUPLICATE_IDENTITY
    assert len(rig.view(rig.directory.records[0].id)) == 1


async def test_a_lost_media_session_asks_for_a_full_reconnect(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    leg = rig.leg("alice")
    rig.signal(SessionOver(leg.id, "lost"), leg)
    goodbye = await alice.until("leave")
    assert goodbye.action == rtc.LeaveRequest.RECONNECT
    assert goodbye.can_reconnect


async def test_a_bug_in_one_leg_ends_that_leg_only(rig: Rig) -> None:
    bob = await rig.single("bob")
    await bob.until("join")
    rig.media.broken = True
    alice = await rig.single("alice", section("0"))
    assert (await alice.until("leave")).action == rtc.LeaveRequest.RECONNECT
    await bob.send(ping=1)
    await bob.until("pong")
    await eventually(lambda: not rig.has("alice"))


async def test_tracks_announced_in_the_join_request_are_published(rig: Rig) -> None:
    track = rtc.AddTrackRequest(cid="mic", type=models.TrackType.AUDIO)
    alice = await rig.single(
        "alice", section("0", A, Direction.SENDONLY, "mic"), join={"add_track_requests": [track]}
    )
    assert (await alice.until("track_published")).cid == "mic"
    await alice.until("answer")
    assert len(rig.leg("alice").tracks) == 1


async def test_a_hidden_leg_is_seen_by_nobody(rig: Rig) -> None:
    bob = await rig.single("bob")
    await bob.until("join")
    ghost = await rig.single("spy", hidden=True)
    await ghost.until("join")
    carol = await rig.single("carol")
    join = await carol.until("join")
    assert [p.name for p in join.other_participants] == ["Bob"]
    assert join.room.num_participants == 2


async def test_a_slug_is_as_good_as_a_room_name(rig: Rig) -> None:
    record = await rig.directory.create(room="alias", slug="demo")
    alice = await rig.single("alice", room="demo")
    assert (await alice.until("join")).room.name == "alias"
    assert [r.id for r in rig.directory.records] == [record.id]


async def test_refusals_before_the_upgrade_are_http_errors(rig: Rig) -> None:
    assert rig.session is not None
    join = wrap(rtc.JoinRequest())
    for path, token, parameter, status in (
        ("/rtc/v1", "nonsense", join, 401),
        ("/rtc/v1", rig.token("a", room_join=False), join, 401),
        ("/rtc/v1", rig.token("a", room=""), join, 401),
        ("/rtc/v1", rig.token("a"), "###", 400),
        ("/rtc/v1", rig.token("a"), "", 400),
        ("/rtc", "", "", 401),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as why:
            await rig.open(path, token, join_request=parameter)
        assert why.value.status == status, (path, parameter)
    assert rig.directory.records == []


async def test_validate_says_success_with_open_cors(rig: Rig) -> None:
    assert rig.session is not None
    query = {"access_token": rig.token("a"), "join_request": wrap(rtc.JoinRequest())}
    for path in ("/rtc/validate", "/rtc/v1/validate"):
        async with rig.session.get(rig.url + path, params=query) as answer:
            assert (answer.status, await answer.text()) == (200, "success")
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with rig.session.get(rig.url + path) as answer:
            assert answer.status == 401
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_bearer_header_is_a_token_too(rig: Rig) -> None:
    assert rig.session is not None
    socket = await rig.session.ws_connect(
        rig.url + "/rtc/v1",
        params={"join_request": wrap(rtc.JoinRequest(metadata="m"), compressed=False)},
        headers={"Authorization": f"Bearer {rig.token('alice')}"},
    )
    message = rtc.SignalResponse.FromString(await socket.receive_bytes())
    assert message.join.participant.identity == "alice"
    await socket.close()
