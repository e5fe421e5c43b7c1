"""A hundred switches of size and frame rate within VP9 and AV1 SVC streams that Chromium encoded (MP11, MP14).

What one subscriber gets is decoded by libvpx and dav1d. Decoders do not notice a missing reference, so each picture
must equal, bit for bit, the one that the whole stream shows at that size: leaving out changes nothing of the rest.
Not here: simulcast (test_layers), the same with browsers on both ends (tests/scenarios/test_codecs.py).
"""

import random
import time
from collections.abc import Iterator

import av
import pytest

from sfu import _engine
from tests.adversary.media import Peer, Rig, rig
from tests.engine.svc import Decoder, Frame, Packet, Recording, Shown, frames, parse, recording
from tests.engine.test_layers import received

SWITCHES = 100
PICTURES = 4  # between two switches
INTERVAL_S = 0.006
RATES = (0, 10, 60)  # of at most 160 pictures per second: all, a quarter, half
WIDTHS = (256, 512, 1024)
OURS = 5  # the subscriber's number of the dependency descriptor
TAIL_BYTES = 24  # of a payload: enough to know it again


@pytest.fixture
def under_test() -> Iterator[Rig]:
    with rig() as one:
        yield one


def _stream(under_test: Rig, source: Recording, *, described: bool) -> tuple[Peer, Peer, int]:
    """Publisher, subscriber, the subscription. `described`: dependency descriptors were negotiated."""
    ann, bob = Peer(under_test).connect(), Peer(under_test).connect()
    engine = under_test.engine

    def codec(payload_type: int) -> _engine.Codec:
        return _engine.Codec(
            payload_type=payload_type, name=source.codec, clock_rate=90_000, nack=True, pli=True
        )

    publication = engine.publish(
        ann.transport,
        group=1,
        stream=_engine.ReceiveStream(
            mid="0",
            video=True,
            codecs=[codec(source.payload_type)],
            extensions=_engine.Extensions(
                dependency_descriptor=source.dependency_descriptor if described else 0
            ),
            ssrcs=[(int.from_bytes(source.packets[0][8:12]), 0)],
        ),
    )
    subscription = engine.subscribe(
        bob.transport,
        mid="0",
        video=True,
        codecs=[codec(100)],
        extensions=_engine.Extensions(dependency_descriptor=OURS if described else 0),
        ssrc=77,
        cname="parley",
    )
    engine.set_source(subscription, publication)
    ann.settle()
    return ann, bob, subscription


def _through(
    under_test: Rig, source: Recording, *, described: bool
) -> tuple[int, list[bytes]]:
    """(number of pictures sent, packets that came)"""
    ann, bob, subscription = _stream(under_test, source, described=described)
    choice, endless = random.Random(7), source.endless()
    came: list[bytes] = []
    for _ in range(SWITCHES):
        engine = under_test.engine
        engine.set_layer(subscription, max_layer=choice.randrange(3), paused=False)
        engine.set_frame_rate(subscription, max_fps=choice.choice(RATES))
        for _ in range(PICTURES):
            began = time.monotonic()
            for packet in next(endless):
                ann.send_rtp(packet)
            came.extend(received(bob))
            time.sleep(max(0.0, INTERVAL_S - (time.monotonic() - began)))
    time.sleep(0.1)
    return SWITCHES * PICTURES, came + received(bob)


def _pictures(packets: list[bytes]) -> list[list[Packet]]:
    """By timestamp; without a hole in the numbers."""
    found: list[list[Packet]] = []
    for packet in map(parse, packets):
        if found:
            before = found[-1][-1]
            assert packet.sequence == (before.sequence + 1) & 0xFFFF, "a hole in the numbers"
            ahead = packet.timestamp - before.timestamp & 0xFFFFFFFF
            assert ahead < 1 << 31, "time runs backwards"
            if ahead == 0:
                assert not before.marker, "more of a picture that had ended"
                found[-1].append(packet)
                continue
        found.append([packet])
    return found


def _expected(source: Recording) -> tuple[dict[bytes, int], list[list[Shown]]]:
    """(picture, by the end of any payload; what each layer of each picture shows) of one round."""
    owners: dict[bytes, int] = {}
    shown: list[list[Shown]] = []
    decoder = Decoder(source.codec)
    for index, picture in enumerate(source.pictures()):
        payloads = [parse(packet).payload for packet in picture]
        owners |= {payload[-TAIL_BYTES:]: index for payload in payloads}
        layers = frames(source.codec, payloads)
        shown.append(decoder.decode(layers))
        assert [one.width for one in shown[-1]] == [WIDTHS[frame.spatial] for frame in layers]
    return owners, shown


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("vp9-l3t3_key", False),
        ("vp9-l3t3_key", True),
        ("vp9-l3t3", False),
        ("vp9-l3t3", True),
        ("av1-l3t3_key", True),
        ("av1-l3t3", True),
    ],
)
def test_every_picture_is_as_it_was_drawn(under_test: Rig, name: str, described: bool) -> None:
    source = recording(name)
    sent, came = _through(under_test, source, described=described)
    owners, expected = _expected(source)
    decoder = Decoder(source.codec)
    sizes, rates = set(), set()
    pictures = _pictures(came)
    for picture in pictures:
        owner = {owners[packet.payload[-TAIL_BYTES:]] for packet in picture}
        assert len(owner) == 1, "one picture of parts of several"
        layers = frames(source.codec, (packet.payload for packet in picture))
        shown = decoder.decode(layers)
        whole = expected[owner.pop()]
        assert shown == [whole[frame.spatial] for frame in layers], "nobody drew this"
        sizes.add(shown[-1].width)
        rates.add(max(frame.temporal for frame in layers))
    print(f"{name}: {len(pictures)} of {sent} pictures, {len(came)} packets")
    assert sizes == set(WIDTHS)
    assert rates == {0, 1, 2}
    assert len(pictures) < sent * 0.9, "some were left out"


@pytest.mark.parametrize("name", ["vp9-l3t3_key", "av1-l3t3_key"])
def test_a_frame_too_few_would_be_noticed(name: str) -> None:
    source = recording(name)
    _, expected = _expected(source)
    decoder, noticed, is_whole = Decoder(source.codec), 0, True
    for index, picture in enumerate(source.pictures()):
        layers = frames(source.codec, (parse(packet).payload for packet in picture))
        if is_whole and index > 4 and layers[-1].temporal == 0:  # the next at this rate refer to it
            layers, is_whole = layers[:1], False
        try:
            shown = decoder.decode(layers)
        except av.FFmpegError:
            noticed += 1
        else:
            noticed += shown != [expected[index][frame.spatial] for frame in layers]
    assert noticed > 1
