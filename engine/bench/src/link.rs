//! A poor network at the clients' side: both directions lose, what they send is late by the whole round trip.
//!
//! One direction carries all the delay: whatever the server sends is answered a round trip later, as on a link
//! with half of it each way. Constant, so that order stays; loss is independent and seeded.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parley_core::random::Random;

use crate::sys;

const WHOLE: u64 = 10_000;

/// What the network is like now; set from outside.
#[derive(Default)]
pub struct Weather {
    /// Of 10,000 packets, in each direction.
    pub loss: AtomicU64,
    pub round_trip_us: AtomicU64,
}

impl Weather {
    pub fn is_fair(&self) -> bool {
        self.loss.load(Relaxed) == 0 && self.round_trip_us.load(Relaxed) == 0
    }

    pub fn loses(&self, random: &mut Random) -> bool {
        let loss = self.loss.load(Relaxed);
        loss > 0 && random.next_u64() % WHOLE < loss
    }
}

/// The way out of one thread.
pub struct Way {
    random: Random,
    late: VecDeque<(u64, RawFd, Vec<u8>)>,
}

impl Way {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            late: VecDeque::new(),
        }
    }

    /// Send now, later or never.
    pub fn send(&mut self, weather: &Weather, fd: RawFd, bytes: &[u8], now_ns: u64) {
        if weather.is_fair() && self.late.is_empty() {
            sys::send(fd, bytes);
        } else if !weather.loses(&mut self.random) {
            let due_ns = now_ns + weather.round_trip_us.load(Relaxed) * 1_000;
            self.late.push_back((due_ns, fd, bytes.to_vec()));
        }
    }

    /// Send what is due.
    pub fn flush(&mut self, now_ns: u64) {
        while self.late.front().is_some_and(|(due, ..)| *due <= now_ns) {
            if let Some((_, fd, bytes)) = self.late.pop_front() {
                sys::send(fd, &bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fair_weather_loses_nothing_and_storms_lose_their_share() {
        let weather = Weather::default();
        let mut random = Random::new(1);
        assert!(weather.is_fair() && !weather.loses(&mut random));
        weather.loss.store(500, Relaxed);
        let lost = (0..10_000).filter(|_| weather.loses(&mut random)).count();
        assert!(!weather.is_fair() && (400..600).contains(&lost), "{lost}");
    }
}
