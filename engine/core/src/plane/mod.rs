//! Everything behind one port: demultiplexing, who may send, and the router in the middle (RFC 7983, RFC 5761).
//!
//! Bytes that are not STUN count only from 5-tuples that an authenticated check validated (S1, S2). State appears
//! only after a correct MESSAGE-INTEGRITY for a known ufrag (S4); nobody else gets a single byte back.
//! Not here: sockets and threads (`parley-io`), DTLS (its datagrams become events).

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
use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use crate::media::{self, ReceiveStream, Router, SendStream};
use crate::overload::{Flow, Order};
use crate::random::{derived, Random};
use crate::shard::Shard;
use crate::sources::Sources;
use crate::srtp::{self, Profile};
use crate::stun::{self, Class, Message};
use crate::wire::{Event, Output, Path};

use egress::Egress;
use routes::Routes;
use transport::{Table, Transport};

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

    // --- commands -------------------------------------------------------------------------------------------

    /// Answer checks for this ufrag from now on.
    ///
    /// # Errors
    /// `UfragInUse`.
    pub fn open_transport(
        &mut self,
        id: TransportId,
        ufrag: &[u8],
        password: &[u8],
        offered_by_us: bool,
        now: Micros,
    ) -> Result<(), Error> {
        if self.ufrags.contains_key(ufrag) {
            return Err(Error::UfragInUse);
        }
        let seed = self.random.next_u64();
        self.ufrags.insert(ufrag.into(), (id, 0));
        self.table.insert(Transport::new(
            id,
            ufrag,
            password,
            offered_by_us,
            now,
            seed,
        ));
        self.router.add_transport(id);
        Ok(())
    }

    /// The peer's credentials, for the newest generation.
    pub fn set_remote(
        &mut self,
        id: TransportId,
        ufrag: &[u8],
        password: &[u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        if let Some(transport) = self.table.get_mut(id) {
            let mut counted = transport.counters.counting(out);
            transport.ice.set_remote(ufrag, password, now, &mut counted);
            self.settle(id, out);
        }
    }

    /// A new generation of our credentials.
    ///
    /// # Errors
    /// `UfragInUse`.
    pub fn restart_ice(
        &mut self,
        id: TransportId,
        ufrag: &[u8],
        password: &[u8],
        now: Micros,
    ) -> Result<(), Error> {
        let Some(transport) = self.table.get_mut(id) else {
            return Ok(());
        };
        if self.ufrags.contains_key(ufrag) {
            return Err(Error::UfragInUse);
        }
        let (serial, forgotten) = transport.ice.restart(ufrag, password, now);
        if let Some(forgotten) = forgotten {
            self.ufrags.remove(forgotten.as_slice());
        }
        self.ufrags.insert(ufrag.into(), (id, serial));
        Ok(())
    }

    /// A DTLS record to the peer; dropped when there is no validated 5-tuple.
    pub fn send_datagram(&mut self, id: TransportId, datagram: &[u8], out: &mut impl Output) {
        let Some(transport) = self.table.get_mut(id) else {
            return;
        };
        let Some(path) = transport.ice.dtls_path().copied() else {
            return;
        };
        let Some(room) = out.slot().get_mut(..datagram.len()) else {
            return;
        };
        room.copy_from_slice(datagram);
        transport.counters.sent(datagram.len());
        out.commit(&path, datagram.len());
    }

    /// SRTP keys from the DTLS exporter. The same ones again change nothing.
    pub fn set_keys(
        &mut self,
        id: TransportId,
        profile: Profile,
        material: &[u8],
        is_client: bool,
    ) {
        if let Some(transport) = self.table.get_mut(id) {
            transport.set_keys(profile, material, is_client);
            transport.half_open = None;
            self.router.opened(id);
        }
    }

    /// Excess is dropped before forwarding (S10). Zeros = default.
    pub fn set_ingress_limit(&mut self, id: TransportId, limit: IngressLimit) {
        if let Some(transport) = self.table.get_mut(id) {
            transport.set_limit(limit);
        }
    }

    /// No more than this for the peer, bits per second; 0 = all that its link carries.
    pub fn set_budget(&mut self, id: TransportId, bits_per_s: u64) {
        self.router.set_budget(id, bits_per_s);
    }

    /// Forget a transport with its publications and subscriptions, after BYE for its streams.
    pub fn close_transport(&mut self, id: TransportId, now: Micros, out: &mut impl Output) {
        // Also when the table lost it in a quarantine: the router may still know it.
        self.router
            .remove_transport(id, now, &mut Egress::new(&mut self.table, out));
        self.forget(id, out);
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

    /// Receive a track.
    ///
    /// # Errors
    /// What the router says.
    pub fn publish(
        &mut self,
        publication: PublicationId,
        transport: TransportId,
        group: GroupId,
        stream: ReceiveStream,
    ) -> Result<(), Error> {
        self.router
            .publish(publication, transport, group, stream)
            .map_err(Error::Media)
    }

    /// New codecs, extensions or rids.
    pub fn update_publication(&mut self, publication: PublicationId, stream: ReceiveStream) {
        self.router.update_publication(publication, stream);
    }

    /// Stop receiving a track.
    pub fn unpublish(&mut self, publication: PublicationId, now: Micros, out: &mut impl Output) {
        self.router
            .unpublish(publication, now, &mut Egress::new(&mut self.table, out));
    }

    /// Let packets of a publication through, or not.
    pub fn set_gate(&mut self, publication: PublicationId, open: bool) {
        self.router.set_gate(publication, open);
    }

    /// An outgoing stream that carries nothing yet.
    ///
    /// # Errors
    /// What the router says.
    pub fn subscribe(
        &mut self,
        subscription: SubscriptionId,
        transport: TransportId,
        stream: SendStream,
    ) -> Result<(), Error> {
        if let Some(transport) = self.table.get_mut(transport) {
            transport.carried.learn(&stream);
        }
        self.router
            .subscribe(subscription, transport, stream)
            .map_err(Error::Media)
    }

    /// Carry this publication from now on.
    pub fn set_source(
        &mut self,
        subscription: SubscriptionId,
        source: Option<PublicationId>,
        now: Micros,
        out: &mut impl Output,
    ) {
        let mut egress = Egress::new(&mut self.table, out);
        self.router
            .set_source(subscription, source, now, &mut egress);
    }

    /// Highest layer, and whether to forward at all.
    pub fn set_layer(
        &mut self,
        subscription: SubscriptionId,
        max_layer: u8,
        paused: bool,
        now: Micros,
        out: &mut impl Output,
    ) {
        let mut egress = Egress::new(&mut self.table, out);
        self.router
            .set_layer(subscription, max_layer, paused, now, &mut egress);
    }

    /// So many frames per second are enough, 0 = all.
    pub fn set_frame_rate(
        &mut self,
        subscription: SubscriptionId,
        max_fps: u8,
        now: Micros,
        out: &mut impl Output,
    ) {
        let mut egress = Egress::new(&mut self.table, out);
        self.router
            .set_frame_rate(subscription, max_fps, now, &mut egress);
    }

    /// Who gets bandwidth first on a narrow link: higher before lower.
    pub fn set_priority(&mut self, subscription: SubscriptionId, priority: u8) {
        self.router.set_priority(subscription, priority);
    }

    /// Forward only the loudest voices of a group; 0 = all.
    pub fn set_loudest(&mut self, group: GroupId, places: u8, dominant: Option<PublicationId>) {
        self.router.limit_voices(group, places, dominant);
    }

    /// The video that is forwarded, was granted and is wanted.
    #[must_use]
    pub fn flow(&self) -> Flow {
        self.router.flow()
    }

    /// Stop all video at once, until the next order.
    pub fn brake(&mut self) {
        self.router.brake();
    }

    /// What follows from being short of CPU.
    pub fn obey(&mut self, order: Order, now: Micros, out: &mut impl Output) {
        let mut egress = Egress::new(&mut self.table, out);
        let budget_bps = match order {
            Order::Allot(budget_bps) => Some(budget_bps),
            Order::Hush => Some(0),
            Order::Release => None,
        };
        self.router.hush(order == Order::Hush);
        self.router.allot(budget_bps, now, &mut egress);
    }

    /// Video streams that are paused for want of CPU, and those that are lower than they could be.
    #[must_use]
    pub fn shed_streams(&self) -> (u64, u64) {
        self.router.shed_streams()
    }

    /// End an outgoing stream.
    pub fn unsubscribe(&mut self, id: SubscriptionId, now: Micros, out: &mut impl Output) {
        self.router
            .unsubscribe(id, now, &mut Egress::new(&mut self.table, out));
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
