//! How much a peer's link carries: a send-side estimate from transport-wide feedback
//! (draft-ietf-rmcat-gcc-02, with the delay gradient as a linear regression instead of a Kalman filter).
//!
//! `history` remembers what was sent, `trend` and `detector` watch the delay, `acked` what arrives, `loss` what
//! does not; `goog` makes one number of it. Whoever brings another controller (SCReAM, RFC 8298) keeps
//! `Estimator`. A peer can lie in its feedback: only numbers that were sent count, each once, the result is
//! clamped and grows by at most 8 % a second except by what a probe has shown; `trust` finds out liars (S11).
//! Not here: who gets how much of it (`allocation`), what probes are made of (`congestion`).

mod acked;
mod detector;
mod goog;
mod history;
mod loss;
mod queue;
mod remb;
mod trust;

pub use goog::Goog;
pub use history::History;
pub use remb::{Ceiling, Remb};
pub use trust::{Traps, Trust};

use crate::id::Micros;

/// The estimate never leaves this range, bits per second.
pub const MIN_BPS: u64 = 50_000;
/// See `MIN_BPS`: more than one peer's downlink is ever asked for.
pub const MAX_BPS: u64 = 100_000_000;
/// Before anything is known: a good camera in one size.
pub const START_BPS: u64 = 2_000_000;
/// Growth per second outside probes, in percent (S11).
pub const GROWTH_PERCENT: u64 = 8;

/// After such a silence what comes first tells of an outage.
pub const OUTAGE_US: u64 = 1_000_000;

/// A packet that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Transport-wide number, extended.
    pub number: u64,
    /// When it was sent.
    pub sent: Micros,
    /// When it arrived, by the peer's clock; only differences count.
    pub arrived_us: i64,
    /// Its size on the wire.
    pub bytes: u32,
}

/// One feedback message, as far as it is new.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// What arrived, in order of numbers.
    pub acks: &'a [Ack],
    /// How many numbers are told missing for the first time.
    pub lost: u32,
    /// Round trip, microseconds; 0 = unknown.
    pub rtt_us: u64,
    /// Probes can find out about more; otherwise growth must.
    pub can_probe: bool,
}

/// A congestion controller of one transport.
pub trait Estimator: std::fmt::Debug + Send {
    /// Feedback arrived.
    fn feedback(&mut self, news: &News<'_>, now: Micros);
    /// Packets sent as a probe showed that so much passes.
    fn probed(&mut self, bps: u64);
    /// What the link carries, bits per second.
    fn estimate_bps(&self) -> u64;
    /// The delay or the loss said "too much" at this instant.
    fn congested(&self) -> Option<Micros>;
    /// Sound suffered at this instant: a queue that is heard, or loss that no repair keeps up with.
    fn strained(&self) -> Option<Micros>;
    /// How long packets wait on the link, as far as their delays tell.
    fn queue_us(&self) -> u64;
}

/// The most that growth allows after some time.
#[must_use]
fn grown(bps: u64, elapsed_us: u64) -> u64 {
    // A pause of feedback is not saved up for a leap.
    let elapsed_us = elapsed_us.min(1_000_000);
    bps + (u128::from(bps) * u128::from(elapsed_us) * u128::from(GROWTH_PERCENT) / 100_000_000)
        as u64
}

#[cfg(test)]
mod tests;
