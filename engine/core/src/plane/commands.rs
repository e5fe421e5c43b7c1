//! What callers ask of the plane: transports, tracks, streams, limits.
//!
//! Not here: what arrives and what is due (`plane`), what becomes of tracks (`media`).

use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use crate::media::{ReceiveStream, SendStream};
use crate::overload::{Flow, Order};
use crate::srtp::Profile;
use crate::wire::Output;

use super::egress::Egress;
use super::transport::Transport;
use super::{Error, IngressLimit, Plane};

impl Plane {
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
}
