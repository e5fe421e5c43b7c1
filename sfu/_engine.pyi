"""The compiled data plane: one UDP port, ICE, SRTP, RTP routing. This stub is its API reference.

Every method returns at once: it validates its arguments, queues a command to the data-plane thread and
never waits for it. Handles are integers that are never used again. A handle that is already gone is
ignored silently (the thread may have closed it a moment ago); nonsense arguments raise ValueError.
Commands of one caller run in the order given; RuntimeError when 65,536 of them wait. Safe from any thread; the GIL is never held while waiting.
"""

from typing import final

__all__ = [
    "Codec",
    "Engine",
    "Extensions",
    "ReceiveStream",
    "build_info",
    "fanout_ceiling",
    "local_addresses",
]

def build_info() -> dict[str, str]:
    """Version, profile, optimisation, hash of the sources, SIMD, compiler: for bug reports and benchmark files."""

def fanout_ceiling(destinations: int, packet_bytes: int, seconds: float) -> dict[str, float]:
    """The ceiling probe: rewrite + AES-128-GCM + sendmmsg of one packet to N loopback destinations.

    Runs in the calling thread with the GIL released. Keys: `copies`, `cpu_s`, `copies_per_cpu_s`.
    """

def local_addresses() -> list[tuple[str, str]]:
    """(interface, address) of every interface that is up, in the kernel's order, without scope."""

@final
class Codec:
    """One negotiated payload type of a stream. `name` is upper or lower case as signalled."""

    def __new__(
        cls,
        *,
        payload_type: int,
        name: str,
        clock_rate: int,
        channels: int = 1,
        rtx_payload_type: int | None = None,
        nack: bool = False,
        pli: bool = False,
        fir: bool = False,
        remb: bool = False,
        transport_cc: bool = False,
    ) -> Codec: ...

@final
class Extensions:
    """Negotiated header extension ids of a section; 0 = not negotiated."""

    def __new__(
        cls,
        *,
        mid: int = 0,
        rid: int = 0,
        repaired_rid: int = 0,
        audio_level: int = 0,
        transport_cc: int = 0,
        abs_send_time: int = 0,
        video_orientation: int = 0,
        abs_capture_time: int = 0,
        playout_delay: int = 0,
        dependency_descriptor: int = 0,
        frame_marking: int = 0,
    ) -> Extensions: ...

@final
class ReceiveStream:
    """How incoming packets of one section find their track: signalled SSRCs, or mid/rid extensions.

    `rids` lists the simulcast layers, lowest first; empty = a single stream. `ssrcs` are (ssrc, rtx ssrc
    or 0) pairs in layer order, or empty when only mid/rid or the payload type can tell. `encrypted`: frames
    are encrypted end to end, so nothing is concluded from what they hold.
    """

    def __new__(
        cls,
        *,
        mid: str,
        video: bool,
        codecs: list[Codec],
        extensions: Extensions,
        rids: list[str] = ...,
        ssrcs: list[tuple[int, int]] = ...,
        encrypted: bool = False,
    ) -> ReceiveStream: ...

@final
class Engine:
    """One data plane: a UDP and a TCP port per listen address, one thread or several.

    Transports are ICE + SRTP to one peer; publications are incoming tracks; subscriptions are outgoing
    streams, each of which carries one publication at a time (or none) under its own SSRC. A transport, its
    publications and its subscriptions live in one thread (shard), which our ufrag decides; a subscription may
    carry a publication of any shard.
    """

    def __new__(
        cls,
        *,
        listen: list[str],
        port: int,
        tcp: bool = True,
        dscp: bool = True,
        shards: int = 1,
    ) -> Engine:
        """Bind `port` (0 = any) on every address of `listen` (IPv4 or IPv6 literals) and start the threads.

        `tcp`: accept ICE over TCP on the same port number (RFC 6544, passive). `dscp`: mark audio EF, the rest
        AF41 (RFC 8837). `shards`: threads, at most 64, each on a CPU of its own when there are several; 0 = one
        for each CPU that we may use. Raises OSError when a port cannot be bound.
        """
    @property
    def shards(self) -> int:
        """How many threads there are."""
    def shard_of(self, ufrag: str) -> int:
        """The shard where a transport with this ufrag of ours is at home: a pure function of it and `shards`."""
    @property
    def port(self) -> int:
        """The bound port, of UDP and TCP alike."""
    @property
    def event_fd(self) -> int:
        """An eventfd, readable when `poll` has something; owned by the engine."""
    def poll(self) -> list[tuple[str, int, object]]:
        """Drain the event ring (at most 4,096 at a time): (name, handle, detail), in order.

        ("validated", transport, None)        the first authenticated check; datagrams may follow
        ("datagram", transport, bytes)        DTLS from a validated 5-tuple only (S1)
        ("silent", transport, None)           no authenticated packet for 5 s
        ("heard", transport, None)            an authenticated packet after "silent"
        ("expired", transport, None)          consent lost for 30 s, and no ICE restart in the last 30 s; the
                                              transport sends nothing any more
        ("first_packet", publication, (layer, payload_type))   of each layer, simulcast or spatial
        ("bye", publication, None)            RTCP BYE for its SSRC
        ("keyframe", subscription, None)      the first key frame since the last switch went out
        ("paused", subscription, None)        its link or our CPU does not carry even the lowest layer any more; video only
        ("resumed", subscription, None)       it does again
        ("levels", group, [(publication, level, medium, long), ...])   <= 10/s, only who was heard: -dBov 0..127
                        of the loudest packet, frames of speech in the last 0.1 s (0..5), blocks of it in the last
                        second (0..10)
        ("overflow", 0, lost)                 the ring was full: `lost` events are missing
        """
    def open_transport(self, *, local_ufrag: str, local_pwd: str, offered_by_us: bool) -> int:
        """Answer ICE checks for this ufrag from now on. `offered_by_us`: we may nominate (the peer is controlled)."""
    def set_remote(self, transport: int, *, ufrag: str, pwd: str) -> None:
        """The peer's credentials: needed for our own consent checks and triggered nomination.

        After `restart_ice` they belong to the new generation.
        """
    def restart_ice(self, transport: int, *, local_ufrag: str, local_pwd: str) -> None:
        """A new generation. The old ufrag keeps answering and the old pair keeps sending until the new is validated.

        ValueError if the ufrag belongs to another shard than the transport (`shard_of`).
        """
    def send_datagram(self, transport: int, datagram: bytes) -> None:
        """A DTLS record to the 5-tuple of the last DTLS datagram, or else the active pair."""
    def set_keys(self, transport: int, *, profile: int, material: bytes, is_client: bool) -> None:
        """SRTP keys from the DTLS exporter (RFC 5764 section 4.2). `profile`: 1 AES128_CM_SHA1_80, 7 AEAD_AES_128_GCM, 8 AEAD_AES_256_GCM.

        `is_client`: we were the DTLS client. Setting the same keys again changes nothing.
        """
    def close_transport(self, transport: int) -> None:
        """Forget the transport with its publications and subscriptions; sends RTCP BYE for its streams."""
    def publish(self, transport: int, *, group: int, stream: ReceiveStream) -> int:
        """Receive one section's track; packets are ignored until the keys are set. Returns the publication."""
    def update_publication(self, publication: int, stream: ReceiveStream) -> None:
        """New codecs, extensions or rids after a renegotiation."""
    def unpublish(self, publication: int) -> None: ...
    def set_gate(self, publication: int, open: bool) -> None:
        """Closed: packets are authenticated, counted and dropped (force-mute). Open is the initial state."""
    def set_ingress_limit(self, transport: int, *, bits_per_s: int, packets_per_s: int) -> None:
        """Excess is dropped before forwarding (S10). 0 = default."""
    def set_budget(self, transport: int, *, bits_per_s: int) -> None:
        """No more than this goes to the peer, whatever its link carries; sound is never held back. 0 = no budget."""
    def subscribe(
        self,
        transport: int,
        *,
        mid: str,
        video: bool,
        codecs: list[Codec],
        extensions: Extensions,
        ssrc: int,
        rtx_ssrc: int = 0,
        cname: str = "",
    ) -> int:
        """An outgoing stream on this transport, carrying nothing yet. Returns the subscription."""
    def set_source(self, subscription: int, publication: int | None) -> None:
        """Carry this publication from now on; video waits for a key frame (and asks for one). None = silence.

        SSRC, sequence numbers and timestamps stay continuous; the payload type and extension ids are the
        subscription's own, mapped by codec name. A codec the subscriber has not is not forwarded.
        """
    def set_layer(self, subscription: int, *, max_layer: int, paused: bool) -> None:
        """Highest layer to forward, simulcast or spatial (0 lowest), and whether to forward at all.

        Simulcast layers switch at a key frame; spatial layers go down at once where each stands on the one below.
        """
    def set_frame_rate(self, subscription: int, *, max_fps: int) -> None:
        """So many frames per second are enough, 0..255, 0 = all: temporal layers above are left out."""
    def set_priority(self, subscription: int, *, priority: int) -> None:
        """Who gets bandwidth first on a narrow link, 0..255: higher before lower, equals in turn. Audio is never held back."""
    def set_loudest(self, group: int, *, places: int, dominant: int | None = None) -> None:
        """Forward only so many audio publications of the group (up to 16), the loudest of the moment; 0 = all.

        Ranked with every packet, with hysteresis, so that no onset is cut off; `dominant` stays among them.
        """
    def unsubscribe(self, subscription: int) -> None: ...
    def fail_deliberately(self, transport: int) -> None:
        """Panic in the data-plane thread as if this transport had caused it; for tests (S15)."""
    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        """All counters in one read, copied from the thread's last publication (at most 250 ms old).

        Keys: "transports", "publications", "layers", "subscriptions" -> (handle, counters), "drops",
        "connections", "relays" and "waits" -> [(0, counters)]; of all threads together; "loads" -> (thread, counters).
        publication: packets, bytes, octets (of payload), lost, nacks_sent (packets), plis_sent, firs_sent (counted
        among the plis), jitter (RTP units), layers, gated, off_stage (not forwarded because others were louder)
        layers: a row per layer of a publication that was ever heard: layer (0 lowest), packets, bytes, octets, lost,
        jitter, bps (measured), frames, key_frames, freezes, frozen_us, live
        subscription: packets, bytes, octets (none of the three with repetitions), nacks (packets), asked_again (sequence
        numbers in them), plis, firs (counted among the plis), retransmitted, retransmitted_octets, first_sequence,
        last_sequence (extended), layer (forwarded now, from 1; 0 none), target_bps, limited (the link or our CPU
        decides, not the wish), shed (our CPU does); as the subscriber reports: lost, fraction_lost (of 256), jitter
        (RTP units), rtt_us
        transport: packets_in, bytes_in, packets_out, bytes_out, auth_failures, replays, rtt_us (of ICE), report_rtt_us
        (by RTCP), estimate_bps (what the link to the peer carries; 0 = it told nothing), queue_us (how long packets
        wait on it), paced_us (longest that a picture's packet waited here for it in the last second), paced_dropped
        (packets that waited too long here)
        state (0 no check yet, 1 validated and heard, 2 silent, 3 expired: what the events so far come to)
        drops: unknown_ufrag, unvalidated, bad_integrity, malformed, foreign_ssrc, over_limit, no_keys (SRTP
        before the keys), half_open (DTLS of one more transport of a source with 64 unfinished handshakes, S14),
        ring_full, panics (each cost one transport at most, S15), refused_commands (a ufrag in use, a stream the router
        refuses), refused_sends (datagrams the kernel did not take), relay_full
        (packets and datagrams for another shard that was too far behind), strangers (checks for another shard
        from unknown addresses, while it was busy)
        connections (ICE-TCP): open, refused (too many), unproven (no valid check in time), stuck (did not
        read), dropped_video, dropped_audio
        relays: passed_on (datagrams that reached another thread's socket), relayed (packets for the subscribers of
        another shard, once per shard)
        waits: pictures (packets of video that lay in their socket for those behind them, under load)
        loads: a row per thread: shedding (1 while its CPU does not carry all video), used_permille and
        capacity_permille (of one CPU: what it uses, what it can have; 0 = enough), budget_bps (of all video while
        shedding), paused and lowered (video streams), episodes (times that shedding began), brakes (times that all
        video stopped for a moment), late (backlogs of datagrams that had waited 15 ms or longer), longest_wait_us
        (of these, since the last publication)
        """
    def close(self) -> None:
        """Stop the threads, close sockets and the eventfd. Idempotent."""
