//! Peers that lie (S6, S8): nothing they send touches others, and nothing panics.

use super::*;
use proptest::prelude::*;

#[test]
fn another_peers_ssrc_is_another_stream() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, CAROL, screen(77), 1);
    story.publish(2, BOB, camera()); // with Alice's SSRCs
    let mut alice = Source::new(1_000, 96, 100);
    let mut bob = Source::new(1_000, 96, 40_000);
    bob.mid = "0";
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    story.pass(1_000);
    story.plis(ALICE);
    story.record.events.clear();
    for _ in 0..30 {
        story.rtp(BOB, &bob.frame(true, 1).remove(0));
        story.rtcp(BOB, |b| {
            b.pli(1, 77); // sent to Carol, not to Bob
            b.fir(1, 77, 1);
            b.nack(1, 77, &[1, 2, 3]);
            b.pli(1, 1_000);
            b.nack(1, 1_000, &[100]);
            b.sender_report(1_000, u64::MAX, 5, 6, 7);
        });
        story.rtp(ALICE, &alice.frame(false, 1).remove(0));
        story.pass(33);
    }
    assert!(story.plis(ALICE).is_empty());
    assert!(story.nacked(ALICE).is_empty());
    assert!(story.seen(BOB).is_empty());
    let seen = story.seen(CAROL);
    assert_eq!(seen.len(), 31);
    assert_continuous(&seen);
    assert_pictures(&seen);
    assert_eq!(story.subscription(1).nacks + story.subscription(1).plis, 0);
    assert_eq!(story.router.statistics().foreign_ssrc, 150);
    story.rtcp(BOB, |b| b.goodbye(1_000));
    assert_eq!(
        story.record.events.last(),
        Some(&Event::Bye(PublicationId(2)))
    );
    assert!(!story.record.events.contains(&Event::Bye(PublicationId(1))));
    story.rtcp(CAROL, |b| b.goodbye(1_000));
    assert_eq!(story.router.statistics().foreign_ssrc, 151);
}

#[test]
fn a_forged_mid_reaches_only_the_forgers_own_sections() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, CAROL, screen(77), 1);
    let mut bob = Source::new(6_000, 96, 1);
    (bob.mid, bob.rid) = ("0", "f");
    story.rtp(BOB, &bob.frame(true, 1).remove(0));
    assert!(story.seen(CAROL).is_empty());
    assert_eq!(story.publication(1).packets, 0);
}

#[test]
fn feedback_about_numbers_never_written_is_refused() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 1);
    for _ in 0..10 {
        let packet = alice.sound();
        story.rtp(ALICE, &packet);
    }
    let tell = |story: &mut Story, base: u16, count: u16| {
        story.rtcp(BOB, |b| {
            b.transport_cc(1, 55, |out| {
                out.extend(base.to_be_bytes());
                out.extend(count.to_be_bytes());
                out.extend([0, 0, 1, 0]);
                out.extend((0x2000 | count).to_be_bytes());
                out.extend(std::iter::repeat_n(4u8, usize::from(count)));
            });
        });
        let all = story.router.statistics();
        let bob = all
            .transports
            .iter()
            .find(|(id, _)| *id == BOB)
            .expect("Bob")
            .1;
        (bob.feedback_received, all.foreign_ssrc)
    };
    assert_eq!(tell(&mut story, 1, 10), (10, 0));
    assert_eq!(tell(&mut story, 5, 10), (10, 1));
    assert_eq!(tell(&mut story, 30_000, 1), (10, 2));
}

#[test]
fn a_publisher_that_starts_over_never_makes_us_use_a_number_twice() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 40_000);
    for (sequence, padded) in [
        (40_000, false),
        (10_000, true),
        (10_001, true),
        (60_000, false),
    ] {
        alice.sequence = sequence;
        for index in 0..20 {
            let packet = if padded && index < 3 {
                alice.packet(false, &[])
            } else {
                alice.sound()
            };
            story.rtp(ALICE, &packet);
        }
    }
    let seen = story.seen(BOB);
    assert!(seen.len() > 50, "{}", seen.len());
    assert_continuous(&seen);
}

#[test]
fn a_peer_that_publishes_and_receives_much_gets_reports_of_bearable_size() {
    let mut story = Story::new();
    for id in 0..40u32 {
        let mut stream = microphone();
        stream.ssrcs = vec![(5_000 + id, 0)];
        story.publish(u64::from(id), ALICE, stream);
        story.subscribe(u64::from(id), ALICE, speaker(100 + id), u64::from(id));
    }
    for round in 0..100 {
        for id in 0..40 {
            let packet = Source::new(5_000 + id, 111, round).sound();
            story.rtp(ALICE, &packet);
        }
        story.pass(20); // the record checks every compound
    }
    let blocks = |compound: &[u8]| -> usize {
        let reports = Compound::new(compound).filter_map(|packet| match packet {
            Ok(Packet::ReceiverReport { reports, .. }) => Some(reports.count()),
            _ => None,
        });
        reports.sum()
    };
    let compounds = story.record.rtcp.iter().map(|(_, _, bytes)| bytes);
    let told: usize = compounds.map(|bytes| blocks(bytes)).sum();
    assert!(told >= 40, "{told}");
}

#[test]
fn nonsense_from_the_caller_is_refused() {
    let mut story = Story::new();
    let mut no_codec = camera();
    no_codec.codecs.clear();
    let mut many = camera();
    many.rids = vec!["x".into(); 5];
    for stream in [no_codec, many] {
        let refused = story.router.publish(PublicationId(1), ALICE, GROUP, stream);
        assert!(matches!(refused, Err(crate::media::Error::Invalid(_))));
    }
    let nobody = TransportId(99);
    assert_eq!(
        story
            .router
            .publish(PublicationId(1), nobody, GROUP, camera()),
        Err(crate::media::Error::UnknownTransport)
    );
    story.publish(1, ALICE, camera());
    assert_eq!(
        story
            .router
            .publish(PublicationId(1), ALICE, GROUP, camera()),
        Err(crate::media::Error::DuplicateHandle)
    );
    story.subscribe(1, BOB, screen(77), 1);
    assert!(
        story
            .router
            .subscribe(SubscriptionId(2), BOB, screen(76))
            .is_err(),
        "77 is taken"
    );
    assert!(story
        .router
        .subscribe(SubscriptionId(2), BOB, screen(79))
        .is_ok());
}

/// A story in which everything is negotiated.
fn busy() -> Story {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.publish(2, ALICE, microphone());
    let mut screen_share = camera();
    screen_share.mid = "2".into();
    screen_share.codecs = ["VP8", "VP9", "H264", "AV1", "H265"]
        .iter()
        .zip([102u8, 104, 106, 108, 112])
        .map(|(name, payload_type)| Codec {
            name: (*name).into(),
            ..vp8(payload_type, Some(payload_type + 1))
        })
        .collect();
    screen_share.extensions.dependency_descriptor = 12;
    screen_share.extensions.abs_capture_time = 8;
    screen_share.extensions.playout_delay = 9;
    let mut sink = screen(88);
    sink.codecs.clone_from(&screen_share.codecs);
    sink.extensions = Extensions {
        dependency_descriptor: 10,
        abs_capture_time: 11,
        playout_delay: 12,
        abs_send_time: 13,
        ..BOB_EXTENSIONS
    };
    screen_share.ssrcs = vec![(3_000, 3_001)];
    story.publish(3, ALICE, screen_share);
    story.subscribe(1, BOB, screen(77), 1);
    story.subscribe(2, BOB, speaker(55), 2);
    story.subscribe(3, BOB, sink, 3);
    story
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any bytes behind a plausible header, any RTCP, any order of commands: no panic, the record's own
    /// checks hold (everything written parses, slots are used one at a time, timers advance).
    #[test]
    fn the_router_survives_anything(
        steps in proptest::collection::vec(
            (0u8..12, proptest::collection::vec(any::<u8>(), 0..90), any::<u16>(), 0usize..8), 1..120),
    ) {
        let mut story = busy();
        let types = [96u8, 97, 111, 102, 104, 106, 108, 103];
        let ssrcs = [501u32, 502, 2_000, 3_000, 3_001, 1_000, 503, 9];
        for (kind, bytes, number, pick) in steps {
            match kind {
                0..=4 => {
                    let mut packet = vec![0x90, types[pick], 0, 0, 0, 0, 0, 0];
                    packet[2..4].copy_from_slice(&(number & 0x0fff).to_be_bytes());
                    packet[4..6].copy_from_slice(&number.to_be_bytes());
                    packet.extend(ssrcs[usize::from(number) % 8].to_be_bytes());
                    packet.extend([0xbe, 0xde, 0, 3, 0x40, b'0', 0xa0, b"qhf"[pick % 3]]);
                    packet.extend([0x82, 1, 2, 3, 0xc2, 0x80, 0, 1]);
                    packet.extend(&bytes);
                    story.rtp(ALICE, &packet);
                }
                5 => story.rtp(ALICE, &bytes),
                6 => {
                    story.record.now = Some(story.now);
                    story.router.rtcp(BOB, &bytes, story.now, &mut story.record);
                }
                7 => {
                    let media = [77u32, 78, 55, 88, 89, 1, 2, 3][pick];
                    story.rtcp(BOB, |b| {
                        b.nack(1, media, &[number, number.wrapping_add(3)]);
                        b.pli(1, media);
                        b.sender_report(ssrcs[pick], u64::from(number) << 40, u32::from(number), 1, 1);
                    });
                }
                8 => story.rtcp(ALICE, |b| {
                    b.sender_report(ssrcs[pick], u64::from(number) << 48 | 5, u32::from(number) << 16, 1, 1);
                    b.goodbye(ssrcs[pick]);
                }),
                9 => story.pass(u64::from(number % 700)),
                10 => match pick {
                    0 => story.source(1, None),
                    1 => story.source(1, Some(1)),
                    2 => story.layer(1, (number % 5) as u8, number % 7 == 0),
                    3 => story.router.set_gate(PublicationId(1), number % 2 == 0),
                    4 => story.source(1, Some(3)),
                    5 => story.router.update_publication(PublicationId(1), camera()),
                    6 => story.router.update_publication(PublicationId(1), simulcast()),
                    _ => story.record.closed = if number % 2 == 0 { vec![BOB] } else { vec![] },
                },
                _ => match pick {
                    0 => story.router.unpublish(PublicationId(1), story.now, &mut story.record),
                    1 => {
                        let _ = story.router.publish(PublicationId(1), ALICE, GROUP, simulcast());
                    }
                    2 => {
                        story.record.now = Some(story.now);
                        story.router.unsubscribe(SubscriptionId(3), story.now, &mut story.record);
                    }
                    _ => story.source(3, Some(u64::from(number % 4))),
                },
            }
        }
        let _ = story.router.statistics();
    }

    /// Loss, reordering and duplicates: each number goes out once, in the publisher's order.
    #[test]
    fn numbers_are_never_used_twice(
        packets in proptest::collection::vec((0u8..10, 0usize..5, any::<bool>()), 20..200), start: u16,
    ) {
        let mut story = Story::new();
        story.publish(1, ALICE, camera());
        story.subscribe(1, BOB, screen(77), 1);
        let mut alice = Source::new(1_000, 96, start);
        let mut waiting: Vec<(usize, Vec<u8>)> = Vec::new();
        story.rtp(ALICE, &alice.frame(true, 1).remove(0));
        for (index, (fate, delay, padding)) in packets.iter().enumerate() {
            let packet = if *padding && *fate > 6 { alice.packet(false, &[]) } else { alice.frame(*fate == 5, 1).remove(0) };
            match fate {
                0 => {}
                1 => { waiting.push((index + delay, packet.clone())); waiting.push((index, packet)); }
                _ => waiting.push((index + delay, packet)),
            }
            waiting.retain(|(due, packet)| {
                if *due <= index { story.rtp(ALICE, packet); }
                *due > index
            });
            story.pass(10);
        }
        let seen = story.seen(BOB);
        let mut numbers: Vec<_> = seen.iter().map(|seen| seen.header.sequence).collect();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), seen.len());
        let mut ordered = seen;
        ordered.sort_by_key(|seen| seen.header.sequence);
        let base = ordered[0].header.timestamp;
        prop_assert!(ordered.windows(2).all(|pair|
            pair[1].header.timestamp.wrapping_sub(base) >= pair[0].header.timestamp.wrapping_sub(base)));
    }
}
