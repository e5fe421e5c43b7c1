"""A dropped socket keeps the leg; a restart of ours re-adopts it; silence ends it."""

import asyncio

import pytest
from livekit.protocol import models, rtc

from bridge.conference.commands import Leave, SetLegState
from bridge.conference.ids import LeaveReason, LegState
from bridge.gateway import SavedLeg, SessionSilent, SessionUp
from bridge.gateways.livekit import silence
from bridge.gateways.livekit.silence import Silence
from tests.gateways.livekit.rig import Client, Rig, eventually, offer_text, section, wrap


async def _resume(rig: Rig, sid: str, subject: str = "alice", **how: object) -> Client:
    join = rtc.JoinRequest(reconnect=True, participant_sid=sid)
    token = rig.token(subject, **how)  # type: ignore[arg-type]
    return await rig.open("/rtc/v1", token, join_request=wrap(join))


async def test_a_dropped_socket_keeps_the_leg_and_the_resume_tells_what_was_missed(
    rig: Rig,
) -> None:
    alice = await rig.single("alice", section("0"))
    info = await alice.add_track("mic")
    carol = await rig.single("carol")
    await carol.until("join")
    sid, gone = rig.leg("alice").id, rig.leg("carol").id
    await alice.socket.close()
    await carol.send(leave=rtc.LeaveRequest())
    await eventually(lambda: not rig.has("carol"))
    bob = await rig.single("bob")
    await bob.until("join")

    again = await _resume(rig, sid)
    assert (await again.next()).WhichOneof("message") == "reconnect"
    states: dict[str, int] = {}
    while len(states) < 3:
        update = await again.until("update")
        states |= {p.sid: p.state for p in update.participants}
    assert states[gone] == models.ParticipantInfo.DISCONNECTED
    assert states[rig.leg("bob").id] == models.ParticipantInfo.JOINED
    assert "room_update" in again.kinds()
    assert rig.leg("alice").tracks[0].id == info.sid
    published = rtc.TrackPublishedResponse(cid="mic", track=info)
    await again.send(sync_state=rtc.SyncState(publish_tracks=[published], track_sids_disabled=[]))
    text = offer_text(section("0"))
    await again.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=5))
    assert (await again.until("answer")).id == 5
    assert len(rig.media.of("open")) == 3  # one each: no session was opened anew


async def test_a_newer_socket_replaces_an_open_one(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    again = await _resume(rig, rig.leg("alice").id)
    await again.until("reconnect")
    await alice.closed()
    await again.send(ping=1)
    await again.until("pong")
    assert rig.has("alice")


@pytest.mark.parametrize("fault", ["unknown", "other subject", "other room"])
async def test_a_resume_that_is_not_ours_starts_over(rig: Rig, fault: str) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    sid = "PA_unknown" if fault == "unknown" else rig.leg("alice").id
    subject = "mallory" if fault == "other subject" else "alice"
    room = "elsewhere" if fault == "other room" else "room"
    again = await _resume(rig, sid, subject, room=room)
    goodbye = await again.until("leave")
    assert goodbye.reason == models.DisconnectReason.STATE_MISMATCH
    assert goodbye.action == rtc.LeaveRequest.RECONNECT
    await again.closed()
    assert rig.has("alice")  # nobody else's leg was touched


async def test_a_published_track_that_we_do_not_know_means_start_over(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    unknown = rtc.TrackPublishedResponse(cid="x", track=models.TrackInfo(sid="TR_x"))
    await alice.send(sync_state=rtc.SyncState(publish_tracks=[unknown]))
    assert (await alice.until("leave")).action == rtc.LeaveRequest.RECONNECT
    await eventually(lambda: not rig.has("alice"))


async def test_disabled_tracks_and_subscriptions_of_a_sync_state_are_applied(rig: Rig) -> None:
    bob = await rig.single("bob")
    info = await bob.add_track("cam", type=models.TrackType.VIDEO)
    alice = await rig.single("alice")
    await alice.until("join")
    await alice.send(
        sync_state=rtc.SyncState(
            subscription=rtc.UpdateSubscription(track_sids=[info.sid], subscribe=False),
            track_sids_disabled=[info.sid],
        )
    )
    await eventually(lambda: rig.media.of("wish") != [])
    assert rig.media.of("wish")[0][2].paused
    assert rig.media.of("set_subscribed")[0][1:] == (info.sid, False)


@pytest.fixture
async def quick(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The same rules with shorter times."""
    monkeypatch.setattr(silence, "CLOSED_AND_SILENT_S", 0.1)
    monkeypatch.setattr(silence, "OPEN_AND_SILENT_S", 0.2)
    return rig


async def test_closed_and_silent_is_left(quick: Rig) -> None:
    alice = await quick.single("alice")
    await alice.until("join")
    leg = quick.leg("alice")
    quick.signal(SessionUp(leg.id), leg)
    await asyncio.sleep(0.05)
    await alice.socket.close()
    await asyncio.sleep(0.3)
    assert quick.has("alice")  # media still flows
    quick.signal(SessionSilent(leg.id), leg)
    await eventually(lambda: not quick.has("alice"))
    assert quick.commands[-1] == Leave(leg.id, LeaveReason.LOST)


async def test_open_but_silent_ends_with_a_full_reconnect(quick: Rig) -> None:
    alice = await quick.single("alice")
    goodbye = await alice.until("leave")  # its media never came up
    assert goodbye.reason == models.DisconnectReason.CONNECTION_TIMEOUT
    await eventually(lambda: not quick.has("alice"))


def test_the_times_of_silence() -> None:
    one = Silence(0.0)
    assert one.deadline_s() == 5.0
    one.opened(1.0)
    assert one.deadline_s() == 31.0
    one.session_up("a")
    one.session_up("b")
    assert one.deadline_s() is None
    one.session_silent("a", 10.0)
    assert one.deadline_s() is None  # the other session still speaks
    one.session_silent("b", 12.0)
    assert one.deadline_s() == 42.0
    one.closed(13.0)
    assert one.deadline_s() == 18.0
    one.opened(14.0)
    one.session_up("b")
    one.closed(20.0)
    assert one.deadline_s() is None  # closed, but media flows
    one.session_silent("b", 40.0)
    assert one.deadline_s() == 40.0  # the worker waited its 5 s already


async def _restart(rig: Rig, *, alive: bool) -> Rig:
    """Another parley process: same conferences, same store, same worker, a new gateway."""
    after = Rig(rig.tmp)
    after.directory, after.legs, after.media = rig.directory, rig.legs, rig.media
    after.conferences = rig.conferences
    after.gateway = after.make()
    record = rig.directory.records[0]
    saved = [
        SavedLeg(record, leg, rig.legs.saved[leg.id], (str(leg.id),), alive)
        for leg in rig.view(record.id)
    ]
    await after.gateway.readopt(saved)
    return after


async def test_after_a_restart_the_client_resumes_where_it_was(rig: Rig) -> None:
    alice = await rig.single("alice", section("0"))
    info = await alice.add_track("mic")
    leg = rig.leg("alice")
    await rig.submit(rig.directory.records[0].id, SetLegState(leg.id, LegState.ACTIVE))
    first = sdp_version(await _offer(alice, 2))
    after = await _restart(rig, alive=True)
    async with after.serving():
        again = await _resume(after, leg.id)
        await again.until("reconnect")
        published = rtc.TrackPublishedResponse(cid="mic", track=info)
        await again.send(sync_state=rtc.SyncState(publish_tracks=[published]))
        answer = await _offer(again, 3)
        assert sdp_version(answer) > first
        assert after.leg("alice").id == leg.id
        more = await again.add_track("cam", type=models.TrackType.VIDEO)
        assert set(after.legs.saved[leg.id]["cids"]) == {info.sid, more.sid}  # type: ignore[call-overload]
        assert len(after.media.of("open")) == 1


async def test_a_leg_whose_sessions_died_is_ended_and_its_client_starts_over(rig: Rig) -> None:
    alice = await rig.single("alice")
    await alice.until("join")
    leg = rig.leg("alice")
    after = await _restart(rig, alive=False)
    async with after.serving():
        await eventually(lambda: not after.has("alice"))
        assert after.commands == [Leave(leg.id, LeaveReason.LOST)]
        again = await _resume(after, leg.id)
        assert (await again.until("leave")).reason == models.DisconnectReason.STATE_MISMATCH


async def _offer(client: Client, number: int) -> rtc.SessionDescription:
    text = offer_text(section("0"))
    await client.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=number))
    answer: rtc.SessionDescription = await client.until("answer", lambda a: a.id == number)
    return answer


def sdp_version(description: rtc.SessionDescription) -> int:
    return int(description.sdp.splitlines()[1].split()[2])
