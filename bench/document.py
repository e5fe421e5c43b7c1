"""The goals table of `docs/performance.md`, made from a stored result; a test keeps both the same.

`python -m bench.document bench/results/bench-....json` writes it. Not here: measuring (`bench.__main__`).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from bench.goals import Goal

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "performance.md"
_TABLE: Final = re.compile(
    r"<!-- results of (?P<file>\S+) -->\n(?:.*?\n)?<!-- end of results -->", re.DOTALL
)


class Undocumented(Exception):
    """The document has no place for the table."""


def render(name: str, result: dict[str, Any]) -> str:
    """The table with its marks, from the result stored under this name (relative to the tree)."""
    machine = result["machine"]
    state = (
        f"**not of the commit: {'; '.join(machine['why_dirty'])}**" if machine["dirty"] else "clean"
    )
    loads = [run["load_average_before"] for run in result["runs"].values()]
    lines = [
        f"<!-- results of {name} -->",
        f"`{name}`: `{machine['command']}` at {machine['date']}, commit `{machine['commit'][:12]}` ({state}), engine "
        f"sources `{machine['engine']['sources']}`; {machine['cpus']} CPUs ({machine['cpu']}), Linux "
        f"{machine['kernel']}; load average {min(loads):.1f} to {max(loads):.1f} before the scenarios.",
        "",
        "| | what | goal | measured | |",
        "|---|---|---|---|---|",
    ]
    for letter, run in result["runs"].items():
        for stored in run["goals"]:
            what, wanted, value, verdict = Goal.of(stored).cells()
            lines.append(f"| {letter} | {what} | {wanted} | {value} | {verdict} |")
    lines += [f"| {letter} | failed | | | not reached |" for letter in result["failed"]]
    lines.append("<!-- end of results -->")
    return "\n".join(lines)


def named(text: str) -> str:
    """Which result a document shows. Raises `Undocumented`."""
    found = _TABLE.search(text)
    if found is None:
        raise Undocumented
    return found["file"]


def replace(text: str, table: str) -> str:
    """The document with another table."""
    named(text)
    return _TABLE.sub(lambda _: table, text, count=1)


def main(argv: list[str]) -> int:
    path = Path(argv[0]).resolve()
    name = path.relative_to(ROOT).as_posix()
    table = render(name, json.loads(path.read_text()))
    DOCUMENT.write_text(replace(DOCUMENT.read_text(), table))
    print(f"{DOCUMENT.relative_to(ROOT)} shows {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
