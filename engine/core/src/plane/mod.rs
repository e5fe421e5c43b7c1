//! Everything behind one port: demultiplexing, who may send, and the router in the middle (RFC 7983, RFC 5761).
//!
//! Bytes that are not STUN count only from 5-tuples that an authenticated check validated (S1, S2). State appears
//! only after a correct MESSAGE-INTEGRITY for a known ufrag (S4); nobody else gets a single byte back.
//! Not here: what callers ask for (`commands`), sockets and threads (`parley-io`), DTLS (its datagrams become events).

mod commands;
mod egress;
mod routes;
mod statistics;
mod transport;

#[cfg(test)]
mod abroad_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::hash::FastMap;
use crate::ice::{Change, Verdict};
use crate::id::{Micros, TransportId};
use crate::media::{self, Router};
use crate::random::{derived, Random};
use crate::shard::Shard;
use crate::sources::Sources;
use crate::srtp;
use crate::stun::{self, Class, Message};
use crate::wire::{Event, Output, Path};

use egress::Egress;
use routes::Routes;
use transport::Table;

pub use statistics::{Drops, Statistics, TransportStatistics};
pub use transport::IngressLimit;

/// A validated 5-tuple changes its transport only when the one that has it was silent for this long.
const TAKEOVER_US: u64 = 5_000_000;

/// Least time between two looks at every transport's timers: none of them is finer than that, and with
/// thousands of idle transports one of them is always due.
const ICE_TICK_US: u64 = 20_000;

/// Transports of one source address whose handshakes are unfinished (S14). More wait: DTLS repeats itself. The
/// owner ends a handshake that takes longer than five seconds.
pub const HALF_OPEN: u8 = 64;

/// Something the caller asked for that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Another transport answers to this ufrag.
    UfragInUse,
    /// The router refused.
    Media(media::Error),
}

/// The data plane.
#[derive(Debug)]
pub struct Plane {
    table: Table,
    /// Words of ours, but looked up by words of anybody: the keyed hash.
    ufrags: HashMap<Box<[u8]>, (TransportId, u32)>,
    paths: FastMap<Path, TransportId>,
    /// Transports between their first DTLS datagram and their keys, of all shards.
    half_open: Arc<Sources>,
    router: Router,
    random: Random,
    drops: Drops,
    /// No transport needs a tick before this.
    ice_due: Option<Micros>,
    /// When all transports were last looked through.
    ice_ticked: Micros,
    /// Whose datagram is being processed, so that a panic has a name.
    current: Option<TransportId>,
    /// What other shards have.
    routes: Routes,
    /// The datagram being processed came from another shard.
    is_passed_on: bool,
}

impl Plane {
    /// An empty plane.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Peers see enough of `random` to know its state; the router has a secret of its own.
        let random = Random::new(derived(seed, 0));
        Self {
            table: Table::default(),
            ufrags: HashMap::new(),
            paths: FastMap::default(),
            half_open: Arc::default(),
            router: Router::new(derived(seed, 1)),
            random,
            drops: Drops::default(),
            ice_due: None,
            ice_ticked: Micros(0),
            current: None,
            routes: Routes::new(Shard::ONLY),
            is_passed_on: false,
        }
    }

    // --- connections ----------------------------------------------------------------------------------------

    /// Whether an authenticated check validated this 5-tuple, and it still counts.
    #[must_use]
    pub fn is_validated(&self, path: &Path) -> bool {
        self.paths.contains_key(path)
    }

    /// The connection that was this 5-tuple is gone. Its peer may come back on another one while consent lasts.
    pub fn hung_up(&mut self, path: &Path, out: &mut impl Output) {
        if let Some(&id) = self.paths.get(path) {
            if let Some(transport) = self.table.get_mut(id) {
                transport.ice.hung_up(path);
                self.settle(id, out);
            }
        }
    }

    // --- datagrams ------------------------------------------------------------------------------------------

    /// One datagram. Its bytes are used as scratch space.
    pub fn receive(
        &mut self,
        path: &Path,
        datagram: &mut [u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        self.receive_in_batch(path, datagram, now, out);
        self.end_batch(now, out);
    }

    /// The copies that datagrams of a batch still owe. Before anything else is asked of the plane.
    pub fn end_batch(&mut self, now: Micros, out: &mut impl Output) {
        if let Some(holder) = self.router.holder() {
            self.current = Some(holder);
            self.router
                .release(now, &mut Egress::new(&mut self.table, out));
        }
        self.current = None; // a command that panics now is nobody's fault of these
    }

    /// See `Router::hold_us`.
    #[must_use]
    pub fn hold_us(&self, now: Micros) -> u64 {
        self.router.hold_us(now)
    }

    /// See `Router::new_picture_types`.
    pub fn new_picture_types(&mut self) -> Option<u128> {
        self.router.new_picture_types()
    }

    /// As `receive`, but copies may wait for the datagrams behind it: `end_batch` must follow.
    pub fn receive_in_batch(
        &mut self,
        path: &Path,
        datagram: &mut [u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        self.current = None;
        let Some(&first) = datagram.first() else {
            self.drops.malformed += 1;
            return;
        };
        if stun::is_stun(first) {
            self.receive_stun(path, datagram, now, out);
            return;
        }
        let Some(&id) = self.paths.get(path) else {
            if !self.pass_on(path, datagram, out) {
                self.drops.unvalidated += 1;
            }
            return;
        };
        self.current = Some(id);
        match first {
            20..=63 => self.receive_dtls(id, path, datagram, now, out),
            128..=191 => self.receive_srtp(id, path, datagram, now, out),
            _ => self.drops.malformed += 1,
        }
    }

    fn receive_stun(&mut self, path: &Path, datagram: &[u8], now: Micros, out: &mut impl Output) {
        let Ok(message) = Message::parse(datagram) else {
            self.drops.malformed += 1;
            return;
        };
        let verdict = match message.class {
            Class::Request => self.receive_request(path, &message, datagram, now, out),
            Class::Success | Class::Error => {
                let Some(&id) = self.paths.get(path) else {
                    if !self.pass_on(path, datagram, out) {
                        self.drops.unvalidated += 1;
                    }
                    return;
                };
                self.current = Some(id);
                let transport = self.table.get_mut(id).expect("paths lead to transports");
                transport.counters.received(datagram.len());
                let verdict = transport.ice.response(&message, path, now);
                self.settle(id, out);
                verdict
            }
            Class::Indication => Verdict::Ignored, // keeps a NAT open; renews nothing (RFC 7675 section 5.1)
        };
        if verdict == Verdict::Forged {
            self.drops.bad_integrity += 1;
        }
    }

    fn receive_request(
        &mut self,
        path: &Path,
        message: &Message<'_>,
        datagram: &[u8],
        now: Micros,
        out: &mut impl Output,
    ) -> Verdict {
        let Some(&(id, serial)) = message.asked().and_then(|ufrag| self.ufrags.get(ufrag)) else {
            if !self.pass_check(path, message.asked(), datagram, out) {
                self.drops.unknown_ufrag += 1;
            }
            return Verdict::Ignored;
        };
        self.current = Some(id);
        if let Some(owner) = self.paths.get(path).filter(|owner| **owner != id) {
            // Who knows another password and forges this source must not cut the owner off.
            let owner = self
                .table
                .get_mut(*owner)
                .expect("paths lead to transports");
            if now.since(owner.ice.last_heard()) < TAKEOVER_US {
                self.drops.unvalidated += 1;
                return Verdict::Ignored;
            }
        }
        let transport = self.table.get_mut(id).expect("ufrags lead to transports");
        if !self.paths.contains_key(path) && out.is_behind() {
            self.drops.over_limit += 1; // each new path is told to all shards; checks are repeated
            return Verdict::Ignored;
        }
        if self.routes.owner(path).is_some() {
            let is_authentic = transport.ice.is_authentic(serial, message);
            if self.is_taken_elsewhere(path, is_authentic, now, out) {
                self.drops.unvalidated += 1;
                return Verdict::Ignored;
            }
        }
        let transport = self.table.get_mut(id).expect("ufrags lead to transports");
        transport.counters.received(datagram.len());
        let mut counted = transport.counters.counting(out);
        let verdict = transport
            .ice
            .request(serial, message, path, now, &mut counted);
        self.settle(id, out);
        verdict
    }

    fn receive_dtls(
        &mut self,
        id: TransportId,
        path: &Path,
        datagram: &[u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        let transport = self.table.get_mut(id).expect("paths lead to transports");
        transport.counters.received(datagram.len());
        let is_keyed = transport.srtp.is_some();
        if !is_keyed && transport.half_open.is_none() {
            transport.half_open = self.half_open.count(path.remote.ip(), HALF_OPEN);
            if transport.half_open.is_none() {
                self.drops.half_open += 1;
                return;
            }
        }
        if !transport.admit(datagram.len(), now) || !transport.ice.dtls(path, is_keyed, now) {
            self.drops.over_limit += 1;
            return;
        }
        out.event(Event::Datagram(id, datagram.to_vec()));
    }

    fn receive_srtp(
        &mut self,
        id: TransportId,
        path: &Path,
        datagram: &mut [u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        let transport = self.table.get_mut(id).expect("paths lead to transports");
        let bytes = datagram.len();
        transport.counters.received(bytes);
        let Some(session) = &mut transport.srtp else {
            self.drops.no_keys += 1;
            return;
        };
        // RFC 5761 section 4: packet types 192..=223 are RTCP.
        let is_rtcp = datagram
            .get(1)
            .is_some_and(|kind| (192..=223).contains(kind));
        let opened = if is_rtcp {
            session.receiver.rtcp(datagram, now)
        } else {
            session.receiver.rtp(datagram, now)
        };
        let len = match opened {
            Ok(len) => len,
            Err(why) => {
                match why {
                    srtp::Error::Malformed => self.drops.malformed += 1,
                    srtp::Error::Forged => transport.counters.auth_failures += 1,
                    srtp::Error::Replayed => transport.counters.replays += 1,
                    srtp::Error::TooManySources | srtp::Error::Exhausted => {
                        self.drops.foreign_ssrc += 1;
                    }
                }
                return;
            }
        };
        transport.ice.media(path, now);
        if transport.ice.has_changes() {
            self.settle(id, out);
        }
        // After authentication, or a flood of forgeries would use up what the peer may send.
        let transport = self.table.get_mut(id).expect("nothing removed it");
        if !transport.admit(bytes, now) {
            self.drops.over_limit += 1;
            return;
        }
        let mut egress = Egress::new(&mut self.table, out);
        if let Some(other) = self.router.holder().filter(|holder| *holder != id) {
            self.current = Some(other); // if it panics, it is not this one's fault
            self.router.release(now, &mut egress);
            self.current = Some(id);
        }
        if is_rtcp {
            self.router.rtcp(id, &datagram[..len], now, &mut egress);
        } else {
            self.router.rtp(id, &mut datagram[..len], now, &mut egress);
        }
    }

    fn forget(&mut self, id: TransportId, out: &mut impl Output) {
        if let Some(transport) = self.table.remove(id) {
            for path in transport.ice.paths() {
                self.paths.remove(&path);
                self.routes.removed(&path, out);
            }
            for ufrag in transport.ice.ufrags() {
                self.ufrags.remove(ufrag);
            }
        }
    }

    /// Bring the tables up to date with what a transport's ICE did, and tell. When it is due.
    fn settle(&mut self, id: TransportId, out: &mut impl Output) -> Option<Micros> {
        while let Some(change) = self.table.get_mut(id).and_then(|own| own.ice.take_change()) {
            match change {
                Change::Validated => {
                    self.router.opened(id);
                    out.event(Event::Validated(id));
                }
                Change::Silent => out.event(Event::Silent(id)),
                Change::Heard => out.event(Event::Heard(id)),
                Change::Expired => out.event(Event::Expired(id)),
                Change::Added(path) => {
                    if let Some(before) = self.paths.insert(path, id).filter(|owner| *owner != id) {
                        if let Some(loser) = self.table.get_mut(before) {
                            loser.ice.forget(&path);
                        }
                    }
                    self.routes.added(&path, out);
                }
                Change::Removed(path) => {
                    if self.paths.get(&path) == Some(&id) {
                        self.paths.remove(&path);
                        self.routes.removed(&path, out);
                    }
                }
            }
        }
        let due = self.table.get_mut(id).and_then(|own| own.ice.timeout());
        self.ice_due = [self.ice_due, due].into_iter().flatten().min();
        due
    }

    // --- time -----------------------------------------------------------------------------------------------

    /// When `tick` wants to run next; None = nothing to wait for.
    #[must_use]
    pub fn timeout(&self) -> Option<Micros> {
        let ice = self
            .ice_due
            .map(|due| due.max(Micros(self.ice_ticked.0 + ICE_TICK_US)));
        [ice, self.router.timeout()].into_iter().flatten().min()
    }

    /// Whatever is due.
    pub fn tick(&mut self, now: Micros, out: &mut impl Output) {
        self.current = None;
        let is_early = now.since(self.ice_ticked) < ICE_TICK_US;
        if !is_early && self.ice_due.is_some_and(|due| due <= now) {
            self.ice_ticked = now;
            let mut next = None;
            for at in 0..self.table.len() {
                let due = self.tick_transport(at, now, out);
                next = [next, due].into_iter().flatten().min();
            }
            self.ice_due = next; // only now: when one panics the others are still due
        }
        if self.router.timeout().is_some_and(|due| due <= now) {
            self.router
                .tick(now, &mut Egress::new(&mut self.table, out));
        }
    }

    /// When it is due again.
    fn tick_transport(&mut self, at: usize, now: Micros, out: &mut impl Output) -> Option<Micros> {
        let transport = self.table.at_mut(at)?;
        let id = transport.id;
        if transport.ice.timeout().is_some_and(|due| due <= now) {
            self.current = Some(id);
            let mut counted = transport.counters.counting(out);
            transport.ice.tick(now, &mut counted);
            self.current = None;
        }
        self.settle(id, out)
    }

    /// Panic as if something of this transport's had caused it: tests see what becomes of the others (S15).
    ///
    /// # Panics
    /// Always, unless the transport is gone.
    pub fn fail_deliberately(&mut self, id: TransportId) {
        if self.table.get_mut(id).is_some() {
            self.current = Some(id);
            panic!("asked for by a test");
        }
    }

    /// After a panic: drop the transport whose datagram or timer caused it, without asking its parts anything.
    pub fn quarantine(&mut self, out: &mut impl Output) -> Option<TransportId> {
        self.is_passed_on = false;
        let id = self.current.take()?;
        self.forget(id, out);
        Some(id)
    }

    /// All counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let media = self.router.statistics();
        let told: FastMap<_, _> = media.transports.iter().copied().collect();
        let mut drops = self.drops;
        drops.malformed += media.malformed;
        drops.foreign_ssrc += media.foreign_ssrc;
        Statistics {
            transports: self
                .table
                .iter()
                .map(|own| {
                    let mut counters = own.statistics();
                    if let Some(told) = told.get(&own.id) {
                        counters.estimate_bps = told.estimate_bps;
                        counters.queue_us = told.queue_us;
                        counters.paced_us = told.paced_us;
                        counters.paced_dropped = told.paced_dropped;
                        counters.report_rtt_us = told.rtt_us;
                    }
                    (own.id, counters)
                })
                .collect(),
            publications: media.publications,
            subscriptions: media.subscriptions,
            drops,
        }
    }
}
