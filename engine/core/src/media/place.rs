//! Where a packet stands among its pictures, and with that: which missing numbers carried nothing.
//!
//! A sender without RTX pads on the media stream itself, behind the end of a picture (native LiveKit clients offer VP8
//! alone, and libwebrtc probes and fills up its pace that way, up to half of the lowest layer's packets). It never
//! repeats padding, so asking for a lost one is in vain, and a hole for it would make every subscriber ask too.
//! Picture ids (RFC 7741 section 4.2) or frame numbers (AV1 RTP payload format appendix A.8.1) that go on without
//! a gap prove that nothing else was sent in between; so does padding with the timestamp of a picture that is whole.
//! Not here: what becomes of the numbers (`receive`).

use super::packet::Meta;

/// VP8 picture ids have one of two lengths.
const WIDE: u16 = 0x7fff;
const NARROW: u16 = 0x7f;

/// The newest packet of a layer, or one that may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    timestamp: u32,
    /// No payload.
    is_empty: bool,
    /// First packet of its picture.
    begins: bool,
    /// The picture has no packets behind it.
    ended: bool,
    /// Of the picture, and the bits that it has.
    number: Option<(u16, u16)>,
}

impl Place {
    /// Read a packet.
    #[must_use]
    pub fn of(meta: &Meta, packet: &[u8]) -> Self {
        let (begins, number) = match (meta.values.dependency.of(packet).first(), meta.frame) {
            (Some(flags), Some(frame)) => (flags & 0x80 != 0, Some((frame, u16::MAX))),
            _ => {
                let bits = if meta.ids.picture_wide { WIDE } else { NARROW };
                let number = meta.ids.counted.then_some((meta.ids.picture, bits));
                (meta.ids.start, number)
            }
        };
        Self {
            timestamp: meta.timestamp,
            is_empty: meta.payload.is_empty(),
            begins,
            ended: meta.marker && !meta.payload.is_empty(),
            number,
        }
    }

    /// Nothing but padding was sent between this packet and a later one.
    #[must_use]
    pub fn adjoins(&self, next: &Self) -> bool {
        let goes_on = match (self.number, next.number) {
            (Some((own, _)), Some((other, bits))) => own.wrapping_add(1) & bits == other,
            _ => false,
        };
        self.ended
            && if next.is_empty {
                next.timestamp == self.timestamp
            } else {
                next.begins && goes_on
            }
    }

    /// A newer packet came.
    pub fn follow(&mut self, next: Self) {
        // Padding says nothing new of the picture that it lies behind.
        if !next.is_empty || next.timestamp != self.timestamp {
            *self = next;
        }
    }

    /// An older packet came.
    pub fn mend(&mut self, late: &Self) {
        self.ended |= late.ended && late.timestamp == self.timestamp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Place = Place {
        timestamp: 3_000,
        is_empty: false,
        begins: false,
        ended: true,
        number: Some((0x7fff, WIDE)),
    };
    const NEXT: Place = Place {
        timestamp: 6_000,
        is_empty: false,
        begins: true,
        ended: false,
        number: Some((0, WIDE)),
    };
    const PADDING: Place = Place {
        timestamp: 3_000,
        is_empty: true,
        begins: false,
        ended: false,
        number: None,
    };

    #[test]
    fn only_padding_lies_between_the_end_of_a_picture_and_the_next() {
        assert!(END.adjoins(&NEXT));
        assert!(END.adjoins(&PADDING));
        let mut newest = END;
        newest.follow(PADDING);
        assert!(newest.adjoins(&NEXT));
    }

    #[test]
    fn a_picture_may_lie_in_any_other_hole() {
        let unended = Place {
            ended: false,
            ..END
        };
        let unnumbered = Place {
            number: None,
            ..NEXT
        };
        let later = Place {
            number: Some((1, WIDE)),
            ..NEXT
        };
        let inside = Place {
            begins: false,
            ..NEXT
        };
        for next in [unnumbered, later, inside] {
            assert!(!END.adjoins(&next), "{next:?}");
        }
        assert!(!unended.adjoins(&NEXT));
        assert!(!unended.adjoins(&PADDING));
        let mut newest = END;
        newest.follow(Place {
            timestamp: 6_000,
            ..PADDING
        });
        assert!(!newest.adjoins(&NEXT));
    }

    #[test]
    fn the_end_of_a_picture_may_come_late() {
        let mut newest = Place {
            ended: false,
            ..END
        };
        newest.follow(PADDING);
        newest.mend(&END);
        assert!(newest.adjoins(&NEXT));
    }
}
