//! What arrives of one SSRC: extended sequence numbers, duplicates, holes, jitter, loss (RFC 3550 appendix A).
//!
//! Sequence numbers that carry padding only are closed up here, once for all subscribers: a packet has an
//! extended number (the publisher's) and a dense number (the one subscribers' numbers derive from).
//! Not here: when a NACK is sent (`Publication`), whom a packet goes to (`Router`).

use std::collections::VecDeque;

use crate::id::Micros;

use super::twcc::extend;

/// Packets behind the newest that are still told apart from duplicates.
const WINDOW: u64 = 1_024;
/// A forward jump beyond this is a sender that started over (RFC 3550 appendix A.1, MAX_DROPOUT).
const MAX_DROPOUT: i64 = 3_000;
/// Holes remembered at most; more is an outage, which only a key frame repairs.
const MAX_MISSING: usize = 200;
/// Padding-only numbers remembered, so that late packets find their dense number.
const MAX_CLOSED: usize = 256;
/// Reordering on real paths is mostly below this; asking earlier only doubles packets ...
const REORDER_US: u64 = 15_000;
/// ... and where it is not, the patience grows with what is seen, up to this, and shrinks again.
const REORDER_MAX_US: u64 = 60_000;
/// What comes so soon after it was asked for was on its way already.
const ANSWER_US: u64 = 10_000;
/// Arrivals in order after which an eighth of the patience is lost again.
const FORGET_AFTER: u32 = 2_048;
/// Between two requests for one packet: a usual round trip, since we know no better.
const RETRY_US: u64 = 80_000;
/// Requests for one packet.
const MAX_TRIES: u8 = 10;

/// A hole and its requests.
#[derive(Clone, Copy, Debug)]
struct Missing {
    number: u64,
    since: Micros,
    due: Micros,
    tries: u8,
}

/// What is missing between the newest packet and a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// Worth asking for (NACK negotiated).
    Wanted,
    /// Not worth asking for.
    Unwanted,
    /// Padding (`place`): closed up as if it had come.
    Padding,
    /// Of an outage: the publisher does not have it any more.
    Gone,
}

/// What `Receive::arrived` makes of a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// First time seen: (dense number, newest so far).
    New(u64, bool),
    /// Padding-only, the newest, and closed up: nothing to forward.
    Closed,
    /// Seen before, closed up before it came, or too old to tell.
    Stale,
    /// The sender started over: state was reset, the packet is the first of a new epoch.
    Restarted(u64),
}

/// Receive state of one SSRC.
#[derive(Debug)]
pub struct Receive {
    base: u64,
    highest: u64,
    received: u64,
    window: [u64; (WINDOW / 64) as usize],
    closed: u64,
    closed_at: VecDeque<u64>,
    missing: Vec<Missing>,
    /// Sequence number after a wild jump: two in a row are believed.
    probation: Option<u16>,
    jitter_16ths: u64,
    transit: Option<u32>,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// From before a restart.
    lost_before: u64,
    /// An outage larger than the list of holes.
    overflowed: bool,
    /// How long a hole may be reordering.
    patience_us: u64,
    /// Arrivals in order since the patience last changed.
    in_order: u32,
}

impl Receive {
    /// The first packet of an SSRC has this number.
    #[must_use]
    pub fn new(sequence: u16) -> Self {
        let first = 0x1_0000 + u64::from(sequence);
        Self {
            base: first,
            highest: first - 1,
            received: 0,
            window: [0; (WINDOW / 64) as usize],
            closed: 0,
            closed_at: VecDeque::new(),
            missing: Vec::new(),
            probation: None,
            jitter_16ths: 0,
            transit: None,
            reported: (0, 0),
            lost_before: 0,
            overflowed: false,
            patience_us: REORDER_US,
            in_order: 0,
        }
    }

    /// Account for a packet.
    pub fn arrived(
        &mut self,
        sequence: u16,
        padding_only: bool,
        repeated: bool,
        holes: Holes,
        now: Micros,
    ) -> Arrival {
        let number = extend(self.highest, sequence);
        let ahead = number as i64 - self.highest as i64;
        if ahead > MAX_DROPOUT || ahead <= -(WINDOW as i64) {
            if repeated || padding_only {
                return Arrival::Stale; // neither can vouch for a new beginning
            }
            if self.probation != Some(sequence) {
                self.probation = Some(sequence.wrapping_add(1));
                return Arrival::Stale;
            }
            let lost = self.lost();
            *self = Self::new(sequence);
            self.lost_before = lost;
            return match self.arrived(sequence, false, false, holes, now) {
                Arrival::New(dense, _) => Arrival::Restarted(dense),
                other => other,
            };
        }
        self.probation = None;
        if ahead > 0 {
            self.advance(number, holes, now);
        } else {
            if number < self.base || self.seen(number) {
                return Arrival::Stale;
            }
            self.close_hole(number, repeated, now);
        }
        self.mark(number);
        self.received += 1;
        let newest = ahead > 0;
        if padding_only && newest {
            self.close_up(number);
            return Arrival::Closed;
        }
        match self.dense(number) {
            Some(dense) => Arrival::New(dense, newest),
            None => Arrival::Stale,
        }
    }

    /// Interarrival jitter (RFC 3550 appendix A.8); not for repeated packets.
    pub fn clocked(&mut self, timestamp: u32, clock_rate: u32, now: Micros) {
        let arrival = (now.0.wrapping_mul(u64::from(clock_rate / 100)) / 10_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit {
            let change = u64::from((transit.wrapping_sub(before) as i32).unsigned_abs());
            // A change of many seconds is a new timeline, not jitter.
            if change < u64::from(clock_rate) * 4 {
                self.jitter_16ths =
                    (self.jitter_16ths + change).saturating_sub((self.jitter_16ths + 8) >> 4);
            }
        }
        self.transit = Some(transit);
    }

    /// RTP clock units.
    #[must_use]
    pub const fn jitter(&self) -> u64 {
        self.jitter_16ths >> 4
    }

    /// Never received, since the beginning.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_before + (self.highest + 1 - self.base).saturating_sub(self.received)
    }

    /// (fraction lost of 256 since the last call, sum, extended highest on the wire's scale).
    pub fn report(&mut self) -> (u8, u32, u32) {
        let expected = self.highest + 1 - self.base;
        let (expected_now, received_now) =
            (expected - self.reported.0, self.received - self.reported.1);
        self.reported = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        (
            fraction.min(255) as u8,
            self.lost().min(0x7f_ffff) as u32,
            (self.highest - 0x1_0000) as u32,
        )
    }

    /// When the next request is due.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.missing.iter().map(|hole| hole.due).min()
    }

    /// The numbers to ask for now, ascending.
    pub fn take_due(&mut self, now: Micros, out: &mut Vec<u16>) {
        self.missing.retain_mut(|hole| {
            if hole.due > now {
                return true;
            }
            if hole.tries == MAX_TRIES {
                return false;
            }
            hole.tries += 1;
            hole.due = Micros(now.0 + RETRY_US);
            out.push(hole.number as u16);
            true
        });
    }

    /// The numbers to ask for now, not for the first time.
    pub fn unanswered(&self, now: Micros) -> impl Iterator<Item = u64> + '_ {
        let again = move |hole: &&Missing| hole.tries > 0 && hole.due <= now;
        self.missing.iter().filter(again).map(|hole| hole.number)
    }

    /// A missing number was padding: its dense number, under which something else goes out. It stays lost.
    pub fn fill(&mut self, number: u64) -> Option<u64> {
        let at = self.missing.iter().position(|hole| hole.number == number)?;
        self.missing.remove(at);
        self.mark(number);
        self.dense(number)
    }

    /// An outage happened that requests cannot mend; asked once.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Forget the holes: nobody wants them any more.
    pub fn forget_missing(&mut self) {
        self.missing.clear();
    }

    /// Nobody downstream shall miss this number.
    fn close_up(&mut self, number: u64) {
        if self.closed_at.len() == MAX_CLOSED {
            self.closed_at.pop_front();
        }
        self.closed_at.push_back(number);
        self.closed += 1;
    }

    fn advance(&mut self, number: u64, holes: Holes, now: Micros) {
        let first = self.highest + 1;
        if number - self.highest >= WINDOW {
            self.window = [0; (WINDOW / 64) as usize];
        } else {
            for between in first..=number {
                let (word, bit) = Self::place(between);
                self.window[word] &= !(1 << bit);
            }
        }
        self.highest = number;
        self.in_order += 1;
        if self.in_order >= FORGET_AFTER {
            self.in_order = 0;
            self.patience_us = REORDER_US.max(self.patience_us - self.patience_us / 8);
        }
        let hole = (number - first) as usize;
        match holes {
            Holes::Unwanted => return,
            Holes::Padding if hole <= MAX_CLOSED / 4 => {
                (first..number).for_each(|number| self.close_up(number));
                return;
            }
            Holes::Gone if hole > 0 => {
                self.missing.clear();
                self.overflowed = true;
                return;
            }
            Holes::Padding | Holes::Wanted | Holes::Gone => {}
        }
        if self.missing.len() + hole > MAX_MISSING {
            self.missing.clear();
            self.overflowed = true;
            return;
        }
        self.missing.extend((first..number).map(|number| Missing {
            number,
            since: now,
            due: Micros(now.0 + self.patience_us),
            tries: 0,
        }));
    }

    /// A packet came late; one that was never asked for, or only just, teaches patience.
    fn close_hole(&mut self, number: u64, repeated: bool, now: Micros) {
        let Some(at) = self.missing.iter().position(|hole| hole.number == number) else {
            return;
        };
        let hole = self.missing.remove(at);
        let asked = Micros(hole.due.0.saturating_sub(RETRY_US));
        if !repeated && (hole.tries == 0 || now.since(asked) <= ANSWER_US) {
            let late = now.since(hole.since);
            let needed = (late + late / 8).min(REORDER_MAX_US);
            if needed >= self.patience_us {
                self.patience_us = needed;
                self.in_order = 0;
            }
        }
    }

    /// The dense number of one that may be missing; None: closed up, or older than what we remember of closed numbers.
    pub fn dense(&self, number: u64) -> Option<u64> {
        let after = self.closed_at.iter().rev().take_while(|at| **at > number);
        let later = after.count();
        let place = self.closed_at.len() - later;
        if later == MAX_CLOSED || place > 0 && self.closed_at[place - 1] == number {
            return None;
        }
        Some(number - self.closed + later as u64)
    }

    const fn place(number: u64) -> (usize, u64) {
        ((number % WINDOW / 64) as usize, number % 64)
    }

    const fn seen(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.window[word] >> bit & 1 == 1
    }

    const fn mark(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        self.window[word] |= 1 << bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: Micros = Micros(1_000_000);

    #[test]
    fn padding_is_closed_up_and_late_packets_keep_their_place() {
        let mut receive = Receive::new(65_534);
        let base = 0x1_0000 + 65_534;
        let mut take =
            |sequence, padding| receive.arrived(sequence, padding, false, Holes::Wanted, T);
        assert_eq!(take(65_534, false), Arrival::New(base, true));
        assert_eq!(take(0, false), Arrival::New(base + 2, true));
        assert_eq!(take(1, true), Arrival::Closed);
        assert_eq!(take(2, false), Arrival::New(base + 3, true));
        assert_eq!(take(65_535, false), Arrival::New(base + 1, false));
        assert_eq!(take(65_535, false), Arrival::Stale);
        assert_eq!(take(1, true), Arrival::Stale);
    }

    #[test]
    fn lost_padding_is_closed_up_and_a_late_one_changes_nothing() {
        let mut receive = Receive::new(65_534);
        let base = 0x1_0000 + 65_534;
        let mut take = |sequence, holes| receive.arrived(sequence, false, false, holes, T);
        assert_eq!(take(65_534, Holes::Wanted), Arrival::New(base, true));
        assert_eq!(take(2, Holes::Padding), Arrival::New(base + 1, true));
        assert_eq!(take(0, Holes::Wanted), Arrival::Stale);
        assert_eq!(take(4, Holes::Wanted), Arrival::New(base + 3, true));
        assert_eq!(take(3, Holes::Wanted), Arrival::New(base + 2, false));
        assert_eq!(receive.due(), None);
        assert_eq!(receive.lost(), 2, "the publisher is told of what got lost");
    }

    #[test]
    fn a_hole_is_asked_for_after_the_reorder_time_and_ten_times_at_most() {
        let mut receive = Receive::new(10);
        receive.arrived(10, false, false, Holes::Wanted, T);
        receive.arrived(13, false, false, Holes::Wanted, T);
        let mut out = Vec::new();
        receive.take_due(T.plus_ms(14), &mut out);
        assert!(out.is_empty());
        receive.arrived(12, false, false, Holes::Wanted, T.plus_ms(14));
        let mut now = T.plus_ms(15);
        for _ in 0..20 {
            receive.take_due(now, &mut out);
            now = now.plus_ms(100);
        }
        assert_eq!(out, vec![11; 10]);
        assert_eq!(receive.due(), None);
    }

    #[test]
    fn a_sender_that_starts_over_is_believed_at_the_second_packet() {
        let mut receive = Receive::new(10);
        receive.arrived(10, false, false, Holes::Wanted, T);
        assert_eq!(
            receive.arrived(30_000, false, false, Holes::Wanted, T),
            Arrival::Stale
        );
        assert!(matches!(
            receive.arrived(30_001, false, false, Holes::Wanted, T),
            Arrival::Restarted(_)
        ));
        assert!(matches!(
            receive.arrived(30_002, false, false, Holes::Wanted, T),
            Arrival::New(_, true)
        ));
    }

    #[test]
    fn loss_is_a_fraction_of_the_interval() {
        let mut receive = Receive::new(0);
        for sequence in (0..100).filter(|s| s % 4 != 1) {
            receive.arrived(sequence, false, false, Holes::Unwanted, T);
        }
        let (fraction, lost, highest) = receive.report();
        assert_eq!((fraction, lost, highest), (64, 25, 99));
        assert_eq!(receive.report().0, 0);
    }

    #[test]
    fn steady_packets_have_no_jitter() {
        let mut receive = Receive::new(0);
        for index in 0..200u32 {
            receive.clocked(
                index.wrapping_mul(960).wrapping_sub(5_000),
                48_000,
                Micros(1_000_000 + u64::from(index) * 20_000),
            );
        }
        assert_eq!(receive.jitter(), 0);
    }

    proptest! {
        /// Every order, every loss: dense numbers are unique and order like the sequence numbers.
        #[test]
        fn dense_numbers_are_unique_and_ordered(
            start: u16,
            packets in proptest::collection::vec((any::<bool>(), 0usize..6, 0u8..10), 1..300),
        ) {
            let mut order: Vec<(usize, bool)> = Vec::new();
            for (index, (padding, delay, lost)) in packets.iter().enumerate() {
                if *lost == 0 { continue; }
                let at = (index + delay).min(order.len());
                order.insert(at.min(order.len()), (index, *padding));
                let len = order.len();
                if *delay > 0 && len > *delay { order.swap(len - 1, len - 1 - delay); }
            }
            let mut receive: Option<Receive> = None;
            let mut got: Vec<(usize, u64)> = Vec::new();
            for (index, padding) in order {
                let sequence = start.wrapping_add(index as u16);
                let receive = receive.get_or_insert_with(|| Receive::new(sequence));
                if let Arrival::New(dense, _) = receive.arrived(sequence, padding, false, Holes::Wanted, T) {
                    got.push((index, dense));
                }
            }
            got.sort_unstable();
            prop_assert!(got.windows(2).all(|pair| pair[0].1 < pair[1].1), "{got:?}");
        }
    }
}
