"""S8: an SSRC belongs to a transport; nobody publishes, ends or drives another participant's stream.

Also S9 in its simplest form: feedback is accepted only for what was sent to that peer.
"""

import itertools
import struct
from collections.abc import Iterator

import pytest

from sfu import _engine
from tests.adversary.media import (
    QUIET_S,
    SILENCE,
    Peer,
    Rig,
    bye,
    is_rtcp,
    nack,
    pli,
    publish_audio,
    receiver_report,
    rig,
    rtp,
    subscribe_audio,
)

A_SSRC = 0x0A0A0A0A
C_SSRC = 0x0C0C0C0C
TO_B_SSRC = 0x0B0B0B0B
TO_C_SSRC = 0x0C0C0C01


@pytest.fixture
def under_test(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as one:
        yield one


def room(under_test: Rig) -> tuple[Peer, Peer, Peer, int]:
    """A publishes, B and C listen, C is the adversary and publishes too."""
    a, b, c = (Peer(under_test).connect() for _ in range(3))
    publication = publish_audio(a, A_SSRC)
    subscribe_audio(b, publication, TO_B_SSRC)
    subscribe_audio(c, publication, TO_C_SSRC)
    publish_audio(c, C_SSRC)
    a.settle()
    return a, b, c, publication


def says(a: Peer, b: Peer, sequence: int) -> None:
    payload = b"a says %d" % sequence
    a.send_rtp(rtp(A_SSRC, sequence, payload))
    packet = b.receive_rtp()
    assert packet[12:] == payload
    assert packet[8:12] == TO_B_SSRC.to_bytes(4, "big")


def test_publishing_under_anothers_ssrc_reaches_nobody(under_test: Rig) -> None:
    """SSRCs are scoped by transport: at most C's own publication, to which nobody listens, takes them."""
    a, b, c, publication = room(under_test)
    says(a, b, 1)
    for sequence in range(2, 52):
        c.send_rtp(rtp(A_SSRC, sequence, b"stolen"))
    under_test.wait_for_counter("transports", c.transport, "packets_in", 50)
    for sequence in range(2, 12):
        says(a, b, sequence)
    assert b.receive_rtp(QUIET_S) == SILENCE
    assert under_test.wait_for_counter("publications", publication, "packets", 11) == 11


def test_a_bye_for_anothers_ssrc_ends_nothing(under_test: Rig) -> None:
    a, b, c, publication = room(under_test)
    says(a, b, 1)
    c.send_rtp(rtp(C_SSRC, 1))
    c.send_rtcp(receiver_report(C_SSRC) + bye(A_SSRC))
    c.send_rtcp(receiver_report(C_SSRC) + bye(TO_B_SSRC))
    under_test.wait_for_counter("drops", 0, "foreign_ssrc", 1)
    assert not under_test.find("bye", publication)
    for sequence in range(2, 12):
        says(a, b, sequence)


def test_the_owners_bye_is_told(under_test: Rig) -> None:
    """The counterpart: the rule above is not just deafness."""
    a, b, _c, publication = room(under_test)
    says(a, b, 1)
    a.send_rtcp(receiver_report(A_SSRC) + bye(A_SSRC))
    under_test.wait_for("bye", publication)


def test_feedback_about_anothers_stream_is_ignored(under_test: Rig) -> None:
    """C asks for key frames and repetitions of the stream that goes to B, and of A's own SSRC."""
    a, b, c, _publication = room(under_test)
    for sequence in range(1, 21):
        says(a, b, sequence)
    for media in (TO_B_SSRC, A_SSRC, 0xDEADBEEF):
        c.send_rtcp(receiver_report(C_SSRC) + pli(C_SSRC, media))
        c.send_rtcp(receiver_report(C_SSRC) + nack(C_SSRC, media, *range(1, 20)))
    under_test.wait_for_counter("drops", 0, "foreign_ssrc", 3)
    assert b.receive_rtp(QUIET_S) == SILENCE, "nothing is repeated to B"
    # A hears no key frame request (RTCP type 206) on somebody else's word.
    while datagram := a.receive(QUIET_S):
        assert not (is_rtcp(datagram) and datagram[1] == 206)


# --- RIDs

MID, RID, REPAIRED_RID = 1, 2, 3
RIDS = ["q", "f"]
KEY_FRAME = bytes.fromhex("900080011002009d012a4001f000")
VP8 = _engine.Codec(payload_type=96, name="VP8", clock_rate=90_000, nack=True, pli=True)


def named(ssrc: int, sequence: int, payload: bytes, *names: tuple[int, bytes]) -> bytes:
    """A packet that says by extensions (RFC 8285, RFC 8852) what its SSRC is."""
    packet = rtp(ssrc, sequence, b"", payload_type=96, timestamp=3_000 * sequence)
    block = b"".join(bytes([name << 4 | len(value) - 1]) + value for name, value in names)
    block += bytes(-len(block) % 4)
    head = struct.pack("!HH", 0xBEDE, len(block) // 4)
    return bytes([packet[0] | 0x10]) + packet[1:] + head + block + payload


def simulcast(peer: Peer, mid: str, rids: list[str]) -> int:
    """A publication whose streams are known by their names only."""
    stream = _engine.ReceiveStream(
        mid=mid,
        video=True,
        codecs=[VP8],
        extensions=_engine.Extensions(mid=MID, rid=RID, repaired_rid=REPAIRED_RID),
        rids=rids,
    )
    return peer.rig.engine.publish(peer.transport, group=1, stream=stream)


@pytest.mark.parametrize("rids_of_c", [RIDS, ["x", "y"]], ids=["the same names", "other names"])
def test_forged_rids_reach_nobody(under_test: Rig, rids_of_c: list[str]) -> None:
    """C names its packets, under A's SSRCs and its own, as layers of A's track."""
    a, b, c = (Peer(under_test).connect() for _ in range(3))
    publication, of_c = simulcast(a, "0", RIDS), simulcast(c, "7", rids_of_c)
    subscription = under_test.engine.subscribe(
        b.transport,
        mid="0",
        video=True,
        codecs=[VP8],
        extensions=_engine.Extensions(),
        ssrc=TO_B_SSRC,
        cname="parley",
    )
    under_test.engine.set_layer(subscription, max_layer=1, paused=False)
    under_test.engine.set_source(subscription, publication)
    a.settle()

    def shows(sequence: int) -> None:
        """A key frame of A's upper layer."""
        mark = b"a shows %d" % sequence
        names = (MID, b"0"), (RID, b"f")
        a.send_rtp(named(A_SSRC, sequence, KEY_FRAME + mark, *names))
        assert b.receive_rtp().endswith(mark)

    shows(1)
    before = under_test.counters("drops").get("foreign_ssrc", 0)
    own = itertools.count(1)  # a number twice would be a replay
    for sequence in range(2, 22):
        for ssrc, rid, name in itertools.product((A_SSRC, C_SSRC), RIDS, (RID, REPAIRED_RID)):
            forged = (MID, b"0"), (name, rid.encode())
            c.send_rtp(named(ssrc, next(own), KEY_FRAME + b"forged", *forged))
        shows(sequence)
    under_test.wait_for_counter("drops", 0, "foreign_ssrc", before + 20 * 8)
    assert b.receive_rtp(QUIET_S) == SILENCE
    assert under_test.wait_for_counter("publications", publication, "packets", 21) == 21
    assert under_test.counters("publications", of_c)["packets"] == 0
