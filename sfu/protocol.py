"""The seam between control plane and media worker: every message, and its encoding.

A frame is a 4-byte big-endian length and that many bytes of MessagePack (msgspec), at most
`MAX_FRAME_BYTES`. Over a Unix socket frames follow each other; over a bus one frame is one message.
The control plane sends `ClientFrame`s, the worker `ServerFrame`s. The words are WebRTC's: sessions,
tracks, sections. Never rooms, users, LiveKit, Jingle or Matrix.

Rules:
- `Hello` comes first; the worker answers `Welcome` or `Goodbye`. It serves versions N and N-1.
- `epoch` is the owner's counter in SQL; a worker drops an owner whose epoch is below the highest seen.
- Commands of one session run in order; the last `ANSWERS_KEPT` answers per group are kept by command id,
  so that a resend after a reconnect returns the first answer and does nothing twice.
- Events carry `seq`, counting from 1 per connection; a `Snapshot` names the seq it includes.
- A session that ended while no owner listened stays in snapshots as a tombstone until `Forget`.
- `Message`, `Connected`, `Closed`, `TrackLive`, `TrackEnded`, `ChannelOpened`, `ChannelClosed` are never
  coalesced; the other events are, last state wins. A full socket never blocks media.
Not here: reading and writing sockets (`sfu.client`, `sfu.worker`).
"""

from typing import Final

import msgspec

from sfu.description import (
    Candidate,
    Description,
    LayerSpec,
    MediaKind,
    Profile,
    Wish,
)

VERSION: Final = 1
OLDEST_VERSION: Final = 1
MAX_FRAME_BYTES: Final = 1 << 20
ANSWERS_KEPT: Final = 1024  # per group
MESSAGE_BACKLOG_BYTES: Final = (
    1 << 20
)  # a reliable channel stops reading SCTP above it, a lossy one drops


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of every command and event: tagged by class name."""


# --- commands: control plane -> worker ---------------------------------------------------------------


class Open(_Message, frozen=True):
    """Reserve a session. `media` is what `MakeOffer` offers upwards for a COMPACT profile."""

    session: str
    group: str
    profile: Profile
    media: tuple[MediaKind, ...] = ()


class Offer(_Message, frozen=True):
    """The peer's offer; answered with `Described` (our answer). Also renegotiation and ICE restart."""

    session: str
    description: Description


class MakeOffer(_Message, frozen=True):
    """Write an offer of everything this session should have now; answered with `Described`."""

    session: str
    restart_ice: bool = False


class Answer(_Message, frozen=True):
    """The peer's answer to our last offer."""

    session: str
    description: Description


class Candidates(_Message, frozen=True):
    """Trickled remote candidates. Only their existence is noted: we never send to a named address (S18)."""

    session: str
    mid: str
    candidates: tuple[Candidate, ...]


class RestartIce(_Message, frozen=True):
    """Our side wants an ICE restart: new ufrag and pwd in the next offer or answer."""

    session: str


class Expect(_Message, frozen=True):
    """An announced publication. It is matched when a section arrives whose msid track id is in `match`, or whose mid is `mid`."""

    session: str
    track: str
    kind: MediaKind
    source: str
    match: tuple[str, ...] = ()
    mid: str | None = None
    layers: tuple[LayerSpec, ...] = ()
    encrypted: bool = False


class Unexpect(_Message, frozen=True):
    """The publication ended; the track disappears from every subscriber."""

    session: str
    track: str


class Subscribe(_Message, frozen=True):
    """Forward `track` to `session`. `stream_label` and `track_label` become the msid of the section."""

    session: str
    track: str
    wish: Wish = Wish()
    stream_label: str = ""
    track_label: str = ""


class Unsubscribe(_Message, frozen=True):
    session: str
    track: str


class Want(_Message, frozen=True):
    """Change the wish of an existing subscription."""

    session: str
    track: str
    wish: Wish


class Gate(_Message, frozen=True):
    """Open or close a track at the server: while closed none of its packets is forwarded (force-mute)."""

    track: str
    open: bool


class Limits(_Message, frozen=True):
    """Caps of one session: ingress bit/s and packets/s (S10); 0 = default.

    egress_bps: what goes to the peer at most, whatever its link carries (MP32); 0 = no cap. Sound is never held back.
    """

    session: str
    ingress_bps: int = 0
    ingress_pps: int = 0
    egress_bps: int = 0


class Policy(_Message, frozen=True):
    """Group-wide settings, all at once: how often speakers are reported (at most 10/s), what is forwarded.

    last_n:        pictures each session receives at most; 0 = all
    quiet_video_s: a picture whose publisher was silent for so long is held back; 0 = never
    loudest:       voices forwarded at most (up to 16), the dominant speaker among them; 0 = all
    moderators:    sessions whose pictures go before those of recent speakers
    audience:      sessions whose pictures are forwarded only while they speak
    muted:         tracks that are no speakers, whatever they send
    """

    group: str
    speaker_interval_ms: int = 250
    last_n: int = 0
    quiet_video_s: float = 0.0
    loudest: int = 0
    moderators: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    muted: tuple[str, ...] = ()


class Send(_Message, frozen=True):
    """A data channel message down. Unknown or closed channel: answered with `Failure("closed")`."""

    session: str
    channel: str
    data: bytes
    binary: bool = True


class Close(_Message, frozen=True):
    session: str
    reason: str = ""


class Forget(_Message, frozen=True):
    """Drop the tombstones of these sessions."""

    sessions: tuple[str, ...]


class Drain(_Message, frozen=True):
    """Close everything and exit when done."""


class TakeSnapshot(_Message, frozen=True):
    """Answered with `Snapshot`."""


class ReadStatistics(_Message, frozen=True):
    """Answered with `Statistics`: everything, once."""


Command = (
    Open
    | Offer
    | MakeOffer
    | Answer
    | Candidates
    | RestartIce
    | Expect
    | Unexpect
    | Subscribe
    | Unsubscribe
    | Want
    | Gate
    | Limits
    | Policy
    | Send
    | Close
    | Forget
    | Drain
    | TakeSnapshot
    | ReadStatistics
)

# --- answers: worker -> control plane, one per command ------------------------------------------------


class Done(_Message, frozen=True):
    """The command was carried out."""


class Described(_Message, frozen=True):
    """Our description. Every section that carries a subscribed track has its msid labels."""

    description: Description


class Failure(_Message, frozen=True):
    """`code`: refused | malformed | unavailable | bug | unknown_session | unknown_track | closed."""

    code: str
    text: str = ""


class TrackState(_Message, frozen=True):
    """One publication as the worker sees it."""

    track: str
    session: str
    kind: MediaKind
    source: str
    live: bool
    gate_open: bool
    codec: str = ""
    mid: str = ""


class SubscriptionState(_Message, frozen=True):
    session: str
    track: str
    mid: str = ""


class SessionState(_Message, frozen=True):
    """One session. `state`: new | connecting | connected | disconnected | closed (a tombstone, with `reason`)."""

    session: str
    group: str
    state: str
    reason: str = ""


class Snapshot(_Message, frozen=True):
    """Everything open, as of event `seq` of this connection; what is absent is closed(lost)."""

    seq: int
    sessions: tuple[SessionState, ...]
    tracks: tuple[TrackState, ...]
    subscriptions: tuple[SubscriptionState, ...]
    policies: tuple[Policy, ...] = ()  # of groups that have another than the default


class LayerStatistics(_Message, frozen=True):
    """One simulcast layer of a track, 0 the lowest. `bitrate_bps` is measured; 0 while it is silent."""

    layer: int
    packets_received: int
    bytes_received: int
    packets_lost: int
    jitter_s: float = 0.0
    bitrate_bps: int = 0
    frames_received: int = 0
    key_frames_received: int = 0
    freeze_count: int = 0
    total_freezes_duration_s: float = 0.0
    is_live: bool = True


class TrackStatistics(_Message, frozen=True):
    """Named as in W3C webrtc-stats, and meant so: counters since the track began.

    `bytes_*` are payload; `nack_count` are packets, each of which may ask for many. Our own: `packets_off_stage` were
    not forwarded because others were louder.
    """

    track: str
    packets_received: int
    bytes_received: int
    packets_lost: int
    nack_count: int
    pli_count: int
    jitter_s: float = 0.0
    session: str = ""
    fir_count: int = 0
    packets_off_stage: int = 0
    layers: tuple[LayerStatistics, ...] = ()


class SubscriptionStatistics(_Message, frozen=True):
    """What a session is sent of one track. `layer`: forwarded now, -1 none. `target_bitrate_bps`: of the layer chosen.

    `packets_sent` and `bytes_sent` count what was sent again, too. `first_sequence` to `last_sequence` were sent once.
    `quality_limitation_reason`: none | bandwidth (the link) | cpu (the worker's) | other (the group's policy). As the
    subscriber reports: `packets_lost`, `fraction_lost` (0..1 since its report before), `jitter_s`, `round_trip_time_s`.
    """

    session: str
    track: str
    packets_sent: int
    bytes_sent: int
    nack_count: int
    pli_count: int
    retransmitted_packets_sent: int
    first_sequence: int = 0
    last_sequence: int = 0
    fir_count: int = 0
    retransmitted_bytes_sent: int = 0
    layer: int = -1
    target_bitrate_bps: int = 0
    quality_limitation_reason: str = "none"
    packets_lost: int = 0
    fraction_lost: float = 0.0
    jitter_s: float = 0.0
    round_trip_time_s: float = 0.0


class SessionStatistics(_Message, frozen=True):
    """All transports of a session together. Zero = not known (yet).

    `available_outgoing_bitrate_bps`: what the link to the peer carries; `queue_delay_s`: how long packets wait on it;
    `packet_send_delay_s`: how long the longest waited here for it, in the last second; `packets_expired_on_send`
    waited too long.
    """

    session: str
    group: str
    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0
    current_round_trip_time_s: float = 0.0
    available_outgoing_bitrate_bps: int = 0
    queue_delay_s: float = 0.0
    packet_send_delay_s: float = 0.0
    packets_expired_on_send: int = 0


class LoadStatistics(_Message, frozen=True):
    """One data-plane thread. `cpu_*` are shares of one CPU; `cpu_capacity`: what it can have, 0 = enough.

    While `is_shedding`, all video together has `video_budget_bps`. Counters since the worker began: how often that
    started, how often all video stopped for a moment, how often datagrams were read late. `longest_wait_s`: in a
    socket, in the last quarter of a second; waits of less than 15 ms count as none.
    """

    shard: int
    is_shedding: bool = False
    cpu_used: float = 0.0
    cpu_capacity: float = 0.0
    video_budget_bps: int = 0
    streams_paused: int = 0
    streams_lowered: int = 0
    shedding_count: int = 0
    brake_count: int = 0
    late_count: int = 0
    longest_wait_s: float = 0.0


class Statistics(_Message, frozen=True):
    """All counters in one read of the engine. Also an event, once a second for 10 s after somebody asked.

    Many rows come in `parts`, of which this is `part` (from 0); the answer to `ReadStatistics` is the first. What
    concerns the whole worker (`dropped`, `loads`) is in every part.
    """

    tracks: tuple[TrackStatistics, ...]
    subscriptions: tuple[SubscriptionStatistics, ...]
    dropped: dict[str, int] = {}
    sessions: tuple[SessionStatistics, ...] = ()
    part: int = 0
    parts: int = 1
    loads: tuple[LoadStatistics, ...] = ()


Reply = Done | Described | Failure | Snapshot | Statistics

# --- events: worker -> control plane ------------------------------------------------------------------


class Connected(_Message, frozen=True):
    """ICE and DTLS of every transport of the session are up (again)."""

    session: str


class Disconnected(_Message, frozen=True):
    """No authenticated packet for 5 s; it may come back."""

    session: str


class Closed(_Message, frozen=True):
    """The session is over. `reason`: lost | failed | fingerprint | close | drained | bug."""

    session: str
    reason: str


class NegotiationNeeded(_Message, frozen=True):
    """Subscriptions without a section: the peer's gateway must arrange `audios` and `videos` more sections.

    For a session whose peer offers, these are the missing recvonly sections; for one where we offer,
    any non-zero number or `changed` means "make an offer".
    """

    session: str
    audios: int = 0
    videos: int = 0
    changed: bool = False


class TrackLive(_Message, frozen=True):
    """The first authenticated packet of an expected track; or its layers changed. `layers`: indexes seen."""

    session: str
    track: str
    codec: str
    layers: tuple[int, ...] = ()


class TrackEnded(_Message, frozen=True):
    session: str
    track: str


class LayersWanted(_Message, frozen=True):
    """Highest layer index that somebody wants of the track; -1 = nobody watches.

    More comes at once, less after some seconds. Until the first one everything is wanted.
    """

    session: str
    track: str
    highest: int


class StreamState(_Message, frozen=True):
    """A subscription was paused by us, for want of bandwidth or CPU or by the group's policy, or runs again."""

    session: str
    track: str
    paused: bool


class SpeakerLevel(_Message, frozen=True):
    """`level` 0.0 (silent) .. 1.0 (loudest, 0 dBov)."""

    track: str
    level: float
    active: bool


class Speakers(_Message, frozen=True):
    """Everyone of the group who speaks, loudest first; who is absent is silent. `dominant` is a track or empty.

    `recent`: the dominant speaker and up to four before, the latest first. `margin`: how far the dominant speaker
    is ahead of everybody else in the last second, 0.0 .. 1.0.
    """

    group: str
    levels: tuple[SpeakerLevel, ...]
    dominant: str = ""
    recent: tuple[str, ...] = ()
    margin: float = 0.0


class Quality(_Message, frozen=True):
    """Connection grade of a session: 0 lost, 1 poor, 2 good, 3 excellent."""

    session: str
    grade: int


class ChannelOpened(_Message, frozen=True):
    session: str
    channel: str


class ChannelClosed(_Message, frozen=True):
    session: str
    channel: str


class Message(_Message, frozen=True):
    """A data channel message up."""

    session: str
    channel: str
    data: bytes
    binary: bool = True


Event = (
    Connected
    | Disconnected
    | Closed
    | NegotiationNeeded
    | TrackLive
    | TrackEnded
    | LayersWanted
    | StreamState
    | Speakers
    | Quality
    | ChannelOpened
    | ChannelClosed
    | Message
    | Statistics
)

# --- frames -------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag=True):
    """First frame of an owner: the protocol versions it speaks, its name and its epoch."""

    low: int
    high: int
    owner: str
    epoch: int


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """The worker serves this owner. `instance` changes when the worker process is another one."""

    version: int
    instance: str
    port: int


class Goodbye(msgspec.Struct, frozen=True, tag=True):
    """The worker will not serve: `fenced`, `version`, `malformed` or `draining`."""

    reason: str


class Request(msgspec.Struct, frozen=True, tag=True):
    """`id` is unique per owner and epoch; a resend repeats it."""

    id: str
    command: Command


class Response(msgspec.Struct, frozen=True, tag=True):
    id: str
    reply: Reply


class Notice(msgspec.Struct, frozen=True, tag=True):
    seq: int
    event: Event


ClientFrame = Hello | Request
ServerFrame = Welcome | Goodbye | Response | Notice
