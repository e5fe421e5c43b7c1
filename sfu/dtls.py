"""One DTLS 1.2 association over datagrams, without sockets or clock: bytes in, bytes out, an outcome.

RFC 6347 (DTLS 1.2), RFC 5764 (DTLS-SRTP), RFC 8122 (fingerprints), RFC 8827 section 6.5. Datagrams come
only from 5-tuples that passed an authenticated ICE check (S1); even so nothing that arrives before the
peer is authenticated can end the association: it resets the flight.
Not here: timers and budgets (`sfu.transport`), SCTP (`sfu.datachannel`), SRTP (engine).
"""

import contextlib
import datetime
import hmac
import secrets
from enum import Enum, auto
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from sfu.description import Fingerprint

_DTLS_1_2: Final = 0xFEFD
_RECORD_HEADER_BYTES: Final = 13  # RFC 6347 section 4.1
MTU_BYTES: Final = 1_200  # of one datagram: the smallest path we promise to pass (N9)
_LARGEST_RECORD_BYTES: Final = 16_384 + 2_048
HELLO_AGAIN_S: Final = (
    0.2  # a reset client says hello again after this; bounds what junk can make us send
)
MAX_RESETS: Final = 64  # of one association before the peer is authenticated; then it has failed

# ECDHE and AEAD only. Our certificate is ECDSA; the RSA suites are for peers that serve with RSA.
CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)
_SRTP_PROFILES: Final = {  # our order of preference: name -> (number in RFC 5764/7714, keying bytes)
    b"SRTP_AEAD_AES_128_GCM": (7, 2 * (16 + 12)),
    b"SRTP_AEAD_AES_256_GCM": (8, 2 * (32 + 12)),
    b"SRTP_AES128_CM_SHA1_80": (1, 2 * (16 + 14)),
}
_DIGESTS: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
_CERTIFICATE_DAYS: Final = (
    365  # a worker that runs longer must be restarted; nobody checks the date
)


def _digest(certificate: x509.Certificate, algorithm: str) -> str:
    return certificate.fingerprint(_DIGESTS[algorithm]).hex(":").upper()


class Certificate:
    """Our self-signed certificate, ECDSA P-256 unless a key is given: one per process (S14)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> None:
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        now = datetime.datetime.now(tz=datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint: Final = Fingerprint("sha-256", _digest(certificate, "sha-256"))
        self.context: Final = SSL.Context(SSL.DTLS_METHOD)
        self.context.set_min_proto_version(_DTLS_1_2)
        self.context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_QUERY_MTU)
        # The chain means nothing: identity is the fingerprint, compared after the handshake.
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_cipher_list(CIPHERS)
        self.context.set_tlsext_use_srtp(b":".join(_SRTP_PROFILES))


class Outcome(Enum):
    """What an association has come to."""

    HANDSHAKING = auto()
    UNVERIFIED = auto()  # complete, but the peer's fingerprints are not signalled yet
    CONNECTED = auto()
    FINGERPRINT = auto()  # the certificate is not the signalled one: over
    FAILED = auto()
    CLOSED = auto()  # close-notify or fatal alert of the authenticated peer


class Association:
    """One DTLS association in one role. Call `outgoing` after everything that returns."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        is_client: bool,
        fingerprints: tuple[Fingerprint, ...] = (),
    ) -> None:
        self.is_client: Final = is_client
        self.outcome = Outcome.HANDSHAKING
        self.resets = 0
        self._is_hello_due = False
        self._certificate: Final = certificate
        self._fingerprints = fingerprints
        self._ssl = self._fresh()

    def start(self) -> None:
        """As client: make the first flight."""
        if self.is_client:
            self._shake()

    def set_fingerprints(self, fingerprints: tuple[Fingerprint, ...]) -> None:
        """What the peer signalled; completes an association that waited for it."""
        self._fingerprints = fingerprints
        if self.outcome is Outcome.UNVERIFIED:
            self._verify()

    def receive(self, datagram: bytes) -> list[bytes]:
        """Feed one datagram; the application data in it (SCTP packets)."""
        if self.outcome in (Outcome.FINGERPRINT, Outcome.FAILED, Outcome.CLOSED) or not datagram:
            return []
        self._ssl.bio_write(datagram)
        if self.outcome is Outcome.HANDSHAKING:
            self._shake()
            if self.outcome is Outcome.HANDSHAKING:
                return []
        return self._read()

    def send(self, data: bytes) -> bool:
        """Encrypt application data. False: not connected."""
        if self.outcome is not Outcome.CONNECTED:
            return False
        try:
            self._ssl.send(data)
        except SSL.Error:
            return False
        return True

    def retransmit_in_s(self) -> float | None:
        """Seconds until `retransmit` is due."""
        if self.outcome is not Outcome.HANDSHAKING:
            return None
        return HELLO_AGAIN_S if self._is_hello_due else self._ssl.DTLSv1_get_timeout()

    def retransmit(self) -> None:
        if self.outcome is not Outcome.HANDSHAKING:
            return
        if self._is_hello_due:
            self._is_hello_due = False
            self._shake()
            return
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error:
            self._reset()

    def close(self) -> None:
        """Say goodbye (close-notify), once."""
        if self.outcome in (Outcome.CONNECTED, Outcome.UNVERIFIED, Outcome.FINGERPRINT):
            with contextlib.suppress(SSL.Error):
                self._ssl.shutdown()
        if self.outcome is not Outcome.FINGERPRINT:
            self.outcome = Outcome.CLOSED

    def outgoing(self) -> list[bytes]:
        """Datagrams to send, each of whole records and at most about `MTU_BYTES`."""
        chunks: list[bytes] = []
        while True:
            try:
                chunks.append(self._ssl.bio_read(65_536))
            except SSL.Error:
                break
        return _datagrams(b"".join(chunks))

    def srtp_keys(self) -> tuple[int, bytes] | None:
        """(profile number, keying material) of a connected association; None: no profile was agreed."""
        chosen = _SRTP_PROFILES.get(self._ssl.get_selected_srtp_profile())
        if chosen is None:
            return None
        number, size = chosen
        return number, self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", size)

    @property
    def cipher(self) -> str:
        """Name of the negotiated suite, for logs and tests."""
        return self._ssl.get_cipher_name() or ""

    def _fresh(self) -> SSL.Connection:
        connection = SSL.Connection(self._certificate.context)
        connection.set_ciphertext_mtu(MTU_BYTES)
        if self.is_client:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        return connection

    def _shake(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error:
            self._reset()
            return
        self.outcome = Outcome.UNVERIFIED
        if self._fingerprints:
            self._verify()

    def _reset(self) -> None:
        """Junk or a fatal alert before authentication: forget this flight, keep waiting (S1)."""
        self.resets += 1
        if self.resets > MAX_RESETS:
            self.outcome = Outcome.FAILED
            return
        self._ssl = self._fresh()
        self._is_hello_due = self.is_client

    def _verify(self) -> None:
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        if certificate is None or not _is_signalled(certificate, self._fingerprints):
            self.outcome = Outcome.FINGERPRINT
            return
        self.outcome = Outcome.CONNECTED

    def _read(self) -> list[bytes]:
        packets: list[bytes] = []
        while True:
            try:
                packet = self._ssl.recv(_LARGEST_RECORD_BYTES)
            except SSL.WantReadError:
                break
            except (SSL.ZeroReturnError, SSL.Error):
                # Authenticated records only: OpenSSL drops what does not decrypt without a word.
                if self.outcome is Outcome.CONNECTED:
                    self.outcome = Outcome.CLOSED
                break
            packets.append(packet)
        # Before the fingerprint is known nobody may speak; SCTP repeats itself.
        return packets if self.outcome in (Outcome.CONNECTED, Outcome.CLOSED) else []


def _is_signalled(certificate: x509.Certificate, signalled: tuple[Fingerprint, ...]) -> bool:
    """Every hash function we know must have one value that fits, and there must be one (RFC 8122 section 5)."""
    fits: dict[str, bool] = {}
    for fingerprint in signalled:
        algorithm = fingerprint.algorithm.lower()
        if algorithm in _DIGESTS:
            same = hmac.compare_digest(
                _digest(certificate, algorithm).encode(), fingerprint.value.upper().encode()
            )
            fits[algorithm] = fits.get(algorithm, False) or same
    return bool(fits) and all(fits.values())


def _datagrams(records: bytes) -> list[bytes]:
    """Pack whole DTLS records into datagrams: a memory BIO does not keep datagram boundaries."""
    datagrams: list[bytes] = []
    current = b""
    position = 0
    while position + _RECORD_HEADER_BYTES <= len(records):
        length = int.from_bytes(records[position + 11 : position + 13], "big")
        record = records[position : position + _RECORD_HEADER_BYTES + length]
        if current and len(current) + len(record) > MTU_BYTES:
            datagrams.append(current)
            current = b""
        current += record
        position += len(record)
    if current:
        datagrams.append(current)
    return datagrams
