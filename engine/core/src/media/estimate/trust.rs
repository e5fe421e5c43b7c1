//! Does a peer tell the truth about what arrives? Feedback is all that is known of a link, and it can be made up.
//!
//! Two things hold a liar (S11), whatever it says:
//! * Now and then a transport-wide number is left out. Who did not get a packet cannot know whether it was lost or never
//!   sent, so whoever claims what it did not get soon claims a number that nobody sent. An honest peer cannot: it gets
//!   little for a while, longer each time.
//! * Packets that a peer tells nothing of, although it goes on telling, are lost packets.
//!
//! So a peer is believed to get what it really got, and loss is what it is told to be.
//! Not here: what a number was (`history`), what follows from loss (`loss`).

use crate::id::Micros;
use crate::random::derived;

use super::history::Told;

/// Between two numbers left out: so many that are sent, at least and at most.
const APART_MIN: u64 = 16;
const APART_MAX: u64 = 64;
/// So many false claims are no fault of a program any more ...
const ENOUGH: u8 = 3;
/// ... if they come within this.
const FORGIVEN_US: u64 = 10_000_000;
/// What a liar gets: sound and the lowest layer of a camera ...
const DISTRUSTED_BPS: u64 = 250_000;
/// ... for so long, doubled each time, up to a limit.
const SENTENCE_US: u64 = 30_000_000;
const LONGEST_US: u64 = 480_000_000;
/// What is told of is compared with what was sent over this ...
const WINDOW_US: u64 = 500_000;
/// ... unless the peer told nothing for so long: its way to us was cut.
const SILENT_US: u64 = 2_000_000;
/// Two windows in a row, and so many packets in each, are no accident.
const HUSHED: u8 = 2;
const FEW: u64 = 20;

/// Which numbers are left out. Unpredictable to who sees those before: a keyed hash of the number.
#[derive(Debug)]
pub struct Traps {
    secret: u64,
    next: u64,
}

impl Traps {
    /// `secret`: nothing that any peer could derive.
    #[must_use]
    pub fn new(secret: u64, last: u64) -> Self {
        let mut traps = Self { secret, next: 0 };
        traps.plan(last);
        traps
    }

    /// The number after `last` is to be left out.
    #[inline]
    pub fn is_due(&mut self, last: u64) -> bool {
        let is_due = last + 1 >= self.next;
        if is_due {
            self.plan(last + 1);
        }
        is_due
    }

    fn plan(&mut self, last: u64) {
        let apart = APART_MIN + derived(self.secret, last) % (APART_MAX - APART_MIN + 1);
        self.next = last + 1 + apart;
    }
}

/// What is to be believed of one peer.
#[derive(Debug, Default)]
pub struct Trust {
    lies: u8,
    lied: Option<Micros>,
    /// End of the sentence.
    until: Option<Micros>,
    sentence_us: u64,
    /// Begin of the window, numbers sent up to then, numbers told of since.
    since: Option<Micros>,
    sent: u64,
    told: u64,
    hushed: u8,
}

impl Trust {
    /// Feedback; how many packets it should have told of as lost. `sent`: numbers sent so far.
    pub fn weigh(&mut self, told: &Told, sent: u64, now: Micros) -> u32 {
        if told.lies > 0 {
            self.caught(told.lies, now);
        }
        self.told += u64::from(told.arrived + told.lost + told.unsent);
        let elapsed_us = self.since.map_or(u64::MAX, |at| now.since(at));
        if elapsed_us < WINDOW_US {
            return 0;
        }
        let all = sent - self.sent;
        let missing = all.saturating_sub(self.told);
        (self.since, self.sent, self.told) = (Some(now), sent, 0);
        if elapsed_us > SILENT_US || all < FEW || 2 * missing < all {
            self.hushed = 0;
            return 0;
        }
        self.hushed = (self.hushed + 1).min(HUSHED);
        if self.hushed < HUSHED {
            return 0;
        }
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    fn caught(&mut self, lies: u32, now: Micros) {
        if self.lied.is_none_or(|at| now.since(at) > FORGIVEN_US) {
            self.lies = 0;
        }
        self.lied = Some(now);
        self.lies = self.lies.saturating_add(lies.min(255) as u8);
        if self.lies < ENOUGH {
            return;
        }
        if self.until.is_none_or(|until| now >= until) {
            self.sentence_us = (2 * self.sentence_us).clamp(SENTENCE_US, LONGEST_US);
        }
        self.until = Some(Micros(now.0 + self.sentence_us));
    }

    /// No more than this, bits per second.
    #[must_use]
    pub fn cap_bps(&self, now: Micros) -> Option<u64> {
        let is_serving = self.until.is_some_and(|until| now < until);
        is_serving.then_some(DISTRUSTED_BPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Micros = Micros(1_000_000_000);

    fn told(arrived: u32, lost: u32, lies: u32) -> Told {
        Told {
            arrived,
            lost,
            unsent: 0,
            lies,
        }
    }

    #[test]
    fn the_third_false_claim_is_a_lie_and_each_sentence_is_longer() {
        let mut trust = Trust::default();
        trust.weigh(&told(5, 0, 2), 10, START);
        assert_eq!(trust.cap_bps(START), None);
        let late = START.plus_ms(11_000);
        trust.weigh(&told(5, 0, 2), 20, late);
        assert_eq!(trust.cap_bps(late), None, "forgiven");
        trust.weigh(&told(5, 0, 1), 30, late);
        assert_eq!(trust.cap_bps(late), Some(DISTRUSTED_BPS));
        assert!(trust.cap_bps(late.plus_ms(29_999)).is_some());
        let free = late.plus_ms(30_000);
        assert_eq!(trust.cap_bps(free), None);
        trust.weigh(&told(5, 0, 3), 40, free);
        assert!(trust.cap_bps(free.plus_ms(59_000)).is_some());
        assert_eq!(trust.cap_bps(free.plus_ms(60_000)), None);
    }

    #[test]
    fn what_is_not_told_of_is_lost_but_an_outage_is_not() {
        let mut trust = Trust::default();
        let mut silent = 0;
        for turn in 1..=40 {
            silent += trust.weigh(&told(3, 0, 0), turn * 13, START.plus_ms(turn * 50));
        }
        assert!((100..=400).contains(&silent), "{silent}");
        let mut trust = Trust::default();
        trust.weigh(&told(10, 0, 0), 10, START);
        for (at_ms, sent) in [(3_000, 800), (3_050, 820), (3_100, 840), (3_600, 1_000)] {
            let now = START.plus_ms(at_ms);
            assert_eq!(trust.weigh(&told(20, 0, 0), sent, now), 0);
        }
    }

    proptest! {
        /// Numbers are left out again and again, never too many.
        #[test]
        fn some_numbers_are_left_out(secret: u64, from in 0u64..1 << 40) {
            let mut traps = Traps::new(secret, from);
            let (mut last, mut left_out, mut run) = (from, 0u64, 0u64);
            for _ in 0..6_400 {
                if traps.is_due(last) {
                    prop_assert!((APART_MIN..=APART_MAX).contains(&run), "{}", run);
                    (last, run) = (last + 1, 0);
                    left_out += 1;
                }
                (last, run) = (last + 1, run + 1);
            }
            prop_assert!((100..=400).contains(&left_out));
        }

        /// Whoever tells of every packet once, however late, is never thought to hide any.
        #[test]
        fn the_honest_hide_nothing(batches in proptest::collection::vec((1u32..60, 0u32..20, 20u64..400), 1..60)) {
            let mut trust = Trust::default();
            let (mut now, mut sent) = (START, 0u64);
            for (arrived, lost, wait) in batches {
                now = now.plus_ms(wait);
                sent += u64::from(arrived + lost);
                prop_assert_eq!(trust.weigh(&told(arrived, lost, 0), sent, now), 0);
                prop_assert_eq!(trust.cap_bps(now), None);
            }
        }
    }
}
