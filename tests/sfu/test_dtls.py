"""One DTLS association against OpenSSL in other shapes: roles, fragments, certificates, junk (S1, S14)."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from sfu.description import Fingerprint
from sfu.dtls import CIPHERS, MTU_BYTES, Association, Certificate, Outcome

OURS = Certificate()
THEIRS = Certificate()
WRONG = Fingerprint("sha-256", ":".join(["00"] * 32))
FATAL_ALERT = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"
BROKEN_HELLO = b"\x16\xfe\xfd" + bytes(8) + b"\x00\x20" + b"\x01\x00\x00\x14" + bytes(28)


def exchange(one: Association, other: Association, rounds: int = 8) -> None:
    """Carry datagrams both ways until nothing is left to say."""
    for _ in range(rounds):
        for source, sink in ((one, other), (other, one)):
            for datagram in source.outgoing():
                assert len(datagram) <= MTU_BYTES
                sink.receive(datagram)


def pair(
    fingerprints: tuple[Fingerprint, ...] = (THEIRS.fingerprint,),
) -> tuple[Association, Association]:
    client = Association(THEIRS, is_client=True, fingerprints=(OURS.fingerprint,))
    server = Association(OURS, is_client=False, fingerprints=fingerprints)
    client.start()
    return client, server


@pytest.mark.parametrize("is_client", [True, False])
def test_both_roles_agree_on_keys(is_client: bool) -> None:
    ours = Association(OURS, is_client=is_client, fingerprints=(THEIRS.fingerprint,))
    theirs = Association(THEIRS, is_client=not is_client, fingerprints=(OURS.fingerprint,))
    for one in (ours, theirs):
        one.start()
    exchange(ours, theirs)
    assert (ours.outcome, theirs.outcome) == (Outcome.CONNECTED, Outcome.CONNECTED)
    assert ours.srtp_keys() == theirs.srtp_keys()
    keys = ours.srtp_keys()
    assert keys is not None
    assert (keys[0], len(keys[1])) == (7, 56), "AES-128-GCM comes first"


def test_application_data_and_goodbye() -> None:
    client, server = pair()
    assert not client.send(b"early")
    exchange(client, server)
    assert client.send(b"sctp")
    (datagram,) = client.outgoing()
    assert server.receive(datagram) == [b"sctp"]
    client.close()
    for datagram in client.outgoing():
        server.receive(datagram)
    assert server.outcome is Outcome.CLOSED


def test_a_wrong_fingerprint_ends_it() -> None:
    client, server = pair((WRONG,))
    exchange(client, server)
    assert server.outcome is Outcome.FINGERPRINT
    client.send(b"sctp")
    for datagram in client.outgoing():
        assert server.receive(datagram) == []


@pytest.mark.parametrize(
    ("signalled", "outcome"),
    [
        ((WRONG, THEIRS.fingerprint), Outcome.CONNECTED),
        ((Fingerprint("sha-1", "AA"), THEIRS.fingerprint), Outcome.CONNECTED),
        ((Fingerprint("sha-1", "AA"),), Outcome.FINGERPRINT),
        ((THEIRS.fingerprint, Fingerprint("sha-512", "AA")), Outcome.FINGERPRINT),
        (
            (Fingerprint("SHA-256", THEIRS.fingerprint.value.lower()),),
            Outcome.CONNECTED,
        ),
    ],
)
def test_every_known_hash_needs_a_match(
    signalled: tuple[Fingerprint, ...], outcome: Outcome
) -> None:
    client, server = pair(signalled)
    exchange(client, server)
    assert server.outcome is outcome


def test_a_handshake_faster_than_its_answer_waits_for_it() -> None:
    client, server = pair(())
    exchange(client, server)
    assert server.outcome is Outcome.UNVERIFIED
    client.send(b"too early")
    for datagram in client.outgoing():
        assert server.receive(datagram) == []
    server.set_fingerprints((THEIRS.fingerprint,))
    assert server.outcome is Outcome.CONNECTED


@pytest.mark.parametrize("junk", [FATAL_ALERT, BROKEN_HELLO, b"\x16" + bytes(40), b"\x16"])
@pytest.mark.parametrize("is_client", [True, False])
def test_junk_before_authentication_kills_nothing(junk: bytes, is_client: bool) -> None:
    ours = Association(OURS, is_client=is_client, fingerprints=(THEIRS.fingerprint,))
    theirs = Association(THEIRS, is_client=not is_client, fingerprints=(OURS.fingerprint,))
    ours.start()
    hello = ours.outgoing()
    ours.receive(junk)
    assert ours.outcome is Outcome.HANDSHAKING
    theirs.start()
    if ours.resets:
        ours.retransmit()
    else:
        for datagram in hello:
            theirs.receive(datagram)
    exchange(ours, theirs)
    assert ours.outcome is Outcome.CONNECTED


def test_junk_after_authentication_changes_nothing() -> None:
    client, server = pair()
    exchange(client, server)
    for junk in (FATAL_ALERT, BROKEN_HELLO, b"\x17" + bytes(60)):
        assert server.receive(junk) == []
    client.send(b"alive")
    (datagram,) = client.outgoing()
    assert server.receive(datagram) == [b"alive"]


def test_a_junk_flood_has_an_end() -> None:
    server = Association(OURS, is_client=False)
    for _ in range(200):
        server.receive(FATAL_ALERT)
    assert server.outcome is Outcome.FAILED


def test_a_hello_of_two_datagrams() -> None:
    """Chromium's is 1,413 bytes, the first datagram 1,200."""
    hello = Association(THEIRS, is_client=True, fingerprints=(OURS.fingerprint,))
    hello._ssl.set_alpn_protos([b"x" * 200 for _ in range(7)])
    hello.start()
    parts = hello.outgoing()
    assert len(parts) == 2
    server = Association(OURS, is_client=False, fingerprints=(THEIRS.fingerprint,))
    assert server.receive(parts[1]) == []
    assert server.receive(parts[0]) == []
    assert server.outgoing(), "answered once it is whole, whatever came first"


@pytest.mark.parametrize("is_client", [True, False])
def test_a_peer_with_an_rsa_certificate(is_client: bool) -> None:
    peer = Certificate(rsa.generate_private_key(public_exponent=65_537, key_size=2_048))
    ours = Association(OURS, is_client=is_client, fingerprints=(peer.fingerprint,))
    theirs = Association(peer, is_client=not is_client, fingerprints=(OURS.fingerprint,))
    for one in (ours, theirs):
        one.start()
    exchange(ours, theirs)
    assert ours.outcome is Outcome.CONNECTED
    assert ("RSA" if is_client else "ECDSA") in ours.cipher


def test_only_ecdhe_with_aead_is_offered() -> None:
    """Golden (S14)."""
    names = CIPHERS.decode().split(":")
    assert all(n.startswith(("ECDHE-ECDSA-", "ECDHE-RSA-")) for n in names)
    assert all("GCM" in n or "POLY1305" in n for n in names)


@pytest.mark.parametrize(
    ("offered", "number"),
    [
        (b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM", 7),
        (b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM", 8),
        (b"SRTP_AES128_CM_SHA1_80", 1),
    ],
)
def test_the_srtp_profile_is_ours_to_choose(offered: bytes, number: int) -> None:
    peer = Certificate()
    peer.context.set_tlsext_use_srtp(offered)
    client = Association(peer, is_client=True, fingerprints=(OURS.fingerprint,))
    server = Association(OURS, is_client=False, fingerprints=(peer.fingerprint,))
    client.start()
    exchange(client, server)
    keys = server.srtp_keys()
    assert keys is not None
    assert keys[0] == number


def test_a_lost_flight_is_sent_again() -> None:
    client, server = pair()
    client.outgoing()  # lost
    due_s = client.retransmit_in_s()
    assert due_s is not None
    assert 0 < due_s <= 1
    assert server.retransmit_in_s() is None


@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_any_bytes_are_survived(datagrams: list[bytes], is_client: bool) -> None:
    association = Association(OURS, is_client=is_client, fingerprints=(THEIRS.fingerprint,))
    association.start()
    for datagram in datagrams:
        assert association.receive(datagram) == []
        association.outgoing()
    assert association.outcome is Outcome.HANDSHAKING


def test_the_floor_is_dtls_1_2() -> None:
    old = SSL.Context(SSL.DTLS_METHOD)
    old.set_max_proto_version(0xFEFF)
    old.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(old)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server = Association(OURS, is_client=False)
    server.receive(client.bio_read(4_096))
    assert server.resets == 1
    assert server.outcome is Outcome.HANDSHAKING
