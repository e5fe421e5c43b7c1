"""A native LiveKit client (the PyPI `livekit` SDK, libwebrtc inside) as a process of its own.

It sends a tone and a coloured picture, and tells what it hears and sees. Commands and answers are JSON
lines on stdin and stdout, so that a scenario can SIGKILL it.
Not here: tokens (the caller brings one), what is asserted.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from livekit import rtc

RATE_HZ = 48_000
FRAME_MS = 10
QUEUE_MS = 1_000  # of sound that waits inside the SDK: what is said now is sent that much later
WIDTH, HEIGHT, FPS = 320, 180, 12
WINDOW_S = 1.0  # of sound that one look covers


@dataclass(slots=True)
class Heard:
    """The last second of one remote audio track."""

    identity: str
    name: str
    samples: deque[np.ndarray[Any, Any]] = field(default_factory=lambda: deque(maxlen=100))
    frames: int = 0

    def tones(self) -> list[list[float]]:
        """[Hz, dB] of the strongest peaks; empty when silent."""
        if len(self.samples) < 50:
            return []
        sound = np.concatenate(self.samples).astype(np.float64) / 32768
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) / len(sound) * 4
        level = 20 * np.log10(spectrum + 1e-9)
        hz = RATE_HZ / len(sound)
        found: list[list[float]] = []
        for index in np.argsort(level)[::-1][:40]:
            frequency = float(index * hz)
            if level[index] < -50 or frequency < 100:
                continue
            if all(abs(frequency - other) > 25 for other, _ in found):
                found.append([round(frequency, 1), round(float(level[index]), 1)])
        return found[:5]


@dataclass(slots=True)
class Seen:
    """The last picture of one remote video track."""

    identity: str
    name: str
    rgb: list[int] = field(default_factory=list)
    width: int = 0
    height: int = 0
    frames: int = 0


class Client:
    """One person."""

    def __init__(
        self,
        tone_hz: int,
        rgb: tuple[int, int, int],
        size: tuple[int, int] = (WIDTH, HEIGHT),
        *,
        simulcast: bool = False,
        codec: str = "VP8",
        red: bool = False,
        queue_ms: int = QUEUE_MS,
    ) -> None:
        self.codec = codec
        self.red = red
        self.queue_ms = queue_ms
        self.size = size
        self.simulcast = simulcast
        self.video: Any = None
        self.room = rtc.Room()
        self.tone_hz = tone_hz
        self.rgb = rgb
        self.heard: dict[str, Heard] = {}
        self.seen: dict[str, Seen] = {}
        self.texts: list[dict[str, str]] = []
        self.data: list[dict[str, Any]] = []
        self.happened: list[dict[str, Any]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.audio_publication: Any = None
        self.speaking = True
        self._listen()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _listen(self) -> None:
        room = self.room

        def subscribed(track: Any, publication: Any, participant: Any) -> None:
            if track.kind == rtc.TrackKind.KIND_AUDIO:
                self._spawn(self._hear(track, participant))
            else:
                self._spawn(self._see(track, participant))

        def unsubscribed(track: Any, publication: Any, participant: Any) -> None:
            self.heard.pop(track.sid, None)
            self.seen.pop(track.sid, None)

        room.on("track_subscribed", subscribed)
        room.on("track_unsubscribed", unsubscribed)
        for name in ("participant_connected", "participant_disconnected"):
            room.on(name, lambda who, name=name: self._note(name, identity=who.identity))
        for name in ("track_muted", "track_unmuted"):
            room.on(name, lambda who, pub, name=name: self._note(name, identity=who.identity))
        for name in ("reconnecting", "reconnected", "disconnected"):
            room.on(name, lambda *args, name=name: self._note(name, args=[str(a) for a in args]))

        def text(reader: Any, identity: str) -> None:
            self._spawn(self._read(reader, identity))

        room.register_text_stream_handler("lk.chat", text)
        room.on("data_received", self._take)

    def _note(self, what: str, **details: Any) -> None:
        self.happened.append({"what": what, **details})

    def _take(self, packet: Any) -> None:
        self.data.append(
            {
                "from": packet.participant.identity if packet.participant else "",
                "text": packet.data.decode(),
                "topic": packet.topic,
                "reliable": packet.kind == rtc.DataPacketKind.KIND_RELIABLE,
            }
        )

    async def _read(self, reader: Any, identity: str) -> None:
        text = await reader.read_all()
        attributes = dict(reader.info.attributes or {})
        self.texts.append(
            {"from": identity, "text": text, "name": attributes.get("parley.name", "")}
        )

    async def _hear(self, track: Any, participant: Any) -> None:
        heard = self.heard[track.sid] = Heard(participant.identity, participant.name)
        async for event in rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1):
            heard.samples.append(np.frombuffer(event.frame.data, dtype=np.int16).copy())
            heard.frames += 1

    async def _see(self, track: Any, participant: Any) -> None:
        seen = self.seen[track.sid] = Seen(participant.identity, participant.name)
        async for event in rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA):
            frame = event.frame
            seen.width, seen.height = frame.width, frame.height
            seen.frames += 1
            at = (frame.height // 3 * frame.width + frame.width // 2) * 4
            seen.rgb = [int(v) for v in frame.data[at : at + 3]]

    async def publish(self, audio: bool, video: bool) -> None:
        if audio:
            source = rtc.AudioSource(RATE_HZ, 1, self.queue_ms)
            track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
            options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_MICROPHONE, red=self.red
            )
            self.audio_publication = await self.room.local_participant.publish_track(track, options)
            self._spawn(self._sing(source))
        if video:
            picture = rtc.VideoSource(*self.size)
            video_track = rtc.LocalVideoTrack.create_video_track("camera", picture)
            video_options = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA,
                video_codec=rtc.VideoCodec.Value(self.codec),
                simulcast=self.simulcast,
            )
            if self.codec in ("VP9", "AV1"):
                video_options.scalability_mode = "L3T3_KEY"
            self.video = video_track
            await self.room.local_participant.publish_track(video_track, video_options)
            self._spawn(self._paint(picture))

    async def _sing(self, source: Any) -> None:
        count = RATE_HZ * FRAME_MS // 1000
        at = 0
        while True:
            times = (np.arange(count) + at) / RATE_HZ
            sound = (
                np.sin(2 * np.pi * self.tone_hz * times) * (9000 if self.speaking else 0)
            ).astype(np.int16)
            at += count
            await source.capture_frame(rtc.AudioFrame(sound.tobytes(), RATE_HZ, 1, count))

    async def _paint(self, source: Any) -> None:
        width, height = self.size
        plain = bytes((*self.rgb, 255)) * (width * height)
        step = 0
        while True:
            data = bytearray(plain)
            at = (height - 2) * width * 4 + (step * 8 % (width - 8)) * 4
            data[at : at + 32] = b"\xff" * 32
            step += 1
            source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, data))
            await asyncio.sleep(1 / FPS)

    async def send(self, text: str, topic: str | None, *, reliable: bool) -> None:
        """A line of chat, or with a topic a packet of data."""
        us = self.room.local_participant
        if topic is None:
            await us.send_text(text, topic="lk.chat")
        else:
            await us.publish_data(text, reliable=reliable, topic=topic)

    async def remote_candidates(self) -> list[dict[str, Any]]:
        """Where the server says it is."""
        report = await self.room.get_rtc_stats()
        return [
            {
                "address": stat.remote_candidate.candidate.address,
                "port": stat.remote_candidate.candidate.port,
            }
            for stat in [*report.publisher_stats, *report.subscriber_stats]
            if stat.HasField("remote_candidate")
        ]

    async def layers_sent(self) -> dict[str, int]:
        """Packets sent so far, by rid."""
        return {
            stat.outbound_rtp.outbound.rid: stat.outbound_rtp.sent.packets_sent
            for stat in await self.video.get_stats()
            if stat.HasField("outbound_rtp")
        }

    def prefer(self, quality: int | None) -> None:
        """Of every remote picture: a quality (0 lowest), or None for not at all."""
        for person in self.room.remote_participants.values():
            for publication in person.track_publications.values():
                if publication.kind == rtc.TrackKind.KIND_VIDEO:
                    publication.set_subscribed(quality is not None)
                    if quality is not None:
                        publication.set_video_quality(quality)

    async def statistics(self) -> list[dict[str, Any]]:
        """Inbound RTP counters of every remote track."""
        found: list[dict[str, Any]] = []
        for person in self.room.remote_participants.values():
            for publication in person.track_publications.values():
                if publication.track is None:
                    continue
                for stat in await publication.track.get_stats():
                    if stat.HasField("inbound_rtp"):
                        inbound = stat.inbound_rtp
                        found.append(
                            {
                                "identity": person.identity,
                                "kind": inbound.stream.kind,
                                "received": inbound.received.packets_received,
                                "lost": inbound.received.packets_lost,
                            }
                        )
        return found


async def _answer(client: Client, ask: dict[str, Any]) -> Any:
    do = ask["do"]
    if do == "peaks":
        return [
            {"identity": h.identity, "name": h.name, "frames": h.frames, "tones": h.tones()}
            for h in client.heard.values()
        ]
    if do == "colours":
        return [
            {
                "identity": s.identity,
                "name": s.name,
                "rgb": s.rgb,
                "width": s.width,
                "frames": s.frames,
            }
            for s in client.seen.values()
        ]
    if do in ("say", "send_data"):
        await client.send(ask["text"], ask.get("topic"), reliable=ask.get("reliable", True))
        return True
    if do == "speak":
        client.speaking = bool(ask["on"])
        return True
    if do == "people":
        return [
            {"identity": p.identity, "name": p.name}
            for p in client.room.remote_participants.values()
        ]
    simple: dict[str, Callable[[], Any]] = {
        "texts": lambda: client.texts,
        "data": lambda: client.data,
        "happened": lambda: client.happened,
        "identity": lambda: client.room.local_participant.identity,
    }
    if do in simple:
        return simple[do]()
    if do == "layers_sent":
        return await client.layers_sent()
    if do == "prefer":
        client.prefer(ask["quality"])
        return True
    if do == "statistics":
        return await client.statistics()
    if do == "remote_candidates":
        return await client.remote_candidates()
    if do in ("mute", "unmute"):
        track = client.audio_publication.track
        (track.mute if do == "mute" else track.unmute)()
        return True
    raise ValueError(f"unknown command {do}")


async def _main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--url", required=True)
    options.add_argument("--token", required=True)
    options.add_argument("--tone-hz", type=int, default=440)
    options.add_argument("--rgb", default="200,30,30")
    options.add_argument(
        "--connections", type=int, choices=(0, 1, 2), default=0
    )  # 0: the SDK's choice
    options.add_argument("--queue-ms", type=int, default=QUEUE_MS)
    options.add_argument("--size", default=f"{WIDTH}x{HEIGHT}")
    options.add_argument("--simulcast", action="store_true")
    options.add_argument("--codec", default="VP8", choices=("VP8", "VP9", "AV1", "H264"))
    options.add_argument("--red", action="store_true")
    options.add_argument("--dynacast", action="store_true")
    options.add_argument("--frame-key", default="")  # encrypts frames with this shared key
    options.add_argument("--no-audio", action="store_true")
    options.add_argument("--no-video", action="store_true")
    given = options.parse_args()
    red, green, blue = (int(v) for v in given.rgb.split(","))
    width, height = (int(v) for v in given.size.split("x"))
    client = Client(
        given.tone_hz,
        (red, green, blue),
        (width, height),
        simulcast=given.simulcast,
        codec=given.codec,
        red=given.red,
        queue_ms=given.queue_ms,
    )
    how = rtc.RoomOptions(auto_subscribe=True, dynacast=given.dynacast)
    if given.frame_key:
        key = rtc.KeyProviderOptions(shared_key=given.frame_key.encode())
        how.encryption = rtc.E2EEOptions(key_provider_options=key)
    if given.connections:
        how.single_peer_connection = given.connections == 1
    await asyncio.wait_for(client.room.connect(given.url, given.token, how), 20)
    await client.publish(not given.no_audio, not given.no_video)
    print(json.dumps({"ready": client.room.local_participant.identity}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        ask = json.loads(line)
        if ask["do"] == "leave":
            break
        try:
            answer = {"ok": await _answer(client, ask)}
        except Exception as why:
            answer = {"error": repr(why)}
        print(json.dumps(answer), flush=True)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.room.disconnect(), 5)
    print(json.dumps({"left": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
