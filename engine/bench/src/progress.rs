//! Numbers that the threads share: how far each receiver is, and what happened altogether.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

/// Most receivers of one run.
pub const MAX_RECEIVERS: usize = 4_096;

/// Everything counted since the start.
#[derive(Default)]
pub struct Progress {
    /// Per receiver: publisher's number behind the newest packet seen; 0 = none yet.
    reached: Vec<AtomicU64>,
    pub receivers: AtomicU64,
    pub sent: AtomicU64,
    /// RTP packets of the stream that receivers read.
    pub copies: AtomicU64,
    pub bytes: AtomicU64,
    /// Missing in receivers' sequence numbers; late ones are taken off again.
    pub lost: AtomicU64,
    /// Decrypted, and how many of these failed.
    pub opened: AtomicU64,
    pub forged: AtomicU64,
    /// Datagrams that are not of the stream: repeats, reports, checks.
    pub others: AtomicU64,
    pub keys_asked: AtomicU64,
    pub nacks: AtomicU64,
    pub sink_cpu_ns: AtomicU64,
    pub sender_cpu_ns: AtomicU64,
    /// From stamp to reading, microseconds, of the decrypted sample.
    pub delays_us: Mutex<Vec<u32>>,
}

/// A sample larger than this stops growing.
const MAX_DELAYS: usize = 1 << 20;

impl Progress {
    pub fn new() -> Self {
        Self {
            reached: (0..MAX_RECEIVERS).map(|_| AtomicU64::new(0)).collect(),
            ..Self::default()
        }
    }

    pub fn reach(&self, receiver: usize, number: u64) {
        self.reached[receiver].store(number, Relaxed);
    }

    /// The publisher's number that every receiver is past. None without receivers.
    pub fn slowest(&self) -> Option<u64> {
        let count = self.receivers.load(Relaxed) as usize;
        let all = self.reached[..count.min(MAX_RECEIVERS)].iter();
        all.map(|one| one.load(Relaxed))
            .filter(|number| *number > 0)
            .min()
    }

    pub fn delayed(&self, delay_us: u32) {
        let mut delays = self.delays_us.lock().expect("no thread panics with it");
        if delays.len() < MAX_DELAYS {
            delays.push(delay_us);
        }
    }

    /// All counters as one JSON object; the sample of delays starts over.
    pub fn report(&self, now_ns: u64) -> String {
        let mut delays =
            std::mem::take(&mut *self.delays_us.lock().expect("no thread panics with it"));
        delays.sort_unstable();
        let quantile = |share: f64| {
            let at = (delays.len() as f64 * share) as usize;
            delays
                .get(at.min(delays.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        let counters = [
            ("now_ns", now_ns),
            ("sent", self.sent.load(Relaxed)),
            ("copies", self.copies.load(Relaxed)),
            ("bytes", self.bytes.load(Relaxed)),
            ("lost", self.lost.load(Relaxed)),
            ("opened", self.opened.load(Relaxed)),
            ("forged", self.forged.load(Relaxed)),
            ("others", self.others.load(Relaxed)),
            ("keys_asked", self.keys_asked.load(Relaxed)),
            ("nacks", self.nacks.load(Relaxed)),
            ("sink_cpu_ns", self.sink_cpu_ns.load(Relaxed)),
            ("sender_cpu_ns", self.sender_cpu_ns.load(Relaxed)),
            ("delays", delays.len() as u64),
            ("delay_p50_us", u64::from(quantile(0.5))),
            ("delay_p99_us", u64::from(quantile(0.99))),
        ];
        let fields: Vec<_> = counters
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"))
            .collect();
        format!("{{{}}}", fields.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_those_who_began_counts() {
        let progress = Progress::new();
        assert_eq!(progress.slowest(), None);
        progress.receivers.store(3, Relaxed);
        progress.reach(0, 9);
        progress.reach(2, 7);
        assert_eq!(progress.slowest(), Some(7));
    }

    #[test]
    fn a_report_takes_the_sample_of_delays() {
        let progress = Progress::new();
        (1..=100).for_each(|delay| progress.delayed(delay));
        let report = progress.report(5);
        assert!(report.starts_with("{\"now_ns\": 5, "), "{report}");
        assert!(
            report.contains("\"delay_p50_us\": 51, \"delay_p99_us\": 100"),
            "{report}"
        );
        assert!(progress.report(6).contains("\"delays\": 0"));
    }
}
