"""The only adapter between conferences and the media worker.

Not here: packets (`sfu`, `engine`), wires (`bridge.gateways`).
"""

from bridge.media.media import WorkerMedia
from bridge.media.readoption import Held, Readopted

__all__ = ["Held", "Readopted", "WorkerMedia"]
