//! What is known of the link to one peer, and what may be sent over it: one number of several opinions.
//!
//! Not here: what follows from it (`congestion`), each opinion (`estimate`, `pacer`, `probe`).

use crate::id::Micros;

use super::congestion::PAUSE_AFTER_US;
use super::cushion::Cushion;
use super::estimate::{Ack, Ceiling, Estimator, History, Remb, Traps, Trust, OUTAGE_US};
use super::pacer::Pacer;
use super::probe::Probe;

/// What is known of the link to one peer.
#[derive(Debug, Default)]
pub struct Pressure {
    /// From the first feedback on.
    pub(super) history: Option<History>,
    pub(super) estimator: Option<Box<dyn Estimator>>,
    /// Which numbers are left out, from the first feedback on.
    pub(super) traps: Option<Traps>,
    pub(super) trust: Trust,
    /// What a liar gets, while it is one.
    pub(super) sentence_bps: Option<u64>,
    pub(super) remb: Option<Remb>,
    /// REMB of a peer that sends transport-wide feedback too.
    pub(super) ceiling: Ceiling,
    /// No more than this is wanted (MP32).
    pub(super) budget_bps: Option<u64>,
    /// Of this transport alone; nothing that a peer sees tells it.
    pub(super) secret: u64,
    pub(super) probe: Probe,
    pub(super) cushion: Cushion,
    pub pacer: Pacer,
    pub(super) acks: Vec<Ack>,
    /// When the first packet was sent that no feedback has followed.
    pub(super) untold_since: Option<Micros>,
    /// Bytes sent with a transport-wide number since `history` began.
    pub(super) bytes: u64,
    /// Bytes of all streams at the last round, if they were counted then, and their rate.
    pub(super) counted: Option<u64>,
    pub(super) sending_bps: u64,
    /// Something is held back.
    pub(super) limited: bool,
    /// Turn of the packets that probes repeat.
    pub(super) thrown: u64,
}

impl Pressure {
    /// `secret`: random.
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            ..Self::default()
        }
    }

    /// A packet left, or (0 bytes) its number did not.
    #[inline]
    pub fn sent(&mut self, number: u64, bytes: usize, now: Micros) {
        if let Some(history) = &mut self.history {
            history.sent(number, bytes, now);
            self.bytes += bytes as u64;
            if bytes > 0 {
                self.untold_since.get_or_insert(now);
            }
        }
    }

    /// Feedback arrived. True: after an outage, in which packets were sent.
    pub(super) fn take_outage(&mut self, now: Micros) -> bool {
        let since = self.untold_since.take();
        since.is_some_and(|at| now.since(at) >= OUTAGE_US)
    }

    /// What may be sent, bits per second; None = nobody told. The least of what delays and losses say (the estimator's
    /// own minimum), what the peer says of its link (REMB), what it wants at most, and what is left to a liar (MP26).
    pub fn estimate_bps(&self) -> Option<u64> {
        self.link_bps().into_iter().chain(self.cap_bps()).min()
    }

    /// What the link carries.
    pub(super) fn link_bps(&self) -> Option<u64> {
        match &self.estimator {
            Some(own) => {
                let own = own.estimate_bps();
                Some(self.ceiling.bps().map_or(own, |bps| bps.min(own)))
            }
            None => self.remb.as_ref().map(Remb::estimate_bps),
        }
    }

    /// What was decided, whatever the link carries.
    pub(super) fn cap_bps(&self) -> Option<u64> {
        self.budget_bps.into_iter().chain(self.sentence_bps).min()
    }

    /// What was decided is the limit, not the link: it is kept, and pictures that do not fit are not tried.
    pub(super) fn is_capped(&self) -> bool {
        let link = self.link_bps().unwrap_or(u64::MAX);
        self.cap_bps().is_some_and(|cap| cap <= link)
    }

    /// Finding out what the estimator does not know would change nothing.
    pub(super) fn is_held(&self) -> bool {
        let own = self.estimator.as_ref().map(|own| own.estimate_bps());
        self.estimate_bps() < own
    }

    /// All that is known of the link is REMB, which speaks of pictures alone.
    pub(super) fn is_by_remb(&self) -> bool {
        self.estimator.is_none() && self.remb.is_some()
    }

    /// Something is held back or has to wait, by what was known at the last round.
    pub(super) fn holds_back(&self) -> bool {
        self.limited || self.pacer.is_pacing()
    }

    /// What it carries beyond what is sent.
    pub fn spare_bps(&self) -> Option<u64> {
        let estimate = self.estimate_bps()?;
        Some(estimate.saturating_sub(self.sending_bps))
    }

    /// How long packets wait on it.
    pub fn queue_us(&self) -> u64 {
        self.estimator.as_ref().map_or(0, |own| own.queue_us())
    }

    pub(super) fn congested(&self) -> Option<Micros> {
        match (&self.estimator, &self.remb) {
            (Some(own), _) => own.congested(),
            (None, Some(remb)) => remb.congested(),
            (None, None) => None,
        }
    }

    /// Sound suffered not long ago. Where it does not, the lowest layer is tried although the estimate, which loss
    /// and jitter lower too, has no room for it: if it is too much a queue will tell.
    pub(super) fn is_strained(&self, now: Micros) -> bool {
        let at = self.estimator.as_ref().and_then(|own| own.strained());
        at.is_some_and(|at| now.since(at) <= PAUSE_AFTER_US)
            || self.is_resting(now)
            || self.is_capped()
    }

    /// A peer that tells only REMB lost too much of the lowest layer for too long.
    pub(super) fn is_resting(&self, now: Micros) -> bool {
        let remb = self.remb.as_ref().filter(|_| self.estimator.is_none());
        remb.is_some_and(|remb| remb.is_resting(now))
    }

    /// A receiver report on the lowest layer of a stream.
    pub fn reported(&mut self, fraction_lost: u8, highest: u32, now: Micros) {
        if let Some(remb) = &mut self.remb {
            remb.lost(fraction_lost, highest, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::estimate::{Goog, News, MAX_BPS, START_BPS};
    use super::*;

    const NOW: Micros = Micros(5_000_000);

    fn measured() -> Pressure {
        Pressure {
            estimator: Some(Box::new(Goog::default())),
            ..Pressure::new(1)
        }
    }

    /// 100 packets of a second, each so much later than the one before; so many are lost.
    fn fed(delay_us: i64, lost: u32) -> Pressure {
        let mut pressure = measured();
        for batch in 0..40u64 {
            let acks: Vec<_> = (0..5)
                .map(|at| {
                    let number = 5 * batch + at;
                    let sent = NOW.plus_ms(number * 10);
                    let late = number as i64 * (10_000 + delay_us);
                    Ack {
                        number,
                        sent,
                        arrived_us: NOW.0 as i64 + late,
                        bytes: 1_200,
                    }
                })
                .collect();
            let news = News {
                acks: &acks,
                lost,
                rtt_us: 50_000,
                can_probe: true,
            };
            let own = pressure.estimator.as_mut().expect("made");
            own.feedback(&news, NOW.plus_ms(50 * batch + 100));
        }
        pressure
    }

    /// MP26: each opinion alone lowers the number; without any there is none.
    #[test]
    fn each_of_four_inputs_alone_lowers_the_estimate() {
        assert_eq!(Pressure::new(1).estimate_bps(), None);
        assert!(fed(0, 0).estimate_bps() >= Some(START_BPS), "nothing wrong");
        assert!(fed(2_000, 0).estimate_bps() < Some(START_BPS), "delay");
        assert!(fed(0, 2).estimate_bps() < Some(START_BPS), "loss");
        let mut native = measured();
        native.ceiling.told(400_000, 900_000, NOW);
        assert_eq!(native.estimate_bps(), Some(400_000));
        let mut hinted = measured();
        hinted.budget_bps = Some(300_000);
        assert_eq!(hinted.estimate_bps(), Some(300_000));
        hinted.budget_bps = Some(MAX_BPS);
        assert_eq!(hinted.estimate_bps(), Some(START_BPS), "never more");
        let only_hinted = Pressure {
            budget_bps: Some(300_000),
            ..Pressure::new(1)
        };
        assert_eq!(only_hinted.estimate_bps(), Some(300_000));
    }

    #[test]
    fn a_remb_beside_feedback_counts_near_what_is_sent_and_while_it_is_repeated() {
        let mut one = measured();
        one.ceiling.told(400_000, 100_000, NOW);
        assert_eq!(one.estimate_bps(), Some(START_BPS), "a guess");
        one.ceiling.told(400_000, 350_000, NOW);
        assert_eq!(one.estimate_bps(), Some(400_000));
        one.ceiling.told(400_000, 200_000, NOW.plus_ms(1_000));
        assert_eq!(one.estimate_bps(), Some(432_000), "grows as anything else");
        one.ceiling.told(900_000, 300_000, NOW.plus_ms(2_000));
        assert_eq!(one.estimate_bps(), Some(900_000));
        one.ceiling.forget(NOW.plus_ms(12_001));
        assert_eq!(one.estimate_bps(), Some(START_BPS));
    }
}
