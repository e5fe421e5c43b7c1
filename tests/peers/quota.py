"""A CPU quota for a process: a control group of its own, v1 (`cpu.cfs_quota_us`) or v2 (`cpu.max`), as mounted here.

Not here: what happens to the process (tests/scenarios/test_overload.py).
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PERIOD_US: Final = 100_000  # the kernel's default
_MOUNTS: Final = Path("/proc/self/mounts")


@dataclass(frozen=True, slots=True)
class Quota:
    """The group that a process is in. It begins without a limit."""

    folder: Path
    is_v2: bool

    def limit(self, cpus: float | None) -> None:
        """So much CPU time per second, in whole CPUs; None = as much as there is."""
        quota_us = None if cpus is None else round(cpus * PERIOD_US)
        if self.is_v2:
            text = "max" if quota_us is None else str(quota_us)
            (self.folder / "cpu.max").write_text(f"{text} {PERIOD_US}")
            return
        (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (self.folder / "cpu.cfs_quota_us").write_text(str(-1 if quota_us is None else quota_us))

    def throttled(self) -> int:
        """Periods in which the quota was used up."""
        rows = (line.split() for line in (self.folder / "cpu.stat").read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == "nr_throttled"), 0)


def _parent() -> tuple[Path, bool] | None:
    """Where groups with a CPU controller are made, and whether that is v2."""
    for line in _MOUNTS.read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        root = Path(folder)
        if kind == "cgroup" and "cpu" in options.split(","):
            return root, False
        if kind == "cgroup2" and "cpu" in (root / "cgroup.controllers").read_text().split():
            return root, True
    return None


def why_not() -> str:
    """Why no quota can be given here; empty if one can."""
    if os.geteuid() != 0:
        return "not root"
    try:
        with _group():
            return ""
    except OSError as why:
        return str(why)


@contextmanager
def _group() -> Iterator[Quota]:
    found = _parent()
    if found is None:
        raise OSError("no CPU controller of control groups is mounted")
    parent, is_v2 = found
    if is_v2:
        (parent / "cgroup.subtree_control").write_text("+cpu")
    folder = parent / f"parley-test-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    try:
        quota = Quota(folder, is_v2)
        quota.limit(None)
        yield quota
    finally:
        folder.rmdir()


@contextmanager
def quota_of(pid: int) -> Iterator[Quota]:
    """Put a process with all its threads into a group of its own for a while."""
    with _group() as quota:
        (quota.folder / "cgroup.procs").write_text(str(pid))
        try:
            yield quota
        finally:
            quota.limit(None)
            with contextlib.suppress(ProcessLookupError):
                (quota.folder.parent / "cgroup.procs").write_text(str(pid))
