//! What the router knows of one incoming packet: read once, used for every copy and for repeats from the cache.

use super::keyframe::Kind;
use super::rtp::{Header, Span, Values};
use super::shapes::Shape;
use super::vp8::Descriptor;
use super::vp9;

/// Positions refer to the packet as it arrived (for RTX: the RTX packet, with the payload behind its number).
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// M bit.
    pub marker: bool,
    /// Opens a key frame, or needs none.
    pub key: bool,
    /// Index into the publication's codecs.
    pub codec: u8,
    /// Publisher's.
    pub timestamp: u32,
    /// Payload without padding.
    pub payload: Span,
    /// Header extension values.
    pub values: Values,
    /// Picture id and TL0PICIDX of VP8 and VP9, else empty.
    pub ids: Descriptor,
    /// Frame number of the dependency descriptor.
    pub frame: Option<u16>,
    /// What its frame is to those who do not want all.
    pub shape: Shape,
    /// RED: the newest block, and its codec.
    pub primary: Span,
    /// See `primary`.
    pub primary_codec: u8,
}

impl Meta {
    /// Look into a packet; a payload that its codec's descriptor does not fit is forwarded as it is.
    #[must_use]
    pub fn read(header: &Header, values: Values, codec: u8, kind: Kind, packet: &[u8]) -> Self {
        let payload = header.payload.of(packet);
        let dependency = values.dependency.of(packet);
        let ids = match kind {
            Kind::Vp8 => Descriptor::parse(payload).unwrap_or_default(),
            Kind::Vp9 => vp9::Descriptor::parse(payload).unwrap_or_default().ids,
            _ => Descriptor::default(),
        };
        Self {
            marker: header.marker,
            key: !payload.is_empty()
                && if kind == Kind::Vp8 {
                    ids.key
                } else {
                    kind.starts_key_frame(payload, dependency)
                },
            codec,
            timestamp: header.timestamp,
            payload: header.payload,
            values,
            ids,
            frame: match dependency {
                [_, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            },
            shape: Shape::default(),
            primary: Span::default(),
            primary_codec: 0,
        }
    }
}
