"""A headless Chromium with known sound and picture, that can tell what it hears and sees.

Microphone and camera are replaced in the page by a beeping oscillator and a coloured canvas (fake devices
are per process and noise suppression removes steady tones). Remote tracks are collected from every
RTCPeerConnection, so the same probe works in any page. One browser process per person.
Not here: what a page means by joining (tests.peers.elementcall, tests.peers.guestpage).
"""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--allow-loopback-in-peer-connection",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--auto-select-desktop-capture-source=Entire screen",
)

_PROBE = """
(() => {
  const SOUND_HZ = %(tone_hz)d, COLOUR = %(colour)s, WIDTH = %(width)d, HEIGHT = %(height)d, FPS = 12;
  const probe = { tracks: new Map(), connections: [], voices: [], speaking: true };
  probe.speak = (on) => { probe.speaking = on; for (const voice of probe.voices) voice.gain.value = on ? 1 : 0; };
  window.__probe = probe;
  const RealPeer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends RealPeer {
    constructor(...args) {
      super(...args);
      probe.connections.push(this);
      this.addEventListener('track', (e) => probe.tracks.set(e.track.id + ':' + (e.transceiver.mid || ''), e.track));
    }
  };
  let context = null;
  const audio = () => (context ??= new AudioContext());
  const microphone = () => {
    const ctx = audio(), tone = ctx.createOscillator(), gate = ctx.createGain(), out = ctx.createMediaStreamDestination();
    tone.frequency.value = SOUND_HZ; gate.gain.value = 0.5;
    for (let t = 0; t < 3600; t += 1) {
      gate.gain.setValueAtTime(0.5, ctx.currentTime + t);
      gate.gain.setValueAtTime(0.05, ctx.currentTime + t + 0.85);
    }
    const voice = ctx.createGain(); voice.gain.value = probe.speaking ? 1 : 0; probe.voices.push(voice);
    tone.connect(gate).connect(voice).connect(out); tone.start();
    return out.stream.getAudioTracks()[0];
  };
  const camera = () => {
    const canvas = document.createElement('canvas'); canvas.width = WIDTH; canvas.height = HEIGHT;
    const pen = canvas.getContext('2d'); let n = 0;
    const draw = () => {
      pen.fillStyle = COLOUR; pen.fillRect(0, 0, WIDTH, HEIGHT);
      pen.fillStyle = 'rgba(255,255,255,0.25)'; pen.fillRect((n++ * 7) %% WIDTH, HEIGHT - 14, 14, 14);
    };
    draw(); setInterval(draw, 1000 / FPS);
    return canvas.captureStream(FPS).getVideoTracks()[0];
  };
  const media = navigator.mediaDevices;
  media.getUserMedia = async (want) => {
    const stream = new MediaStream();
    if (want?.audio) stream.addTrack(microphone());
    if (want?.video) stream.addTrack(camera());
    return stream;
  };
  media.getDisplayMedia = async () => new MediaStream([camera()]);
  const taps = new Map();
  const tap = (track) => {
    let analyser = taps.get(track);
    if (!analyser) {
      const ctx = audio(); ctx.resume();
      const element = new Audio(); element.muted = true; element.srcObject = new MediaStream([track]); element.play().catch(() => {});
      analyser = ctx.createAnalyser(); analyser.fftSize = 16384; analyser.smoothingTimeConstant = 0;
      ctx.createMediaStreamSource(new MediaStream([track])).connect(analyser);
      taps.set(track, analyser);
    }
    return analyser;
  };
  const live = (kind) => [...probe.tracks.values()].filter((t) => t.kind === kind && t.readyState === 'live');
  probe.peaks = () => {
    const found = [];
    for (const track of live('audio')) {
      const analyser = tap(track), bins = new Float32Array(analyser.frequencyBinCount);
      analyser.getFloatFrequencyData(bins);
      const hz = audio().sampleRate / analyser.fftSize;
      for (let i = 60; i < bins.length - 1; i++) {
        if (bins[i] > -60 && bins[i] >= bins[i - 1] && bins[i] > bins[i + 1] && i * hz < 4000) {
          let top = true;
          for (let j = Math.max(1, i - 12); j <= Math.min(bins.length - 1, i + 12); j++) if (bins[j] > bins[i]) top = false;
          if (top) found.push([Math.round(i * hz), Math.round(bins[i])]);
        }
      }
    }
    return found;
  };
  probe.reception = async () => {
    const rows = [];
    for (const connection of probe.connections) {
      if (connection.connectionState !== 'connected') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp')
          rows.push({ kind: report.kind, ssrc: report.ssrc, received: report.packetsReceived, lost: report.packetsLost });
      }
    }
    return rows;
  };
  const screens = new Map();
  probe.colours = () => {
    const seen = [];
    for (const track of live('video')) {
      let video = screens.get(track);
      if (!video) {
        video = document.createElement('video'); video.muted = true; video.srcObject = new MediaStream([track]);
        video.play().catch(() => {}); screens.set(track, video);
      }
      if (!video.videoWidth) continue;
      const canvas = document.createElement('canvas'); canvas.width = canvas.height = 4;
      const pen = canvas.getContext('2d'); pen.drawImage(video, 0, 0, video.videoWidth, video.videoHeight * 0.8, 0, 0, 4, 4);
      const p = pen.getImageData(1, 1, 1, 1).data;
      seen.push({ rgb: [p[0], p[1], p[2]], width: video.videoWidth, height: video.videoHeight, time: video.currentTime });
    }
    return seen;
  };
})();
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a person sounds and looks like: tone in Hz, colour as (red, green, blue) 0..255, pixels of the camera."""

    tone_hz: int
    rgb: tuple[int, int, int]
    size: tuple[int, int] = (320, 180)


def hears(peaks: Sequence[Sequence[float]], tone_hz: int, tolerance_hz: float = 10) -> bool:
    return any(abs(hz - tone_hz) <= tolerance_hz for hz, _ in peaks)


def near(seen: Sequence[int], wanted: Sequence[int], tolerance: int = 48) -> bool:
    """YUV and the codec move colours a little; our colours are further apart than this."""
    return all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True))


@dataclass(slots=True)
class Browser:
    """One person's browser, with one page."""

    page: Page
    pid: int

    async def peaks(self) -> list[list[float]]:
        """[Hz, dB] of every tone in every remote audio track right now."""
        result: list[list[float]] = await self.page.evaluate("window.__probe.peaks()")
        return result

    async def colours(self) -> list[dict[str, Any]]:
        """Colour, size and play time (s) of every remote video that has a picture."""
        result: list[dict[str, Any]] = await self.page.evaluate("window.__probe.colours()")
        return result

    async def reception(self) -> list[dict[str, Any]]:
        """RTP counters of every incoming stream: kind, ssrc, received, lost (sequence numbers missing)."""
        rows: list[dict[str, Any]] = await self.page.evaluate("window.__probe.reception()")
        return rows

    async def connections(self) -> int:
        """How many peer connections the page has opened so far."""
        count: int = await self.page.evaluate("window.__probe.connections.length")
        return count

    async def speak(self, on: bool) -> None:
        """Whether the microphone has sound; nothing is signalled."""
        await self.page.evaluate("(on) => window.__probe.speak(on)", on)

    async def sees(self, rgb: Sequence[int]) -> bool:
        return any(near(seen["rgb"], rgb) for seen in await self.colours())


@contextlib.asynccontextmanager
async def open_browser(
    look: Look, *, storage: str = "", log: Path | None = None
) -> AsyncIterator[Browser]:
    """A fresh Chromium process with this sound and picture. `storage` runs before every page's scripts."""
    script = _PROBE % {
        "tone_hz": look.tone_hz,
        "colour": json.dumps("rgb({},{},{})".format(*look.rgb)),
        "width": look.size[0],
        "height": look.size[1],
    }
    files = contextlib.ExitStack()
    async with async_playwright() as playwright:
        process = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            context = await process.new_context(viewport={"width": 1000, "height": 700})
            page = await context.new_page()
            if log is not None:
                sink = files.enter_context(log.open("a", buffering=1))
                page.on("console", lambda m: sink.write(f"[{m.type}] {m.text}\n"))
                page.on("pageerror", lambda e: sink.write(f"[pageerror] {e}\n"))
                page.on("request", lambda r: sink.write(f"[request] {r.method} {r.url}\n"))
                page.on("websocket", lambda w: sink.write(f"[websocket] {w.url}\n"))
            await page.add_init_script(script)
            if storage:
                await page.add_init_script(storage)
            yield Browser(page, 0)
        finally:
            with contextlib.suppress(Exception):
                await process.close()
            files.close()
