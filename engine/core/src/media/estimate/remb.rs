//! A peer that estimates itself and tells only a number (REMB draft 03): believed where it limits.
//!
//! What the peer says of a link that is not full is no more than a guess from what arrives, so it counts as a
//! limit only near what is sent; otherwise the budget creeps up until the next layer fits or the peer objects.
//! That pictures do not fit at all is believed only of its loss: heavy, sustained, and of the lowest layer.
//! Beside transport-wide feedback the number is a ceiling (`Ceiling`): a limit that packets do not show.

use crate::id::Micros;

use super::{grown, MAX_BPS, MIN_BPS, START_BPS};

/// REMB so close above what is sent says "this is all", percent.
const NEAR_PERCENT: u64 = 120;

/// Heavy loss, in 256ths: a fifth. What repeats do not repair within their budget.
const HEAVY: u8 = 51;
/// Less than this is good again.
const LIGHT: u8 = 26;
/// So many reports ...
const REPORTS: u8 = 3;
/// ... over so long tell that it stays so.
const SUSTAINED_US: u64 = 3_000_000;
/// A report on fewer packets says nothing of the link.
const LEAST_PACKETS: u32 = 20;
/// Pictures rest for so long, twice as long each time they were no better soon after, up to a limit.
const REST_US: u64 = 10_000_000;
const LONGEST_REST_US: u64 = 80_000_000;
const SOON_US: u64 = 30_000_000;

/// The budget of such a peer.
#[derive(Debug)]
pub struct Remb {
    bps: u64,
    told: Option<Micros>,
    congested: Option<Micros>,
    /// Highest number of the last report on the lowest layer.
    highest: u32,
    /// Heavy loss since, in so many reports.
    heavy: Option<(Micros, u8)>,
    /// No pictures until.
    rests: Option<Micros>,
    rest_us: u64,
}

impl Default for Remb {
    fn default() -> Self {
        Self {
            bps: START_BPS,
            told: None,
            congested: None,
            highest: 0,
            heavy: None,
            rests: None,
            rest_us: REST_US,
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

    /// The peer lost so much (256ths) of the lowest layer up to this number.
    pub fn lost(&mut self, fraction: u8, highest: u32, now: Micros) {
        let packets = highest.wrapping_sub(self.highest);
        self.highest = highest;
        if !(LEAST_PACKETS..u32::MAX / 2).contains(&packets) || self.is_resting(now) {
            return;
        }
        if fraction < LIGHT {
            self.heavy = None;
        }
        if fraction < HEAVY {
            return;
        }
        let (since, reports) = self.heavy.unwrap_or((now, 0));
        self.heavy = Some((since, reports.saturating_add(1)));
        if reports + 1 >= REPORTS && now.since(since) >= SUSTAINED_US {
            self.rest_us = match self.rests {
                Some(until) if now.since(until) < SOON_US => {
                    (2 * self.rest_us).min(LONGEST_REST_US)
                }
                _ => REST_US,
            };
            self.rests = Some(Micros(now.0 + self.rest_us));
            self.heavy = None;
        }
    }

    /// Not even the lowest layer is to be sent.
    #[must_use]
    pub fn is_resting(&self, now: Micros) -> bool {
        self.rests.is_some_and(|until| now < until)
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

/// A REMB counts for so long.
const CEILING_US: u64 = 10_000_000;

/// What a peer tells beside its feedback.
#[derive(Debug, Default)]
pub struct Ceiling {
    bps: Option<u64>,
    told: Option<Micros>,
}

impl Ceiling {
    /// The peer says so much while `sending` leaves here. It limits only near that; above, it is no more than a guess.
    pub fn told(&mut self, bps: u64, sending: u64, now: Micros) {
        let elapsed_us = self.told.replace(now).map_or(0, |at| now.since(at));
        if bps < sending * NEAR_PERCENT / 100 {
            self.bps = Some(bps.clamp(MIN_BPS, MAX_BPS));
        } else {
            let raised = |before| grown(before, elapsed_us).max(bps);
            self.bps = self.bps.map(raised).filter(|bps| *bps < MAX_BPS);
        }
    }

    /// Bits per second; None = no limit.
    #[must_use]
    pub const fn bps(&self) -> Option<u64> {
        self.bps
    }

    /// Once a round: what was told long ago counts no more.
    pub fn forget(&mut self, now: Micros) {
        if self.told.is_some_and(|at| now.since(at) > CEILING_US) {
            *self = Self::default();
        }
    }
}
