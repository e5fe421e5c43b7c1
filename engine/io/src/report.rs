//! A thread's last word about itself, and that of all threads together.
//!
//! Not here: when it is written (`run`), what is counted (`parley-core`), its names in Python (`parley-py`).

use parley_core::overload::{Governor, LoadStatistics};
use parley_core::plane::{Plane, Statistics};

use crate::batch::Outbox;
use crate::pictures::Pictures;
use crate::relay::RelayCounters;
use crate::stream::StreamCounters;

/// The thread's last word about itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The plane's counters.
    pub plane: Statistics,
    /// Panics caught; each cost one transport at most (S15).
    pub panics: u64,
    /// Commands that could not be carried out.
    pub refused_commands: u64,
    /// Datagrams that the kernel refused to take.
    pub refused_sends: u64,
    /// Events lost because nobody polled.
    pub lost_events: u64,
    /// ICE-TCP.
    pub streams: StreamCounters,
    /// To other shards.
    pub relays: RelayCounters,
    /// Packets of pictures that lay in their socket for those behind them, at most a millisecond.
    pub waited: u64,
    /// Each thread's CPU, in the order of the shards.
    pub loads: Vec<Load>,
}

/// How a thread is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Its own judgement.
    pub own: LoadStatistics,
    /// Video streams that are paused for want of CPU.
    pub paused: u64,
    /// Video streams that are lower than they could be.
    pub lowered: u64,
}

impl Report {
    /// What the parts of a thread have counted until now; the rest is counted here.
    pub(crate) fn read(
        &mut self,
        plane: &Plane,
        governor: &mut Governor,
        outbox: &Outbox,
        pictures: &Pictures,
    ) {
        self.refused_sends = outbox.refused;
        self.streams = outbox.streams.counters;
        self.relays = outbox.relays.counters;
        self.waited = pictures.waited;
        self.plane = plane.statistics();
        let (paused, lowered) = plane.shed_streams();
        self.loads.clear();
        self.loads.push(Load {
            own: governor.statistics(),
            paused,
            lowered,
        });
    }

    /// Take another thread's in. `lost_events` is nobody's own.
    pub fn add(&mut self, other: &Self) {
        self.plane.add(&other.plane);
        self.panics += other.panics;
        self.refused_commands += other.refused_commands;
        self.refused_sends += other.refused_sends;
        self.streams.add(&other.streams);
        self.relays.add(&other.relays);
        self.waited += other.waited;
        self.loads.extend_from_slice(&other.loads);
    }
}
