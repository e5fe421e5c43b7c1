//! Numbers that the threads share: how far each receiver is, and what happened altogether.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

/// Most peers of one run.
pub const MAX_PEERS: usize = 4_096;
/// Simulcast layers counted apart.
pub const LAYERS: usize = 3;

/// Everything counted since the start.
#[derive(Default)]
pub struct Progress {
    /// Per receiver: number of track 0 behind the newest packet seen; 0 = none yet.
    reached: Vec<AtomicU64>,
    pub receivers: AtomicU64,
    /// Streams that receivers know.
    pub incoming: AtomicU64,
    /// RTP packets of media, first time.
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Sent again because the server asked.
    pub resent: AtomicU64,
    /// RTP packets of known streams that receivers read.
    pub copies: AtomicU64,
    pub bytes: AtomicU64,
    /// Of these packets, audio.
    pub audio: AtomicU64,
    /// The same, by simulcast layer, from the decrypted sample.
    pub layers: [AtomicU64; LAYERS],
    /// Missing in receivers' sequence numbers, of video and of audio; late and repeated ones are taken off again.
    pub lost: AtomicU64,
    pub lost_audio: AtomicU64,
    /// Came by retransmission.
    pub recovered: AtomicU64,
    /// Decrypted, and how many of these failed.
    pub opened: AtomicU64,
    pub forged: AtomicU64,
    /// Datagrams that are not of a known stream: repeats, reports, checks.
    pub others: AtomicU64,
    /// Eaten by the emulated network, on the way down.
    pub eaten: AtomicU64,
    pub keys_asked: AtomicU64,
    /// Packets that the server asked publishers for, and that receivers asked the server for.
    pub nacks: AtomicU64,
    pub asked: AtomicU64,
    pub sink_cpu_ns: AtomicU64,
    pub sender_cpu_ns: AtomicU64,
    /// From stamp to arrival in the receiver's socket, microseconds, of the decrypted sample.
    pub delays_us: Mutex<Vec<u32>>,
    /// The same, of audio alone.
    pub audio_delays_us: Mutex<Vec<u32>>,
    /// From noticing a gap to what fills it, microseconds.
    pub repairs_us: Mutex<Vec<u32>>,
}

/// A sample larger than this stops growing.
const MAX_SAMPLE: usize = 1 << 20;

fn add(sample: &Mutex<Vec<u32>>, value_us: u64) {
    let mut sample = sample.lock().expect("no thread panics with it");
    if sample.len() < MAX_SAMPLE {
        sample.push(u32::try_from(value_us).unwrap_or(u32::MAX));
    }
}

/// Take a sample: its size, median, 99th percentile and highest.
fn summary(sample: &Mutex<Vec<u32>>) -> [u64; 4] {
    let mut sample = std::mem::take(&mut *sample.lock().expect("no thread panics with it"));
    sample.sort_unstable();
    let quantile = |share: f64| {
        let at = (sample.len() as f64 * share) as usize;
        let value = sample.get(at.min(sample.len().saturating_sub(1)));
        u64::from(value.copied().unwrap_or(0))
    };
    [
        sample.len() as u64,
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    ]
}

impl Progress {
    pub fn new() -> Self {
        Self {
            reached: (0..MAX_PEERS).map(|_| AtomicU64::new(0)).collect(),
            ..Self::default()
        }
    }

    pub fn reach(&self, receiver: usize, number: u64) {
        self.reached[receiver].store(number, Relaxed);
    }

    /// The number of track 0 that every receiver of it is past. None without receivers.
    pub fn slowest(&self) -> Option<u64> {
        let count = self.receivers.load(Relaxed) as usize;
        let all = self.reached[..count.min(MAX_PEERS)].iter();
        all.map(|one| one.load(Relaxed))
            .filter(|number| *number > 0)
            .min()
    }

    pub fn delayed(&self, delay_us: u64, is_video: bool) {
        add(&self.delays_us, delay_us);
        if !is_video {
            add(&self.audio_delays_us, delay_us);
        }
    }

    pub fn repaired(&self, after_us: u64) {
        add(&self.repairs_us, after_us);
    }

    /// All counters as one JSON object; the samples start over.
    pub fn report(&self, now_ns: u64) -> String {
        let [delays, delay_p50, delay_p99, delay_max] = summary(&self.delays_us);
        let [audio_delays, audio_delay_p50, audio_delay_p99, audio_delay_max] =
            summary(&self.audio_delays_us);
        let [repairs, repair_p50, repair_p99, _] = summary(&self.repairs_us);
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = [
            ("now_ns", now_ns),
            ("incoming", read(&self.incoming)),
            ("sent", read(&self.sent)),
            ("sent_bytes", read(&self.sent_bytes)),
            ("resent", read(&self.resent)),
            ("copies", read(&self.copies)),
            ("bytes", read(&self.bytes)),
            ("audio", read(&self.audio)),
            ("layer_0", read(&self.layers[0])),
            ("layer_1", read(&self.layers[1])),
            ("layer_2", read(&self.layers[2])),
            ("lost", read(&self.lost)),
            ("lost_audio", read(&self.lost_audio)),
            ("recovered", read(&self.recovered)),
            ("opened", read(&self.opened)),
            ("forged", read(&self.forged)),
            ("others", read(&self.others)),
            ("eaten", read(&self.eaten)),
            ("keys_asked", read(&self.keys_asked)),
            ("nacks", read(&self.nacks)),
            ("asked", read(&self.asked)),
            ("sink_cpu_ns", read(&self.sink_cpu_ns)),
            ("sender_cpu_ns", read(&self.sender_cpu_ns)),
            ("delays", delays),
            ("delay_p50_us", delay_p50),
            ("delay_p99_us", delay_p99),
            ("delay_max_us", delay_max),
            ("audio_delays", audio_delays),
            ("audio_delay_p50_us", audio_delay_p50),
            ("audio_delay_p99_us", audio_delay_p99),
            ("audio_delay_max_us", audio_delay_max),
            ("repairs", repairs),
            ("repair_p50_us", repair_p50),
            ("repair_p99_us", repair_p99),
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
        (1..=100).for_each(|delay| progress.delayed(delay, delay > 10));
        let report = progress.report(5);
        assert!(report.starts_with("{\"now_ns\": 5, "), "{report}");
        assert!(
            report.contains("\"delay_p50_us\": 51, \"delay_p99_us\": 100, \"delay_max_us\": 100"),
            "{report}"
        );
        assert!(report.contains("\"audio_delays\": 10"), "{report}");
        assert!(progress.report(6).contains("\"delays\": 0"));
    }
}
