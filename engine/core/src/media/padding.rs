//! Padding on the stream of the pictures themselves, so that peers without RTX can be probed.
//!
//! Only behind the last packet of a picture, under its timestamp, and only on streams that never repeat packets (without
//! NACK): everything newer is numbered behind the padding, and what comes late has the number that was kept for it.
//! Not here: when it is thrown in, and RTX streams (`congestion`).

use std::collections::VecDeque;

use crate::id::Micros;

use super::congestion::PADDING_BYTES;
use super::publication::NONE;
use super::router::Router;
use super::rtp::Writer;
use super::subscription::{Egress, Face, Subscription};
use super::Sink;

/// Places of padding that are remembered: pictures of three probes. What is later than that is not sent.
const MAX_PLACES: usize = 16;

/// Where padding was put between the packets of a segment.
#[derive(Debug, Default)]
pub struct Pads {
    /// (first dense number behind it, packets)
    places: VecDeque<(u64, u64)>,
    /// Dense numbers below this have numbers that are not known any more.
    forgotten: u64,
}

impl Pads {
    /// Another packet of padding before this dense number.
    pub fn put(&mut self, before: u64) {
        match self.places.back_mut() {
            Some(last) if last.0 == before => last.1 += 1,
            _ => {
                if self.places.len() == MAX_PLACES {
                    self.forgotten = self.places.pop_front().map_or(0, |oldest| oldest.0);
                }
                self.places.push_back((before, 1));
            }
        }
    }

    /// Packets of padding behind a dense number; None: too old to know.
    #[must_use]
    pub fn behind(&self, dense: u64) -> Option<u64> {
        let places = self.places.iter().rev();
        let behind = places.take_while(|place| place.0 > dense);
        (dense >= self.forgotten).then(|| behind.map(|place| place.1).sum())
    }

    /// A new segment.
    pub fn clear(&mut self) {
        self.places.clear();
        self.forgotten = 0;
    }
}

impl Router {
    /// A stream without RTX may carry padding, now or at the end of this picture.
    pub(super) fn can_pad(&self, hot: &Egress) -> bool {
        hot.stamped && (hot.current != NONE || hot.ended) && self.padding_type(hot).is_some()
    }

    fn padding_type(&self, hot: &Egress) -> Option<u8> {
        let publication = self.publications.get(hot.source as usize)?.as_ref()?;
        let own = *hot.payload_types.get(usize::from(publication.codec))?;
        (own != NONE).then_some(own)
    }

    /// One packet of padding on the stream of the pictures. False: it could not go.
    pub(super) fn pad_one(&mut self, sub: u32, now: Micros, sink: &mut impl Sink) -> bool {
        let Some(payload_type) = self.padding_type(&self.egress[sub as usize]) else {
            return false;
        };
        let hot = &mut self.egress[sub as usize];
        let (Some(cold), Some(transport)) = (
            &mut self.subscriptions[sub as usize],
            &mut self.transports[hot.transport as usize],
        ) else {
            return false;
        };
        if !hot.ended {
            return false;
        }
        let Some(slot) = sink.rtp(hot.to) else {
            return false;
        };
        let number = transport.stamp();
        let face = Face {
            payload_type,
            sequence: (hot.last_sequence + 1) as u16,
            ssrc: hot.ssrc,
            original: None,
            transport_cc: Some(number as u16),
            now,
            padding: 0,
            active: 0,
        };
        let len = hot.pad(slot, &face, PADDING_BYTES);
        sink.rtp_done(len.unwrap_or(0));
        transport.noted(len.unwrap_or(0), now);
        if len.is_some() {
            cold.padded(hot);
        }
        len.is_some()
    }
}

impl Subscription {
    /// A packet of padding went out.
    fn padded(&mut self, hot: &mut Egress) {
        let segment = self.segments.back();
        let skips = segment.and_then(|last| self.skips.get(usize::from(last.skips)));
        let newest = match skips {
            Some(skips) if hot.selective => skips.newest(),
            _ => hot.last_sequence.wrapping_sub(hot.deltas.sequence),
        };
        hot.last_sequence += 1;
        hot.deltas.sequence = hot.deltas.sequence.wrapping_add(1);
        hot.packets += 1;
        hot.padded = newest.wrapping_add(1);
        self.pads.put(hot.padded);
    }
}

impl Egress {
    /// Write a packet of nothing but padding.
    pub(super) fn pad(&self, slot: &mut [u8], face: &Face, bytes: usize) -> Option<usize> {
        let mut writer = Writer::new(
            slot,
            false,
            face.payload_type,
            face.sequence,
            self.last_timestamp,
            face.ssrc,
            self.two_byte,
        );
        self.opening(&mut writer, face);
        writer.padding_only(bytes);
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Packets and padding in any order: numbers are unique, and without holes but for what has not come.
        #[test]
        fn numbers_close_up_around_padding(story in proptest::collection::vec((0u8..4, 1u64..4), 1..200)) {
            let mut pads = Pads::default();
            let (mut newest, mut total, mut late) = (1_000u64, 0u64, Vec::new());
            let (mut used, mut kept) = (Vec::new(), Vec::new());
            for (what, count) in story {
                match what {
                    0 => for _ in 0..count {
                        pads.put(newest + 1);
                        total += 1;
                        used.push(newest + total);
                    },
                    1 => late.extend((0..count).map(|_| { newest += 1; (newest, newest + total) })),
                    _ => for _ in 0..count {
                        newest += 1;
                        used.push(newest + total - pads.behind(newest).unwrap_or(0));
                    },
                }
            }
            for (dense, number) in late {
                match pads.behind(dense) {
                    Some(behind) => kept.push(dense + total - behind),
                    None => kept.push(number), // a hole, for ever
                }
                prop_assert_eq!(*kept.last().unwrap(), number);
            }
            used.extend(kept);
            used.sort_unstable();
            prop_assert!(used.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        }
    }
}
