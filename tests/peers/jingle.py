"""An independent XMPP client with Jingle calls (slixmpp, aiortc): it shares no code with bridge or sfu.

It logs in, reads and writes in a chat room, calls or answers, sends a tone and a coloured picture, and tells
what it hears and sees. Two manners: `grouped` as libwebrtc clients do (XEP-0338, one transport), plain as
Dino does (one transport per content, payload types 111 and 98).
As a process: JSON lines on stdin and stdout (`tests.peers.process`), so that a scenario can SIGKILL it.
Not here: what is asserted.
"""

import argparse
import asyncio
import contextlib
import fractions
import json
import secrets
import sys
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import aioice.ice
import av
import numpy as np
import slixmpp
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
    codecs,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription, candidate_from_sdp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

RATE_HZ: Final = 48_000
WIDTH, HEIGHT, FPS = 320, 180, 12
WAIT_S: Final = 20.0

NS_JINGLE = "urn:xmpp:jingle:1"
NS_RTP = "urn:xmpp:jingle:apps:rtp:1"
NS_INFO = "urn:xmpp:jingle:apps:rtp:info:1"
NS_ICE = "urn:xmpp:jingle:transports:ice-udp:1"
NS_DTLS = "urn:xmpp:jingle:apps:dtls:0"
NS_FB = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"
NS_EXT = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0"
NS_SSMA = "urn:xmpp:jingle:apps:rtp:ssma:0"
NS_GROUP = "urn:xmpp:jingle:apps:grouping:0"
NS_JMI = "urn:xmpp:jingle-message:0"

# Everything stays on loopback; aioice leaves 127.0.0.1 out by default.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []


def plain_codecs() -> None:
    """Dino's payload types, process-wide because aiortc keeps its codecs in a module."""
    opus = next(c for c in codecs.CODECS["audio"] if c.mimeType.lower() == "audio/opus")
    opus.payloadType, opus.parameters = 111, {"useinbandfec": "1"}
    vp8 = next(c for c in codecs.CODECS["video"] if c.mimeType.lower() == "video/vp8")
    vp8.payloadType = 98
    codecs.CODECS["audio"][:] = [opus]
    codecs.CODECS["video"][:] = [vp8]


# --- what it sends ------------------------------------------------------------------------------------


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, hz: float) -> None:
        super().__init__()
        self.hz = hz
        self.is_muted = False
        self._at = 0
        self._began_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        count = RATE_HZ // 50
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s = now_s
        await asyncio.sleep(max(0.0, self._began_s + self._at / RATE_HZ - now_s))
        level = 0 if self.is_muted else 8000
        sound = level * np.sin(2 * np.pi * self.hz * (np.arange(count) + self._at) / RATE_HZ)
        frame = av.AudioFrame.from_ndarray(
            sound.astype(np.int16).reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = (
            RATE_HZ,
            self._at,
            fractions.Fraction(1, RATE_HZ),
        )
        self._at += count
        return frame


class Colour(VideoStreamTrack):
    def __init__(self, rgb: tuple[int, int, int]) -> None:
        super().__init__()
        self.rgb = rgb
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[:] = self.rgb
        left = (self._count * 8) % (WIDTH - 16)
        picture[HEIGHT - 8 : HEIGHT, left : left + 16] = 255  # something must move
        self._count += 1
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        await asyncio.sleep(max(0.0, 1 / FPS - 1 / 30))  # next_timestamp paces to 30
        return frame


# --- what it receives -------------------------------------------------------------------------------


@dataclass(slots=True)
class Ears:
    """The last second of sound."""

    samples: deque[tuple[float, np.ndarray[Any, Any]]] = field(
        default_factory=lambda: deque(maxlen=50)
    )
    frames: int = 0

    async def listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                flat = frame.to_ndarray().reshape(-1)
                mono = flat[:: len(frame.layout.channels)].copy()
                self.samples.append((time.monotonic(), mono))
                self.frames += 1

    def tones(self) -> list[list[float]]:
        """[Hz, dB] of the strongest peaks of the last second; empty when silent."""
        since_s = time.monotonic() - 1.2
        recent = [mono for at_s, mono in self.samples if at_s > since_s]
        if len(recent) < 25:
            return []
        sound = np.concatenate(recent).astype(np.float64) / 32768
        size = len(sound)
        level_db = 20 * np.log10(np.abs(np.fft.rfft(sound * np.hanning(size))) / size * 4 + 1e-9)
        peaks: list[list[float]] = []
        for index in np.argsort(level_db)[::-1][:40]:
            hz = float(index * RATE_HZ / size)
            if hz >= 100 and level_db[index] >= -50 and all(abs(hz - p[0]) > 25 for p in peaks):
                peaks.append([round(hz, 1), round(float(level_db[index]), 1)])
        return peaks[:5]


@dataclass(slots=True)
class Eyes:
    rgb: list[int] = field(default_factory=list)
    width: int = 0
    frames: int = 0

    async def watch(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.frames += 1
                self.width = frame.width
                picture = frame.to_ndarray(format="rgb24")
                self.rgb = [int(v) for v in picture[frame.height // 3, frame.width // 2]]


# --- Jingle <-> SDP ----------------------------------------------------------------------------------


def q(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


_SETUP = {"auto": "actpass", "client": "active", "server": "passive"}


def sdp_to_jingle(sdp: str, jingle: ET.Element, *, we_initiated: bool, grouped: bool) -> None:
    parsed = SessionDescription.parse(sdp)
    if grouped and len(parsed.media) > 1:
        group = ET.SubElement(jingle, q(NS_GROUP, "group"), semantics="BUNDLE")
        for media in parsed.media:
            ET.SubElement(group, q(NS_GROUP, "content"), name=media.rtp.muxId)
    mine, theirs = ("initiator", "responder") if we_initiated else ("responder", "initiator")
    senders = {"sendrecv": "both", "sendonly": mine, "recvonly": theirs, "inactive": "none"}
    for media in parsed.media:
        content = ET.SubElement(
            jingle,
            q(NS_JINGLE, "content"),
            creator="initiator",
            name=media.rtp.muxId,
            senders=senders[media.direction or "sendrecv"],
        )
        _description(content, media)
        transport = ET.SubElement(
            content,
            q(NS_ICE, "transport"),
            ufrag=media.ice.usernameFragment or "",
            pwd=media.ice.password or "",
        )
        mark = next(f for f in media.dtls.fingerprints if f.algorithm == "sha-256")
        node = ET.SubElement(
            transport,
            q(NS_DTLS, "fingerprint"),
            hash=mark.algorithm,
            setup=_SETUP[media.dtls.role],
        )
        node.text = mark.value
        for number, candidate in enumerate(media.ice_candidates):
            ET.SubElement(
                transport,
                q(NS_ICE, "candidate"),
                component=str(candidate.component),
                foundation=candidate.foundation,
                generation="0",
                id=f"k{number}",
                ip=candidate.ip,
                network="0",
                port=str(candidate.port),
                priority=str(candidate.priority),
                protocol=candidate.protocol,
                type=candidate.type,
            )


def _description(content: ET.Element, media: Any) -> None:
    node = ET.SubElement(content, q(NS_RTP, "description"), media=media.kind)
    for codec in media.rtp.codecs:
        payload = ET.SubElement(
            node,
            q(NS_RTP, "payload-type"),
            id=str(codec.payloadType),
            name=codec.mimeType.split("/")[1],
            clockrate=str(codec.clockRate),
        )
        if codec.channels:
            payload.set("channels", str(codec.channels))
        for key, value in codec.parameters.items():
            ET.SubElement(payload, q(NS_RTP, "parameter"), name=key, value=str(value))
        for feedback in codec.rtcpFeedback:
            child = ET.SubElement(payload, q(NS_FB, "rtcp-fb"), type=feedback.type)
            if feedback.parameter:
                child.set("subtype", feedback.parameter)
    for extension in media.rtp.headerExtensions:
        ET.SubElement(node, q(NS_EXT, "rtp-hdrext"), id=str(extension.id), uri=extension.uri)
    for source in media.ssrc:
        child = ET.SubElement(node, q(NS_SSMA, "source"), ssrc=str(source.ssrc))
        if source.cname:
            ET.SubElement(child, q(NS_SSMA, "parameter"), name="cname", value=source.cname)
    ET.SubElement(node, q(NS_RTP, "rtcp-mux"))


def jingle_to_sdp(jingle: ET.Element, *, they_initiated: bool) -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    group = jingle.find(q(NS_GROUP, "group"))
    if group is not None:
        lines.append("a=group:BUNDLE " + " ".join(c.get("name", "") for c in group))
    lines.append("a=msid-semantic:WMS *")
    theirs = "initiator" if they_initiated else "responder"
    for content in jingle.findall(q(NS_JINGLE, "content")):
        lines += _media_lines(content, theirs)
    return "\r\n".join(lines) + "\r\n"


def _media_lines(content: ET.Element, theirs: str) -> list[str]:
    node, transport = content.find(q(NS_RTP, "description")), content.find(q(NS_ICE, "transport"))
    assert node is not None
    assert transport is not None
    payloads = node.findall(q(NS_RTP, "payload-type"))
    numbers = " ".join(p.get("id", "") for p in payloads)
    senders = content.get("senders", "both")
    direction = {"both": "sendrecv", "none": "inactive"}.get(
        senders, "sendonly" if senders == theirs else "recvonly"
    )
    lines = [
        f"m={node.get('media')} 9 UDP/TLS/RTP/SAVPF {numbers}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{content.get('name')}",
        f"a={direction}",
    ]
    if node.find(q(NS_RTP, "rtcp-mux")) is not None:
        lines.append("a=rtcp-mux")
    lines += [
        f"a=extmap:{e.get('id')} {e.get('uri')}" for e in node.findall(q(NS_EXT, "rtp-hdrext"))
    ]
    for payload in payloads:
        number, channels = payload.get("id"), payload.get("channels", "1")
        tail = f"/{channels}" if channels != "1" else ""
        lines.append(f"a=rtpmap:{number} {payload.get('name')}/{payload.get('clockrate')}{tail}")
        pairs = [
            f"{p.get('name')}={p.get('value')}" for p in payload.findall(q(NS_RTP, "parameter"))
        ]
        if pairs:
            lines.append(f"a=fmtp:{number} {';'.join(pairs)}")
        for feedback in payload.findall(q(NS_FB, "rtcp-fb")):
            lines.append(
                f"a=rtcp-fb:{number} {feedback.get('type')} {feedback.get('subtype', '')}".rstrip()
            )
    for source in node.findall(q(NS_SSMA, "source")):
        for parameter in source:
            pair = f"{parameter.get('name')}:{parameter.get('value')}"
            lines.append(f"a=ssrc:{source.get('ssrc')} {pair}")
    lines += [f"a=ice-ufrag:{transport.get('ufrag')}", f"a=ice-pwd:{transport.get('pwd')}"]
    mark = transport.find(q(NS_DTLS, "fingerprint"))
    assert mark is not None
    lines += [
        f"a=fingerprint:{mark.get('hash')} {(mark.text or '').strip()}",
        f"a=setup:{mark.get('setup')}",
    ]
    for candidate in transport.findall(q(NS_ICE, "candidate")):
        if candidate.get("component") == "1" and candidate.get("protocol") == "udp":
            lines.append("a=candidate:" + _candidate_words(candidate))
    return lines


def _candidate_words(candidate: ET.Element) -> str:
    keys = ("foundation", "component", "protocol", "priority", "ip", "port")
    return " ".join(candidate.get(k, "") for k in keys) + f" typ {candidate.get('type')}"


# --- the client -----------------------------------------------------------------------------------------


class Client(slixmpp.ClientXMPP):  # type: ignore[misc]
    """One person at one device. At most one call at a time."""

    def __init__(
        self,
        jid: str,
        password: str,
        *,
        tone_hz: float = 440.0,
        rgb: tuple[int, int, int] = (200, 30, 30),
        grouped: bool = True,
        ca: Path | None = None,
        answers: bool = True,
    ) -> None:
        super().__init__(f"{jid}/peer-{secrets.token_hex(3)}", password)
        self.tone = Tone(tone_hz)
        self.rgb = rgb
        self.grouped = grouped
        self.answers = answers
        self.texts: list[dict[str, str]] = []
        self.happened: list[dict[str, Any]] = []
        self.ears, self.eyes = Ears(), Eyes()
        self.pc: RTCPeerConnection | None = None
        self.sid = ""
        self.peer = ""
        self.we_initiated = False
        self.room = ""
        self.nick = ""
        self._connected = asyncio.Event()
        self._online = asyncio.Event()
        self._in_room = asyncio.Event()
        self._proceed: asyncio.Future[str] | None = None
        self._early: list[ET.Element] = []
        self._work: set[asyncio.Task[None]] = set()
        self._actions: asyncio.Queue[ET.Element] = asyncio.Queue()
        if ca is None:
            self.enable_starttls, self.enable_direct_tls, self.enable_plaintext = False, False, True
            self.plugin["feature_mechanisms"].unencrypted_plain = True
        else:
            self.ca_certs = ca
            self.enable_direct_tls = False
        for name in ("xep_0030", "xep_0045", "xep_0115", "xep_0199"):
            self.register_plugin(name)
        for feature in (
            NS_JINGLE,
            NS_RTP,
            f"{NS_RTP[:-2]}:audio",
            f"{NS_RTP[:-2]}:video",
            NS_ICE,
            NS_DTLS,
            NS_JMI,
            *((NS_GROUP,) if grouped else ()),
        ):
            self.plugin["xep_0030"].add_feature(feature)
        self.add_event_handler("session_start", self._on_start)
        self.add_event_handler("groupchat_message", self._on_line)
        self.register_handler(
            Callback(
                "jingle",
                MatchXPath(f"{{jabber:client}}iq/{q(NS_JINGLE, 'jingle')}"),
                self._on_jingle,
            )
        )
        self.register_handler(
            Callback("any-message", MatchXPath("{jabber:client}message"), self._on_message)
        )
        self.register_handler(
            Callback("any-presence", MatchXPath("{jabber:client}presence"), self._on_presence)
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.note("failed", error=repr(task.exception()))

    def note(self, what: str, **details: Any) -> None:
        self.happened.append({"what": what, **details})

    # --- chat ------------------------------------------------------------------------------------------

    async def log_in(self, host: str, port: int) -> None:
        self.connect(host, port)
        await asyncio.wait_for(self._online.wait(), WAIT_S)
        self._spawn(self._act())

    def _on_start(self, _: Any) -> None:
        self.send_presence()
        self._online.set()
        if self.room:
            self._enter()

    async def join(self, room: str, nick: str) -> None:
        self.room, self.nick = room, nick
        self._in_room.clear()
        self._enter()
        await asyncio.wait_for(self._in_room.wait(), WAIT_S)

    def _enter(self) -> None:
        presence = self.make_presence(pto=f"{self.room}/{self.nick}")
        ET.SubElement(presence.xml, "{http://jabber.org/protocol/muc}x")
        presence.send()

    def _on_presence(self, presence: Any) -> None:
        user = presence.xml.find("{http://jabber.org/protocol/muc#user}x")
        codes = [] if user is None else [s.get("code") for s in user if s.tag.endswith("status")]
        if "110" in codes and presence.xml.get("type") is None:
            self._in_room.set()

    def _on_line(self, message: Any) -> None:
        if message["body"]:
            delayed = message.xml.find("{urn:xmpp:delay}delay") is not None
            self.texts.append(
                {
                    "from": message["from"].resource,
                    "text": message["body"],
                    "delayed": "yes" if delayed else "",
                }
            )

    def say(self, text: str) -> None:
        self.send_message(mto=self.room, mbody=text, mtype="groupchat")

    # --- Jingle messages ---------------------------------------------------------------------------------

    def _jmi(self, to: str, verb: str, sid: str, media: tuple[str, ...] = ()) -> None:
        message = self.make_message(mto=to, mtype="chat")
        node = ET.SubElement(message.xml, q(NS_JMI, verb), id=sid)
        for kind in media:
            ET.SubElement(node, q(NS_RTP, "description"), media=kind)
        ET.SubElement(message.xml, "{urn:xmpp:hints}store")
        message.send()

    def _on_message(self, message: Any) -> None:
        for node in message.xml:
            if not node.tag.startswith(f"{{{NS_JMI}}}"):
                continue
            verb, sid, sender = node.tag.split("}")[1], node.get("id", ""), str(message["from"])
            self.note(f"jmi-{verb}", sid=sid, sender=sender)
            if verb == "proceed" and sid == self.sid and self._proceed is not None:
                if not self._proceed.done():
                    self._proceed.set_result(sender)
            elif verb == "reject" and sid == self.sid and self._proceed is not None:
                if not self._proceed.done():
                    self._proceed.set_exception(ConnectionRefusedError("rejected"))
            elif verb == "propose" and self.answers and self.pc is None:
                self._jmi(sender, "ringing", sid)
                self._jmi(sender, "proceed", sid)

    # --- calls -------------------------------------------------------------------------------------------

    def _make_pc(self) -> RTCPeerConnection:
        policy = RTCBundlePolicy.MAX_BUNDLE if self.grouped else RTCBundlePolicy.MAX_COMPAT
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))
        self._connected.clear()
        self.ears, self.eyes = Ears(), Eyes()

        @pc.on("connectionstatechange")
        def changed() -> None:
            self.note("connection", state=pc.connectionState)
            if pc.connectionState == "connected":
                self._connected.set()

        @pc.on("track")
        def track(track: MediaStreamTrack) -> None:
            work = self.ears.listen(track) if track.kind == "audio" else self.eyes.watch(track)
            self._spawn(work)

        return pc

    async def call(self, focus: str, *, by_message: bool = True, video: bool = True) -> None:
        """Ring the focus (XEP-0353) or call its full address at once; returns when media is up."""
        self.sid, self.we_initiated = secrets.token_hex(8), True
        media = ("audio", "video") if video else ("audio",)
        if by_message:
            self._proceed = asyncio.get_running_loop().create_future()
            self._jmi(focus, "propose", self.sid, media)
            self.peer = await asyncio.wait_for(self._proceed, WAIT_S)
        else:
            self.peer = f"{focus}/focus"
        self.pc = pc = self._make_pc()
        pc.addTrack(self.tone)
        if video:
            pc.addTrack(Colour(self.rgb))
        await pc.setLocalDescription(await pc.createOffer())
        iq, jingle = self._jingle("session-initiate", initiator=str(self.boundjid))
        sdp_to_jingle(pc.localDescription.sdp, jingle, we_initiated=True, grouped=self.grouped)
        await iq.send(timeout=WAIT_S)
        await asyncio.wait_for(self._connected.wait(), WAIT_S)

    async def answered(self) -> None:
        """Until an incoming call has media."""
        await asyncio.wait_for(self._connected.wait(), WAIT_S)

    def _jingle(self, action: str, **attributes: str) -> tuple[Any, ET.Element]:
        iq = self.make_iq_set(ito=self.peer)
        node = ET.SubElement(
            iq.xml, q(NS_JINGLE, "jingle"), action=action, sid=self.sid, **attributes
        )
        return iq, node

    def _on_jingle(self, iq: Any) -> None:
        if iq["type"] != "set":
            return
        node = iq.xml.find(q(NS_JINGLE, "jingle"))
        if node.get("action") == "session-initiate" and self.pc is None:
            self.sid, self.peer, self.we_initiated = node.get("sid"), str(iq["from"]), False
        elif node.get("sid") != self.sid or str(iq["from"]) != self.peer:
            reply = iq.reply()
            reply.error()
            reply["error"]["condition"] = "item-not-found"
            reply.send()
            return
        iq.reply().send()
        self._actions.put_nowait(node)

    async def _act(self) -> None:
        while True:
            node = await self._actions.get()
            action = node.get("action")
            self.note(action, xml=ET.tostring(node, encoding="unicode")[:4000])
            if action == "session-initiate":
                await self._accept(node)
            elif action == "session-accept" and self.pc is not None:
                sdp = jingle_to_sdp(node, they_initiated=False)
                await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
            elif action == "transport-info":
                await self._candidates(node)
            elif action == "session-terminate":
                await self._close()

    async def _accept(self, node: ET.Element) -> None:
        self.pc = pc = self._make_pc()
        sdp = jingle_to_sdp(node, they_initiated=True)
        await pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        pc.addTrack(self.tone)
        if "m=video" in sdp:
            pc.addTrack(Colour(self.rgb))
        await pc.setLocalDescription(await pc.createAnswer())
        iq, jingle = self._jingle("session-accept", responder=str(self.boundjid))
        sdp_to_jingle(pc.localDescription.sdp, jingle, we_initiated=False, grouped=self.grouped)
        await iq.send(timeout=WAIT_S)

    async def _candidates(self, node: ET.Element) -> None:
        for content in node.findall(q(NS_JINGLE, "content")):
            for candidate in content.iter(q(NS_ICE, "candidate")):
                if self.pc is not None and candidate.get("component") == "1":
                    found = candidate_from_sdp(_candidate_words(candidate))
                    found.sdpMid = content.get("name")
                    await self.pc.addIceCandidate(found)

    async def set_muted(self, muted: bool) -> None:
        self.tone.is_muted = muted
        iq, node = self._jingle("session-info")
        ET.SubElement(
            node, q(NS_INFO, "mute" if muted else "unmute"), creator="initiator", name="0"
        )
        await iq.send(timeout=WAIT_S)

    async def hang_up(self) -> None:
        if self.pc is None:
            return
        iq, node = self._jingle("session-terminate")
        ET.SubElement(ET.SubElement(node, q(NS_JINGLE, "reason")), q(NS_JINGLE, "success"))
        with contextlib.suppress(slixmpp.exceptions.XMPPError):
            await iq.send(timeout=5)
        await self._close()

    async def _close(self) -> None:
        pc, self.pc = self.pc, None
        if pc is not None:
            self.tone = Tone(self.tone.hz)
            await pc.close()

    async def statistics(self) -> list[dict[str, Any]]:
        """Inbound RTP counters."""
        if self.pc is None:
            return []
        found = []
        for stat in (await self.pc.getStats()).values():
            if stat.type in ("inbound-rtp", "outbound-rtp"):
                received = getattr(stat, "packetsReceived", 0)
                found.append(
                    {
                        "type": stat.type,
                        "kind": stat.kind,
                        "received": received,
                        "lost": getattr(stat, "packetsLost", 0),
                        "sent": getattr(stat, "packetsSent", 0),
                    }
                )
        return found

    async def leave(self) -> None:
        await self.hang_up()
        if self.room:
            self.send_presence(pto=f"{self.room}/{self.nick}", ptype="unavailable")
        await asyncio.wait_for(self.disconnect(), 5)
        filters = self._run_out_filters
        for task in [*self._work, *([filters] if filters is not None else [])]:
            task.cancel()
        await asyncio.sleep(0)


# --- as a process ---------------------------------------------------------------------------------------


def _look(client: Client, what: str) -> Any:
    eyes = client.eyes
    seen = {"rgb": eyes.rgb, "width": eyes.width, "frames": eyes.frames}
    looks = {
        "peaks": [{"frames": client.ears.frames, "tones": client.ears.tones()}],
        "colours": [seen],
        "texts": client.texts,
        "happened": client.happened,
        "state": client.pc.connectionState if client.pc is not None else "none",
        "jid": str(client.boundjid),
    }
    if what not in looks:
        raise ValueError(f"unknown command {what}")
    return looks[what]


async def _answer(client: Client, ask: dict[str, Any]) -> Any:
    match ask["do"]:
        case "say":
            client.say(ask["text"])
        case "join":
            await client.join(ask["room"], ask["nick"])
        case "call":
            by_message, video = ask.get("by_message", True), ask.get("video", True)
            await client.call(ask["focus"], by_message=by_message, video=video)
        case "mute" | "unmute" as do:
            await client.set_muted(do == "mute")
        case "speak":  # speak up or be still without saying so on the wire
            client.tone.is_muted = not ask["on"]
        case "hang_up":
            await client.hang_up()
        case "statistics":
            return await client.statistics()
        case other:
            return _look(client, other)
    return True


async def _main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--jid", required=True)
    options.add_argument("--password", required=True)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--ca", type=Path)
    options.add_argument("--muc")
    options.add_argument("--nick")
    options.add_argument("--tone-hz", type=float, default=440)
    options.add_argument("--rgb", default="200,30,30")
    options.add_argument("--plain", action="store_true", help="as Dino: no group, fixed types")
    options.add_argument("--call", help="focus to call at once")
    given = options.parse_args()
    red, green, blue = (int(v) for v in given.rgb.split(","))
    if given.plain:
        plain_codecs()
    client = Client(
        given.jid,
        given.password,
        tone_hz=given.tone_hz,
        rgb=(red, green, blue),
        grouped=not given.plain,
        ca=given.ca,
    )
    await client.log_in(given.host, given.port)
    if given.muc:
        await client.join(given.muc, given.nick or given.jid.split("@")[0])
    if given.call:
        await client.call(given.call)
    print(json.dumps({"ready": str(client.boundjid)}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        ask = json.loads(line)
        if ask["do"] == "leave":
            break
        try:
            answer = {"ok": await _answer(client, ask)}
        except Exception as why:
            answer = {"error": repr(why)}
        print(json.dumps(answer), flush=True)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.leave(), 6)
    print(json.dumps({"left": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
