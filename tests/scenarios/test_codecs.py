"""What livekit-client publishes other than plain VP8: VP9 and AV1 SVC, H.264 simulcast, RED; decoded by Chromium.

Likewise the native SDK's. MP11, MP14. Size and rate are switched by UpdateTrackSettings, as tiles that grow and shrink do.
Not here: every picture compared with what was drawn (tests/engine/test_svc.py, test_layers.py).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sfu.layers import LOWER_AFTER_S
from tests.peers import sdkpage
from tests.peers.browser import Browser, Look, hears, near, open_browser
from tests.peers.parley import Parley
from tests.peers.process import PeerProcess
from tests.scenarios.test_livekit_loop import token

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

ANN = Look(520, (200, 40, 40), (1024, 576))  # the smallest picture that Chromium gives three sizes
BEN, EVE = Look(900, (40, 60, 200)), Look(1300, (40, 190, 60))
FPS = 12
SWITCHES = 20
SWITCHED_S = 4.0  # an encoder's key frame on a busy machine
RATE_S = 2.0
SILENCE_S, SILENT_BPS = 5.0, 5_000
# By quality. H.264 is simulcast, of livekit-client's own sizes.
SVC, SIMULCAST = (256, 512, 1024), (320, 640, 1024)

# A browser that does not know RED, like Firefox.
WITHOUT_RED = """
(() => {
  for (const making of ['createOffer', 'createAnswer']) {
    const real = RTCPeerConnection.prototype[making];
    RTCPeerConnection.prototype[making] = async function (...args) {
      const made = await real.apply(this, args);
      const sdp = made.sdp
        .replace(/^(m=audio .*) 63\\b/gm, '$1')
        .replace(/^a=(rtpmap|fmtp):63 .*\\r\\n/gm, '');
      return { type: made.type, sdp };
    };
  }
})();
"""

# What Chromium offered before it knew rids, and still takes from pages that write it into their offers.
WITH_SIM_GROUPS = """
(() => {
  const add = RTCPeerConnection.prototype.addTransceiver, create = RTCPeerConnection.prototype.createOffer;
  RTCPeerConnection.prototype.addTransceiver = function (what, how) {
    if (how?.sendEncodings?.length > 1) how = { ...how, sendEncodings: undefined };
    return add.call(this, what, how);
  };
  const grouped = (section) => {
    const pair = section.match(/a=ssrc-group:FID (\\d+) (\\d+)/);
    if (!section.startsWith('m=video') || !pair || section.includes('ssrc-group:SIM')) return section;
    const [media, repair] = [Number(pair[1]), Number(pair[2])];
    const lines = [`a=ssrc-group:SIM ${media} ${media + 2} ${media + 4}`];
    for (const more of [2, 4]) {
      lines.push(`a=ssrc-group:FID ${media + more} ${repair + more}`);
      for (const ssrc of [media, repair])
        for (const [line] of section.matchAll(new RegExp(`^a=ssrc:${ssrc} .*$`, 'gm')))
          lines.push(line.replace(String(ssrc), String(ssrc + more)));
    }
    return section.trimEnd() + '\\r\\n' + lines.join('\\r\\n') + '\\r\\n';
  };
  RTCPeerConnection.prototype.createOffer = async function (...args) {
    const offer = await create.apply(this, args);
    return { type: offer.type, sdp: offer.sdp.split(/(?=^m=)/m).map(grouped).join('') };
  };
})();
"""

# Chromium sends three streams then, all of full size unless it is told otherwise.
SCALED = """
async () => {
  for (const sender of window.__probe.connections[0].getSenders()) {
    const parameters = sender.getParameters();
    if (parameters.encodings.length !== 3) continue;
    parameters.encodings.forEach((one, at) => { one.scaleResolutionDownBy = 4 >> at; });
    await sender.setParameters(parameters);
  }
}
"""


async def _within(wait_s: float, look: Callable[[], Awaitable[bool]], what: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < wait_s:
        if await look():
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: not within {wait_s:.0f} s")


def _parley(folder: Path) -> Parley:
    """One that allows every codec."""
    parley = Parley(folder / "parley")
    codecs = {"video_codecs": ["VP8", "VP9", "AV1", "H264"]}
    parley.sections = {"livekit": parley.configuration()["livekit"] | codecs}
    return parley


@asynccontextmanager
async def _call(
    folder: Path, *scripts: str, publisher: str = "", **options: Any
) -> AsyncIterator[tuple[Browser, ...]]:
    """Ann, who will publish, and one listener per script, which runs before its page. `options`: of `sdkpage.join`."""
    parley = _parley(folder)
    async with (
        parley,
        sdkpage.served() as page,
        open_browser(ANN, storage=publisher, log=folder / "ann.log") as ann,
    ):
        await sdkpage.join(ann, page, parley.ws_url, token(parley, "ann"), **options)
        async with AsyncExitStack() as stack:
            listeners: list[Browser] = []
            for index, script in enumerate(scripts):
                opened = open_browser(BEN, storage=script, log=folder / f"ben{index}.log")
                ben = await stack.enter_async_context(opened)
                await sdkpage.join(
                    ben, page, parley.ws_url, token(parley, f"ben{index}"), **options
                )
                listeners.append(ben)
            yield (ann, *listeners)


async def _video(browser: Browser) -> dict[str, Any]:
    (stream,) = await sdkpage.streams(browser, "inbound", "video")
    return stream


async def _shows(browser: Browser, width: int) -> bool:
    streams = await sdkpage.streams(browser, "inbound", "video")
    is_wide = [stream.get("frameWidth") == width for stream in streams] == [True]
    return is_wide and await browser.sees(ANN.rgb)


async def _rate(browser: Browser) -> float:
    """Pictures per second that are decoded now."""
    before, began = await _video(browser), time.monotonic()
    await asyncio.sleep(RATE_S)
    after = await _video(browser)
    return (after["framesDecoded"] - before["framesDecoded"]) / (time.monotonic() - began)


@pytest.mark.parametrize(
    ("codec", "published", "joined", "widths"),
    [
        ("VP9", {}, {}, SVC),
        ("VP9", {"scalabilityMode": "L3T3"}, {"key": "ours"}, SVC),
        ("AV1", {}, {"singlePeerConnection": False}, SVC),
        ("H264", {}, {}, SIMULCAST),
    ],
    ids=["vp9 L3T3_KEY", "vp9 L3T3, encrypted", "av1 L3T3_KEY, dual", "h264 simulcast"],
)
async def test_sizes_and_rates_are_switched_without_a_decoder_that_asks(
    tmp_path: Path,
    codec: str,
    published: dict[str, str],
    joined: dict[str, Any],
    widths: tuple[int, ...],
) -> None:
    async with _call(tmp_path, "", **joined) as (ann, ben):
        video = {"videoCodec": codec.lower(), "backupCodec": False, **published}
        await sdkpage.publish(ann, video=video)
        await _within(20, lambda: _shows(ben, widths[2]), "the largest picture")
        assert (await _video(ben))["codec"] == f"video/{codec}"
        sent = await sdkpage.streams(ann, "outbound", "video")
        if widths is SVC:
            assert [one["scalabilityMode"] for one in sent] == [
                published.get("scalabilityMode", "L3T3_KEY")
            ]
        choice, quality = random.Random(7), 2
        took: list[float] = []
        for _ in range(SWITCHES):
            quality = choice.choice([other for other in range(3) if other != quality])
            wish: dict[str, int] = {"quality": quality}
            if choice.randrange(2):
                wish = {"width": widths[quality], "height": widths[quality] * 9 // 16}
            await sdkpage.wish(ben, **wish)
            took.append(
                await _within(SWITCHED_S, lambda w=widths[quality]: _shows(ben, w), str(wish))
            )
        if widths is SVC:
            await sdkpage.wish(ben, width=widths[0], height=widths[0] * 9 // 16, fps=2)
            await _within(SWITCHED_S, lambda: _shows(ben, widths[0]), "the smallest picture")
            slow = await _rate(ben)
            await sdkpage.wish(ben, fps=30)
            fast = await _rate(ben)
            print(f"{slow:.1f} and {fast:.1f} pictures/s")
            assert slow < FPS / 2 < fast
        seen = await _video(ben)
        print(
            f"switched within {max(took):.1f} s; {seen['framesDecoded']} pictures, {seen['keyFramesDecoded']} keys"
        )
        # A decoder that misses something asks for a key frame.
        assert (seen["pliCount"], seen.get("firCount", 0), seen["packetsLost"]) == (0, 0, 0)
        assert seen["framesReceived"] - seen["framesDecoded"] <= 2
        assert await ben.sees(ANN.rgb)


async def test_a_picture_of_three_sizes_that_nobody_watches_is_not_sent(tmp_path: Path) -> None:
    """Dynacast of an SVC stream: it is one stream, so all of it or nothing."""
    async with _call(tmp_path, "", dynacast=True) as (ann, ben):
        await sdkpage.publish(ann, video={"videoCodec": "vp9"})
        await _within(20, lambda: _shows(ben, SVC[2]), "the largest picture")

        async def is_sent() -> bool:
            (before,) = await sdkpage.streams(ann, "outbound", "video")
            await asyncio.sleep(0.5)
            (after,) = await sdkpage.streams(ann, "outbound", "video")
            return bool(after["framesEncoded"] > before["framesEncoded"])

        async def is_not_sent() -> bool:
            return not await is_sent()

        await sdkpage.wish(ben, quality=0)
        await _within(SWITCHED_S, lambda: _shows(ben, SVC[0]), "the smallest picture")
        await asyncio.sleep(2 * LOWER_AFTER_S)
        assert await is_sent()
        await sdkpage.wish(ben, enabled=0)
        await _within(3, is_not_sent, "the pause")  # 2 s, and a look takes 0.5
        await sdkpage.wish(ben, enabled=1, quality=2)
        await _within(10, lambda: _shows(ben, SVC[2]), "the largest picture again")


@pytest.mark.parametrize("is_single", [True, False], ids=["single", "dual"])
async def test_red_reaches_those_who_know_it_and_opus_the_others(
    tmp_path: Path, is_single: bool
) -> None:
    how = {"singlePeerConnection": is_single}
    async with _call(tmp_path, "", WITHOUT_RED, **how) as (ann, knows, knows_not):
        await sdkpage.publish(ann, audio={})
        for listener in (knows, knows_not):

            async def heard(listener: Browser = listener) -> bool:
                return hears(await listener.peaks(), ANN.tone_hz)

            await _within(20, heard, "Ann's tone")
        await asyncio.sleep(2)
        (sent,) = await sdkpage.streams(ann, "outbound", "audio")
        (red,) = await sdkpage.streams(knows, "inbound", "audio")
        (opus,) = await sdkpage.streams(knows_not, "inbound", "audio")
        sizes = [one["bytesReceived"] / one["packetsReceived"] for one in (red, opus)]
        print(
            f"bytes per packet: {sent['bytesSent'] / sent['packetsSent']:.0f} sent, {sizes} received"
        )
        assert sizes[0] > 1.5 * sizes[1], "twice the sound in a packet"
        assert (red["packetsLost"], opus["packetsLost"]) == (0, 0)


async def _audio_bps(browser: Browser, way: str) -> float:
    """Of the one audio stream, RTP headers included, over `SILENCE_S`."""

    async def size() -> int:
        (stream,) = await sdkpage.streams(browser, way, "audio")
        counted = "Received" if way == "inbound" else "Sent"
        return int(stream[f"bytes{counted}"] + stream[f"headerBytes{counted}"])

    before, began = await size(), time.monotonic()
    await asyncio.sleep(SILENCE_S)
    return (await size() - before) * 8 / (time.monotonic() - began)


@pytest.mark.parametrize("red", [False, True], ids=["opus", "red"])
async def test_a_silent_microphone_costs_next_to_nothing(tmp_path: Path, *, red: bool) -> None:
    """MP19: Opus DTX, at the publisher and at who receives; speech is whole again at once."""
    async with _call(tmp_path, "") as (ann, ben):
        await sdkpage.publish(ann, audio={"dtx": True, "red": red})

        async def heard() -> bool:
            return hears(await ben.peaks(), ANN.tone_hz)

        await _within(20, heard, "Ann's tone")
        spoken_bps = await _audio_bps(ben, "inbound")
        await ann.speak(False)
        await asyncio.sleep(1.5)
        sent_bps, received_bps = await asyncio.gather(
            _audio_bps(ann, "outbound"), _audio_bps(ben, "inbound")
        )
        print(
            f"{spoken_bps:.0f} bit/s of sound; silent: {sent_bps:.0f} sent, {received_bps:.0f} received"
        )
        assert max(sent_bps, received_bps) < SILENT_BPS < spoken_bps / 2
        await ann.speak(True)
        await _within(5, heard, "her tone again")
        (stream,) = await sdkpage.streams(ben, "inbound", "audio")
        assert stream["packetsLost"] == 0, "what is not sent is no loss"


async def test_simulcast_by_ssrc_groups(tmp_path: Path) -> None:
    async with _call(tmp_path, "", publisher=WITH_SIM_GROUPS) as (ann, ben):
        await sdkpage.publish(ann, video={"videoCodec": "vp8", "simulcast": True})
        await ann.page.evaluate(SCALED)
        await _within(20, lambda: _shows(ben, 1024), "the largest picture")
        offer = await ann.page.evaluate("window.__probe.connections[0].localDescription.sdp")
        assert "ssrc-group:SIM" in offer
        assert "a=simulcast" not in offer
        sent = await sdkpage.streams(ann, "outbound", "video")
        assert [one["packetsSent"] > 0 for one in sent] == [True] * 3
        for quality, width in ((0, 256), (2, 1024), (1, 512), (2, 1024), (0, 256), (1, 512)):
            await sdkpage.wish(ben, quality=quality)
            await _within(SWITCHED_S, lambda w=width: _shows(ben, w), f"width {width}")
        seen = await _video(ben)
        assert (seen["pliCount"], seen["packetsLost"]) == (0, 0)


@pytest.mark.parametrize(
    ("codec", "widths"), [("VP9", SVC), ("AV1", SVC), ("H264", SIMULCAST)], ids=str
)
async def test_the_native_sdk_too(tmp_path: Path, codec: str, widths: tuple[int, ...]) -> None:
    """With RED. Its libwebrtc has other encoders and decoders than Chromium's."""
    parley = _parley(tmp_path)

    def client(name: str, look: Look, *more: str) -> PeerProcess:
        how = ["--url", parley.ws_url, "--token", token(parley, name)]
        how += ["--tone-hz", str(look.tone_hz), "--rgb", ",".join(map(str, look.rgb)), *more]
        return PeerProcess("tests.peers.native", how, tmp_path / f"{name}.log")

    size = "x".join(map(str, ANN.size))
    async with (
        parley,
        client("ann", ANN, "--size", size, "--codec", codec, "--simulcast", "--red"),
        client("ben", BEN, "--no-video") as ben,
    ):
        await _within(20, lambda: _sees(ben, widths[2]), "the largest picture")
        for quality in (0, 2, 1, 2, 0):
            await ben.ask("prefer", quality=quality)
            await _within(SWITCHED_S, lambda w=widths[quality]: _sees(ben, w), f"quality {quality}")
        heard = [tone for one in await ben.ask("peaks") for tone in one["tones"]]
        assert hears(heard, ANN.tone_hz)


async def _sees(peer: PeerProcess, width: int) -> bool:
    seen = [one for one in await peer.ask("colours") if one["rgb"]]
    return [one["width"] for one in seen] == [width] and near(seen[0]["rgb"], ANN.rgb)
