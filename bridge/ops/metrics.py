"""Metrics as text for Prometheus (text exposition format 0.0.4). Pure.

Not here: where the numbers come from (`bridge.app.statistics`), the listener (`bridge.http`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4"
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class Metric:
    """A family of samples. Names of counters end in `_total`; units are base units."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def render(metrics: Iterable[Metric]) -> str:
    """Raises ValueError for a name that no scraper would take."""
    lines: list[str] = []
    for metric in metrics:
        if not _NAME.fullmatch(metric.name):
            raise ValueError(f"metric name {metric.name!r}")
        lines += (
            f"# HELP {metric.name} {_escaped(metric.help)}",
            f"# TYPE {metric.name} {metric.kind}",
        )
        lines += (
            f"{metric.name}{_labels(labels)} {value:.10g}" for labels, value in metric.samples
        )
    return "\n".join(lines) + "\n" if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items())
    return "{" + pairs + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
