//! Every length and shape; what is written is read back.

use super::*;
use proptest::prelude::*;

/// Walk everything a compound holds, as the router does.
fn walk(compound: &[u8]) -> Result<usize, Error> {
    let mut values = 0;
    for packet in Compound::new(compound) {
        values += match packet? {
            Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                reports.count()
            }
            Packet::Goodbye { sources } | Packet::Remb { sources, .. } => sources.count(),
            Packet::Nack { lost, .. } => lost.count(),
            Packet::Fir { media } => media.count(),
            Packet::TransportCc(feedback) => feedback.arrivals().count(),
            _ => 1,
        };
    }
    Ok(values)
}

fn one(write: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut builder = Builder::default();
    write(&mut builder);
    builder.bytes().to_vec()
}

#[test]
fn every_length_from_0_to_64_of_every_shape() {
    for kind in 190..=212u8 {
        for count in 0..=31u8 {
            for len in 0..=64usize {
                for fill in [0u8, 0x55, 0xff] {
                    let mut packet = vec![fill; len];
                    for (place, value) in packet.iter_mut().zip([0x80 | count, kind, 0]) {
                        *place = value;
                    }
                    if let Some(words) = packet.get_mut(3) {
                        let claim = (len / 4 - 1) as u8;
                        *words = claim;
                    }
                    let _ = walk(&packet);
                    if len % 4 != 0 {
                        assert!(walk(&packet).is_err(), "{kind} {count} {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn four_bytes_of_a_report_are_malformed() {
    for kind in [
        SENDER_REPORT,
        RECEIVER_REPORT,
        TRANSPORT_FEEDBACK,
        PAYLOAD_FEEDBACK,
    ] {
        assert!(walk(&[0x81, kind, 0, 0]).is_err(), "{kind}");
    }
}

#[test]
fn a_remb_count_beyond_the_packet_is_malformed() {
    let mut packet = one(|b| b.remb(1, 1_000_000, &[7]));
    packet[16] = 2;
    assert!(walk(&packet).is_err());
}

#[test]
fn padding_must_fit() {
    let mut packet = one(|b| b.pli(1, 2));
    packet[0] |= 0x20;
    packet.extend([0, 0, 0, 4]);
    packet[3] += 1;
    assert_eq!(walk(&packet), Ok(1));
    for wrong in [0, 20] {
        *packet.last_mut().expect("padded") = wrong;
        assert!(walk(&packet).is_err(), "{wrong}");
    }
}

/// As libwebrtc sends it: three packets, and three bytes so that it ends on a word.
#[test]
fn feedback_is_read_although_its_padding_is_no_multiple_of_four() {
    let bytes = [
        0xaf, 0xcd, 0, 6, 0xfa, 0x17, 0xfa, 0x17, 0x44, 0xb4, 0x7c, 0x17, 4, 0xdc, 0, 3, 3, 0x8e,
        0x6c, 0xce, 0x20, 3, 0x55, 0x51, 0x50, 0, 0, 3,
    ];
    let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(&bytes).next() else {
        panic!("not read");
    };
    assert_eq!((feedback.base, feedback.received), (1_244, 3));
    let arrivals: Vec<_> = feedback.arrivals().collect();
    assert_eq!(arrivals, [(1_244, 0x55), (1_245, 0xa6), (1_246, 0xf6)]);
}

proptest! {
    #[test]
    fn parsing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = walk(&bytes);
    }

    #[test]
    fn parsing_is_total_behind_a_good_header(
        kind in 199u8..208, count in 0u8..32,
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let packet = one(|b| b.packet(count, kind, |out| out.extend(&body)));
        let _ = walk(&packet);
    }

    #[test]
    fn reports_round_trip(ssrc: u32, ntp: u64, timestamp: u32, lost in 0u32..0x100_0000,
                          words: [u32; 5], fraction: u8) {
        let block = Report { ssrc: words[0], fraction_lost: fraction, lost, highest: words[1],
                             jitter: words[2], last_sr: words[3], delay: words[4] };
        let compound = one(|b| {
            b.sender_report(ssrc, ntp, timestamp, 1, 2);
            b.receiver_report(ssrc, &[block, block]);
            b.cname(ssrc, "name");
            b.goodbye(ssrc);
        });
        let packets: Vec<_> = Compound::new(&compound).map(|p| p.expect("own packet")).collect();
        let Packet::SenderReport { ssrc: s, ntp: n, timestamp: t, .. } = packets[0] else { panic!("SR") };
        prop_assert_eq!((s, n, t), (ssrc, ntp, timestamp));
        let Packet::ReceiverReport { reports, .. } = &packets[1] else { panic!("RR") };
        prop_assert_eq!(reports.clone().collect::<Vec<_>>(), vec![block, block]);
        let Packet::Goodbye { sources } = &packets[3] else { panic!("BYE") };
        prop_assert_eq!(sources.clone().collect::<Vec<_>>(), vec![ssrc]);
    }

    #[test]
    fn nacks_round_trip(start: u16, steps in proptest::collection::vec(1u16..40, 1..60)) {
        let mut lost = vec![start];
        for step in steps { lost.push(lost[lost.len() - 1].wrapping_add(step)); }
        let packet = one(|b| b.nack(1, 2, &lost));
        let Some(Ok(Packet::Nack { media: 2, lost: read })) = Compound::new(&packet).next() else {
            panic!("NACK")
        };
        prop_assert_eq!(read.collect::<Vec<_>>(), lost);
    }

    #[test]
    fn remb_round_trips_to_18_bits(bits: u64, sources in proptest::collection::vec(any::<u32>(), 0..9)) {
        let packet = one(|b| b.remb(1, bits, &sources));
        let Some(Ok(Packet::Remb { bits_per_s, sources: read })) = Compound::new(&packet).next() else {
            panic!("REMB")
        };
        prop_assert!(bits_per_s <= bits && bits - bits_per_s <= bits >> 17);
        prop_assert_eq!(read.collect::<Vec<_>>(), sources);
    }
}
