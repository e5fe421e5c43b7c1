//! Pictures for a peer whose link is the limit leave no faster than the link can take them.
//!
//! A key frame is ten ordinary frames at once; forwarded in one go it is a queue in front of a narrow link, and
//! sound waits in it. While something is held back for want of bandwidth, a peer's video is sent at one and a half
//! times the estimate, in steps of a few milliseconds; sound never waits. Nothing is copied to wait: what waits is
//! named by its place in the cache of its layer. Where the link is no limit nothing waits, and nothing is spent.
//! Not here: who gets which layer (`congestion`), how a copy is written (`subscription`).

use std::collections::VecDeque;

use crate::id::Micros;

use super::estimate::MIN_BPS;
use super::fanout::Copied;
use super::publication::NONE;
use super::router::Router;
use super::subscription::{Egress, LIVE};
use super::Sink;

/// Of the estimate, percent.
const PACE_PERCENT: u64 = 150;
/// Between two handfuls.
const STEP_US: u64 = 5_000;
/// What goes at once: a handful of packets can leave as one message.
const BURST_US: u64 = 10_000;
/// What waits longer is late anyway: better to go on at the next key frame.
const MOST_US: u64 = 500_000;
/// Packets that wait for one peer.
const MAX_WAITING: usize = 512;

/// One copy that has not left.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    sub: u32,
    /// Slot of its publication.
    source: u32,
    epoch: u32,
    copied: Copied,
    since: Micros,
}

/// What waits for one peer.
#[derive(Debug, Default)]
pub struct Pacer {
    /// Bits per second; 0 = nothing waits.
    rate_bps: u64,
    free_at: u64,
    queue: VecDeque<Waiting>,
    longest_us: u64,
    /// Packets that waited too long.
    dropped: u64,
}

impl Pacer {
    fn has_room(&self, now: Micros) -> bool {
        self.free_at <= now.0 + BURST_US
    }

    fn spend(&mut self, bytes: u64, now: Micros) {
        if let Some(takes_us) = (bytes * 8_000_000).checked_div(self.rate_bps) {
            self.free_at = self.free_at.max(now.0) + takes_us;
        }
    }

    /// The link is the limit.
    pub fn is_pacing(&self) -> bool {
        self.rate_bps > 0
    }

    /// Packets given up.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Longest wait since the last call, microseconds.
    pub fn take_longest_us(&mut self) -> u64 {
        std::mem::take(&mut self.longest_us)
    }

    fn is_stale(&self, now: Micros) -> bool {
        let oldest = self.queue.front();
        self.queue.len() >= MAX_WAITING
            || oldest.is_some_and(|oldest| now.since(oldest.since) > MOST_US)
    }
}

/// Would this copy leave, or may it once those before it have left?
fn is_for(hot: &Egress, copied: &Copied) -> bool {
    let layer = copied.layer;
    let is_due =
        hot.current == layer || hot.target == layer || hot.current == NONE && layer < hot.target;
    // Who catches up, or has seen nothing yet, begins at once.
    is_due && hot.packets > 0 && hot.behind == LIVE
}

impl Router {
    /// The link of a transport is the limit (its estimate) or is not (None).
    pub(super) fn pace(&mut self, slot: u32, estimate_bps: Option<u64>) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let pacer = &mut transport.pressure.pacer;
        let rate_bps = estimate_bps.map_or(0, |bps| bps.max(MIN_BPS) * PACE_PERCENT / 100);
        let is_paced = rate_bps > 0;
        let was_paced = std::mem::replace(&mut pacer.rate_bps, rate_bps) > 0;
        if is_paced && pacer.queue.capacity() == 0 {
            pacer.queue.reserve_exact(MAX_WAITING);
        }
        if !is_paced && !was_paced {
            return;
        }
        // What waits leaves with the next step, and newer packets wait behind it.
        let keeps = is_paced || !pacer.queue.is_empty();
        for (_, sub) in &transport.subscriptions {
            let hot = &mut self.egress[*sub as usize];
            hot.paced = keeps && hot.video;
        }
    }

    /// Put a copy behind those that wait for its peer. False: it may leave now.
    #[inline]
    pub(super) fn wait(
        &mut self,
        sub: u32,
        copied: Copied,
        now: Micros,
        sink: &mut impl Sink,
    ) -> bool {
        let hot = &self.egress[sub as usize];
        if !is_for(hot, &copied) {
            return false;
        }
        let (slot, source) = (hot.transport, hot.source);
        let Some(Some(publication)) = self.publications.get(source as usize) else {
            return false;
        };
        let Some(layer) = publication.layers.get(usize::from(copied.layer)) else {
            return false;
        };
        let epoch = layer.epoch;
        let Some(transport) = &mut self.transports[slot as usize] else {
            return false;
        };
        let pacer = &mut transport.pressure.pacer;
        if pacer.is_stale(now) {
            self.give_up(slot, now, sink);
            return true;
        }
        if pacer.queue.is_empty() {
            if pacer.has_room(now) {
                return false;
            }
            if !self.pacing.contains(&slot) {
                self.pacing.push(slot);
            }
            self.wake_at(Micros(now.0 + STEP_US));
        }
        if let Some(transport) = &mut self.transports[slot as usize] {
            transport.pressure.pacer.queue.push_back(Waiting {
                sub,
                source,
                epoch,
                copied,
                since: now,
            });
        }
        true
    }

    /// A paced copy of so many bytes left.
    #[inline]
    pub(super) fn spent(&mut self, sub: u32, bytes: u64, now: Micros) {
        let slot = self.egress[sub as usize].transport;
        if let Some(transport) = &mut self.transports[slot as usize] {
            transport.pressure.pacer.spend(bytes, now);
        }
    }

    /// Whatever is due for everybody who waits.
    pub(super) fn run_pacers(&mut self, now: Micros, sink: &mut impl Sink) {
        if self.pacing.is_empty() {
            return;
        }
        self.release(now, sink); // it is newer than what waits, and waits behind it
        let mut pacing = std::mem::take(&mut self.pacing);
        pacing.retain(|slot| self.step(*slot, now, sink));
        if !pacing.is_empty() {
            self.wake_at(Micros(now.0 + STEP_US));
        }
        self.pacing = pacing;
    }

    /// Whether something still waits.
    fn step(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) -> bool {
        loop {
            let Some(transport) = &mut self.transports[slot as usize] else {
                return false;
            };
            let pacer = &mut transport.pressure.pacer;
            if pacer.is_stale(now) {
                self.give_up(slot, now, sink);
                continue;
            }
            if pacer.rate_bps > 0 && !pacer.has_room(now) {
                return true;
            }
            let Some(next) = pacer.queue.pop_front() else {
                if pacer.rate_bps == 0 {
                    for (_, sub) in &transport.subscriptions {
                        self.egress[*sub as usize].paced = false;
                    }
                }
                return false;
            };
            pacer.longest_us = pacer.longest_us.max(now.since(next.since));
            let hot = &self.egress[next.sub as usize];
            let before = hot.bytes;
            if hot.source != next.source || hot.transport != slot || !self.is_whole(&next) {
                continue;
            }
            self.copy_one(next.sub, next.copied, now, sink);
            let bytes = self.egress[next.sub as usize].bytes - before;
            self.spent(next.sub, bytes, now);
        }
    }

    /// Its number still means what it meant, and it may be shown.
    fn is_whole(&self, waiting: &Waiting) -> bool {
        let publication = self.publications.get(waiting.source as usize);
        publication.and_then(Option::as_ref).is_some_and(|own| {
            let layer = own.layers.get(usize::from(waiting.copied.layer));
            own.open && layer.is_some_and(|layer| layer.epoch == waiting.epoch)
        })
    }

    /// Too much waits for a peer: forget it and go on at the next key frames.
    fn give_up(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let pacer = &mut transport.pressure.pacer;
        pacer.dropped += pacer.queue.len() as u64;
        while let Some(waiting) = self.transports[slot as usize]
            .as_mut()
            .and_then(|transport| transport.pressure.pacer.queue.pop_front())
        {
            let hot = &mut self.egress[waiting.sub as usize];
            if hot.current != NONE && hot.transport == slot && hot.source == waiting.source {
                hot.current = NONE;
                self.retarget(waiting.sub, now, sink);
            }
        }
    }

    /// A subscription carries something else from now on.
    pub(super) fn forget_waiting(&mut self, sub: u32) {
        let slot = self.egress[sub as usize].transport;
        if let Some(Some(transport)) = self.transports.get_mut(slot as usize) {
            transport
                .pressure
                .pacer
                .queue
                .retain(|waiting| waiting.sub != sub);
        }
    }
}
