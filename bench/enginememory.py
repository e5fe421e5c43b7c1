"""What an idle session costs in the engine alone: a process of its own, no sessions, then so many.

Each has a transport with its keys, an audio and a video stream down, and every twentieth publishes, as in scenario G.
Prints one JSON object. Not here: Python's share (`bench.scenarios.g_idle`).
"""

import json
import os
import sys
import time
from typing import Final

from bench import machine
from bench.cast import OPUS, SIMULCAST
from bench.peer import CODECS, extensions
from sfu.description import MediaKind
from sfu.native import NativePlane
from sfu.plane import Handle, Receiving, Sending

ROOM: Final = 20  # people
SETTLE_S: Final = 1.0
_MATERIAL: Final = bytes(range(56))


def _enter(plane: NativePlane, number: int, published: list[Handle]) -> None:
    own = plane.open_transport(f"user{number:06}", "p" * 24, offered_by_us=False)
    plane.set_remote(own, f"peer{number:06}", "q" * 24)
    plane.set_keys(own, profile=7, material=_MATERIAL, is_client=False)
    if number % ROOM == 0:
        published.clear()
        for at, media in enumerate((OPUS, SIMULCAST)):
            rids = tuple(layer.rid for layer in media.layers if layer.rid)
            stream = Receiving(
                str(at), media.kind, CODECS[media.kind], extensions(media.kind), rids
            )
            published.append(plane.publish(own, number // ROOM, stream))
        return
    for at, kind in enumerate((MediaKind.AUDIO, MediaKind.VIDEO)):
        ssrc = 4 * number + 2 * at + 1
        repair = ssrc + 1 if kind is MediaKind.VIDEO else 0
        down = Sending(str(at), kind, CODECS[kind], extensions(kind), ssrc, repair, "cname")
        plane.set_source(plane.subscribe(own, down), published[at])


def main(argv: list[str]) -> int:
    sessions = int(argv[0])
    plane = NativePlane(("127.0.0.1",), 0)
    published: list[Handle] = []
    _enter(plane, 0, published)
    time.sleep(SETTLE_S)
    before = machine.resident_bytes(os.getpid())
    for number in range(1, sessions):
        _enter(plane, number, published)
        if number % ROOM == 0:
            time.sleep(0.002)  # its queue of commands is bounded
    time.sleep(SETTLE_S)
    known = len(plane.statistics()["transports"])
    assert known == sessions, f"the engine has {known} sessions"
    after = machine.resident_bytes(os.getpid())
    plane.close()
    grown = (after - before) / (sessions - 1)
    print(json.dumps({"sessions": sessions, "bytes_per_session": grown}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
