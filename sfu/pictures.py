"""Whose picture is forwarded in a large conference. Pure: `now` is an argument.

Three rules of `protocol.Policy`, each off by default: the last N speakers, nobody who was silent for long, nobody
of the audience who does not speak. First goes what the subscriber pinned, then shared screens, moderators, the
latest speakers, then who came first. A pinned picture and a shared screen are never held back for silence.
What is held back still counts as wanted in its smallest layer, so that the publisher keeps an encoder warm and the
picture is back within half a second.
Not here: who speaks (`sfu.speakers`), carrying it out (`sfu.group`), what a narrow link carries (engine).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sfu.protocol import Policy

SCREEN_SHARE: Final = "screen_share"
AUDIENCE_S: Final = 10.0  # who stops speaking in the audience is seen for this long
HELD_BACK_LAYER: Final = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """A video track that somebody may receive."""

    track: str
    session: str  # its publisher
    is_screen: bool
    since: float


def is_restrained(policy: Policy) -> bool:
    """Whether any rule is on."""
    return bool(policy.last_n or policy.quiet_video_s or policy.audience)


def ranked(
    pictures: Iterable[Picture], speakers: Sequence[str], policy: Policy
) -> tuple[Picture, ...]:
    """Who goes first for everybody. `speakers`: sessions, the latest first. Equals keep their order."""
    rank = {session: index for index, session in enumerate(speakers)}
    moderators = frozenset(policy.moderators)
    return tuple(
        sorted(
            pictures,
            key=lambda one: (
                not one.is_screen,
                one.session not in moderators,
                rank.get(one.session, len(rank)),
                one.since,
            ),
        )
    )


def silenced(
    pictures: Iterable[Picture], spoke_at: Mapping[str, float], policy: Policy, now: float
) -> frozenset[str]:
    """Tracks of who has been silent for too long. `spoke_at`: sessions that ever spoke."""
    audience = frozenset(policy.audience)
    return frozenset(
        one.track
        for one in pictures
        if not one.is_screen and _is_silent(one, spoke_at.get(one.session), audience, policy, now)
    )


def _is_silent(
    one: Picture, spoke_at: float | None, audience: Collection[str], policy: Policy, now: float
) -> bool:
    if one.session in audience and (spoke_at is None or now - spoke_at >= AUDIENCE_S):
        return True
    heard_at = one.since if spoke_at is None else max(spoke_at, one.since)
    return bool(policy.quiet_video_s) and now - heard_at >= policy.quiet_video_s


def chosen(
    wanted: Collection[str],
    pinned: Collection[str],
    order: Iterable[Picture],
    silent: Collection[str],
    last_n: int,
) -> frozenset[str]:
    """What one subscriber gets of what it wants; `order` as `ranked` gave it."""
    first = [one.track for one in order if one.track in wanted]
    eligible = [track for track in first if track in pinned]
    eligible += [track for track in first if track not in pinned and track not in silent]
    return frozenset(eligible[:last_n] if last_n else eligible)
