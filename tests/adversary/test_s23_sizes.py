"""S23: size before parse. Bombs cost neither time on the loop nor memory; the socket is closed, others go on."""

import asyncio
import base64
import gzip
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from bridge.conference.errors import Malformed
from bridge.gateways.livekit import frames, joins
from tests.gateways.livekit.rig import Client, Rig, wrap

KIB = 1024


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path).serving() as served:
        yield served


def _field(number: int, content: bytes) -> bytes:
    size, head = len(content), bytearray()
    tag = number << 3 | 2
    for value in (tag, size):
        while value > 0x7F:
            head.append(value & 0x7F | 0x80)
            value >>= 7
        head.append(value)
    return bytes(head) + content


def _sync_state(fields: int) -> bytes:
    """A sync state of that many empty published tracks: two bytes each on the wire."""
    return _field(12, _field(3, b"") * fields)


def _nested(depth: int) -> bytes:
    """Request echo inside request echo, as deep as the bytes allow."""
    content = b""
    for _ in range(depth):
        content = _field(2, content)
    return content


BOMBS = {
    "2 MiB of empty submessages": _sync_state(1 << 20),
    "250 KiB of empty submessages": _sync_state(125 * KIB),
    "64 KiB of empty sids": _field(7, _field(1, b"") * (31 * KIB)),
    "a mute of 65 KiB": _field(5, _field(1, b"x" * 65 * KIB)),
    "an add_track of 70 KiB": _field(4, _field(1, b"x" * 70 * KIB)),
    "an offer of 257 KiB": _field(1, _field(2, b"x" * 257 * KIB)),
    "10,000 top fields": b"\x70\x01" * 10_000,
    "group wire type": b"\x0b" * 100,
    "endless varint": b"\xff" * 64,
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "cut in the middle": _field(1, b"abc")[:-1],
    "bad UTF-8 in a string": _field(5, _field(1, b"\xff\xfe")),
    "empty": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_is_malformed_within_20_ms_of_the_loop(bomb: str) -> None:
    data = BOMBS[bomb]
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)

    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    began_cpu = time.process_time()
    with pytest.raises(Malformed):
        await frames.read_request(data)
    used_s = time.process_time() - began_cpu
    watcher.cancel()
    assert (
        used_s < 0.1
    )  # CPU, with the watcher's own share: the wall clock of a shared machine lies
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib <= 5 * KIB


async def test_the_walk_stops_at_the_cap() -> None:
    """What bounds the loop: at most 4,096 fields are looked at, whatever the size."""
    began = time.process_time()
    for _ in range(10):
        with pytest.raises(Malformed):
            frames.parse_bounded(rtc.SignalRequest, _sync_state(15 * KIB))
    assert (time.process_time() - began) / 10 < 0.02


async def test_real_messages_pass() -> None:
    tracks = [
        rtc.TrackPublishedResponse(
            cid=f"c{i}",
            track=models.TrackInfo(sid=f"TR_{i}", layers=[models.VideoLayer(width=1)] * 3),
        )
        for i in range(64)
    ]
    sdp = rtc.SessionDescription(type="offer", sdp="x" * 200 * KIB)
    state = rtc.SyncState(publish_tracks=tracks, offer=sdp)
    data = rtc.SignalRequest(sync_state=state).SerializeToString()
    assert (await frames.read_request(data)).sync_state == state


async def test_a_depth_beyond_the_cap_is_malformed() -> None:
    """No request nests that deep by our descriptors, so the walk is tried on one that does."""
    from google.protobuf import struct_pb2

    value = struct_pb2.Value(number_value=1)
    for _ in range(20):
        value = struct_pb2.Value(list_value=struct_pb2.ListValue(values=[value]))
    with pytest.raises(Malformed):
        frames.parse_bounded(struct_pb2.Value, value.SerializeToString())


def _wrapped(inner: bytes, compression: rtc.WrappedJoinRequest.Compression) -> str:
    wrapped = rtc.WrappedJoinRequest(compression=compression, join_request=inner)
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()


GZIP, NONE = rtc.WrappedJoinRequest.GZIP, rtc.WrappedJoinRequest.NONE
JOIN_BOMBS = {
    "1000:1 gzip": _wrapped(gzip.compress(b"\x00" * 30_000_000), GZIP),
    "gzip of 257 KiB": _wrapped(gzip.compress(b"a" * 257 * KIB), GZIP),
    "cut gzip": _wrapped(gzip.compress(b"abc" * 1000)[:-8], GZIP),
    "no gzip": _wrapped(b"plain", GZIP),
    "gzip inside gzip": _wrapped(gzip.compress(gzip.compress(b"\x0a\x00")), GZIP),
    "unknown compression": base64.urlsafe_b64encode(b"\x08\x09\x12\x00").decode(),
    "too long": "A" * 100 * KIB,
    "not base64": "<script>",
    "10,000 track requests": _wrapped(_field(5, b"") * 10_000, NONE),
    "100 track requests": _wrapped(_field(5, b"") * 100, NONE),
    "long metadata": _wrapped(rtc.JoinRequest(metadata="m" * 5000).SerializeToString(), NONE),
    "outside ASCII": "é" * 10,
}


@pytest.mark.parametrize("bomb", JOIN_BOMBS)
async def test_a_join_bomb_is_malformed(bomb: str) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(Malformed):
        await joins.read_join_request(JOIN_BOMBS[bomb])
    assert time.process_time() - began < 0.1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib <= 5 * KIB


async def test_a_real_join_request_of_18_kb_passes() -> None:
    offer = rtc.SessionDescription(type="offer", sdp="a=rtpmap:111 opus/48000/2\r\n" * 700, id=1)
    ask = await joins.read_join_request(wrap(rtc.JoinRequest(publisher_offer=offer)))
    assert ask.offer == offer


@pytest.mark.parametrize(
    ("bomb", "code"),
    [
        ("250 KiB of empty submessages", aiohttp.WSCloseCode.PROTOCOL_ERROR),
        ("64 KiB of empty sids", aiohttp.WSCloseCode.PROTOCOL_ERROR),
        ("endless varint", aiohttp.WSCloseCode.PROTOCOL_ERROR),
        ("2 MiB of empty submessages", aiohttp.WSCloseCode.MESSAGE_TOO_BIG),
    ],
)
async def test_a_bomb_over_the_socket_closes_it_and_spares_others(
    rig: Rig, bomb: str, code: int
) -> None:
    bob = await rig.single("bob")
    await bob.until("join")
    mallory = await rig.single("mallory")
    await mallory.until("join")
    await mallory.socket.send_bytes(BOMBS[bomb])
    assert await mallory.closed() == code
    await bob.send(ping=1)
    await bob.until("pong")


async def test_text_frames_are_not_spoken(rig: Rig) -> None:
    mallory = await rig.single("mallory")
    await mallory.until("join")
    await mallory.socket.send_str('{"ping": 1}')
    assert await mallory.closed() == aiohttp.WSCloseCode.UNSUPPORTED_DATA


async def test_a_flood_is_closed_as_a_policy_violation(rig: Rig) -> None:
    """S24 at the socket: 50 messages/s, bursts of 200."""
    bob = await rig.single("bob")
    await bob.until("join")
    mallory = await rig.single("mallory")
    await mallory.until("join")
    try:
        for _ in range(400):
            await mallory.send(ping=1)
    except (ConnectionError, aiohttp.ClientConnectionError):
        pass  # closed while we still sent
    assert await mallory.closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
    await bob.send(ping=1)
    await bob.until("pong")


async def test_guessing_tokens_is_slowed_down(rig: Rig) -> None:
    """S24: after 10 failures an address waits, longer each time."""
    statuses = []
    for _ in range(14):
        with pytest.raises(aiohttp.WSServerHandshakeError) as why:
            await rig.open("/rtc", "guess")
        statuses.append(why.value.status)
    assert statuses[:10] == [401] * 10
    assert 429 in statuses[10:]
    honest = await rig.single("alice")  # from the same address
    await honest.until("join")


async def _hostile(rig: Rig, **message: object) -> None:
    client: Client = await rig.single("mallory")
    await client.until("join")
    await client.send(**message)
    goodbye = await client.until("leave")
    assert goodbye.action == rtc.LeaveRequest.DISCONNECT


async def test_a_hostile_description_ends_the_leg(rig: Rig) -> None:
    text = "v=0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 5000
    await _hostile(rig, offer=rtc.SessionDescription(type="offer", sdp=text, id=1))


async def test_a_hostile_candidate_ends_the_leg(rig: Rig) -> None:
    await _hostile(
        rig, trickle=rtc.TrickleRequest(candidateInit='{"candidate":"candidate:\\u0000"}')
    )


async def test_a_thousand_named_tracks_end_the_leg(rig: Rig) -> None:
    await _hostile(rig, subscription=rtc.UpdateSubscription(track_sids=["TR_x"] * 1025))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for kind in (rtc.SignalRequest, rtc.JoinRequest, rtc.WrappedJoinRequest, models.DataPacket):
        try:
            frames.parse_bounded(kind, data)
        except Malformed:
            continue


@given(st.data())
def test_a_damaged_message_is_a_message_or_malformed(data: st.DataObject) -> None:
    offer = rtc.SessionDescription(type="offer", sdp="v=0", id=1)
    state = rtc.SyncState(offer=offer, track_sids_disabled=["a", "b"])
    raw = bytearray(rtc.SignalRequest(sync_state=state).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    try:
        frames.parse_bounded(rtc.SignalRequest, bytes(raw))
    except Malformed:
        return
