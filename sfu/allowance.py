"""So much per second, so much at once: a token bucket.

Not here: what is counted, and what becomes of the excess (`sfu.datachannel`). The engine has its own.
"""


class Allowance:
    """Full at the start; `now` is any clock's seconds that never go back."""

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, units: float, now: float) -> bool:
        """Take them all, or none and say no."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if units > self._left:
            return False
        self._left -= units
        return True
