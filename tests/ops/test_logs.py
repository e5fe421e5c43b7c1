"""What a log line shows, and what it never does (S42)."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from bridge.ops.logs import set_up

CANARY = "s3cret-canary-0123456789"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in ("bridge", "sfu")}
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_addresses_and_tokens_are_hidden(lines: io.StringIO, style: str) -> None:
    set_up("debug", style, [CANARY, 'quo"ted-canary'], lines)
    log = logging.getLogger("bridge.test")
    log.debug("token is %s", CANARY, extra={"peer": "198.51.100.7", "deep": {"x": [CANARY]}})
    log.info("GET /rtc?access_token=canary1&x=1", extra={"header": "Bearer canary2"})
    log.info('quo"ted-canary')
    try:
        raise ValueError(f"broke with {CANARY} at 198.51.100.7")
    except ValueError:
        log.exception("broke")
    text = lines.getvalue()
    assert "canary" not in text
    assert "198.51.100.7" not in text
    assert "ValueError" in text


def test_json_lines_are_json_with_fields(lines: io.StringIO) -> None:
    set_up("info", "json", (), lines)
    logging.getLogger("bridge.x").warning("listening", extra={"port": 8480, "event": "not this"})
    entry = json.loads(lines.getvalue())
    assert entry["event"] == "listening"
    assert (entry["level"], entry["logger"], entry["port"]) == ("warning", "bridge.x", 8480)
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_peers_line_break_makes_no_second_record(lines: io.StringIO, style: str) -> None:
    set_up("info", style, (), lines)
    logging.getLogger("bridge").info("name: %s", "x\r\n2026 error forged", extra={"nick": "a\nb"})
    assert lines.getvalue().count("\n") == 1


def test_libraries_speak_from_warning_up(lines: io.StringIO) -> None:
    set_up("debug", "text", (), lines)
    logging.getLogger("slixmpp.xmlstream").debug("SEND: <body>hello</body>")
    logging.getLogger("asyncpg").info("params")
    logging.getLogger("slixmpp.xmlstream").warning("away")
    logging.getLogger("sfu.worker").debug("ours")
    assert "hello" not in lines.getvalue()
    assert "params" not in lines.getvalue()
    assert "away" in lines.getvalue()
    assert "ours" in lines.getvalue()
