//! The newest block of a RED packet, for receivers that know the codec inside but not RED (RFC 2198 section 3).
//!
//! Not here: RED for those who have it, which passes as it is.

use super::rtp::Span;

/// Blocks of one packet: senders use two or three.
const MAX_BLOCKS: usize = 16;

/// Payload type and place of the primary block; None if the headers are cut off or promise too much.
#[must_use]
pub fn primary(payload: Span, packet: &[u8]) -> Option<(u8, Span)> {
    let bytes = payload.of(packet);
    let (mut at, mut redundant) = (0, 0);
    for _ in 0..MAX_BLOCKS {
        let head = *bytes.get(at)?;
        if head & 0x80 == 0 {
            let start = at + 1 + redundant;
            let len = bytes.len().checked_sub(start).filter(|len| *len > 0)?;
            let place = Span {
                at: payload.at + start as u16,
                len: len as u16,
            };
            return Some((head, place));
        }
        let [_, _, high, low] = *bytes.get(at..at + 4)? else {
            return None;
        };
        redundant += usize::from(u16::from_be_bytes([high & 3, low]));
        at += 4;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_block_is_the_primary_one() {
        // Two redundant blocks of 2 and 3 bytes, payload type 111.
        let packet = [0xef, 0, 0, 2, 0xef, 0, 0, 3, 111, 1, 1, 2, 2, 2, 9, 9, 9, 9];
        let all = Span { at: 0, len: 18 };
        let (payload_type, place) = primary(all, &packet).expect("whole");
        assert_eq!((payload_type, place.of(&packet)), (111, &[9, 9, 9, 9][..]));
        let (_, alone) = primary(Span { at: 8, len: 2 }, &packet).expect("no redundancy");
        assert_eq!(alone.of(&packet), [1]);
        for len in 0..15 {
            assert!(primary(Span { at: 0, len }, &packet).is_none(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn it_is_total_and_inside(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let all = Span { at: 0, len: bytes.len() as u16 };
            if let Some((_, place)) = primary(all, &bytes) {
                prop_assert!(place.len > 0 && bytes.ends_with(place.of(&bytes)));
            }
        }
    }
}
