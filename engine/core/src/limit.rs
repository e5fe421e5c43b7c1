//! A token bucket in one number (the generic cell rate algorithm): so many units per second, so many at once.

use crate::id::Micros;

const NANOS_PER_S: u64 = 1_000_000_000;

/// The bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Nanoseconds that one unit costs, times 1,024 so that 12 Mbit/s is exact enough.
    cost: u64,
    /// Nanoseconds that may be owed.
    depth: u64,
    /// When everything is paid, nanoseconds.
    paid_at: u64,
}

impl Bucket {
    /// Full at the start. `per_s` is at least 1.
    #[must_use]
    pub const fn new(per_s: u64, burst: u64) -> Self {
        let cost = NANOS_PER_S * 1_024 / if per_s == 0 { 1 } else { per_s };
        Self {
            cost,
            depth: cost.saturating_mul(burst) / 1_024,
            paid_at: 0,
        }
    }

    /// Take one unit; false = not enough.
    pub fn take(&mut self, now: Micros) -> bool {
        self.take_many(1, now)
    }

    /// Take some units or none.
    pub fn take_many(&mut self, units: u64, now: Micros) -> bool {
        let now = now.0 * 1_000;
        let start = self.paid_at.max(now);
        let end = start + self.cost.saturating_mul(units) / 1_024;
        if end - now > self.depth {
            return false;
        }
        self.paid_at = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(1_000, 100);
        let start = Micros(5_000_000);
        assert_eq!((0..500).filter(|_| bucket.take(start)).count(), 100);
        let later = start.plus_ms(50);
        assert_eq!((0..500).filter(|_| bucket.take(later)).count(), 50);
    }

    #[test]
    fn bits_at_twelve_megabit_are_counted_within_a_percent() {
        let mut bucket = Bucket::new(12_000_000, 12_000_000);
        let mut passed = 0u64;
        for ms in 0..10_000 {
            for _ in 0..10 {
                passed += u64::from(bucket.take_many(9_600, Micros(1).plus_ms(ms))) * 9_600;
            }
        }
        let expected = 11 * 12_000_000; // ten seconds and one burst
        assert!(passed.abs_diff(expected) < expected / 100, "{passed}");
    }
}
