"""Offers and answers of a session, with a recording data plane."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sfu import protocol
from sfu.answers import CommandKey
from sfu.description import (
    ChannelSpec,
    Codec,
    Description,
    Direction,
    LayerSpec,
    MediaKind,
    Setup,
    Source,
    SourceGroup,
    Wish,
)
from sfu.layers import LOWER_AFTER_S
from sfu.negotiation import Numbers
from sfu.worker import TICK_S, Worker
from tests.sfu.fakes import (
    COMPACT,
    EACH,
    MID,
    OPUS,
    RID,
    RTX,
    VP8,
    FakePlane,
    answer,
    offer,
    section,
    transport,
)

AUDIO, VIDEO, DATA = MediaKind.AUDIO, MediaKind.VIDEO, MediaKind.APPLICATION
SEND, RECV, BOTH, OFF = (
    Direction.SENDONLY,
    Direction.RECVONLY,
    Direction.SENDRECV,
    Direction.INACTIVE,
)


class Bench:
    """A worker with an owner, driven without sockets."""

    def __init__(self) -> None:
        self.plane = FakePlane()
        self.now = 1_000.0
        self.worker = Worker(self.plane, ("192.0.2.1",), clock=lambda: self.now)
        self.worker.adopt()
        self._count = 0

    def do(self, command: protocol.Command) -> protocol.Reply:
        self._count += 1
        return self.worker.carry_out(CommandKey("me", 1, str(self._count)), command)

    def done(self, command: protocol.Command) -> None:
        assert self.do(command) == protocol.Done()

    def described(self, command: protocol.Command) -> Description:
        reply = self.do(command)
        assert isinstance(reply, protocol.Described), reply
        return reply.description

    def failure(self, command: protocol.Command) -> str:
        reply = self.do(command)
        assert isinstance(reply, protocol.Failure), reply
        return reply.code

    def events(self) -> list[protocol.Event]:
        taken: list[protocol.Event] = []
        while (frame := self.worker.outbox.pop()) is not None:
            assert isinstance(frame, protocol.Notice)
            taken.append(frame.event)
        return taken

    def later(self, seconds: float) -> list[protocol.Event]:
        """What is told while time passes; grades are not looked at."""
        end = self.now + seconds + TICK_S / 2
        while self.now < end:
            self.now += TICK_S
            self.worker.tick()
        return [e for e in self.events() if not isinstance(e, protocol.Quality)]

    def publisher(
        self,
        name: str = "ann",
        kind: MediaKind = VIDEO,
        track: str = "cam",
        *,
        encrypted: bool = False,
    ) -> int:
        """A session that publishes one track; the engine's publication."""
        before = set(self.plane.publications)
        self.done(protocol.Open(name, "room", EACH))
        match = (f"cid-{track}",)
        self.done(protocol.Expect(name, track, kind, "camera", match=match, encrypted=encrypted))
        self.described(protocol.Offer(name, offer(section("0", kind, SEND, track=f"cid-{track}"))))
        (new,) = set(self.plane.publications) - before
        return new


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_an_answer_says_what_was_agreed(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    answered = bench.described(
        protocol.Offer(
            "ann",
            offer(
                section("a", AUDIO, SEND, track="cid"),
                section("b", VIDEO, RECV),
                section("d", DATA, BOTH),
            ),
        )
    )
    audio, video, data = answered.sections
    assert (audio.direction, video.direction) == (RECV, OFF)
    assert [c.name for c in audio.codecs] == ["opus"]
    assert [(c.payload_type, c.name) for c in video.codecs] == [(96, "VP8"), (97, "rtx")]
    assert data.sctp_port == 5000
    assert answered.bundle == ("a", "b", "d")
    assert {s.transport for s in answered.sections} == {audio.transport}
    assert audio.transport.setup is Setup.PASSIVE
    assert audio.transport.ice_lite
    assert len(audio.transport.ufrag) >= 8
    assert len(audio.transport.pwd) >= 24
    (candidate,) = audio.transport.candidates
    assert (candidate.address, candidate.port, candidate.component) == ("192.0.2.1", 40_000, 1)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (Setup.ACTPASS, Setup.PASSIVE),
        (Setup.ACTIVE, Setup.PASSIVE),
        (Setup.PASSIVE, Setup.ACTIVE),
    ],
)
async def test_setup_is_answered(bench: Bench, offered: Setup, answered: Setup) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    over = transport(setup=offered)
    description = bench.described(
        protocol.Offer("ann", offer(section("0", AUDIO, SEND, over=over)))
    )
    assert description.sections[0].transport.setup is answered


async def test_answers_follow_the_offers_numbers(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    theirs = (
        replace(VP8, payload_type=120, feedback=(*VP8.feedback,)),
        replace(RTX, payload_type=121, parameters=(("apt", "120"),)),
        Codec(122, "H264", 90_000),
    )
    description = bench.described(
        protocol.Offer("ann", offer(section("0", VIDEO, SEND, codecs=theirs)))
    )
    assert [c.payload_type for c in description.sections[0].codecs] == [120, 121]


async def test_fixed_payload_types_are_ours(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", replace(EACH, fixed_payload_types=True)))
    theirs = (replace(OPUS, payload_type=97, parameters=()),)
    description = bench.described(
        protocol.Offer("ann", offer(section("0", AUDIO, BOTH, codecs=theirs)))
    )
    assert description.sections[0].codecs == (OPUS,)


async def test_a_payload_type_keeps_its_parameters_in_a_bundle(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", replace(EACH, audio=(replace(OPUS, parameters=()),))))
    stereo = replace(OPUS, parameters=(("stereo", "1"),))
    plain = replace(OPUS, parameters=(("minptime", "10"),))
    description = bench.described(
        protocol.Offer(
            "ann",
            offer(
                section("0", AUDIO, SEND, codecs=(stereo,)),
                section("1", AUDIO, RECV, codecs=(plain,)),
            ),
        )
    )
    first, second = description.sections
    assert first.codecs == second.codecs


async def test_nothing_in_common_is_refused_and_one_section_rejected(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    foreign = (Codec(100, "theora", 90_000),)
    bad = section("1", VIDEO, SEND, codecs=foreign)
    assert bench.failure(protocol.Offer("ann", offer(bad))) == "refused"
    description = bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND), bad)))
    assert [s.rejected for s in description.sections] == [False, True]
    assert description.sections[1].codecs == foreign
    assert description.bundle == ("0",)


@pytest.mark.parametrize(
    "broken",
    [
        lambda s: replace(s, transport=replace(s.transport, fingerprints=())),
        lambda s: replace(s, transport=replace(s.transport, ufrag="abc")),
        lambda s: replace(s, transport=replace(s.transport, pwd="short")),
        lambda s: replace(s, rtcp_mux=False),
        lambda s: replace(s, codecs=s.codecs * 2),
        lambda s: replace(s, codecs=(replace(OPUS, payload_type=200),)),
        lambda s: replace(s, sources=tuple(Source(n) for n in range(65))),
    ],
)
async def test_a_malformed_offer_changes_nothing(
    bench: Bench, broken: Callable[[object], object]
) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bad = broken(section("0", AUDIO, SEND))
    assert bench.failure(protocol.Offer("ann", offer(bad))) == "malformed"  # type: ignore[arg-type]
    assert not bench.plane.transports
    bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND))))


async def test_an_expected_track_is_matched_after_the_offer_too(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND, track="cid"))))
    assert not bench.plane.publications
    bench.done(protocol.Expect("ann", "mic", AUDIO, "microphone", match=("other", "cid")))
    (stream,) = bench.plane.publications.values()
    assert (stream.mid, stream.kind) == ("0", AUDIO)


async def test_an_expected_track_is_matched_by_mid(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.done(protocol.Expect("ann", "mic", AUDIO, "microphone", mid="x"))
    bench.described(
        protocol.Offer("ann", offer(section("0", AUDIO, SEND), section("x", AUDIO, SEND)))
    )
    (stream,) = bench.plane.publications.values()
    assert stream.mid == "x"


async def test_simulcast_layers_are_ordered_lowest_first(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    described = bench.described(
        protocol.Offer("ann", offer(section("0", VIDEO, SEND, track="cid", rids=("f", "q", "h"))))
    )
    assert [r.id for r in described.sections[0].rids] == ["q", "h", "f"]
    assert not any(r.send for r in described.sections[0].rids)
    layers = (LayerSpec("f", 320, 180), LayerSpec("h", 640, 360), LayerSpec("q", 1280, 720))
    bench.done(protocol.Expect("ann", "cam", VIDEO, "camera", match=("cid",), layers=layers))
    (stream,) = bench.plane.publications.values()
    assert stream.rids == ("f", "h", "q")


async def test_signalled_sources_make_layers(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.done(protocol.Expect("ann", "cam", VIDEO, "camera", match=("cid",)))
    groups = (
        SourceGroup("SIM", (1, 2)),
        SourceGroup("FID", (1, 11)),
        SourceGroup("FID", (2, 12)),
    )
    plain = section("0", VIDEO, SEND, track="cid")
    bench.described(protocol.Offer("ann", offer(replace(plain, source_groups=groups))))
    (stream,) = bench.plane.publications.values()
    assert stream.ssrcs == ((1, 11), (2, 12))


async def test_a_subscriber_asks_for_sections_and_gets_its_track(bench: Bench) -> None:
    publication = bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.described(protocol.Offer("bob", offer(section("0", AUDIO, RECV))))
    bench.events()
    bench.done(protocol.Subscribe("bob", "cam", stream_label="PA_1|TR_1", track_label="TR_1"))
    assert protocol.NegotiationNeeded("bob", 0, 1, True) in bench.events()
    described = bench.described(
        protocol.Offer("bob", offer(section("0", AUDIO, RECV), section("1", VIDEO, RECV)))
    )
    free, used = described.sections
    assert (free.direction, used.direction) == (OFF, SEND)
    assert (used.stream, used.track) == ("PA_1|TR_1", "TR_1")
    media, repair = used.sources
    assert dict(media.attributes)["msid"] == "PA_1|TR_1 TR_1"
    assert dict(media.attributes)["cname"]
    assert used.source_groups == (SourceGroup("FID", (media.ssrc, repair.ssrc)),)
    ((handle, stream),) = bench.plane.subscriptions.items()
    assert (stream.mid, stream.ssrc, stream.rtx_ssrc) == ("1", media.ssrc, repair.ssrc)
    assert bench.plane.sources[handle] == publication
    assert bench.plane.layers[handle] == (2, False)


async def test_a_freed_section_goes_inactive_and_is_used_again(bench: Bench) -> None:
    bench.publisher("ann", track="cam")
    bench.publisher("eve", track="screen")
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam"))
    sections = (section("0", VIDEO, RECV),)
    first = bench.described(protocol.Offer("bob", offer(*sections)))
    assert first.sections[0].track == "cam"
    bench.done(protocol.Unsubscribe("bob", "cam"))
    assert not bench.plane.subscriptions
    assert bench.described(protocol.Offer("bob", offer(*sections))).sections[0].direction is OFF
    bench.events()
    bench.done(protocol.Subscribe("bob", "screen"))
    # A free section is there: no more of them are needed, only a new offer.
    assert protocol.NegotiationNeeded("bob", 0, 0, True) in bench.events()
    again = bench.described(protocol.Offer("bob", offer(*sections)))
    assert again.sections[0].track == "screen"
    assert again.sections[0].sources[0].ssrc != first.sections[0].sources[0].ssrc


async def test_the_same_offer_twice_gives_the_same_answer(bench: Bench) -> None:
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam"))
    again = offer(section("0", VIDEO, RECV), section("1", AUDIO, SEND, track="x"))
    first = bench.described(protocol.Offer("bob", again))
    before = dict(bench.plane.subscriptions)
    assert bench.described(protocol.Offer("bob", again)) == first
    assert bench.plane.subscriptions == before


async def test_an_ice_restart_gets_new_credentials(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    first = bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND))))
    restart = offer(section("0", AUDIO, SEND, over=transport("another")))
    second = bench.described(protocol.Offer("ann", restart))
    assert first.sections[0].transport.ufrag != second.sections[0].transport.ufrag
    (state,) = bench.plane.transports.values()
    local = second.sections[0].transport
    assert state["restarted"] == (local.ufrag, local.pwd)
    assert state["remote"] == ("another", "p" * 24)


async def test_another_certificate_is_refused(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND))))
    over = transport()
    other = replace(over, fingerprints=(replace(over.fingerprints[0], value="CD:" * 31 + "CD"),))
    bad = offer(section("0", AUDIO, SEND, over=other))
    assert bench.failure(protocol.Offer("ann", bad)) == "refused"


async def test_our_offer_has_channels_and_a_section_per_track(bench: Bench) -> None:
    publication = bench.publisher()
    profile = replace(EACH, channels=(ChannelSpec("_reliable"), ChannelSpec("_lossy", False, 0)))
    bench.done(protocol.Open("bob", "room", profile))
    bench.done(protocol.Subscribe("bob", "cam", stream_label="s", track_label="t"))
    offered = bench.described(protocol.MakeOffer("bob"))
    data, video = offered.sections
    assert (data.kind, data.mid, video.mid) == (DATA, "0", "1")
    assert video.direction is SEND
    assert [c.payload_type for c in video.codecs] == [96, 97]
    assert [e.id for e in video.extensions] == [1, 2]
    assert [e.uri for e in video.extensions] == [MID, RID]
    assert video.transport.setup is Setup.ACTPASS
    assert not bench.plane.subscriptions
    accepted = section("1", VIDEO, RECV, over=transport(setup=Setup.ACTIVE))
    accepted = replace(accepted, codecs=video.codecs, extensions=video.extensions)
    bench.done(
        protocol.Answer(
            "bob",
            answer(replace(section("0", DATA, BOTH), transport=accepted.transport), accepted),
        )
    )
    ((handle, stream),) = bench.plane.subscriptions.items()
    assert stream.ssrc == video.sources[0].ssrc
    assert bench.plane.sources[handle] == publication


async def test_an_offer_is_made_anew_when_something_changed_meanwhile(bench: Bench) -> None:
    bench.publisher()
    profile = replace(EACH, channels=(ChannelSpec("c"),))
    bench.done(protocol.Open("bob", "room", profile))
    offered = bench.described(protocol.MakeOffer("bob"))
    bench.events()
    bench.done(protocol.Subscribe("bob", "cam"))
    assert any(isinstance(e, protocol.NegotiationNeeded) for e in bench.events())
    over = transport(setup=Setup.ACTIVE)
    bench.done(protocol.Answer("bob", answer(section("0", DATA, BOTH, over=over))))
    assert protocol.NegotiationNeeded("bob", 0, 1, True) in bench.events()
    again = bench.described(protocol.MakeOffer("bob"))
    assert [s.mid for s in again.sections] == ["0", "1"]
    assert again.sections[0].transport.ufrag == offered.sections[0].transport.ufrag


async def test_turns_are_kept(bench: Bench) -> None:
    bench.done(protocol.Open("bob", "room", replace(EACH, channels=(ChannelSpec("c"),))))
    over = transport(setup=Setup.ACTIVE)
    said = answer(section("0", DATA, BOTH, over=over))
    assert bench.failure(protocol.Answer("bob", said)) == "refused"
    bench.described(protocol.MakeOffer("bob"))
    crossing = protocol.Offer("bob", offer(section("0", AUDIO, SEND)))
    assert bench.failure(crossing) == "refused"
    bench.done(protocol.Answer("bob", said))


async def test_an_unbundled_session_has_a_transport_per_section(bench: Bench) -> None:
    bench.done(protocol.Open("dino", "room", COMPACT))
    described = bench.described(
        protocol.Offer(
            "dino",
            offer(
                section("audio", AUDIO, BOTH, over=transport("one1")),
                section("video", VIDEO, BOTH, over=transport("two2")),
                bundle=False,
            ),
        )
    )
    first, second = (s.transport.ufrag for s in described.sections)
    assert first != second
    assert described.bundle == ()
    assert {t["remote"] for t in bench.plane.transports.values()} == {
        ("one1", "p" * 24),
        ("two2", "p" * 24),
    }


async def test_a_compact_offer_has_one_section_per_kind(bench: Bench) -> None:
    bench.done(protocol.Open("dino", "room", COMPACT, media=(AUDIO, VIDEO)))
    offered = bench.described(protocol.MakeOffer("dino"))
    assert [(s.kind, s.direction) for s in offered.sections] == [(AUDIO, BOTH), (VIDEO, BOTH)]
    assert all(s.sources for s in offered.sections)
    assert all(t["offered_by_us"] for t in bench.plane.transports.values())


async def test_a_compact_session_follows_the_speaker(bench: Bench) -> None:
    bench.publisher("ann", AUDIO, "ann-mic")
    cam = bench.publisher("cat", VIDEO, "cat-cam")
    eve = bench.publisher("eve", AUDIO, "eve-mic")
    bench.done(protocol.Open("dino", "room", COMPACT))
    bench.done(protocol.Expect("dino", "dino-mic", AUDIO, "microphone"))
    bench.described(
        protocol.Offer(
            "dino",
            offer(
                section("audio", AUDIO, BOTH, over=transport("one1")),
                section("video", VIDEO, BOTH, over=transport("two2")),
                bundle=False,
            ),
        )
    )
    (own,) = (h for h, stream in bench.plane.publications.items() if stream.mid == "audio")
    by_mid = {stream.mid: h for h, stream in bench.plane.subscriptions.items()}
    assert bench.plane.sources[by_mid["video"]] == cam
    group = next(iter(bench.worker._groups.values()))
    for _ in range(10):
        group.hear([(eve, 20, 5, 10), (own, 70, 0, 0)], 1.0)
    assert bench.plane.sources[by_mid["audio"]] == eve
    for step in range(40):
        group.hear([(own, 5, 5, 10)], 10.0 + step / 10)
    assert group._voices.dominant == "dino-mic"
    assert bench.plane.sources[by_mid["audio"]] == eve, "never its own track"


async def test_a_compact_session_never_gets_what_is_encrypted(bench: Bench) -> None:
    """Its client has no key: encrypted sound would be noise to it."""
    secret = bench.publisher("ann", AUDIO, "ann-mic", encrypted=True)
    plain = bench.publisher("eve", AUDIO, "eve-mic")
    bench.publisher("cat", VIDEO, "cat-cam", encrypted=True)
    bench.done(protocol.Open("dino", "room", COMPACT))
    bench.described(
        protocol.Offer(
            "dino",
            offer(
                section("audio", AUDIO, BOTH, over=transport("one1")),
                section("video", VIDEO, BOTH, over=transport("two2")),
                bundle=False,
            ),
        )
    )
    by_mid = {stream.mid: h for h, stream in bench.plane.subscriptions.items()}
    group = next(iter(bench.worker._groups.values()))
    for step in range(20):
        group.hear([(secret, 5, 5, 10)], step / 10)
    assert group._voices.dominant == "ann-mic"
    assert bench.plane.sources.get(by_mid["audio"]) == plain
    assert bench.plane.sources.get(by_mid["video"]) is None


async def test_a_gone_track_leaves_every_subscriber(bench: Bench) -> None:
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam"))
    bench.described(protocol.Offer("bob", offer(section("0", VIDEO, RECV))))
    bench.done(protocol.Close("ann"))
    assert not bench.plane.subscriptions
    assert protocol.NegotiationNeeded("bob", 0, 0, True) in bench.events()
    assert bench.failure(protocol.Subscribe("bob", "cam")) == "unknown_track"


async def test_wishes_choose_layers_and_tell_the_publisher(bench: Bench) -> None:
    bench.publisher()
    layers = (LayerSpec("q", 320, 180), LayerSpec("h", 640, 360), LayerSpec("f", 1280, 720))
    bench.done(protocol.Expect("ann", "cam", VIDEO, "camera", match=("cid-cam",), layers=layers))
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam", wish=Wish(width=300, height=170)))
    bench.described(protocol.Offer("bob", offer(section("0", VIDEO, RECV))))
    (handle,) = bench.plane.subscriptions
    assert bench.plane.layers[handle] == (0, False)
    assert bench.later(LOWER_AFTER_S) == [protocol.LayersWanted("ann", "cam", 0)]
    bench.done(protocol.Want("bob", "cam", Wish(width=1920, height=1080, quality=1)))
    assert bench.events() == [protocol.LayersWanted("ann", "cam", 1)], "more is wanted at once"
    assert bench.plane.layers[handle] == (1, False)
    bench.done(protocol.Want("bob", "cam", Wish(paused=True)))
    assert bench.plane.layers[handle][1] is True
    assert bench.later(LOWER_AFTER_S / 2) == [], "he looks away for a moment"
    assert bench.later(LOWER_AFTER_S / 2) == [protocol.LayersWanted("ann", "cam", -1)]
    bench.worker.adopt()
    assert protocol.LayersWanted("ann", "cam", -1) in bench.events(), "a new owner hears it again"


async def test_the_publisher_hears_in_time_to_be_off_in_2_s_and_back_in_1_s(bench: Bench) -> None:
    """MP34. What is left of the 2 s is the publisher's: the message on its way, and a picture's time."""
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam"))
    bench.described(protocol.Offer("bob", offer(section("0", VIDEO, RECV))))
    bench.later(1)
    for _ in range(3):
        wished_at = bench.now  # right after a tick: the longest wait for the next
        bench.done(protocol.Want("bob", "cam", Wish(paused=True)))
        while not (told := bench.later(TICK_S / 2)):
            assert bench.now - wished_at < 2
        assert told == [protocol.LayersWanted("ann", "cam", -1)]
        assert bench.now - wished_at < 1.75
        bench.done(protocol.Want("bob", "cam", Wish()))
        assert bench.events() == [protocol.LayersWanted("ann", "cam", 2)], "at once"


async def test_looking_away_for_a_moment_costs_the_publisher_nothing(bench: Bench) -> None:
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.done(protocol.Subscribe("bob", "cam"))
    bench.described(protocol.Offer("bob", offer(section("0", VIDEO, RECV))))
    assert not [e for e in bench.later(60) if isinstance(e, protocol.LayersWanted)]
    for _ in range(10):
        bench.done(protocol.Want("bob", "cam", Wish(paused=True)))
        assert bench.later(LOWER_AFTER_S * 0.8) == []
        bench.done(protocol.Want("bob", "cam", Wish()))
        assert bench.later(LOWER_AFTER_S * 0.8) == []


async def test_a_gate_closed_before_the_media_stays_closed(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.done(protocol.Expect("ann", "mic", AUDIO, "microphone", match=("cid",)))
    bench.done(protocol.Gate("mic", open=False))
    bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND, track="cid"))))
    assert list(bench.plane.gates.values()) == [False]
    bench.done(protocol.Gate("mic", open=True))
    assert list(bench.plane.gates.values()) == [True]


async def test_a_publisher_that_stops_ends_its_track(bench: Bench) -> None:
    handle = bench.publisher()
    bench.plane.happen("first_packet", handle, (0, 96))
    bench.worker.take_engine_events()
    assert protocol.TrackLive("ann", "cam", "VP8", (0,)) in bench.events()
    bench.described(protocol.Offer("ann", offer(section("0", VIDEO, OFF))))
    assert protocol.TrackEnded("ann", "cam") in bench.events()
    assert not bench.plane.publications


async def test_limits_reach_transports_that_come_later(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    bench.done(protocol.Limits("ann", 1_000_000, 500, egress_bps=300_000))
    bench.described(protocol.Offer("ann", offer(section("0", AUDIO, SEND))))
    assert list(bench.plane.limits.values()) == [(1_000_000, 500)]
    assert list(bench.plane.budgets.values()) == [300_000]
    bench.done(protocol.Limits("ann", 1_000_000, 500))
    assert list(bench.plane.budgets.values()) == [0]


async def test_one_sessions_fault_ends_that_session_only(bench: Bench) -> None:
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    bench.plane.fail_next = RuntimeError("ours")
    broken = protocol.Offer("bob", offer(section("0", AUDIO, SEND)))
    assert bench.failure(broken) == "bug"
    assert protocol.Closed("bob", "bug") in bench.events()
    assert bench.failure(broken) == "unknown_session"
    bench.described(protocol.Offer("ann", offer(section("0", VIDEO, SEND, track="cid-cam"))))


async def test_one_h264_variant_of_several_is_the_only_one_sent(bench: Bench) -> None:
    def h264(number: int, mode: str, level: str) -> Codec:
        parameters = (("packetization-mode", mode), ("profile-level-id", level))
        return Codec(number, "H264", 90_000, 1, parameters)

    profile = replace(EACH, video=(h264(102, "1", "42e01f"),))
    bench.done(protocol.Open("ann", "room", EACH))
    bench.done(protocol.Expect("ann", "cam", VIDEO, "camera", match=("cid",)))
    bench.done(protocol.Open("bob", "room", profile))
    bench.done(protocol.Subscribe("bob", "cam"))
    theirs = (h264(120, "0", "42e01f"), h264(121, "1", "42001f"), h264(122, "1", "640c1f"))
    described = bench.described(
        protocol.Offer("bob", offer(section("0", VIDEO, RECV, codecs=theirs)))
    )
    assert [c.payload_type for c in described.sections[0].codecs] == [121]
    (stream,) = bench.plane.subscriptions.values()
    assert [c.payload_type for c in stream.codecs] == [121]


async def test_fixed_numbers_down_are_the_peers(bench: Bench) -> None:
    """What we receive comes under our numbers, what we send goes under theirs (RFC 3264 section 5.1)."""
    bench.publisher("ann", AUDIO, "mic")
    bench.done(protocol.Open("dino", "room", replace(COMPACT, fixed_payload_types=True)))
    theirs = (replace(OPUS, payload_type=97),)
    bench.described(
        protocol.Offer("dino", offer(section("0", AUDIO, BOTH, codecs=theirs), bundle=False))
    )
    (stream,) = bench.plane.subscriptions.values()
    assert [(c.payload_type, c.name) for c in stream.codecs] == [(97, "opus")]


async def test_an_empty_offer_is_refused_and_wanted_once_there_is_something(bench: Bench) -> None:
    bench.publisher()
    bench.done(protocol.Open("bob", "room", EACH))
    assert bench.failure(protocol.MakeOffer("bob")) == "refused"
    bench.events()
    bench.done(protocol.Subscribe("bob", "cam"))
    assert protocol.NegotiationNeeded("bob", 0, 1, True) in bench.events()


async def test_a_thousand_sessions_leave_nothing_behind(bench: Bench) -> None:
    """R12 in small."""
    for number in range(250):
        bench.publisher("ann", VIDEO, "cam")
        bench.done(protocol.Open("bob", f"room{number}" if number % 2 else "room", EACH))
        bench.do(protocol.Subscribe("bob", "cam"))
        bench.described(protocol.Offer("bob", offer(section("0", VIDEO, RECV))))
        bench.done(protocol.Close("ann"))
        bench.done(protocol.Close("bob"))
        bench.events()
    worker, plane = bench.worker, bench.plane
    assert not plane.transports
    assert not worker._sessions
    assert not worker._groups
    assert not worker._tracks
    assert not worker._by_transport
    assert len(worker._answers) <= protocol.ANSWERS_KEPT + 250 * 4


async def test_answers_are_kept_for_the_last_commands_only(bench: Bench) -> None:
    bench.done(protocol.Open("ann", "room", EACH))
    key = CommandKey("me", 1, "mine")
    offered = protocol.Offer("ann", offer(section("0", AUDIO, SEND)))
    first = bench.worker.carry_out(key, offered)
    assert bench.worker.carry_out(key, offered) == first
    for _ in range(protocol.ANSWERS_KEPT):
        bench.done(protocol.RestartIce("ann"))
    again = bench.worker.carry_out(key, offered)
    assert isinstance(again, protocol.Described)
    assert again != first, "forgotten, so done again: a restart was due"


async def test_red_and_pauses_are_negotiated_in_the_offers_numbers(bench: Bench) -> None:
    """MP19, MP20: useinbandfec is asked for, usedtx kept, RED names the payload types of the offer."""
    opus = Codec(111, "opus", 48_000, 2, (("minptime", "10"), ("useinbandfec", "1")))
    red = Codec(63, "red", 48_000, 2, (("111/111", ""),))
    profile = replace(EACH, audio=(opus, red))
    bench.do(protocol.Open(session="a", group="g", profile=profile))
    theirs = (
        Codec(96, "opus", 48_000, 2, (("minptime", "20"), ("usedtx", "1"), ("stereo", "1"))),
        Codec(97, "red", 48_000, 2, (("96/96", ""),)),
        Codec(0, "PCMU", 8_000),
    )
    described = bench.do(
        protocol.Offer(
            session="a", description=offer(section("0", AUDIO, SEND, codecs=theirs, track="mic"))
        )
    )
    assert isinstance(described, protocol.Described)
    answered = {c.name: c for c in described.description.sections[0].codecs}
    assert set(answered) == {"opus", "red"}, "what policy does not name is never answered (MP49)"
    assert answered["opus"].payload_type == 96
    assert dict(answered["opus"].parameters) == {
        "minptime": "10",
        "useinbandfec": "1",
        "usedtx": "1",
        "stereo": "1",
    }
    assert (answered["red"].payload_type, answered["red"].parameters) == (97, (("96/96", ""),))


async def test_an_encrypted_track_is_announced_as_such_to_the_engine(bench: Bench) -> None:
    bench.do(protocol.Open(session="a", group="g", profile=EACH))
    bench.do(
        protocol.Expect(
            session="a", track="t", kind=AUDIO, source="microphone", match=("mic",), encrypted=True
        )
    )
    bench.do(protocol.Offer(session="a", description=offer(section("0", AUDIO, SEND, track="mic"))))
    assert [stream.encrypted for stream in bench.plane.publications.values()] == [True]


async def test_the_answer_keeps_the_offers_order(bench: Bench) -> None:
    """Who publishes sends the first codec of the answer (RFC 3264 section 6.1)."""
    vp9 = Codec(98, "VP9", 90_000, parameters=(("profile-id", "0"),))
    bench.do(protocol.Open(session="a", group="g", profile=replace(EACH, video=(VP8, RTX, vp9))))
    theirs = (replace(vp9, payload_type=100), Codec(45, "AV1", 90_000), VP8, RTX)
    answered = bench.described(protocol.Offer("a", offer(section("0", VIDEO, SEND, codecs=theirs))))
    names = [(c.payload_type, c.name) for c in answered.sections[0].codecs]
    assert names == [(100, "VP9"), (96, "VP8"), (97, "rtx")]


async def test_long_header_extensions_may_come_if_the_offer_says_that_they_might(
    bench: Bench,
) -> None:
    bench.do(protocol.Open(session="a", group="g", profile=EACH))
    theirs = [replace(section(mid, VIDEO, SEND), mixed_extensions=mid == "1") for mid in "01"]
    answered = bench.described(protocol.Offer("a", offer(*theirs)))
    assert [s.mixed_extensions for s in answered.sections] == [False, True]


def test_red_is_offered_with_the_numbers_of_the_session() -> None:
    red = Codec(63, "red", 48_000, 2, (("111/111", ""),))
    profile = replace(EACH, audio=(OPUS, red))
    numbers = Numbers()
    assert numbers.offer_codecs(profile, AUDIO)[1].parameters == (("111/111", ""),)
    numbers = Numbers()
    theirs = (Codec(109, "opus", 48_000, 2), Codec(63, "telephone-event", 8_000))
    numbers.answer_codecs(profile, section("0", AUDIO, SEND, codecs=theirs))
    offered = numbers.offer_codecs(profile, AUDIO)
    assert [(c.payload_type, c.name) for c in offered] == [(109, "opus"), (63, "red")]
    assert offered[1].parameters == (("109/109", ""),)
