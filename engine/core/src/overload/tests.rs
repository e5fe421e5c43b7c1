//! A thread under a quota in virtual time: it stands still for the rest of each period in which its quota is used up.

use std::collections::VecDeque;

use super::*;

const TICK_US: u64 = 500;
/// Between an order and what flows by it: key frames.
const KEY_US: u64 = 120_000;
const WANTED_BPS: u64 = 100_000_000;
const START: Micros = Micros(3_600_000_000);

/// What a thread has to do, per mille of a CPU.
#[derive(Clone, Copy)]
struct Work {
    /// All that is no copy of video: receiving, sound, feedback.
    fixed: u64,
    /// Voices that a hush leaves out are so much of `fixed`.
    voices: u64,
    /// Copies of all video that is wanted.
    video: u64,
}

struct Thread {
    governor: Governor,
    work: Work,
    /// CPU time in each period; `PERIOD_US` = no quota.
    quota_us: u64,
    left_us: u64,
    /// Work that arrived: when, nanoseconds of CPU, of these for video.
    queue: VecDeque<(Micros, u64, u64)>,
    now: Micros,
    cpu_ns: u64,
    owed_ns: i64,
    is_braked: bool,
    is_hushed: bool,
    granted_bps: u64,
    flowing_bps: u64,
    flows_at: Micros,
    /// The thread does not run until then: something else does.
    away_until: Micros,
    waits_us: Vec<u64>,
    orders: Vec<Order>,
}

impl Thread {
    fn new(work: Work) -> Self {
        Self {
            governor: Governor::default(),
            work,
            quota_us: PERIOD_US,
            left_us: PERIOD_US,
            queue: VecDeque::new(),
            now: START,
            cpu_ns: 0,
            owed_ns: 0,
            is_braked: false,
            is_hushed: false,
            granted_bps: WANTED_BPS,
            flowing_bps: WANTED_BPS,
            flows_at: START,
            away_until: START,
            waits_us: Vec::new(),
            orders: Vec::new(),
        }
    }

    fn flow(&self) -> Flow {
        Flow {
            flowing_bps: self.flowing_bps,
            granted_bps: self.granted_bps,
            wanted_bps: WANTED_BPS,
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while self.now < end {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now = Micros(self.now.0 + TICK_US);
        if self.now.0 % PERIOD_US < TICK_US {
            self.left_us = self.quota_us;
        }
        if self.now >= self.flows_at && !self.is_braked {
            self.flowing_bps = self.granted_bps;
        }
        let hushed = if self.is_hushed { self.work.voices } else { 0 };
        let video = self.work.video * self.flowing_bps / WANTED_BPS;
        let fixed = self.work.fixed - hushed;
        // Per mille of half a millisecond, in nanoseconds.
        self.queue
            .push_back((self.now, fixed * TICK_US, video * TICK_US));
        if self.now >= self.away_until && self.left_us >= TICK_US {
            self.turn();
        }
    }

    /// Half a millisecond of CPU at most.
    fn turn(&mut self) {
        // The last piece of work may take longer than there is time: the rest is owed.
        let mut spare_ns = (TICK_US * 1_000) as i64 - self.owed_ns;
        while let Some(&(at, fixed_ns, video_ns)) = self.queue.front() {
            let wait_us = self.now.since(at);
            let cpu_us = self.cpu_ns / 1_000;
            if Governor::is_late(wait_us) && self.governor.late(wait_us, self.now, cpu_us) {
                self.governor.braked(self.flow(), self.now);
                self.is_braked = true;
                (self.flowing_bps, self.granted_bps) = (0, 0);
            }
            let cost_ns = fixed_ns + if self.is_braked { 0 } else { video_ns };
            if spare_ns <= 0 {
                break;
            }
            spare_ns -= cost_ns as i64;
            self.queue.pop_front();
            self.waits_us.push(wait_us);
        }
        self.owed_ns = (-spare_ns).max(0);
        let used_ns = TICK_US * 1_000 - spare_ns.max(0) as u64;
        self.cpu_ns += used_ns;
        self.left_us -= used_ns.div_ceil(1_000).min(self.left_us);
        if !self.governor.is_reading_due(self.now) {
            return;
        }
        if self.governor.note(self.now, self.cpu_ns / 1_000) {
            let flow = self.flow();
            if let Some(order) = self.governor.decide(flow, self.now) {
                self.obey(order);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let budget_bps = match order {
            Order::Allot(budget_bps) => budget_bps,
            Order::Hush => 0,
            Order::Release => 2 * WANTED_BPS,
        };
        self.is_hushed = order == Order::Hush;
        // In steps of one percent, with the room to spare that a rise needs.
        let step_bps = WANTED_BPS / 100;
        let granted_bps = (budget_bps * 10 / 11).min(WANTED_BPS) / step_bps * step_bps;
        let granted_bps = if budget_bps * 10 >= WANTED_BPS * 11 {
            WANTED_BPS
        } else {
            granted_bps
        };
        if granted_bps != self.granted_bps || self.is_braked {
            if granted_bps < self.granted_bps {
                self.flowing_bps = self.flowing_bps.min(granted_bps);
            }
            self.granted_bps = granted_bps;
            self.flows_at = Micros(self.now.0 + KEY_US);
        }
        self.is_braked = false;
        if self.orders.last() != Some(&order) {
            self.orders.push(order);
        }
    }

    /// The 99th percentile of what waited since the last call, milliseconds.
    fn p99_ms(&mut self) -> u64 {
        let mut waits = std::mem::take(&mut self.waits_us);
        waits.sort_unstable();
        waits[waits.len() * 99 / 100] / 1_000
    }

    /// Milliseconds until everything flows again.
    fn recovery_ms(&mut self) -> u64 {
        let start = self.now;
        while self.flowing_bps < WANTED_BPS || self.governor.mode != Mode::Free {
            self.run(10);
            assert!(self.now.since(start) < 60_000_000, "never");
        }
        self.now.since(start) / 1_000
    }
}

const MEETING: Work = Work {
    fixed: 100,
    voices: 40,
    video: 200,
};

fn limited(work: Work, percent: u64) -> Thread {
    let mut thread = Thread::new(work);
    thread.run(3_000);
    assert_eq!(thread.orders, []);
    thread.p99_ms();
    thread.quota_us = (work.fixed + work.video) * PERIOD_US * percent / 100_000;
    thread
}

#[test]
fn half_of_the_cpu_carries_sound_in_time_and_some_video() {
    for fixed in [30, 50, 100, 120] {
        let work = Work {
            fixed,
            video: 300 - fixed,
            ..MEETING
        };
        let mut thread = limited(work, 50);
        thread.run(15_000);
        let p99_ms = thread.p99_ms();
        let statistics = thread.governor.statistics();
        assert!(p99_ms <= 50, "{p99_ms} ms with {fixed}");
        assert!(thread.flowing_bps > 0, "{statistics:?}");
        assert!(statistics.brakes <= 2, "{statistics:?}");
        let is_hushed = thread.orders.contains(&Order::Hush);
        assert!(fixed > 100 || !is_hushed, "{:?}", thread.orders);
        thread.quota_us = PERIOD_US;
        let recovery_ms = thread.recovery_ms();
        assert!(recovery_ms <= 6_000, "{recovery_ms} ms with {fixed}");
        assert_eq!(thread.orders.last(), Some(&Order::Release));
    }
}

#[test]
fn most_of_what_fits_is_used() {
    let mut thread = limited(MEETING, 60);
    thread.run(5_000);
    let mut flowed = Vec::new();
    for _ in 0..100 {
        thread.run(100);
        flowed.push(thread.flowing_bps);
    }
    flowed.sort_unstable();
    // 180 of 300 are there: 80 beside the rest, of 200 for all video; 85 % of 180 is the aim.
    let half = flowed[50] * 100 / WANTED_BPS;
    assert!((20..=40).contains(&half), "{half} %");
}

#[test]
fn one_long_hiccup_changes_nothing() {
    let mut thread = Thread::new(MEETING);
    for away_ms in [30, 60, 90, 150] {
        thread.run(2_000);
        thread.away_until = thread.now.plus_ms(away_ms);
    }
    thread.run(2_000);
    assert_eq!(thread.orders, []);
    let statistics = thread.governor.statistics();
    assert_eq!((statistics.brakes, statistics.late), (0, 4));
}

#[test]
fn a_thread_with_little_to_do_has_nothing_to_shed() {
    let idle = Work {
        fixed: 20,
        voices: 0,
        video: 25,
    };
    let mut thread = Thread::new(idle);
    for _ in 0..50 {
        thread.run(100);
        thread.away_until = thread.now.plus_ms(60);
    }
    assert_eq!(thread.orders, []);
}

#[test]
fn a_little_too_much_is_found_without_a_brake() {
    let mut thread = limited(MEETING, 95);
    thread.run(20_000);
    let statistics = thread.governor.statistics();
    assert!(statistics.is_shedding || statistics.episodes > 0);
    assert!(statistics.brakes <= 1, "{statistics:?}");
    let p99_ms = thread.p99_ms();
    assert!(p99_ms <= 50, "{p99_ms} ms");
}

/// One room on one core, without any quota: the thread runs all the time, and it is not enough.
#[test]
fn more_than_a_cpu_can_do_is_shed_too() {
    let mut thread = Thread::new(Work {
        fixed: 300,
        voices: 0,
        video: 1_200,
    });
    thread.run(10_000);
    let p99_ms = thread.p99_ms();
    assert!(p99_ms <= 50, "{p99_ms} ms");
    assert!(thread.flowing_bps > WANTED_BPS / 4);
}

#[test]
fn voices_are_the_last_that_is_held_back() {
    let work = Work {
        fixed: 200,
        voices: 100,
        video: 100,
    };
    let mut thread = limited(work, 45);
    thread.run(15_000);
    assert!(thread.orders.contains(&Order::Hush), "{:?}", thread.orders);
    let is_video = |order: &Order| *order != Order::Hush && *order != Order::Allot(0);
    assert!(!thread.orders.iter().any(is_video), "{:?}", thread.orders);
    assert_eq!(thread.flowing_bps, 0);
    thread.p99_ms();
    thread.run(10_000);
    let p99_ms = thread.p99_ms();
    assert!(p99_ms <= 50, "{p99_ms} ms");
    thread.quota_us = PERIOD_US;
    let recovery_ms = thread.recovery_ms();
    assert!(recovery_ms <= 8_000, "{recovery_ms} ms");
}
