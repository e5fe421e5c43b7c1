"""Which simulcast layer a wish means, and what a publisher should know of that. Pure: `now` is an argument.

Not here: whose picture is forwarded at all (`sfu.pictures`), carrying it out (`sfu.group`), packets (engine).
"""

from typing import Final

from sfu.description import LayerSpec, Wish
from sfu.pictures import SCREEN_SHARE

# Who gets bandwidth first on a narrow link (0..255); the engine puts audio before all of these.
SCREEN_PRIORITY: Final = 255  # text must stay readable
PINNED_PRIORITY: Final = 128  # and upwards, by the wished priority
SPEAKER_PRIORITY: Final = 64
_ORDINARY: Final = 1  # the priority of a wish that asks for none

# Somebody who looks elsewhere for a moment must not cost the publisher an encoder restart; and the layer is to be off
# 2 s after the last wish (MP34): 0.2 s at most are the ticks', the rest the message's and the encoder's.
LOWER_AFTER_S: Final = 1.5
TOP_LAYER: Final = 2  # of a publisher who announced none


def wanted_layer(wish: Wish, layers: tuple[LayerSpec, ...]) -> int:
    """The lowest layer that satisfies the wished size, capped by the wished quality."""
    top = top_layer(layers)
    cap = min(max(wish.quality, 0), top)
    if not layers or not (wish.width and wish.height):
        return cap
    for index, layer in enumerate(layers[: cap + 1]):
        # Sizes compare by pixels: a portrait tile of a landscape camera is still that many pixels.
        if layer.width * layer.height >= wish.width * wish.height:
            return index
    return cap


def top_layer(layers: tuple[LayerSpec, ...]) -> int:
    """The highest layer that can be wanted."""
    return len(layers) - 1 if layers else TOP_LAYER


class LayerDemand:
    """The highest layer that anybody wants of one track, as its publisher should know it (-1: none).

    More is news at once, less when it has been less for `LOWER_AFTER_S`. A publisher who was told nothing
    sends everything.
    """

    __slots__ = ("_less_since", "_top", "_wanted", "told")

    def __init__(self) -> None:
        self.told: int | None = None
        self._wanted = self._top = TOP_LAYER
        self._less_since: float | None = None

    def want(self, highest: int, top: int) -> bool:
        """True if the publisher must hear it now; `advance` decides the rest."""
        self._wanted, self._top = highest, top
        if self.is_waiting:
            return False
        self._less_since = None
        if highest == self._known:
            return False
        self.told = highest
        return True

    @property
    def is_waiting(self) -> bool:
        """Less is wanted than the publisher knows."""
        return self._wanted < self._known

    @property
    def _known(self) -> int:
        return self._top if self.told is None else self.told

    def advance(self, now: float) -> bool:
        """Let time pass; True if less is news now."""
        if self._less_since is None:
            self._less_since = now
        if now - self._less_since < LOWER_AFTER_S:
            return False
        self.told, self._less_since = self._wanted, None
        return True


def is_pinned(wish: Wish) -> bool:
    """The subscriber asked for it before others."""
    return wish.priority > _ORDINARY


def bandwidth_priority(wish: Wish, source: str, *, speaks: bool) -> int:
    """Screen share, then what the subscriber pinned, then the dominant speaker, then the rest."""
    if source == SCREEN_SHARE:
        return SCREEN_PRIORITY
    if is_pinned(wish):
        return PINNED_PRIORITY + min(wish.priority, 255) // 4
    return SPEAKER_PRIORITY if speaks else 0
