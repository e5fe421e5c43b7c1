//! A peer that estimates itself and tells only a number (REMB draft 03): believed where it limits.
//!
//! What the peer says of a link that is not full is no more than a guess from what arrives, so it counts as a
//! limit only near what is sent; otherwise the budget creeps up until the next layer fits or the peer objects.

use crate::id::Micros;

use super::{grown, MAX_BPS, MIN_BPS, START_BPS};

/// REMB so close above what is sent says "this is all", percent.
const NEAR_PERCENT: u64 = 120;

/// The budget of such a peer.
#[derive(Debug)]
pub struct Remb {
    bps: u64,
    told: Option<Micros>,
    congested: Option<Micros>,
}

impl Default for Remb {
    fn default() -> Self {
        Self {
            bps: START_BPS,
            told: None,
            congested: None,
        }
    }
}

impl Remb {
    /// The peer says so much while `sending` leaves here.
    pub fn told(&mut self, bps: u64, sending: u64, now: Micros) {
        let elapsed_us = self.told.replace(now).map_or(0, |at| now.since(at));
        if bps < sending * NEAR_PERCENT / 100 {
            if bps < sending {
                self.congested = Some(now);
            }
            // Upwards like anything else: the peer's word alone makes no leap (S11).
            self.bps = bps.min(grown(self.bps, elapsed_us));
        } else {
            self.bps = grown(self.bps, elapsed_us);
        }
        self.bps = self.bps.clamp(MIN_BPS, MAX_BPS);
    }

    /// Bits per second.
    #[must_use]
    pub const fn estimate_bps(&self) -> u64 {
        self.bps
    }

    /// When it last said that this is too much.
    #[must_use]
    pub const fn congested(&self) -> Option<Micros> {
        self.congested
    }
}
