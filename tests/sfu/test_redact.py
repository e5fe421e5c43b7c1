"""Nothing that identifies or unlocks a peer reaches a log line (S42)."""

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.redact import FieldFormatter, Redaction, redact

SDP = (
    "v=0\r\no=- 1 2 IN IP4 203.0.113.9\r\ns=-\r\na=ice-ufrag:canaryU\r\na=ice-pwd:canaryPassword\r\n"
    "a=fingerprint:sha-256 CA:NA:RY\r\na=candidate:1 1 udp 2130706431 203.0.113.9 5000 typ host\r\n"
)


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("from 203.0.113.9:5000", "203.0.113.9"),
        ("from [2001:db8::17]:5000", "2001:db8::17"),
        ("from 2001:db8:0:0:0:0:0:17", "2001:db8"),
        ("a=ice-ufrag:canaryU", "canaryU"),
        ("ice-pwd: 'canaryPwd'", "canaryPwd"),
        ("{'ufrag': 'canaryU', 'pwd': \"canaryPwd\"}", "canary"),
        ("ufrag=canaryU pwd=canaryPwd", "canary"),
        ("a=fingerprint:sha-256 CA:NA:RY", "CA:NA:RY"),
        ("candidate:1 1 udp 2130706431 fe80-name.local 5000 typ host", "fe80-name"),
        ("GET /rtc?access_token=canary.a.b&x=1", "canary"),
        ("Authorization: Bearer canary.token-1", "canary"),
        (f"got {SDP}", "canary"),
        (f"got {SDP!r}", "canary"),
    ],
)
def test_secrets_are_hidden(line: str, secret: str) -> None:
    assert secret not in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "listening on 127.0.0.1:8470 and [::1]:8470",
        "version 1.2.3 of aiortc 1.16.0",
        "session abc-def:01 took 12:34:56",
        "2026-11-20 19:15:12 worker listens port=4000",
    ],
)
def test_harmless_lines_stay(line: str) -> None:
    assert redact(line) == line


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(line: str) -> None:
    assert redact(redact(line)) == redact(line)


def test_the_filter_covers_arguments_fields_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redaction())
    handler.setFormatter(FieldFormatter())
    logger = logging.getLogger("redact-test")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        try:
            raise ValueError("peer 203.0.113.9 pwd=canary1")
        except ValueError:
            logger.exception("from %s", "203.0.113.9", extra={"peer": "203.0.113.9", "n": 7})
        logger.error("broken %d", "203.0.113.9")
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert "203.0.113.9" not in text
    assert "canary1" not in text
    assert "n=7" in text
    assert "Traceback" in text
