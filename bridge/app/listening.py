"""The public listener survives a crash: our spawned media worker holds it too, and the next start takes it back.

Connections wait in the backlog meanwhile. Only with a worker of our own: another container's network is not ours.
Not here: how a socket changes hands (`sfu.held`), what is served (`bridge.http`).
"""

import socket
from ipaddress import ip_address
from pathlib import Path

from sfu import held

_BACKLOG = 128  # who waits while nobody accepts


class Listening:
    """Gives `bridge.http` its public socket; `close` after an orderly end."""

    def __init__(self, control: Path) -> None:
        self._path = held.path_beside(control)
        self._owner: held.Owner | None = None

    async def open(self, host: str, port: int) -> socket.socket | None:
        """The listener of a former process or a new one, held from now on. None: bind as usual.

        Raises OSError when the port is taken by somebody else.
        """
        if not port or not _is_literal(host):
            return None
        self._owner = held.Owner.connect(self._path)
        if self._owner is None:
            return None
        listening = await self._owner.take((host, port))
        if listening is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
            listening.setblocking(False)
        self._owner.keep(listening)
        return listening

    def close(self) -> None:
        if self._owner is not None:
            self._owner.drop()
            self._owner.close()
            self._owner = None


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
