//! Counters, copied out in one read; the names are those of `sfu/_engine.pyi`.

use crate::id::{PublicationId, SubscriptionId, TransportId};

use super::publication::{Layer, Publication, MAX_LAYERS, NONE};
use super::receive::Receive;
use super::rtcp::Report;
use super::steps::layer_of;
use super::Router;

/// Counters of one publication, all layers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicationStatistics {
    /// RTP packets accepted, repetitions included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Payload bytes in them.
    pub octets: u64,
    /// Packets that never came (RFC 3550 appendix A.3), retransmissions counted as received.
    pub lost: u64,
    /// NACK packets sent.
    pub nacks_sent: u64,
    /// Key frame requests sent (PLI or FIR).
    pub plis_sent: u64,
    /// Of these, by FIR.
    pub firs_sent: u64,
    /// Interarrival jitter of the layer heard last, RTP clock units.
    pub jitter: u64,
    /// Layers that are live now; if all are silent, those that were before.
    pub layers: u64,
    /// Packets dropped at the closed gate.
    pub gated: u64,
    /// Packets not forwarded because others were louder.
    pub off_stage: u64,
    /// Each layer by itself, lowest first; those that never came are zero.
    pub by_layer: [LayerStatistics; MAX_LAYERS],
}

/// Counters of one layer of a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerStatistics {
    /// RTP packets accepted, repetitions included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Payload bytes in them.
    pub octets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Interarrival jitter, RTP clock units.
    pub jitter: u64,
    /// Measured bits per second; 0 = not yet, or silent.
    pub bps: u64,
    /// Pictures.
    pub frames: u64,
    /// Of these, key frames.
    pub key_frames: u64,
    /// Pauses between pictures that were too long (`frames`).
    pub freezes: u64,
    /// Their sum, microseconds.
    pub frozen_us: u64,
    /// It is live now.
    pub live: bool,
}

/// What a subscriber reported of what it receives (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Packets lost since the beginning.
    pub lost: u64,
    /// Lost since the report before, of 256.
    pub fraction: u8,
    /// RTP clock units.
    pub jitter: u32,
    /// Round trip, microseconds; 0 = unknown.
    pub rtt_us: u64,
}

impl Reception {
    /// A report.
    pub fn learn(&mut self, report: &Report) {
        // A signed number of 24 bits: duplicates may make it negative.
        let lost = if report.lost & 0x0080_0000 == 0 {
            u64::from(report.lost)
        } else {
            0
        };
        (self.lost, self.fraction, self.jitter) = (lost, report.fraction_lost, report.jitter);
    }
}

/// Counters of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatistics {
    /// RTP packets handed to the transport, repetitions not included.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Payload bytes in them.
    pub octets: u64,
    /// NACK packets of the subscriber.
    pub nacks: u64,
    /// Sequence numbers in them.
    pub asked_again: u64,
    /// Key frames the subscriber asked for (PLI or FIR).
    pub plis: u64,
    /// Of these, by FIR.
    pub firs: u64,
    /// Packets repeated.
    pub retransmitted: u64,
    /// Payload bytes in them.
    pub retransmitted_octets: u64,
    /// Layer that is forwarded now, counted from 1; 0 = none.
    pub layer: u64,
    /// Measured bits per second of the layer that is to be forwarded; 0 = none, or unknown.
    pub target_bps: u64,
    /// The link, not the wish, decides: a lower layer, or nothing.
    pub limited: bool,
    /// Our CPU decides.
    pub shed: bool,
    /// What the subscriber reported.
    pub reception: Reception,
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
    /// Numbers it said to have received that were never sent (S11).
    pub feedback_lies: u64,
    /// What its link carries by our estimate (or its own), bits per second; 0 = unknown.
    pub estimate_bps: u64,
    /// How long packets wait on it, microseconds; 0 = none, or unknown.
    pub queue_us: u64,
    /// Longest that a picture's packet waited here for the link in the last second, microseconds.
    pub paced_us: u64,
    /// Packets that waited too long here and were left out, up to the next key frame.
    pub paced_dropped: u64,
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
                        queue_us: entry.pressure.queue_us(),
                        paced_dropped: entry.pressure.pacer.dropped(),
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
                        layers: u64::from(entry.live_sizes().count_ones()),
                        by_layer: by_layer(entry),
                        ..entry.counters
                    };
                    (entry.id, counters)
                })
                .collect(),
            subscriptions: subscriptions
                .filter_map(|(cold, hot)| {
                    let cold = cold.as_ref()?;
                    let sent = u64::from(hot.packets > 0);
                    let source = self.publications.get(hot.source as usize);
                    let target = source
                        .and_then(Option::as_ref)
                        .filter(|_| hot.target_step != NONE);
                    let wished = source
                        .and_then(Option::as_ref)
                        .map_or(NONE, |source| source.wish(cold.max_layer, cold.max_fps));
                    let counters = SubscriptionStatistics {
                        packets: hot.packets,
                        bytes: hot.bytes,
                        octets: hot.octets,
                        nacks: cold.nacks,
                        asked_again: cold.asked_again,
                        plis: cold.plis,
                        firs: cold.firs,
                        retransmitted: cold.retransmitted,
                        retransmitted_octets: cold.retransmitted_octets,
                        layer: if hot.current == NONE {
                            0
                        } else {
                            let size = if hot.video { layer_of(hot.step) } else { 0 };
                            u64::from(size) + 1
                        },
                        target_bps: target.map_or(0, |source| source.measured_bps(hot.target_step)),
                        limited: cold.starved
                            || cold.is_shed
                            || hot.video && wished != NONE && cold.cap.min(cold.allowed) < wished,
                        shed: cold.is_shed || cold.allowed < wished && wished != NONE,
                        reception: cold.reception,
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

fn by_layer(publication: &Publication) -> [LayerStatistics; MAX_LAYERS] {
    let mut all = [LayerStatistics::default(); MAX_LAYERS];
    for (counters, layer) in all.iter_mut().zip(&publication.layers) {
        let receive = layer.receive.as_ref();
        *counters = LayerStatistics {
            packets: layer.packets,
            bytes: layer.counted,
            octets: layer.octets,
            lost: layer.lost_before + receive.map_or(0, Receive::lost),
            jitter: receive.map_or(0, Receive::jitter),
            bps: if layer.live { layer.bps } else { 0 },
            frames: layer.frames.count,
            key_frames: layer.frames.keys,
            freezes: layer.frames.freezes,
            frozen_us: layer.frames.frozen_us,
            live: layer.live,
        };
    }
    all
}
