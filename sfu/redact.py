"""A logging filter that hides what identifies or unlocks a peer (S42).

Addresses, ICE user fragments and passwords, DTLS fingerprints, SDP bodies and bearer tokens never reach a
log line, whatever code or library wrote it. Loopback and wildcard addresses stay: they say nothing about
anybody. Not here: where logs go (`bridge.ops`), which events are logged.
"""

import ipaddress
import logging
import re
from typing import Final

MAX_LINE_CHARACTERS: Final = 8_192  # longer lines are cut: nobody reads them, and SDP hides in them

_SDP: Final = re.compile(r"(?:^|(?<=[\s'\"]))v=0(?:\r\n|\n|\\r\\n|\\n)o=.*", re.DOTALL)
_SECRET_ATTRIBUTE: Final = re.compile(
    r"""(?ix)
    (\b(?:ice-)?(?:ufrag|pwd)\b | \bfingerprint\b | \baccess_token\b | \bjoin_request\b | \bas_token\b
     | \bhs_token\b | \bpassword\b | \bsecret\b | \bcredential\b)
    (["']? \s* (?:=|:) \s* (?:sha-\d+\s+)? ["']?)
    [^\s"'&,;)]+
    """
)
_BEARER: Final = re.compile(r"(?i)\b(bearer)\s+[A-Za-z0-9._~+/=-]+")
_IPV4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)")
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:%\w+)?(?![\w:])"
)
_CANDIDATE: Final = re.compile(r"(?i)\bcandidate:\S+ \d+ \w+ \d+ \S+ \d+ typ \w+[^\r\n'\"]*")

_HIDDEN: Final = "[hidden]"


def _address(match: re.Match[str]) -> str:
    text = match.group(0)
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return text
    return text if address.is_loopback or address.is_unspecified else "[address]"


def redact(text: str) -> str:
    """The same line without secrets and addresses. Idempotent."""
    text = text[:MAX_LINE_CHARACTERS]
    text = _SDP.sub("[sdp]", text)
    text = _CANDIDATE.sub("candidate:[hidden]", text)
    text = _SECRET_ATTRIBUTE.sub(lambda m: m.group(1) + m.group(2) + _HIDDEN, text)
    text = _BEARER.sub(lambda m: f"{m.group(1)} {_HIDDEN}", text)
    text = _IPV4.sub(_address, text)
    return _IPV6.sub(_address, text)


class Redaction(logging.Filter):
    """Put on a handler: rewrites message, exception text and string fields of every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a broken format string must not lose the line, nor the redaction
            message = str(record.msg)
        record.msg = redact(message)
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        for name, value in record.__dict__.items():
            if name not in _STANDARD and isinstance(value, str):
                record.__dict__[name] = redact(value)
        return True


class FieldFormatter(logging.Formatter):
    """One line per record, its `extra` fields behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the library's name
        fields = [f"{k}={v}" for k, v in record.__dict__.items() if k not in _STANDARD]
        return " ".join([super().formatMessage(record), *fields])


_STANDARD: Final = frozenset(
    logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys()
    | {"message", "asctime", "taskName"}
)
