"""S14: suites, fingerprints, and handshakes that are begun and never finished.

A wrong fingerprint against the running worker: tests/sfu/test_live.py; the outcomes of an association:
tests/sfu/test_dtls.py; that a handshake which is begun and not finished in time ends its transport (each budget of
`sfu.transport`): `test_every_stage_has_its_budget` of tests/sfu/test_transport.py. Here: that the time is five seconds.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from sfu import protocol
from sfu.description import Fingerprint
from sfu.dtls import Association, Certificate, Outcome
from sfu.transport import HANDSHAKE_S
from tests.adversary.media import Keys, Peer, Rig, client_hello, rig, until
from tests.sfu.live import owner, peer, with_wrong_fingerprint, worker

HALF_OPEN = 64
OFFERED = [  # golden: ECDHE with AEAD, nothing else
    0xC02B,
    0xC02F,
    0xCCA9,
    0xCCA8,
    0xC02C,
    0xC030,
]
WRONG = (Fingerprint("sha-256", ":".join(["00"] * 32)),)


def suites(hello: bytes) -> list[int]:
    at = 13 + 12 + 2 + 32  # record, handshake header, version, random
    at += 1 + hello[at]  # session id
    at += 1 + hello[at]  # cookie
    (size,) = struct.unpack("!H", hello[at : at + 2])
    return list(struct.unpack(f"!{size // 2}H", hello[at + 2 : at + 2 + size]))


def test_a_handshake_has_five_seconds() -> None:
    assert HANDSHAKE_S == 5.0


def test_the_suites_we_offer_are_these() -> None:
    client = Association(Certificate(), is_client=True, fingerprints=WRONG)
    client.start()
    assert suites(client.outgoing()[0]) == OFFERED


@pytest.mark.parametrize(
    "weak",
    [b"ECDHE-ECDSA-AES128-SHA", b"AES128-GCM-SHA256", b"NULL-SHA", b"ECDHE-ECDSA-NULL-SHA"],
)
def test_a_peer_with_weak_suites_only_gets_no_connection(weak: bytes) -> None:
    ours = Certificate()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_cipher_list(weak + b":@SECLEVEL=0")
    client = SSL.Connection(context)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server = Association(ours, is_client=False, fingerprints=WRONG)
    server.receive(client.bio_read(4_096))
    assert server.outcome is Outcome.HANDSHAKING
    assert server.resets == 1


@pytest.fixture
def one(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as under_test:
        yield under_test


def test_a_source_has_sixty_four_handshakes_in_the_air(one: Rig) -> None:
    peers = [Peer(one) for _ in range(HALF_OPEN + 4)]
    for each in peers:
        each.check(nominate=True)
        each.wire.send(client_hello())
        each.check()  # so that the datagrams are counted in this order
    begun = [each for each in peers if one.find("datagram", each.transport)]
    assert begun == peers[:HALF_OPEN]
    assert one.wait_for_counter("drops", 0, "half_open", 4) == 4

    keys = Keys()
    finished, late = peers[0], peers[-1]
    one.engine.set_keys(
        finished.transport, profile=keys.profile, material=keys.material, is_client=False
    )
    finished.check()
    late.wire.send(client_hello())
    one.wait_for("datagram", late.transport)

    one.engine.close_transport(peers[1].transport)
    later = peers[-2]
    later.check()

    def repeated() -> list[
        object
    ]:  # the place is free when the other one's shard knows; DTLS repeats itself
        later.wire.send(client_hello())
        return one.find("datagram", later.transport)

    until(repeated, "a free place")


async def test_no_media_without_the_signalled_certificate(tmp_path: Path, shards: int) -> None:
    running = worker(tmp_path, shards)
    async with running as options, owner(options) as own, peer(own, "eve") as eve:
        eve.pc.createDataChannel("x")
        await eve.offer(with_wrong_fingerprint)
        await own.see(lambda e: e == protocol.Closed("eve", "fingerprint"))
        assert protocol.Connected("eve") not in own.seen
        assert not [e for e in own.seen if isinstance(e, protocol.ChannelOpened)]
