"""aiortc's SCTP and data channels, without the rest of aiortc.

`import aiortc` loads all of it, PyAV and FFmpeg too: more than half of a worker's memory, for codecs that it never
runs. Here the package is entered unexecuted, its two modules of SCTP are imported, and it is executed by whoever
first asks it for anything else (PEP 562), such as a test in the same process; the classes are the same ones then.
COMPAT: aiortc 1.16.0, whose `__init__` imports everything, and whose SCTP imports DTLS, and with it RTP and PyAV, for
an annotation. Look again with every new version.
Not here: what we do with SCTP (`sfu.datachannel`).
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Final

_DTLS: Final = "aiortc.rtcdtlstransport"


def _enter_without_the_rest() -> None:
    if "aiortc" in sys.modules:
        return  # all of it is there, or we were here before
    spec = importlib.util.find_spec("aiortc")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("aiortc is not installed", name="aiortc")
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def load_the_rest(name: str) -> Any:
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = load_the_rest
    sys.modules["aiortc"] = package
    stand_in = ModuleType(_DTLS)
    stand_in.__dict__["RTCDtlsTransport"] = object  # SCTP names it in annotations only
    sys.modules[_DTLS] = stand_in
    try:
        importlib.import_module(
            "aiortc.rtcdatachannel"
        )  # imports SCTP; the other way round is a cycle
    finally:
        del sys.modules[_DTLS]


_enter_without_the_rest()

from aiortc import rtcsctptransport  # noqa: E402
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters  # noqa: E402
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport  # noqa: E402

__all__ = [
    "RTCDataChannel",
    "RTCDataChannelParameters",
    "RTCSctpCapabilities",
    "RTCSctpTransport",
    "rtcsctptransport",
]
