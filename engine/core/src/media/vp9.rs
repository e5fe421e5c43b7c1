//! The VP9 payload descriptor (RFC 9628 section 4.2): picture id, layers, and how many there are.
//!
//! It lies outside end-to-end encryption.
//! Not here: what follows for a subscriber (`shapes`).

use super::vp8::Descriptor as Ids;
use super::Error;

/// One descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Where picture id and TL0PICIDX lie; both are written as VP8 does.
    pub ids: Ids,
    /// P: refers to earlier pictures.
    pub inter: bool,
    /// B: first packet of a frame.
    pub first: bool,
    /// E: last packet of a frame.
    pub last: bool,
    /// Z: nothing of the same picture refers to it.
    pub alone: bool,
    /// L: the layer is told.
    pub layered: bool,
    /// Temporal id.
    pub temporal: u8,
    /// U: who decodes it may go on with more temporal layers.
    pub up: bool,
    /// Spatial id.
    pub spatial: u8,
    /// D: refers to the layer below.
    pub upon: bool,
    /// Spatial layers by the scalability structure, 0 = none here.
    pub spatials: u8,
}

impl Descriptor {
    /// Read a payload.
    ///
    /// # Errors
    /// `Malformed` if the descriptor is cut off or no payload follows.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        const CUT: Error = Error::Malformed("VP9 descriptor");
        let byte = |at: usize| payload.get(at).copied().ok_or(CUT);
        let flags = byte(0)?;
        let flexible = flags & 0x10 != 0;
        let mut found = Self {
            inter: flags & 0x40 != 0,
            layered: flags & 0x20 != 0,
            first: flags & 0x08 != 0,
            last: flags & 0x04 != 0,
            alone: flags & 0x01 != 0,
            ..Self::default()
        };
        found.ids.start = found.first;
        let mut at = 1;
        if flags & 0x80 != 0 {
            let high = byte(at)?;
            found.ids.picture_at = at as u8;
            found.ids.picture_wide = high & 0x80 != 0;
            found.ids.picture = u16::from(high & 0x7f);
            if found.ids.picture_wide {
                found.ids.picture = found.ids.picture << 8 | u16::from(byte(at + 1)?);
                at += 1;
            }
            at += 1;
        }
        if found.layered {
            let layer = byte(at)?;
            at += 1;
            found.temporal = layer >> 5;
            found.up = layer & 0x10 != 0;
            found.spatial = layer >> 1 & 7;
            found.upon = layer & 1 != 0;
            if !flexible {
                found.ids.tl0 = byte(at)?;
                found.ids.tl0_at = at as u8;
                at += 1;
            }
        }
        if flexible && found.inter {
            for index in 0.. {
                let more = byte(at)? & 1 != 0;
                at += 1;
                if !more {
                    break;
                }
                if index == 2 {
                    return Err(Error::Malformed(
                        "VP9 descriptor: more than three references",
                    ));
                }
            }
        }
        if flags & 0x02 != 0 {
            let structure = byte(at)?;
            at += 1;
            found.spatials = 1 + (structure >> 5);
            if structure & 0x10 != 0 {
                at += 4 * usize::from(found.spatials);
            }
            if structure & 0x08 != 0 {
                let pictures = byte(at)?;
                at += 1;
                for _ in 0..pictures {
                    at += 1 + usize::from(byte(at)? >> 2 & 3);
                }
            }
        }
        byte(at)?;
        Ok(found)
    }

    /// First packet of a picture that needs none before it.
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.first && !self.inter && (!self.layered || self.spatial == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_picture_of_three_sizes_as_chromium_writes_it() {
        // I, L, B, V; 15-bit picture id; T0 S0 U; TL0PICIDX; N_S = 2 with sizes, no group.
        let mut payload = vec![0xaa, 0x92, 0x34, 0x10, 7, 0x50];
        payload.extend([0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104]);
        payload.push(0x82);
        let found = Descriptor::parse(&payload).expect("whole");
        assert!(found.opens() && found.up && !found.inter && !found.alone);
        assert_eq!((found.ids.picture, found.ids.tl0), (0x1234, 7));
        assert_eq!((found.spatial, found.temporal, found.spatials), (0, 0, 3));
        for cut in 0..payload.len() {
            assert!(Descriptor::parse(&payload[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_flexible_picture_names_at_most_three_others() {
        let payload = [0xfc, 0x12, 0x24, 0x03, 0x05, 0x08, 0xaa];
        let found = Descriptor::parse(&payload).expect("three references");
        assert_eq!((found.spatial, found.temporal, found.ids.tl0_at), (2, 1, 0));
        assert!(Descriptor::parse(&[0xfc, 0x12, 0x24, 3, 3, 3, 2, 0]).is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_a_rewrite_touches_nothing_else(
            payload in proptest::collection::vec(any::<u8>(), 0..60), picture: u16, tl0: u8,
        ) {
            if let Ok(found) = Descriptor::parse(&payload) {
                let mut copy = payload.clone();
                found.ids.rewrite(&mut copy, picture, tl0);
                let again = Descriptor::parse(&copy).expect("same shape");
                let plain = |mut one: Descriptor| {
                    (one.ids.picture, one.ids.tl0) = (0, 0);
                    one
                };
                prop_assert_eq!(plain(again), plain(found));
                again.ids.rewrite(&mut copy, picture.wrapping_neg(), tl0.wrapping_neg());
                prop_assert_eq!(copy, payload);
            }
        }
    }
}
