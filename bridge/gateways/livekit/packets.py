"""One leg's data channels: packets up are relayed or become lines of text, lines and packets go down.

A task of its own per leg, with a bounded queue, so that a burst of packets never delays negotiation.
Not here: what a packet is (`data`, `budget`), text streams (`chat`), back-pressure of the channel (the worker).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.conference.commands import Say
from bridge.conference.errors import ConferenceError
from bridge.conference.events import Leg, Said
from bridge.conference.ids import Actor, LeaveReason
from bridge.gateway import ChannelMessage
from bridge.gateways.livekit import budget, chat, data
from bridge.gateways.livekit.profiles import LOSSY, RELIABLE

if TYPE_CHECKING:
    from bridge.gateways.livekit.device import Device

log = logging.getLogger(__name__)

MAX_WAITING: Final = 256  # packets in hand; a lossy one beyond it is dropped
WORK_TIMEOUT_S: Final = 20.0  # of one packet

Work = Callable[[], Awaitable[None]]


class Packets:
    """`take` and `hear` are called from events and never block."""

    def __init__(self, device: "Device") -> None:
        self._device = device
        self._queue: asyncio.Queue[Work] = asyncio.Queue(MAX_WAITING)
        self._streams = chat.Streams()

    def take(self, message: ChannelMessage) -> None:
        """A packet came up."""
        self._post(partial(self._take, message), is_needed=message.channel != LOSSY)

    def hear(self, said: Said, identity: str) -> None:
        """A line was said; its author's own leg knows it."""
        if not chat.is_from(self._device.leg_id, said):
            self._post(partial(self._send_line, said, identity), is_needed=True)

    def _post(self, work: Work, *, is_needed: bool) -> None:
        try:
            self._queue.put_nowait(work)
        except asyncio.QueueFull:
            if is_needed:
                log.warning("data overwhelmed", extra={"leg": self._device.leg_id})
                self._device.post(partial(self._device.leave, LeaveReason.FAILED))

    async def run(self) -> None:
        while True:
            work = await self._queue.get()  # no timeout: idle is normal, the leg's end cancels
            try:
                async with asyncio.timeout(WORK_TIMEOUT_S):
                    await work()
            except (ConferenceError, TimeoutError) as why:
                log.info("data packet lost", extra={"leg": self._device.leg_id, "why": str(why)})
            except Exception:
                log.exception("data packet broke", extra={"leg": self._device.leg_id})

    async def _take(self, message: ChannelMessage) -> None:
        leg = self._device.leg
        if leg is None:
            return
        packet = await data.read_packet(message.data)
        if budget.is_budget(packet):
            await self._cap(budget.read_bps(packet))
            return
        if not self._device.state.claims.video.can_publish_data:
            return
        is_chat, line = self._streams.take(packet)
        if line is not None:
            await self._say(leg, line)
        if is_chat or not data.is_relayed(packet):
            return
        data.stamp(packet, leg)
        raw = packet.SerializeToString()
        channel = LOSSY if message.channel == LOSSY else RELIABLE
        legs = self._device.services.rooms.legs(self._device.conference.id)
        targets = (self._device.services.rooms.get(t) for t in data.receivers(packet, leg, legs))
        sends = [target.packets.send(channel, raw) for target in targets if target is not None]
        await asyncio.gather(*sends)

    async def _cap(self, bps: int) -> None:
        media = self._device.services.context.media
        await media.limit(self._device.negotiator.down, egress_bps=bps)

    async def send(self, channel: str, raw: bytes) -> None:
        """A channel that is not open (yet, or any more) loses the packet, as LiveKit does."""
        try:
            await self._device.services.context.media.send(
                self._device.negotiator.down, channel, raw
            )
        except ConferenceError as why:
            log.debug("packet not sent", extra={"leg": self._device.leg_id, "why": str(why)})

    async def _say(self, leg: Leg, line: chat.Line) -> None:
        actor = Actor(leg.account, leg.role, leg.name)
        source_id = chat.source_id(leg.id, line)
        say = Say(
            actor,
            line.text,
            source_id,
            leg.gateway,
            avatar=leg.avatar,
            at_ms=time.time_ns() // 1_000_000,
        )
        await self._device.services.context.submit(self._device.conference.id, say, None)

    async def _send_line(self, said: Said, identity: str) -> None:
        for packet in chat.packets(said, identity):
            await self.send(RELIABLE, packet.SerializeToString())
