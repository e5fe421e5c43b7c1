"""The goals table of the performance page is the stored result, number for number.

Not here: measuring (`bench`).
"""

import json
import re

from bench import document
from bench.goals import Goal, at_least, at_most, told

TEXT = document.DOCUMENT.read_text()


def test_the_table_is_the_stored_result() -> None:
    name = document.named(TEXT)
    stored = json.loads((document.ROOT / name).read_text())
    assert document.render(name, stored) in TEXT


def test_every_section_is_there_once() -> None:
    """A merge once left half of the page there twice, and only the first table was kept true."""
    sections = re.findall(r"^## .*$", TEXT, re.MULTILINE)
    assert len(sections) == len(set(sections)) > 3


def test_every_result_that_is_named_exists() -> None:
    names = re.findall(r"bench/results/[\w-]+\.json", TEXT)
    assert names
    for name in names:
        assert (document.ROOT / name).is_file(), name


def test_another_result_changes_the_table_and_nothing_else() -> None:
    name = document.named(TEXT)
    stored = json.loads((document.ROOT / name).read_text())
    letter = next(iter(stored["runs"]))
    stored["runs"][letter]["goals"][0]["value"] = 123_456_789.0
    changed = document.replace(TEXT, document.render(name, stored))
    assert "123,456,789" in changed
    assert changed != TEXT
    assert (
        document.replace(
            changed, document.render(name, json.loads((document.ROOT / name).read_text()))
        )
        == TEXT
    )


def test_a_verdict_follows_from_value_and_bound() -> None:
    assert at_least("a", 0.7, 0.7).is_reached is True
    assert at_least("a", 0.69, 0.7).is_reached is False
    assert at_most("a", 15.1, 15).is_reached is False
    assert told("a", 3).is_reached is None
    goal = at_most("b", 14_321.5, 15_000, "ms", 1)
    assert goal.cells() == ("b", "<= 15,000.0 ms", "14,321.5 ms", "reached")
    assert Goal.of(goal.stored("A")) == goal
