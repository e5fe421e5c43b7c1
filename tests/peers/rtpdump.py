"""RTP as Chromium's encoders and packetizers make it, kept for fast tests (`tests/data/rtp`).

`python -m tests.peers.rtpdump FOLDER` writes one file per codec and scalability mode: a line of JSON (what was
negotiated), then each packet in the order sent, behind its length in two bytes. They come from libwebrtc's own dump of
packets before encryption, so every bit is Chromium's; what is padding alone (probes of the link) was left out.
Not here: what is made of them (tests/engine/test_svc.py).
"""

import argparse
import asyncio
import json
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from tests.peers.browser import CHROMIUM, FLAGS

MODES = (("VP9", "L3T3_KEY"), ("VP9", "L3T3"), ("AV1", "L3T3_KEY"), ("AV1", "L3T3"))
DEPENDENCY = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)
WIDTH, HEIGHT, FPS = 1024, 576, 12  # the smallest picture that Chromium gives three sizes
BITRATE_BPS = 1_000_000  # below, it gives them fewer
SECONDS = 3
KEY_EVERY_MS = 1_000

# A loop of two peer connections in one page; a box that moves, so that no two pictures are alike.
_PAGE = """
async ([codec, mode, width, height, fps, bitrate, seconds, keyEvery]) => {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  let n = 0;
  const draw = () => {
    for (let i = 0; i < 8; i++) {
      pen.fillStyle = `hsl(${i * 45} 60% 50%)`;
      pen.fillRect(i * width / 8, 0, width / 8, height);
    }
    pen.fillStyle = 'white';
    pen.fillRect((n * 31) % width, (n * 17) % height, 90, 60);
    n++;
  };
  draw(); setInterval(draw, 1000 / fps);
  const [one, other] = [new RTCPeerConnection(), new RTCPeerConnection()];
  one.onicecandidate = (e) => other.addIceCandidate(e.candidate);
  other.onicecandidate = (e) => one.addIceCandidate(e.candidate);
  const encoding = { maxBitrate: bitrate, scalabilityMode: mode };
  const track = canvas.captureStream(fps).getVideoTracks()[0];
  const up = one.addTransceiver(track, { direction: 'sendonly', sendEncodings: [encoding] });
  const known = RTCRtpReceiver.getCapabilities('video').codecs;
  up.setCodecPreferences(known.filter((c) => c.mimeType.toUpperCase() === 'VIDEO/' + codec));
  const offer = await one.createOffer();
  const free = 1 + Math.max(...[...offer.sdp.matchAll(/a=extmap:(\\d+)/g)].map((m) => Number(m[1])));
  if (!offer.sdp.includes('#dependency-descriptor')) // Chromium does not offer it by itself; livekit-client adds it so
    offer.sdp = offer.sdp.replace('a=sendonly', `a=extmap:${free} %s\\r\\na=sendonly`);
  await one.setLocalDescription(offer);
  await other.setRemoteDescription(one.localDescription);
  await other.setLocalDescription(await other.createAnswer());
  await one.setRemoteDescription(other.localDescription);
  for (let ms = 0; ms < 1000 * seconds; ms += keyEvery) {
    await new Promise((done) => setTimeout(done, keyEvery));
    const parameters = up.sender.getParameters();
    await up.sender.setParameters(parameters, { encodingOptions: parameters.encodings.map(() => ({ keyFrame: true })) });
  }
  let used = '';
  for (const report of (await one.getStats()).values()) if (report.type === 'outbound-rtp') used = report.scalabilityMode;
  const answer = other.localDescription.sdp;
  one.close(); other.close();
  return { used, answer };
}
""".replace("%s", DEPENDENCY)


def outgoing(log: str) -> Iterator[bytes]:
    for line in re.findall(r"^O [\d:.]+ 0*0 ((?:[0-9a-f]{2} ?)+).*RTP_DUMP", log, re.MULTILINE):
        yield bytes.fromhex(line)


async def capture(codec: str, mode: str) -> tuple[dict[str, Any], list[bytes]]:
    """What was negotiated, and the packets."""
    with tempfile.TemporaryDirectory() as folder:
        log, start = Path(folder) / "log", Path(folder) / "chromium"
        # Renderers log to the standard error stream alone.
        start.write_text(f'#!/bin/sh\nexec {CHROMIUM} "$@" 2>{log}\n')
        start.chmod(0o755)
        flags = [*FLAGS, "--enable-logging=stderr", "--vmodule=srtp_session=3"]
        flags.append("--force-fieldtrials=WebRTC-Debugging-RtpDump/Enabled/")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=start, args=flags)
            page = await browser.new_page()
            asked = [codec, mode, WIDTH, HEIGHT, FPS, BITRATE_BPS, SECONDS, KEY_EVERY_MS]
            told = await page.evaluate(_PAGE, asked)
            version = browser.version
            await browser.close()
        text = log.read_text(errors="replace")
    assert told["used"] == mode, f"Chromium encodes {told['used']}"
    payload_type = int(re.search(rf"a=rtpmap:(\d+) {codec}/90000", told["answer"])[1])  # type: ignore[index]
    extension = int(re.search(rf"a=extmap:(\d+) {DEPENDENCY}", told["answer"])[1])  # type: ignore[index]
    packets = [one for one in outgoing(text) if one[1] & 0x7F == payload_type and not one[0] & 0x20]
    about = {
        "codec": codec,
        "mode": mode,
        "payload_type": payload_type,
        "dependency_descriptor": extension,
        "chromium": version,
    }
    return about, packets


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    folder = options.parse_args().folder
    for codec, mode in MODES:
        about, packets = await capture(codec, mode)
        with (folder / f"chromium-{codec}-{mode}.rtp".lower()).open("wb") as out:
            out.write(json.dumps(about).encode() + b"\n")
            for packet in packets:
                out.write(struct.pack("!H", len(packet)) + packet)
        print(about, len(packets), "packets", sum(map(len, packets)), "bytes")


if __name__ == "__main__":
    asyncio.run(main())
