//! Counters of the plane, copied out in one read; the names are those of `sfu/_engine.pyi`.

use crate::ice::State;
use crate::id::{PublicationId, SubscriptionId, TransportId};
use crate::media::{PublicationStatistics, SubscriptionStatistics};

/// Counters of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStatistics {
    /// Datagrams from validated 5-tuples, and requests for its ufrags.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams to the peer.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// SRTP or SRTCP with a wrong tag.
    pub auth_failures: u64,
    /// SRTP or SRTCP seen before or too old.
    pub replays: u64,
    /// Round trip of the active pair; 0 = not measured.
    pub rtt_us: u64,
    /// Round trip by the peer's reports on our streams; 0 = not measured.
    pub report_rtt_us: u64,
    /// What the link to the peer carries, bits per second; 0 = unknown.
    pub estimate_bps: u64,
    /// How long packets wait on it, microseconds.
    pub queue_us: u64,
    /// Longest wait of a picture's packet here, for the link.
    pub paced_us: u64,
    /// Packets that waited too long here.
    pub paced_dropped: u64,
    /// What its events told so far come to.
    pub state: State,
}

/// Datagrams that went nowhere, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Checks for nobody here.
    pub unknown_ufrag: u64,
    /// Not STUN, and not from a validated 5-tuple.
    pub unvalidated: u64,
    /// MESSAGE-INTEGRITY missing or wrong.
    pub bad_integrity: u64,
    /// No protocol of ours.
    pub malformed: u64,
    /// An SSRC that is not that peer's business, or too many of them.
    pub foreign_ssrc: u64,
    /// More than the transport may send.
    pub over_limit: u64,
    /// SRTP before the keys.
    pub no_keys: u64,
    /// DTLS of one more transport from a source that has `HALF_OPEN` unfinished handshakes.
    pub half_open: u64,
}

impl Drops {
    /// Take another plane's in.
    pub fn add(&mut self, other: &Self) {
        self.unknown_ufrag += other.unknown_ufrag;
        self.unvalidated += other.unvalidated;
        self.bad_integrity += other.bad_integrity;
        self.malformed += other.malformed;
        self.foreign_ssrc += other.foreign_ssrc;
        self.over_limit += other.over_limit;
        self.no_keys += other.no_keys;
        self.half_open += other.half_open;
    }
}

/// All counters of a plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Per transport.
    pub transports: Vec<(TransportId, TransportStatistics)>,
    /// Per publication.
    pub publications: Vec<(PublicationId, PublicationStatistics)>,
    /// Per subscription.
    pub subscriptions: Vec<(SubscriptionId, SubscriptionStatistics)>,
    /// Of the whole plane.
    pub drops: Drops,
}

impl Statistics {
    /// Take another plane's in, of the same engine: everything is at home in one of them.
    pub fn add(&mut self, other: &Self) {
        self.transports.extend_from_slice(&other.transports);
        self.publications.extend_from_slice(&other.publications);
        self.subscriptions.extend_from_slice(&other.subscriptions);
        self.drops.add(&other.drops);
    }
}
