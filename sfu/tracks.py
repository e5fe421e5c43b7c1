"""Publications and subscriptions as the worker knows them: state, not behaviour.

A `Track` is an announced publication (`protocol.Expect`); it has an engine publication while a section of
its session carries it. A `Subscription` is a wish to receive one; it has an engine subscription while a
section of the subscriber's session carries it.
Not here: who matches and moves them (`sfu.session`), layers (`sfu.layers`).
"""

import secrets
from dataclasses import dataclass, field

from sfu import protocol
from sfu.description import Codec, LayerSpec, MediaKind, Section, Wish
from sfu.layers import LayerDemand
from sfu.plane import Handle


@dataclass(slots=True, eq=False)
class Track:
    """One publication."""

    id: str
    session: str
    kind: MediaKind
    source: str
    match: tuple[str, ...]
    wanted_mid: str | None
    layers: tuple[LayerSpec, ...]
    encrypted: bool
    cname: str  # of the publisher: what belongs together plays together
    is_open: bool = True  # the gate
    since: float = 0.0  # when it was announced, by the worker's clock
    mid: str = ""
    publication: Handle | None = None
    codecs: tuple[Codec, ...] = ()  # as negotiated, to name payload types
    codec: str = ""
    layers_seen: set[int] = field(default_factory=set)
    is_live: bool = False
    demand: LayerDemand = field(default_factory=LayerDemand)

    def fits(self, section: Section) -> bool:
        """Whether this section of the publisher is the announced one."""
        if section.kind is not self.kind:
            return False
        if self.wanted_mid is not None:
            return section.mid == self.wanted_mid
        return section.track is not None and section.track in self.match

    @property
    def names_no_section(self) -> bool:
        """Announced by kind alone; allowed where a session has one section per kind."""
        return self.wanted_mid is None and not self.match

    def heard(self, layer: int, payload_type: int) -> protocol.TrackLive | None:
        """The first packet of a layer; the event if this is news."""
        codec = next((c.name for c in self.codecs if c.payload_type == payload_type), self.codec)
        if self.is_live and layer in self.layers_seen and codec == self.codec:
            return None
        self.is_live, self.codec = True, codec
        self.layers_seen.add(layer)
        return protocol.TrackLive(
            session=self.session,
            track=self.id,
            codec=codec,
            layers=tuple(sorted(self.layers_seen)),
        )

    def silenced(self) -> protocol.TrackEnded | None:
        """No more packets will come; the event if there were any."""
        was_live, self.is_live = self.is_live, False
        self.layers_seen.clear()
        return protocol.TrackEnded(session=self.session, track=self.id) if was_live else None

    def state(self) -> protocol.TrackState:
        return protocol.TrackState(
            track=self.id,
            session=self.session,
            kind=self.kind,
            source=self.source,
            live=self.is_live,
            gate_open=self.is_open,
            codec=self.codec,
            mid=self.mid,
        )


@dataclass(slots=True, eq=False)
class Stream:
    """One outgoing stream of a session: SSRCs that stay, whatever it carries."""

    ssrc: int
    rtx_ssrc: int
    cname: str
    subscription: Handle | None = None
    carried: str = ""  # track id
    source: str = ""  # track and publication, as last told to the engine
    max_layer: int = -1
    max_fps: int = 0  # 0 is where the engine begins
    paused: bool = False
    priority: int = 0  # 0 is where the engine begins
    is_starved: bool = False  # the engine holds it back for want of bandwidth
    is_held_back: bool = False  # the policy does
    is_fed: bool = False  # the engine was told what to carry
    is_told_paused: bool = False  # what the subscriber knows of both

    def detached(self) -> None:
        """The engine no longer has it."""
        self.subscription, self.carried, self.source = None, "", ""
        self.max_layer, self.max_fps, self.paused = -1, 0, False
        self.priority, self.is_starved = 0, False
        self.is_held_back, self.is_fed = False, False

    @classmethod
    def new(cls, kind: MediaKind, cname: str) -> "Stream":
        repair = new_ssrc() if kind is MediaKind.VIDEO else 0
        return cls(new_ssrc(), repair, cname)


@dataclass(slots=True, eq=False)
class Subscription:
    """A session's wish for one track. `mid` is empty while no section carries it."""

    session: str
    track: Track
    wish: Wish
    stream_label: str
    track_label: str
    stream: Stream
    mid: str = ""

    def state(self) -> protocol.SubscriptionState:
        return protocol.SubscriptionState(session=self.session, track=self.track.id, mid=self.mid)


def new_ssrc() -> int:
    """Random and never zero (RFC 3550 section 8.1); 31 bits because some peers read it as signed."""
    return 1 + secrets.randbelow(2**31 - 1)


def new_cname() -> str:
    """RFC 7022 section 4.2: random per session, says nothing about anybody."""
    return secrets.token_urlsafe(12)
