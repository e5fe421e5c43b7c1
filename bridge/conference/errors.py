"""Everything we raise on purpose, named by fault.

Not here: libraries' own exceptions (translated at the edge that called them, with `from`).
"""

from typing import ClassVar


class ConferenceError(Exception):
    """Base of every deliberate error. `code` is stable: logs, metrics, wire and tests use it."""

    code: ClassVar[str] = "internal"


class Refused(ConferenceError):
    """A rule says no. The text is a sentence for the person who asked."""

    code = "refused"


class Malformed(ConferenceError):
    """The peer broke the protocol: answer, count, go on."""

    code = "malformed"


class Unavailable(ConferenceError):
    """A dependency is away; trying again later is reasonable."""

    code = "unavailable"


class IllegalTransition(ConferenceError):
    """Our own bug: loud."""

    code = "bug"
