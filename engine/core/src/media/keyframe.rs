//! Where a key frame begins, for codecs other than VP8: by payload descriptor, NAL header or dependency descriptor.
//!
//! RFC 6184 (H.264), RFC 7798 (H.265), RFC 9628 (VP9), AV1 RTP payload format v1.0.0 (aggregation header,
//! dependency descriptor). Total: too short is "no".
//! Not here: VP8 (`vp8`), which also rewrites.

/// The codecs we can look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any audio: each packet can be the first.
    Audio,
    /// RFC 2198: audio several times.
    Red,
    /// RFC 7741
    Vp8,
    /// RFC 9628
    Vp9,
    /// RFC 6184
    H264,
    /// RFC 7798
    H265,
    /// AV1 RTP payload format
    Av1,
    /// A video codec unknown to us: forwarded without waiting, for we could not tell what to wait for.
    Opaque,
}

impl Kind {
    /// By encoding name, without case.
    #[must_use]
    pub fn named(name: &str, video: bool) -> Self {
        if !video {
            return if name.eq_ignore_ascii_case("red") {
                Self::Red
            } else {
                Self::Audio
            };
        }
        match name.to_ascii_uppercase().as_str() {
            "VP8" => Self::Vp8,
            "VP9" => Self::Vp9,
            "H264" => Self::H264,
            "H265" | "HEVC" => Self::H265,
            "AV1" => Self::Av1,
            _ => Self::Opaque,
        }
    }

    /// Does this packet open a key frame (or need none)? `dependency` is the AV1 dependency descriptor or empty.
    #[must_use]
    pub fn starts_key_frame(self, payload: &[u8], dependency: &[u8]) -> bool {
        match self {
            Self::Audio | Self::Red | Self::Opaque => true,
            Self::Vp8 => super::vp8::Descriptor::parse(payload).is_ok_and(|found| found.key),
            Self::Vp9 => super::vp9::Descriptor::parse(payload).is_ok_and(|found| found.opens()),
            Self::H264 => h264(payload),
            Self::H265 => h265(payload),
            Self::Av1 => av1(payload, dependency),
        }
    }
}

const IDR: u8 = 5;
const PARAMETERS: u8 = 7;

/// A sequence parameter set or an IDR slice.
fn h264(payload: &[u8]) -> bool {
    holds(payload, &[IDR, PARAMETERS])
}

/// One of these NAL units, alone, in an aggregate (RFC 6184 section 5.7.1), or starting a fragment (section 5.8).
fn holds(payload: &[u8], kinds: &[u8]) -> bool {
    let opens = |nal: u8| kinds.contains(&(nal & 0x1f));
    match payload.first().map(|nal| nal & 0x1f) {
        Some(24) => {
            let mut rest = &payload[1..];
            while let [high, low, nal, ..] = *rest {
                if opens(nal) {
                    return true;
                }
                let next = 2 + usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(next..).unwrap_or_default();
            }
            false
        }
        Some(28 | 29) => payload
            .get(1)
            .is_some_and(|fragment| fragment & 0x80 != 0 && opens(*fragment)),
        Some(nal) => opens(nal),
        None => false,
    }
}

/// A sequence parameter set of H.264, in any packetisation.
#[must_use]
pub fn has_parameters(payload: &[u8]) -> bool {
    holds(payload, &[PARAMETERS])
}

/// Parameter sets or an intra random access picture.
fn h265(payload: &[u8]) -> bool {
    let opens = |kind: u8| matches!(kind, 16..=21 | 32..=34);
    match payload.first().map(|nal| nal >> 1 & 0x3f) {
        Some(48) => payload.get(4).is_some_and(|nal| opens(nal >> 1 & 0x3f)),
        Some(49) => payload
            .get(2)
            .is_some_and(|fragment| fragment & 0x80 != 0 && opens(fragment & 0x3f)),
        Some(kind) => opens(kind),
        None => false,
    }
}

/// A new coded video sequence (bit N), or a frame start that carries a template structure.
fn av1(payload: &[u8], dependency: &[u8]) -> bool {
    if let [flags, _, _, rest @ ..] = dependency {
        return flags & 0x80 != 0 && rest.first().is_some_and(|extended| extended & 0x80 != 0);
    }
    payload
        .first()
        .is_some_and(|aggregation| aggregation & 0x88 == 0x08)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_frames_are_told_from_others() {
        let yes = |kind: Kind, payload: &[u8], dependency: &[u8]| {
            assert!(
                kind.starts_key_frame(payload, dependency),
                "{kind:?} {payload:?}"
            );
        };
        let no = |kind: Kind, payload: &[u8], dependency: &[u8]| {
            assert!(
                !kind.starts_key_frame(payload, dependency),
                "{kind:?} {payload:?}"
            );
        };
        yes(Kind::Vp9, &[0x88, 1, 0], &[]);
        yes(Kind::Vp9, &[0xa8, 0x81, 2, 0x00, 0, 1], &[]);
        no(Kind::Vp9, &[0xa8, 0x81, 2, 0x02, 0, 1], &[]);
        no(Kind::Vp9, &[0xc8, 1, 0], &[]);
        no(Kind::Vp9, &[0x80, 1, 0], &[]);
        yes(Kind::H264, &[0x67, 0], &[]);
        yes(Kind::H264, &[24, 0, 2, 0x67, 0, 0, 1, 0x68], &[]);
        yes(Kind::H264, &[28, 0x85], &[]);
        no(Kind::H264, &[28, 0x05], &[]);
        no(Kind::H264, &[0x41, 0], &[]);
        yes(Kind::H265, &[0x40, 1, 0], &[]);
        no(Kind::H265, &[0x02, 1, 0], &[]);
        yes(Kind::Av1, &[0x08], &[]);
        no(Kind::Av1, &[0x10], &[]);
        yes(Kind::Av1, &[0x10], &[0x80, 0, 1, 0x80]);
        no(Kind::Av1, &[0x08], &[0xc0, 0, 1]);
    }

    proptest! {
        #[test]
        fn detection_is_total(payload in proptest::collection::vec(any::<u8>(), 0..64),
                              dependency in proptest::collection::vec(any::<u8>(), 0..8)) {
            for kind in [Kind::Vp8, Kind::Vp9, Kind::H264, Kind::H265, Kind::Av1] {
                let _ = kind.starts_key_frame(&payload, &dependency);
            }
        }
    }
}
