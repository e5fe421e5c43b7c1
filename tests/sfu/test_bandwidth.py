"""What goes first on a narrow link, and that a subscriber is told what the engine holds back."""

import pytest

from sfu import protocol
from sfu.description import Direction, MediaKind, Wish
from sfu.layers import (
    PINNED_PRIORITY,
    SCREEN_PRIORITY,
    SPEAKER_PRIORITY,
    bandwidth_priority,
)
from tests.sfu.fakes import COMPACT, EACH, offer, section, transport
from tests.sfu.test_negotiation import Bench

AUDIO, VIDEO = MediaKind.AUDIO, MediaKind.VIDEO


def test_screen_then_pinned_then_speaker_then_the_rest() -> None:
    screen = bandwidth_priority(Wish(), "screen_share", speaks=False)
    pinned = bandwidth_priority(Wish(priority=2), "camera", speaks=False)
    more = bandwidth_priority(Wish(priority=255), "camera", speaks=False)
    speaker = bandwidth_priority(Wish(), "camera", speaks=True)
    rest = bandwidth_priority(Wish(), "camera", speaks=False)
    assert screen > more > pinned > speaker > rest == 0
    assert (screen, pinned, speaker) == (SCREEN_PRIORITY, PINNED_PRIORITY, SPEAKER_PRIORITY)
    assert 0 <= bandwidth_priority(Wish(priority=9_999), "camera", speaks=True) <= 255


@pytest.fixture
async def watched() -> tuple[Bench, dict[str, int]]:
    """Bob receives the cameras of ann and eve; the engine's subscription by track."""
    bench = Bench()
    published = {"ann": bench.publisher("ann", VIDEO, "ann-cam")}
    published["eve"] = bench.publisher("eve", VIDEO, "eve-cam")
    published["mic"] = bench.publisher("eva", AUDIO, "eva-mic")
    bench.done(protocol.Open("bob", "room", EACH))
    for track in ("ann-cam", "eve-cam"):
        bench.done(protocol.Subscribe("bob", track))
    sections = [section(str(mid), VIDEO, Direction.RECVONLY) for mid in range(2)]
    bench.described(protocol.Offer("bob", offer(*sections)))
    by_source = {source: handle for handle, source in bench.plane.sources.items()}
    bench.events()
    return bench, {name: by_source[p] for name, p in published.items() if p in by_source}


async def test_who_speaks_goes_first_and_who_is_pinned_before(
    watched: tuple[Bench, dict[str, int]],
) -> None:
    bench, handles = watched
    assert bench.plane.priorities == {}, "nothing to say about equals"
    bench.done(protocol.Expect("eve", "eve-mic", AUDIO, "microphone", match=("cid-mic",)))
    before = set(bench.plane.publications)
    both = offer(
        section("0", VIDEO, Direction.SENDONLY, track="cid-eve-cam"),
        section("1", AUDIO, Direction.SENDONLY, track="cid-mic"),
    )
    bench.described(protocol.Offer("eve", both))
    (voice,) = set(bench.plane.publications) - before
    group = next(iter(bench.worker._groups.values()))
    for step in range(10):
        group.hear([(voice, 20, 5, min(step, 10))], 1.0 + step / 10)
    assert bench.plane.priorities == {handles["eve"]: SPEAKER_PRIORITY}
    bench.done(protocol.Want("bob", "ann-cam", Wish(priority=9)))
    assert bench.plane.priorities[handles["ann"]] > SPEAKER_PRIORITY


async def test_a_starved_stream_is_told_once_and_again_when_it_goes_on(
    watched: tuple[Bench, dict[str, int]],
) -> None:
    bench, handles = watched
    for _ in range(2):
        bench.plane.happen("paused", handles["eve"])
    bench.worker.take_engine_events()
    assert bench.events() == [protocol.StreamState("bob", "eve-cam", True)]
    bench.plane.happen("resumed", handles["eve"])
    bench.worker.take_engine_events()
    assert bench.events() == [protocol.StreamState("bob", "eve-cam", False)]


async def test_a_new_engine_stream_starts_unstarved(
    watched: tuple[Bench, dict[str, int]],
) -> None:
    bench, handles = watched
    bench.plane.happen("paused", handles["eve"])
    bench.worker.take_engine_events()
    bench.events()
    group = next(iter(bench.worker._groups.values()))
    subscription = group.sessions["bob"].down.subscriptions["eve-cam"]
    subscription.stream.detached()
    group.feed(subscription)
    assert bench.events() == [protocol.StreamState("bob", "eve-cam", False)]
    bench.plane.happen("paused", 999_999)
    bench.worker.take_engine_events()
    assert bench.events() == [], "a stream that is gone"


async def test_a_compact_stream_that_is_held_back_is_told_too() -> None:
    """One stream for whoever speaks: its pause concerns what it carries."""
    bench = Bench()
    bench.publisher("ann", VIDEO, "ann-cam")
    bench.done(protocol.Open("dino", "room", COMPACT))
    both = section("video", VIDEO, Direction.SENDRECV, over=transport("two2"))
    bench.described(protocol.Offer("dino", offer(both, bundle=False)))
    (handle,) = bench.plane.subscriptions
    bench.events()
    bench.plane.happen("paused", handle)
    bench.worker.take_engine_events()
    assert bench.events() == [protocol.StreamState("dino", "ann-cam", True)]
    bench.plane.happen("resumed", handle)
    bench.worker.take_engine_events()
    assert bench.events() == [protocol.StreamState("dino", "ann-cam", False)]
