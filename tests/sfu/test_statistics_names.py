"""What we call as W3C webrtc-stats does means what it means there; every other name is ours, for a reason.

W3C names are in snake case here, and may carry their unit (`jitter` is `jitter_s`).
Not here: the counters themselves (engine/core, `counters` and `feeding`), sums of a conference (tests/media).
"""

from dataclasses import fields

import msgspec
import pytest

from bridge.media.statistics import Load
from sfu import protocol
from sfu.answers import CommandKey
from sfu.description import Direction, MediaKind
from sfu.worker import Worker
from tests.sfu.fakes import EACH, FakePlane, offer, section

# Members of the dictionaries of https://www.w3.org/TR/webrtc-stats/ that an SFU can know.
RECEIVED_RTP = {"packetsReceived", "packetsLost", "jitter"}
INBOUND_RTP = RECEIVED_RTP | {
    "bytesReceived",
    "headerBytesReceived",
    "retransmittedPacketsReceived",
    "retransmittedBytesReceived",
    "nackCount",
    "pliCount",
    "firCount",
    "framesReceived",
    "freezeCount",
    "totalFreezesDuration",
}
OUTBOUND_RTP = {
    "packetsSent",
    "bytesSent",
    "headerBytesSent",
    "retransmittedPacketsSent",
    "retransmittedBytesSent",
    "nackCount",
    "pliCount",
    "firCount",
    "targetBitrate",
    "qualityLimitationReason",
}
REMOTE_INBOUND_RTP = RECEIVED_RTP | {"roundTripTime", "fractionLost"}
CANDIDATE_PAIR = {
    "packetsSent",
    "packetsReceived",
    "bytesSent",
    "bytesReceived",
    "currentRoundTripTime",
    "availableOutgoingBitrate",
    "packetsDiscardedOnSend",
}
UNITS = ("_s", "_bps")

OF_TRACKS = {
    "track": "which one",
    "session": "whose",
    "layers": "simulcast layers, a row each",
    "packets_off_stage": "W3C knows no server that leaves voices out",
}
OF_LAYERS = {
    "layer": "which one",
    "bitrate_bps": "measured here; W3C leaves rates to the reader",
    "key_frames_received": "W3C counts those decoded, and we decode nothing",
    "is_live": "W3C knows no layer that comes and goes",
}
OF_STREAMS = {
    "session": "to whom",
    "track": "which one",
    "first_sequence": "for tests: a restart of the control plane costs no packet",
    "last_sequence": "likewise",
    "layer": "forwarded now",
}
OF_SESSIONS = {
    "session": "which one",
    "group": "of which conference",
    "queue_delay_s": "what our estimate says of the link; W3C has nothing like it",
    "packet_send_delay_s": "the longest of the last second; W3C has a sum, totalPacketSendDelay",
    "packets_expired_on_send": "our pacer gave them up; packetsDiscardedOnSend is for errors of sockets",
}
OF_CONFERENCES = {
    "conference": "which one",
    "sessions": "how many",
    "tracks": "how many",
    "streams": "how many",
    "limited_streams": "how many",
    "shed_streams": "how many",
    "worst_fraction_lost": "of all streams",
    "worst_round_trip_time_s": "of all sessions",
    "worst_queue_delay_s": "of all sessions",
    "received_bps": "a rate; W3C leaves those to the reader",
    "sent_bps": "likewise",
}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _names(row: type) -> set[str]:
    if issubclass(row, msgspec.Struct):
        return set(row.__struct_fields__)
    return {field.name for field in fields(row)}


@pytest.mark.parametrize(
    ("row", "w3c", "ours"),
    [
        (protocol.TrackStatistics, INBOUND_RTP, OF_TRACKS),
        (protocol.LayerStatistics, INBOUND_RTP, OF_LAYERS),
        (protocol.SubscriptionStatistics, OUTBOUND_RTP | REMOTE_INBOUND_RTP, OF_STREAMS),
        (protocol.SessionStatistics, CANDIDATE_PAIR, OF_SESSIONS),
        (Load, INBOUND_RTP | OUTBOUND_RTP, OF_CONFERENCES),
    ],
)
def test_a_name_is_that_of_w3c_or_ours_for_a_reason(
    row: type, w3c: set[str], ours: dict[str, str]
) -> None:
    known = {_snake(name) + unit for name in w3c for unit in ("", *UNITS)}
    assert _names(row) - known == set(ours)
    assert all(ours.values())


class Counting(FakePlane):
    """What the engine counted of one publisher and of one who receives."""

    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        up = {"packets": 50, "bytes": 6_000, "octets": 5_000, "nacks_sent": 3}
        up |= {"plis_sent": 7, "firs_sent": 2}
        down = {"packets": 40, "bytes": 4_800, "octets": 4_000, "nacks": 2, "asked_again": 9}
        down |= {"plis": 5, "firs": 1, "retransmitted": 8, "retransmitted_octets": 800}
        return {
            "publications": [(handle, up) for handle in self.publications],
            "subscriptions": [(handle, down) for handle in self.subscriptions],
        }


async def test_names_of_w3c_mean_what_w3c_says() -> None:
    worker = Worker(Counting(), ("192.0.2.1",), clock=lambda: 1.0)
    video = MediaKind.VIDEO
    for number, command in enumerate(
        (
            protocol.Open("ann", "room", EACH),
            protocol.Expect("ann", "cam", video, "camera", match=("cid",)),
            protocol.Offer("ann", offer(section("0", video, Direction.SENDONLY, track="cid"))),
            protocol.Open("bob", "room", EACH),
            protocol.Subscribe("bob", "cam"),
            protocol.Offer("bob", offer(section("0", video, Direction.RECVONLY))),
            protocol.ReadStatistics(),
        )
    ):
        reply = worker.carry_out(CommandKey("me", 1, str(number)), command)
    assert isinstance(reply, protocol.Statistics)
    (track,), (sent,) = reply.tracks, reply.subscriptions
    assert (track.nack_count, sent.nack_count) == (3, 2), "packets, however many they ask for"
    assert (track.pli_count, track.fir_count) == (5, 2), "one is not the other"
    assert (sent.pli_count, sent.fir_count) == (4, 1)
    assert (track.packets_received, track.bytes_received) == (50, 5_000), "without headers"
    assert (sent.packets_sent, sent.bytes_sent) == (48, 4_800), "with what was sent again"
    assert (sent.retransmitted_packets_sent, sent.retransmitted_bytes_sent) == (8, 800)
