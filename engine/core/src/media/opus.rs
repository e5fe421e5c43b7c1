//! How loud an Opus packet may be, without decoding it (RFC 6716 sections 3.1, 4.2.3, 4.3).
//!
//! For publishers that send no audio level (RFC 6464), as no Jingle client without header extensions does. SILK
//! and hybrid frames begin with their voice activity flags: the first symbols of the range coder have probability
//! 1/2, so they are the first bits of the frame. CELT frames tell digital silence only.
//! Not here: levels that peers tell (`rtp::Values`), who is the dominant speaker (`sfu/speakers.py`).

/// Voice, and -dBov of speech at a usual distance.
const SPEECH: u8 = 0x80 | 32;
/// -dBov: sound of which nothing more is known; gives way to whoever is heard clearly.
const SOUND: u8 = 44;
/// -dBov
const SILENCE: u8 = 127;

/// The byte of RFC 6464 section 3: voice flag and -dBov. Total: whatever is no Opus packet is silence.
#[must_use]
pub fn level(packet: &[u8]) -> u8 {
    let Some((config, frame)) = first_frame(packet) else {
        return SILENCE;
    };
    match (config, frame) {
        (_, [] | [_]) => SILENCE, // DTX (section 2.1.9)
        (0..=15, [first, ..]) if first >> (8 - flags(config)) != 0 => SPEECH,
        (0..=15, _) | (_, [0xFF, 0xFE..=0xFF, ..]) => SILENCE,
        _ => SOUND,
    }
}

/// Voice activity flags at the head of a SILK or hybrid frame: one per 20 ms (section 4.2.3).
const fn flags(config: u8) -> u32 {
    match config {
        2 | 6 | 10 => 2,
        3 | 7 | 11 => 3,
        _ => 1,
    }
}

/// Configuration and the bytes from the first frame on (section 3.2).
fn first_frame(packet: &[u8]) -> Option<(u8, &[u8])> {
    let (&toc, rest) = packet.split_first()?;
    let frame = match toc & 3 {
        0 | 1 => rest,
        2 => after_length(rest)?,
        _ => {
            let (&count, mut rest) = rest.split_first()?;
            if count & 0x40 != 0 {
                while let Some((255, more)) = rest.split_first() {
                    rest = more; // a padding length of many bytes
                }
                rest = rest.get(1..)?;
            }
            if count & 0x80 != 0 {
                for _ in 1..count & 0x3F {
                    rest = after_length(rest)?;
                }
            }
            rest
        }
    };
    Some((toc >> 3, frame))
}

fn after_length(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(if *bytes.first()? < 252 { 1 } else { 2 }..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn voice_activity_is_the_first_bit_of_a_silk_or_hybrid_frame() {
        assert_eq!(level(&[0x78, 0x80, 0, 0]), SPEECH); // hybrid, 20 ms, one frame
        assert_eq!(level(&[0x78, 0x7F, 0, 0]), SILENCE);
        assert_eq!(level(&[0x48, 0x80, 0, 0]), SPEECH); // SILK wideband, 20 ms
        assert_eq!(level(&[0x58, 0x20, 0, 0]), SPEECH); // 60 ms: the third flag
        assert_eq!(level(&[0x58, 0x1F, 0, 0]), SILENCE);
    }

    #[test]
    fn a_celt_frame_tells_digital_silence_only() {
        assert_eq!(level(&[0xF8, 0x12, 0x34]), SOUND);
        assert_eq!(level(&[0xF8, 0xFF, 0xFE]), SILENCE);
    }

    #[test]
    fn frames_are_found_behind_lengths_and_padding() {
        assert_eq!(level(&[0x7A, 2, 0x80, 0, 1, 1]), SPEECH); // two frames, the first of 2 bytes
        assert_eq!(level(&[0x7B, 0x41, 3, 0x80, 0, 0, 0, 0]), SPEECH); // one frame, 3 bytes of padding
        assert_eq!(level(&[0x7B, 0x82, 2, 0x80, 0, 1]), SPEECH); // two frames of unequal length
    }

    #[test]
    fn nothing_and_pauses_are_silent() {
        assert_eq!(level(&[]), SILENCE);
        assert_eq!(level(&[0x78]), SILENCE);
        assert_eq!(level(&[0x78, 0x80]), SILENCE);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_level(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!([SPEECH, SOUND, SILENCE].contains(&level(&bytes)));
        }
    }
}
