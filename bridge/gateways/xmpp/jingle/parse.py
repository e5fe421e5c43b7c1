"""`<jingle/>` -> value. Total: a value, or `Malformed` for anything a peer must not send.

XEP-0166 section 7, XEP-0167 section 4, XEP-0176 section 5.3, XEP-0293, 0294, 0320, 0338, 0339.
Unknown elements and attributes are skipped: extensions must not end calls. Every list and number is capped.
Not here: whether a session allows this now (`session`).
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar
from xml.etree.ElementTree import Element

from bridge.conference.errors import Malformed
from bridge.gateways.xmpp.jingle import values as v
from sfu.description import (
    MAX_CANDIDATES,
    MAX_CODECS,
    MAX_EXTENSIONS,
    MAX_SOURCES,
    Candidate,
    Codec,
    Extension,
    Feedback,
    Fingerprint,
    Setup,
    Source,
    SourceGroup,
)

MAX_SID: Final = 128  # characters
MAX_CONTENTS: Final = 16  # of one session; clients use two or three
MAX_NAME: Final = 64  # characters of a content name, which becomes a mid
MAX_PARAMETERS: Final = 32  # of one codec or source
MAX_FEEDBACK: Final = 32  # of one codec
MAX_WORD: Final = 256  # characters of any other attribute
MAX_VALUE: Final = 1024  # characters of an fmtp value; H.264 parameter sets are the longest
MAX_TEXT: Final = 512  # characters of a reason's text
MAX_FINGERPRINTS: Final = 8

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")  # RFC 8866 token: mids are tokens
_ICE_CHARS: Final = re.compile(
    r"[A-Za-z0-9+/=_-]+"
)  # COMPAT: `=_-` seen from clients beside RFC 8839's
_HEX: Final = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){15,63}")

T = TypeVar("T")


def parse_jingle(node: Element) -> v.Jingle:
    """Raises `Malformed`."""
    if node.tag != f"{{{v.JINGLE}}}jingle":
        raise Malformed("not a jingle element")
    try:
        action = v.Action(node.get("action", ""))
    except ValueError:
        raise Malformed("unknown jingle action") from None
    sid = node.get("sid", "")
    if not 0 < len(sid) <= MAX_SID:
        raise Malformed(f"sid of {len(sid)} characters")
    contents = _each(node, v.JINGLE, "content", MAX_CONTENTS, _content)
    if len({(content.creator, content.name) for content in contents}) != len(contents):
        raise Malformed("two contents with one name")
    info, has_unknown_info = _info(node) if action is v.Action.SESSION_INFO else (None, False)
    return v.Jingle(
        action=action,
        sid=sid,
        initiator=_word(node, "initiator", limit=3071),
        responder=_word(node, "responder", limit=3071),
        contents=contents,
        bundle=_bundle(node),
        reason=_reason(node),
        info=info,
        has_unknown_info=has_unknown_info,
    )


def _each(
    node: Element, namespace: str, name: str, limit: int, parse: Callable[[Element], T]
) -> tuple[T, ...]:
    found = node.findall(f"{{{namespace}}}{name}")
    if len(found) > limit:
        raise Malformed(f"more than {limit} {name} elements")
    return tuple(parse(child) for child in found)


def _word(node: Element, key: str, *, limit: int = MAX_WORD, required: bool = False) -> str:
    value = node.get(key, "")
    if len(value) > limit or (required and not value):
        raise Malformed(f"{key} missing or longer than {limit} characters")
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise Malformed(f"control character in {key}")
    return value


def _number(node: Element, key: str, low: int, high: int, default: int | None = None) -> int:
    text = node.get(key)
    if text is None and default is not None:
        return default
    # isdecimal() is true for other scripts' digits; int() of a long string is quadratic.
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise Malformed(f"{key} is not a number")
    value = int(text)
    if not low <= value <= high:
        raise Malformed(f"{key} outside {low}..{high}")
    return value


def _name(node: Element, key: str = "name") -> str:
    name = _word(node, key, limit=MAX_NAME, required=True)
    if not _TOKEN.fullmatch(name):
        raise Malformed("content name is not a token")
    return name


def _party(node: Element) -> v.Party:
    try:
        return v.Party(node.get("creator", "initiator"))
    except ValueError:
        raise Malformed("unknown creator") from None


def _bundle(node: Element) -> tuple[str, ...]:
    for group in node.findall(f"{{{v.GROUPING}}}group"):
        if group.get("semantics") == "BUNDLE":
            return _each(group, v.GROUPING, "content", MAX_CONTENTS, _name)
    return ()


def _reason(node: Element) -> v.Reason | None:
    reason = node.find(f"{{{v.JINGLE}}}reason")
    if reason is None:
        return None
    condition, text = "", ""
    for child in reason:
        namespace, _, name = child.tag[1:].partition("}")
        if namespace != v.JINGLE:
            continue
        if name == "text":
            text = "".join(char for char in (child.text or "")[:MAX_TEXT] if char.isprintable())
        elif not condition:
            condition = name[:MAX_NAME]
    return v.Reason(condition or "general-error", text)


def _info(node: Element) -> tuple[v.Info | None, bool]:
    """An empty session-info is a ping (XEP-0166 section 6.8)."""
    unknown = False
    for child in node:
        namespace, _, name = child.tag[1:].partition("}")
        if namespace != v.RTP_INFO:
            unknown = True
            continue
        try:
            kind = v.InfoKind(name)
        except ValueError:
            unknown = True
            continue
        creator = _party(child) if child.get("creator") is not None else None
        return v.Info(kind, _name(child) if child.get("name") else "", creator), False
    return None, unknown


def _content(node: Element) -> v.Content:
    try:
        senders = v.Senders(node.get("senders", "both"))
    except ValueError:
        raise Malformed("unknown senders") from None
    description = node.find(f"{{{v.RTP}}}description")
    transport = node.find(f"{{{v.ICE}}}transport")
    return v.Content(
        name=_name(node),
        creator=_party(node),
        senders=senders,
        description=None if description is None else _rtp(description),
        transport=None if transport is None else _transport(transport),
    )


def _rtp(node: Element) -> v.Rtp:
    codecs = _each(node, v.RTP, "payload-type", MAX_CODECS, _codec)
    if len({codec.payload_type for codec in codecs}) != len(codecs):
        raise Malformed("two payload types with one number")
    return v.Rtp(
        media=_word(node, "media", required=True),
        codecs=codecs,
        feedback=_each(node, v.FEEDBACK, "rtcp-fb", MAX_FEEDBACK, _feedback),
        extensions=_unique_extensions(
            _each(node, v.HEADER_EXTENSIONS, "rtp-hdrext", MAX_EXTENSIONS, _extension)
        ),
        sources=_each(node, v.SOURCES, "source", MAX_SOURCES, _source),
        source_groups=_each(node, v.SOURCES, "ssrc-group", MAX_SOURCES, _source_group),
        rtcp_mux=node.find(f"{{{v.RTP}}}rtcp-mux") is not None,
    )


def _unique_extensions(extensions: tuple[Extension, ...]) -> tuple[Extension, ...]:
    if len({extension.id for extension in extensions}) != len(extensions):
        raise Malformed("two header extensions with one id")
    return extensions


def _codec(node: Element) -> Codec:
    return Codec(
        payload_type=_number(node, "id", 0, 127),
        # Static types (PCMU = 0) may come without a name (XEP-0167 section 4).
        name=_word(node, "name") or f"static-{_number(node, 'id', 0, 127)}",
        clock_rate=_number(node, "clockrate", 1, 1_000_000, default=8000),
        channels=_number(node, "channels", 1, 255, default=1),
        parameters=_each(node, v.RTP, "parameter", MAX_PARAMETERS, _parameter),
        feedback=_each(node, v.FEEDBACK, "rtcp-fb", MAX_FEEDBACK, _feedback),
    )


def _parameter(node: Element) -> tuple[str, str]:
    return _word(node, "name"), _word(node, "value", limit=MAX_VALUE)


def _feedback(node: Element) -> Feedback:
    return Feedback(_word(node, "type", required=True), _word(node, "subtype"))


def _extension(node: Element) -> Extension:
    # 15 is reserved in the one-byte form (RFC 8285 section 4.2).
    extension = Extension(_number(node, "id", 1, 255), _word(node, "uri", required=True))
    if extension.id == 15:
        raise Malformed("header extension id 15")
    return extension


def _source(node: Element) -> Source:
    attributes = _each(node, v.SOURCES, "parameter", MAX_PARAMETERS, _parameter)
    return Source(_number(node, "ssrc", 0, 0xFFFFFFFF), attributes)


def _source_group(node: Element) -> SourceGroup:
    ssrcs = _each(
        node, v.SOURCES, "source", MAX_SOURCES, lambda s: _number(s, "ssrc", 0, 0xFFFFFFFF)
    )
    return SourceGroup(_word(node, "semantics", required=True), ssrcs)


def _transport(node: Element) -> v.IceUdp:
    marks = node.findall(f"{{{v.DTLS}}}fingerprint")
    if len(marks) > MAX_FINGERPRINTS:
        raise Malformed(f"more than {MAX_FINGERPRINTS} fingerprints")
    return v.IceUdp(
        ufrag=_credential(node, "ufrag", 4),
        pwd=_credential(node, "pwd", 22),
        fingerprints=tuple(_fingerprint(mark) for mark in marks),
        setup=_setup(marks),
        candidates=_each(node, v.ICE, "candidate", MAX_CANDIDATES, _candidate),
    )


def _credential(node: Element, key: str, shortest: int) -> str:
    """RFC 8839 section 5.4: 4 to 256, and 22 to 256 characters; absent in a plain transport-info."""
    value = _word(node, key)
    if value and (len(value) < shortest or not _ICE_CHARS.fullmatch(value)):
        raise Malformed(f"{key} is not an ICE credential")
    return value


def _fingerprint(node: Element) -> Fingerprint:
    value = (node.text or "").strip().upper()
    if not _HEX.fullmatch(value):
        raise Malformed("fingerprint is not hexadecimal pairs")
    return Fingerprint(_word(node, "hash", required=True).lower(), value)


def _setup(marks: Iterable[Element]) -> Setup | None:
    for mark in marks:
        text = mark.get("setup")
        if text is not None:
            try:
                return Setup(text)
            except ValueError:
                raise Malformed("unknown DTLS setup") from None
    return None


def _candidate(node: Element) -> Candidate:
    return Candidate(
        foundation=_word(node, "foundation", limit=32) or "0",
        component=_number(node, "component", 1, 256),
        protocol=_word(node, "protocol", required=True).lower(),
        priority=_number(node, "priority", 0, 0xFFFFFFFF),
        address=_word(node, "ip", required=True),
        port=_number(node, "port", 0, 65535),
        kind=_word(node, "type") or "host",
        tcp_type=_word(node, "tcptype") or None,
    )
