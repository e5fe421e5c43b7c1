"""Data packets and chat over the channels."""

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models

from bridge.conference.commands import Bind, Mute, Say
from bridge.conference.errors import Malformed
from bridge.conference.ids import Account, Actor, Network, Place, Role
from bridge.gateway import ChannelMessage
from bridge.gateways.livekit import budget
from tests.gateways.livekit.rig import Rig, eventually

STREAM = models.DataStream


async def _pair(rig: Rig, **how: Any) -> None:
    for name in ("alice", "bob"):
        await (await rig.single(name, **how)).until("join")


def _take(rig: Rig, name: str, packet: models.DataPacket, channel: str = "_reliable") -> None:
    leg = rig.leg(name)
    rig.signal(ChannelMessage(leg.id, channel, packet.SerializeToString(), True), leg)


def _sent(rig: Rig, name: str) -> list[models.DataPacket]:
    sid = rig.leg(name).id
    return [
        models.DataPacket.FromString(data) for session, _, data in rig.media.sent if session == sid
    ]


async def test_a_packet_is_stamped_whatever_it_claims(rig: Rig) -> None:
    await _pair(rig)
    user = models.UserPacket(payload=b"x", topic="t", participant_identity="forged")
    _take(rig, "alice", models.DataPacket(user=user, participant_identity="forged"), "_lossy")
    await eventually(lambda: len(rig.media.sent) == 1)
    assert rig.media.sent[0][1] == "_lossy"
    (packet,) = _sent(rig, "bob")
    assert packet.participant_identity == rig.leg("alice").identity
    assert packet.user.participant_identity == rig.leg("alice").identity
    assert packet.participant_sid == rig.leg("alice").id
    assert packet.user.payload == b"x"


async def test_a_named_destination_is_the_only_one(rig: Rig) -> None:
    await _pair(rig)
    await (await rig.single("carol")).until("join")
    carol = rig.leg("carol")
    packet = models.DataPacket(
        rpc_request=models.RpcRequest(id="1", method="m"),
        destination_identities=[str(carol.identity)],
    )
    _take(rig, "alice", packet)
    await eventually(lambda: len(rig.media.sent) == 1)
    assert rig.media.sent[0][0] == carol.id


async def test_what_only_servers_say_and_garbage_is_dropped(rig: Rig) -> None:
    await _pair(rig)
    _take(rig, "alice", models.DataPacket(speaker=models.ActiveSpeakerUpdate()))
    leg = rig.leg("alice")
    rig.signal(ChannelMessage(leg.id, "_reliable", b"\xff\xff\xff", True), leg)
    rig.signal(ChannelMessage(leg.id, "_reliable", b"\x12" * 70_000, True), leg)
    _take(rig, "alice", models.DataPacket(user=models.UserPacket(payload=b"after")))
    await eventually(lambda: len(rig.media.sent) == 1)
    assert _sent(rig, "bob")[0].user.payload == b"after"
    assert rig.has("alice")


async def test_a_token_without_data_sends_none(rig: Rig) -> None:
    await _pair(rig, can_publish_data=False)
    _take(rig, "alice", models.DataPacket(user=models.UserPacket(payload=b"x")))
    await (await rig.single("carol")).until("join")
    assert rig.media.sent == []


def _budget(payload: bytes) -> models.DataPacket:
    return models.DataPacket(user=models.UserPacket(payload=payload, topic=budget.TOPIC))


async def test_a_budget_caps_who_sent_it_and_is_told_to_nobody(rig: Rig) -> None:
    """MP32; also who may not send data may say how much it wants to get."""
    await _pair(rig, can_publish_data=False)
    for payload in (b'{"type":"budget","bps":500000}', b'{"type":"budget","bps":null}'):
        _take(rig, "alice", _budget(payload))
    _take(rig, "alice", _budget(b'{"type":"budget","bps":-1}'))
    await eventually(lambda: len(rig.media.of("limit")) == 2)
    alice = rig.leg("alice").id
    assert [bps for _, bps in rig.media.of("limit")] == [500_000, 0]
    assert all(session.startswith(alice) for session, _ in rig.media.of("limit"))
    assert rig.media.sent == []
    assert rig.has("alice")


@pytest.mark.parametrize(
    ("bps", "cap"),
    [("0", 0), ("null", 0), ("1", 1), ("500000", 500_000), ("9" * 30, budget.MAX_BPS)],
)
def test_a_budget_is_read(bps: str, cap: int) -> None:
    assert budget.read_bps(_budget(b'{"type":"budget","bps":%s}' % bps.encode())) == cap


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "bps", "budget"]), one, max_size=3)
        ),
    ).map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda bps: json.dumps({"type": "budget", "bps": bps}).encode(), st.floats() | st.integers()
    )
)
def test_whatever_a_budget_is_it_is_a_number_or_malformed(payload: bytes) -> None:
    try:
        bps = budget.read_bps(_budget(payload))
    except Malformed:
        return
    assert type(bps) is int
    assert 0 <= bps <= budget.MAX_BPS


def _text(stream_id: str, *parts: str, topic: str = "lk.chat") -> list[models.DataPacket]:
    header = STREAM.Header(
        stream_id=stream_id, topic=topic, mime_type="text/plain", text_header=STREAM.TextHeader()
    )
    packets = [models.DataPacket(stream_header=header)]
    for index, part in enumerate(parts):
        chunk = STREAM.Chunk(stream_id=stream_id, chunk_index=index, content=part.encode())
        packets.append(models.DataPacket(stream_chunk=chunk))
    return [*packets, models.DataPacket(stream_trailer=STREAM.Trailer(stream_id=stream_id))]


async def test_a_chat_stream_becomes_one_line_for_everybody_but_its_author(rig: Rig) -> None:
    await _pair(rig)
    for packet in _text("s1", "hello ", "wörld"):
        _take(rig, "alice", packet)
    await eventually(lambda: len(rig.media.sent) == 3)
    (say,) = [c for c in rig.commands if isinstance(c, Say)]
    assert (say.text, say.source, say.origin) == ("hello wörld", "livekit", None)
    assert say.source_id == f"{rig.leg('alice').id}/s1"
    assert say.by.account == Account(Network.TOKEN, "alice")
    header, chunk, trailer = _sent(rig, "bob")
    assert header.stream_header.topic == "lk.chat"
    assert header.participant_identity == rig.leg("alice").identity
    assert dict(header.stream_header.attributes) == {
        "parley.name": "Alice",
        "parley.network": "token",
    }
    assert chunk.stream_chunk.content.decode() == "hello wörld"
    assert trailer.stream_trailer.stream_id == header.stream_header.stream_id


async def test_a_line_from_another_network_reaches_every_leg(rig: Rig) -> None:
    await _pair(rig)
    by = Actor(Account(Network.XMPP, "romeo@x.test"), Role.MEMBER, "Romeo")
    record = rig.directory.records[0]
    place = Place(Network.XMPP, "room@muc.x.test")
    owner = Actor(Account(Network.MATRIX, "@o:hs.test"), Role.OWNER)
    await rig.submit(record.id, Bind(owner, place))
    text = "é" * 20_000  # more than one chunk
    await rig.submit(record.id, Say(by, text, "1", "xmpp", origin=place))
    await eventually(
        lambda: all(
            any(p.WhichOneof("value") == "stream_trailer" for p in _sent(rig, name))
            for name in ("alice", "bob")
        )
    )
    header, *chunks, _ = _sent(rig, "alice")
    assert header.stream_header.attributes["parley.name"] == "Romeo"
    assert header.stream_header.total_length == 40_000
    assert all(len(c.stream_chunk.content) <= 15_000 for c in chunks)
    assert "".join(c.stream_chunk.content.decode() for c in chunks) == text


async def test_inline_deflated_and_legacy_texts_are_lines_too(rig: Rig) -> None:
    await _pair(rig)
    deflate = zlib.compressobj(wbits=-15)
    content = deflate.compress(b"short") + deflate.flush()
    header = STREAM.Header(
        stream_id="i",
        topic="lk.chat",
        text_header=STREAM.TextHeader(),
        inline_content=content,
        compression=STREAM.CompressionType.DEFLATE_RAW,
    )
    _take(rig, "alice", models.DataPacket(stream_header=header))
    _take(rig, "alice", models.DataPacket(chat_message=models.ChatMessage(id="l", message="old")))
    await eventually(lambda: len([c for c in rig.commands if isinstance(c, Say)]) == 2)
    assert [c.text for c in rig.commands if isinstance(c, Say)] == ["short", "old"]


async def test_other_streams_and_private_chats_are_relayed_as_they_are(rig: Rig) -> None:
    await _pair(rig)
    for packet in _text("s2", "file", topic="files"):
        _take(rig, "alice", packet)
    private = _text("s3", "psst")
    for packet in private:
        packet.destination_identities.append(str(rig.leg("bob").identity))
        _take(rig, "alice", packet)
    await eventually(lambda: len(rig.media.sent) == 6)
    assert not [c for c in rig.commands if isinstance(c, Say)]


async def test_a_chat_bomb_is_refused(rig: Rig) -> None:
    await _pair(rig)
    deflate = zlib.compressobj(wbits=-15)
    content = deflate.compress(b"a" * 10_000_000) + deflate.flush()
    header = STREAM.Header(
        stream_id="bomb",
        topic="lk.chat",
        text_header=STREAM.TextHeader(),
        inline_content=content,
        compression=STREAM.CompressionType.DEFLATE_RAW,
    )
    _take(rig, "alice", models.DataPacket(stream_header=header))
    for packet in _text("long", *(["x" * 15_000] * 5)):
        _take(rig, "alice", packet)
    for packet in _text("s4", "fine"):
        _take(rig, "alice", packet)
    await eventually(lambda: any(isinstance(c, Say) for c in rig.commands))
    assert [c.text for c in rig.commands if isinstance(c, Say)] == ["fine"]
    assert rig.has("alice")


async def test_mutes_do_not_touch_text(rig: Rig) -> None:
    await _pair(rig)
    admin = Actor(Account(Network.MATRIX, "@admin:hs.test"), Role.OWNER)
    await rig.submit(rig.directory.records[0].id, Mute(admin, rig.leg("alice").account, None))
    for packet in _text("s5", "still here"):
        _take(rig, "alice", packet)
    await eventually(lambda: any(isinstance(c, Say) for c in rig.commands))
