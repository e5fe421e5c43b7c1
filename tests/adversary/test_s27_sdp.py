"""S27: hostile SDP is `Malformed` (never another error), and finding that out is quick.

The list is that of security-reliability S27; each row names the trick.
"""

import time
from pathlib import Path

import pytest

from sfu.description import DescriptionType, Malformed
from sfu.sdp import parse

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
ICE = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n"
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" + ICE + "a=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"


def _with(*lines: str) -> str:
    return HEAD + AUDIO + "".join(f"{line}\r\n" for line in lines)


HOSTILE = {
    "10,000 media lines": HEAD + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 10_000,
    "257 media lines": HEAD
    + ICE
    + "".join(f"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{i}\r\n" for i in range(257)),
    "1 MB fmtp": _with("a=fmtp:111 x=" + "y" * 1_000_000),
    "200 KB fmtp": _with("a=fmtp:111 x=" + "y" * 200_000),
    "1,000 fmtp parameters": _with("a=fmtp:111 " + "a=b;" * 1_000),
    "NUL in fmtp": _with("a=fmtp:111 x=\x00"),
    "NUL in a session line": HEAD.replace("s=-", "s=\x00") + AUDIO,
    "escape in a mid": _with().replace("a=mid:0", "a=mid:\x1b[2J"),
    "bare carriage return": _with("a=fmtp:111 x=\ra=ice-lite"),
    "payload type 128": HEAD + AUDIO.replace("111", "128"),
    "payload type 128 in rtpmap": _with("a=rtpmap:128 VP8/90000"),
    "payload type 99999999999": _with("a=rtpmap:99999999999 VP8/90000"),
    "negative payload type": _with("a=rtpmap:-1 VP8/90000"),
    "payload type in other digits": _with("a=rtpmap:\u0661\u0661 VP8/90000"),
    "payload type twice": HEAD + AUDIO.replace("SAVPF 111", "SAVPF 111 111"),
    "payload type mapped twice": _with("a=rtpmap:111 VP8/90000"),
    "fmtp twice": _with("a=fmtp:111 a=b", "a=fmtp:111 a=c"),
    "129 formats": HEAD + AUDIO.replace("SAVPF 111", "SAVPF " + "111 " * 129),
    "negative clock rate": _with("a=rtpmap:100 VP8/-90000"),
    "no clock rate": _with("a=rtpmap:100 VP8"),
    "zero clock rate": _with("a=rtpmap:100 VP8/0"),
    "huge channel count": _with("a=rtpmap:100 opus/48000/99999"),
    "duplicate mids": HEAD + AUDIO + AUDIO,
    "mid twice in a section": _with("a=mid:7"),
    "long mid": HEAD + AUDIO.replace("a=mid:0", "a=mid:" + "m" * 33),
    "empty mid": HEAD + AUDIO.replace("a=mid:0", "a=mid:"),
    "extmap 0": _with("a=extmap:0 urn:a"),
    "extmap 15": _with("a=extmap:15 urn:a"),
    "extmap 256": _with("a=extmap:256 urn:a"),
    "negative extmap": _with("a=extmap:-3 urn:a"),
    "duplicate extmap": _with("a=extmap:3 urn:a", "a=extmap:3 urn:b"),
    "65 extmaps": _with(*(f"a=extmap:{i} urn:a" for i in range(16, 81))),
    "extmap without URI": _with("a=extmap:3"),
    "300 candidates": _with(
        *(f"a=candidate:1 1 udp 1 192.0.2.1 {i} typ host" for i in range(1, 301))
    ),
    "candidate with a URL": _with("a=candidate:1 1 udp 1 http://192.0.2.1/ 1 typ host"),
    "candidate port -1": _with("a=candidate:1 1 udp 1 192.0.2.1 -1 typ host"),
    "65 sources": _with(*(f"a=ssrc:{i} cname:x" for i in range(1, 66))),
    "negative ssrc": _with("a=ssrc:-1 cname:x"),
    "ssrc over 32 bits": _with("a=ssrc:4294967296 cname:x"),
    "17 attributes of a source": _with(*(f"a=ssrc:1 k{i}:x" for i in range(17))),
    "ssrc-group without members": _with("a=ssrc-group:FID"),
    "ssrc-group of 100": _with("a=ssrc-group:SIM " + " ".join(map(str, range(1, 101)))),
    "5 rids": _with(*(f"a=rid:r{i} send" for i in range(5))),
    "rid twice": _with("a=rid:q send", "a=rid:q send"),
    "rid without direction": _with("a=rid:q"),
    "rid of 17 characters": _with("a=rid:" + "q" * 17 + " send"),
    "endless simulcast": _with("a=simulcast:send " + "q;" * 3_000),
    "second bundle": HEAD + "a=group:BUNDLE 0\r\na=group:BUNDLE 0\r\n" + AUDIO,
    "bundle of an unknown mid": HEAD + "a=group:BUNDLE 0 9\r\n" + AUDIO,
    "bundle with a mid twice": HEAD + "a=group:BUNDLE 0 0\r\n" + AUDIO,
    "no ICE credentials": HEAD + AUDIO.replace(ICE, ""),
    "ufrag without pwd": HEAD + AUDIO.replace("a=ice-pwd:abcdefghijklmnopqrstuvwx\r\n", ""),
    "short pwd": HEAD + AUDIO.replace("abcdefghijklmnopqrstuvwx", "short"),
    "ufrag of 257": HEAD + AUDIO.replace("a=ice-ufrag:abcd", "a=ice-ufrag:" + "a" * 257),
    "fingerprint of the wrong length": _with("a=fingerprint:sha-256 AA:BB"),
    "fingerprint that is no hex": _with("a=fingerprint:sha-256 " + ":".join(["ZZ"] * 32)),
    "9 fingerprints": _with(*(["a=fingerprint:sha-256 " + ":".join(["AA"] * 32)] * 9)),
    "setup holdconn": _with("a=setup:holdconn"),
    "unknown media kind": HEAD + AUDIO.replace("m=audio", "m=text"),
    "plain RTP": HEAD + AUDIO.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    "port 70000": HEAD + AUDIO.replace("m=audio 9", "m=audio 70000"),
    "negative port": HEAD + AUDIO.replace("m=audio 9", "m=audio -1"),
    "SCTP port 0": HEAD
    + AUDIO
    + "m=application 9 UDP/DTLS/SCTP x\r\na=mid:1\r\n"
    + ICE
    + "a=sctp-port:0\r\n",
    "negative max-message-size": HEAD
    + AUDIO
    + "m=application 9 UDP/DTLS/SCTP x\r\na=mid:1\r\n"
    + ICE
    + "a=max-message-size:-1\r\n",
    "line without a type": _with("nonsense"),
    "no version line": AUDIO,
    "nothing": "",
    "surrogate": _with("a=fmtp:111 x=\ud800"),
}


@pytest.mark.parametrize("kind", list(DescriptionType), ids=lambda kind: kind.value)
@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_description_is_malformed(trick: str, kind: DescriptionType) -> None:
    started = time.perf_counter()
    with pytest.raises(Malformed) as why:
        parse(HOSTILE[trick], kind)
    assert time.perf_counter() - started < 0.5  # generous: a shared machine; typical is 0.01
    assert len(str(why.value)) < 60  # names the fault, never the content


def test_the_frame_these_are_built_from_is_good() -> None:
    """Otherwise the rows above would prove nothing."""
    (audio,) = parse(_with("a=fmtp:111 x=y"), DescriptionType.OFFER).sections
    assert audio.mid == "0"
    assert audio.codecs[0].parameter("x") == "y"


def test_the_largest_allowed_text_is_read_quickly() -> None:
    """256 KiB of the most expensive lines; the loop thread never sees it (S23), but neither may it hang."""
    line = "a=rtcp-fb:111 x\r\n"
    body = HEAD + AUDIO
    text = body + line * ((256 * 1024 - len(body)) // len(line))
    started = time.perf_counter()
    with pytest.raises(Malformed):
        parse(text, DescriptionType.OFFER)
    assert time.perf_counter() - started < 1.0


def test_errors_do_not_name_other_places() -> None:
    """A peer's text can only raise the parser's own error: the module has no other raise."""
    for name in ("sdp.py", "sdp_attributes.py"):
        source = (Path(__file__).parents[2] / "sfu" / name).read_text(encoding="utf-8")
        raises = [line.strip() for line in source.splitlines() if line.strip().startswith("raise ")]
        assert raises
        assert all(line.startswith("raise Malformed(") for line in raises)
