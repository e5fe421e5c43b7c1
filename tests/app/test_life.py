"""The program as an operator sees it: ready, killed, restarted, its worker killed, stopped."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sfu import lock
from tests.peers.parley import ROOT, Parley

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]  # four cold starts on a busy machine


def prepare(folder: Path) -> Parley:
    server = Parley(folder, {"conferences": [{"slug": "tea", "title": "Tea"}]})
    folder.mkdir(exist_ok=True)
    server.config_path.write_text(yaml.safe_dump(server.configuration()))
    subprocess.run(
        [sys.executable, "-m", "bridge", "migrate", "-c", str(server.config_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )
    return server


def is_running(pid: int | None) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_killed_parley_finds_its_worker_and_a_stopped_one_takes_it_along(
    tmp_path: Path,
) -> None:
    server = prepare(tmp_path / "p")
    async with server:
        assert re.search(r"ready .*public_port=", server.last_words())
        worker = server.worker_pid
        assert is_running(worker)
        await server.kill()
        assert is_running(worker)
        await server.start()
        assert server.worker_pid == worker
        pid = server.pid
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(40):
            while is_running(pid) or is_running(worker):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert "stopped" in server.last_words()


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    async with prepare(tmp_path / "p") as server:
        worker = server.worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        file = server.folder / "state" / "sfu.lock"
        async with asyncio.timeout(40):
            while lock.holder(file) in (worker, None):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert is_running(lock.holder(file))
        assert is_running(server.pid)


async def test_a_port_that_is_taken_refuses_to_start_and_leaves_no_worker(tmp_path: Path) -> None:
    async with prepare(tmp_path / "one") as first:
        second = prepare(tmp_path / "two")
        second.public_port = first.public_port
        with pytest.raises(RuntimeError, match=re.escape("http.public: cannot listen")):
            await second.start()
        async with asyncio.timeout(20):
            while is_running(second.worker_pid):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
