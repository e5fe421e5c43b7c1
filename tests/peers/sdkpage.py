"""livekit-client as its users have it, on an empty page of ours: publish options, wishes, statistics, its E2EE worker.

The SDK is the one of our guest page (`web/`), unchanged. What the page hears and sees is `tests.peers.browser`'s.
Not here: tokens (the caller brings one), what is asserted.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.peers.browser import Browser
from tests.peers.synapse import free_port

_DIST = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "livekit-client" / "dist"
_FILES = ("livekit-client.umd.js", "livekit-client.e2ee.worker.js")
_PAGE = f'<html><script src="/{_FILES[0]}"></script></html>'

_SDK = """
(() => {
  const sdk = { room: null, errors: [] };
  window.__sdk = sdk;
  sdk.join = async (url, token, options, key) => {
    const { Room, RoomEvent, ExternalE2EEKeyProvider } = window.LivekitClient;
    if (key) {
      const keyProvider = new ExternalE2EEKeyProvider();
      await keyProvider.setKey(key);
      options = { ...options, encryption: { keyProvider, worker: new Worker('/livekit-client.e2ee.worker.js') } };
    }
    sdk.room = new Room(options);
    sdk.room.on(RoomEvent.EncryptionError, (why) => sdk.errors.push(String(why)));
    if (key) await sdk.room.setE2EEEnabled(true);
    await sdk.room.connect(url, token);
    return sdk.room.localParticipant.identity;
  };
  sdk.publish = async (audio, video) => {
    const me = sdk.room.localParticipant;
    if (audio) {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      await me.publishTrack(stream.getAudioTracks()[0], { source: 'microphone', ...audio });
    }
    if (video) {
      const stream = await navigator.mediaDevices.getUserMedia({ video: true });
      await me.publishTrack(stream.getVideoTracks()[0], { source: 'camera', ...video });
    }
  };
  const videos = () => [...sdk.room.remoteParticipants.values()].flatMap((one) => [...one.videoTrackPublications.values()]);
  sdk.wish = (wish) => {
    for (const one of videos()) {
      if (wish.quality !== undefined) one.setVideoQuality(wish.quality);
      if (wish.width) one.setVideoDimensions({ width: wish.width, height: wish.height });
      if (wish.fps) one.setVideoFPS(wish.fps);
      if (wish.enabled !== undefined) one.setEnabled(wish.enabled === 1);
    }
  };
  sdk.streams = async () => {
    const rows = [];
    for (const connection of window.__probe.connections) {
      const stats = await connection.getStats();
      for (const report of stats.values()) {
        if (report.type !== 'inbound-rtp' && report.type !== 'outbound-rtp') continue;
        rows.push({ ...report, codec: stats.get(report.codecId)?.mimeType ?? '' });
      }
    }
    return rows;
  };
})();
"""


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[str]:
    """The page's URL. It comes from loopback as parley does: Chromium would ask before it lets another page go there."""

    async def answer(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name in _FILES:
            return web.FileResponse(_DIST / name, headers={"Content-Type": "text/javascript"})
        return web.Response(text=_PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://localhost:{port}/"
    finally:
        await runner.cleanup()


async def join(
    browser: Browser, page: str, url: str, token: str, *, key: str = "", **options: Any
) -> None:
    """`page`: from `served`. `key`: frames are encrypted with it, in the SDK's worker. `options`: RoomOptions."""
    await browser.page.goto(page)
    await browser.page.evaluate(_SDK)
    await browser.page.evaluate(
        "([url, token, options, key]) => window.__sdk.join(url, token, options, key)",
        [url, token, options, key],
    )


async def publish(
    browser: Browser, *, audio: dict[str, Any] | None = None, video: dict[str, Any] | None = None
) -> None:
    """Microphone and camera, each with livekit-client's TrackPublishOptions; None: not published."""
    await browser.page.evaluate(
        "([audio, video]) => window.__sdk.publish(audio, video)", [audio, video]
    )


async def wish(browser: Browser, **what: int) -> None:
    """`quality` 0..2, `width` and `height`, `fps`, `enabled` 0 or 1: of every video it receives (UpdateTrackSettings)."""
    await browser.page.evaluate("(what) => window.__sdk.wish(what)", what)


async def streams(browser: Browser, way: str, kind: str) -> list[dict[str, Any]]:
    """`inbound` or `outbound` RTP streams of a kind: W3C webrtc-stats, and `codec`, the MIME type."""
    rows = await browser.page.evaluate("window.__sdk.streams()")
    return [row for row in rows if row["type"] == f"{way}-rtp" and row["kind"] == kind]


async def encryption_errors(browser: Browser) -> list[str]:
    errors: list[str] = await browser.page.evaluate("window.__sdk.errors")
    return errors
