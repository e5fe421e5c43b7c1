"""What of a large call is forwarded: the rules that an administrator configures and a room's moderators replace.

Not here: how moderators choose (`steering`), carrying the rules out (the media worker).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bridge.conference.ids import Role


class StreamRule(StrEnum):
    """As people type it."""

    LAST_N = "last-n"
    QUIET_VIDEO = "quiet-video"
    AUDIENCE = "audience"
    LOUDEST = "loudest"


# Bounds of what may be configured and chosen; 0 = everything.
MAX_LAST_N: Final = 1_000
MAX_QUIET_VIDEO_S: Final = 86_400
MAX_LOUDEST: Final = 16

# Whom a moderator's choice means.
AUDIENCE: Final = frozenset({Role.GUEST, Role.MEMBER})


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """In force for one conference; 0 = everything. `audience`: roles whose pictures are forwarded only while they
    speak. As `sfu.protocol.Policy`."""

    last_n: int = 0
    quiet_video_s: float = 0.0
    loudest: int = 0
    audience: frozenset[Role] = frozenset()


@dataclass(frozen=True, slots=True)
class StreamChoice:
    """What moderators have chosen; None = as configured. `audience`: everybody below a moderator, or nobody."""

    last_n: int | None = None
    quiet_video_s: int | None = None
    loudest: int | None = None
    audience: bool | None = None

    def over(self, configured: StreamPolicy) -> StreamPolicy:
        """The configured policy with these rules instead."""
        policy = configured
        if self.last_n is not None:
            policy = replace(policy, last_n=self.last_n)
        if self.quiet_video_s is not None:
            policy = replace(policy, quiet_video_s=self.quiet_video_s)
        if self.loudest is not None:
            policy = replace(policy, loudest=self.loudest)
        if self.audience is not None:
            policy = replace(policy, audience=AUDIENCE if self.audience else frozenset())
        return policy


AS_CONFIGURED: Final = StreamChoice()
