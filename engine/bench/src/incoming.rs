//! One stream as a receiver sees it: its numbers, its gaps, and what becomes of them.

use parley_core::media::rtcp::Report;

use crate::packet::Stamp;

/// A gap is asked for at once, then after each of these, until it is given up.
const ASK_AGAIN_US: u64 = 120_000;
const MAX_ASKED: u8 = 8;
/// A larger jump is a new beginning, not loss to repair.
const MAX_GAP: i64 = 256;
const MAX_MISSING: usize = 512;

struct Missing {
    sequence: u16,
    noticed_us: u64,
    due_us: u64,
    asked: u8,
}

/// State of one SSRC.
pub struct Incoming {
    pub ssrc: u32,
    pub track: u16,
    pub layer: u8,
    /// Its gaps are asked for.
    pub video: bool,
    /// Publisher's number minus our extended sequence number, of a stream that is followed to saturate.
    pub offset: i64,
    pub highest: u64,
    pub received: u64,
    first: u64,
    missing: Vec<Missing>,
    reported: (u64, u64),
}

impl Incoming {
    pub fn new(ssrc: u32, stamp: &Stamp, sequence: u16) -> Self {
        // Room below, for what comes late.
        let sequence = 0x1_0000 + u64::from(sequence);
        Self {
            ssrc,
            track: stamp.track,
            layer: stamp.layer,
            video: stamp.video,
            offset: stamp.number as i64 - sequence as i64,
            highest: sequence,
            received: 0,
            first: sequence,
            missing: Vec::new(),
            reported: (0, 0),
        }
    }

    /// Account for a packet; how many more (or fewer) are missing now. `repairs`: gaps will be asked for.
    pub fn count(&mut self, sequence: u16, repairs: bool, now_us: u64) -> i64 {
        self.received += 1;
        let step = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if step > 0 {
            if repairs && step <= MAX_GAP {
                for back in (1..step as u16).rev() {
                    self.miss(sequence.wrapping_sub(back), now_us);
                }
            }
            self.highest += step as u64;
            step - 1
        } else if self.received == 1 {
            0
        } else {
            self.fill(sequence);
            -1
        }
    }

    fn miss(&mut self, sequence: u16, now_us: u64) {
        if self.missing.len() < MAX_MISSING {
            self.missing.push(Missing {
                sequence,
                noticed_us: now_us,
                due_us: now_us,
                asked: 0,
            });
        }
    }

    /// A gap is closed: when it was noticed, if it was known.
    pub fn fill(&mut self, sequence: u16) -> Option<u64> {
        let at = self
            .missing
            .iter()
            .position(|one| one.sequence == sequence)?;
        Some(self.missing.remove(at).noticed_us)
    }

    /// What to ask for now.
    pub fn due(&mut self, now_us: u64, out: &mut Vec<u16>) {
        out.clear();
        if self.missing.is_empty() {
            return;
        }
        self.missing.retain(|one| one.asked < MAX_ASKED);
        for one in &mut self.missing {
            if one.due_us <= now_us {
                one.asked += 1;
                one.due_us = now_us + ASK_AGAIN_US;
                out.push(one.sequence);
            }
        }
    }

    /// A report block since the last one.
    pub fn report(&mut self) -> Report {
        let expected = self.highest + 1 - self.first;
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, self.received);
        let expected_now = expected - expected_before;
        let lost_now = expected_now.saturating_sub(self.received - received_before);
        Report {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256)
                .checked_div(expected_now)
                .unwrap_or(0)
                .min(255) as u8,
            lost: expected.saturating_sub(self.received) as u32,
            highest: self.highest as u32,
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        track: 0,
        layer: 0,
        video: true,
        number: 0,
        sent_ns: 0,
    };

    #[test]
    fn gaps_are_counted_asked_for_and_filled() {
        let mut stream = Incoming::new(1, &STAMP, 65_534);
        assert_eq!(stream.count(65_534, true, 0), 0);
        assert_eq!(stream.count(1, true, 10), 2);
        let mut lost = Vec::new();
        stream.due(10, &mut lost);
        assert_eq!(lost, [65_535, 0]);
        stream.due(20, &mut lost);
        assert!(lost.is_empty());
        assert_eq!(stream.fill(0), Some(10));
        assert_eq!(stream.fill(0), None);
        assert_eq!(stream.count(65_535, true, 30), -1);
        stream.due(10 + ASK_AGAIN_US, &mut lost);
        assert!(lost.is_empty());
        let report = stream.report();
        assert_eq!((report.lost, report.fraction_lost), (1, 64));
    }

    #[test]
    fn what_does_not_come_is_given_up() {
        let mut stream = Incoming::new(1, &STAMP, 5);
        stream.count(5, true, 0);
        stream.count(7, true, 0);
        let mut lost = Vec::new();
        let asked = (0..100u64).filter(|second| {
            stream.due(second * 1_000_000, &mut lost);
            !lost.is_empty()
        });
        assert_eq!(asked.count(), usize::from(MAX_ASKED));
    }
}
