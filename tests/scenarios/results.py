"""What scenarios saw: one table for people, the same as JSON.

Not here: judging (each scenario asserts for itself).
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
        file.parent.mkdir(exist_ok=True)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        file.write_text(
            json.dumps({"when": when, "rows": [asdict(row) for row in self.rows]}, indent=1)
        )
