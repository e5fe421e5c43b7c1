"""Hygiene of text that others choose and we show: display names, labels, lines of chat (S38, the cheap part).

Unicode TR 15 (NFKC), TR 9 (bidirectional controls), UAX 44 (Default_Ignorable_Code_Point). Pure; every
function is idempotent.
Not here: confusables and clashes with protected names, nick rules of one network (gateways).
"""

import unicodedata
from typing import Final

MAX_NAME_CHARS: Final = 64
MAX_COMBINING: Final = 3  # marks on one base character; more is decoration that covers other lines
_MAX_INPUT_CHARS: Final = 4096  # normalising is linear, but nobody needs to feed us 10 MB

# Letters and marks that render as nothing although their category says otherwise.
_INVISIBLE: Final = frozenset(
    chr(point)
    for points in (
        (0x034F,),
        (0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
        (0x17B4, 0x17B5),
        range(0x180B, 0x1810),
        range(0xFE00, 0xFE10),  # variation selectors
        range(0xE0000, 0xE1000),
    )
    for point in points
)
# Control, format (bidi and zero-width live here), surrogate, private use, unassigned.
_DROPPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_SPACES: Final = frozenset({"Zs", "Zl", "Zp"})


def clean_name(text: str, fallback: str = "") -> str:
    """One visible line of at most 64 characters; `fallback` (also cleaned) when nothing visible is left."""
    cleaned = _clean(text, MAX_NAME_CHARS)
    return cleaned if cleaned or not fallback else clean_name(fallback)


def clean_label(text: str, max_chars: int) -> str:
    """A technical string (track name, MIME type, avatar URI) without what breaks logs and databases."""
    kept = (c for c in text[:max_chars] if unicodedata.category(c) not in _DROPPED)
    return "".join(kept)


def clean_line(text: str) -> str:
    """Chat text: newlines and tabs stay, other controls go (XML 1.0 section 2.2 cannot carry them)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def _clean(text: str, max_chars: int) -> str:
    text = unicodedata.normalize("NFKC", _strip(text[:_MAX_INPUT_CHARS]))
    text = " ".join(_strip(text).split())
    return _cap_combining(text)[:max_chars].strip()


def _strip(text: str) -> str:
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if category in _SPACES or char in "\t\n\r":
            kept.append(" ")
        elif category not in _DROPPED and char not in _INVISIBLE:
            kept.append(char)
    return "".join(kept)


def _cap_combining(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if marks <= MAX_COMBINING:
            kept.append(char)
    return "".join(kept)
