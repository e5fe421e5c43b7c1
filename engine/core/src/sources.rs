//! How many of something each source has, over all shards (S14): counters that all threads share, without a lock.
//!
//! A source is counted in the place that a keyed hash gives it. Two that share a place share its bound; nobody can
//! choose whose place that is, and to fill a noticeable part of all places takes as many admitted sessions.
//! Not here: what is counted, and how much of it is too much (`plane`, `parley-io`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

/// Places, a byte each.
const PLACES: usize = 1 << 16;

/// Whom a bound counts: an IPv4 address, or the /64 that one IPv6 host may choose its addresses from.
#[must_use]
pub fn source_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => {
            Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into()
        }
        ip => ip,
    }
}

/// The counters.
#[derive(Debug)]
pub struct Sources {
    counts: Box<[AtomicU8]>,
    key: RandomState,
}

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    by: Arc<Sources>,
    place: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            counts: (0..PLACES).map(|_| AtomicU8::new(0)).collect(),
            key: RandomState::new(),
        }
    }
}

impl Sources {
    /// One more of this address's source, unless it has `most` already.
    pub fn count(self: &Arc<Self>, ip: IpAddr, most: u8) -> Option<Counted> {
        let place = self.key.hash_one(source_of(ip)) as usize % PLACES;
        let more = |count| (count < most).then(|| count + 1);
        // Nothing is published by the number, so no order is needed.
        self.counts[place]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Counted {
            by: Arc::clone(self),
            place,
        })
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.by.counts[self.place].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_over_all_threads() {
        let sources = Arc::new(Sources::default());
        let ip = IpAddr::from([192, 0, 2, 1]);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let sources = Arc::clone(&sources);
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        drop(sources.count(ip, 64));
                    }
                    (0..40)
                        .filter_map(|_| sources.count(ip, 64))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let held: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect();
        assert_eq!(held.len(), 64);
        assert!(sources.count(ip, 64).is_none());
        assert!(sources.count(IpAddr::from([192, 0, 2, 2]), 64).is_some());
        drop(held);
        assert!(sources.is_empty());
    }

    #[test]
    fn a_network_that_one_host_may_have_is_one_source() {
        let host = |text: &str| source_of(text.parse().expect("an address"));
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:2"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_ne!(host("::ffff:192.0.2.1"), host("::ffff:192.0.2.2"));
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
    }
}
