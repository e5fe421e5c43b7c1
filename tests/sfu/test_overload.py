"""A thread short of CPU: the engine's row under our names, and the lines in the log."""

import logging

import pytest

from sfu import protocol
from sfu.overload import Watch
from sfu.stats import loads, statistics

ROW = {
    "shedding": 1,
    "used_permille": 412,
    "capacity_permille": 500,
    "budget_bps": 3_000_000,
    "paused": 7,
    "lowered": 3,
    "episodes": 2,
    "brakes": 1,
    "late": 9,
    "longest_wait_us": 43_000,
}


def test_a_row_has_its_units_and_is_in_every_part() -> None:
    found = statistics({"loads": [(1, ROW)]}, ())
    expected = protocol.LoadStatistics(
        shard=1,
        is_shedding=True,
        cpu_used=0.412,
        cpu_capacity=0.5,
        video_budget_bps=3_000_000,
        streams_paused=7,
        streams_lowered=3,
        shedding_count=2,
        brake_count=1,
        late_count=9,
        longest_wait_s=0.043,
    )
    assert [part.loads for part in found] == [(expected,)]


def test_beginning_and_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    calm = {**ROW, "shedding": 0, "episodes": 0}
    with caplog.at_level(logging.WARNING):
        for row in (calm, ROW, ROW, {**ROW, "shedding": 0}, {**ROW, "shedding": 0}):
            watch.look(loads([(0, row)]))
    assert [record.message for record in caplog.records] == [
        "short of CPU: video is shed",
        "enough CPU again: no video is shed",
    ]


def test_what_began_and_ended_between_two_looks_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch()
    calm = {**ROW, "shedding": 0}
    with caplog.at_level(logging.WARNING):
        watch.look(loads([(0, calm)]))
        watch.look(loads([(0, {**calm, "episodes": 3})]))
        watch.look(loads([(0, {**calm, "episodes": 3})]))
    assert [record.message for record in caplog.records] == [
        "short of CPU for a moment: video was shed"
    ] * 2
