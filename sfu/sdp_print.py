"""A `Description` as SDP text: the inverse of `sfu.sdp.parse`.

RFC 8829 section 5.2 and 5.3 (what JSEP peers expect to read), RFC 9143 (BUNDLE), RFC 8839 section 5 (ICE).
Not here: reading (`sfu.sdp`), what to put into a description (`sfu.session`).
"""

from collections.abc import Iterable

from sfu.description import Candidate, Codec, Description, Direction, MediaKind, Section, Transport


def print_description(
    description: Description, *, session_id: int = 1, session_version: int = 1
) -> str:
    """The text of this description. `session_version` must grow with each text sent (RFC 8866 section 5.2)."""
    lines = ["v=0", f"o=- {session_id} {session_version} IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if description.bundle:
        lines.append("a=group:BUNDLE " + " ".join(description.bundle))
    if any(section.transport.ice_lite for section in description.sections):
        lines.append("a=ice-lite")
    lines.append("a=msid-semantic: WMS *")
    live = {section.mid for section in description.sections if not section.rejected}
    tagged = next((mid for mid in description.bundle if mid in live), None)
    for section in description.sections:
        is_follower = section.mid in description.bundle and section.mid != tagged
        lines.extend(_print_section(section, with_candidates=not is_follower))
    return "\r\n".join(lines) + "\r\n"


def _print_section(section: Section, *, with_candidates: bool) -> Iterable[str]:
    port = 0 if section.rejected else 9  # 9 = discard: the candidates tell
    if section.kind is MediaKind.APPLICATION:
        yield f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel"
    else:
        nothing = (
            "0" if section.rejected else "127"
        )  # the grammar wants one; 127 has no static meaning
        formats = " ".join(str(codec.payload_type) for codec in section.codecs) or nothing
        yield f"m={section.kind.value} {port} UDP/TLS/RTP/SAVPF {formats}"
    yield "c=IN IP4 0.0.0.0"
    if section.rejected:
        yield f"a=mid:{section.mid}"
        yield "a=inactive"
        return
    yield from _print_transport(section.transport, with_candidates=with_candidates)
    yield f"a=mid:{section.mid}"
    if section.kind is MediaKind.APPLICATION:
        if section.direction is not Direction.SENDRECV:
            yield f"a={section.direction.value}"
        yield f"a=sctp-port:{section.sctp_port if section.sctp_port is not None else 5000}"
        if section.max_message_size is not None:
            yield f"a=max-message-size:{section.max_message_size}"
        return
    if section.mixed_extensions:
        yield "a=extmap-allow-mixed"
    yield from (f"a=extmap:{e.id} {e.uri}" for e in section.extensions)
    yield f"a={section.direction.value}"
    if section.stream is not None:
        yield f"a=msid:{section.stream}" + (f" {section.track}" if section.track else "")
    if section.rtcp_mux:
        yield "a=rtcp-mux"
    yield "a=rtcp-rsize"
    for codec in section.codecs:
        yield from _print_codec(codec)
    yield from _print_sources(section)


def _print_transport(transport: Transport, *, with_candidates: bool) -> Iterable[str]:
    if with_candidates and transport.candidates:
        yield from (f"a=candidate:{_print_candidate(c)}" for c in transport.candidates)
        yield "a=end-of-candidates"  # we never trickle: the port is known from the start
    yield f"a=ice-ufrag:{transport.ufrag}"
    yield f"a=ice-pwd:{transport.pwd}"
    yield from (f"a=fingerprint:{f.algorithm} {f.value}" for f in transport.fingerprints)
    yield f"a=setup:{transport.setup.value}"


def _print_candidate(c: Candidate) -> str:
    tail = f" tcptype {c.tcp_type}" if c.tcp_type else ""
    return (
        f"{c.foundation} {c.component} {c.protocol} {c.priority} {c.address} {c.port}"
        f" typ {c.kind}{tail}"
    )


def _print_codec(codec: Codec) -> Iterable[str]:
    channels = f"/{codec.channels}" if codec.channels != 1 else ""
    yield f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"
    for feedback in codec.feedback:
        tail = f" {feedback.parameter}" if feedback.parameter else ""
        yield f"a=rtcp-fb:{codec.payload_type} {feedback.kind}{tail}"
    if codec.parameters:
        pairs = (f"{key}={value}" if value else key for key, value in codec.parameters)
        yield f"a=fmtp:{codec.payload_type} " + ";".join(pairs)


def _print_sources(section: Section) -> Iterable[str]:
    for group in section.source_groups:
        yield f"a=ssrc-group:{group.semantics} " + " ".join(map(str, group.ssrcs))
    for source in section.sources:
        if not source.attributes:
            yield f"a=ssrc:{source.ssrc}"
        for name, value in source.attributes:
            yield f"a=ssrc:{source.ssrc} {name}" + (f":{value}" if value else "")
    for rid in section.rids:
        yield f"a=rid:{rid.id} {'send' if rid.send else 'recv'}"
    parts = (
        f"{word} " + ";".join(rid.id for rid in section.rids if rid.send is send)
        for word, send in (("send", True), ("recv", False))
        if any(rid.send is send for rid in section.rids)
    )
    if section.rids:
        yield "a=simulcast:" + " ".join(parts)
