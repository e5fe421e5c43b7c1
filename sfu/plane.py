"""What sessions ask of a data plane, in the values of `sfu.description`.

`sfu.native` keeps this promise with the compiled engine; tests keep it with a recording one.
Handles are integers that are never used again. Every call returns at once.
Not here: packets.
"""

from dataclasses import dataclass
from typing import Protocol

from sfu.description import Codec, Extension, MediaKind

Handle = int


@dataclass(frozen=True, slots=True)
class Receiving:
    """How one section's incoming packets find their track. `rids` and `ssrcs` lowest layer first.

    `ssrcs` are (ssrc, rtx ssrc or 0). `codecs` include their rtx entries. `encrypted`: end to end.
    """

    mid: str
    kind: MediaKind
    codecs: tuple[Codec, ...]
    extensions: tuple[Extension, ...]
    rids: tuple[str, ...] = ()
    ssrcs: tuple[tuple[int, int], ...] = ()
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Sending:
    """An outgoing stream of one section, with the peer's payload types and extension ids."""

    mid: str
    kind: MediaKind
    codecs: tuple[Codec, ...]
    extensions: tuple[Extension, ...]
    ssrc: int
    rtx_ssrc: int
    cname: str


class Plane(Protocol):
    """The data plane; semantics as in `sfu/_engine.pyi`."""

    @property
    def port(self) -> int: ...
    @property
    def event_fd(self) -> int: ...
    def poll(self) -> list[tuple[str, int, object]]: ...
    def suits(self, ufrag: str, transport: Handle | None = None) -> bool:
        """Whether this ufrag leads to where a new transport should be at home, or to where that one is."""
        ...

    def open_transport(self, ufrag: str, pwd: str, *, offered_by_us: bool) -> Handle: ...
    def set_remote(self, transport: Handle, ufrag: str, pwd: str) -> None: ...
    def restart_ice(self, transport: Handle, ufrag: str, pwd: str) -> None: ...
    def send_datagram(self, transport: Handle, datagram: bytes) -> None: ...
    def set_keys(
        self, transport: Handle, *, profile: int, material: bytes, is_client: bool
    ) -> None: ...
    def close_transport(self, transport: Handle) -> None: ...
    def publish(self, transport: Handle, group: int, stream: Receiving) -> Handle: ...
    def update_publication(self, publication: Handle, stream: Receiving) -> None: ...
    def unpublish(self, publication: Handle) -> None: ...
    def set_gate(self, publication: Handle, is_open: bool) -> None: ...
    def set_ingress_limit(
        self, transport: Handle, *, bits_per_s: int, packets_per_s: int
    ) -> None: ...
    def subscribe(self, transport: Handle, stream: Sending) -> Handle: ...
    def set_source(self, subscription: Handle, publication: Handle | None) -> None: ...
    def set_layer(self, subscription: Handle, *, max_layer: int, paused: bool) -> None: ...
    def set_frame_rate(self, subscription: Handle, max_fps: int) -> None: ...
    def set_priority(self, subscription: Handle, priority: int) -> None: ...
    def set_loudest(self, group: int, places: int, dominant: Handle | None) -> None: ...
    def unsubscribe(self, subscription: Handle) -> None: ...
    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]: ...
    def close(self) -> None: ...
