//! What a packet's frame is to those who do not want all frames: VP8, VP9, frame marking, dependency descriptor.
//!
//! RFC 7741 section 4.2 (VP8), RFC 9628 (VP9), RFC 9626 (frame marking, for H.264 and H.265), AV1 RTP payload
//! format appendix A. Only payload descriptors and header extensions are read, which end-to-end encryption leaves
//! clear. A stream that tells nothing has one step and is never thinned out.
//! Not here: what a subscriber gets (`selection`).

use super::keyframe::Kind;
use super::packet::Meta;
use super::steps::{self, Steps, EVERY};
use super::vp9;

/// A frame, in steps of its publication. Small and `Copy`: it travels with each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Steps it is part of.
    pub present: Steps,
    /// Steps that may begin with it.
    pub switch: Steps,
    /// `switch` holds for who has another size too.
    pub across: bool,
    /// Steps that have everything it refers to.
    pub base: Steps,
    /// Where the mask of active decode targets is in the dependency descriptor, or would be; bits.
    pub mask_at: u16,
    /// Decode targets, 0 = no descriptor that we understand.
    pub targets: u8,
    /// Spatial id.
    pub spatial: u8,
    /// First packet of its frame.
    pub first: bool,
    /// Last packet of its frame.
    pub last: bool,
    /// Carries the structure of a dependency descriptor.
    pub structured: bool,
    /// Whoever has a step has all frames of those below it.
    pub nested: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            present: EVERY,
            switch: 0,
            across: true,
            base: EVERY,
            mask_at: 0,
            targets: 0,
            spatial: 0,
            first: false,
            last: false,
            structured: false,
            nested: true,
        }
    }
}

/// What the frames before showed.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Largest size.
    pub top: u8,
    /// See `Shape::nested`.
    pub nested: bool,
}

/// Ids of a frame as its codec tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Temporal id.
    pub temporal: u8,
    /// Spatial id.
    pub spatial: u8,
    /// Spatial layers, 0 = not told here.
    pub spatials: u8,
}

impl Shape {
    /// The descriptor speaks of one simulcast layer, as if there were no others; `top` is its largest size.
    pub const fn is_of(&mut self, layer: u8, top: u8) {
        self.present = steps::moved(self.present, top, layer);
        self.switch = steps::moved(self.switch, top, layer);
        self.base = steps::moved(self.base, top, layer);
    }

    /// A frame of VP8: `sync` = it refers to frames of temporal id 0 only.
    #[must_use]
    pub fn vp8(layer: u8, temporal: u8, sync: bool, first: bool, key: bool) -> Self {
        let mut shape = Self {
            present: steps::from_temporal(layer, temporal),
            first,
            ..Self::default()
        };
        if key {
            shape.switch = EVERY;
        } else if sync && temporal > 0 {
            // Only one rate up at a time: frames that follow may refer to the one between.
            let rate = temporal.min(2);
            shape.switch = 1 << steps::step(layer, rate);
            shape.base = steps::from_temporal(layer, rate - 1);
        }
        shape
    }

    /// A frame of VP9, behind others.
    #[must_use]
    pub fn vp9(layer: u8, is_single: bool, found: &vp9::Descriptor, known: Known) -> Self {
        let sizes = |size: u8| steps::from_temporal(size, found.temporal);
        let present = if !is_single {
            sizes(layer)
        } else if found.alone {
            sizes(found.spatial)
        } else {
            (found.spatial..4).fold(0, |all, size| all | sizes(size))
        };
        let all_rates = (0..4)
            .map(steps::layer_mask)
            .filter(|size| size & present != 0)
            .fold(0, |all, size| all | size);
        let (switch, base) = if found.opens() {
            (EVERY, EVERY)
        } else if found.up {
            (all_rates, present)
        } else {
            (0, present)
        };
        Self {
            present,
            switch,
            across: found.opens(),
            base,
            spatial: found.spatial,
            first: found.first,
            last: found.last,
            nested: if found.inter && found.spatial < known.top {
                !found.alone
            } else {
                known.nested
            },
            ..Self::default()
        }
    }

    /// A frame marked by RFC 9626, short form (1 byte) or scalable (2 or 3).
    #[must_use]
    pub fn marked(layer: u8, marking: &[u8]) -> (Self, Told) {
        let Some(&flags) = marking.first() else {
            return (Self::default(), Told::default());
        };
        let (first, last) = (flags & 0x80 != 0, flags & 0x40 != 0);
        let (independent, discardable) = (flags & 0x20 != 0, flags & 0x10 != 0);
        let temporal = if marking.len() > 1 {
            flags & 7
        } else {
            u8::from(discardable)
        };
        let mut shape = Self::vp8(layer, temporal, flags & 8 != 0, first, independent);
        shape.last = last;
        if marking.len() == 1 {
            // Nothing refers to what was left out: one may begin anywhere.
            (shape.switch, shape.base) = (steps::layer_mask(layer), EVERY);
        }
        let told = Told {
            temporal,
            ..Told::default()
        };
        (shape, told)
    }
}

/// The shape of a packet without dependency descriptor, and the ids to learn from.
#[must_use]
pub fn told(
    meta: &Meta,
    kind: Kind,
    layer: u8,
    is_single: bool,
    known: Known,
    packet: &[u8],
) -> (Shape, Told) {
    let told = |temporal| Told {
        temporal,
        ..Told::default()
    };
    match kind {
        Kind::Vp8 => {
            let ids = &meta.ids;
            let shape = Shape::vp8(layer, ids.temporal, ids.sync, ids.start, ids.key);
            (shape, told(ids.temporal))
        }
        Kind::Vp9 => {
            let Ok(found) = vp9::Descriptor::parse(meta.payload.of(packet)) else {
                return (Shape::default(), Told::default());
            };
            let told = Told {
                temporal: found.temporal,
                spatial: found.spatial,
                spatials: found.spatials,
            };
            (Shape::vp9(layer, is_single, &found, known), told)
        }
        _ if !meta.values.frame_marking.is_empty() => {
            Shape::marked(layer, meta.values.frame_marking.of(packet))
        }
        _ => (Shape::default(), Told::default()),
    }
}
