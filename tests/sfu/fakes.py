"""A data plane that records what it is asked, and profiles and descriptions to ask with."""

import contextlib
import os
from dataclasses import dataclass, field

from sfu.description import (
    Codec,
    Description,
    DescriptionType,
    Direction,
    Downstream,
    Extension,
    Feedback,
    Fingerprint,
    MediaKind,
    Profile,
    Rid,
    Section,
    Setup,
    Transport,
)
from sfu.plane import Receiving, Sending

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

NACK, PLI, REMB = Feedback("nack"), Feedback("nack", "pli"), Feedback("goog-remb")
OPUS = Codec(111, "opus", 48_000, 2, (("minptime", "10"), ("useinbandfec", "1")), (NACK,))
VP8 = Codec(96, "VP8", 90_000, 1, (), (NACK, PLI))
RTX = Codec(97, "rtx", 90_000, 1, (("apt", "96"),))

EACH = Profile(
    name="each",
    audio=(OPUS,),
    video=(VP8, RTX),
    extensions=(MID, RID, LEVEL),
    ice_lite=True,
)
COMPACT = Profile(
    name="compact",
    audio=(OPUS,),
    video=(VP8,),
    extensions=(),
    bundle=False,
    downstream=Downstream.COMPACT,
)

FINGERPRINT = Fingerprint("sha-256", ":".join(["AB"] * 32))


def transport(ufrag: str = "remote", setup: Setup = Setup.ACTPASS) -> Transport:
    return Transport(ufrag, "p" * 24, (FINGERPRINT,), setup)


def section(
    mid: str,
    kind: MediaKind,
    direction: Direction,
    *,
    track: str | None = None,
    codecs: tuple[Codec, ...] | None = None,
    over: Transport | None = None,
    rids: tuple[str, ...] = (),
    extensions: tuple[Extension, ...] = (
        Extension(4, MID),
        Extension(10, RID),
        Extension(1, LEVEL),
    ),
) -> Section:
    if codecs is None:
        codecs = (OPUS,) if kind is MediaKind.AUDIO else (VP8, RTX)
    return Section(
        mid=mid,
        kind=kind,
        direction=direction,
        transport=over or transport(),
        codecs=codecs if kind is not MediaKind.APPLICATION else (),
        extensions=extensions,
        rids=tuple(Rid(rid, send=True) for rid in rids),
        stream="stream" if track else None,
        track=track,
        sctp_port=5000 if kind is MediaKind.APPLICATION else None,
    )


def offer(*sections: Section, bundle: bool = True) -> Description:
    mids = tuple(s.mid for s in sections) if bundle else ()
    return Description(DescriptionType.OFFER, sections, mids)


def answer(*sections: Section, bundle: bool = True) -> Description:
    mids = tuple(s.mid for s in sections) if bundle else ()
    return Description(DescriptionType.ANSWER, sections, mids)


@dataclass
class FakePlane:
    """Keeps `sfu.plane.Plane`; nothing leaves it."""

    port: int = 40_000
    events: list[tuple[str, int, object]] = field(default_factory=list)
    transports: dict[int, dict[str, object]] = field(default_factory=dict)
    publications: dict[int, Receiving] = field(default_factory=dict)
    gates: dict[int, bool] = field(default_factory=dict)
    subscriptions: dict[int, Sending] = field(default_factory=dict)
    sources: dict[int, int | None] = field(default_factory=dict)
    layers: dict[int, tuple[int, bool]] = field(default_factory=dict)
    loudest: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    frame_rates: dict[int, int] = field(default_factory=dict)
    priorities: dict[int, int] = field(default_factory=dict)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    keys: dict[int, tuple[int, bytes, bool]] = field(default_factory=dict)
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    budgets: dict[int, int] = field(default_factory=dict)
    fail_next: Exception | None = None
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._next = 0

    def happen(self, name: str, handle: int, detail: object = None) -> None:
        self.events.append((name, handle, detail))
        os.eventfd_write(self.event_fd, 1)

    def poll(self) -> list[tuple[str, int, object]]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)
        taken, self.events = self.events, []
        return taken

    def _handle(self) -> int:
        self._next += 1
        return self._next

    def suits(self, ufrag: str, transport: int | None = None) -> bool:
        return True

    def open_transport(self, ufrag: str, pwd: str, *, offered_by_us: bool) -> int:
        if self.fail_next is not None:
            fault, self.fail_next = self.fail_next, None
            raise fault
        handle = self._handle()
        self.transports[handle] = {"local": (ufrag, pwd), "offered_by_us": offered_by_us}
        return handle

    def set_remote(self, transport: int, ufrag: str, pwd: str) -> None:
        self.transports[transport]["remote"] = (ufrag, pwd)

    def restart_ice(self, transport: int, ufrag: str, pwd: str) -> None:
        self.transports[transport]["restarted"] = (ufrag, pwd)

    def send_datagram(self, transport: int, datagram: bytes) -> None:
        self.sent.append((transport, datagram))

    def set_keys(self, transport: int, *, profile: int, material: bytes, is_client: bool) -> None:
        self.keys[transport] = (profile, material, is_client)

    def close_transport(self, transport: int) -> None:
        self.transports.pop(transport)

    def publish(self, transport: int, group: int, stream: Receiving) -> int:
        handle = self._handle()
        self.publications[handle] = stream
        return handle

    def update_publication(self, publication: int, stream: Receiving) -> None:
        self.publications[publication] = stream

    def unpublish(self, publication: int) -> None:
        self.publications.pop(publication)

    def set_gate(self, publication: int, is_open: bool) -> None:
        self.gates[publication] = is_open

    def set_budget(self, transport: int, *, bits_per_s: int) -> None:
        self.budgets[transport] = bits_per_s

    def set_ingress_limit(self, transport: int, *, bits_per_s: int, packets_per_s: int) -> None:
        self.limits[transport] = (bits_per_s, packets_per_s)

    def subscribe(self, transport: int, stream: Sending) -> int:
        handle = self._handle()
        self.subscriptions[handle] = stream
        return handle

    def set_source(self, subscription: int, publication: int | None) -> None:
        self.sources[subscription] = publication

    def set_layer(self, subscription: int, *, max_layer: int, paused: bool) -> None:
        self.layers[subscription] = (max_layer, paused)

    def set_frame_rate(self, subscription: int, max_fps: int) -> None:
        self.frame_rates[subscription] = max_fps

    def set_priority(self, subscription: int, priority: int) -> None:
        self.priorities[subscription] = priority

    def set_loudest(self, group: int, places: int, dominant: int | None) -> None:
        self.loudest[group] = (places, dominant)

    def unsubscribe(self, subscription: int) -> None:
        self.subscriptions.pop(subscription)
        self.sources.pop(subscription, None)

    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        return {
            "publications": [(h, {"packets": 50, "octets": 5_000}) for h in self.publications],
            "subscriptions": [(h, {"packets": 40, "octets": 4_000}) for h in self.subscriptions],
            "transports": [],
            "drops": [(0, {"unvalidated": 3})],
        }

    def close(self) -> None:
        if not self.is_closed:
            os.close(self.event_fd)
            self.is_closed = True
