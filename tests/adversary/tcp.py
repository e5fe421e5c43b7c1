"""A TCP connection to the media port that behaves like a `Wire`: RFC 4571 frames instead of datagrams.

Not here: what is sent through it (tests.adversary.media).
"""

import select
import socket
import struct
import time

from tests.adversary.media import SILENCE, WAIT_S, Wire


class StreamWire(Wire):
    """Aimed at the engine. As it is, a stranger's. `rig` closes it in the end."""

    def __init__(self, address: tuple[str, int], receive_buffer_bytes: int | None = None) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Wire.opened.append(self)
        self.bytes_out = 0
        self.bytes_in = 0
        self._input = b""

    def send(self, datagram: bytes) -> None:
        self.bytes_out += len(datagram)
        self.socket.sendall(struct.pack("!H", len(datagram)) + datagram)

    def receive(self, within_s: float = WAIT_S) -> bytes:
        """One frame, or `SILENCE`; ConnectionError when the engine closed."""
        end = time.monotonic() + within_s
        while True:
            if len(self._input) >= 2:
                size = struct.unpack("!H", self._input[:2])[0]
                if len(self._input) >= 2 + size:
                    frame, self._input = self._input[2 : 2 + size], self._input[2 + size :]
                    self.bytes_in += size
                    return frame
            ready, _, _ = select.select([self.socket], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return SILENCE
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("closed")
            self._input += data

    def is_closed(self, within_s: float = WAIT_S) -> bool:
        """Whether the engine closes it in this time."""
        end = time.monotonic() + within_s
        try:
            while time.monotonic() < end:
                self.receive(end - time.monotonic())
        except ConnectionError:
            return True
        return False
