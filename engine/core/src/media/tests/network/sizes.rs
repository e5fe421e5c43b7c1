//! How large packets become (N9).

use super::cases::{a_minute_of, links, say, Leg, LAYERS};
use super::*;
use crate::emulator::Loss;

/// The longest tag that SRTP puts behind a packet; SRTCP has 4 bytes of an index more. Links here carry none.
const TAG_BYTES: usize = 16;
/// UDP and IPv4 around a datagram.
const HEADERS_BYTES: usize = 28;
/// What libwebrtc sends at most before SRTP: 1,200, less what RTX would add.
const LIBWEBRTC_BYTES: usize = 1_198;

/// The same screen with all that a packet may carry beyond what it came with.
fn laden(ssrc: u32) -> SendStream {
    let mut stream = screen(ssrc);
    stream.extensions.abs_send_time = 2;
    stream.extensions.playout_delay = PLAYOUT_DELAY;
    stream
}

/// Larger packets vanish and nobody is told. Pictures are as large as their publisher's packets, which libwebrtc makes
/// up to 1,216 bytes with SRTP, and elements of ours; what is sized here stays below 1,200.
#[test]
fn n9_a_path_of_1280_bytes_swallows_nothing() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            mtu: (1_280 - TAG_BYTES - 4) as u64,
            loss: Loss::percent(2), // repairs are larger than what they repair
            ..Shape::clean(20_000)
        };
        let (upstream, viewer) = links(leg, shape);
        let mut publisher = Publisher::new(&LAYERS);
        publisher.packet_bytes = Some(LIBWEBRTC_BYTES);
        let call = Call::with(publisher, upstream, vec![viewer], laden);
        let call = a_minute_of(call, 40);
        let what = say(&format!("{leg:?}"), &call);
        for link in call.links.values() {
            assert_eq!(link.down.fate.too_large, 0, "{what}");
            assert_eq!(link.up.fate.too_large, 0, "{what}");
        }
        assert!(call.viewers[0].video.residual() <= 0.001, "{what}");
        let largest = call.viewers[0].largest;
        assert_eq!(call.publisher.largest, LIBWEBRTC_BYTES);
        // Where it came with mid and rid alone: ours of mid, number, time and playout delay.
        assert!(largest.media <= LIBWEBRTC_BYTES + 12, "{largest:?}");
        assert!(largest.repeat <= largest.media + 2, "{largest:?}");
        assert!(
            largest.repeat + TAG_BYTES + HEADERS_BYTES <= 1_280,
            "{largest:?}"
        );
        // Sized here.
        assert!(
            (1..=1_200 - TAG_BYTES).contains(&largest.padding),
            "{largest:?}"
        );
        assert!(
            (1..=1_200 - TAG_BYTES - 4).contains(&largest.rtcp),
            "{largest:?}"
        );
    }
}
