"""MP37, MP38, MP40, MP43: whose picture and whose voice is forwarded, in virtual time."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu import protocol
from sfu.answers import CommandKey
from sfu.description import Direction, LayerSpec, MediaKind, Wish
from sfu.layers import LOWER_AFTER_S
from sfu.pictures import AUDIENCE_S, Picture, chosen, ranked, silenced
from sfu.speakers import ACTIVE_FRAMES
from sfu.worker import TICK_S, Worker
from tests.sfu.fakes import EACH, FakePlane, offer, section

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
SEND, RECV = Direction.SENDONLY, Direction.RECVONLY
LAYERS = (LayerSpec("q", 320, 180), LayerSpec("h", 640, 360), LayerSpec("f", 1280, 720))
SPEECH = (20, 5, 10)


class Meeting:
    """Publishers p0, p1, ... with camera and microphone; subscribers that want everything."""

    def __init__(self, people: int, subscribers: Collection[str] = ("bob",)) -> None:
        self.plane, self.now = FakePlane(), 1_000.0
        self.worker = Worker(self.plane, ("192.0.2.1",), clock=lambda: self.now)
        self.worker.adopt()
        self._count = 0
        self.mics: dict[str, int] = {}
        self.cams: dict[str, int] = {}
        for number in range(people):
            self._join(f"p{number}")
        for name in subscribers:
            self._receive(name, people)
        self.told: list[protocol.Event] = []

    def do(self, command: protocol.Command) -> None:
        self._count += 1
        reply = self.worker.carry_out(CommandKey("me", 1, str(self._count)), command)
        assert not isinstance(reply, protocol.Failure), reply

    def _join(self, name: str) -> None:
        before = set(self.plane.publications)
        self.do(protocol.Open(name, "room", EACH))
        cam = protocol.Expect(name, f"{name}-cam", VIDEO, "camera", match=("cam",), layers=LAYERS)
        self.do(cam)
        self.do(protocol.Expect(name, f"{name}-mic", AUDIO, "microphone", match=("mic",)))
        sections = (section("0", AUDIO, SEND, track="mic"), section("1", VIDEO, SEND, track="cam"))
        self.do(protocol.Offer(name, offer(*sections)))
        for handle in set(self.plane.publications) - before:
            kind = self.plane.publications[handle].kind
            (self.mics if kind is AUDIO else self.cams)[name] = handle

    def _receive(self, name: str, people: int) -> None:
        self.do(protocol.Open(name, "room", EACH))
        for number in range(people):
            self.do(protocol.Subscribe(name, f"p{number}-cam"))
        sections = [section(str(mid), VIDEO, RECV) for mid in range(people)]
        self.do(protocol.Offer(name, offer(*sections)))

    def policy(self, **rules: object) -> None:
        self.do(protocol.Policy("room", **rules))  # type: ignore[arg-type]

    def wish(self, who: str, whom: str, wish: Wish) -> None:
        self.do(protocol.Want(who, f"{whom}-cam", wish))

    def speak(self, who: str, seconds: float) -> None:
        self.later(seconds, who)

    def later(self, seconds: float, *speaking: str) -> None:
        group = self.worker._groups["room"].number
        end = self.now + seconds - TICK_S / 2
        while self.now < end:
            self.now += TICK_S
            if speaking:
                heard = [(self.mics[who], *SPEECH) for who in speaking]
                self.plane.happen("levels", group, heard)
                self.worker.take_engine_events()
            self.worker.tick()
        while (frame := self.worker.outbox.pop()) is not None:
            assert isinstance(frame, protocol.Notice)
            self.told.append(frame.event)

    def seen_by(self, who: str) -> set[str]:
        """Whose picture the engine forwards to this session."""
        found = set()
        session = self.worker._sessions[who]
        for subscription in session.down.subscriptions.values():
            handle = subscription.stream.subscription
            assert handle is not None
            if not self.plane.layers[handle][1]:
                found.add(subscription.track.session)
        return found


def people(*numbers: int) -> set[str]:
    return {f"p{number}" for number in numbers}


async def test_of_twenty_publishers_five_are_seen_by_recency_of_speech() -> None:
    meeting = Meeting(20)
    meeting.later(1)
    assert len(meeting.seen_by("bob")) == 20, "off by default"
    meeting.policy(last_n=5)
    meeting.later(1)
    assert meeting.seen_by("bob") == people(0, 1, 2, 3, 4), "who came first, before anybody spoke"
    for speaker in (7, 9, 11, 13, 15, 17):
        meeting.speak(f"p{speaker}", 2)
        assert f"p{speaker}" in meeting.seen_by("bob")
        assert len(meeting.seen_by("bob")) == 5
    assert meeting.seen_by("bob") == people(9, 11, 13, 15, 17)
    meeting.policy()
    meeting.later(TICK_S)
    assert len(meeting.seen_by("bob")) == 20


async def test_pinned_screens_and_moderators_go_before_speakers() -> None:
    meeting = Meeting(10, ("bob", "eve"))
    meeting.do(
        protocol.Expect("p9", "p9-cam", VIDEO, "screen_share", match=("cam",), layers=LAYERS)
    )
    meeting.policy(last_n=3, moderators=("p8",))
    meeting.wish("bob", "p7", Wish(priority=9))
    for speaker in (1, 2, 3, 4):
        meeting.speak(f"p{speaker}", 2)
    assert meeting.seen_by("bob") == people(7, 9, 8), "his pin, the screen, the moderator"
    assert meeting.seen_by("eve") == people(9, 8, 4), "the screen, the moderator, the speaker"
    meeting.wish("eve", "p8", Wish(paused=True))
    meeting.later(TICK_S)
    assert meeting.seen_by("eve") == people(9, 4, 3), "what she does not look at costs no place"


async def test_who_is_quiet_is_not_seen_and_back_within_500_ms_of_speech() -> None:
    meeting = Meeting(3)
    meeting.policy(quiet_video_s=20)
    meeting.later(19)
    assert meeting.seen_by("bob") == people(0, 1, 2)
    meeting.later(2)
    assert meeting.seen_by("bob") == set()
    paused = {e.track for e in meeting.told if isinstance(e, protocol.StreamState) and e.paused}
    assert paused == {"p0-cam", "p1-cam", "p2-cam"}
    meeting.speak("p1", 0.2)
    assert meeting.seen_by("bob") == {"p1"}

    assert protocol.StreamState("bob", "p1-cam", False) in meeting.told
    meeting.later(19)
    assert meeting.seen_by("bob") == {"p1"}
    meeting.later(3)
    assert meeting.seen_by("bob") == set()


async def test_the_first_report_of_a_voice_brings_its_picture_back_at_once() -> None:
    """MP38. How soon the engine reports, and asks for the picture: engine/core, `onset`."""
    meeting = Meeting(3)
    meeting.policy(quiet_video_s=3)
    meeting.later(5)
    assert meeting.seen_by("bob") == set()
    first = (20, ACTIVE_FRAMES, 0)  # level; frames and blocks of speech of an onset
    group = meeting.worker._groups["room"].number
    meeting.plane.happen("levels", group, [(meeting.mics["p1"], *first)])
    meeting.worker.take_engine_events()
    assert meeting.seen_by("bob") == {"p1"}, "no tick is waited for"


async def test_the_audience_is_seen_while_it_speaks() -> None:
    meeting = Meeting(3)
    meeting.policy(audience=("p1", "p2"))
    meeting.later(1)
    assert meeting.seen_by("bob") == {"p0"}
    meeting.speak("p2", 1)
    assert meeting.seen_by("bob") == people(0, 2)
    meeting.later(AUDIENCE_S + 1)
    assert meeting.seen_by("bob") == {"p0"}
    meeting.wish("bob", "p1", Wish(priority=2))
    meeting.later(TICK_S)
    assert meeting.seen_by("bob") == people(0, 1), "a pin is stronger"


async def test_a_held_back_picture_keeps_its_smallest_layer_warm() -> None:
    meeting = Meeting(2)
    meeting.policy(last_n=1)
    meeting.later(LOWER_AFTER_S + 1)
    assert protocol.LayersWanted("p1", "p1-cam", 0) in meeting.told
    meeting.told.clear()
    meeting.speak("p1", 1)
    assert protocol.LayersWanted("p1", "p1-cam", 2) in meeting.told


async def test_one_received_stream_is_suspended_alone() -> None:
    meeting = Meeting(3, ("bob", "eve"))
    meeting.wish("bob", "p1", Wish(paused=True))
    meeting.later(1)
    assert meeting.seen_by("bob") == people(0, 2)
    assert meeting.seen_by("eve") == people(0, 1, 2)


async def test_the_loudest_are_ranked_by_the_engine_with_the_dominant_speaker_safe() -> None:
    meeting = Meeting(3)
    number = meeting.worker._groups["room"].number
    meeting.later(1)
    assert meeting.plane.loudest == {}
    meeting.policy(loudest=3)
    assert meeting.plane.loudest == {number: (3, None)}
    meeting.speak("p2", 1)
    assert meeting.plane.loudest == {number: (3, meeting.mics["p2"])}
    policies = meeting.worker.snapshot().policies
    assert policies == (protocol.Policy("room", loudest=3),), "for a new owner"
    meeting.policy(loudest=0)
    assert meeting.worker.snapshot().policies == ()
    assert meeting.plane.loudest == {number: (0, None)}


async def test_the_muted_are_never_elected() -> None:
    meeting = Meeting(3)
    meeting.policy(muted=("p1-mic",))
    meeting.do(protocol.Gate("p2-mic", open=False))
    meeting.later(5, "p1", "p2")
    assert not [e for e in meeting.told if isinstance(e, protocol.Speakers)]
    meeting.later(2, "p0", "p1", "p2")
    assert [e for e in meeting.told if isinstance(e, protocol.Speakers)][-1].dominant == "p0-mic"
    meeting.policy(muted=("p0-mic", "p1-mic"))
    meeting.later(1)
    assert [e for e in meeting.told if isinstance(e, protocol.Speakers)][-1].dominant == ""


async def test_reports_are_at_most_ten_a_second() -> None:
    meeting = Meeting(5)
    meeting.policy(speaker_interval_ms=1)
    for turn in range(20):
        meeting.speak(f"p{turn % 5}", 0.5)
    told = [e for e in meeting.told if isinstance(e, protocol.Speakers)]
    assert 10 <= len(told) <= 101
    assert told[-1].recent[0] == told[-1].dominant


PICTURES = st.lists(
    st.builds(
        Picture,
        st.text("abcdefgh", min_size=1, max_size=3),
        st.sampled_from(["s0", "s1", "s2", "s3"]),
        st.booleans(),
        st.floats(0, 100),
    ),
    unique_by=lambda one: one.track,
    max_size=12,
)


@given(
    PICTURES,
    st.lists(st.sampled_from(["s0", "s1", "s2", "s3"]), unique=True),
    st.integers(0, 5),
    st.sets(st.sampled_from(["s0", "s1", "s2"])),
    st.floats(0, 50),
    st.data(),
)
def test_any_policy_gives_at_most_n_of_what_is_wanted(
    pictures: list[Picture],
    speakers: list[str],
    last_n: int,
    audience: set[str],
    quiet_s: float,
    data: st.DataObject,
) -> None:
    policy = protocol.Policy("g", last_n=last_n, quiet_video_s=quiet_s, audience=tuple(audience))
    tracks = [one.track for one in pictures]
    some = st.sets(st.sampled_from(tracks)) if tracks else st.just(set[str]())
    wanted = data.draw(some)
    pinned = data.draw(some) & wanted
    order = ranked(pictures, speakers, policy)
    assert sorted(one.track for one in order) == sorted(tracks)
    silent = silenced(pictures, {s: 90.0 for s in speakers}, policy, 100.0)
    got = chosen(wanted, pinned, order, silent, last_n)
    assert got <= wanted
    assert not (got & silent) - pinned
    if last_n:
        assert len(got) == min(last_n, len(pinned | (wanted - silent)))
    else:
        assert got == pinned | (wanted - silent)


@pytest.mark.parametrize("spoke_at", [None, 5.0])
def test_a_screen_is_never_silent(spoke_at: float | None) -> None:
    screen = Picture("t", "s", True, 0.0)
    policy = protocol.Policy("g", quiet_video_s=1, audience=("s",))
    spoken = {} if spoke_at is None else {"s": spoke_at}
    assert silenced([screen], spoken, policy, 1_000.0) == frozenset()
