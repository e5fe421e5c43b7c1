//! Is a queue growing? Groups of packets, the trend of their delay, and a threshold that adapts
//! (draft-ietf-rmcat-gcc-02 sections 5.2 to 5.4).

use std::collections::VecDeque;

use super::Ack;

/// Packets sent within this time are one group.
const GROUP_US: u64 = 5_000;
/// Groups in the regression.
const POINTS: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
/// The trend counts fully after so many groups.
const FULL_AFTER: u32 = 60;
/// The threshold, milliseconds: where it starts and between what it moves.
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;
/// How fast the threshold follows up and down, per millisecond.
const FOLLOW_UP: f64 = 0.0087;
const FOLLOW_DOWN: f64 = 0.039;
/// A trend so far beyond the threshold is a spike, which it does not follow.
const SPIKE_MS: f64 = 15.0;
/// Overuse lasts at least this long before it counts.
const SUSTAINED_MS: f64 = 10.0;
/// A pause in arrivals this long starts over.
const STALE_US: i64 = 3_000_000;

/// What the delay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Normal,
    /// The queue empties.
    Under,
    /// The queue grows.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: u64,
    last_sent: u64,
    first_arrived: i64,
    last_arrived: i64,
}

/// The detector.
#[derive(Debug)]
pub struct Detector {
    group: Option<Group>,
    before: Option<Group>,
    /// Arrival and smoothed delay, milliseconds.
    points: VecDeque<(f64, f64)>,
    origin_us: i64,
    accumulated: f64,
    smoothed: f64,
    deltas: u32,
    threshold: f64,
    threshold_at: Option<i64>,
    over_ms: f64,
    overs: u32,
    last_trend: f64,
    usage: Usage,
}

impl Detector {
    pub fn new() -> Self {
        Self {
            group: None,
            before: None,
            points: VecDeque::with_capacity(POINTS + 1),
            origin_us: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            deltas: 0,
            threshold: THRESHOLD_MS,
            threshold_at: None,
            over_ms: 0.0,
            overs: 0,
            last_trend: 0.0,
            usage: Usage::Normal,
        }
    }

    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// A packet, in order of sending.
    pub fn packet(&mut self, ack: &Ack) {
        let Some(group) = &mut self.group else {
            self.begin(ack);
            return;
        };
        if (ack.arrived_us - group.last_arrived).abs() > STALE_US {
            let threshold = self.threshold;
            *self = Self::new();
            self.threshold = threshold;
            self.begin(ack);
            return;
        }
        if ack.sent.0 < group.first_sent {
            return; // of an older group
        }
        // A burst that a queue let go at once says nothing about a trend: it belongs to its group.
        let sent_gap = ack.sent.0 as i64 - group.last_sent as i64;
        let arrival_gap = ack.arrived_us - group.last_arrived;
        let is_burst = arrival_gap < sent_gap
            && arrival_gap <= GROUP_US as i64
            && ack.arrived_us - group.first_arrived < 100_000;
        if ack.sent.0 - group.first_sent <= GROUP_US || is_burst {
            group.last_sent = group.last_sent.max(ack.sent.0);
            group.last_arrived = group.last_arrived.max(ack.arrived_us);
            return;
        }
        if ack.sent.0 < group.last_sent {
            return; // it came behind the burst that it was sent in
        }
        let finished = *group;
        if let Some(before) = self.before.replace(finished) {
            let sent_ms = (finished.last_sent - before.last_sent) as f64 / 1e3;
            let arrived_ms = (finished.last_arrived - before.last_arrived) as f64 / 1e3;
            if arrived_ms >= 0.0 {
                self.delta(arrived_ms - sent_ms, sent_ms, finished.last_arrived);
            }
        }
        self.begin(ack);
    }

    fn begin(&mut self, ack: &Ack) {
        self.group = Some(Group {
            first_sent: ack.sent.0,
            last_sent: ack.sent.0,
            first_arrived: ack.arrived_us,
            last_arrived: ack.arrived_us,
        });
    }

    /// One more delay gradient.
    fn delta(&mut self, gradient_ms: f64, sent_ms: f64, arrived_us: i64) {
        if self.points.is_empty() {
            self.origin_us = arrived_us;
        }
        self.deltas = (self.deltas + 1).min(FULL_AFTER);
        self.accumulated += gradient_ms;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let arrived_ms = (arrived_us - self.origin_us) as f64 / 1e3;
        self.points.push_back((arrived_ms, self.smoothed));
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
        if self.points.len() < POINTS {
            return;
        }
        let slope = slope(&self.points).unwrap_or(0.0);
        let trend = slope * f64::from(self.deltas) * GAIN;
        self.judge(trend, sent_ms);
        self.follow(trend, arrived_us);
    }

    fn judge(&mut self, trend: f64, sent_ms: f64) {
        if trend > self.threshold {
            self.over_ms += if self.overs == 0 {
                sent_ms / 2.0
            } else {
                sent_ms
            };
            self.overs += 1;
            if self.over_ms > SUSTAINED_MS && self.overs > 1 && trend >= self.last_trend {
                (self.over_ms, self.overs) = (0.0, 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_ms, self.overs) = (0.0, 0);
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.last_trend = trend;
    }

    fn follow(&mut self, trend: f64, arrived_us: i64) {
        let before = self.threshold_at.replace(arrived_us).unwrap_or(arrived_us);
        if trend.abs() > self.threshold + SPIKE_MS {
            return;
        }
        let follow = if trend.abs() < self.threshold {
            FOLLOW_DOWN
        } else {
            FOLLOW_UP
        };
        let elapsed_ms = ((arrived_us - before) as f64 / 1e3).clamp(0.0, 100.0);
        let step = follow * (trend.abs() - self.threshold) * elapsed_ms;
        self.threshold = (self.threshold + step).clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
    }
}

/// Of the line through the points with the least squares.
fn slope(points: &VecDeque<(f64, f64)>) -> Option<f64> {
    let count = points.len() as f64;
    let (sum_x, sum_y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (mut over, mut under) = (0.0, 0.0);
    for (x, y) in points {
        over += (x - mean_x) * (y - mean_y);
        under += (x - mean_x) * (x - mean_x);
    }
    (under > 0.0).then(|| over / under)
}
