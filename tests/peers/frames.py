"""What crosses between a browser's encoder or decoder and the network: a fingerprint of every encoded frame.

A page that encrypts frames puts its transform between `createEncodedStreams` and the network. The tap sits on the
network's side of that, so what it sees is what the server gets, or gave.
Not here: the browser itself (`browser`), what is asserted.
"""

from dataclasses import dataclass

from tests.peers.browser import Browser

# Runs before every page's scripts, after the probe of `browser`.
TAP = """
(() => {
  const MAX = 4000, frames = [];
  window.__frames = frames;
  const hex = (bytes) => [...new Uint8Array(bytes)].map((b) => b.toString(16).padStart(2, '0')).join('');
  const tap = (way) => new TransformStream({
    async transform(frame, next) {
      const copy = frame.data.slice(0);
      next.enqueue(frame);
      if (frames.length >= MAX) return;
      const kind = frame.type === undefined ? 'audio' : 'video';
      const tail = hex(copy.slice(-2));
      frames.push({ way, kind, bytes: copy.byteLength, tail, hash: hex(await crypto.subtle.digest('SHA-256', copy)) });
    },
  });
  const wrap = (owner, way, connect) => {
    const real = owner.prototype.createEncodedStreams;
    owner.prototype.createEncodedStreams = function (...args) { return connect(real.apply(this, args), tap(way)); };
  };
  wrap(RTCRtpSender, 'sent', (streams, tap) => {
    tap.readable.pipeTo(streams.writable).catch(() => {});
    return { readable: streams.readable, writable: tap.writable };
  });
  wrap(RTCRtpReceiver, 'received', (streams, tap) => (
    { readable: streams.readable.pipeThrough(tap), writable: streams.writable }
  ));
})();
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """An encoded frame as it went to, or came from, the network."""

    is_sent: bool
    kind: str
    bytes: int
    hash: str
    # Of LiveKit's frame encryption: the length of the IV, the index of the key.
    iv_bytes: int
    key_index: int


async def frames(browser: Browser) -> list[Frame]:
    """Everything so far; at most 4,000, in order."""
    seen = await browser.page.evaluate("window.__frames")
    return [
        Frame(
            one["way"] == "sent",
            one["kind"],
            one["bytes"],
            one["hash"],
            int(one["tail"][:2] or "0", 16),
            int(one["tail"][2:] or "0", 16),
        )
        for one in seen
    ]
