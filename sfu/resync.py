"""After engine events were lost: bring sessions to where the engine's counters say they are.

Lost and made good here: validated, silent, heard, expired (a transport that is gone counts as expired) and a
track's first packets. Lost and repeated by others: datagrams (DTLS and SCTP send again), levels (ten times a
second). Lost for good: a BYE, which only hastens what silence or signalling will say; a track's codec, if it
offers several, is taken to be its first until another layer or codec begins.
Not here: when this is due (`sfu.worker`).
"""

import logging
from collections.abc import Callable

from sfu import protocol
from sfu.session import Session

log = logging.getLogger(__name__)

_WAITING, _HEARD, _SILENT, _EXPIRED = range(4)  # as in `sfu/_engine.pyi`
Read = dict[str, list[tuple[int, dict[str, int]]]]


def resync(
    read: Read, sessions: tuple[Session, ...], emit: Callable[[protocol.Event], None]
) -> None:
    """Tell every session what it missed. What it knows already changes nothing."""
    states = {handle: row.get("state", _WAITING) for handle, row in read["transports"]}
    packets = {handle: row["packets"] for handle, row in read["publications"]}
    for session in sessions:
        try:
            if _resync_transports(session, states):
                _resync_tracks(session, packets, emit)
        except Exception:
            log.exception("resync failed")
            session.over("bug")


def _resync_transports(session: Session, states: dict[int, int]) -> bool:
    """False: the session is over."""
    for handle in session.transport_handles():
        transport = session.transport(handle)
        state = states.get(handle)
        if transport is None:
            continue
        if state is None:
            # Not in the counters: too new for them, unless we know it was validated.
            state = _EXPIRED if transport.is_up else _WAITING
        if state == _EXPIRED:
            session.over("lost")
            return False
        if state != _WAITING and not transport.is_validated:
            transport.validated()
        if state == _SILENT and not transport.is_silent:
            session.silent(transport)
        elif state == _HEARD and transport.is_silent:
            session.heard(transport)
    return True


def _resync_tracks(
    session: Session, packets: dict[int, int], emit: Callable[[protocol.Event], None]
) -> None:
    for track in session.up.tracks.values():
        if track.is_live or track.publication is None or not packets.get(track.publication):
            continue
        first = track.codecs[0].payload_type if track.codecs else 0
        news = track.heard(0, first)
        if news is not None:
            emit(news)
            session.group.follow()
