//! The VP8 payload descriptor: where picture id and TL0PICIDX lie, temporal layer, key frame bit (RFC 7741 section 4.2).
//!
//! The descriptor is outside end-to-end encryption; the bit P of the payload header is inside, but every
//! frame encryption in use leaves the first three bytes of a frame clear.
//! Not here: other codecs (`keyframe`).

use super::Error;

/// Positions are offsets from the start of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Offset of the picture id, 0 = none.
    pub picture_at: u8,
    /// 15 bits instead of 7.
    pub picture_wide: bool,
    /// Value of the picture id.
    pub picture: u16,
    /// Offset of TL0PICIDX, 0 = none.
    pub tl0_at: u8,
    /// Value of TL0PICIDX.
    pub tl0: u8,
    /// First packet of a key frame.
    pub key: bool,
    /// First packet of a frame.
    pub start: bool,
    /// Temporal id, 0 if not told.
    pub temporal: u8,
    /// Y: refers to frames of temporal id 0 only.
    pub sync: bool,
    /// A hole in picture ids would be a lost picture: VP8 does not say what refers to what.
    pub counted: bool,
}

impl Descriptor {
    /// Read a payload.
    ///
    /// # Errors
    /// `Malformed` if the descriptor is cut off or no payload follows.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        const CUT: Error = Error::Malformed("VP8 descriptor");
        let first = *payload.first().ok_or(CUT)?;
        let mut at = 1u8;
        let mut found = Self {
            start: first & 0x17 == 0x10, // S and partition 0
            ..Self::default()
        };
        if first & 0x80 != 0 {
            let flags = *payload.get(1).ok_or(CUT)?;
            at = 2;
            if flags & 0x80 != 0 {
                let high = *payload.get(usize::from(at)).ok_or(CUT)?;
                found.picture_at = at;
                found.counted = true;
                if high & 0x80 != 0 {
                    let low = *payload.get(usize::from(at) + 1).ok_or(CUT)?;
                    found.picture_wide = true;
                    found.picture = u16::from_be_bytes([high & 0x7f, low]);
                    at += 2;
                } else {
                    found.picture = u16::from(high);
                    at += 1;
                }
            }
            if flags & 0x40 != 0 {
                found.tl0 = *payload.get(usize::from(at)).ok_or(CUT)?;
                found.tl0_at = at;
                at += 1;
            }
            if flags & 0x30 != 0 {
                let layer = *payload.get(usize::from(at)).ok_or(CUT)?;
                if flags & 0x20 != 0 {
                    found.temporal = layer >> 6;
                    found.sync = layer & 0x20 != 0;
                }
                at += 1;
            }
        }
        let frame = *payload.get(usize::from(at)).ok_or(CUT)?;
        found.key = found.start && frame & 1 == 0;
        Ok(found)
    }

    /// Patch a copy of the payload this was parsed from: both values moved by a constant.
    pub fn rewrite(&self, payload: &mut [u8], picture_delta: u16, tl0_delta: u8) {
        let at = usize::from(self.picture_at);
        if at != 0 {
            let picture = self.picture.wrapping_add(picture_delta);
            if self.picture_wide {
                if let Some(place) = payload.get_mut(at..at + 2) {
                    place.copy_from_slice(&(picture | 0x8000).to_be_bytes());
                }
            } else if let Some(place) = payload.get_mut(at) {
                *place = picture.to_be_bytes()[1] & 0x7f;
            }
        }
        if self.tl0_at != 0 {
            if let Some(place) = payload.get_mut(usize::from(self.tl0_at)) {
                *place = self.tl0.wrapping_add(tl0_delta);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chromium_key_frame_start() {
        let payload = [0x90, 0xe0, 0x92, 0x34, 0x05, 0x20, 0x10, 0x02, 0x00];
        let found = Descriptor::parse(&payload).expect("whole");
        assert_eq!((found.picture, found.tl0, found.key), (0x1234, 5, true));
        let mut copy = payload;
        found.rewrite(&mut copy, 0x7fff, 255);
        let again = Descriptor::parse(&copy).expect("same shape");
        assert_eq!((again.picture, again.tl0, again.key), (0x1233, 4, true));
        assert_eq!(copy[5..], payload[5..]);
    }

    #[test]
    fn only_the_first_packet_of_partition_zero_is_a_key_frame() {
        assert!(Descriptor::parse(&[0x10, 0]).expect("S").key);
        assert!(!Descriptor::parse(&[0x00, 0]).expect("no S").key);
        assert!(!Descriptor::parse(&[0x11, 0]).expect("partition 1").key);
        assert!(!Descriptor::parse(&[0x10, 1]).expect("delta").key);
    }

    #[test]
    fn the_temporal_layer_is_told_if_its_bit_says_so() {
        let found = Descriptor::parse(&[0x90, 0xe0, 0x92, 0x34, 5, 0xa0, 1]).expect("whole");
        assert_eq!((found.temporal, found.sync), (2, true));
        let found = Descriptor::parse(&[0x90, 0xd0, 0x92, 0x34, 5, 0xa0, 1]).expect("K only");
        assert_eq!((found.temporal, found.sync), (0, false));
    }

    #[test]
    fn every_cut_is_malformed() {
        let payload = [0x90, 0xf0, 0x92, 0x34, 0x05, 0x20, 0x10];
        for cut in 0..payload.len() {
            assert!(Descriptor::parse(&payload[..cut]).is_err(), "{cut}");
        }
        assert!(Descriptor::parse(&payload).is_ok());
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_a_rewrite_touches_nothing_else(
            payload in proptest::collection::vec(any::<u8>(), 0..40), picture: u16, tl0: u8,
        ) {
            if let Ok(found) = Descriptor::parse(&payload) {
                let mut copy = payload.clone();
                found.rewrite(&mut copy, picture, tl0);
                let again = Descriptor::parse(&copy).expect("same shape");
                prop_assert_eq!((again.picture_at, again.tl0_at, again.key, again.start),
                                (found.picture_at, found.tl0_at, found.key, found.start));
                let mask = if found.picture_wide { 0x7fff } else { 0x7f };
                if found.picture_at != 0 {
                    prop_assert_eq!(again.picture, found.picture.wrapping_add(picture) & mask);
                }
                found.rewrite(&mut copy, 0, 0);
                prop_assert_eq!(copy, payload);
            }
        }
    }
}
