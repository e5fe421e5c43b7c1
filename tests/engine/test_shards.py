"""Several data-plane threads on one port: sessions from many sources, rooms over all threads, restarts, connections.

Which shard is whose, and the rings, are proved in engine/core/src/plane/abroad_tests.rs and engine/io/src/relay.rs.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversary.media import (
    QUIET_S,
    SILENCE,
    SUCCESS,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    parse_stun,
    publish_audio,
    rig,
    rtp,
    subscribe_audio,
    until,
)
from tests.adversary.tcp import StreamWire

SHARDS = 4
SSRC = 0x0A0A0A0A


@pytest.fixture
def under_test() -> Iterator[Rig]:
    with rig(shards=SHARDS) as one:
        yield one


def everywhere(under_test: Rig) -> list[Peer]:
    """A peer in each shard."""
    return [Peer(under_test, server=under_test.credentials(home)) for home in range(SHARDS)]


def listeners(under_test: Rig, publication: int) -> list[Peer]:
    """In each shard somebody who hears this."""
    peers = [peer.connect() for peer in everywhere(under_test)]
    for peer in peers:
        subscribe_audio(peer, publication, 77)
    peers[0].settle()
    return peers


def heard(peer: Peer, count: int) -> list[bytes]:
    return [peer.receive_rtp()[12:] for _ in range(count)]


def threads() -> dict[str, set[int]]:
    """Our data-plane threads and the CPUs that they may use."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("parley-engine"):
            found[name] = os.sched_getaffinity(int(task.name))
    return found


def test_each_shard_is_a_thread_of_its_own_on_its_own_cpu() -> None:
    usable = sorted(os.sched_getaffinity(0))
    with rig(shards=SHARDS) as one:
        Peer(one).check()
        found = threads()
        assert sorted(found) == [f"parley-engine-{number}" for number in range(SHARDS)]
        for number in range(SHARDS):
            assert found[f"parley-engine-{number}"] == {usable[number % len(usable)]}
    with rig() as alone:
        Peer(alone).check()
        assert threads() == {"parley-engine": set(usable)}
    with rig(shards=0) as one:
        assert one.engine.shards == len(usable)


def test_one_session_from_eight_sources_reaches_all_shards_and_loses_nothing(
    under_test: Rig,
) -> None:
    """The kernel spreads the sources over the sockets; the session stays one, and so does its order."""
    ann = Peer(under_test).connect()
    publication = publish_audio(ann, SSRC)
    peers = listeners(under_test, publication)
    wires = [ann.wire, *(Wire(under_test.address) for _ in range(7))]
    for wire in wires:
        ann.wire = wire
        assert ann.check().kind == SUCCESS
    ann.send_rtp(rtp(SSRC, 0, b"the first"))  # a stream begins with what comes first
    for peer in peers:
        assert heard(peer, 1) == [b"the first"]
    sent = []
    for sequence in range(1, 400):
        ann.wire = wires[sequence % 8]
        sent.append(b"packet %d" % sequence)
        ann.send_rtp(rtp(SSRC, sequence, sent[-1]))
        if sequence % 10 == 9:
            time.sleep(0.002)  # sources that speak at once overtake each other, here as anywhere
    for peer in peers:
        assert sorted(heard(peer, len(sent))) == sorted(sent)
    # Once per packet and shard, however many sources there are.
    assert under_test.wait_for_counter("relays", 0, "relayed", 1_200) == 1_200
    under_test.wait_for_counter("relays", 0, "passed_on", 1)
    drops = under_test.counters("drops")
    assert {name: drops[name] for name in ("unvalidated", "unknown_ufrag", "relay_full")} == {
        "unvalidated": 0,
        "unknown_ufrag": 0,
        "relay_full": 0,
    }


@pytest.mark.parametrize("home", range(SHARDS))
def test_a_restart_keeps_its_shard_and_its_media(under_test: Rig, home: int) -> None:
    ann = Peer(under_test, server=under_test.credentials(home)).connect()
    peers = listeners(under_test, publish_audio(ann, SSRC))
    other = under_test.credentials((home + 1) % SHARDS)
    with pytest.raises(ValueError, match="another shard"):
        under_test.engine.restart_ice(ann.transport, local_ufrag=other.ufrag, local_pwd=other.pwd)
    new = ann.restarted()
    under_test.engine.restart_ice(ann.transport, local_ufrag=new.ufrag, local_pwd=new.pwd)
    ann.settle()
    ann.send_rtp(rtp(SSRC, 1, b"before"))
    ann.wire = Wire(under_test.address)
    ann.wire.send(check(new, Credentials.fresh(), nominate=True))
    assert parse_stun(ann.wire.receive()).kind == SUCCESS
    ann.send_rtp(rtp(SSRC, 2, b"after"))
    for peer in peers:
        assert heard(peer, 2) == [b"before", b"after"]


def test_everybody_hears_everybody_across_shards(under_test: Rig) -> None:
    peers = [peer.connect() for peer in everywhere(under_test)]
    tracks = [publish_audio(peer, 100 + at) for at, peer in enumerate(peers)]
    for at, peer in enumerate(peers):
        for of, track in enumerate(tracks):
            if of != at:
                subscribe_audio(peer, track, 1_000 + of)
    peers[0].settle()
    for sequence in range(1, 21):
        for at, peer in enumerate(peers):
            peer.send_rtp(rtp(100 + at, sequence, b"%d says %d" % (at, sequence)))
    for at, peer in enumerate(peers):
        expected = [b"%d says %d" % (of, n) for of in range(4) if of != at for n in range(1, 21)]
        assert sorted(heard(peer, len(expected))) == sorted(expected)


def test_the_gate_and_the_end_hold_in_every_shard(under_test: Rig) -> None:
    ann = Peer(under_test).connect()
    publication = publish_audio(ann, SSRC)
    peers = listeners(under_test, publication)
    under_test.engine.set_gate(publication, False)
    ann.settle()
    ann.send_rtp(rtp(SSRC, 1, b"muted"))
    ann.settle()  # it was read
    under_test.engine.set_gate(publication, True)
    ann.settle()
    ann.send_rtp(rtp(SSRC, 2, b"heard"))
    for peer in peers:
        assert heard(peer, 1) == [b"heard"]
    under_test.engine.unpublish(publication)
    ann.settle()
    ann.send_rtp(rtp(SSRC, 3, b"over"))
    for peer in peers:
        assert peer.receive_rtp(QUIET_S) == SILENCE


def test_a_closed_transport_is_closed_for_all_sources(under_test: Rig) -> None:
    ann = Peer(under_test).connect()
    peers = listeners(under_test, publish_audio(ann, SSRC))
    under_test.engine.close_transport(ann.transport)
    peers[0].settle()
    for _ in range(8):
        ann.wire.send(check(ann.server, ann.client))
        ann.move()
    assert ann.receive(QUIET_S) == SILENCE
    until(lambda: under_test.counters("drops")["unknown_ufrag"] == 8, "eight checks for nobody")


@pytest.mark.parametrize("home", range(SHARDS))
def test_a_connection_goes_to_the_shard_that_its_first_check_names(
    under_test: Rig, home: int
) -> None:
    ann = Peer(under_test, server=under_test.credentials(home))
    ann.wire = StreamWire(under_test.address)
    ann.connect()
    peers = listeners(under_test, publish_audio(ann, SSRC))
    back = publish_audio(peers[0], 200)
    subscribe_audio(ann, back, 78)
    peers[0].settle()
    for sequence in range(1, 31):
        ann.send_rtp(rtp(SSRC, sequence, b"%d" % sequence))
        peers[0].send_rtp(rtp(200, sequence, b"%d" % sequence))
    expected = [b"%d" % sequence for sequence in range(1, 31)]
    for peer in (*peers, ann):
        assert heard(peer, 30) == expected
    # On its way it may be in two reports.
    until(lambda: under_test.counters("connections").get("open") == 1, "one connection")
    ann.wire.close()
    until(lambda: under_test.counters("connections").get("open") == 0, "the end")


def test_strangers_by_the_thousand_do_not_stop_media(under_test: Rig) -> None:
    """Random ufrags lead everywhere; each travels once at most and leaves nothing behind."""
    ann = Peer(under_test).connect()
    peers = listeners(under_test, publish_audio(ann, SSRC))
    strangers = [Wire(under_test.address) for _ in range(8)]
    client = Credentials.fresh()
    flood = [check(Credentials.fresh(), client) for _ in range(100)]
    for sequence in range(1, 101):
        ann.send_rtp(rtp(SSRC, sequence, b"%d" % sequence))
        for wire in strangers:
            for datagram in flood[:20]:
                wire.send(datagram)
        for peer in peers:
            assert heard(peer, 1) == [b"%d" % sequence]
    assert all(wire.receive(0) == SILENCE for wire in strangers)
    drops = under_test.counters("drops")
    assert drops["relay_full"] == 0


def test_a_panic_in_one_shard_costs_nobody_in_another(under_test: Rig) -> None:
    """S15, over shards."""
    ann = Peer(under_test).connect()
    peers = listeners(under_test, publish_audio(ann, SSRC))
    victims = everywhere(under_test)
    for victim in victims:
        victim.connect()
    for sequence, victim in enumerate(victims, 1):
        under_test.panics += 1
        under_test.engine.fail_deliberately(victim.transport)
        under_test.wait_for("expired", victim.transport)
        ann.send_rtp(rtp(SSRC, sequence, b"%d" % sequence))
        for peer in peers:
            assert heard(peer, 1) == [b"%d" % sequence]
    assert under_test.wait_for_counter("drops", 0, "panics", SHARDS) == SHARDS


def test_levels_of_all_shards_are_told(under_test: Rig) -> None:
    """Each shard reports whom it hears; together that is everybody."""
    peers = [peer.connect() for peer in everywhere(under_test)]
    tracks = {publish_audio(peer, 100 + at) for at, peer in enumerate(peers)}
    peers[0].settle()
    speech = b"\xf8" + bytes(range(1, 100))  # Opus, CELT: sound of some kind
    sequence = iter(range(1, 60_000))

    def is_everybody_told() -> bool:
        now = next(sequence)
        for at, peer in enumerate(peers):
            peer.send_rtp(rtp(100 + at, now, speech))
        lists = [levels for levels in under_test.find("levels", 1) if isinstance(levels, list)]
        return {heard[0] for levels in lists for heard in levels} == tracks

    until(is_everybody_told, "a level of everybody")
