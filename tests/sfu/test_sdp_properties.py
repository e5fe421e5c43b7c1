"""Properties of sfu.sdp: parse(print(d)) == d; any text gives a value or `Malformed`, whatever the cut."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sfu.description import (
    Candidate,
    Codec,
    Description,
    DescriptionType,
    Direction,
    Extension,
    Feedback,
    Fingerprint,
    Malformed,
    MediaKind,
    Rid,
    Section,
    Setup,
    Source,
    SourceGroup,
    Transport,
)
from sfu.sdp import parse, parse_candidate, print_description

_WORD = st.text("abcXYZ019-_", min_size=1, max_size=12)
_ICE = st.text("abcXYZ019+/", min_size=4, max_size=32)
_KEY = st.text("abcxyz-", min_size=1, max_size=10)
_VALUE = st.text("abcXYZ019/,+=", max_size=12)
_HEX = st.binary(min_size=32, max_size=32).map(lambda raw: raw.hex(":").upper())
_SSRC = st.integers(1, 0xFFFFFFFF)

_candidates = st.builds(
    Candidate,
    foundation=_ICE,
    component=st.integers(1, 256),
    protocol=st.sampled_from(["udp", "tcp"]),
    priority=st.integers(0, 0xFFFFFFFF),
    address=st.one_of(st.ip_addresses().map(str), st.just("name.local")),
    port=st.integers(0, 65535),
    kind=st.sampled_from(["host", "srflx", "relay"]),
    tcp_type=st.sampled_from([None, "active", "passive"]),
)
_transports = st.builds(
    Transport,
    ufrag=_ICE,
    pwd=st.text("abcXYZ019+/", min_size=22, max_size=40),
    fingerprints=st.lists(st.builds(Fingerprint, st.just("sha-256"), _HEX), max_size=3).map(tuple),
    setup=st.sampled_from(Setup),
    candidates=st.lists(_candidates, max_size=4).map(tuple),
)


@st.composite
def _codec_lists(draw: st.DrawFn) -> tuple[Codec, ...]:
    types = draw(st.lists(st.integers(0, 127), min_size=1, max_size=5, unique=True))
    return tuple(
        Codec(
            payload_type,
            draw(_WORD),
            draw(st.integers(1, 192_000)),
            draw(st.integers(1, 8)),
            tuple(draw(st.lists(st.tuples(_KEY, _VALUE), max_size=3))),
            tuple(
                draw(
                    st.lists(
                        st.builds(Feedback, _KEY, st.sampled_from(["", "pli", "fir x"])), max_size=3
                    )
                )
            ),
        )
        for payload_type in types
    )


@st.composite
def _sections(draw: st.DrawFn, mid: str, transport: Transport) -> Section:
    kind = draw(st.sampled_from(MediaKind))
    if draw(st.integers(0, 9)) == 0:
        return Section(mid, kind, Direction.INACTIVE, Transport("", ""), rejected=True)
    direction = draw(st.sampled_from(Direction))
    if kind is MediaKind.APPLICATION:
        return Section(
            mid,
            kind,
            direction,
            transport,
            sctp_port=draw(st.integers(1, 65535)),
            max_message_size=draw(st.one_of(st.none(), st.integers(0, 1 << 40))),
        )
    ids = draw(
        st.lists(st.one_of(st.integers(1, 14), st.integers(16, 255)), max_size=5, unique=True)
    )
    sources = draw(st.lists(_SSRC, max_size=4, unique=True))
    rids = draw(st.lists(_WORD, max_size=4, unique=True))
    senders = draw(st.integers(0, len(rids)))
    has_msid = draw(st.booleans())
    return Section(
        mid,
        kind,
        direction,
        transport,
        codecs=draw(_codec_lists()),
        extensions=tuple(Extension(i, f"urn:x:{draw(_WORD)}") for i in ids),
        sources=tuple(
            Source(ssrc, tuple(draw(st.lists(st.tuples(_KEY, _VALUE), max_size=2))))
            for ssrc in sources
        ),
        source_groups=tuple(
            draw(
                st.lists(
                    st.builds(
                        SourceGroup,
                        st.sampled_from(["FID", "SIM"]),
                        st.lists(_SSRC, min_size=1, max_size=3).map(tuple),
                    ),
                    max_size=2,
                )
            )
        ),
        rids=tuple(Rid(rid, index < senders) for index, rid in enumerate(rids)),
        stream=draw(_WORD) if has_msid else None,
        track=draw(st.one_of(st.none(), _WORD)) if has_msid else None,
        rtcp_mux=draw(st.booleans()),
        mixed_extensions=draw(st.booleans()),
    )


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    mids = draw(st.lists(_WORD, max_size=5, unique=True))
    is_bundled = draw(st.booleans())
    shared = draw(_transports)
    is_lite = draw(st.booleans())
    sections = []
    for mid in mids:
        transport = shared if is_bundled else draw(_transports)
        transport = Transport(
            transport.ufrag,
            transport.pwd,
            transport.fingerprints,
            transport.setup,
            transport.candidates,
            is_lite,
        )
        sections.append(draw(_sections(mid, transport)))
    bundle = tuple(s.mid for s in sections if not s.rejected) if is_bundled else ()
    return Description(draw(st.sampled_from(DescriptionType)), tuple(sections), bundle)


@given(descriptions())
def test_what_is_printed_reads_back_equal(description: Description) -> None:
    # An empty bundle and none are one thing in text; a lite flag without a live section has no line.
    assert parse(print_description(description), description.kind) == description


_LINES = st.sampled_from(
    [
        "v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 0 UDP/TLS/RTP/SAVPF 96", "m=application 9 UDP/DTLS/SCTP x",
        "a=mid:0", "a=mid:1", "a=group:BUNDLE 0 1", "a=rtpmap:111 opus/48000/2", "a=rtpmap:96 VP8/90000",
        "a=fmtp:111 a=b;;=;c", "a=rtcp-fb:* nack", "a=rtcp-fb:999 x", "a=extmap:1 urn:a", "a=extmap:0 urn:a",
        "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx", "a=setup:active", "a=setup:", "a=sendonly",
        "a=candidate:1 1 udp 1 ::1 1 typ host", "a=rid:q send", "a=simulcast:send q;h", "a=ssrc:1 cname:x", "a=ssrc:",
        "a=ssrc-group:FID 1 2", "a=msid:", "a=msid:- x", "a=bundle-only", "a=ice-lite", "a=sctp-port:0", "", "a", "a=",
        "m=", "a=fingerprint:sha-256 00", "a=max-message-size:99999999999999999999999",
    ]
)  # fmt: skip


def _total(text: str) -> None:
    for kind in DescriptionType:
        try:
            value: Any = parse(text, kind)
        except Malformed:
            continue
        assert parse(print_description(value), kind) == value


@given(st.lists(_LINES, max_size=40), st.sampled_from(["\r\n", "\n"]))
def test_any_mix_of_lines_is_a_value_or_malformed(lines: list[str], end: str) -> None:
    _total(end.join(["v=0", *lines]))


@given(st.one_of(st.text(max_size=300), st.text(max_size=200).map(lambda t: "v=0\r\na=" + t)))
def test_any_text_is_a_value_or_malformed(text: str) -> None:
    _total(text)


@given(descriptions(), st.data())
def test_a_damaged_description_is_a_value_or_malformed(
    description: Description, data: st.DataObject
) -> None:
    text = print_description(description)
    at = data.draw(st.integers(0, len(text) - 1))
    insert = data.draw(st.sampled_from(["\x00", "-1", " ", ":", "٣", "\r", "9" * 30, ""]))
    cut = data.draw(st.integers(0, 20))
    _total(text[:at] + insert + text[at + cut :])


@given(st.text(max_size=200))
def test_any_candidate_text_is_a_value_or_malformed(text: str) -> None:
    for form in (text, f"candidate:1 1 udp 1 1.1.1.1 1 typ host {text}"):
        try:
            parse_candidate(form)
        except Malformed:
            continue
