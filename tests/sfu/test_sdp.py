"""sfu.sdp reads what real peers write, and printing is the inverse of reading."""

from pathlib import Path

import pytest

from sfu.description import (
    Candidate,
    Codec,
    DescriptionType,
    Direction,
    Extension,
    Feedback,
    Malformed,
    MediaKind,
    Rid,
    Setup,
    SourceGroup,
)
from sfu.sdp import parse, parse_candidate, print_description

DATA = Path(__file__).parents[1] / "data" / "sdp"
OFFER, ANSWER = DescriptionType.OFFER, DescriptionType.ANSWER


def _text(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.sdp")), ids=lambda path: path.stem)
def test_a_real_description_survives_printing_and_reading(path: Path) -> None:
    kind = ANSWER if path.stem.endswith("answer") else OFFER
    read = parse(path.read_text(encoding="utf-8"), kind)
    assert read.sections
    assert parse(print_description(read), kind) == read


def test_chromium_names_its_simulcast_layers_lowest_first() -> None:
    offer = parse(_text("chromium-156-offer.sdp"), OFFER)
    assert [s.kind.value for s in offer.sections] == [
        "audio",
        "audio",
        "video",
        "video",
        "audio",
        "application",
    ]
    assert offer.bundle == ("0", "1", "2", "3", "4", "5")
    simulcast = offer.sections[3]
    assert simulcast.direction is Direction.SENDONLY
    assert simulcast.rids == (Rid("q", True), Rid("h", True), Rid("f", True))
    assert simulcast.track == "7358b59a-c0b7-48e5-aa86-4f9cc2d879f4"
    assert Extension(4, "urn:ietf:params:rtp-hdrext:sdes:mid") in simulcast.extensions
    opus = offer.sections[4].codecs[0]
    assert (opus.payload_type, opus.name, opus.clock_rate, opus.channels) == (111, "opus", 48000, 2)
    assert opus.parameter("useinbandfec") == "1"
    assert opus.feedback == (Feedback("transport-cc"),)
    assert offer.sections[5].sctp_port == 5000


def test_bundled_sections_share_the_tagged_transport_with_its_candidates() -> None:
    offer = parse(_text("chromium-156-offer.sdp"), OFFER)
    transports = {section.transport for section in offer.sections}
    assert len(transports) == 1
    assert transports.pop().candidates[0].address.endswith(".local")
    assert print_description(offer).count("a=candidate:") == len(
        offer.sections[0].transport.candidates
    )


def test_firefox_style_session_fingerprint_wildcards_and_bundle_only() -> None:
    offer = parse(_text("firefox-style-offer.sdp"), OFFER)
    audio, video, data = offer.sections
    assert audio.transport.fingerprints[0].algorithm == "sha-256"
    assert not video.rejected  # port 0, but bundle-only (RFC 9143 section 6)
    assert video.rids == (Rid("q", True), Rid("h", True), Rid("f", True))
    assert video.source_groups == (SourceGroup("FID", (11, 12)),)
    assert video.codecs[0].feedback == (
        Feedback("nack"),
        Feedback("nack", "pli"),
        Feedback("ccm", "fir"),
    )
    assert audio.codecs[-1] == Codec(101, "telephone-event", 8000, 1, (("0-15", ""),))
    assert data.max_message_size == 1073741823
    assert Extension(2, "urn:ietf:params:rtp-hdrext:csrc-audio-level") in audio.extensions


def test_rejected_and_inactive_sections_are_told_apart() -> None:
    text = _text("aiortc-1.16-offer.sdp").replace("a=sendrecv", "a=inactive")
    lines = text.splitlines()
    lines[4] = "a=group:BUNDLE 0 2"
    first = next(i for i, line in enumerate(lines) if line.startswith("m=video"))
    lines[first] = "m=video 0 UDP/TLS/RTP/SAVPF 97"
    answer = parse("\r\n".join(lines), ANSWER)
    assert [(s.rejected, s.direction) for s in answer.sections[:2]] == [
        (False, Direction.INACTIVE),
        (True, Direction.INACTIVE),
    ]
    assert "m=video 0 " in print_description(answer)


def test_a_plan_b_source_names_the_track() -> None:
    text = _text("aiortc-1.16-offer.sdp")
    lines = [line for line in text.splitlines() if not line.startswith("a=msid:")]
    at = next(i for i, line in enumerate(lines) if line.startswith("a=ssrc:"))
    ssrc = lines[at].split()[0]
    lines.insert(at, f"{ssrc} msid:stream-1 track-1")
    offer = parse("\n".join(lines), OFFER)
    assert (offer.sections[0].stream, offer.sections[0].track) == ("stream-1", "track-1")


def test_an_answer_without_setup_is_active_and_an_offer_leaves_the_choice() -> None:
    lines = [
        line
        for line in _text("aiortc-1.16-offer.sdp").splitlines()
        if not line.startswith("a=setup")
    ]
    assert parse("\n".join(lines), OFFER).sections[0].transport.setup is Setup.ACTPASS
    assert parse("\n".join(lines), ANSWER).sections[0].transport.setup is Setup.ACTIVE


def test_ice_lite_and_the_kinds_of_the_sections_are_printed() -> None:
    text = _text("aiortc-1.16-offer.sdp").replace("t=0 0\n", "t=0 0\na=ice-lite\n", 1)
    offer = parse(text, OFFER)
    assert all(section.transport.ice_lite for section in offer.sections)
    assert "\r\na=ice-lite\r\n" in print_description(offer)
    assert offer.sections[2].kind is MediaKind.APPLICATION


def test_a_section_without_codecs_stays_without() -> None:
    text = _text("aiortc-1.16-offer.sdp").replace("SAVPF 96 9 0 8", "SAVPF 127")
    offer = parse(text, OFFER)
    assert offer.sections[0].codecs == ()
    assert parse(print_description(offer), OFFER) == offer


def test_printing_carries_id_and_version() -> None:
    offer = parse(_text("aiortc-1.16-offer.sdp"), OFFER)
    assert "o=- 7 9 IN IP4" in print_description(offer, session_id=7, session_version=9)


@pytest.mark.parametrize("prefix", ["", "candidate:", "a=candidate:"])
def test_a_trickled_candidate(prefix: str) -> None:
    text = (
        "842163049 1 udp 1677729535 203.0.113.9 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0"
    )
    assert parse_candidate(prefix + text) == Candidate(
        "842163049", 1, "udp", 1677729535, "203.0.113.9", 46154, "srflx"
    )


def test_a_tcp_candidate_keeps_its_type() -> None:
    text = "candidate:1 1 tcp 1518280447 ::1 9 typ host tcptype active generation 0"
    assert parse_candidate(text).tcp_type == "active"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:",
        "candidate:1 1 udp 1 1.2.3.4 5 host",
        "candidate:1 1 udp -1 1.2.3.4 5 typ host",
        "candidate:1 0 udp 1 1.2.3.4 5 typ host",
        "candidate:1 1 udp 4294967296 1.2.3.4 5 typ host",
        "candidate:1 1 udp 1 1.2.3.4 65536 typ host",
        "candidate:1 1 udp 1 1.2.3.4\x00 5 typ host",
        "candidate:1 1 udp 1 http://x/ 5 typ host",
        "candidate:" + "1" * 40 + " 1 udp 1 1.2.3.4 5 typ host",
        "candidate:1 1 udp ١ 1.2.3.4 5 typ host",
    ],
)
def test_a_bad_candidate_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_candidate(text)
