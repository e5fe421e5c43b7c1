"""Two connections (`/rtc`): we offer what goes down, one offer at a time."""

from livekit.protocol import models, rtc

from bridge.gateway import NegotiationWanted
from sfu import sdp
from sfu.description import DescriptionType, Direction, MediaKind
from tests.gateways.livekit.rig import Client, Rig, eventually, offer_text, section


def _answer(offer: rtc.SessionDescription, number: int | None = None) -> rtc.SessionDescription:
    return rtc.SessionDescription(
        type="answer", sdp=offer.sdp, id=offer.id if number is None else number
    )


async def _joined(rig: Rig) -> tuple[Client, rtc.SessionDescription]:
    client = await rig.dual("alice")
    join = await client.until("join")
    assert join.subscriber_primary
    return client, await client.until("offer")


async def test_the_subscriber_connection_is_offered_with_our_channels(rig: Rig) -> None:
    client, offer = await _joined(rig)
    sid = rig.leg("alice").id
    assert rig.media.of("open") == [(f"{sid}.sub", "livekit-subscriber", True, True)]
    labels = {
        c.label: (c.ordered, c.max_retransmits) for c in rig.media.profiles[f"{sid}.sub"].channels
    }
    assert labels == {"_reliable": (True, None), "_lossy": (False, 0)}
    assert sdp.parse(offer.sdp, DescriptionType.OFFER).sections[0].kind is MediaKind.APPLICATION
    await client.send(answer=_answer(offer))
    await eventually(lambda: len(rig.media.of("answer")) == 1)


async def test_never_two_offers_outstanding(rig: Rig) -> None:
    client, offer = await _joined(rig)
    leg = rig.leg("alice")
    wanted = NegotiationWanted(f"{leg.id}.sub", 1, 0, True)
    rig.signal(wanted, leg)
    rig.signal(wanted, leg)
    await client.send(ping=1)
    await client.until("pong")
    assert client.kinds().count("offer") == 1
    rig.media.placed = {"1": ("PA_b|camera", "TR_b")}
    await client.send(answer=_answer(offer))
    second = await client.until("offer")
    assert second.id > offer.id
    assert dict(second.mid_to_track_id) == {"1": "TR_b"}
    await client.send(answer=_answer(second))
    await client.send(ping=1)
    await client.until("pong")
    assert client.kinds().count("offer") == 2


async def test_an_answer_to_an_older_offer_is_ignored(rig: Rig) -> None:
    client, offer = await _joined(rig)
    await client.send(answer=_answer(offer, offer.id + 7))
    await client.send(answer=_answer(offer, 0))  # no id: an older SDK
    await eventually(lambda: len(rig.media.of("answer")) == 1)


async def test_the_publisher_connection_opens_when_the_client_publishes(rig: Rig) -> None:
    client, _ = await _joined(rig)
    sid = rig.leg("alice").id
    info = await client.add_track("mic")
    assert rig.media.of("open")[1] == (f"{sid}.pub", "livekit-publisher", False, True)
    text = offer_text(section("0", MediaKind.AUDIO, Direction.SENDONLY, "mic"))
    await client.send(offer=rtc.SessionDescription(type="offer", sdp=text, id=1))
    assert (await client.until("answer")).id == 1
    assert rig.media.of("offer")[0][0] == f"{sid}.pub"
    assert rig.media.of("expect")[0][:2] == (f"{sid}.pub", info.sid)
    assert rig.legs.saved[sid]["publisher"] is True
    candidate = '{"candidate":"candidate:1 1 udp 1 192.0.2.1 5 typ host","sdpMid":"0"}'
    for target in (rtc.SignalTarget.PUBLISHER, rtc.SignalTarget.SUBSCRIBER):
        await client.send(trickle=rtc.TrickleRequest(candidateInit=candidate, target=target))
    await eventually(lambda: len(rig.media.of("candidates")) == 2)
    assert [call[0] for call in rig.media.of("candidates")] == [f"{sid}.pub", f"{sid}.sub"]


async def test_both_sessions_close_when_the_client_leaves(rig: Rig) -> None:
    client, _ = await _joined(rig)
    sid = rig.leg("alice").id
    await client.add_track("mic", type=models.TrackType.AUDIO)
    await client.send(leave=rtc.LeaveRequest())
    await eventually(lambda: len(rig.media.of("close")) == 2)
    assert {call[0] for call in rig.media.of("close")} == {f"{sid}.sub", f"{sid}.pub"}


async def test_a_resumed_client_gets_an_ice_restart(rig: Rig) -> None:
    client, offer = await _joined(rig)
    sid = rig.leg("alice").id
    await client.socket.close()
    again = await rig.dual("alice", reconnect="1", sid=sid)
    assert (await again.next()).WhichOneof("message") == "reconnect"
    restarted = await again.until("offer")
    assert restarted.id > offer.id
    assert rig.media.of("make_offer")[-1] == (f"{sid}.sub", True)


async def test_auto_subscribe_is_the_clients_choice(rig: Rig) -> None:
    client = await rig.dual("alice", auto_subscribe="0")
    await client.until("join")
    assert rig.media.of("open")[0][3] is False
