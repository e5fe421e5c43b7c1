"""A worker that ends while its owner is still connected ends quietly."""

import asyncio
import signal
from pathlib import Path

import pytest

from sfu import client as sfu_client
from sfu import protocol
from tests.sfu.live import owner, worker_options


@pytest.mark.parametrize("by_signal", [True, False])
async def test_nothing_but_events_in_the_log(tmp_path: Path, by_signal: bool) -> None:
    options = worker_options(tmp_path)
    process = await sfu_client.spawn(options)
    assert process is not None
    async with owner(options) as one:
        silent = await asyncio.open_unix_connection(options.socket)  # never says hello
        await asyncio.sleep(0.1)
        if by_signal:
            process.send_signal(signal.SIGTERM)
        else:
            await one.ask(protocol.Drain())
        async with asyncio.timeout(10):
            while process.poll() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        silent[1].close()
    assert process.returncode == 0
    log = options.log.read_text()
    assert "worker ended" in log
    assert "Traceback" not in log, log
