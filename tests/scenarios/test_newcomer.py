"""`make run` for the second time, without a network: every line it prints works, Ctrl-C stops all of it.

In a network namespace with nothing but loopback, so that the demonstration's own ports are free and nothing can be fetched.
Not here: what happens in a call (the other scenarios), the first start (a fresh clone: `.ci/run`).
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
READY_S = 20.0
BUSY_READY_S = 60.0  # with other work on all processors


def why_not() -> str:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "no unshare or no ip: apt install util-linux iproute2"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, timeout=10, check=False)
    return "" if tried.returncode == 0 else "no network namespaces for this user: run as root"


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_everything_that_is_printed_works(tmp_path: Path) -> None:
    is_busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    pictures = tmp_path / "seen"
    pictures.mkdir()
    inside = 'ip link set lo up && exec "$0" -m tests.peers.newcomer "$@"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-n", "sh", "-c", inside, sys.executable, str(pictures)),
        *("make", "run"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 280)
    seen = json.loads(out)
    print(json.dumps(seen))
    assert "error" not in seen, seen
    assert seen["!conf help is answered"]
    assert seen["guest hears Element Call and XMPP"]
    assert seen["XMPP hears the guest"]
    assert seen["Element Call as a guest"]
    assert seen["seconds to start"] <= (BUSY_READY_S if is_busy else READY_S)
    assert seen["seconds to stop"] < 15
    assert seen["left over"] == []
    words = (pictures / "printed.txt").read_text()
    assert "Everything has stopped." in words
    assert "Traceback" not in words
