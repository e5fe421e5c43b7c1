//! The loss-based controller (draft-ietf-rmcat-gcc-02 section 6): above 10 % less, below 2 % more, else the same.
//!
//! A link that loses one packet in ten at random is above 10 % in every other second. Only what chance does not
//! explain counts: until then, packets are gathered.

use crate::id::Micros;

use super::{grown, MAX_BPS};

/// Loss is judged over this time, and ...
const WINDOW_US: u64 = 1_000_000;
/// ... so many packets; while it may be chance, over this time at most.
const ENOUGH: u32 = 20;
const LONGEST_US: u64 = 8_000_000;
/// Above this it is too much, per mille.
const MOST_PERMILLE: u64 = 100;
/// Chance explains this many standard deviations.
const DEVIATIONS: u64 = 3;
/// Loss alone does not take the lowest layer away: a link that narrow shows delay too, and on one that loses
/// at random sending less helps nobody.
const FLOOR_BPS: u64 = 250_000;
/// Who loses so much, per mille, hears it.
const HEAVY_PERMILLE: u64 = 300;

/// A ceiling that follows loss.
#[derive(Debug)]
pub struct LossBased {
    bps: u64,
    arrived: u32,
    lost: u32,
    since: Option<Micros>,
    last_permille: u64,
}

impl LossBased {
    pub const fn new() -> Self {
        Self {
            bps: MAX_BPS,
            arrived: 0,
            lost: 0,
            since: None,
            last_permille: 0,
        }
    }

    /// In the last window.
    pub const fn is_heavy(&self) -> bool {
        self.last_permille >= HEAVY_PERMILLE
    }

    pub const fn bps(&self) -> u64 {
        self.bps
    }

    /// Feedback told of these, while so much passed and so much was believed to. True if that is too much loss.
    pub fn told(
        &mut self,
        (arrived, lost): (u32, u32),
        passed: u64,
        believed: u64,
        now: Micros,
    ) -> bool {
        self.arrived += arrived;
        self.lost += lost;
        let since = *self.since.get_or_insert(now);
        let all = self.arrived + self.lost;
        if now.since(since) < WINDOW_US || all < ENOUGH {
            return false;
        }
        let permille = u64::from(self.lost) * 1_000 / u64::from(all);
        self.last_permille = permille;
        if permille > MOST_PERMILLE && !is_sure(permille, all) && now.since(since) < LONGEST_US {
            return false;
        }
        (self.arrived, self.lost, self.since) = (0, 0, Some(now));
        match permille {
            101.. if is_sure(permille, all) => {
                // Half of the share that was lost, from what was tried: that, not what was believed, lost it.
                // A queue that is full from the first packet on shows no trend, only this.
                let sent = passed.saturating_mul(1_000) / (1_000 - permille).max(1);
                // Where nothing passes at all that is no measure either.
                let tried = self.bps.min(sent).min(2 * believed);
                self.bps = (tried * (2_000 - permille) / 2_000).max(FLOOR_BPS.min(self.bps));
                return true;
            }
            21.. => {}
            _ => self.bps = grown(self.bps, now.since(since)).min(MAX_BPS),
        }
        false
    }

    /// A probe showed that so much passes.
    pub fn probed(&mut self, bps: u64) {
        self.bps = self.bps.max(bps);
    }
}

/// A link that loses `MOST_PERMILLE` at random would hardly lose so much of so many packets.
fn is_sure(permille: u64, packets: u32) -> bool {
    let beyond = permille.saturating_sub(MOST_PERMILLE);
    let variance = MOST_PERMILLE * (1_000 - MOST_PERMILLE); // of one packet
    beyond * beyond * u64::from(packets) > DEVIATIONS * DEVIATIONS * variance
}
