"""What a number should be, and whether it is.

Not here: where numbers come from (`bench.scenarios`), the document that shows them (`bench.document`).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. `unit` is written behind the value; without a bound it is only told."""

    name: str
    value: float
    bound: float | None = None
    is_most: bool = False  # the bound is the highest, not the lowest
    unit: str = ""
    digits: int = 2

    @property
    def is_reached(self) -> bool | None:
        if self.bound is None:
            return None
        return self.value <= self.bound if self.is_most else self.value >= self.bound

    def stored(self, scenario: str) -> dict[str, Any]:
        return {
            "scenario": scenario,
            "name": self.name,
            "value": self.value,
            "bound": self.bound,
            "is_most": self.is_most,
            "unit": self.unit,
            "digits": self.digits,
            "is_reached": self.is_reached,
        }

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Goal":
        names = ("name", "value", "bound", "is_most", "unit", "digits")
        return cls(**{name: stored[name] for name in names})

    def cells(self) -> tuple[str, str, str, str]:
        """Name, what it should be, what it is, the verdict; as in the document."""
        word = {None: "", True: "reached", False: "not reached"}[self.is_reached]
        wanted = ""
        if self.bound is not None:
            wanted = f"{'<=' if self.is_most else '>='} {self._number(self.bound)}"
        return self.name, wanted, self._number(self.value), word

    def _number(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{' ' if self.unit and self.unit != '%' else ''}{self.unit}"


def at_least(name: str, value: float, bound: float, unit: str = "", digits: int = 2) -> Goal:
    return Goal(name, value, bound, unit=unit, digits=digits)


def at_most(name: str, value: float, bound: float, unit: str = "", digits: int = 2) -> Goal:
    return Goal(name, value, bound, is_most=True, unit=unit, digits=digits)


def told(name: str, value: float, unit: str = "", digits: int = 2) -> Goal:
    return Goal(name, value, unit=unit, digits=digits)
