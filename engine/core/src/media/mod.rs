//! RTP between transports: what arrives (decrypted, authenticated) becomes what leaves (plaintext, to protect).
//!
//! `Router` owns publications and subscriptions; the caller owns ICE, SRTP and sockets.

use crate::id::{GroupId, PublicationId, SubscriptionId, TransportId};

mod activity;
mod allocation;
mod bits;
mod cache;
mod catchup;
mod clock;
mod congestion;
mod control;
mod cushion;
pub mod dependency;
mod error;
pub mod estimate;
mod fanout;
mod filling;
mod frames;
mod gather;
mod ingress;
pub mod keyframe;
mod ladder;
mod layers;
mod learning;
mod levels;
mod loudest;
mod mirror;
mod opus;
mod pacer;
mod packet;
mod padding;
mod place;
mod pressure;
mod probe;
mod publication;
mod pulse;
mod receive;
pub mod redundancy;
mod reports;
mod router;
pub mod rtcp;
pub mod rtp;
mod selection;
pub mod shapes;
mod shed;
mod skips;
mod statistics;
pub mod steps;
mod subscription;
pub mod twcc;
pub mod vp8;
pub mod vp9;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use levels::Heard;
pub use mirror::{Notice, Relayed};
pub use router::Router;
pub use statistics::{
    LayerStatistics, PublicationStatistics, Statistics, SubscriptionStatistics, TransportStatistics,
};

/// Largest plaintext packet ever written, so that SRTP trailers still fit below 1,500 bytes.
pub const MAX_PACKET_BYTES: usize = 1_460;

/// A negotiated payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// 0..=127
    pub payload_type: u8,
    /// As signalled; compared without case.
    pub name: String,
    /// Hz
    pub clock_rate: u32,
    /// 1 or 2
    pub channels: u8,
    /// RFC 4588 payload type that repeats this one.
    pub rtx: Option<u8>,
    /// Generic NACK negotiated.
    pub nack: bool,
    /// PLI negotiated.
    pub pli: bool,
    /// FIR negotiated.
    pub fir: bool,
    /// REMB negotiated.
    pub remb: bool,
    /// transport-wide-cc feedback negotiated.
    pub transport_cc: bool,
}

/// Negotiated header extension ids; 0 = not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// urn:ietf:params:rtp-hdrext:sdes:mid
    pub mid: u8,
    /// urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
    pub rid: u8,
    /// urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
    pub repaired_rid: u8,
    /// urn:ietf:params:rtp-hdrext:ssrc-audio-level (RFC 6464)
    pub audio_level: u8,
    /// transport-wide congestion control sequence number
    pub transport_cc: u8,
    /// abs-send-time
    pub abs_send_time: u8,
    /// urn:3gpp:video-orientation
    pub video_orientation: u8,
    /// abs-capture-time
    pub abs_capture_time: u8,
    /// playout-delay
    pub playout_delay: u8,
    /// AV1 dependency descriptor
    pub dependency_descriptor: u8,
    /// urn:ietf:params:rtp-hdrext:framemarking (RFC 9626)
    pub frame_marking: u8,
}

/// How packets of one section find their publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveStream {
    /// Media id, up to 16 bytes.
    pub mid: String,
    /// Video (key frames, layers) or audio (levels).
    pub video: bool,
    /// Accepted payload types.
    pub codecs: Vec<Codec>,
    /// Header extensions of the section.
    pub extensions: Extensions,
    /// Simulcast rids, lowest first; empty = one stream.
    pub rids: Vec<String>,
    /// Signalled (ssrc, rtx ssrc or 0), in layer order; may be empty.
    pub ssrcs: Vec<(u32, u32)>,
    /// Frames are encrypted end to end: payloads say nothing beyond what every frame encryption leaves clear.
    pub encrypted: bool,
}

/// How an outgoing stream looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendStream {
    /// Media id, up to 16 bytes.
    pub mid: String,
    /// Video or audio.
    pub video: bool,
    /// What the subscriber can decode, with its payload types.
    pub codecs: Vec<Codec>,
    /// The subscriber's ids.
    pub extensions: Extensions,
    /// Ours, chosen by the caller.
    pub ssrc: u32,
    /// 0 = no RTX stream.
    pub rtx_ssrc: u32,
    /// For SDES.
    pub cname: String,
}

/// What the router tells the caller besides packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// First packet of a layer: (publication, layer, payload type).
    FirstPacket(PublicationId, u8, u8),
    /// RTCP BYE for an SSRC of the publication.
    Bye(PublicationId),
    /// First key frame after a switch went out.
    Keyframe(SubscriptionId),
    /// Video of a subscription stopped for want of bandwidth.
    Paused(SubscriptionId),
    /// It goes on.
    Resumed(SubscriptionId),
    /// Who was heard since the last report. At most 10/s per group.
    Levels(GroupId, Vec<Heard>),
}

/// Where the router puts packets. The implementation protects in place and batches.
pub trait Sink {
    /// Room for one plaintext RTP packet to this transport (at least `MAX_PACKET_BYTES`), or None when it
    /// cannot send now (no keys, no validated pair). The router writes it and calls `rtp_done`.
    fn rtp(&mut self, to: TransportId) -> Option<&mut [u8]>;
    /// The last slot handed out holds `len` bytes; send it. 0 = drop it.
    fn rtp_done(&mut self, len: usize);
    /// The same for a packet that a subscriber without RTX may ask for again, or has asked for: the same bits
    /// under the same number.
    fn rtp_done_repeatable(&mut self, len: usize) {
        self.rtp_done(len);
    }
    /// A plaintext RTCP compound to this transport.
    fn rtcp(&mut self, to: TransportId, compound: &[u8]);
    /// Something to tell.
    fn event(&mut self, event: Event);
    /// A packet for the subscribers of another shard.
    fn relay(&mut self, to: u8, packet: &Relayed, bytes: &[u8]) {
        let _ = (to, packet, bytes);
    }
    /// Something to tell another shard.
    fn notify(&mut self, to: u8, notice: Notice) {
        let _ = (to, notice);
    }
}
