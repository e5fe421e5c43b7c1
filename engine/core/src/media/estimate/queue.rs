//! Is there a queue that stays? The least delay of the last moments against the least in a long time.
//!
//! A key frame that is forwarded in one go queues for a few milliseconds on any link, and a scheduler may hold a
//! few packets back: the trend alone takes that for overuse, although the queue is empty again before the next
//! frame. Only where even the luckiest packet waits, the link is too narrow.

use super::Ack;

/// The last moments, in buckets.
const MOMENT_US: u64 = 40_000;
const MOMENTS: usize = 3;
/// A long time: clocks drift apart by less than 5 ms in it.
const AGE_US: u64 = 10_000_000;
const AGES: usize = 4;
/// A wait of this length counts.
const STANDING_US: i64 = 12_000;

/// The least of what was seen in the newest of so many spans.
#[derive(Clone, Copy, Debug)]
struct Least<const N: usize> {
    span_us: u64,
    newest: u64,
    least: [i64; N],
}

impl<const N: usize> Least<N> {
    const fn new(span_us: u64) -> Self {
        Self {
            span_us,
            newest: 0,
            least: [i64::MAX; N],
        }
    }

    fn see(&mut self, at_us: u64, value: i64) {
        let span = at_us / self.span_us;
        if span > self.newest + N as u64 {
            self.least = [i64::MAX; N];
            self.newest = span;
        }
        while self.newest < span {
            self.newest += 1;
            self.least[(self.newest % N as u64) as usize] = i64::MAX;
        }
        if span + N as u64 > self.newest {
            let least = &mut self.least[(span % N as u64) as usize];
            *least = (*least).min(value);
        }
    }

    fn get(&self) -> Option<i64> {
        self.least
            .iter()
            .copied()
            .min()
            .filter(|least| *least < i64::MAX)
    }
}

/// Delay of one link, by two clocks that need not agree.
#[derive(Debug)]
pub struct Queue {
    moments: Least<MOMENTS>,
    ages: Least<AGES>,
}

impl Queue {
    pub const fn new() -> Self {
        Self {
            moments: Least::new(MOMENT_US),
            ages: Least::new(AGE_US),
        }
    }

    /// A packet.
    pub fn packet(&mut self, ack: &Ack) {
        let delay = ack.arrived_us - ack.sent.0 as i64;
        self.moments.see(ack.sent.0, delay);
        self.ages.see(ack.sent.0, delay);
    }

    /// Every packet of the last moments waited.
    pub fn stands(&self) -> bool {
        self.wait_us() >= STANDING_US
    }

    /// So long, at least.
    pub fn wait_us(&self) -> i64 {
        match (self.moments.get(), self.ages.get()) {
            (Some(now), Some(best)) => now - best,
            _ => 0,
        }
    }
}
