"""Reads of the worker become sums and rates per conference."""

from bridge.media.statistics import Gatherer, Load, summary
from sfu import protocol


def read(sent: int, *, part: int = 0, parts: int = 1, session: str = "a") -> protocol.Statistics:
    layer = protocol.LayerStatistics(0, 10, 1_000, 1, freeze_count=2)
    return protocol.Statistics(
        tracks=(
            protocol.TrackStatistics(
                f"t-{session}", 10, 1_000, 3, 4, 5, session=session, layers=(layer,)
            ),
        ),
        subscriptions=(
            protocol.SubscriptionStatistics(
                session,
                "t",
                20,
                2_000,
                1,
                1,
                6,
                quality_limitation_reason="bandwidth",
                fraction_lost=0.25,
            ),
        ),
        dropped={"malformed": 7},
        sessions=(
            protocol.SessionStatistics(
                session, "c_1", 20, sent, 10, 1_000, current_round_trip_time_s=0.05
            ),
        ),
        loads=(protocol.LoadStatistics(shard=0, cpu_used=0.5, late_count=3),),
        part=part,
        parts=parts,
    )


def test_two_reads_make_a_rate() -> None:
    gatherer = Gatherer()
    assert gatherer.take(read(1_000), 10.0)
    assert gatherer.loads["c_1"].sent_bps == 0
    assert gatherer.take(read(126_000), 11.0)
    load = gatherer.loads["c_1"]
    assert load.sent_bps == 1_000_000
    assert (load.sessions, load.tracks, load.streams, load.limited_streams) == (1, 1, 1, 1)
    assert (load.nack_count, load.pli_count, load.freeze_count) == (5, 6, 2)
    assert (load.packets_lost, load.retransmitted_packets_sent) == (3, 6)
    assert load.worst_fraction_lost == 0.25
    assert summary(load) == (
        "media: 0 kbit/s in, 1.0 Mbit/s out, round trip up to 50 ms, loss up to 25%, "
        "1 of 1 streams limited by bandwidth"
    )
    assert summary(None) == summary(Load("c")) == ""


def test_parts_make_one_picture_and_a_missing_one_makes_none() -> None:
    gatherer = Gatherer()
    assert not gatherer.take(read(1, part=1, parts=3), 1.0)
    assert not gatherer.take(read(1, part=0, parts=2), 2.0)
    assert not gatherer.take(read(1, part=0, parts=2), 3.0), "a new read began"
    assert gatherer.take(read(1, part=1, parts=2, session="b"), 3.0)
    assert gatherer.read is not None
    assert [row.session for row in gatherer.read.sessions] == ["a", "b"]
    assert gatherer.loads["c_1"].sessions == 2
    assert gatherer.read.dropped == {"malformed": 7}
    assert not gatherer.take(read(1, part=1, parts=2), 4.0)


def test_who_left_is_no_negative_rate() -> None:
    gatherer = Gatherer()
    gatherer.take(read(1_000_000), 1.0)
    gatherer.take(read(10), 2.0)
    assert gatherer.loads["c_1"].sent_bps == 0
    gatherer.take(protocol.Statistics(tracks=(), subscriptions=()), 3.0)
    assert gatherer.loads == {}
