"""The small pure parts: the outgoing queue, requirements, rates, chat streams, saved state."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, Network, Role
from bridge.gateway import Speaking
from bridge.gateways.livekit import chat
from bridge.gateways.livekit.backoff import Backoff
from bridge.gateways.livekit.grants import Claims, VideoGrant
from bridge.gateways.livekit.news import PARTICIPANTS, QUALITIES, News, join_response, news_of
from bridge.gateways.livekit.signalling import COMPANY_S, MAX_QUEUED, Bucket, Outgoing, Overflow
from bridge.gateways.livekit.single import Requirement
from bridge.gateways.livekit.speakers import Speakers
from bridge.gateways.livekit.state import WireState, from_json
from sfu.description import Description, DescriptionType, MediaKind
from tests.gateways.livekit.rig import Rig, eventually, section


def _info(sid: str, version: int) -> News:
    return news_of(models.ParticipantInfo(sid=sid, version=version))


def _tell(outgoing: Outgoing, *news: News) -> None:
    for one in news:
        outgoing.merge(PARTICIPANTS, one.sid, one.data)


def _pong() -> bytes:
    return rtc.SignalResponse(pong=1).SerializeToString()


async def _drain(outgoing: Outgoing) -> list[rtc.SignalResponse]:
    outgoing.finish()
    found = []
    while (data := await outgoing.take()) is not None:
        found.append(rtc.SignalResponse.FromString(data))
    return found


_infos = st.lists(
    st.builds(
        models.ParticipantInfo,
        sid=st.text(max_size=40),
        metadata=st.text(max_size=300),
        version=st.integers(0, 2**32 - 1),
        state=st.sampled_from(models.ParticipantInfo.State.values()),
    ),
    max_size=5,
)


@given(_infos)
def test_news_reads_as_what_protobuf_would_have_written(
    infos: list[models.ParticipantInfo],
) -> None:
    news = [news_of(info) for info in infos]
    update = rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=infos))
    assert rtc.SignalResponse.FromString(PARTICIPANTS.response(one.data for one in news)) == update
    join = rtc.JoinResponse(server_version="1", ping_timeout=15)
    whole = rtc.JoinResponse(server_version="1", ping_timeout=15, other_participants=infos)
    found = rtc.SignalResponse.FromString(join_response(join, news))
    assert found == rtc.SignalResponse(join=whole)


async def test_waiting_updates_merge_and_stay_before_later_answers() -> None:
    outgoing = Outgoing()
    outgoing.put(_pong())
    _tell(outgoing, _info("a", 1), _info("b", 1))
    answer_to_come = rtc.SignalResponse(answer=rtc.SessionDescription(id=1))
    outgoing.put(answer_to_come.SerializeToString())
    _tell(outgoing, _info("a", 2))  # still waits: merged into the update before the answer
    first, update, answer = await _drain(outgoing)
    assert first.pong == 1
    assert [(p.sid, p.version) for p in update.update.participants] == [("a", 2), ("b", 1)]
    assert answer.answer.id == 1


async def test_a_storm_of_grades_is_one_message() -> None:
    outgoing = Outgoing()
    for sid in "abcab":
        info = rtc.ConnectionQualityInfo(participant_sid=sid, score=4)
        outgoing.merge(QUALITIES, sid, info.SerializeToString())
    (only,) = await _drain(outgoing)
    assert [one.participant_sid for one in only.connection_quality.updates] == ["a", "b", "c"]


async def test_what_waited_for_company_goes_together() -> None:
    """Else each piece would wait for its own, and the last one for seconds."""
    outgoing = Outgoing()
    _tell(outgoing, _info("a", 1))
    assert await outgoing.take()
    _tell(outgoing, _info("b", 1))
    for number in range(20):
        outgoing.put_latest(f"layers {number}", _pong())
    began_s = asyncio.get_running_loop().time()
    for _ in range(21):
        assert await outgoing.take()
    assert COMPANY_S / 2 < asyncio.get_running_loop().time() - began_s < 3 * COMPANY_S


async def test_a_written_update_is_not_touched_again() -> None:
    outgoing = Outgoing()
    _tell(outgoing, _info("a", 1))
    written = rtc.SignalResponse.FromString(await outgoing.take() or b"")
    _tell(outgoing, _info("a", 2))
    (later,) = await _drain(outgoing)
    assert (written.update.participants[0].version, later.update.participants[0].version) == (1, 2)


async def test_the_latest_room_update_replaces_one_that_waits() -> None:
    outgoing = Outgoing()
    for count in (1, 2, 3):
        room = models.Room(num_participants=count)
        update = rtc.SignalResponse(room_update=rtc.RoomUpdate(room=room))
        outgoing.put_latest("room", update.SerializeToString())
    (only,) = await _drain(outgoing)
    assert only.room_update.room.num_participants == 3


async def test_news_about_others_waits_for_company_and_answers_do_not() -> None:
    outgoing = Outgoing()
    _tell(outgoing, _info("a", 1))
    assert await outgoing.take()  # the first goes at once
    _tell(outgoing, _info("a", 2))
    taking = asyncio.create_task(outgoing.take())
    await asyncio.sleep(0)
    _tell(outgoing, _info("b", 1))
    await asyncio.sleep(0)
    assert not taking.done()
    outgoing.put(_pong())
    merged = rtc.SignalResponse.FromString(await taking or b"")
    assert [p.sid for p in merged.update.participants] == ["a", "b"]
    pong = rtc.SignalResponse.FromString(await outgoing.take() or b"")
    assert pong.pong == 1
    _tell(outgoing, _info("c", 1))
    alone = rtc.SignalResponse.FromString(
        await outgoing.take() or b""
    )  # nobody came: its time is up
    assert [p.sid for p in alone.update.participants] == ["c"]


def test_the_queue_is_bounded_in_messages_and_bytes() -> None:
    outgoing = Outgoing()
    for _ in range(MAX_QUEUED):
        outgoing.put(_pong())
    with pytest.raises(Overflow):
        outgoing.put(_pong())
    big = rtc.SignalResponse(refresh_token="x" * 400_000).SerializeToString()
    outgoing = Outgoing()
    outgoing.put(big)
    outgoing.put(big)
    with pytest.raises(Overflow):
        outgoing.put(big)
    outgoing = Outgoing()
    for number in range(10 * MAX_QUEUED):
        _tell(outgoing, _info("a", number))  # merged, so no matter how many


async def test_a_client_that_does_not_read_loses_its_socket_not_its_leg(rig: Rig) -> None:
    """S25."""
    slow = await rig.single("slow")
    await slow.until("join")
    other = await rig.single("other")
    await other.until("join")
    device = rig.gateway._rooms.get(rig.leg("slow").id)
    assert device is not None
    for _ in range(MAX_QUEUED + 1):
        device.send(rtc.SignalResponse(pong=1))
    await slow.closed()
    await eventually(lambda: device._connection is None)
    assert rig.has("slow")
    await other.send(ping=1)
    await other.until("pong")


def test_a_bucket_gives_its_rate_after_its_burst() -> None:
    bucket = Bucket(50, 200, 0.0)
    assert all(bucket.takes(0.0) for _ in range(200))
    assert not bucket.takes(0.0)
    assert sum(bucket.takes(1.0) for _ in range(100)) == 50


def test_backoff_doubles_to_25_s_and_forgets_after_half_an_hour() -> None:
    backoff = Backoff()
    for _ in range(9):
        backoff.failed("a", 0.0)
    assert backoff.wait_s("a", 0.0) == 0.0
    waits = []
    for _ in range(12):
        backoff.failed("a", 0.0)
        waits.append(backoff.wait_s("a", 0.0))
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == 25.0
    assert backoff.wait_s("b", 0.0) == 0.0
    assert backoff.wait_s("a", 1801.0) == 0.0


def _offer(audios: int, videos: int) -> Description:
    sections = [section(f"a{i}") for i in range(audios)]
    sections += [section(f"v{i}", MediaKind.VIDEO) for i in range(videos)]
    return Description(DescriptionType.OFFER, tuple(sections))


def test_a_requirement_asks_for_each_missing_section_once() -> None:
    need = Requirement()
    need.offered(_offer(3, 3))
    need.answered({})
    assert need.ask(force=False) is None
    need.want(2, 0)
    assert need.ask(force=True) == (2, 0)
    need.want(3, 1)
    assert need.ask(force=True) == (1, 1)
    assert need.ask(force=True) is None
    need.offered(_offer(3, 3))  # was under way before the client heard us
    need.answered({})
    assert need.ask(force=False) is None
    need.offered(_offer(6, 4))
    need.answered({MediaKind.AUDIO: 3, MediaKind.VIDEO: 1})
    assert need.ask(force=False) is None
    assert need.ask(force=True) == (0, 0)


def test_after_a_cut_the_client_is_asked_again() -> None:
    need = Requirement()
    need.want(1, 0)
    assert need.ask(force=True) == (1, 0)
    need.restart()
    assert need.ask(force=False) == (1, 0)


def test_speakers_tell_changes_only_and_the_loudest_track_counts() -> None:
    speakers = Speakers()
    levels = (
        ("PA_a", "TR_1", 0.2, True),
        ("PA_a", "TR_2", 0.9, True),
        ("PA_b", "TR_3", 0.9, False),
    )
    first = speakers.change(Speaking(levels, None))  # type: ignore[arg-type]
    assert first is not None
    assert [(s.sid, s.active) for s in first.speakers_changed.speakers] == [("PA_a", True)]
    assert first.speakers_changed.speakers[0].level > 0.8
    assert speakers.change(Speaking(levels, None)) is None  # type: ignore[arg-type]
    assert speakers.change(Speaking((), None)) is not None
    assert speakers.change(Speaking((), None)) is None


_PACKETS = st.builds(
    lambda kind, stream, index, content: {
        "header": models.DataPacket(
            stream_header=models.DataStream.Header(
                stream_id=stream, topic=chat.TOPIC, text_header=models.DataStream.TextHeader()
            )
        ),
        "chunk": models.DataPacket(
            stream_chunk=models.DataStream.Chunk(
                stream_id=stream, chunk_index=index, content=content
            )
        ),
        "trailer": models.DataPacket(stream_trailer=models.DataStream.Trailer(stream_id=stream)),
        "legacy": models.DataPacket(chat_message=models.ChatMessage(id=stream, message="m")),
        "other": models.DataPacket(user=models.UserPacket(payload=content)),
    }[kind],
    st.sampled_from(["header", "chunk", "trailer", "legacy", "other"]),
    st.sampled_from(["", "s1", "s2", "x" * 200, *map(str, range(12))]),
    st.integers(0, 1 << 60),
    st.binary(max_size=5000),
)


@given(st.lists(_PACKETS, max_size=60))
def test_any_packets_are_lines_or_malformed_and_memory_is_bounded(
    packets: list[models.DataPacket],
) -> None:
    streams = chat.Streams()
    for packet in packets:
        try:
            _, line = streams.take(packet)
        except Malformed:
            continue
        assert line is None or len(line.text.encode()) <= chat.MAX_TEXT_BYTES
        assert len(streams._open) <= chat.MAX_OPEN


_TEXT = st.text(max_size=10)


@given(
    st.booleans(),
    st.dictionaries(_TEXT, _TEXT, max_size=3),
    st.dictionaries(_TEXT, st.lists(_TEXT, max_size=2), max_size=3),
    st.dictionaries(_TEXT, _TEXT, max_size=3),
    st.integers(0, 9),
)
def test_wire_state_survives_json(
    is_single: bool,
    attributes: dict[str, str],
    cids: dict[str, list[str]],
    mids: dict[str, str],
    number: int,
) -> None:
    account = Account(Network.MATRIX, "@a:b") if is_single else None
    role = Role.MEMBER if is_single else None
    video = VideoGrant("room", can_publish_sources=("camera",), hidden=is_single)
    state = WireState(
        Claims("ours", "sub", video, "Name", account=account, role=role),
        is_single,
        attributes=attributes,
        cids=cids,
        mids=mids,
        steady=list(cids),
        offers=number,
        descriptions=number,
        bump=number,
    )
    assert from_json(state.to_json()) == state


@pytest.mark.parametrize("saved", [{}, {"v": 2, "token": {}}, {"v": 1}, {"v": 1, "token": {}}])
def test_wire_state_of_another_version_is_malformed(saved: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        from_json(saved)
