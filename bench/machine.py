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
    """CPU seconds so far. `engine_*` are of the data-plane threads alone; `waited` is ready but not running."""

    process_s: float
    engine_s: float
    engine_waited_s: float
    shards_s: tuple[float, ...] = ()  # of each data-plane thread, in the order of their ids

    @property
    def control_s(self) -> float:
        """What is not the data-plane thread: negotiation, DTLS, the control socket."""
        return self.process_s - self.engine_s

    def since(self, before: "Cpu") -> "Cpu":
        return Cpu(
            self.process_s - before.process_s,
            self.engine_s - before.engine_s,
            self.engine_waited_s - before.engine_waited_s,
            tuple(now - then for now, then in zip(self.shards_s, before.shards_s, strict=True)),
        )


def _data_plane(pid: int) -> list[Path]:
    """Its data-plane threads, in the order of their ids."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name))
    return [task for task in tasks if (task / "comm").read_text().startswith(ENGINE_THREAD)]


def cpu(pid: int) -> Cpu:
    """utime + stime of the process; scheduler statistics of its data-plane thread."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    waited_ns = 0
    shards_ns: list[int] = []
    for task in _data_plane(pid):
        words = (task / "schedstat").read_text().split()
        shards_ns.append(int(words[0]))
        waited_ns += int(words[1])
    return Cpu(
        (int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        sum(shards_ns) / 1e9,
        waited_ns / 1e9,
        tuple(one / 1e9 for one in shards_ns),
    )


def main_thread_s(pid: int) -> float:
    """CPU seconds of a process's first thread: asyncio; the others are the database's and helpers."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


ENGINE_THREAD: Final = "parley-engine"
# Which CPU of several: what is measured shares none with what sends and reads.
SERVER, LOAD = 0, 1


def spread(pid: int) -> None:
    """The threads of a process in turn to two CPUs; on a machine with one: nothing."""
    _alternate(sorted(Path(f"/proc/{pid}/task").iterdir()))


def pin(pid: int, cpu: int | None) -> None:
    """All threads of a process to one CPU; None, or a machine with one: wherever the kernel likes."""
    all_cpus = sorted(os.sched_getaffinity(0))
    if cpu is None or len(all_cpus) < 2:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {all_cpus[cpu]})


def rotate(pid: int, by: int) -> None:
    """The data-plane threads of a process in turn to two CPUs, so many further; on a machine with one: nothing."""
    _alternate(_data_plane(pid), by)


def _alternate(tasks: list[Path], by: int = 0) -> None:
    all_cpus = sorted(os.sched_getaffinity(0))
    if len(all_cpus) < 2:
        return
    for place, task in enumerate(tasks, by):
        os.sched_setaffinity(int(task.name), {all_cpus[place % 2]})


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


MEASURED: Final = ("engine", "sfu", "bridge", "migrations", "bench/*.py", "bench/scenarios")


def describe() -> dict[str, Any]:
    """Machine, versions and commit. `dirty`: what was measured is not what the commit says."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    engine = _engine.build_info()
    changed = _git("status", "--porcelain", "--", *MEASURED)
    faults = {
        "the tree differs from the commit": bool(changed),
        "the engine was built from other sources": engine["sources"] != engine_sources(),
        "the engine was built with another profile": engine["opt_level"] != "3",
    }
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": any(faults.values()),
        "why_dirty": [fault for fault, is_so in faults.items() if is_so],
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": engine,
        "command": " ".join(["python", "-m", *_module(sys.argv)]),
    }


def engine_sources() -> str:
    """The hash that `engine/py/build.rs` writes into the module: FNV-1a over paths and contents."""
    engine = ROOT / "engine"
    files = [engine / "Cargo.toml", engine / "Cargo.lock"]
    for crate in ("core", "io", "py"):
        files += [engine / crate / "Cargo.toml", *(engine / crate / "src").rglob("*.rs")]
    value = 0xCBF29CE484222325
    for name, path in sorted((path.relative_to(engine).as_posix(), path) for path in files):
        for byte in name.encode() + b"\0" + path.read_bytes():
            value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:016x}"


def _module(argv: list[str]) -> list[str]:
    path = Path(argv[0])
    name = "bench" if path.name == "__main__.py" else f"bench.{path.stem}"
    return [name, *argv[1:]]


def save(name: str, numbers: dict[str, Any], described: dict[str, Any] | None = None) -> Path:
    """One dated file per run."""
    result = {"name": name, "machine": described or describe(), **numbers}
    stamp = result["machine"]["date"].replace(":", "").replace("+0000", "Z").replace("-", "")
    path = ROOT / "bench" / "results" / f"{name}-{stamp}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
