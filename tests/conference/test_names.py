"""Names that others choose."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.conference.names import (
    MAX_COMBINING,
    MAX_NAME_CHARS,
    clean_label,
    clean_line,
    clean_name,
)


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("  Ann   Example ", "Ann Example"),
        ("\u202egro.live", "gro.live"),  # right-to-left override
        ("Bo\u200bb\ufeff\u2066", "Bob"),  # zero width, isolate
        ("\uff21nn", "Ann"),  # full width
        ("line\nbreak\u2028two", "line break two"),
        ("Z" + "\u0301" * 40, "\u0179" + "\u0301" * MAX_COMBINING),
        ("\u3164\u115f", "fallback"),  # Hangul fillers show nothing
        ("\x00\x1b[31m", "[31m"),
        ("x" * 10_000, "x" * MAX_NAME_CHARS),
        ("", "fallback"),
    ],
)
def test_table(given_name: str, shown: str) -> None:
    assert clean_name(given_name, "fallback") == shown


@given(st.text())
@example("a\u200b\u0301")
@example("\ufdfa" * 30)
def test_cleaning_is_idempotent_capped_and_visible(text: str) -> None:
    name = clean_name(text)
    assert clean_name(name) == name
    assert len(name) <= MAX_NAME_CHARS
    assert name == name.strip()
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_lines_and_labels_are_idempotent_and_encodable(text: str) -> None:
    for cleaned in (clean_line(text), clean_label(text, 40)):
        cleaned.encode()
        assert "\x00" not in cleaned
    assert clean_line(clean_line(text)) == clean_line(text)
    assert clean_label(clean_label(text, 40), 40) == clean_label(text, 40)
