"""One peer: its life, its transports, and negotiation in both directions.

RFC 8829, RFC 8842, RFC 8843 (bundle), RFC 8839 section 4.4 (restart); the profile says which of it a client
family can do. Everything runs at once and in order: no method waits.
Not here: tracks up (`sfu.upstream`), streams down (`sfu.forwarding`), codec choice (`sfu.negotiation`), one
m-line (`sfu.lines`), whether an offer can be answered (`sfu.answering`), the socket (`sfu.owner`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sfu import negotiation, protocol
from sfu.answering import Plan, described_transports, plan
from sfu.description import (
    MAX_CANDIDATES,
    Candidate,
    Codec,
    Description,
    DescriptionType,
    Downstream,
    Extension,
    Malformed,
    MediaKind,
    Profile,
    Section,
    Setup,
)
from sfu.description import Transport as TransportDescription
from sfu.dtls import Certificate
from sfu.errors import ChannelGone, Refused
from sfu.forwarding import MEDIA, Forwarding
from sfu.group import Group
from sfu.lines import Line
from sfu.plane import Plane
from sfu.states import Happening, Life, Turn, Word, live, turn
from sfu.tracks import new_cname
from sfu.transport import Transport
from sfu.upstream import Upstream

log = logging.getLogger(__name__)

_DEFAULT_MESSAGE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every session of a worker shares."""

    plane: Plane
    certificate: Certificate
    candidates: tuple[Candidate, ...]
    emit: Callable[[protocol.Event], None]
    backlog_bytes: Callable[[str], int]
    ended: Callable[["Session"], None]  # the session is over, not by a command


class Session:
    """One peer connection, or one Jingle session."""

    def __init__(
        self,
        around: Surroundings,
        group: Group,
        name: str,
        profile: Profile,
        media: tuple[MediaKind, ...],
    ) -> None:
        self.name: Final = name
        self.group: Final = group
        self.profile: Final = profile
        self.life = Life.NEW
        self._around: Final = around
        self._media: Final = media
        self._turn = Turn.STABLE
        self._numbers = negotiation.Numbers()
        self._lines: dict[str, Line] = {}
        cname = new_cname()
        self.up: Final = Upstream(
            name,
            cname,
            group,
            self._lines,
            around.emit,
            is_compact=profile.downstream is Downstream.COMPACT,
        )
        self.down: Final = Forwarding(
            name, cname, profile, group, self._lines, self._downstream_changed
        )
        self._bundled: Transport | None = None
        self._offered_codecs: dict[str, tuple[Codec, ...]] = {}  # of our outstanding offer, by mid
        self._is_restart_wanted = False
        self._is_dirty = False  # something changed since our last offer
        self._peer_offers = False
        self._has_negotiated = (
            False  # a description was asked for, even if there was nothing to say
        )
        self._limits: protocol.Limits | None = None

    # --- negotiation: the peer offers

    def offer(self, offered: Description) -> Description:
        """Our answer. Raises `Malformed` or `Refused` and then nothing has changed."""
        next_turn = turn(self._turn, Word.OFFER)
        if offered.kind is not DescriptionType.OFFER:
            raise Malformed("not an offer")
        negotiation.check(offered)
        numbers = self._numbers.copy()
        plans = [plan(self.profile, self._lines, numbers, s) for s in offered.sections]
        if all(p.is_rejected for p in plans) and not all(s.rejected for s in offered.sections):
            raise Refused("nothing in common")
        remotes = described_transports(
            plans, self._lines, offered.bundle if self.profile.bundle else ()
        )

        self._turn, self._numbers = next_turn, numbers
        self._peer_offers = self._has_negotiated = True
        lines = [self._line_of(each, offered.bundle) for each in plans]
        for mid, remote in remotes.items():
            self._hear_offered_transport(self._lines[mid].transport, remote)
        for line, each in zip(lines, plans, strict=True):
            self._agree(line, each.section, each.codecs, each.section.codecs, each.extensions)
        self.up.bind_all()
        self.down.place(lines, None)
        self._is_restart_wanted = self._is_dirty = False
        self._happen(Happening.DESCRIBED)
        self._check_up()
        self._start_channels()
        self.down.feed_all()
        if self._missing() != (0, 0):
            self._report_need()
        return self._describe(DescriptionType.ANSWER, lines, offered.bundle)

    def _line_of(self, plan: Plan, bundle: tuple[str, ...]) -> Line:
        section = plan.section
        line = self._lines.get(section.mid)
        if line is None:
            shared = self.profile.bundle and section.mid in bundle
            # A section that will never run needs no transport of its own.
            shared = shared or (plan.is_rejected and self._bundled is not None)
            line = self._add_line(section.mid, section.kind, shared=shared, ours=False)
        line.is_rejected = plan.is_rejected
        return line

    def _hear_offered_transport(self, transport: Transport, remote: TransportDescription) -> None:
        if transport.is_restart(remote) or (self._is_restart_wanted and transport.has_remote):
            transport.restart()
        transport.set_remote(remote)
        if not transport.has_role:
            answer = negotiation.answered_setup(remote.setup)
            transport.set_role(is_client=answer is Setup.ACTIVE)

    # --- negotiation: we offer

    def make_offer(self, *, restart_ice: bool) -> Description:
        """An offer of everything this session should have now."""
        next_turn = turn(self._turn, Word.MAKE_OFFER)
        self._has_negotiated = True
        if self.profile.channels and not any(
            line.kind is MediaKind.APPLICATION for line in self._lines.values()
        ):
            self._add_own_line(MediaKind.APPLICATION)
        for kind in self._media if self.down.is_compact else ():
            if not any(line.kind is kind for line in self._lines.values()):
                self._add_own_line(kind)
        lines = list(self._lines.values())
        self.down.place(lines, self._add_own_line)
        if not self._lines:
            raise Refused("nothing to offer")
        if restart_ice or self._is_restart_wanted:
            for transport in self._transports():
                if transport.has_remote:
                    transport.restart()
        self._turn, self._is_restart_wanted, self._is_dirty = next_turn, False, False
        self._offered_codecs.clear()
        for line in self._lines.values():
            if line.kind in MEDIA and not line.is_rejected and not line.is_agreed:
                line.receiving = self._numbers.offer_codecs(self.profile, line.kind)
                line.extensions = self._numbers.offer_extensions(self.profile, line.kind)
                self.down.open_down(line)
        shared = tuple(
            line.mid
            for line in self._lines.values()
            if line.transport is self._bundled and not line.is_rejected
        )
        return self._describe(DescriptionType.OFFER, list(self._lines.values()), shared)

    def answer(self, answered: Description) -> None:
        """The peer's answer to our last offer. Raises `Malformed` or `Refused`; the offer stays outstanding."""
        next_turn = turn(self._turn, Word.ANSWER)
        if answered.kind is not DescriptionType.ANSWER:
            raise Malformed("not an answer")
        negotiation.check(answered)
        agreed: list[tuple[Line, Section, tuple[Codec, ...]]] = []
        remotes: dict[Transport, TransportDescription] = {}
        for section in answered.sections:
            line = self._lines.get(section.mid)
            if line is None or line.kind is not section.kind:
                raise Malformed("answer to a section that was not offered")
            codecs = negotiation.agreed_codecs(line.receiving, section.codecs)
            agreed.append((line, section, codecs))
            if section.rejected:
                continue
            known = remotes.get(line.transport)
            if known is None:
                negotiation.check_transport(section)
                if not line.transport.is_same_peer(section.transport):
                    raise Refused("another certificate on a running transport")
                remotes[line.transport] = section.transport
            elif section.transport.ufrag not in ("", known.ufrag):
                raise Refused("the peer does not bundle")

        self._turn, self._peer_offers = next_turn, False
        for transport, remote in remotes.items():
            transport.set_remote(remote)
            transport.set_role(is_client=remote.setup is Setup.PASSIVE)
        for line, section, codecs in agreed:
            line.is_rejected = section.rejected or (
                line.kind in MEDIA and not negotiation.has_media(codecs)
            )
            extensions = negotiation.agreed_extensions(line.extensions, section.extensions)
            self._agree(line, section, line.receiving, codecs, extensions)
        self.up.bind_all()
        self._happen(Happening.DESCRIBED)
        self._check_up()
        self._start_channels()
        self.down.feed_all()
        if self._is_dirty:
            self._report_need()

    def _downstream_changed(self) -> None:
        self._is_dirty = True
        if self._has_negotiated:
            self._report_need()

    def _missing(self) -> tuple[int, int]:
        return self.down.missing(peer_offers=self._peer_offers)

    def _report_need(self) -> None:
        audios, videos = self._missing()
        self._around.emit(
            protocol.NegotiationNeeded(
                session=self.name, audios=audios, videos=videos, changed=True
            )
        )

    # --- the rest of the commands

    def note_candidates(self, command: protocol.Candidates) -> None:
        """We never send to a named address (S18): the peer's checks tell where it is."""
        if len(command.candidates) > MAX_CANDIDATES:
            raise Malformed("too many candidates")

    def restart_ice(self) -> None:
        self._is_restart_wanted = True
        self._report_need()

    def limit(self, limits: protocol.Limits) -> None:
        self._limits = limits
        for transport in self._transports():
            self._set_limit(transport)

    def send(self, channel: str, data: bytes, *, binary: bool) -> None:
        for transport in self._transports():
            if transport.channels is not None:
                transport.channels.send(channel, data, binary=binary)
                return
        raise ChannelGone(channel)

    def close(self) -> None:
        """Take everything down. Idempotent; tells nobody."""
        if self.life is Life.CLOSED:
            return
        self._happen(Happening.OVER)
        for transport in self._transports():
            transport.close()
        self._lines.clear()
        self.up.close()
        self.down.close()

    def announce(self) -> None:
        """Say again what a new owner cannot read from a snapshot."""
        for transport in self._transports():
            if transport.channels is not None:
                for label in transport.channels.open_labels():
                    self.channel_opened(label)
        if self._is_dirty or self._missing() != (0, 0):
            self._report_need()
        for track in self.up.tracks.values():
            self.group.tell_layers(track)

    def state(self) -> protocol.SessionState:
        return protocol.SessionState(
            session=self.name, group=self.group.name, state=self.life.value
        )

    def transport_handles(self) -> tuple[int, ...]:
        return tuple(t.handle for t in self._transports())

    def transport(self, handle: int) -> Transport | None:
        return next((t for t in self._transports() if t.handle == handle), None)

    # --- engine events

    def silent(self, transport: Transport) -> None:
        transport.is_silent = True
        self._happen(Happening.SILENT)

    def heard(self, transport: Transport) -> None:
        transport.is_silent = False
        if not any(t.is_silent for t in self._transports()):
            self._happen(Happening.HEARD)

    def over(self, reason: str) -> None:
        """The session ended by itself."""
        if self.life is Life.CLOSED:
            return
        self.close()
        self._around.emit(protocol.Closed(session=self.name, reason=reason))
        self._around.ended(self)

    # --- what transports report (sfu.transport.TransportListener)

    def transport_up(self, transport: Transport) -> None:
        self._check_up()

    def transport_over(self, transport: Transport, reason: str) -> None:
        self.over(reason)

    def channel_opened(self, channel: str) -> None:
        self._around.emit(protocol.ChannelOpened(session=self.name, channel=channel))

    def channel_closed(self, channel: str) -> None:
        if self.life is not Life.CLOSED:
            self._around.emit(protocol.ChannelClosed(session=self.name, channel=channel))

    def message(self, channel: str, data: bytes, binary: bool) -> None:
        self._around.emit(
            protocol.Message(session=self.name, channel=channel, data=data, binary=binary)
        )

    def backlog_bytes(self) -> int:
        return self._around.backlog_bytes(self.name)

    # --- inside

    def _check_up(self) -> None:
        """DTLS may be faster than the answer that says with whom, so both ends of the race look here."""
        transports = self._used_transports()
        if self.life is Life.CONNECTING and transports and all(t.is_up for t in transports):
            self._happen(Happening.UP)

    def _happen(self, happening: Happening) -> None:
        before, self.life = self.life, live(self.life, happening)
        if self.life is before:
            return
        if self.life is Life.CONNECTED:
            self._around.emit(protocol.Connected(session=self.name))
        elif self.life is Life.DISCONNECTED:
            self._around.emit(protocol.Disconnected(session=self.name))

    def _transports(self) -> list[Transport]:
        return list(dict.fromkeys(line.transport for line in self._lines.values()))

    def _used_transports(self) -> list[Transport]:
        return list(
            dict.fromkeys(
                line.transport
                for line in self._lines.values()
                if not line.is_rejected and line.is_agreed
            )
        )

    def _add_line(self, mid: str, kind: MediaKind, *, shared: bool, ours: bool) -> Line:
        transport = self._bundled if shared else None
        if transport is None:
            transport = Transport(
                self._around.plane, self._around.certificate, self, offered_by_us=ours
            )
            self._set_limit(transport)
            if shared:
                self._bundled = transport
        line = Line(self._around.plane, mid, kind, transport, creator_is_us=ours)
        self._lines[mid] = line
        return line

    def _add_own_line(self, kind: MediaKind) -> Line:
        """A section that we are the first to offer."""
        return self._add_line(self._new_mid(), kind, shared=self.profile.bundle, ours=True)

    def _set_limit(self, transport: Transport) -> None:
        if self._limits is not None:
            self._around.plane.set_ingress_limit(
                transport.handle,
                bits_per_s=self._limits.ingress_bps,
                packets_per_s=self._limits.ingress_pps,
            )
            self._around.plane.set_budget(transport.handle, bits_per_s=self._limits.egress_bps)

    def _new_mid(self) -> str:
        number = len(self._lines)
        while str(number) in self._lines:
            number += 1
        return str(number)

    def _agree(
        self,
        line: Line,
        section: Section,
        receiving: tuple[Codec, ...],
        sent: tuple[Codec, ...],
        extensions: tuple[Extension, ...],
    ) -> None:
        """Both sides have described the line."""
        line.remote = section
        line.is_agreed = True
        if line.is_rejected:
            line.close_down()
            if line.subscription is not None:
                line.subscription.mid = ""
                line.subscription = None
                self._is_dirty = True
            return
        line.receiving, line.extensions = receiving, extensions
        line.sending = negotiation.agreed_codecs(receiving, sent)
        self.down.open_down(line)

    def _start_channels(self) -> None:
        for line in self._lines.values():
            remote = line.remote
            if line.kind is MediaKind.APPLICATION and not line.is_rejected and remote is not None:
                line.transport.use_sctp(
                    remote.sctp_port or 0, _message_cap(remote), self.profile.channels
                )

    def _describe(
        self, kind: DescriptionType, lines: list[Line], bundle: tuple[str, ...]
    ) -> Description:
        is_offer = kind is DescriptionType.OFFER
        sections: list[Section] = []
        for line in lines:
            setup = Setup.ACTPASS if is_offer else line.transport.setup
            transport = line.transport.describe(
                setup, self._around.candidates, ice_lite=self.profile.ice_lite
            )
            receives = line.peer_sends or (is_offer and self._asks_for(line))
            sections.append(
                line.write(
                    transport,
                    line.receiving,
                    sends=line.subscription is not None
                    or (self.down.is_compact and self.down.may_send(line)),
                    receives=receives,
                )
            )
        live_mids = {line.mid for line in lines if not line.is_rejected}
        shared = {line.mid for line in lines if line.transport is self._bundled}
        return Description(
            kind=kind,
            sections=tuple(sections),
            bundle=tuple(mid for mid in bundle if mid in live_mids & shared),
        )

    def _asks_for(self, line: Line) -> bool:
        """Whether our offer asks the peer to send on a line it has not described yet."""
        return self.down.is_compact and line.remote is None


def _message_cap(section: Section) -> int:
    """Largest message the peer takes; absent means 64 KiB, 0 any size (RFC 8841 section 6)."""
    return _DEFAULT_MESSAGE_BYTES if section.max_message_size is None else section.max_message_size
