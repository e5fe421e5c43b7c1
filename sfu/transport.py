"""One transport of a session: the engine's 5-tuple to be, its DTLS association and its data channels.

RFC 8842 (setup roles), RFC 8839 (credentials), RFC 8835. Timers live here: retransmission, and the budgets
within which a handshake must end.
Not here: which section uses which transport (`sfu.session`), STUN (engine), TLS itself (`sfu.dtls`).
"""

import asyncio
from typing import Final, Protocol

from sfu import ice
from sfu.datachannel import Channels
from sfu.description import Candidate, ChannelSpec, Fingerprint, Setup
from sfu.description import Transport as TransportDescription
from sfu.dtls import Association, Certificate, Outcome
from sfu.plane import Handle, Plane

HANDSHAKE_S: Final = 5.0  # from the peer's first DTLS datagram to the last (S14)
SILENT_PEER_S: Final = 15.0  # from ICE validated to a finished handshake
UNREACHED_S: Final = 30.0  # from knowing the peer's credentials to its first check


class TransportListener(Protocol):
    """The session."""

    def transport_up(self, transport: "Transport") -> None: ...
    def transport_over(self, transport: "Transport", reason: str) -> None:
        """`reason`: failed | fingerprint | close."""
        ...

    def channel_opened(self, channel: str) -> None: ...
    def channel_closed(self, channel: str) -> None: ...
    def message(self, channel: str, data: bytes, binary: bool) -> None: ...
    def backlog_bytes(self) -> int: ...


class Transport:
    """Owns one engine transport from `open_transport` to `close_transport`."""

    def __init__(
        self,
        plane: Plane,
        certificate: Certificate,
        listener: TransportListener,
        *,
        offered_by_us: bool,
    ) -> None:
        self._plane: Final = plane
        self._certificate: Final = certificate
        self._listener: Final = listener
        self._loop: Final = asyncio.get_running_loop()
        self.credentials = ice.new_credentials(plane.suits)
        self.handle: Final[Handle] = plane.open_transport(
            self.credentials.ufrag, self.credentials.pwd, offered_by_us=offered_by_us
        )
        self.is_up = False  # DTLS connected, keys set
        self.is_validated = False  # an authenticated check came
        self.is_silent = False
        self.setup = Setup.ACTPASS if offered_by_us else Setup.PASSIVE  # as we last wrote it
        self._remote: ice.Credentials | None = None
        self._fingerprints: tuple[Fingerprint, ...] = ()
        self._association: Association | None = None
        self._channels: Channels | None = None
        self._sctp: tuple[int, int, tuple[ChannelSpec, ...]] | None = None
        self._is_closed = False
        self._retransmission: asyncio.TimerHandle | None = None
        self._budget: asyncio.TimerHandle | None = None
        self._has_heard_dtls = False

    # --- signalling

    @property
    def has_remote(self) -> bool:
        return self._remote is not None

    def is_restart(self, remote: TransportDescription) -> bool:
        """Whether the peer's description starts a new ICE generation."""
        known = self._remote
        return known is not None and (known.ufrag, known.pwd) != (remote.ufrag, remote.pwd)

    def is_same_peer(self, remote: TransportDescription) -> bool:
        """Whether the certificate the peer names is still the same one."""
        return not self._fingerprints or set(self._fingerprints) == set(remote.fingerprints)

    def restart(self) -> None:
        """A new generation of our credentials; the old ones keep answering in the engine."""
        self.credentials = ice.new_credentials(lambda ufrag: self._plane.suits(ufrag, self.handle))
        self._plane.restart_ice(self.handle, self.credentials.ufrag, self.credentials.pwd)

    def set_remote(self, remote: TransportDescription) -> None:
        credentials = ice.Credentials(remote.ufrag, remote.pwd)
        if credentials != self._remote:
            if self._remote is None and not self.is_validated:
                self._arm_budget(UNREACHED_S)
            self._remote = credentials
            self._plane.set_remote(self.handle, remote.ufrag, remote.pwd)
        self._fingerprints = remote.fingerprints
        if self._association is not None:
            self._association.set_fingerprints(remote.fingerprints)
            self._settle()

    def set_role(self, *, is_client: bool) -> None:
        """The DTLS role that offer and answer decided."""
        association = self._association
        if association is None or (
            association.is_client != is_client and association.outcome is Outcome.HANDSHAKING
        ):
            self._begin(is_client=is_client)

    @property
    def has_role(self) -> bool:
        return self._association is not None

    def describe(
        self, setup: Setup, candidates: tuple[Candidate, ...], *, ice_lite: bool
    ) -> TransportDescription:
        return TransportDescription(
            ufrag=self.credentials.ufrag,
            pwd=self.credentials.pwd,
            fingerprints=(self._certificate.fingerprint,),
            setup=setup,
            candidates=candidates,
            ice_lite=ice_lite,
        )

    # --- data channels

    def use_sctp(
        self, port: int, max_message_bytes: int, channels: tuple[ChannelSpec, ...]
    ) -> None:
        """An application section was agreed; starts as soon as DTLS is up. Idempotent."""
        if self._sctp is None:
            self._sctp = (port, max_message_bytes, channels)
            self._start_sctp()

    @property
    def channels(self) -> Channels | None:
        return self._channels

    # --- engine events

    def validated(self) -> None:
        self.is_validated = True
        if self.is_up:
            return
        self._arm_budget(SILENT_PEER_S)
        if self._association is not None:
            self._association.start()
            self._settle()

    def datagram(self, data: bytes) -> None:
        if self._is_closed:
            return
        if self._association is None:
            # We offered actpass and the answer is still on its way: whoever speaks first is the client.
            self._begin(is_client=False)
        association = self._association
        if association is None:
            return
        resets = association.resets
        if not self._has_heard_dtls and not self.is_up:
            self._has_heard_dtls = True
            self._arm_budget(HANDSHAKE_S)
        packets = association.receive(data)
        if association.resets != resets:
            # That was junk, not a handshake: its budget must not be held against the peer (S1).
            self._has_heard_dtls = False
            self._arm_budget(SILENT_PEER_S)
        self._settle()
        channels = self._channels
        if channels is not None:
            for packet in packets:
                channels.receive(packet)

    def close(self) -> None:
        """Goodbye to the peer, and forget. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in (self._retransmission, self._budget):
            if timer is not None:
                timer.cancel()
        if self._channels is not None:
            self._channels.close()
        if self._association is not None:
            self._association.close()
            self._send_outgoing()
        self._plane.close_transport(self.handle)

    # --- inside

    def _begin(self, *, is_client: bool) -> None:
        self.setup = Setup.ACTIVE if is_client else Setup.PASSIVE
        self._association = Association(
            self._certificate, is_client=is_client, fingerprints=self._fingerprints
        )
        if self.is_validated:
            self._association.start()
        self._settle()

    def _settle(self) -> None:
        """After anything that touched the association: send, arm timers, notice what became of it."""
        association = self._association
        if association is None or self._is_closed:
            return
        outcome = association.outcome
        if outcome is Outcome.CONNECTED and not self.is_up:
            self._connected(association)
        self._send_outgoing()
        if self._retransmission is not None:
            self._retransmission.cancel()
            self._retransmission = None
        due_s = association.retransmit_in_s()
        if due_s is not None and self.is_validated:
            self._retransmission = self._loop.call_later(due_s, self._retransmit)
        reason = _REASONS.get(association.outcome)
        if reason is not None:
            self._listener.transport_over(self, reason)

    def _connected(self, association: Association) -> None:
        keys = association.srtp_keys()
        if keys is None:
            self._listener.transport_over(self, "failed")
            return
        profile, material = keys
        self._plane.set_keys(
            self.handle, profile=profile, material=material, is_client=association.is_client
        )
        self.is_up = True
        if self._budget is not None:
            self._budget.cancel()
            self._budget = None
        self._send_outgoing()  # our last flight goes before what the listener may send
        self._listener.transport_up(self)
        self._start_sctp()

    def _start_sctp(self) -> None:
        association = self._association
        if (
            not self.is_up
            or self._sctp is None
            or self._channels is not None
            or association is None
        ):
            return
        port, max_message_bytes, ours = self._sctp
        self._channels = Channels(
            self._listener,
            self._send_application,
            is_client=association.is_client,
            remote_port=port,
            remote_max_message_bytes=max_message_bytes,
            ours=ours,
        )

    def _send_application(self, packet: bytes) -> bool:
        association = self._association
        if association is None or not association.send(packet):
            return False
        self._send_outgoing()
        return True

    def _send_outgoing(self) -> None:
        if self._association is not None:
            for datagram in self._association.outgoing():
                self._plane.send_datagram(self.handle, datagram)

    def _retransmit(self) -> None:
        if self._association is not None:
            self._association.retransmit()
            self._settle()

    def _arm_budget(self, seconds: float) -> None:
        if self._budget is not None:
            self._budget.cancel()
        self._budget = self._loop.call_later(seconds, self._out_of_time)

    def _out_of_time(self) -> None:
        association = self._association
        if association is not None and association.outcome is Outcome.UNVERIFIED:
            return  # waits for the answer, which may take as long as a person does
        if not self.is_up and not self._is_closed:
            self._listener.transport_over(self, "failed")


_REASONS: Final = {
    Outcome.FINGERPRINT: "fingerprint",
    Outcome.FAILED: "failed",
    Outcome.CLOSED: "close",
}
