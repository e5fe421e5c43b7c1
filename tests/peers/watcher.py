"""A native LiveKit client that shows a moving scene in simulcast, or writes down ten times a second how well it receives one.

JSON lines on stdin and stdout as `tests.peers.native`. The scene is a texture that scrolls: an encoder has something
to spend its bits on. Freezes, losses and sizes are libwebrtc's own statistics.
Not here: what is asserted; tones and colours (`tests.peers.native`).
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from typing import Any

import numpy as np
from livekit import rtc

RATE_HZ = 48_000
FRAME_MS = 10
SAMPLE_S = 0.1
GRAIN = 3.0  # of 255
GRAINS = 7


def textures(width: int, height: int) -> list[np.ndarray[Any, Any]]:
    """Luma with detail at several scales, twice as wide as the picture, under a grain that changes."""
    random = np.random.default_rng(7)
    whole = np.zeros((height, 2 * width))
    for cell in (8, 24, 80):
        small = random.normal(size=(height // cell + 2, 2 * width // cell + 2))
        large = np.kron(small, np.ones((cell, cell)))[:height, : 2 * width]
        whole += large * cell**0.5
    whole -= whole.min()
    whole = whole / whole.max() * 199 + 26
    grains = (random.normal(scale=GRAIN, size=whole.shape) for _ in range(GRAINS))
    return [np.clip(whole + grain, 16, 235).astype(np.uint8) for grain in grains]


class Watcher:
    def __init__(self) -> None:
        self.room = rtc.Room()
        self.began = 0.0
        self.samples: list[dict[str, Any]] = []
        self.happened: list[dict[str, Any]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        for name in ("reconnecting", "reconnected", "disconnected", "track_subscribed"):
            self.room.on(name, lambda *_, name=name: self._note(name))
        self.room.on("track_stream_state_changed", lambda *_: self._note("stream_state"))
        self.room.on("track_subscribed", self._subscribed)
        self.room.on("data_received", lambda *_: self._note("data"))

    def _note(self, what: str) -> None:
        self.happened.append({"what": what, "at": time.monotonic()})

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _subscribed(self, track: Any, publication: Any, participant: Any) -> None:
        self.spawn(self._consume(track))

    async def _consume(self, track: Any) -> None:
        """libwebrtc counts what is rendered: somebody has to look."""
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            async for _ in rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1):
                pass
        else:
            async for _ in rtc.VideoStream(track):
                pass

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            report = await self.room.get_rtc_stats()
            sample: dict[str, Any] = {"at": time.monotonic()}
            for stat in report.subscriber_stats or report.publisher_stats:
                if not stat.HasField("inbound_rtp"):
                    continue
                received, inbound = stat.inbound_rtp.received, stat.inbound_rtp.inbound
                sample[stat.inbound_rtp.stream.kind] = {
                    "received": received.packets_received,
                    "lost": received.packets_lost,
                    "repaired": inbound.retransmitted_packets_received,
                    "frames": inbound.frames_decoded,
                    "width": inbound.frame_width,
                    "freezes": inbound.freeze_count,
                    "frozen_s": inbound.total_freeze_duration,
                    "plis": inbound.pli_count,
                    "nacks": inbound.nack_count,
                    "keys": inbound.key_frames_decoded,
                    "bytes": inbound.bytes_received,
                    "concealed": inbound.concealed_samples - inbound.silent_concealed_samples,
                    "samples": inbound.total_samples_received,
                }
            self.samples.append(sample)
            await asyncio.sleep(max(0.0, began + SAMPLE_S - time.monotonic()))

    async def publish(self, width: int, height: int, fps: int) -> None:
        sound = rtc.AudioSource(RATE_HZ, 1)
        voice = rtc.LocalAudioTrack.create_audio_track("microphone", sound)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_MICROPHONE, red=False, dtx=False
        )
        await self.room.local_participant.publish_track(voice, options)
        self.spawn(self._sing(sound))
        picture = rtc.VideoSource(width, height)
        camera = rtc.LocalVideoTrack.create_video_track("camera", picture)
        video_options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            video_codec=rtc.VideoCodec.VP8,
            simulcast=True,
            video_encoding=rtc.VideoEncoding(max_bitrate=1_500_000, max_framerate=fps),
        )
        await self.room.local_participant.publish_track(camera, video_options)
        self.spawn(self._show(picture, width, height, fps))

    async def _sing(self, source: Any) -> None:
        count, at = RATE_HZ * FRAME_MS // 1000, 0
        while True:
            times = (np.arange(count) + at) / RATE_HZ
            sound = (np.sin(2 * np.pi * 440 * times) * 9000).astype(np.int16)
            at += count
            await source.capture_frame(rtc.AudioFrame(sound.tobytes(), RATE_HZ, 1, count))

    async def _show(self, source: Any, width: int, height: int, fps: int) -> None:
        grains, chroma = textures(width, height), b"\x80" * (width * height // 2)
        step, due = 0, time.monotonic()
        while True:
            at = step * 6 % width
            data = grains[step % GRAINS][:, at : at + width].tobytes() + chroma
            source.capture_frame(
                rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, bytearray(data))
            )
            step += 1
            due += 1 / fps
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def protocols(self) -> list[str]:
        """Of the local candidates in use."""
        report = await self.room.get_rtc_stats()
        stats = [*report.publisher_stats, *report.subscriber_stats]
        used = {
            stat.candidate_pair.candidate_pair.local_candidate_id
            for stat in stats
            if stat.HasField("candidate_pair") and stat.candidate_pair.candidate_pair.bytes_received
        }
        return [
            stat.local_candidate.candidate.protocol
            for stat in stats
            if stat.HasField("local_candidate") and stat.local_candidate.rtc.id in used
        ]

    async def answer(self, ask: dict[str, Any]) -> Any:
        do = ask["do"]
        if do == "samples":
            return self.samples[int(ask.get("after", 0)) :]
        if do == "happened":
            return self.happened
        if do == "began":
            return self.began
        if do == "budget":
            payload = json.dumps({"type": "budget", "bps": ask["bps"]})
            await self.room.local_participant.publish_data(payload, topic="parley.budget")
            return True
        if do == "protocols":
            return await self.protocols()
        raise ValueError(f"unknown command {do}")


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--url", required=True)
    options.add_argument("--token", required=True)
    options.add_argument(
        "--show", default="", help="WIDTHxHEIGHT@FPS; nothing is published without"
    )
    given = options.parse_args()
    own = Watcher()
    own.began = time.monotonic()
    await asyncio.wait_for(
        own.room.connect(given.url, given.token, rtc.RoomOptions(auto_subscribe=True)), 25
    )
    own.spawn(own.watch())
    if given.show:
        size, fps = given.show.split("@")
        width, height = map(int, size.split("x"))
        await own.publish(width, height, int(fps))
    print(json.dumps({"ready": own.room.local_participant.identity}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        ask = json.loads(line)
        if ask["do"] == "leave":
            break
        try:
            answer = {"ok": await own.answer(ask)}
        except Exception as why:
            answer = {"error": repr(why)}
        print(json.dumps(answer), flush=True)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(own.room.disconnect(), 5)


if __name__ == "__main__":
    asyncio.run(main())
