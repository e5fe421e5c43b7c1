//! Transport-wide congestion control: what arrived when, told to the sender
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).
//!
//! Not here: the bandwidth estimate that a sender would make of it.

use crate::id::Micros;

use super::rtcp::Builder;
use super::Error;

/// Unit of a delta.
const TICK_US: u64 = 250;
/// Unit of the reference time, in ticks.
const REFERENCE_TICKS: u64 = 256;
/// Arrivals held before a feedback must go out; a status each, far below one datagram.
const MAX_PENDING: usize = 200;
/// A larger hole between two arrivals restarts the range: it is a new sender, not loss.
const MAX_HOLE: u64 = 512;
/// Statuses in one feedback, so that its worst encoding stays below 1,200 bytes.
const MAX_STATUSES: u64 = 400;

const ABSENT: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// A parsed feedback message, validated to its last status.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// A stream of the transport meant.
    pub media: u32,
    /// First sequence number.
    pub base: u16,
    /// Statuses.
    pub count: u16,
    /// 64 ms units, signed 24 bits on the wire.
    pub reference: u32,
    /// Rolling number of the message.
    pub number: u8,
    /// Packets said to have arrived.
    pub received: u16,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Read what follows the two sources of the feedback message.
    ///
    /// # Errors
    /// `Malformed` for the reserved status, and for fewer statuses or deltas than announced.
    pub fn parse(media: u32, body: &'a [u8]) -> Result<Self, Error> {
        let Some(head) = body.get(..8) else {
            return Err(Error::Malformed("TWCC: header"));
        };
        let count = u16::from_be_bytes([head[2], head[3]]);
        if count == 0 {
            return Err(Error::Malformed("TWCC: no status"));
        }
        let rest = &body[8..];
        let (mut at, mut statuses, mut received, mut delta_bytes) = (0, 0, 0u16, 0);
        while statuses < usize::from(count) {
            let Some(chunk) = rest.get(at..at + 2) else {
                return Err(Error::Malformed("TWCC: too few chunks"));
            };
            at += 2;
            let chunk = Chunk(u16::from_be_bytes([chunk[0], chunk[1]]));
            let len = chunk.len().min(usize::from(count) - statuses);
            statuses += len;
            if chunk.is_run() {
                // A run of 8,191 costs one step, so that time stays linear in the bytes.
                let symbol = chunk.symbol(0);
                if symbol > LARGE {
                    return Err(Error::Malformed("TWCC: reserved status"));
                }
                if symbol != ABSENT {
                    let run = len as u16;
                    received += run;
                    delta_bytes += usize::from(symbol) * len;
                }
                continue;
            }
            for index in 0..len {
                let symbol = chunk.symbol(index);
                if symbol > LARGE {
                    return Err(Error::Malformed("TWCC: reserved status"));
                }
                received += u16::from(symbol != ABSENT);
                delta_bytes += usize::from(symbol);
            }
        }
        let deltas = rest
            .get(at..at + delta_bytes)
            .ok_or(Error::Malformed("TWCC: too few deltas"))?;
        Ok(Self {
            media,
            base: u16::from_be_bytes([head[0], head[1]]),
            count,
            reference: u32::from_be_bytes([0, head[4], head[5], head[6]]),
            number: head[7],
            received,
            chunks: &rest[..at],
            deltas,
        })
    }

    /// (sequence number, ticks of 250 us since the reference time) of what arrived, in sequence order.
    pub fn arrivals(&self) -> impl Iterator<Item = (u16, i64)> + 'a {
        let (base, mut deltas, mut ticks) = (self.base, self.deltas, 0i64);
        self.chunks
            .chunks_exact(2)
            .map(|bytes| Chunk(u16::from_be_bytes([bytes[0], bytes[1]])))
            .flat_map(|chunk| (0..chunk.len()).map(move |index| chunk.symbol(index)))
            .take(usize::from(self.count))
            .zip(0u16..)
            .filter(|(symbol, _)| *symbol != ABSENT)
            .map_while(move |(symbol, offset)| {
                let (delta, rest) = match (symbol, deltas) {
                    (SMALL, [small, rest @ ..]) => (i64::from(*small), rest),
                    (LARGE, [high, low, rest @ ..]) => {
                        (i64::from(i16::from_be_bytes([*high, *low])), rest)
                    }
                    _ => return None,
                };
                deltas = rest;
                ticks += delta;
                Some((base.wrapping_add(offset), ticks))
            })
    }
}

/// A packet chunk: run length, fourteen one-bit or seven two-bit statuses.
#[derive(Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    const fn is_run(self) -> bool {
        self.0 & 0x8000 == 0
    }

    const fn len(self) -> usize {
        match (self.0 & 0x8000, self.0 & 0x4000) {
            (0, _) => (self.0 & 0x1fff) as usize,
            (_, 0) => 14,
            _ => 7,
        }
    }

    const fn symbol(self, index: usize) -> u8 {
        match (self.0 & 0x8000, self.0 & 0x4000) {
            (0, _) => (self.0 >> 13 & 3) as u8,
            (_, 0) => (self.0 >> (13 - index) & 1) as u8,
            _ => (self.0 >> (12 - 2 * index) & 3) as u8,
        }
    }
}

/// Remembers arrivals on one transport until they are reported.
#[derive(Debug, Default)]
pub struct Recorder {
    pending: Vec<(u64, Micros)>,
    highest: u64,
    /// Next sequence number not reported yet; 0 before the first packet.
    next: u64,
    media: u32,
    number: u8,
}

impl Recorder {
    /// A packet arrived. True if feedback should go out at once.
    pub fn record(&mut self, sequence: u16, media: u32, now: Micros) -> bool {
        let extended = if self.highest == 0 {
            0x1_0000 + u64::from(sequence)
        } else {
            extend(self.highest, sequence)
        };
        self.highest = self.highest.max(extended);
        self.media = media;
        self.pending.push((extended, now));
        self.pending.len() >= MAX_PENDING
    }

    /// Nothing to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Take one feedback message's worth of arrivals; call until `is_empty`.
    pub fn write(&mut self, sender: u32, out: &mut Builder) {
        self.pending.sort_unstable();
        self.pending.dedup_by_key(|(sequence, _)| *sequence);
        let Some(&(first, _)) = self.pending.first() else {
            return;
        };
        // A packet from before the last range is reported on its own; what lies between is known already.
        let late = first < self.next;
        let base = if late || self.next == 0 || first - self.next > MAX_HOLE {
            first
        } else {
            self.next
        };
        let mut taken = 0;
        let mut ticks = self.pending[0].1 .0 / TICK_US;
        let reference = ticks / REFERENCE_TICKS;
        ticks = reference * REFERENCE_TICKS;
        let mut symbols = [ABSENT; MAX_STATUSES as usize + MAX_HOLE as usize + 1];
        let mut deltas = [0i16; MAX_PENDING];
        let mut end = base;
        for &(sequence, at) in &self.pending {
            let crosses = late && sequence >= self.next;
            if taken > 0
                && (crosses || sequence - end > MAX_HOLE || sequence - base >= MAX_STATUSES)
                || taken == MAX_PENDING
            {
                break;
            }
            let arrival = at.0 / TICK_US;
            let Ok(delta) = i16::try_from(arrival as i64 - ticks as i64) else {
                break; // more than 8 s apart: another message
            };
            let place = (sequence - base) as usize;
            symbols[place] = if (0..=255).contains(&delta) {
                SMALL
            } else {
                LARGE
            };
            deltas[taken] = delta;
            ticks = arrival;
            end = sequence + 1;
            taken += 1;
        }
        self.pending.drain(..taken);
        self.next = self.next.max(end);
        let symbols = &symbols[..(end - base) as usize];
        let number = self.number;
        self.number = number.wrapping_add(1);
        out.transport_cc(sender, self.media, |out| {
            out.extend((base as u16).to_be_bytes());
            out.extend((symbols.len() as u16).to_be_bytes());
            out.extend(&(reference as u32).to_be_bytes()[1..]);
            out.push(number);
            write_chunks(symbols, out);
            for delta in &deltas[..taken] {
                if let Ok(small) = u8::try_from(*delta) {
                    out.push(small);
                } else {
                    out.extend(delta.to_be_bytes());
                }
            }
        });
    }
}

/// Runs of more than seven as such, the rest as seven two-bit statuses.
fn write_chunks(symbols: &[u8], out: &mut Vec<u8>) {
    let mut rest = symbols;
    while let [first, ..] = rest {
        let run = rest.iter().take_while(|symbol| *symbol == first).count();
        if run > 7 || run == rest.len() {
            let run = run.min(0x1fff);
            out.extend((u16::from(*first) << 13 | run as u16).to_be_bytes());
            rest = &rest[run..];
        } else {
            let len = rest.len().min(7);
            let chunk = rest[..len]
                .iter()
                .enumerate()
                .fold(0xc000, |chunk, (index, symbol)| {
                    chunk | u16::from(*symbol) << (12 - 2 * index)
                });
            out.extend(chunk.to_be_bytes());
            rest = &rest[len..];
        }
    }
}

/// The extended number nearest to `near` that ends in these 16 bits.
#[must_use]
pub fn extend(near: u64, sequence: u16) -> u64 {
    let step = sequence.wrapping_sub(near as u16) as i16;
    near.saturating_add_signed(i64::from(step))
}

#[cfg(test)]
mod tests {
    use super::super::rtcp::{Compound, Packet};
    use super::*;
    use proptest::prelude::*;

    fn told(recorder: &mut Recorder) -> Vec<(u16, u64)> {
        let mut all = Vec::new();
        while !recorder.is_empty() {
            let mut builder = Builder::default();
            recorder.write(1, &mut builder);
            assert!(builder.bytes().len() < 1_200);
            let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(builder.bytes()).next()
            else {
                panic!("own feedback")
            };
            let arrivals: Vec<_> = feedback.arrivals().collect();
            assert_eq!(arrivals.len(), usize::from(feedback.received));
            let reference = i64::from(feedback.reference) * 256;
            all.extend(
                arrivals
                    .iter()
                    .map(|(sequence, ticks)| (*sequence, (reference + ticks) as u64)),
            );
        }
        all
    }

    #[test]
    fn the_reserved_status_and_missing_deltas_are_malformed() {
        let head = [0, 1, 0, 3, 0, 0, 1, 0];
        let with = |tail: &[u8]| [&head[..], tail].concat();
        assert!(Feedback::parse(1, &with(&[0x60, 3])).is_err()); // run of 0b11
        assert!(Feedback::parse(1, &with(&[0xf0, 0])).is_err()); // vector with 0b11
        assert!(Feedback::parse(1, &with(&[0x20, 3, 1, 1])).is_err()); // 3 small, 2 deltas
        assert!(Feedback::parse(1, &with(&[0x20, 3, 1, 1, 1])).is_ok());
        assert!(Feedback::parse(1, &with(&[0x20, 2, 1, 1, 1])).is_err()); // one status short
        assert!(Feedback::parse(1, &with(&[0, 0])).is_err()); // empty run: no progress, no loop
    }

    proptest! {
        #[test]
        fn parsing_is_total(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(feedback) = Feedback::parse(1, &body) {
                prop_assert_eq!(feedback.arrivals().count(), usize::from(feedback.received));
            }
        }

        #[test]
        fn every_arrival_is_told_once(
            start: u16,
            steps in proptest::collection::vec((1u16..30, 0u64..40_000), 1..199),
            swap in 0usize..100,
        ) {
            let mut recorder = Recorder::default();
            let mut expected = Vec::new();
            let (mut sequence, mut now) = (start, 5_000_000u64);
            for (step, wait) in steps {
                sequence = sequence.wrapping_add(step);
                now += wait;
                expected.push((sequence, now));
            }
            if expected.len() > 1 {
                let at = swap % (expected.len() - 1);
                let (a, b) = (expected[at].0, expected[at + 1].0);
                (expected[at].0, expected[at + 1].0) = (b, a); // reordered on the way
            }
            for (sequence, now) in &expected {
                recorder.record(*sequence, 9, Micros(*now));
            }
            let mut told = told(&mut recorder);
            let mut want: Vec<_> = expected.iter().map(|(s, t)| (*s, t / TICK_US)).collect();
            told.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(told, want);
        }
    }

    #[test]
    fn a_late_packet_is_told_in_a_message_of_its_own() {
        let mut recorder = Recorder::default();
        for sequence in [65_530u16, 65_532, 65_535, 2] {
            recorder.record(sequence, 9, Micros(1_000_000));
        }
        assert_eq!(told(&mut recorder).len(), 4);
        recorder.record(65_531, 9, Micros(1_100_000));
        recorder.record(3, 9, Micros(1_100_250));
        let again = told(&mut recorder);
        assert_eq!(again, vec![(65_531, 4_400), (3, 4_401)]);
    }
}
