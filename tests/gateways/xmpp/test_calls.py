"""Calls with a fake stream and a fake worker: XML in, XML and commands out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

import pytest

import sfu.description as sd
from bridge.conference.commands import Join, Leave, Publish, SetMuted, Unpublish
from bridge.conference.errors import Refused, Unavailable
from bridge.conference.events import Left, Track, TrackMuted
from bridge.conference.ids import (
    Account,
    Actor,
    LeaveReason,
    LegId,
    Network,
    Receives,
    Role,
    TrackId,
    TrackKind,
    TrackSource,
)
from bridge.gateway import SavedLeg, SessionOver, SessionSilent, StreamPaused
from bridge.gateways.xmpp import call, profiles
from bridge.gateways.xmpp.calls import MAX_CALLS_PER_PERSON, Calls
from bridge.gateways.xmpp.inbound import Door, Inbound
from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.jingle.parse import parse_jingle
from bridge.gateways.xmpp.link import RequestFailed
from bridge.gateways.xmpp.puppets import Puppets
from bridge.gateways.xmpp.rooms import Room
from bridge.gateways.xmpp.stanza import parse_jid, serialize
from tests.gateways.xmpp.fakes import CONFERENCE, DOMAIN, MUC, FakeWire, House, make_leg, until, xml

FOCUS = f"demo@{DOMAIN}"
BOB = "bob@call.test/phone"
MARK = ":".join(["CD"] * 32)


def content(
    name: str, media: str, payload: str, *, senders: str = "both", ufrag: str = "abcd"
) -> str:
    return f"""<content creator='initiator' name='{name}' senders='{senders}'>
<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='{media}'>{payload}<rtcp-mux/></description>
<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='{ufrag}' pwd='abcdefghijklmnopqrstuvwx'>
<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>{MARK}</fingerprint>
</transport></content>"""


OPUS = "<payload-type id='111' name='opus' clockrate='48000' channels='2'/>"
VP8 = "<payload-type id='98' name='VP8' clockrate='90000'/>"
AUDIO, VIDEO = content("audio", "audio", OPUS), content("video", "video", VP8)
GROUP = (
    "<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'>"
    "<content name='audio'/><content name='video'/></group>"
)


def jingle(
    action: str, inner: str = "", *, sid: str = "s1", sender: str = BOB, id: str = "i1"
) -> Element:
    return xml(
        f"<iq xmlns='jabber:client' type='set' id='{id}' from='{sender}' to='{FOCUS}/focus'>"
        f"<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'>{inner}</jingle></iq>"
    )


def ring(
    verb: str, inner: str = "", *, sid: str = "s1", sender: str = BOB, to: str = FOCUS
) -> Element:
    return xml(
        f"<message xmlns='jabber:client' type='chat' from='{sender}' to='{to}'>"
        f"<{verb} xmlns='urn:xmpp:jingle-message:0' id='{sid}'>{inner}</{verb}></message>"
    )


PROPOSED = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>"


@dataclass
class Rig:
    house: House
    wire: FakeWire
    calls: Calls
    inbound: Inbound
    places: dict[str, tuple[Room, Puppets]]

    def take(self, *stanzas: Element) -> None:
        for stanza in stanzas:
            self.inbound.stanza(stanza)

    def answers(self) -> list[Element]:
        return [one for one in self.wire.sent if one.tag.endswith("}iq")]

    def condition(self) -> str:
        return serialize(self.answers()[-1])

    def actions(self) -> list[v.Jingle]:
        """What we asked of the peer."""
        found = [one.find(f"{{{v.JINGLE}}}jingle") for one in self.wire.asked]
        return [parse_jingle(node) for node in found if node is not None]

    async def acted(self, action: v.Action) -> v.Jingle:
        await until(lambda: any(one.action is action for one in self.actions()))
        return next(one for one in reversed(self.actions()) if one.action is action)

    async def answered(self, *, inner: str = AUDIO + VIDEO, sid: str = "s1") -> LegId:
        self.take(jingle("session-initiate", inner, sid=sid))
        await self.acted(v.Action.SESSION_ACCEPT)
        return LegId(self.house.of(Join)[-1].leg)


@contextlib.asynccontextmanager
async def rig(saved: tuple[SavedLeg, ...] = ()) -> AsyncIterator[Rig]:
    house, wire = House(), FakeWire()
    places: dict[str, tuple[Room, Puppets]] = {}
    room = Room(house.context, wire, CONFERENCE, MUC, asyncio.Event(), lambda _: None)
    places[MUC] = (room, Puppets(house.context, wire, room))
    door = Door(house.context, DOMAIN, places)
    up = asyncio.Event()
    up.set()
    calls = Calls(house.context, wire, door.find, door.admit, up)
    inbound = Inbound(house.context, wire, calls, places, door)
    inbound.slugs = frozenset({"demo"})
    calls.readopt(saved)
    task = asyncio.create_task(calls.run())
    await asyncio.sleep(0)
    try:
        yield Rig(house, wire, calls, inbound, places)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_call_without_group_is_answered_in_dinos_manner() -> None:
    async with rig() as play:
        leg = await play.answered()
        assert play.house.media.calls == ["open", "expect audio", "expect video", "offer"]
        assert play.house.media.profile == profiles.DINO
        assert not profiles.DINO.bundle
        join = play.house.of(Join)[0]
        assert (join.account, join.receives, join.gateway, join.role) == (
            Account(Network.XMPP, "bob@call.test"),
            Receives.COMPACT,
            "xmpp",
            Role.MEMBER,
        )
        names = [type(command).__name__ for command in play.house.submitted]
        assert names == ["Join", "Publish", "Publish"]
        accept = play.actions()[0]
        assert accept.responder == f"{FOCUS}/focus"
        assert [c.name for c in accept.contents] == ["audio", "video"]
        assert all(c.transport and c.transport.setup is sd.Setup.ACTIVE for c in accept.contents)
        assert play.house.store.saved[leg]["sid"] == "s1"
        assert "encryption" not in play.wire.text()


async def test_a_grouped_call_gets_the_bundle_profile() -> None:
    async with rig() as play:
        await play.answered(inner=GROUP + AUDIO + VIDEO)
        assert play.house.media.profile == profiles.XMPP_BUNDLE
        assert play.actions()[0].bundle == ("audio", "video")


async def test_the_state_is_saved_before_the_peer_is_told() -> None:
    async with rig() as play:
        seen: list[int] = []

        def answer(iq: Element) -> Element:
            seen.append(len(play.house.store.saved))
            return Element("{jabber:client}iq", {"type": "result"})

        play.wire.answer = answer
        await play.answered()
        assert seen == [1]


async def test_by_message_we_ring_and_proceed() -> None:
    async with rig() as play:
        play.take(ring("propose", PROPOSED))
        await until(lambda: len(play.wire.sent) == 2)
        first, second = (serialize(one) for one in play.wire.sent)
        assert "<ringing" in first
        assert "<proceed" in second
        assert f"{FOCUS}/focus" in second
        await play.answered()


async def test_who_hangs_up_while_we_prepare_gets_no_accept() -> None:
    async with rig() as play:
        play.take(jingle("session-initiate", AUDIO), jingle("session-terminate", id="i2"))
        await until(lambda: len(play.calls) == 0)
        assert play.actions() == []
        assert play.house.of(Leave) == [Leave(play.house.of(Join)[0].leg, LeaveReason.LEFT)]
        assert play.house.store.saved == {}


async def test_their_terminate_is_our_leave_and_is_not_answered_by_another() -> None:
    async with rig() as play:
        leg = await play.answered()
        play.take(jingle("session-terminate", "<reason><success/></reason>", id="i2"))
        await until(lambda: play.house.of(Leave) == [Leave(leg, LeaveReason.LEFT)])
        await until(lambda: len(play.calls) == 0)
        assert [one.action for one in play.actions()] == [v.Action.SESSION_ACCEPT]


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        ("bob@call.test/x", True),
        ("root@else.test/x", True),  # configured administrator
        ("eve@else.test/x", False),
        ("eve@conf.call.test/x", False),
        ("eve@evil-call.test/x", False),
        ("call.test/x", True),  # the server itself
    ],
)
async def test_who_may_call(sender: str, allowed: bool) -> None:
    async with rig() as play:
        play.take(ring("propose", PROPOSED, sender=sender))
        await until(lambda: play.wire.sent)
        assert ("<reject" in play.wire.text()) is not allowed
        play.take(jingle("session-initiate", AUDIO, sid="s2", sender=sender))
        await until(lambda: play.actions())
        (action,) = play.actions()
        assert action.action is (v.Action.SESSION_ACCEPT if allowed else v.Action.SESSION_TERMINATE)
        if not allowed:
            assert action.reason is not None
            assert action.reason.condition == "decline"
            assert play.house.submitted == []


async def test_an_occupant_of_the_room_may_call_with_his_rank() -> None:
    async with rig() as play:
        play.take(occupant("Eve", "eve@else.test/pc", "owner"))
        play.take(jingle("session-initiate", AUDIO, sender="eve@else.test/pc"))
        await until(lambda: play.house.of(Join))
        join = play.house.of(Join)[0]
        assert (join.name, join.role) == ("Eve", Role.OWNER)


def occupant(nick: str, real: str, affiliation: str) -> Element:
    return xml(
        f"<presence xmlns='jabber:client' from='{MUC}/{nick}' to='{FOCUS}/focus'>"
        "<x xmlns='http://jabber.org/protocol/muc#user'>"
        f"<item affiliation='{affiliation}' role='participant' jid='{real}'/></x></presence>"
    )


async def test_no_such_conference() -> None:
    async with rig() as play:
        stanza = jingle("session-initiate", AUDIO)
        stanza.set("to", f"nobody@{DOMAIN}/focus")
        play.take(stanza)
        assert (await play.acted(v.Action.SESSION_TERMINATE)).reason is not None


async def test_errors_that_jingle_demands() -> None:
    async with rig() as play:
        play.take(jingle("session-terminate", sid="unknown"))
        assert "<unknown-session" in play.condition()
        await play.answered()
        play.take(jingle("session-info", sender="bob@call.test/other", id="i2"))
        assert "<unknown-session" in play.condition()  # another device of his
        play.take(jingle("session-info", sender="eve@call.test/phone", id="i3"))
        assert "<unknown-session" in play.condition()
        play.take(jingle("session-accept", AUDIO, id="i4"))
        assert "<out-of-order" in play.condition()
        play.take(jingle("session-initiate", AUDIO, id="i5"))
        assert "<out-of-order" in play.condition()
        play.take(jingle("session-info", "<dance xmlns='urn:example'/>", id="i6"))
        assert "<unsupported-info" in play.condition()
        play.take(
            jingle("session-info", "<mute xmlns='urn:xmpp:jingle:apps:rtp:info:1' creator='x'/>")
        )
        assert "<bad-request" in play.condition()
        play.take(jingle("session-initiate", "", sid="s9"))
        assert "<bad-request" in play.condition()
        play.take(jingle("session-info", id="i7"))
        assert play.answers()[-1].get("type") == "result"  # a ping


async def test_nobody_calls_without_end() -> None:
    async with rig() as play:
        for number in range(MAX_CALLS_PER_PERSON):
            await play.answered(inner=AUDIO, sid=f"s{number}")
        play.take(jingle("session-initiate", AUDIO, sid="more"))
        assert "<resource-constraint" in play.condition()
        play.take(ring("propose", PROPOSED, sid="again"))
        assert "<busy" in serialize(play.wire.sent[-1])


async def test_mute_travels_both_ways() -> None:
    async with rig() as play:
        leg = await play.answered()
        audio = play.house.of(Publish)[0]
        mute = "<mute xmlns='urn:xmpp:jingle:apps:rtp:info:1' creator='initiator' name='audio'/>"
        play.take(jingle("session-info", mute, id="i2"))
        await until(lambda: play.house.of(SetMuted) == [SetMuted(leg, audio.track, True)])
        by = Actor(Account(Network.MATRIX, "@m:hs"), Role.OWNER, "M")
        track = Track(
            audio.track, leg, TrackKind.AUDIO, TrackSource.MICROPHONE, muted=True, forced=True
        )
        play.calls.event(TrackMuted(play.house.legs[0], track, False, by))
        told = await play.acted(v.Action.SESSION_INFO)
        assert told.info == v.Info(v.InfoKind.MUTE, "audio", v.Party.INITIATOR)
        # Lifting one's own mute while held shut: the conference refuses, the display is put right.
        play.house.refuse = lambda c: Refused("held") if isinstance(c, SetMuted) else None
        play.take(jingle("session-info", mute.replace("mute", "unmute"), id="i3"))
        await until(lambda: len(play.actions()) == 3)
        assert len(play.calls) == 1


async def test_video_held_back_for_want_of_bandwidth_is_shown_as_muted_by_us() -> None:
    async with rig() as play:
        leg = await play.answered()
        play.calls.signal(leg, StreamPaused(leg, TrackId("TR_x"), True))
        told = await play.acted(v.Action.SESSION_INFO)
        assert told.info == v.Info(v.InfoKind.MUTE, "video", v.Party.INITIATOR)
        play.calls.signal(leg, StreamPaused(leg, TrackId("TR_y"), False))
        await until(lambda: len(play.actions()) == 3)
        told = play.actions()[-1]
        assert told.info == v.Info(v.InfoKind.UNMUTE, "video", v.Party.INITIATOR)


async def test_the_end_is_told_with_its_reason() -> None:
    reasons = {
        LeaveReason.REMOVED: "gone",
        LeaveReason.ENDED: "success",
        LeaveReason.REPLACED: "alternative-session",
    }
    for reason, condition in reasons.items():
        async with rig() as play:
            await play.answered()
            play.calls.event(Left(play.house.legs[0], reason, True))
            ended = await play.acted(v.Action.SESSION_TERMINATE)
            assert ended.reason == v.Reason(condition)
            await until(lambda play=play: len(play.calls) == 0)
            assert play.house.of(Leave) == []  # the conference knows


@pytest.mark.parametrize(
    ("why", "condition", "reason"),
    [
        ("lost", "connectivity-error", LeaveReason.LOST),
        ("fingerprint", "security-error", LeaveReason.FAILED),
        ("failed", "failed-transport", LeaveReason.FAILED),
        ("something new", "general-error", LeaveReason.FAILED),
    ],
)
async def test_the_worker_ends_a_session(why: str, condition: str, reason: LeaveReason) -> None:
    async with rig() as play:
        leg = await play.answered()
        play.calls.signal(leg, SessionOver(leg, why))
        ended = await play.acted(v.Action.SESSION_TERMINATE)
        assert ended.reason == v.Reason(condition)
        assert play.house.of(Leave) == [Leave(leg, reason)]


async def test_a_device_is_gone_only_when_presence_and_media_are() -> None:
    gone = xml(
        f"<presence xmlns='jabber:client' type='unavailable' from='{BOB}' to='{FOCUS}/focus'/>"
    )
    async with rig() as play:
        leg = await play.answered()
        play.take(gone)
        await asyncio.sleep(0.02)
        assert play.house.of(Leave) == []
        play.calls.signal(leg, SessionSilent(leg))
        await until(lambda: play.house.of(Leave) == [Leave(leg, LeaveReason.LOST)])


async def test_a_camera_switched_on_later_is_accepted_and_a_second_one_is_not() -> None:
    async with rig() as play:
        leg = await play.answered(inner=AUDIO)
        play.take(jingle("content-add", VIDEO, id="i2"))
        accept = await play.acted(v.Action.CONTENT_ACCEPT)
        assert [c.name for c in accept.contents] == ["video"]
        assert [p.kind for p in play.house.of(Publish)] == [TrackKind.AUDIO, TrackKind.VIDEO]
        assert [s.mid for s in play.house.media.described[-1].sections] == ["audio", "video"]
        play.take(jingle("content-add", content("screen", "video", VP8), id="i3"))
        reject = await play.acted(v.Action.CONTENT_REJECT)
        assert [c.name for c in reject.contents] == ["screen"]
        video = play.house.of(Publish)[1].track
        play.take(jingle("content-remove", "<content creator='initiator' name='video'/>", id="i4"))
        await until(lambda: play.house.of(Unpublish) == [Unpublish(leg, video)])
        assert len(play.calls) == 1


async def test_candidates_reach_the_worker_and_new_credentials_restart_ice() -> None:
    async with rig() as play:
        await play.answered(inner=AUDIO)
        candidate = (
            "<candidate component='1' foundation='1' ip='192.0.2.1' port='1' priority='1' protocol='udp'"
            " type='host'/>"
        )
        rtcp = candidate.replace("component='1'", "component='2'")
        old = "ufrag='abcd' pwd='abcdefghijklmnopqrstuvwx'"
        for number, transport in enumerate((old + f">{rtcp}", old + f">{candidate}")):
            inner = (
                "<content creator='initiator' name='audio'>"
                f"<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' {transport}</transport></content>"
            )
            play.take(jingle("transport-info", inner, id=f"t{number}"))
        await until(lambda: play.house.media.calls.count("candidates") == 1)
        fresh = (
            "<content creator='initiator' name='audio'><transport "
            "xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='fresh' pwd='zyxwvutsrqponmlkjihgfe'/></content>"
        )
        play.take(jingle("transport-info", fresh, id="t9"))
        answer = await play.acted(v.Action.TRANSPORT_INFO)
        assert answer.contents[0].transport is not None
        offered = play.house.media.described[-1].sections[0].transport
        assert offered.ufrag == "fresh"
        assert offered.fingerprints[0].value == MARK  # DTLS is kept
        play.take(jingle("transport-replace", fresh, id="t10"))
        await play.acted(v.Action.TRANSPORT_REJECT)


async def test_a_description_the_worker_refuses_ends_the_call() -> None:
    async with rig() as play:
        play.house.media.fault = sd.Malformed("no common codec")
        play.take(jingle("session-initiate", AUDIO))
        ended = await play.acted(v.Action.SESSION_TERMINATE)
        assert ended.reason == v.Reason("failed-application")
        assert [type(c).__name__ for c in play.house.submitted] == ["Join", "Publish", "Leave"]


async def test_no_worker_no_call() -> None:
    async with rig() as play:
        play.house.media.fault = Unavailable("The media worker is away; try again.")
        play.take(jingle("session-initiate", AUDIO))
        ended = await play.acted(v.Action.SESSION_TERMINATE)
        assert ended.reason == v.Reason("general-error", "The media worker is away; try again.")


# --- we call --------------------------------------------------------------------------------------------


def asks(features: str) -> Element:
    return xml(
        "<iq xmlns='jabber:client' type='result'><query xmlns='http://jabber.org/protocol/disco#info'>"
        f"{features}</query></iq>"
    )


@pytest.mark.parametrize(
    ("features", "profile"),
    [
        ("", profiles.DINO),
        ("<feature var='urn:xmpp:jingle:apps:grouping:0'/>", profiles.XMPP_BUNDLE),
    ],
)
async def test_we_ring_and_call_whoever_picks_up(features: str, profile: sd.Profile) -> None:
    async with rig() as play:
        play.wire.answer = lambda iq: (
            asks(features) if iq.get("type") == "get" else Element("{jabber:client}iq")
        )
        play.calls.dial(CONFERENCE, parse_jid("bob@call.test"))
        await until(lambda: play.wire.sent)
        propose = play.wire.sent[0]
        assert propose.get("to") == "bob@call.test"
        node = propose[0]
        sid = node.get("id", "")
        assert [d.get("media") for d in node] == ["audio", "video"]
        play.take(ring("ringing", sid=sid), ring("proceed", sid=sid, to=f"{FOCUS}/focus"))
        initiate = await play.acted(v.Action.SESSION_INITIATE)
        assert play.house.media.profile == profile
        assert play.house.media.calls == ["open", "make_offer", "expect 0", "expect 1"]
        assert bool(initiate.bundle) is profile.bundle
        assert play.house.of(Publish) == []
        one = content("0", "audio", OPUS)
        play.take(jingle("session-accept", one, sid=sid))
        await until(lambda: play.house.of(Publish))
        assert [p.kind for p in play.house.of(Publish)] == [TrackKind.AUDIO]
        answer = play.house.media.described[-1]
        assert [(s.mid, s.rejected) for s in answer.sections] == [("0", False), ("1", True)]


async def test_nobody_picks_up_or_somebody_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "RING_S", 0.05)
    async with rig() as play:
        play.calls.dial(CONFERENCE, parse_jid("bob@call.test"))
        await until(lambda: len(play.wire.sent) == 2)
        assert "<retract" in serialize(play.wire.sent[1])
        await until(lambda: len(play.calls) == 0)
        monkeypatch.setattr(call, "RING_S", 5.0)
        play.calls.dial(CONFERENCE, parse_jid("bob@call.test"))
        await until(lambda: len(play.wire.sent) == 3)
        sid = play.wire.sent[2][0].get("id", "")
        play.take(ring("reject", sid=sid, to=f"{FOCUS}/focus"))
        await until(lambda: len(play.calls) == 0)
        assert play.house.submitted == []


async def test_both_call_at_once_and_one_call_stands() -> None:
    async with rig() as play:
        play.calls.dial(CONFERENCE, parse_jid("bob@call.test"))
        await until(lambda: play.wire.sent)
        play.take(jingle("session-initiate", AUDIO, sid="zzzz"))
        assert "<tie-break" in play.condition()
        play.take(jingle("session-initiate", AUDIO, sid="!"))  # lower than any of ours
        await play.acted(v.Action.SESSION_ACCEPT)
        await until(lambda: len(play.calls) == 1)


# --- after a restart ------------------------------------------------------------------------------------


async def saved_leg(*, alive: bool = True) -> SavedLeg:
    async with rig() as play:
        leg = await play.answered()
        return SavedLeg(
            CONFERENCE,
            make_leg(play.house.of(Join)[0]),
            play.house.store.saved[leg],
            (leg,),
            alive,
        )


async def test_a_call_goes_on_after_a_restart() -> None:
    saved = await saved_leg()
    async with rig((saved,)) as play:
        play.take(jingle("content-add", content("more", "video", VP8), id="i1"))
        await play.acted(v.Action.CONTENT_REJECT)  # it still knows that there is a camera
        mute = "<mute xmlns='urn:xmpp:jingle:apps:rtp:info:1' name='audio'/>"
        play.take(jingle("session-info", mute, id="i2"))
        await until(lambda: play.house.of(SetMuted))
        play.take(jingle("session-terminate", id="i3"))
        await until(lambda: play.house.of(Leave) == [Leave(saved.leg.id, LeaveReason.LEFT)])


@pytest.mark.parametrize(
    "state", [{"version": 99}, {"version": 1}, {"version": 1, "me": "@", "parts": 3}]
)
async def test_a_state_we_cannot_read_ends_the_leg(state: dict[str, object]) -> None:
    saved = replace(await saved_leg(), wire_state=state)
    async with rig((saved,)) as play:
        await until(lambda: play.house.of(Leave) == [Leave(saved.leg.id, LeaveReason.LOST)])


async def test_a_leg_whose_media_died_is_ended_and_its_peer_told() -> None:
    saved = await saved_leg(alive=False)
    async with rig((saved,)) as play:
        await until(lambda: play.house.of(Leave) == [Leave(saved.leg.id, LeaveReason.LOST)])
        await until(lambda: "session-terminate" in play.wire.text())


async def test_a_peer_that_knows_nothing_of_the_session_is_not_told_twice() -> None:
    async with rig() as play:

        def answer(iq: Element) -> Element:
            raise RequestFailed("item-not-found")

        play.wire.answer = answer
        play.take(jingle("session-initiate", AUDIO))
        await until(lambda: play.house.of(Leave))
        await until(lambda: len(play.calls) == 0)
        assert [one.action for one in play.actions()] == [v.Action.SESSION_ACCEPT]
