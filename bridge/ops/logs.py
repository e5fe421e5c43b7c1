"""Structured logs to standard error, as text or JSON, redacted (S42).

Our own loggers have the configured level; libraries speak from WARNING up only, because at DEBUG they print
stanzas, SQL parameters and message bodies. Secrets of the configuration are hidden wherever they appear.
Not here: what is worth a line (each part), redaction of what is not configured (`sfu.redact`).
"""

import json
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any, Final, TextIO

from sfu.redact import Redaction, redact

_OURS: Final = ("bridge", "sfu")
_HIDDEN: Final = "[hidden]"
_MIN_SECRET: Final = 6  # characters; hiding shorter ones would blank out ordinary words
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "exc_text",
}


def set_up(
    level: str, style: str, secrets: Collection[str] = (), stream: TextIO | None = None
) -> None:
    """Replace the root logger's handlers. `level` and `style` as in the configuration's `log` section."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(Redaction())
    handler.setFormatter((_Json if style == "json" else _Text)(secrets))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)


class _Base(logging.Formatter, ABC):
    """Fields of a record, with configured secrets out of the finished line."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__()
        # As they stand and as JSON spells them; longest first, or a part would hide the whole.
        self._secrets = sorted(
            {
                spelled
                for s in secrets
                if len(s) >= _MIN_SECRET
                for spelled in (s, json.dumps(s)[1:-1])
            },
            key=len,
            reverse=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        for secret in self._secrets:
            line = line.replace(secret, _HIDDEN)
        return line

    @abstractmethod
    def line(self, record: logging.LogRecord) -> str:
        """The record as one line, before secrets are taken out."""

    def trace(self, record: logging.LogRecord) -> str:
        """The exception's text; `Redaction` has rendered it already unless the handler is somebody else's."""
        if record.exc_text:
            return record.exc_text
        return redact(self.formatException(record.exc_info)) if record.exc_info else ""


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in record.__dict__.items():
        if name not in _STANDARD and not name.startswith("_"):
            # Strings went through the filter; other values may hold anything once they are text.
            plain = value is None or isinstance(value, str | int | float)
            yield name, value if plain else redact(str(value))


def _time(record: logging.LogRecord) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{at}.{int(record.msecs):03}Z"


class _Text(_Base):
    def line(self, record: logging.LogRecord) -> str:
        # One record, one line: a peer's line breaks must not look like records of ours.
        fields = "".join(f" {name}={value!r}" for name, value in _fields(record))
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname.lower()} {record.name}: {message}{fields}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


class _Json(_Base):
    def line(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in _fields(record):
            entry.setdefault(name, value)
        trace = self.trace(record)
        if trace:
            entry["trace"] = trace
        return json.dumps(entry, default=str)
