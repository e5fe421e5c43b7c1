//! Counters, copied out in one read; the names are those of `sfu/_engine.pyi`.

use crate::id::{PublicationId, SubscriptionId, TransportId};

use super::publication::Layer;
use super::receive::Receive;
use super::Router;

/// Counters of one publication, all layers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicationStatistics {
    /// RTP packets accepted, repetitions included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Packets that never came (RFC 3550 appendix A.3), retransmissions counted as received.
    pub lost: u64,
    /// Sequence numbers asked for again.
    pub nacks_sent: u64,
    /// Key frame requests sent (PLI or FIR).
    pub plis_sent: u64,
    /// Interarrival jitter of the layer heard last, RTP clock units.
    pub jitter: u64,
    /// Layers that are live now; if all are silent, those that were before.
    pub layers: u64,
    /// Packets dropped at the closed gate.
    pub gated: u64,
    /// Packets not forwarded because others were louder.
    pub off_stage: u64,
}

/// Counters of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatistics {
    /// RTP packets handed to the transport, repetitions not included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Sequence numbers the subscriber asked for again.
    pub nacks: u64,
    /// Key frames the subscriber asked for (PLI or FIR).
    pub plis: u64,
    /// Packets repeated.
    pub retransmitted: u64,
    /// First sequence number sent, extended; 0 before the first packet.
    pub first_sequence: u64,
    /// Latest sequence number sent, extended; 0 before the first packet.
    pub last_sequence: u64,
}

/// What the peer of a transport told us in RTCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStatistics {
    /// Round trip by its reports on our streams, microseconds; 0 = unknown.
    pub rtt_us: u64,
    /// Its latest REMB, bits per second; 0 = none.
    pub remb_bps: u64,
    /// Packets that its transport-cc feedback calls received.
    pub feedback_received: u64,
    /// Packets that its transport-cc feedback calls missing.
    pub feedback_lost: u64,
    /// What its link carries by our estimate (or its own), bits per second; 0 = unknown.
    pub estimate_bps: u64,
}

/// All counters of a router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Per transport.
    pub transports: Vec<(TransportId, TransportStatistics)>,
    /// Per publication.
    pub publications: Vec<(PublicationId, PublicationStatistics)>,
    /// Per subscription.
    pub subscriptions: Vec<(SubscriptionId, SubscriptionStatistics)>,
    /// Authenticated packets and compounds that did not parse.
    pub malformed: u64,
    /// RTP or RTCP about an SSRC that is not that peer's business (S8).
    pub foreign_ssrc: u64,
}

impl Router {
    /// All counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let transports = self.transports.iter().flatten();
        let publications = self.publications.iter().flatten();
        let subscriptions = self.subscriptions.iter().zip(&self.egress);
        Statistics {
            transports: transports
                .map(|entry| {
                    let counters = TransportStatistics {
                        estimate_bps: entry.pressure.estimate_bps().unwrap_or_default(),
                        ..entry.counters
                    };
                    (entry.id, counters)
                })
                .collect(),
            publications: publications
                .filter(|entry| entry.mirror.is_none())
                .map(|entry| {
                    let lost = |layer: &Layer| {
                        layer.lost_before + layer.receive.as_ref().map_or(0, Receive::lost)
                    };
                    let last = &entry.layers[usize::from(entry.last_layer)];
                    let counters = PublicationStatistics {
                        lost: entry.layers.iter().map(lost).sum(),
                        jitter: last.receive.as_ref().map_or(0, Receive::jitter),
                        layers: u64::from(entry.live().count_ones()),
                        ..entry.counters
                    };
                    (entry.id, counters)
                })
                .collect(),
            subscriptions: subscriptions
                .filter_map(|(cold, hot)| {
                    let cold = cold.as_ref()?;
                    let sent = u64::from(hot.packets > 0);
                    let counters = SubscriptionStatistics {
                        packets: hot.packets,
                        bytes: hot.bytes,
                        nacks: cold.nacks,
                        plis: cold.plis,
                        retransmitted: cold.retransmitted,
                        first_sequence: cold.first_sequence * sent,
                        last_sequence: hot.last_sequence * sent,
                    };
                    Some((cold.id, counters))
                })
                .collect(),
            malformed: self.malformed,
            foreign_ssrc: self.foreign,
        }
    }
}
