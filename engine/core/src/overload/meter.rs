//! What a thread had of its CPU over the last moments.

use crate::id::Micros;

/// A third of a second, at one reading every 10 ms.
const READINGS: usize = 32;

/// CPU time of the thread at several instants.
#[derive(Debug)]
pub struct Meter {
    readings: [(Micros, u64); READINGS],
    newest: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            readings: [(Micros(0), 0); READINGS],
            newest: 0,
        }
    }
}

impl Meter {
    /// A reading.
    pub fn note(&mut self, now: Micros, cpu_us: u64) {
        self.newest = (self.newest + 1) % READINGS;
        self.readings[self.newest] = (now, cpu_us);
    }

    /// Per mille of a CPU since about so long ago.
    pub fn share(&self, now: Micros, cpu_us: u64, span_us: u64) -> u64 {
        let back = (0..READINGS).map(|age| (self.newest + READINGS - age) % READINGS);
        let found = back
            .map(|at| self.readings[at])
            .take_while(|(at, _)| at.0 > 0)
            .find(|(at, _)| now.since(*at) >= span_us)
            .or_else(|| Some(self.readings[(self.newest + 1) % READINGS]));
        let Some((at, before_us)) = found.filter(|(at, _)| at.0 > 0 && *at < now) else {
            return 0;
        };
        // Further back than asked for lies only a thread that slept.
        let span_us = now.since(at).max(span_us);
        cpu_us.saturating_sub(before_us) * 1_000 / span_us
    }

    /// The same, up to the last reading.
    pub fn latest_share(&self, span_us: u64) -> u64 {
        let (now, cpu_us) = self.readings[self.newest];
        self.share(now, cpu_us, span_us)
    }
}
