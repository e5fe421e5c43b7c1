"""What of a large conference is forwarded: the rules in force, and the worker's view of them. Pure.

Not here: the configuration (`bridge.config`), carrying it out (the worker).
"""

from collections.abc import Iterable, Mapping

from bridge.conference.events import Leg
from bridge.conference.ids import ConferenceId, LegId, Role
from bridge.conference.streams import StreamPolicy
from sfu import protocol


def command(
    conference: ConferenceId,
    rules: StreamPolicy,
    legs: Mapping[LegId, Leg],
    sessions: Iterable[tuple[str, LegId]],
) -> protocol.Policy:
    """Everything at once. `sessions`: with the leg of each."""
    moderators, audience = [], []
    for session, leg_id in sorted(sessions):
        leg = legs.get(leg_id)
        if leg is None:
            continue
        if rules.last_n and leg.role >= Role.MODERATOR:
            moderators.append(session)
        if leg.role in rules.audience:
            audience.append(session)
    muted = [track.id for leg in legs.values() for track in leg.tracks if track.muted]
    return protocol.Policy(
        conference,
        last_n=rules.last_n,
        quiet_video_s=rules.quiet_video_s,
        loudest=rules.loudest,
        moderators=tuple(moderators),
        audience=tuple(audience),
        muted=tuple(sorted(muted)),
    )
