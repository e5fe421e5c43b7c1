//! What was sent under which transport-wide number, until its fate is known.

use crate::id::Micros;

use super::super::twcc::Feedback;
use super::Ack;

/// Packets remembered: two seconds of 12 Mbit/s. 16 KiB, from the first feedback on.
const REMEMBERED: usize = 2_048;
/// Feedback counts time in 24 bits of 64 ms.
const REFERENCE_BITS: u32 = 24;
/// One tick of a delta.
const TICK_US: i64 = 250;
const REFERENCE_US: i64 = 64_000;

/// What is known of a number.
const UNKNOWN: u16 = 0;
const SENT: u16 = 1;
const MISSING: u16 = 2;
const ARRIVED: u16 = 3;
/// Never sent: nobody can have got it.
const UNSENT: u16 = 4;
/// The same, and said to be missing.
const UNSENT_TOLD: u16 = 5;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Low 32 bits of the time.
    at: u32,
    bytes: u16,
    fate: u16,
}

/// What a feedback message says that is new, and what it cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Packets that arrived.
    pub arrived: u32,
    /// Packets that are missing.
    pub lost: u32,
    /// Numbers rightly said for the first time not to have arrived: they were never sent.
    pub unsent: u32,
    /// Numbers said to have arrived that were never sent.
    pub lies: u32,
}

/// The latest packets of one transport.
#[derive(Debug)]
pub struct History {
    entries: Box<[Entry]>,
    /// Extended number sent last; numbers begin at 1.
    last: u64,
    /// Since this number it is kept.
    first: u64,
    /// Reference time of the latest feedback, extended.
    reference: Option<i64>,
}

impl History {
    /// Nothing yet; the next number is `last + 1`.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self {
            entries: vec![Entry::default(); REMEMBERED].into_boxed_slice(),
            last,
            first: last + 1,
            reference: None,
        }
    }

    /// A packet left, or (0 bytes) its number did not; numbers come one after the other.
    #[inline]
    pub fn sent(&mut self, number: u64, bytes: usize, now: Micros) {
        self.entries[place(number)] = Entry {
            at: now.0 as u32,
            bytes: bytes as u16,
            fate: if bytes == 0 { UNSENT } else { SENT },
        };
        self.last = number;
    }

    /// What a feedback message says that is new: fills `acks`.
    pub fn learn(&mut self, feedback: &Feedback<'_>, now: Micros, acks: &mut Vec<Ack>) -> Told {
        acks.clear();
        let base_us = self.reference_us(feedback.reference);
        let base = super::super::twcc::extend(self.last, feedback.base);
        let mut told = Told::default();
        let mut next = base;
        for (sequence, ticks) in feedback.arrivals() {
            let number = base + u64::from(sequence.wrapping_sub(feedback.base));
            self.missing(next..number, &mut told);
            next = number + 1;
            let Some(entry) = self.entry(number) else {
                continue;
            };
            match std::mem::replace(&mut entry.fate, ARRIVED) {
                ARRIVED => continue, // told before
                UNSENT | UNSENT_TOLD => {
                    told.lies += 1;
                    continue;
                }
                _ => told.arrived += 1,
            }
            let (at, bytes) = (entry.at, entry.bytes);
            let age = (now.0 as u32).wrapping_sub(at);
            acks.push(Ack {
                number,
                sent: Micros(now.0.saturating_sub(u64::from(age))),
                arrived_us: base_us + ticks * TICK_US,
                bytes: u32::from(bytes),
            });
        }
        let end = base + u64::from(feedback.count);
        self.missing(next..end, &mut told);
        told
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let known =
            number >= self.first && number <= self.last && number + REMEMBERED as u64 > self.last;
        let entry = &mut self.entries[place(number)];
        (known && entry.fate != UNKNOWN).then_some(entry)
    }

    /// These are said not to have arrived.
    fn missing(&mut self, numbers: std::ops::Range<u64>, told: &mut Told) {
        for number in numbers {
            match self.entry(number) {
                Some(entry) if entry.fate == SENT => {
                    entry.fate = MISSING;
                    told.lost += 1;
                }
                Some(entry) if entry.fate == UNSENT => {
                    entry.fate = UNSENT_TOLD;
                    told.unsent += 1;
                }
                _ => {}
            }
        }
    }

    /// The reference time on a scale without wraps.
    fn reference_us(&mut self, wire: u32) -> i64 {
        let whole = 1i64 << REFERENCE_BITS;
        let value = match self.reference {
            None => i64::from(wire),
            Some(before) => {
                let step = (i64::from(wire) - before).rem_euclid(whole);
                before + if step < whole / 2 { step } else { step - whole }
            }
        };
        self.reference = Some(value);
        value * REFERENCE_US
    }
}

const fn place(number: u64) -> usize {
    (number % REMEMBERED as u64) as usize
}
