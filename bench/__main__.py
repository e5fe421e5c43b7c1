"""`make bench`: every scenario between two ceiling probes; a table, and one JSON file of everything.

`python -m bench A E --shards 2` runs some of them. Not here: the quick gate (`bench.quick`), the scenarios themselves
(`bench.scenarios`), the document (`bench.document`).
"""

import argparse
import asyncio
import sys
import time
from typing import Any, Final

from bench import machine
from bench.ceiling import ceiling
from bench.goals import Goal
from bench.load import ROOT, build
from bench.scenarios import ALL
from bench.scenarios.scenario import Effort, Scenario
from bench.stage import Setting

SECONDS: Final = 4.0
REPEATS: Final = 3
SCENARIO_S: Final = 240.0  # a scenario that hangs does not cost the others
NAME_COLUMNS: Final = 62


def say(line: str) -> None:
    print(line, flush=True)


async def perform(scenario: Scenario, setting: Setting, effort: Effort) -> dict[str, Any]:
    """One scenario with its probes and its lines of the table."""
    began = time.monotonic()
    before = machine.load_average()
    async with ceiling() as best:
        async with asyncio.timeout(SCENARIO_S):
            found = await scenario.run(setting, effort, best.mean)
    goals = scenario.goals(found, best.mean)
    return {
        "title": scenario.title,
        "joins": scenario.joins,
        "ceiling_copies_per_cpu_s": best.found,
        "load_average_before": before,
        "took_s": time.monotonic() - began,
        "goals": [goal.stored(scenario.letter) for goal in goals],
        "found": found,
    }


def table(letter: str, run: dict[str, Any]) -> None:
    say(f"\n{letter}  {run['title']}  ({run['took_s']:.0f} s, joins: {run['joins']})")
    for stored in run["goals"]:
        name, wanted, value, verdict = Goal.of(stored).cells()
        say(f"   {name:<{NAME_COLUMNS}} {value:>16}  {wanted:<12} {verdict}".rstrip())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="LETTER", help=f"of {' '.join(ALL)}")
    parser.add_argument("--shards", type=int, default=1, help="data-plane threads of the worker")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="where a median is taken")
    options = parser.parse_args(argv)
    letters = [letter.upper() for letter in options.scenarios] or list(ALL)
    if unknown := [letter for letter in letters if letter not in ALL]:
        parser.error(f"no scenario {' '.join(unknown)}; there are {' '.join(ALL)}")
    build()
    described = machine.describe()  # before anything can change under us
    if described["dirty"]:
        say(f"dirty: {'; '.join(described['why_dirty'])}: for looking only, not for the record")
    effort = Effort(options.seconds, options.repeats)
    runs: dict[str, Any] = {}
    failed = []
    for letter in letters:
        try:
            runs[letter] = asyncio.run(perform(ALL[letter], Setting(options.shards), effort))
        except* Exception as why:  # the others are still worth having
            failed.append(letter)
            say(f"\n{letter}  {ALL[letter].title}: failed: {why.exceptions[0]!r}")
        else:
            table(letter, runs[letter])
    path = machine.save(
        "bench", {"shards": options.shards, "failed": failed, "runs": runs}, described
    )
    say(f"\nstored in {path.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
