"""What the worker raises on purpose; `code` becomes `protocol.Failure.code`.

Not here: `sfu.description.Malformed` (the peer's fault), errors of the client (`sfu.client`).
"""

from typing import ClassVar


class WorkerError(Exception):
    """Base of every deliberate error of the worker."""

    code: ClassVar[str] = "bug"


class Refused(WorkerError):
    """A rule of the worker says no; the text is for the log and the asking gateway."""

    code = "refused"


class UnknownSession(WorkerError):
    code = "unknown_session"


class UnknownTrack(WorkerError):
    code = "unknown_track"


class ChannelGone(WorkerError):
    """No open data channel of that name."""

    code = "closed"


class IllegalTransition(WorkerError):
    """A state table has no such row: our own bug."""
