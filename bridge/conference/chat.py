"""Lines of text: said once, bound for every place but the one they came from.

The message id is computed from where the line came from, so a repeated line has the same one everywhere.
Not here: exactly-once (`ports.Journal`), rendering and markup (gateways).
"""

import hashlib
from typing import Final

from bridge.conference.commands import Say
from bridge.conference.errors import Malformed, Refused
from bridge.conference.events import Event, Said
from bridge.conference.ids import ConferenceId
from bridge.conference.names import clean_label, clean_line
from bridge.conference.state import State

MAX_TEXT_BYTES: Final = 64 * 1024  # a Matrix event as a whole may have 65,536 bytes
MAX_SOURCE_CHARS: Final = 1024
MAX_AVATAR_CHARS: Final = 1024


def say(state: State, command: Say, now_ms: int) -> tuple[Event, ...]:
    if not command.source or not 0 < len(command.source_id) <= MAX_SOURCE_CHARS:
        raise Malformed("a line without a usable source id")
    text = clean_line(command.text)
    if not text.strip():
        raise Malformed("an empty line")
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise Refused(
            f"That text has {size} bytes; at most {MAX_TEXT_BYTES} fit. Send it in parts."
        )
    if command.origin is not None and command.origin not in state.record.places:
        raise Refused("This room is not connected with the conference (any more).")
    return (
        Said(
            message_id=message_id(state.record.id, command.source, command.source_id),
            by=command.by,
            text=text,
            source_id=command.source_id,
            source=command.source,
            origin=command.origin,
            avatar=clean_label(command.avatar, MAX_AVATAR_CHARS),
            is_emote=command.is_emote,
            at_ms=command.at_ms or now_ms,
        ),
    )


def message_id(conference: ConferenceId, source: str, source_id: str) -> str:
    """`m_` and 128 bits: the same line always gets the same id."""
    spelled = "\0".join((conference, source, source_id)).encode(errors="surrogatepass")
    return f"m_{hashlib.sha256(spelled).hexdigest()[:32]}"
