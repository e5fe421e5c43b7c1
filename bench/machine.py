"""What a result was measured on, and the CPU time of a process and its threads (Linux /proc).

Not here: what is measured.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.load import ROOT
from sfu import _engine

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far. `engine_*` are of the data-plane thread alone; `waited` is ready but not running."""

    process_s: float
    engine_s: float
    engine_waited_s: float

    @property
    def control_s(self) -> float:
        """What is not the data-plane thread: negotiation, DTLS, the control socket."""
        return self.process_s - self.engine_s

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(
            self.process_s - before.process_s,
            self.engine_s - before.engine_s,
            self.engine_waited_s - before.engine_waited_s,
        )


def cpu(pid: int) -> Cpu:
    """utime + stime of the process; scheduler statistics of its data-plane thread."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    engine_ns = waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == ENGINE_THREAD:
            words = (task / "schedstat").read_text().split()
            engine_ns, waited_ns = int(words[0]), int(words[1])
    return Cpu((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, engine_ns / 1e9, waited_ns / 1e9)


ENGINE_THREAD: Final = "parley-engine"


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def udp_sends() -> int:
    """Messages that all processes have sent over IPv4 UDP; one that is cut into datagrams counts once."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    names, values = (line for line in lines if line[0] == "Udp:")
    return int(values[names.index("OutDatagrams")])


def load_average() -> float:
    return os.getloadavg()[0]


def _git(*words: str) -> str:
    result = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
    )
    return result.stdout.strip()


def describe() -> dict[str, Any]:
    """Machine, versions and commit. `dirty`: the tree had changes in what is measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "engine", "sfu", "bench/*.py")),
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": _engine.build_info(),
        "command": " ".join(["python", "-m", *_module(sys.argv)]),
    }


def _module(argv: list[str]) -> list[str]:
    path = Path(argv[0])
    name = "bench" if path.name == "__main__.py" else f"bench.{path.stem}"
    return [name, *argv[1:]]


def save(name: str, numbers: dict[str, Any]) -> Path:
    """One dated file per run."""
    result = {"name": name, "machine": describe(), **numbers}
    stamp = result["machine"]["date"].replace(":", "").replace("+0000", "Z").replace("-", "")
    path = ROOT / "bench" / "results" / f"{name}-{stamp}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
