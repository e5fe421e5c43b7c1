"""The compiled engine as a `sfu.plane.Plane`: conversion of values, nothing else.

Not here: any decision.
"""

from typing import Final

from sfu import _engine
from sfu.description import Codec, Extension, MediaKind
from sfu.plane import Handle, Receiving, Sending

_EXTENSION_FIELDS: Final = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": "mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": "rid",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": "repaired_rid",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": "audio_level",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": "transport_cc",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": "abs_send_time",
    "urn:3gpp:video-orientation": "video_orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": "abs_capture_time",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay": "playout_delay",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": "dependency_descriptor",
    "urn:ietf:params:rtp-hdrext:framemarking": "frame_marking",
}


def _codecs(codecs: tuple[Codec, ...]) -> list[_engine.Codec]:
    rtx = {
        int(apt): codec.payload_type
        for codec in codecs
        if codec.name.lower() == "rtx" and (apt := codec.parameter("apt") or "").isdigit()
    }
    return [
        _codec(codec, rtx.get(codec.payload_type))
        for codec in codecs
        if codec.name.lower() != "rtx"
    ]


def _codec(codec: Codec, rtx: int | None) -> _engine.Codec:
    feedback = {(f.kind, f.parameter) for f in codec.feedback}
    return _engine.Codec(
        payload_type=codec.payload_type,
        name=codec.name,
        clock_rate=codec.clock_rate,
        channels=codec.channels,
        rtx_payload_type=rtx,
        nack=("nack", "") in feedback,
        pli=("nack", "pli") in feedback,
        fir=("ccm", "fir") in feedback,
        remb=("goog-remb", "") in feedback,
        transport_cc=("transport-cc", "") in feedback,
    )


def _extensions(extensions: tuple[Extension, ...]) -> _engine.Extensions:
    fields = {_EXTENSION_FIELDS[e.uri]: e.id for e in extensions if e.uri in _EXTENSION_FIELDS}
    return _engine.Extensions(**fields)


def _receive_stream(stream: Receiving) -> _engine.ReceiveStream:
    return _engine.ReceiveStream(
        mid=stream.mid,
        video=stream.kind is MediaKind.VIDEO,
        codecs=_codecs(stream.codecs),
        extensions=_extensions(stream.extensions),
        rids=list(stream.rids),
        ssrcs=list(stream.ssrcs),
        encrypted=stream.encrypted,
    )


def local_addresses() -> tuple[tuple[str, str], ...]:
    """(interface, address) of every interface that is up. Raises OSError."""
    return tuple(_engine.local_addresses())


class NativePlane:
    """Keeps `sfu.plane.Plane`."""

    def __init__(
        self,
        listen: tuple[str, ...],
        port: int,
        *,
        tcp: bool = True,
        dscp: bool = True,
        shards: int = 1,
    ) -> None:
        """Bind and start. Raises OSError when a port cannot be bound."""
        self._engine: Final = _engine.Engine(
            listen=list(listen), port=port, tcp=tcp, dscp=dscp, shards=shards
        )
        self._transports: Final = [0] * self._engine.shards  # open ones, by shard
        self._homes: Final[dict[Handle, int]] = {}

    @property
    def port(self) -> int:
        return self._engine.port

    @property
    def event_fd(self) -> int:
        return self._engine.event_fd

    def poll(self) -> list[tuple[str, int, object]]:
        return self._engine.poll()

    def suits(self, ufrag: str, transport: Handle | None = None) -> bool:
        home = self._engine.shard_of(ufrag)
        if transport is not None:
            return home == self._homes.get(transport, home)
        return self._transports[home] == min(self._transports)

    def open_transport(self, ufrag: str, pwd: str, *, offered_by_us: bool) -> Handle:
        handle = self._engine.open_transport(
            local_ufrag=ufrag, local_pwd=pwd, offered_by_us=offered_by_us
        )
        home = self._homes[handle] = self._engine.shard_of(ufrag)
        self._transports[home] += 1
        return handle

    def set_remote(self, transport: Handle, ufrag: str, pwd: str) -> None:
        self._engine.set_remote(transport, ufrag=ufrag, pwd=pwd)

    def restart_ice(self, transport: Handle, ufrag: str, pwd: str) -> None:
        self._engine.restart_ice(transport, local_ufrag=ufrag, local_pwd=pwd)

    def send_datagram(self, transport: Handle, datagram: bytes) -> None:
        self._engine.send_datagram(transport, datagram)

    def set_keys(
        self, transport: Handle, *, profile: int, material: bytes, is_client: bool
    ) -> None:
        self._engine.set_keys(transport, profile=profile, material=material, is_client=is_client)

    def close_transport(self, transport: Handle) -> None:
        home = self._homes.pop(transport, None)
        if home is not None:
            self._transports[home] -= 1
        self._engine.close_transport(transport)

    def publish(self, transport: Handle, group: int, stream: Receiving) -> Handle:
        return self._engine.publish(transport, group=group, stream=_receive_stream(stream))

    def update_publication(self, publication: Handle, stream: Receiving) -> None:
        self._engine.update_publication(publication, _receive_stream(stream))

    def unpublish(self, publication: Handle) -> None:
        self._engine.unpublish(publication)

    def set_gate(self, publication: Handle, is_open: bool) -> None:
        self._engine.set_gate(publication, is_open)

    def set_ingress_limit(self, transport: Handle, *, bits_per_s: int, packets_per_s: int) -> None:
        self._engine.set_ingress_limit(
            transport, bits_per_s=bits_per_s, packets_per_s=packets_per_s
        )

    def set_budget(self, transport: Handle, *, bits_per_s: int) -> None:
        self._engine.set_budget(transport, bits_per_s=bits_per_s)

    def subscribe(self, transport: Handle, stream: Sending) -> Handle:
        return self._engine.subscribe(
            transport,
            mid=stream.mid,
            video=stream.kind is MediaKind.VIDEO,
            codecs=_codecs(stream.codecs),
            extensions=_extensions(stream.extensions),
            ssrc=stream.ssrc,
            rtx_ssrc=stream.rtx_ssrc,
            cname=stream.cname,
        )

    def set_source(self, subscription: Handle, publication: Handle | None) -> None:
        self._engine.set_source(subscription, publication)

    def set_layer(self, subscription: Handle, *, max_layer: int, paused: bool) -> None:
        self._engine.set_layer(subscription, max_layer=max_layer, paused=paused)

    def set_frame_rate(self, subscription: Handle, max_fps: int) -> None:
        self._engine.set_frame_rate(subscription, max_fps=max_fps)

    def set_priority(self, subscription: Handle, priority: int) -> None:
        self._engine.set_priority(subscription, priority=priority)

    def set_loudest(self, group: int, places: int, dominant: Handle | None) -> None:
        self._engine.set_loudest(group, places=places, dominant=dominant)

    def unsubscribe(self, subscription: Handle) -> None:
        self._engine.unsubscribe(subscription)

    def statistics(self) -> dict[str, list[tuple[int, dict[str, int]]]]:
        return self._engine.statistics()

    def close(self) -> None:
        self._engine.close()
