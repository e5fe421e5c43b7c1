"""Value -> `<jingle/>`: the inverse of `parse` for every value we make.

Same sections as `parse`. No `<encryption/>` is ever written: DTLS-SRTP is the only security we speak.
Not here: the iq around it (`bridge.gateways.xmpp.calls`).
"""

from xml.etree.ElementTree import Element

from bridge.gateways.xmpp.jingle import values as v
from bridge.gateways.xmpp.stanza import add
from sfu.description import Codec, Feedback, Setup


def print_jingle(jingle: v.Jingle) -> Element:
    node = Element(f"{{{v.JINGLE}}}jingle", {"action": jingle.action.value, "sid": jingle.sid})
    if jingle.initiator:
        node.set("initiator", jingle.initiator)
    if jingle.responder:
        node.set("responder", jingle.responder)
    if jingle.bundle:
        group = add(node, v.GROUPING, "group", semantics="BUNDLE")
        for name in jingle.bundle:
            add(group, v.GROUPING, "content", name=name)
    for content in jingle.contents:
        _content(node, content)
    if jingle.reason is not None:
        reason = add(node, v.JINGLE, "reason")
        add(reason, v.JINGLE, jingle.reason.condition)
        if jingle.reason.text:
            add(reason, v.JINGLE, "text", jingle.reason.text)
    if jingle.info is not None:
        info = add(node, v.RTP_INFO, jingle.info.kind.value)
        if jingle.info.creator is not None:
            info.set("creator", jingle.info.creator.value)
        if jingle.info.name:
            info.set("name", jingle.info.name)
    return node


def _content(parent: Element, content: v.Content) -> None:
    node = add(
        parent,
        v.JINGLE,
        "content",
        creator=content.creator.value,
        name=content.name,
        senders=content.senders.value,
    )
    if content.description is not None:
        _rtp(node, content.description)
    if content.transport is not None:
        _transport(node, content.transport)


def _rtp(parent: Element, rtp: v.Rtp) -> None:
    node = add(parent, v.RTP, "description", media=rtp.media)
    for codec in rtp.codecs:
        _codec(node, codec)
    _feedback(node, rtp.feedback)
    for extension in rtp.extensions:
        add(node, v.HEADER_EXTENSIONS, "rtp-hdrext", id=str(extension.id), uri=extension.uri)
    for source in rtp.sources:
        child = add(node, v.SOURCES, "source", ssrc=str(source.ssrc))
        for name, value in source.attributes:
            add(child, v.SOURCES, "parameter", name=name, value=value)
    for group in rtp.source_groups:
        child = add(node, v.SOURCES, "ssrc-group", semantics=group.semantics)
        for ssrc in group.ssrcs:
            add(child, v.SOURCES, "source", ssrc=str(ssrc))
    if rtp.rtcp_mux:
        add(node, v.RTP, "rtcp-mux")


def _codec(parent: Element, codec: Codec) -> None:
    node = add(
        parent,
        v.RTP,
        "payload-type",
        id=str(codec.payload_type),
        name=codec.name,
        clockrate=str(codec.clock_rate),
    )
    if codec.channels != 1:
        node.set("channels", str(codec.channels))
    for name, value in codec.parameters:
        add(node, v.RTP, "parameter", name=name, value=value)
    _feedback(node, codec.feedback)


def _feedback(parent: Element, kinds: tuple[Feedback, ...]) -> None:
    for kind in kinds:
        node = add(parent, v.FEEDBACK, "rtcp-fb", type=kind.kind)
        if kind.parameter:
            node.set("subtype", kind.parameter)


def _transport(parent: Element, transport: v.IceUdp) -> None:
    node = add(parent, v.ICE, "transport")
    if transport.ufrag:
        node.set("ufrag", transport.ufrag)
        node.set("pwd", transport.pwd)
    for mark in transport.fingerprints:
        child = add(node, v.DTLS, "fingerprint", mark.value, hash=mark.algorithm)
        child.set("setup", (transport.setup or Setup.ACTPASS).value)
    for index, candidate in enumerate(transport.candidates):
        child = add(
            node,
            v.ICE,
            "candidate",
            component=str(candidate.component),
            foundation=candidate.foundation,
            generation="0",
            id=f"c{index}",
            ip=candidate.address,
            network="0",
            port=str(candidate.port),
            priority=str(candidate.priority),
            protocol=candidate.protocol,
            type=candidate.kind,
        )
        if candidate.tcp_type is not None:
            child.set("tcptype", candidate.tcp_type)
