//! Delay-based and loss-based control together (draft-ietf-rmcat-gcc-02 section 5.5: increase, hold, decrease).

use crate::id::Micros;

use super::acked::Acked;
use super::detector::{Detector, Usage};
use super::loss::LossBased;
use super::queue::Queue;
use super::{grown, Estimator, News, MAX_BPS, MIN_BPS, OUTAGE_US, START_BPS};

/// A decrease goes to this share of what arrives, percent.
const BACK_OFF_PERCENT: u64 = 85;
/// Two decreases are at least this far apart, and a round trip more: the first must show.
const DECREASE_US: u64 = 200_000;
/// Without a need for more the estimate stays near what passes: at most 1.5 times as much is believed.
const BELIEVED_PERCENT: u64 = 150;
const BELIEVED_EXTRA_BPS: u64 = 10_000;
/// A queue of this length is heard.
const HEARD_US: i64 = 80_000;
/// So much is tried again in any case, or a stream that stands still could never begin anew.
const TRIED_BPS: u64 = 300_000;

/// What an outage lost says nothing of the link's width, and to fall for it would cost the picture seconds. Who is
/// silent again and again is not forgiven again and again.
const FORGIVING_US: u64 = 20_000_000;

/// The controller of the name.
#[derive(Debug)]
pub struct Goog {
    detector: Detector,
    queue: Queue,
    acked: Acked,
    loss: LossBased,
    bps: u64,
    updated: Option<Micros>,
    decreased: Option<Micros>,
    congested: Option<Micros>,
    strained: Option<Micros>,
    /// An outage ended.
    forgiven: Option<Micros>,
}

impl Default for Goog {
    fn default() -> Self {
        Self {
            detector: Detector::new(),
            queue: Queue::new(),
            acked: Acked::default(),
            loss: LossBased::new(),
            bps: START_BPS,
            updated: None,
            decreased: None,
            congested: None,
            strained: None,
            forgiven: None,
        }
    }
}

impl Goog {
    /// Losses that count, told after so long a silence.
    fn counted(&mut self, lost: u32, silent_us: u64, now: Micros) -> u32 {
        let is_rare = self.forgiven.is_none_or(|at| now.since(at) >= FORGIVING_US);
        if silent_us < OUTAGE_US || !is_rare {
            return lost;
        }
        self.forgiven = Some(now);
        0
    }

    fn decrease(&mut self, rtt_us: u64, now: Micros) {
        self.congested = Some(now);
        let pause = DECREASE_US + rtt_us.min(500_000);
        if self.decreased.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        // Without a measured rate, what was believed is the only start.
        let passed = self.acked.bps().unwrap_or(self.bps);
        let target = passed * BACK_OFF_PERCENT / 100;
        if target < self.bps {
            self.bps = target.max(MIN_BPS);
        }
        self.decreased = Some(now);
    }

    fn increase(&mut self, elapsed_us: u64, can_probe: bool) {
        let Some(passed) = self.acked.bps() else {
            return;
        };
        let believed = if can_probe {
            (passed * BELIEVED_PERCENT / 100 + BELIEVED_EXTRA_BPS).max(TRIED_BPS)
        } else {
            MAX_BPS
        };
        if self.bps < believed {
            self.bps = grown(self.bps, elapsed_us).min(believed);
        }
    }
}

impl Estimator for Goog {
    fn feedback(&mut self, news: &News<'_>, now: Micros) {
        let elapsed_us = self.updated.map_or(0, |at| now.since(at));
        for ack in news.acks {
            self.acked.arrived(ack.arrived_us, ack.bytes);
            self.detector.packet(ack);
            self.queue.packet(ack);
        }
        if news.acks.is_empty() && news.lost == 0 {
            return;
        }
        self.updated = Some(now);
        match self.detector.usage() {
            Usage::Over if self.queue.stands() => self.decrease(news.rtt_us, now),
            Usage::Over => {}  // a burst: it may pass
            Usage::Under => {} // the queue empties: let it
            Usage::Normal => self.increase(elapsed_us, news.can_probe),
        }
        let arrived = news.acks.len() as u32;
        let passed = self.acked.bps().unwrap_or(self.bps);
        let lost = self.counted(news.lost, elapsed_us, now);
        if self.loss.told((arrived, lost), passed, self.bps, now) {
            self.congested = Some(now);
        }
        if self.queue.wait_us() >= HEARD_US || self.loss.is_heavy() {
            self.strained = Some(now);
        }
        self.bps = self.bps.clamp(MIN_BPS, MAX_BPS);
    }

    fn probed(&mut self, bps: u64) {
        self.bps = self.bps.max(bps).min(MAX_BPS);
        self.loss.probed(bps.min(MAX_BPS));
    }

    fn queue_us(&self) -> u64 {
        self.queue.wait_us().max(0) as u64
    }

    fn estimate_bps(&self) -> u64 {
        self.bps.min(self.loss.bps()).clamp(MIN_BPS, MAX_BPS)
    }

    fn congested(&self) -> Option<Micros> {
        self.congested
    }

    fn strained(&self) -> Option<Micros> {
        self.strained
    }
}
