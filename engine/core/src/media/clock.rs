//! NTP timestamps, RTP clocks and what ties them together (RFC 3550 sections 4 and 6.4.1).
//!
//! A publisher's NTP clock is mapped to ours once per transport, so that everything a subscriber receives,
//! from whomever, lies on one timeline and lips stay in step.

use crate::id::Micros;

/// Our NTP clock shows this at the zero of `Micros`; any value is right, only differences count.
const EPOCH_S: u64 = 3_900_000_000;

/// 32.32 seconds to microseconds.
#[must_use]
pub const fn ntp_to_us(ntp: u64) -> u64 {
    ((ntp as u128 * 1_000_000) >> 32) as u64
}

/// Microseconds to 32.32 seconds, modulo 2^32 s.
#[must_use]
pub const fn us_to_ntp(us: u64) -> u64 {
    (((us as u128) << 32) / 1_000_000) as u64
}

/// Our NTP clock at an instant.
#[must_use]
pub const fn ntp(now: Micros) -> u64 {
    us_to_ntp(now.0.wrapping_add(EPOCH_S * 1_000_000))
}

/// Microseconds as RTP clock units, modulo 2^32.
#[must_use]
pub const fn units(us: i64, clock_rate: u32) -> u32 {
    (us as i128 * clock_rate as i128 / 1_000_000) as u32
}

/// A sender report: one instant on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// The publisher's NTP clock.
    pub ntp_us: u64,
    /// The stream's RTP clock.
    pub timestamp: u32,
}

impl SenderClock {
    /// The RTP timestamp at an instant of the publisher's NTP clock.
    #[must_use]
    pub const fn timestamp_at(self, ntp_us: i64, clock_rate: u32) -> u32 {
        let since = ntp_us - self.ntp_us as i64;
        self.timestamp.wrapping_add(units(since, clock_rate))
    }

    /// The publisher's NTP clock at an RTP timestamp near the report's.
    #[must_use]
    pub fn ntp_at(self, timestamp: u32, clock_rate: u32) -> i64 {
        let ahead = i64::from(timestamp.wrapping_sub(self.timestamp) as i32);
        self.ntp_us as i64 + ahead * 1_000_000 / i64::from(clock_rate.max(1))
    }
}

/// Where a publisher's NTP clock stands against ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(Option<i64>);

impl Offset {
    /// A report with this NTP time came now. Reports never arrive early, so the smallest difference is the
    /// truest; a slow pull upwards follows a clock that drifts.
    pub fn learn(&mut self, ntp_us: u64, now: Micros) {
        let seen = now.0 as i64 - ntp_us as i64;
        self.0 = Some(match self.0 {
            // A step of 10 s is a clock that was set.
            Some(before) if (0..10_000_000).contains(&(seen - before)) => {
                before + (seen - before) / 64
            }
            _ => seen,
        });
    }

    /// The publisher's NTP clock at one of our instants.
    #[must_use]
    pub fn publisher_us(self, now: Micros) -> Option<i64> {
        self.0.map(|offset| now.0 as i64 - offset)
    }

    /// A publisher's NTP timestamp on our NTP clock.
    #[must_use]
    pub fn ours(self, ntp_of_publisher: u64) -> Option<u64> {
        let offset = self.0?;
        let us = ntp_to_us(ntp_of_publisher) as i64 + offset;
        Some(ntp(Micros(us as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn microseconds_survive(us in 0u64..1 << 51) {
            prop_assert!(ntp_to_us(us_to_ntp(us)).abs_diff(us) <= 1);
        }

        #[test]
        fn a_clock_maps_there_and_back(ntp_us in 1u64 << 40..1 << 50, timestamp: u32, ahead in -1_000_000i32..1_000_000) {
            let clock = SenderClock { ntp_us, timestamp };
            let later = timestamp.wrapping_add(ahead as u32);
            let back = clock.timestamp_at(clock.ntp_at(later, 90_000), 90_000);
            prop_assert!((back.wrapping_sub(later) as i32).abs() <= 1);
        }

        #[test]
        fn any_report_is_bearable(ntp: u64, now in 0u64..1 << 50, again: u64) {
            let mut offset = Offset::default();
            offset.learn(ntp_to_us(ntp), Micros(now));
            offset.learn(ntp_to_us(again), Micros(now + 1));
            let _ = (offset.publisher_us(Micros(now)), offset.ours(again));
        }
    }
}
