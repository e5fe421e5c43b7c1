//! Whether a data-plane thread gets the CPU that its work needs, and how much video fits into what it gets (R11).
//!
//! The thread is short of CPU when datagrams lie in its sockets for long. What it had of its CPU in the last tenth of
//! a second (the period of Linux' quotas) is then what it can have: its *capacity*. Video is given so many bits per
//! second that the thread needs `AIM_PERCENT` of that, since a thread that uses up its quota stands still until the
//! next period begins. That number is computed, not found by trying; only whether the capacity has grown must be
//! tried, in steps small enough that a failure makes a short gap, and ever more rarely while they fail.
//!
//! A long wait brakes first: all video stops for a moment, without telling anybody, so that sound does not queue
//! behind a backlog of pictures.
//! Not here: clocks and sockets (`parley-io`), who gets what of the budget (`media::shed`).

mod meter;

use crate::id::Micros;

use meter::Meter;

/// A datagram that waited so long tells of a thread that did not run, or has too much to do.
const LATE_US: u64 = 15_000;
/// Waits so long stop all video at once, if they come again.
const BRAKE_US: u64 = 40_000;
/// Waits of one backlog tell one thing. Once is a hiccup of the machine, and over; a quota strikes in every period.
const APART_US: u64 = 60_000;
const AGAIN_US: u64 = 300_000;
/// The period of a quota (CFS bandwidth control); over it a throttled thread shows what it may have.
const PERIOD_US: u64 = 100_000;
/// Over how long the present use of CPU is measured: whole periods.
const SPAN_US: u64 = 2 * PERIOD_US;
/// Between two readings of the thread's CPU time.
const READING_US: u64 = 10_000;
/// Between two decisions.
const ROUND_US: u64 = 250_000;
/// A brake holds until datagrams were in time for a period, at least so long; and no longer than the second number
/// before people are told.
const BRAKE_LEAST_US: u64 = 150_000;
const BRAKE_MOST_US: u64 = 400_000;
/// A thread that uses less of a CPU than this, per mille, would not run sooner if it did less.
const WORTH: u64 = 60;
/// Late in so many rounds one after the other, the thread is short also without a long wait.
const ROUNDS_LATE: u32 = 3;
/// Of the capacity this much is used, percent. The rest is for key frames and for the process' other threads.
const AIM_PERCENT: u64 = 85;
/// What flowed before a brake comes back by this share, percent, and by this one when it was a limited share itself.
const BACK_PERCENT: u64 = 30;
const BACK_AGAIN_PERCENT: u64 = 50;
/// The budget grows by no more than this in a round, percent ...
const GROW_PERCENT: u64 = 125;
/// ... and more slowly where the thread uses so much of the known capacity, percent, so that a failure is a short gap.
const CAREFUL_FROM_PERCENT: u64 = 75;
const CAREFUL_PERCENT: u64 = 108;
/// It may grow by so much of all video that is wanted in any case: that much where not all of the work is video's.
const LEAST_SHARE: u64 = 10;
const LEAST_SHARE_CAREFUL: u64 = 30;
/// A try waits until what is known to fit is used, but no longer than this.
const SETTLE_US: u64 = 2_000_000;
/// Whether there is more capacity is tried after this long without a late datagram; twice as long after a failure.
const PATIENCE_US: u64 = 1_000_000;
const PATIENCE_MOST_US: u64 = 3_000_000;
/// A try asks for so much of the capacity, percent, and after a success for so much more, this soon.
const TRY_PERCENT: u64 = 125;
const TRY_ON_PERCENT: u64 = 150;
const TRY_ON_US: u64 = 500_000;
const BEYOND_PERCENT: u64 = 130;
/// Streams that were granted something wait for key frames, for so many rounds at most.
const ROUNDS_PENDING: u32 = 3;
/// Late in so many rounds without any video, not all voices are forwarded either.
const ROUNDS_SILENT: u32 = 2;
/// Failures are forgotten after so long without shedding.
const FORGET_US: u64 = 30_000_000;

/// Video of a plane, in bits per second by the measured rates of its layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// What is forwarded now.
    pub flowing_bps: u64,
    /// What was granted; it flows from the next key frames on.
    pub granted_bps: u64,
    /// What would be forwarded if CPU were no limit.
    pub wanted_bps: u64,
}

/// What the plane shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Divide so many bits per second among all video.
    Allot(u64),
    /// The same, and of voices too only the loudest.
    Hush,
    /// No limit any more.
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Free,
    Braking,
    Shedding,
}

/// Late datagrams since the last round.
#[derive(Clone, Copy, Debug)]
struct Late {
    worst_us: u64,
    /// Backlogs.
    count: u32,
    /// Per mille of a CPU in the period before the worst of them.
    share: u64,
}

/// Counters; the names are those of `sfu/_engine.pyi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadStatistics {
    /// Video is being shed.
    pub is_shedding: bool,
    /// Of one CPU, per mille: what the thread uses.
    pub used: u64,
    /// The same: what it can have; 0 = enough.
    pub capacity: u64,
    /// Bits per second of video that fit; 0 without shedding.
    pub budget_bps: u64,
    /// Times that shedding began.
    pub episodes: u64,
    /// Times that all video stopped for a moment.
    pub brakes: u64,
    /// Backlogs that were late.
    pub late: u64,
    /// Longest wait of a datagram since the last reading of this, microseconds.
    pub longest_wait_us: u64,
}

/// One data-plane thread's judgement about itself.
#[derive(Debug)]
pub struct Governor {
    meter: Meter,
    mode: Mode,
    since: Micros,
    reading_due: Micros,
    round_due: Micros,
    late: Option<Late>,
    late_at: Micros,
    /// When the latest two backlogs were found.
    backlogs: [Micros; 2],
    late_rounds: u32,
    pending_rounds: u32,
    silent_rounds: u32,
    used: u64,
    capacity: u64,
    /// Used before there was a limit, and the video that flowed then.
    free_used: u64,
    free_bps: u64,
    budget_bps: u64,
    is_hushed: bool,
    patience_us: u64,
    try_due: Micros,
    is_trying: bool,
    /// The capacity before.
    tried_from: u64,
    /// The budget before.
    held_bps: u64,
    /// Only the loudest voices were heard before.
    was_hushed: bool,
    statistics: LoadStatistics,
}

impl Default for Governor {
    fn default() -> Self {
        Self {
            meter: Meter::default(),
            mode: Mode::Free,
            since: Micros(0),
            reading_due: Micros(0),
            round_due: Micros(0),
            late: None,
            late_at: Micros(0),
            backlogs: [Micros(0); 2],
            late_rounds: 0,
            pending_rounds: 0,
            silent_rounds: 0,
            used: 0,
            capacity: 0,
            free_used: 0,
            free_bps: 0,
            budget_bps: 0,
            is_hushed: false,
            patience_us: PATIENCE_US,
            try_due: Micros(0),
            is_trying: false,
            tried_from: 0,
            held_bps: 0,
            was_hushed: false,
            statistics: LoadStatistics::default(),
        }
    }
}

impl Governor {
    /// Whether a datagram that waited so long in its socket is worth telling `late`.
    #[inline]
    #[must_use]
    pub const fn is_late(wait_us: u64) -> bool {
        wait_us >= LATE_US
    }

    /// A datagram that was read just now had waited for so long. True: stop all video, and tell `braked`.
    pub fn late(&mut self, wait_us: u64, now: Micros, cpu_us: u64) -> bool {
        let counters = &mut self.statistics;
        counters.longest_wait_us = counters.longest_wait_us.max(wait_us);
        let share = self.meter.share(now, cpu_us, PERIOD_US);
        self.late_at = now;
        let late = self.late.get_or_insert(Late {
            worst_us: 0,
            count: 0,
            share,
        });
        if now.since(self.backlogs[0]) >= APART_US {
            self.backlogs = [now, self.backlogs[0]];
            counters.late += 1;
            late.count += 1;
        }
        if wait_us > late.worst_us {
            (late.worst_us, late.share) = (wait_us, share);
        }
        if self.is_trying {
            self.round_due = now; // a try that fails is over at once
        }
        let is_again = now.since(self.backlogs[1]) <= AGAIN_US;
        let is_ours = match self.mode {
            Mode::Free => share >= WORTH,
            Mode::Shedding => {
                let is_all_used = share * 100 >= self.known() * 70;
                self.budget_bps > 0 && (is_all_used || self.late_rounds > 0)
            }
            Mode::Braking => false,
        };
        wait_us >= BRAKE_US && is_again && is_ours
    }

    /// All video stopped; what flowed until then.
    pub fn braked(&mut self, flow: Flow, now: Micros) {
        let percent = if self.mode == Mode::Free {
            self.begin(now);
            self.free_bps = flow.flowing_bps;
            BACK_PERCENT
        } else {
            self.free_bps = 0;
            BACK_AGAIN_PERCENT
        };
        self.learn_capacity(now);
        self.budget_bps = flow.flowing_bps.max(flow.granted_bps) * percent / 100;
        self.mode = Mode::Braking;
        self.since = now;
        self.round_due = Micros(now.0 + BRAKE_LEAST_US);
        self.statistics.brakes += 1;
    }

    fn begin(&mut self, now: Micros) {
        if now.since(self.since) > FORGET_US {
            self.patience_us = PATIENCE_US;
        }
        self.capacity = 0;
        self.statistics.episodes += 1;
        self.late_rounds = 0;
    }

    /// What the thread had when datagrams were late is all that it can have.
    fn learn_capacity(&mut self, now: Micros) {
        let Some(late) = self.late.take() else {
            return;
        };
        let is_same = self.is_trying && self.is_same_limit(late);
        // A failed try shows what was known already; one reading is worth less than that.
        let least = if is_same { 90 } else { 50 };
        self.capacity = late.share.max(self.known() * least / 100).max(1);
        if is_same {
            self.patience_us = (self.patience_us * 2).min(PATIENCE_MOST_US);
        } else {
            self.patience_us = PATIENCE_US;
        }
        self.is_trying = false;
        self.try_due = Micros(now.0 + self.patience_us);
    }

    /// Far above what it was tried from, a late datagram tells of another limit.
    const fn is_same_limit(&self, late: Late) -> bool {
        late.share * 100 < self.tried_from * BEYOND_PERCENT
    }

    /// Whether `note` wants to know the thread's CPU time.
    #[inline]
    #[must_use]
    pub fn is_reading_due(&self, now: Micros) -> bool {
        now >= self.reading_due
    }

    /// The thread's CPU time. True: `decide` is due.
    pub fn note(&mut self, now: Micros, cpu_us: u64) -> bool {
        self.reading_due = Micros(now.0 + READING_US);
        self.meter.note(now, cpu_us);
        if now < self.round_due {
            return false;
        }
        let used = self.meter.share(now, cpu_us, SPAN_US);
        self.used = (self.used + used) / 2;
        if self.mode != Mode::Free {
            return true;
        }
        self.round_due = Micros(now.0 + ROUND_US);
        self.late_rounds = match self.late {
            Some(late) if late.share >= WORTH => self.late_rounds + 1,
            Some(_) => 0,
            None => {
                self.free_used = self.used;
                0
            }
        };
        if self.late_rounds >= ROUNDS_LATE {
            return true;
        }
        self.late = None;
        false
    }

    /// What follows from what flows now.
    pub fn decide(&mut self, flow: Flow, now: Micros) -> Option<Order> {
        self.round_due = Micros(now.0 + ROUND_US);
        match self.mode {
            Mode::Free => {
                self.begin(now);
                self.learn_capacity(now);
                self.mode = Mode::Shedding;
                self.budget_bps = flow.flowing_bps * AIM_PERCENT / 100;
            }
            Mode::Braking => {
                let is_in_time = now.since(self.late_at) >= PERIOD_US;
                if !is_in_time && now.since(self.since) < BRAKE_MOST_US {
                    self.round_due = Micros(now.0 + READING_US);
                    return None;
                }
                self.mode = Mode::Shedding;
                if is_in_time {
                    self.late = None;
                    self.budget_bps = self.budget_bps.min(self.fits_beside_the_rest(now));
                } else {
                    (self.budget_bps, self.is_hushed) = (0, true);
                }
            }
            Mode::Shedding => {
                if self.is_over(flow) {
                    self.mode = Mode::Free;
                    self.since = now;
                    (self.capacity, self.budget_bps) = (0, 0);
                    (self.late_rounds, self.is_hushed) = (0, false);
                    return Some(Order::Release);
                }
                self.regulate(flow, now);
            }
        }
        Some(if self.is_hushed {
            Order::Hush
        } else {
            Order::Allot(self.budget_bps)
        })
    }

    /// What the thread used while all video stood still tells what video costs.
    fn fits_beside_the_rest(&self, now: Micros) -> u64 {
        let rest = self
            .meter
            .latest_share(now.since(self.since).min(PERIOD_US));
        let video = self.free_used.saturating_sub(rest);
        if self.free_bps == 0 || video == 0 {
            return u64::MAX;
        }
        let target = self.capacity * AIM_PERCENT / 100;
        self.free_bps * target.saturating_sub(rest) / video
    }

    /// Everybody has what he wants, and it is not too much.
    fn is_over(&self, flow: Flow) -> bool {
        let all = flow.granted_bps >= flow.wanted_bps && !is_pending(flow);
        all && self.late.is_none() && self.late_rounds == 0 && !self.is_hushed
    }

    fn regulate(&mut self, flow: Flow, now: Micros) {
        if let Some(late) = self.late {
            self.late_rounds += 1;
            let is_all_used =
                (late.count > 1 || self.is_trying) && late.share * 100 >= self.known() * 80;
            // The order of the round before needs one to be felt.
            let is_ours = self.late_rounds == 1 && is_all_used || self.late_rounds > 2;
            if is_ours {
                let keep = if late.worst_us >= 2 * LATE_US { 60 } else { 80 };
                self.budget_bps = self.budget_bps.min(flow.granted_bps) * keep / 100;
                if self.is_trying && self.is_same_limit(late) {
                    self.budget_bps = self.budget_bps.min(self.held_bps);
                    self.is_hushed = self.was_hushed;
                }
                self.learn_capacity(now);
                self.hush(flow);
            } else {
                self.late = None;
            }
            return;
        }
        self.late_rounds = 0;
        self.silent_rounds = 0;
        self.capacity = self.capacity.max(self.used); // what it had in time it can have
        if now >= self.try_due && self.is_settled(now) {
            self.was_hushed &= self.is_trying;
            if !self.is_trying {
                (self.tried_from, self.held_bps) = (self.capacity, self.budget_bps);
            }
            if std::mem::take(&mut self.is_hushed) {
                (self.is_trying, self.was_hushed) = (true, true);
                self.try_due = Micros(now.0 + TRY_ON_US);
                return;
            }
            let percent = if self.is_trying {
                TRY_ON_PERCENT
            } else {
                TRY_PERCENT
            };
            self.capacity = self.capacity * percent / 100;
            self.is_trying = true;
            self.try_due = Micros(now.0 + TRY_ON_US);
        }
        if is_pending(flow) && self.pending_rounds < ROUNDS_PENDING {
            self.pending_rounds += 1;
            return;
        }
        self.pending_rounds = 0;
        if !self.is_hushed {
            self.aim(flow);
        }
    }

    /// What is known to fit is used, as far as that can be.
    fn is_settled(&self, now: Micros) -> bool {
        let is_used = self.used * 10_000 >= self.capacity * AIM_PERCENT * 90;
        is_used || self.is_trying || self.is_hushed || now.since(self.try_due) >= SETTLE_US
    }

    /// The capacity, without what is only tried.
    const fn known(&self) -> u64 {
        if self.is_trying {
            self.tried_from
        } else {
            self.capacity
        }
    }

    /// Voices are the last that is held back: when there is no video left and datagrams are late still.
    fn hush(&mut self, flow: Flow) {
        if flow.flowing_bps > 0 {
            self.silent_rounds = 0;
            return;
        }
        self.silent_rounds += 1;
        if self.silent_rounds >= ROUNDS_SILENT {
            self.is_hushed = true;
            self.budget_bps = 0;
        }
    }

    /// The budget that makes the thread use what it should.
    fn aim(&mut self, flow: Flow) {
        let target = (self.capacity * AIM_PERCENT / 100).max(1);
        let used = self.used.max(1);
        if used * 100 > target * 105 {
            // Not all of it is video's: a little more than the share that is too much.
            let over = (used - target) * 1_500 / used;
            let budget = self.budget_bps.min(flow.flowing_bps.max(flow.granted_bps));
            self.budget_bps = budget * 1_000u64.saturating_sub(over).max(500) / 1_000;
        } else if used * 100 < target * 95 {
            let careful = CAREFUL_FROM_PERCENT..BEYOND_PERCENT;
            let is_careful = careful.contains(&(used * 100 / self.known().max(1)));
            let (percent, share) = if is_careful {
                (CAREFUL_PERCENT, LEAST_SHARE_CAREFUL)
            } else {
                (GROW_PERCENT, LEAST_SHARE)
            };
            let grown = self.budget_bps * percent / 100;
            // As if video were all of the work: never more than fits.
            let fits = flow.flowing_bps + flow.flowing_bps * (target - used) / used;
            let is_far = used * 100 < target * 90;
            let least = if is_far { flow.wanted_bps / share } else { 0 };
            let next = grown.min(fits).max(self.budget_bps + least);
            self.budget_bps = self.budget_bps.max(next);
        }
    }

    /// Counters; the longest wait starts over.
    pub fn statistics(&mut self) -> LoadStatistics {
        let fresh = LoadStatistics {
            is_shedding: self.mode != Mode::Free,
            used: self.used,
            capacity: self.capacity,
            budget_bps: self.budget_bps,
            ..self.statistics
        };
        self.statistics.longest_wait_us = 0;
        fresh
    }
}

/// Part of what was granted does not flow yet.
const fn is_pending(flow: Flow) -> bool {
    flow.flowing_bps * 100 < flow.granted_bps * 80
}

#[cfg(test)]
mod tests;
