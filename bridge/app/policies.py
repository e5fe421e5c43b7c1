"""The stream policy of each conference, from the configuration: its own section, or everybody's.

Not here: what the rules mean (`sfu.protocol.Policy`).
"""

from collections.abc import Callable

from bridge.conference.ids import Role
from bridge.conference.ports import ConferenceRecord
from bridge.conference.streams import StreamPolicy
from bridge.config import Config
from bridge.config.models import PolicySection


def policies(config: Config) -> Callable[[ConferenceRecord], StreamPolicy]:
    common = _policy(config.policy)
    own = {
        section.slug: _policy(section.policy)
        for section in config.conferences
        if section.policy is not None
    }
    return lambda record: own.get(record.slug, common)


def _policy(section: PolicySection) -> StreamPolicy:
    return StreamPolicy(
        last_n=section.last_n,
        quiet_video_s=section.quiet_video_s,
        loudest=section.loudest,
        audience=frozenset(Role[name.upper()] for name in section.audience),
    )
