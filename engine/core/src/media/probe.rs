//! Is there more than what is sent now? A short burst at half as much again, and what the feedback says of it.
//!
//! Probing happens only while somebody's stream wants more than the estimate gives, and to peers who have a stream that
//! can carry what is to be thrown away.
//! Not here: the packets (`congestion`).

use crate::id::Micros;

use super::estimate::Ack;

/// What a probe asks for, of the estimate, percent. Twice as much made a queue of its own.
const GOAL_PERCENT: u64 = 150;
/// A probe lasts so long, in steps of this.
const LASTS_US: u64 = 120_000;
pub const STEP_US: u64 = 5_000;
/// Feedback about a probe comes within this, or not at all.
const PATIENCE_US: u64 = 1_000_000;
/// Pauses after a failed probe: doubled from the first to the last.
const PAUSE_MIN_US: u64 = 1_000_000;
const PAUSE_MAX_US: u64 = 4_000_000;
/// After congestion, the queue has this long to empty.
const CALM_US: u64 = 1_000_000;
/// Arriving slower than this share of sending is a full link, percent.
const PASSED_PERCENT: u64 = 90;
/// A full link gives this share of what arrived, percent.
const SAFE_PERCENT: u64 = 90;
/// A probe of fewer packets says nothing.
const ENOUGH: u32 = 5;

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u32,
    bytes: u64,
    first_bytes: u64,
    sent: Option<(u64, u64)>,
    arrived: Option<(i64, i64)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Sending {
        since: Micros,
        goal_bps: u64,
        /// Bytes of the transport when it began.
        from_bytes: u64,
        first: u64,
    },
    Waiting {
        first: u64,
        last: u64,
        until: Micros,
        bytes: u64,
    },
}

/// The probes of one transport.
#[derive(Debug)]
pub struct Probe {
    state: State,
    seen: Seen,
    next: Micros,
    pause_us: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            state: State::Idle,
            seen: Seen::default(),
            next: Micros(0),
            pause_us: PAUSE_MIN_US,
        }
    }
}

impl Probe {
    /// Begin one, if it is time. `stamped` and `bytes`: numbers and bytes of the transport so far.
    pub fn begin(
        &mut self,
        estimate_bps: u64,
        wanted_bps: u64,
        congested: Option<Micros>,
        (stamped, bytes): (u64, u64),
        now: Micros,
    ) -> bool {
        let calm = congested.is_none_or(|at| now.since(at) >= CALM_US);
        if !matches!(self.state, State::Idle) || now < self.next || !calm {
            return false;
        }
        self.seen = Seen::default();
        self.state = State::Sending {
            since: now,
            goal_bps: (estimate_bps * GOAL_PERCENT / 100).min(wanted_bps + wanted_bps / 5),
            from_bytes: bytes,
            first: stamped + 1,
        };
        true
    }

    /// Bytes to throw in now; None: no probe is being sent (any more).
    pub fn owed(&mut self, (stamped, bytes): (u64, u64), now: Micros) -> Option<u64> {
        let State::Sending {
            since,
            goal_bps,
            from_bytes,
            first,
        } = self.state
        else {
            return None;
        };
        let sent = bytes - from_bytes;
        if now.since(since) >= LASTS_US {
            self.state = State::Waiting {
                first,
                last: stamped,
                until: Micros(now.0 + PATIENCE_US),
                bytes: sent,
            };
            return None;
        }
        let due = goal_bps * (now.since(since) + STEP_US) / 8_000_000;
        Some(due.saturating_sub(sent))
    }

    /// Feedback; the rate that was shown to pass, if a probe ends with it.
    pub fn learn(&mut self, acks: &[Ack], now: Micros) -> Option<u64> {
        let (first, last) = match self.state {
            State::Idle => return None,
            State::Sending { first, .. } => (first, u64::MAX),
            State::Waiting { first, last, .. } => (first, last),
        };
        for ack in acks {
            if (first..=last).contains(&ack.number) {
                self.seen.add(ack);
            }
        }
        let State::Waiting { until, bytes, .. } = self.state else {
            return None;
        };
        let is_over = acks.iter().any(|ack| ack.number >= last) || now >= until;
        if !is_over {
            return None;
        }
        self.state = State::Idle;
        let verdict = self.seen.verdict(bytes);
        if matches!(verdict, Some((_, true))) {
            self.pause_us = PAUSE_MIN_US;
            self.next = now;
        } else {
            self.next = Micros(now.0 + self.pause_us);
            self.pause_us = (2 * self.pause_us).min(PAUSE_MAX_US);
        }
        verdict.map(|(bps, _)| bps)
    }

    /// Give up one that nobody answers.
    pub fn expire(&mut self, now: Micros) {
        if let State::Waiting { until, .. } = self.state {
            if now >= until {
                self.state = State::Idle;
                self.next = Micros(now.0 + self.pause_us);
                self.pause_us = (2 * self.pause_us).min(PAUSE_MAX_US);
            }
        }
    }

    /// Packets are being thrown in.
    pub const fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending { .. })
    }
}

impl Seen {
    fn add(&mut self, ack: &Ack) {
        self.packets += 1;
        self.bytes += u64::from(ack.bytes);
        let sent = ack.sent.0;
        self.sent = Some(
            self.sent
                .map_or((sent, sent), |(a, b)| (a.min(sent), b.max(sent))),
        );
        let at = ack.arrived_us;
        match &mut self.arrived {
            None => {
                self.arrived = Some((at, at));
                self.first_bytes = u64::from(ack.bytes);
            }
            Some((first, last)) => {
                if at < *first {
                    self.first_bytes = u64::from(ack.bytes);
                }
                (*first, *last) = ((*first).min(at), (*last).max(at));
            }
        }
    }

    /// (what passes, everything passed) of a probe of so many bytes.
    fn verdict(&self, bytes: u64) -> Option<(u64, bool)> {
        let ((sent_first, sent_last), (first, last)) = (self.sent?, self.arrived?);
        let (sent_us, arrived_us) = (sent_last - sent_first, (last - first) as u64);
        if self.packets < ENOUGH || sent_us < LASTS_US / 4 {
            return None;
        }
        let counted = self.bytes - self.first_bytes;
        let rate = |us: u64| counted * 8_000_000 / us.max(1);
        let (sent_bps, arrived_bps) = (rate(sent_us), rate(arrived_us));
        let is_whole = self.bytes * 100 >= bytes * PASSED_PERCENT;
        if arrived_bps * 100 >= sent_bps * PASSED_PERCENT && is_whole {
            return Some((sent_bps.min(arrived_bps), true));
        }
        Some((sent_bps.min(arrived_bps) * SAFE_PERCENT / 100, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe of 1.5 Mbit/s through a link of `link_bps`; what `learn` says.
    fn run(link_bps: u64) -> Option<u64> {
        let mut probe = Probe::default();
        let start = Micros(1_000_000);
        assert!(probe.begin(1_000_000, 9_000_000, None, (100, 5_000), start));
        let (mut number, mut bytes, mut now) = (100, 5_000, start);
        let (mut acks, mut free_at) = (Vec::new(), 0);
        while let Some(owed) = probe.owed((number, bytes), now) {
            for _ in 0..owed.div_ceil(1_000) {
                number += 1;
                bytes += 1_000;
                free_at = now.0.max(free_at) + 8_000 * 1_000_000 / link_bps;
                acks.push(Ack {
                    number,
                    sent: now,
                    arrived_us: free_at as i64,
                    bytes: 1_000,
                });
            }
            now = Micros(now.0 + STEP_US);
        }
        probe.learn(&acks, now)
    }

    #[test]
    fn what_passes_is_what_is_believed() {
        let wide = run(100_000_000).expect("a verdict");
        assert!((1_350_000..1_750_000).contains(&wide), "{wide}");
        let narrow = run(1_200_000).expect("a verdict");
        assert!((900_000..1_200_000).contains(&narrow), "{narrow}");
    }

    #[test]
    fn not_again_at_once_when_it_failed_or_the_link_is_congested() {
        let mut probe = Probe::default();
        let now = Micros(10_000_000);
        assert!(!probe.begin(1_000_000, 9_000_000, Some(now), (1, 1), now));
        assert!(probe.begin(1_000_000, 9_000_000, None, (1, 1), now));
        let later = now.plus_ms(200);
        assert_eq!(probe.owed((1, 1), later), None);
        probe.expire(later.plus_ms(1_001));
        assert!(!probe.begin(1_000_000, 9_000_000, None, (1, 1), later.plus_ms(1_500)));
        assert!(probe.begin(1_000_000, 9_000_000, None, (1, 1), later.plus_ms(2_100)));
    }
}
