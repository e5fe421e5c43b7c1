"""Who takes part in a scenario, as values: rooms, people, what they send and what they want to see.

Not here: how they join (`bench.stage`), what is measured.
"""

from dataclasses import dataclass
from typing import Final

from sfu.description import LayerSpec, MediaKind, Wish


@dataclass(frozen=True, slots=True)
class Layer:
    """One RTP stream. `packet_bytes` is of SRTP, tag included; `at_once`: packets that leave together."""

    packets_per_s: int
    frame_packets: int
    packet_bytes: int
    at_once: int = 1
    rid: str = ""
    width: int = 0
    height: int = 0

    @property
    def bits_per_s(self) -> int:
        return self.packets_per_s * self.packet_bytes * 8

    @property
    def spec(self) -> LayerSpec:
        return LayerSpec(self.rid, self.width, self.height, self.bits_per_s)


@dataclass(frozen=True, slots=True)
class Media:
    """One track."""

    kind: MediaKind
    source: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """Every room has as many speakers, who publish `media` and watch each other, and listeners, who watch all.

    `wishes` take turns over everybody's video subscriptions.
    """

    rooms: int = 1
    speakers: int = 1
    listeners: int = 0
    media: tuple[Media, ...] = ()
    wishes: tuple[Wish, ...] = (Wish(),)
    speakers_watch: bool = True
    is_unlimited: bool = False  # no cap on what one session may send

    @property
    def people(self) -> int:
        return self.rooms * (self.speakers + self.listeners)

    @property
    def streams_down(self) -> int:
        """Subscriptions altogether."""
        others = self.speakers - 1 if self.speakers_watch else 0
        per_room = (self.speakers * others + self.listeners * self.speakers) * len(self.media)
        return self.rooms * per_room


PACKET_BYTES: Final = 1_200  # of SRTP, as sent by the publisher


def video(packets_per_s: int) -> Media:
    """One stream of 1,200-byte packets, evenly spaced; frames of ten."""
    return Media(MediaKind.VIDEO, "camera", (Layer(packets_per_s, 10, PACKET_BYTES),))


# 50 packets/s of 100 bytes with tag and header: Opus at 24 kbit/s.
OPUS: Final = Media(MediaKind.AUDIO, "microphone", (Layer(50, 1, 120),))

# What a 720p camera of a browser sends; frames leave as bursts.
SIMULCAST: Final = Media(
    MediaKind.VIDEO,
    "camera",
    (
        Layer(30, 2, 680, 2, "q", 320, 180),  # 15 frames/s, 160 kbit/s
        Layer(60, 3, 940, 3, "h", 640, 360),  # 20 frames/s, 450 kbit/s
        Layer(180, 6, 1_180, 6, "f", 1_280, 720),  # 30 frames/s, 1.7 Mbit/s
    ),
)
# Tiles of a meeting: one large, three medium, the rest small.
TILES: Final = (
    Wish(width=1_280, height=720),
    *(Wish(width=640, height=360),) * 3,
    *(Wish(width=320, height=180),) * 5,
)
