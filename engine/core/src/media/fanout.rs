//! From one packet to its copies: at once for sound, at the end of a batch for pictures.
//!
//! Pictures come in bursts, a frame at a time. What arrived in one batch is copied subscriber by subscriber, so that
//! the datagrams for one peer lie side by side and leave as one message (UDP segmentation), and each peer's keys and
//! counters are touched once per batch. Nothing waits for a timer here: the batch ends when the socket is read.
//! Not here: when it is read (`gather`), what a packet means (`ingress`), how a copy is written (`subscription`).

use crate::id::{Micros, TransportId};

use super::ingress::{begin, stamp};
use super::packet::Meta;
use super::publication::{Publication, NONE};
use super::router::{Router, Transport};
use super::selection::Verdict;
use super::skips::Mark;
use super::subscription::{Deltas, Egress, Face, Subscription};
use super::{Event, Sink};

/// Packets held at most, all of one publication: one batch of the socket, and far less than a layer's cache holds.
pub(super) const MAX_HELD: usize = 64;
/// Longest padding of a copy. Senders cut a frame into parts that differ by a byte or two; a run of segments must be
/// of one size.
const MAX_PADDING: u16 = 15;

/// A packet of a publication on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    pub(super) layer: u8,
    /// Its number without the padding in between.
    pub(super) dense: u64,
    /// Nothing newer came before.
    pub(super) newest: bool,
    /// Bytes that make it as long as its neighbours.
    pub(super) padding: u8,
}

/// Packets that lie in their layer's cache and are not copied yet.
#[derive(Debug)]
pub(super) struct Held {
    publication: u32,
    packets: Vec<Copied>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self {
            publication: 0,
            packets: Vec::with_capacity(MAX_HELD),
        }
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
    }

    /// The numbers of a layer mean nothing any more.
    pub(super) fn forget(&mut self, publication: u32, layer: u8) {
        if self.publication == publication {
            self.packets.retain(|packet| packet.layer != layer);
        }
    }
}

/// What copies of one publication touch.
struct Copying<'a> {
    publication: &'a Publication,
    egress: &'a mut [Egress],
    subscriptions: &'a mut [Option<Subscription>],
    transports: &'a mut [Option<Transport>],
    now: Micros,
}

impl Router {
    /// Whose packets are held.
    #[must_use]
    pub fn holder(&self) -> Option<TransportId> {
        if self.held.packets.is_empty() {
            return None;
        }
        let publication = self.publications.get(self.held.publication as usize)?;
        self.publisher(publication.as_ref()?)
    }

    /// Copy this packet, which is in its layer's cache, with those that follow it.
    pub(super) fn hold(
        &mut self,
        publication: u32,
        packet: Copied,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        if self.held.publication != publication || self.held.packets.len() == MAX_HELD {
            self.release(now, sink);
            self.held.publication = publication;
        }
        self.held.packets.push(packet);
        if let Some(Some(publication)) = self.publications.get(publication as usize) {
            self.gathering.arrived(publication.subscribers.len(), now);
        }
    }

    /// Copy what is held, subscriber by subscriber.
    pub fn release(&mut self, now: Micros, sink: &mut impl Sink) {
        if self.held.packets.is_empty() {
            return;
        }
        // Away first: what panics once must not come again.
        let mut packets = std::mem::take(&mut self.held.packets);
        let mut is_paced = false;
        if let Some(Some(publication)) = self.publications.get(self.held.publication as usize) {
            let mut copying = Copying {
                publication,
                egress: &mut self.egress,
                subscriptions: &mut self.subscriptions,
                transports: &mut self.transports,
                now,
            };
            level(publication, &mut packets);
            for &sub in &publication.subscribers {
                if copying.egress[sub as usize].paced {
                    is_paced = true; // its turn comes when the others have theirs
                    continue;
                }
                for copied in &packets {
                    let layer = publication.layers.get(usize::from(copied.layer));
                    let cache = layer.and_then(|layer| layer.cache.as_ref());
                    if let Some((meta, packet)) = cache.and_then(|cache| cache.get(copied.dense)) {
                        copying.one(sub, *copied, &meta, packet, sink);
                    }
                }
            }
        }
        if is_paced {
            self.release_paced(&packets, now, sink);
        }
        packets.clear();
        self.held.packets = packets;
    }

    /// What is held, for those whose link is the limit.
    fn release_paced(&mut self, packets: &[Copied], now: Micros, sink: &mut impl Sink) {
        let mut place = 0;
        while let Some(&sub) = self.publications[self.held.publication as usize]
            .as_ref()
            .and_then(|publication| publication.subscribers.get(place))
        {
            place += 1;
            if !self.egress[sub as usize].paced {
                continue;
            }
            for copied in packets {
                if self.wait(sub, *copied, now, sink) {
                    continue;
                }
                let before = self.egress[sub as usize].bytes;
                self.copy_one(sub, *copied, now, sink);
                let bytes = self.egress[sub as usize].bytes - before;
                self.spent(sub, bytes, now);
            }
        }
    }

    /// The copy of a packet in its layer's cache, for one subscriber.
    pub(super) fn copy_one(&mut self, sub: u32, copied: Copied, now: Micros, sink: &mut impl Sink) {
        let source = self.egress[sub as usize].source;
        let Some(Some(publication)) = self.publications.get(source as usize) else {
            return;
        };
        let layer = publication.layers.get(usize::from(copied.layer));
        let cache = layer.and_then(|layer| layer.cache.as_ref());
        let Some((meta, packet)) = cache.and_then(|cache| cache.get(copied.dense)) else {
            return;
        };
        let mut copying = Copying {
            publication,
            egress: &mut self.egress,
            subscriptions: &mut self.subscriptions,
            transports: &mut self.transports,
            now,
        };
        copying.one(sub, copied, &meta, packet, sink);
    }

    /// The copies of one packet, now; behind those that are held.
    pub(super) fn fan_out(
        &mut self,
        publication: u32,
        copied: Copied,
        meta: &Meta,
        packet: &[u8],
        now: Micros,
        sink: &mut impl Sink,
    ) {
        if self.held.publication == publication {
            self.release(now, sink);
        }
        if !self.is_on_stage(publication, meta.values.audio_level, copied.newest, now) {
            return;
        }
        let Some(publication) = &self.publications[publication as usize] else {
            return;
        };
        let mut copying = Copying {
            publication,
            egress: &mut self.egress,
            subscriptions: &mut self.subscriptions,
            transports: &mut self.transports,
            now,
        };
        for &sub in &publication.subscribers {
            copying.one(sub, copied, meta, packet, sink);
        }
    }
}

impl Copying<'_> {
    /// The copy of one packet for one subscriber, if it gets one.
    fn one(&mut self, sub: u32, copied: Copied, meta: &Meta, packet: &[u8], sink: &mut impl Sink) {
        let Copied { layer, dense, .. } = copied;
        let now = self.now;
        let hot = &mut self.egress[sub as usize];
        let mut switched = false;
        if hot.current != layer {
            let due = if hot.video {
                meta.key && (hot.target == layer || hot.current == NONE && layer < hot.target)
            } else {
                copied.newest && hot.target == layer
            };
            if !due || hot.target == NONE || hot.stalled {
                return;
            }
            if payload_type(hot, meta).is_none() {
                return;
            }
            let Some(cold) = &mut self.subscriptions[sub as usize] else {
                return;
            };
            begin(self.publication, hot, cold, layer, dense, meta, now);
            if hot.video {
                settle(self.publication, hot, cold, layer, dense);
            }
            switched = true;
        }
        if dense < hot.first || dense >= hot.behind {
            return;
        }
        let Some((payload_type, is_inner)) = payload_type(hot, meta) else {
            hot.current = NONE; // a codec that cannot be mapped: go on at the next that can
            return;
        };
        let mut deltas = hot.deltas;
        if dense < hot.padded {
            let cold = self.subscriptions[sub as usize].as_ref();
            let Some(behind) = cold.and_then(|cold| cold.pads.behind(dense)) else {
                return; // its number is not known any more
            };
            deltas.sequence = deltas.sequence.wrapping_sub(behind);
        }
        let mut writing = Writing {
            sub,
            payload_type,
            deltas,
            // A repeat without RTX must equal its original, and repeats stand alone.
            padding: if hot.stamped { copied.padding } else { 0 },
            active: 0,
            switched,
        };
        if is_inner {
            let inner = Meta {
                payload: meta.primary,
                ..*meta
            };
            self.write(&writing, dense, &inner, packet, sink);
        } else if hot.selective {
            if let Some(meta) = self.thin(&mut writing, copied, meta) {
                self.write(&writing, dense, &meta, packet, sink);
            }
        } else {
            self.write(&writing, dense, meta, packet, sink);
        }
    }

    /// The packet as a subscriber gets it who does not get all; None if it does not get this one.
    fn thin(&mut self, writing: &mut Writing, copied: Copied, meta: &Meta) -> Option<Meta> {
        let hot = &mut self.egress[writing.sub as usize];
        let cold = self.subscriptions[writing.sub as usize].as_mut()?;
        let slot = cold.segments.back()?.skips;
        let skips = cold.skips.get_mut(usize::from(slot))?;
        let verdict = hot.select(skips, self.publication, copied.dense, meta);
        let mut meta = *meta;
        let mark = match verdict {
            Verdict::Send(mark) => mark,
            Verdict::Fill => {
                meta.payload.len = 0;
                Mark {
                    filled: true,
                    ..Mark::default()
                }
            }
            Verdict::Skip | Verdict::Drop => return None,
        };
        skips.note(copied.dense, mark);
        meta.marker |= mark.marker;
        if mark.masked {
            writing.active = self.publication.active_targets(copied.layer, hot.step);
        }
        writing.deltas = writing.deltas.without(skips.before(copied.dense));
        Some(meta)
    }

    /// Write a copy and account for it.
    #[inline]
    fn write(
        &mut self,
        writing: &Writing,
        dense: u64,
        meta: &Meta,
        packet: &[u8],
        sink: &mut impl Sink,
    ) {
        let now = self.now;
        let hot = &mut self.egress[writing.sub as usize];
        let Some(slot) = sink.rtp(hot.to) else {
            hot.stalled = true;
            hot.current = NONE;
            return;
        };
        let sequence = dense.wrapping_add(writing.deltas.sequence);
        let mut face = Face {
            payload_type: writing.payload_type,
            sequence: sequence as u16,
            ssrc: hot.ssrc,
            original: None,
            transport_cc: None,
            now,
            padding: writing.padding,
            active: writing.active,
        };
        if hot.stamped && hot.extensions.transport_cc != 0 {
            face.transport_cc = stamp(&mut self.transports[hot.transport as usize]);
        }
        let len = hot.compose(slot, &face, &writing.deltas, meta, packet);
        if face.transport_cc.is_some() {
            if let Some(transport) = &mut self.transports[hot.transport as usize] {
                transport.noted(len.unwrap_or(0), now);
            }
        }
        if hot.stamped {
            sink.rtp_done(len.unwrap_or(0));
        } else {
            sink.rtp_done_repeatable(len.unwrap_or(0));
        }
        if let Some(len) = len {
            hot.sent(sequence, &writing.deltas, meta, len, now);
            if writing.switched && hot.video {
                if let Some(cold) = &self.subscriptions[writing.sub as usize] {
                    sink.event(Event::Keyframe(cold.id));
                }
            }
        }
    }
}

/// How one copy is written.
#[derive(Debug)]
struct Writing {
    sub: u32,
    payload_type: u8,
    deltas: Deltas,
    padding: u8,
    active: u32,
    switched: bool,
}

/// The subscriber's payload type of a packet, and whether it is that of the codec inside RED.
#[inline]
fn payload_type(hot: &Egress, meta: &Meta) -> Option<(u8, bool)> {
    match hot.payload_types[usize::from(meta.codec)] {
        NONE if meta.primary.is_empty() => None,
        NONE => match hot.payload_types[usize::from(meta.primary_codec)] {
            NONE => None,
            inner => Some((inner, true)),
        },
        own => Some((own, false)),
    }
}

/// A layer was begun: with which step, and does that leave something out?
fn settle(
    publication: &Publication,
    hot: &mut Egress,
    cold: &mut Subscription,
    layer: u8,
    dense: u64,
) {
    hot.step = if hot.target == layer {
        hot.target_step
    } else {
        publication.whole(layer)
    };
    if publication.is_partial(hot.step) {
        cold.thin_out(hot, dense - 1);
    }
}

/// Pad neighbours of a layer that differ by little to one size.
fn level(publication: &Publication, packets: &mut [Copied]) {
    for (layer, index) in publication.layers.iter().zip(0u8..) {
        let Some(cache) = &layer.cache else {
            continue;
        };
        let (mut start, mut least, mut most) = (0, u16::MAX, 0);
        for at in 0..=packets.len() {
            let bytes = match packets.get(at) {
                Some(packet) if packet.layer != index => continue,
                Some(packet) => cache.payload_bytes(packet.dense),
                None => 0,
            };
            if at < packets.len() && most.max(bytes) - least.min(bytes) <= MAX_PADDING {
                (least, most) = (least.min(bytes), most.max(bytes));
                continue;
            }
            for packet in &mut packets[start..at] {
                if packet.layer == index {
                    packet.padding = (most - cache.payload_bytes(packet.dense)) as u8;
                }
            }
            (start, least, most) = (at, bytes, bytes);
        }
    }
}
