"""The lock that makes one worker per state directory.

Taken before the UDP port is bound: a second socket on the same port would silently take half the flows.
The file holds the worker's process id. Not here: starting a worker (`sfu.client`).
"""

import fcntl
import os
from pathlib import Path


class Locked(Exception):
    """Another process holds the lock."""


class LockFile:
    """An exclusive flock for the life of this object; the kernel frees it when the process dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock and write our process id. Raises `Locked` or OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Locked(str(path)) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; the file stays, because removing it would race with the next holder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock now. Only a hint: the worker itself takes it for good."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def holder(path: Path) -> int | None:
    """The process id written by the last holder, or None."""
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None
