"""What a worker loads: memory, and what an upgrade on disk could change under it."""

import subprocess
import sys

import pytest

NO_CODECS = """
import sys
import sfu.__main__
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"av", "numpy", "bridge"}, loaded
"""

WHOLE_AFTERWARDS = """
import asyncio
import sfu.__main__
from sfu.datachannel import RTCDataChannel, RTCSctpTransport
import aiortc
from aiortc import RTCPeerConnection
from aiortc.contrib.media import MediaBlackhole
import aiortc.rtcdtlstransport
import aiortc.rtp
import av

async def call():
    one, other = RTCPeerConnection(), RTCPeerConnection()
    channel = one.createDataChannel("x")
    assert type(channel) is RTCDataChannel and type(channel.transport) is RTCSctpTransport
    opened = asyncio.Event()
    channel.on("open", opened.set)
    await one.setLocalDescription(await one.createOffer())
    await other.setRemoteDescription(one.localDescription)
    await other.setLocalDescription(await other.createAnswer())
    await one.setRemoteDescription(other.localDescription)
    await asyncio.wait_for(opened.wait(), 10)
    await one.close()
    await other.close()

asyncio.run(call())
assert aiortc.RTCSctpTransport is RTCSctpTransport is aiortc.rtcsctptransport.RTCSctpTransport
assert aiortc.rtcdtlstransport.RTCDtlsTransport is aiortc.RTCDtlsTransport
assert aiortc.rtp.AudioFrame is av.AudioFrame
"""

WHOLE_BEFORE = """
import aiortc
import sfu.__main__
from sfu.datachannel import RTCSctpTransport
assert aiortc.RTCSctpTransport is RTCSctpTransport
"""


@pytest.mark.parametrize("program", [NO_CODECS, WHOLE_AFTERWARDS, WHOLE_BEFORE])
def test_a_worker_loads_no_codecs_and_leaves_aiortc_whole_for_others(program: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
