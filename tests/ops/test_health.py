"""Probes: well, away, silent, broken."""

import asyncio

import pytest

from bridge.conference.errors import Unavailable
from bridge.ops import health as module
from bridge.ops.health import Health


async def well() -> str:
    return "connected"


async def away() -> str:
    raise Unavailable("database: refused")


async def broken() -> str:
    raise KeyError("x")


async def silent() -> str:
    await asyncio.sleep(3600)
    return "never"


async def test_nothing_watched_is_well() -> None:
    assert (await Health().report()).is_well


async def test_every_kind_of_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROBE_S", 0.05)
    health = Health()
    for name, probe in {"a": well, "b": away, "c": broken, "d": silent}.items():
        health.watch(name, probe)
    report = await health.report()
    assert [part.is_well for part in report.parts] == [True, False, False, False]
    assert report.parts[0].detail == "connected"
    assert report.parts[1].detail == "database: refused"
    assert not report.is_well


async def test_a_part_that_is_not_vital_may_be_away() -> None:
    health = Health()
    health.watch("a", well)
    health.watch("b", away, is_vital=False)
    report = await health.report()
    assert report.is_well
    assert not report.parts[1].is_well


def test_a_name_is_watched_once() -> None:
    health = Health()
    health.watch("a", well)
    with pytest.raises(ValueError, match="there already"):
        health.watch("a", away)
