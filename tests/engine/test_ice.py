"""The built module as an ICE peer: RFC 8445 answers, RFC 7675 consent, restarts, moves (S5).

Long timers (30 s of consent) are proved on virtual time in engine/core/src/ice/tests.rs.
"""

import asyncio
import time
from collections.abc import Iterator

import aioice
import pytest

from tests.adversary.media import (
    CONTROLLED,
    CONTROLLING,
    INDICATION,
    QUIET_S,
    REQUEST,
    SILENCE,
    SUCCESS,
    USE_CANDIDATE,
    USERNAME,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    is_stun,
    parse_stun,
    rig,
    stun,
    until,
)


@pytest.fixture(params=[1, 4], ids=["one shard", "four shards"])
def under_test(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(shards=request.param) as one:
        yield one


def test_a_check_is_answered_with_our_address_and_signed(under_test: Rig) -> None:
    peer = Peer(under_test)
    answer = peer.check()
    assert answer.kind == SUCCESS
    assert answer.mapped == peer.wire.name
    assert answer.is_signed_with(peer.server.pwd)
    under_test.wait_for("validated", peer.transport)


def test_both_families_share_one_port_number() -> None:
    with rig(["127.0.0.1", "::1"]) as both:
        peer = Peer(both)
        peer.wire = Wire(("::1", both.engine.port))
        answer = peer.check()
        assert answer.mapped == peer.wire.name


def test_a_reply_leaves_from_the_address_the_request_came_to() -> None:
    """A wildcard socket on a host with several addresses: the client's socket is connected to 127.0.0.5."""
    with rig(["0.0.0.0"]) as wildcard:
        peer = Peer(wildcard)
        peer.wire = Wire(("127.0.0.5", wildcard.engine.port))
        assert peer.check().kind == SUCCESS


def test_validated_is_told_once(under_test: Rig) -> None:
    peer = Peer(under_test)
    for _ in range(5):
        peer.check()
    assert len(under_test.find("validated", peer.transport)) == 1


def test_a_controlled_peer_of_ours_is_nominated_once_and_at_once(under_test: Rig) -> None:
    peer = Peer(under_test, offered_by_us=True, role=CONTROLLED)
    assert peer.check().kind == SUCCESS
    until(lambda: peer.asked or peer.receive(0.1) is None, "triggered check")
    ask = peer.asked[0]
    assert USE_CANDIDATE in ask.attributes
    assert CONTROLLING in ask.attributes
    assert ask.attributes[USERNAME] == f"{peer.client.ufrag}:{peer.server.ufrag}".encode()
    assert ask.is_signed_with(peer.client.pwd)
    peer.check()
    assert not [a for a in peer.asked[1:] if USE_CANDIDATE in a.attributes]


def test_a_peer_that_offered_is_not_nominated(under_test: Rig) -> None:
    peer = Peer(under_test, offered_by_us=False, role=CONTROLLED)
    peer.check()
    assert peer.receive(QUIET_S) == SILENCE


def test_nomination_waits_for_the_credentials(under_test: Rig) -> None:
    """The peer's first check may overtake its answer."""
    server, client = Credentials.fresh(), Credentials.fresh()
    transport = under_test.engine.open_transport(
        local_ufrag=server.ufrag, local_pwd=server.pwd, offered_by_us=True
    )
    wire = Wire(under_test.address)
    wire.send(check(server, client, role=CONTROLLED))
    assert parse_stun(wire.receive()).kind == SUCCESS
    assert wire.receive(QUIET_S) == SILENCE
    under_test.engine.set_remote(transport, ufrag=client.ufrag, pwd=client.pwd)
    ask = parse_stun(wire.receive())
    assert ask.kind == REQUEST
    assert ask.is_signed_with(client.pwd)


def test_silent_after_five_seconds_and_heard_again(under_test: Rig) -> None:
    """The engine asks before it complains; a peer that answers is never silent."""
    deaf, answering = Peer(under_test), Peer(under_test)
    deaf.check(nominate=True)
    answering.check(nominate=True)
    end = time.monotonic() + 5.6
    while time.monotonic() < end:
        answering.receive(0.1)
    assert answering.asked
    under_test.wait_for("silent", deaf.transport)
    assert not under_test.find("silent", answering.transport)
    deaf.check()
    under_test.wait_for("heard", deaf.transport)


def test_an_indication_is_no_sign_of_life(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.check()
    end = time.monotonic() + 5.6
    while time.monotonic() < end:
        peer.wire.send(stun(INDICATION, pwd=peer.server.pwd))
        time.sleep(0.2)
    under_test.wait_for("silent", peer.transport)


def test_after_a_restart_both_ufrags_answer_and_the_old_pair_still_sends(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.check(nominate=True)
    old = peer.server
    new = peer.restarted()
    under_test.engine.restart_ice(peer.transport, local_ufrag=new.ufrag, local_pwd=new.pwd)
    peer.settle()
    under_test.engine.send_datagram(peer.transport, b"\x16still the old pair")
    assert peer.receive() == b"\x16still the old pair"
    moved = Wire(under_test.address)
    moved.send(check(new, Credentials.fresh(), nominate=True))
    assert parse_stun(moved.receive()).kind == SUCCESS
    under_test.engine.send_datagram(peer.transport, b"\x16now the new one")
    assert moved.receive() == b"\x16now the new one"
    peer.server = old
    assert peer.check().kind == SUCCESS


def test_media_follows_the_nomination_but_not_a_plain_check(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.check(nominate=True)
    old = peer.move()
    peer.check(nominate=False)
    under_test.engine.send_datagram(peer.transport, b"\x16one")
    assert old.receive() == b"\x16one"
    peer.check(nominate=True)
    under_test.engine.send_datagram(peer.transport, b"\x16two")
    assert peer.receive() == b"\x16two"


def test_a_rebound_port_of_a_controlled_peer_is_followed(under_test: Rig) -> None:
    """R9 without a nomination from the peer."""
    peer = Peer(under_test, offered_by_us=True, role=CONTROLLED)
    peer.check()
    peer.move()
    peer.check()
    under_test.engine.send_datagram(peer.transport, b"\x16here")
    assert until(lambda: not is_stun(d := peer.receive()) and d, "datagram") == b"\x16here"


def test_dtls_is_answered_where_it_came_from(under_test: Rig) -> None:
    """Chromium nominates several pairs before it settles; its ClientHello tells the right one."""
    peer = Peer(under_test)
    peer.check(nominate=True)
    first = peer.move()
    peer.check(nominate=True)
    first.send(b"\x16hello")
    assert under_test.wait_for("datagram", peer.transport) == b"\x16hello"
    under_test.engine.send_datagram(peer.transport, b"\x16flight")
    assert first.receive() == b"\x16flight"


def test_a_closed_transport_answers_nobody(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.check()
    under_test.engine.close_transport(peer.transport)
    other = Peer(under_test)
    other.check()  # the close is done when this is answered
    peer.wire.send(check(peer.server, peer.client))
    peer.wire.send(b"\x16hello")
    assert peer.receive(QUIET_S) == SILENCE
    assert not under_test.find("datagram", peer.transport)


def test_nonsense_arguments_are_refused(under_test: Rig) -> None:
    engine = under_test.engine
    good = {"local_ufrag": "abcd", "local_pwd": "a" * 22, "offered_by_us": False}
    for bad in ({"local_ufrag": "abc"}, {"local_pwd": "a" * 21}, {"local_ufrag": "a:cd"}):
        with pytest.raises(ValueError, match="ufrag"):
            engine.open_transport(**(good | bad))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="material"):
        engine.set_keys(1, profile=7, material=b"short", is_client=False)
    with pytest.raises(ValueError, match="profile"):
        engine.set_keys(1, profile=2, material=bytes(56), is_client=False)
    with pytest.raises(ValueError, match="datagram"):
        engine.send_datagram(1, b"")
    engine.close_transport(12345)  # gone or never there: silently ignored


def test_a_taken_port_is_an_oserror(under_test: Rig) -> None:
    from sfu import _engine

    with pytest.raises(OSError, match="in use"):
        _engine.Engine(listen=["127.0.0.1"], port=under_test.engine.port)


def test_more_addresses_than_a_thread_can_wait_for_are_refused() -> None:
    from sfu import _engine

    with pytest.raises(ValueError, match="1 to 31"):
        _engine.Engine(listen=[f"127.0.0.{number}" for number in range(1, 33)], port=0)


async def test_aioice_connects_as_a_full_agent() -> None:
    """An independent implementation, controlling, with checks of its own."""
    agent = aioice.Connection(ice_controlling=True, components=1, use_ipv6=False)
    await agent.gather_candidates()
    host = agent.local_candidates[0].host
    try:
        with rig([host]) as one:
            server = Credentials.fresh()
            transport = one.engine.open_transport(
                local_ufrag=server.ufrag, local_pwd=server.pwd, offered_by_us=False
            )
            one.engine.set_remote(transport, ufrag=agent.local_username, pwd=agent.local_password)
            agent.remote_username, agent.remote_password = server.ufrag, server.pwd
            line = f"1 1 udp 2130706431 {host} {one.engine.port} typ host"
            await agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
            await agent.add_remote_candidate(None)
            async with asyncio.timeout(10):
                await agent.connect()
                await agent.send(b"\x16hello")
                await asyncio.to_thread(one.wait_for, "datagram", transport)
                one.engine.send_datagram(transport, b"\x16world")
                assert await agent.recv() == b"\x16world"
            assert one.find("validated", transport) == [None]
            await agent.close()
    finally:
        await agent.close()
