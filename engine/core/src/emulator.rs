//! A network link in virtual time, for tests: seeded, without a socket, a clock or a thread.
//!
//! A link is a story in phases, each with a description and a shape; a datagram is treated by the phase in which
//! it is sent. Order of what happens to it: block, MTU, loss, queue (a token-less leaky bucket, as tbf with the
//! smallest burst), latency and jitter (in order), reordering, duplication.
//! Not here: who speaks over it (`media::tests::network`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::Micros;
use crate::random::Random;

/// UDP and IPv4 around a datagram.
const OVERHEAD_BYTES: u64 = 28;
const PER_MILLION: u64 = 1_000_000;

/// How datagrams get lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each for itself, parts per million.
    Random(u64),
    /// Gilbert-Elliott: good and bad spells; everything sent in a bad one is lost. Parts per million to leave
    /// the good spell and to leave the bad one.
    Bursts { begin: u64, end: u64 },
}

impl Loss {
    pub const NONE: Self = Self::Random(0);

    /// So many percent.
    pub const fn percent(percent: u64) -> Self {
        Self::Random(percent * PER_MILLION / 100)
    }

    /// So many percent in bursts of this mean length.
    pub const fn bursts(percent: u64, mean: u64) -> Self {
        let end = PER_MILLION / mean;
        Self::Bursts {
            begin: end * percent / (100 - percent),
            end,
        }
    }
}

/// What a link does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub latency_us: u64,
    /// Added to the latency, uniformly from 0; the order is kept.
    pub jitter_us: u64,
    pub loss: Loss,
    /// Parts per million that overtake or fall behind ...
    pub reorder: u64,
    /// ... by at most this.
    pub reorder_us: u64,
    /// Parts per million that arrive twice.
    pub duplicate: u64,
    /// Bits per second, IP headers included; 0 = no limit.
    pub rate_bps: u64,
    /// The queue before the limit; what would wait longer is dropped.
    pub queue_us: u64,
    /// Nothing passes.
    pub blocked: bool,
    /// Largest IP packet; larger ones vanish. 0 = no limit.
    pub mtu: u64,
}

impl Shape {
    /// A good link with this one-way delay.
    pub const fn clean(latency_us: u64) -> Self {
        Self {
            latency_us,
            jitter_us: 0,
            loss: Loss::NONE,
            reorder: 0,
            reorder_us: 0,
            duplicate: 0,
            rate_bps: 0,
            queue_us: 300_000,
            blocked: false,
            mtu: 0,
        }
    }
}

/// A part of a link's story.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What a failing test prints.
    pub what: &'static str,
    /// The last phase lasts forever.
    pub lasts_us: u64,
    pub shape: Shape,
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub sent: u64,
    pub sent_bytes: u64,
    pub lost: u64,
    /// Dropped from the full queue.
    pub overflowed: u64,
    pub too_large: u64,
    pub doubled: u64,
    pub delivered: u64,
    pub bytes: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    phases: Vec<Phase>,
    start: Micros,
    random: Random,
    is_bad: bool,
    /// When the limiter has sent everything before.
    free_at: u64,
    /// The latest arrival in order.
    last_arrival: u64,
    count: u64,
    flying: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    pub fate: Fate,
}

impl Link {
    /// The story begins at `start`.
    pub fn new(seed: u64, start: Micros, phases: Vec<Phase>) -> Self {
        assert!(!phases.is_empty());
        Self {
            phases,
            start,
            random: Random::new(seed),
            is_bad: false,
            free_at: 0,
            last_arrival: 0,
            count: 0,
            flying: BinaryHeap::new(),
            fate: Fate::default(),
        }
    }

    /// The phase of an instant.
    pub fn phase(&self, now: Micros) -> &Phase {
        let mut since = now.since(self.start);
        for phase in &self.phases {
            if since < phase.lasts_us {
                return phase;
            }
            since -= phase.lasts_us;
        }
        self.phases.last().expect("not empty")
    }

    fn happens(&mut self, per_million: u64) -> bool {
        per_million > 0 && self.random.next_u64() % PER_MILLION < per_million
    }

    fn up_to(&mut self, us: u64) -> u64 {
        if us == 0 {
            0
        } else {
            self.random.between(0, us)
        }
    }

    fn is_lost(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::Random(share) => self.happens(share),
            Loss::Bursts { begin, end } => {
                let changes = if self.is_bad { end } else { begin };
                if self.happens(changes) {
                    self.is_bad = !self.is_bad;
                }
                self.is_bad
            }
        }
    }

    /// A datagram enters.
    pub fn send(&mut self, now: Micros, datagram: &[u8]) {
        let shape = self.phase(now).shape;
        let size = datagram.len() as u64 + OVERHEAD_BYTES;
        self.fate.sent += 1;
        self.fate.sent_bytes += datagram.len() as u64;
        if shape.mtu > 0 && size > shape.mtu {
            self.fate.too_large += 1;
            return;
        }
        if shape.blocked || self.is_lost(shape.loss) {
            self.fate.lost += 1;
            return;
        }
        let mut at = now.0;
        if shape.rate_bps > 0 {
            let begins = self.free_at.max(now.0);
            if begins - now.0 > shape.queue_us {
                self.fate.overflowed += 1;
                return;
            }
            let takes = (size * 8 * 1_000_000).checked_div(shape.rate_bps);
            at = begins + takes.unwrap_or_default();
            self.free_at = at;
        }
        at += shape.latency_us + self.up_to(shape.jitter_us);
        if self.happens(shape.reorder) {
            at += self.up_to(shape.reorder_us);
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        self.deliver(at, datagram);
        if self.happens(shape.duplicate) {
            self.fate.doubled += 1;
            let later = at + 1 + self.up_to(shape.jitter_us.max(5_000));
            self.deliver(later, datagram);
        }
    }

    fn deliver(&mut self, at: u64, datagram: &[u8]) {
        self.count += 1; // equal times keep their order
        self.flying
            .push(Reverse((at, self.count, datagram.to_vec())));
    }

    /// When the next datagram comes out.
    pub fn due(&self) -> Option<Micros> {
        self.flying.peek().map(|Reverse((at, ..))| Micros(*at))
    }

    /// A datagram that is out by now.
    pub fn take(&mut self, now: Micros) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        let Reverse((_, _, datagram)) = self.flying.pop()?;
        self.fate.delivered += 1;
        self.fate.bytes += datagram.len() as u64;
        Some(datagram)
    }

    /// How long a datagram sent now would wait for the limit.
    pub fn queue_us(&self, now: Micros) -> u64 {
        self.free_at.saturating_sub(now.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Micros = Micros(1_000_000);

    fn always(shape: Shape) -> Link {
        let phase = Phase {
            what: "always",
            lasts_us: u64::MAX,
            shape,
        };
        Link::new(7, START, vec![phase])
    }

    /// Send numbered datagrams of 1,000 bytes, one per `every_us`; (number, delay) of each arrival.
    fn run(link: &mut Link, count: u32, every_us: u64) -> Vec<(u32, u64)> {
        let mut arrived = Vec::new();
        let mut datagram = vec![0; 1_000];
        let sent_at = |number: u32| START.0 + u64::from(number) * every_us;
        for number in 0..count {
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            link.send(Micros(sent_at(number)), &datagram);
        }
        while let Some(at) = link.due() {
            let bytes = link.take(at).expect("due");
            let number = u32::from_be_bytes(bytes[..4].try_into().expect("four"));
            arrived.push((number, at.0 - sent_at(number)));
        }
        arrived
    }

    #[test]
    fn the_same_seed_is_the_same_story() {
        let shape = Shape {
            jitter_us: 30_000,
            loss: Loss::percent(10),
            reorder: 300_000,
            reorder_us: 50_000,
            duplicate: 50_000,
            ..Shape::clean(20_000)
        };
        assert_eq!(
            run(&mut always(shape), 2_000, 1_000),
            run(&mut always(shape), 2_000, 1_000)
        );
    }

    #[test]
    fn loss_is_what_was_asked_for_and_bursts_are_as_long() {
        for (loss, percent) in [(Loss::percent(5), 5), (Loss::bursts(20, 5), 20)] {
            let shape = Shape {
                loss,
                ..Shape::clean(1_000)
            };
            let arrived = run(&mut always(shape), 100_000, 1_000);
            let lost = 100_000 - arrived.len();
            assert!(lost.abs_diff(percent * 1_000) < percent * 100, "{lost}");
            let holes = arrived.windows(2).filter(|w| w[1].0 - w[0].0 > 1).count();
            let mean = lost as f64 / holes as f64;
            let expected = if percent == 20 { 5.0 } else { 1.05 };
            assert!((mean / expected - 1.0).abs() < 0.1, "{mean}");
        }
    }

    #[test]
    fn the_limit_is_kept_and_its_queue_is_bounded() {
        let shape = Shape {
            rate_bps: 500_000,
            ..Shape::clean(10_000)
        };
        let mut link = always(shape);
        let arrived = run(&mut link, 1_000, 8_224); // 1 Mbit/s
        let longest = arrived.iter().map(|(_, delay)| *delay).max();
        assert!(longest.is_some_and(|us| (300_000..330_000).contains(&us)));
        assert!(link.fate.overflowed.abs_diff(500) < 30, "{:?}", link.fate);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let jitter = Shape {
            jitter_us: 30_000,
            ..Shape::clean(20_000)
        };
        let arrived = run(&mut always(jitter), 1_000, 1_000);
        assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let reorder = Shape {
            reorder: 300_000,
            reorder_us: 50_000,
            ..Shape::clean(20_000)
        };
        let arrived = run(&mut always(reorder), 1_000, 1_000);
        let late = arrived.windows(2).filter(|w| w[0].0 > w[1].0).count();
        assert!(late > 100, "{late}");
        assert!(arrived.iter().all(|(_, delay)| *delay <= 70_000));
    }

    #[test]
    fn phases_follow_each_other_and_a_small_mtu_swallows() {
        let phase = |what, shape| Phase {
            what,
            lasts_us: 1_000_000,
            shape,
        };
        let open = Shape::clean(0);
        let blocked = Shape {
            blocked: true,
            ..open
        };
        let narrow = Shape { mtu: 1_000, ..open };
        let phases = vec![phase("a", open), phase("b", blocked), phase("c", narrow)];
        let mut link = Link::new(1, START, phases);
        assert_eq!(run(&mut link, 30, 100_000).len(), 10);
        assert_eq!((link.fate.lost, link.fate.too_large), (10, 10));
        assert_eq!(link.phase(START.plus_ms(1_500)).what, "b");
    }
}
