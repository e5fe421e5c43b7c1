"""What scenarios saw: one table for people, the same as JSON.

Not here: judging (each scenario asserts for itself).
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "results" / "scenarios.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing seen. `value` is a short text: `5/5 s`, `0.8 s`, `yes`."""

    scenario: str
    what: str
    value: str
    good: bool


@dataclass(slots=True)
class Results:
    """Rows in the order they were seen."""

    rows: list[Row] = field(default_factory=list)

    def add(self, scenario: str, what: str, value: str, good: bool) -> bool:
        self.rows.append(Row(scenario, what, value, good))
        return good

    def bad(self, scenario: str) -> list[str]:
        return [
            f"{row.what}: {row.value}"
            for row in self.rows
            if row.scenario == scenario and not row.good
        ]

    def table(self) -> str:
        wide = max((len(row.what) for row in self.rows), default=0)
        return "\n".join(
            f"{'ok ' if row.good else 'BAD'}  {row.scenario:<10} {row.what:<{wide}}  {row.value}"
            for row in self.rows
        )

    def write(self, file: Path = FILE) -> None:
        """Scenarios that did not run now keep the rows of their last time."""
        file.parent.mkdir(exist_ok=True)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        now = {row.scenario for row in self.rows}
        kept = [row for row in _rows_of(file) if row.get("scenario") not in now]
        rows = kept + [{**asdict(row), "when": when} for row in self.rows]
        file.write_text(json.dumps({"when": when, "rows": rows}, indent=1))


def _rows_of(file: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return [dict(row) for row in json.loads(file.read_text())["rows"]]
    return []
