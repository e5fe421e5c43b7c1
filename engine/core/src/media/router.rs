//! Who gets what: transports, publications and subscriptions, and the packets between them.

use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};

use super::{Error, ReceiveStream, SendStream, Sink, Statistics};

/// All media of one data plane.
#[derive(Debug)]
pub struct Router {
    _seed: u64,
}

#[allow(unused_variables, clippy::needless_pass_by_value)]
impl Router {
    /// An empty router. `seed` starts the generator of sequence numbers and timestamps.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { _seed: seed }
    }

    /// A transport that may publish and subscribe.
    pub fn add_transport(&mut self, transport: TransportId) {}

    /// Forget a transport with its publications and subscriptions; says BYE for its outgoing streams.
    pub fn remove_transport(&mut self, transport: TransportId, now: Micros, sink: &mut impl Sink) {}

    /// Receive a track.
    ///
    /// # Errors
    /// `UnknownTransport`, `DuplicateHandle` or `Invalid`.
    pub fn publish(
        &mut self,
        publication: PublicationId,
        transport: TransportId,
        group: GroupId,
        stream: ReceiveStream,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// New codecs, extensions or rids after a renegotiation.
    pub fn update_publication(&mut self, publication: PublicationId, stream: ReceiveStream) {}

    /// Stop receiving a track; its subscriptions stay and carry nothing.
    pub fn unpublish(&mut self, publication: PublicationId, now: Micros, sink: &mut impl Sink) {}

    /// Closed: packets are counted and dropped. Open is the initial state.
    pub fn set_gate(&mut self, publication: PublicationId, open: bool) {}

    /// An outgoing stream that carries nothing yet.
    ///
    /// # Errors
    /// `UnknownTransport`, `DuplicateHandle` or `Invalid`.
    pub fn subscribe(
        &mut self,
        subscription: SubscriptionId,
        transport: TransportId,
        stream: SendStream,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Carry this publication from now on; None = silence.
    pub fn set_source(
        &mut self,
        subscription: SubscriptionId,
        source: Option<PublicationId>,
        now: Micros,
        sink: &mut impl Sink,
    ) {
    }

    /// Highest simulcast layer to forward (0 lowest), and whether to forward at all.
    pub fn set_layer(
        &mut self,
        subscription: SubscriptionId,
        max_layer: u8,
        paused: bool,
        now: Micros,
        sink: &mut impl Sink,
    ) {
    }

    /// End an outgoing stream with BYE.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId, now: Micros, sink: &mut impl Sink) {
    }

    /// A decrypted, authenticated RTP packet. The buffer may be altered.
    pub fn rtp(&mut self, from: TransportId, packet: &mut [u8], now: Micros, sink: &mut impl Sink) {
    }

    /// A decrypted, authenticated RTCP compound.
    pub fn rtcp(&mut self, from: TransportId, packet: &[u8], now: Micros, sink: &mut impl Sink) {}

    /// When `tick` wants to run next; None = nothing to wait for.
    #[must_use]
    pub fn timeout(&self) -> Option<Micros> {
        None
    }

    /// Whatever is due: NACKs, reports, feedback, levels, layer fallback.
    pub fn tick(&mut self, now: Micros, sink: &mut impl Sink) {}

    /// All counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}
