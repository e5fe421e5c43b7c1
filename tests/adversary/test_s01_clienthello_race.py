"""S1: the DTLS ClientHello race (CVE-2023-49786 and its kin; ASVS 17.2.6).

Fifty strangers flood the port with hostile ClientHellos while honest peers shake hands with real DTLS
(OpenSSL on both ends, through the engine). What is not from a validated 5-tuple never reaches DTLS.
"""

import datetime
import os
import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.adversary.media import (
    QUIET_S,
    SILENCE,
    WAIT_S,
    Credentials,
    Peer,
    Rig,
    Wire,
    check,
    client_hello,
    is_stun,
    rig,
)

STRANGERS = 50
HELLOS = 10_000
HANDSHAKES = 100


@pytest.fixture
def under_test(shards: int) -> Iterator[Rig]:
    with rig(shards=shards) as one:
        yield one


def _context() -> SSL.Context:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_privatekey(key)
    context.use_certificate(certificate)
    context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")
    return context


class End:
    """One DTLS end on a pair of memory buffers."""

    def __init__(self, context: SSL.Context, *, is_client: bool) -> None:
        self.tls = SSL.Connection(context, None)
        self.tls.set_ciphertext_mtu(1200)
        if is_client:
            self.tls.set_connect_state()
        else:
            self.tls.set_accept_state()
        self.is_done = False

    def feed(self, datagram: bytes) -> list[bytes]:
        """Take a datagram (or none), return what is to be sent."""
        if datagram:
            self.tls.bio_write(datagram)
        try:
            self.tls.do_handshake()
            self.is_done = True
        except SSL.WantReadError:
            pass
        flight: list[bytes] = []
        while True:
            try:
                flight.append(self.tls.bio_read(1500))
            except SSL.WantReadError:
                return flight


def shake_hands(under_test: Rig, context: SSL.Context) -> float:
    """Seconds from the first check to both ends done. Fails loudly after `WAIT_S`."""
    peer = Peer(under_test)
    client, server = End(context, is_client=True), End(context, is_client=False)
    started = time.perf_counter()
    peer.check(nominate=True)
    for datagram in client.feed(SILENCE):
        peer.wire.send(datagram)
    while not (client.is_done and server.is_done):
        assert time.perf_counter() - started < WAIT_S, "the handshake failed"
        for event, handle, detail in under_test.engine.poll():
            if (event, handle) == ("datagram", peer.transport):
                assert isinstance(detail, bytes)
                for datagram in server.feed(detail):
                    under_test.engine.send_datagram(peer.transport, datagram)
        datagram = peer.receive(0.002)
        if datagram and not is_stun(datagram):
            for answer in client.feed(datagram):
                peer.wire.send(answer)
    took = time.perf_counter() - started
    label = b"EXTRACTOR-dtls_srtp"
    assert client.tls.export_keying_material(label, 56) == server.tls.export_keying_material(
        label, 56
    )
    under_test.engine.close_transport(peer.transport)
    return took


def hostile_hellos() -> list[bytes]:
    """NULL cipher, wrong version, fragments that lie, a flipped cookie, and noise behind a DTLS first byte."""
    return [
        client_hello(),
        client_hello(version=0x0100),
        client_hello(suites=b"\xc0\x2b", fragment=7),
        client_hello(suites=os.urandom(64)),
        b"\x16" + os.urandom(200),
        b"\x3f" + os.urandom(40),
    ]


def test_a_hundred_handshakes_in_a_flood_of_hostile_hellos(under_test: Rig) -> None:
    context = _context()
    shake_hands(under_test, context)  # warm
    clean = [shake_hands(under_test, context) for _ in range(HANDSHAKES // 2)]
    strangers = [Wire(under_test.address) for _ in range(STRANGERS)]
    hellos = hostile_hellos()
    over = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        while not over.is_set() or sent < HELLOS:
            for stranger in strangers:
                stranger.send(hellos[sent % len(hellos)])
                sent += 1
            time.sleep(0.002)

    attacker = threading.Thread(target=flood)
    attacker.start()
    try:
        attacked = [shake_hands(under_test, context) for _ in range(HANDSHAKES)]
    finally:
        over.set()
        attacker.join()
    assert sent >= HELLOS
    assert len(attacked) == HANDSHAKES
    assert all(stranger.receive(0) == SILENCE for stranger in strangers)
    under_test.wait_for_counter("drops", 0, "unvalidated", int(0.9 * HELLOS))
    before, during = (statistics.quantiles(times, n=20)[-1] for times in (clean, attacked))
    # The goal is 1.2; the flood runs in this very process, so the interpreter's share is allowed for.
    assert during <= max(1.2 * before, before + 0.050), f"p95 {before:.4f} s -> {during:.4f} s"


def test_a_hello_before_its_check_is_nobodys(under_test: Rig) -> None:
    """The race itself: the stranger is first, the peer comes later; the stranger still gets nothing."""
    peer = Peer(under_test)
    stranger = Wire(under_test.address)
    stranger.send(client_hello())
    peer.check()
    stranger.send(client_hello())
    peer.settle()
    assert not under_test.find("datagram", peer.transport)
    assert stranger.receive(QUIET_S) == SILENCE


def test_a_check_with_a_wrong_password_validates_nothing(under_test: Rig) -> None:
    peer = Peer(under_test)
    stranger = Wire(under_test.address)
    stranger.send(check(peer.server, Credentials.fresh(), pwd="x" * 22))
    stranger.send(client_hello())
    peer.settle()
    assert not under_test.find("datagram", peer.transport)
    assert stranger.receive(QUIET_S) == SILENCE


def test_a_validated_peer_cannot_flood_the_worker_before_its_keys(under_test: Rig) -> None:
    peer = Peer(under_test)
    peer.check()
    for number in range(2_000):
        peer.wire.send(client_hello())
        if (
            number % 50 == 0
        ):  # one 5-tuple gets no more than its share of the way between two shards
            time.sleep(0.002)
    under_test.wait_for_counter("drops", 0, "over_limit", 1_500)
    assert len(under_test.find("datagram", peer.transport)) <= 100
