"""Brakes on guessing (S24): failures per address, each doubling the wait. Pure; time is an argument.

Not here: rates of an open socket (`signalling`).
"""

from collections import OrderedDict
from typing import Final

FREE: Final = 10  # failures within the window before waiting begins
WINDOW_S: Final = 1800.0
FIRST_WAIT_S: Final = 0.1
MAX_WAIT_S: Final = 25.0
MAX_ADDRESSES: Final = 10_000  # remembered; the oldest is forgotten


class Backoff:
    """Who failed how often lately."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def failed(self, address: str, now_s: float) -> None:
        count = self._count(address, now_s) + 1
        self._failures[address] = (count, now_s)
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def wait_s(self, address: str, now_s: float) -> float:
        """How long this address has to wait before its next try, 0 for most."""
        count = self._count(address, now_s)
        if count < FREE:
            return 0.0
        _, last_s = self._failures[address]
        pause_s: float = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(count - FREE, 20))
        return max(0.0, last_s + pause_s - now_s)

    def _count(self, address: str, now_s: float) -> int:
        count, last_s = self._failures.get(address, (0, now_s))
        return count if now_s - last_s < WINDOW_S else 0
