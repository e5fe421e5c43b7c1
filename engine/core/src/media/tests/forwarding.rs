//! What a subscriber sees: continuity, mapping, key frames, layers, padding, gate.

use super::*;

#[test]
fn a_copy_speaks_the_subscribers_numbers_and_keeps_the_payload() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 65_534);
    let mut sent = Vec::new();
    for index in 0..4 {
        for packet in alice.frame(index == 0, 2) {
            story.rtp(ALICE, &packet);
            sent.push(packet);
        }
        story.pass(33);
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 8);
    assert_continuous(&seen);
    assert_pictures(&seen);
    for (seen, sent) in seen.iter().zip(&sent) {
        assert_eq!((seen.header.ssrc, seen.header.payload_type), (77, 100));
        assert_eq!(seen.element(1), Some(&b"v7"[..]));
        let before = Header::parse(sent).expect("own");
        assert_eq!(seen.header.marker, before.marker);
        // Behind the descriptor every byte is as it was (E2EE).
        assert_eq!(seen.payload()[5..], before.payload.of(sent)[5..]);
    }
    let numbers: Vec<_> = seen
        .iter()
        .map(|seen| seen.element(5).expect("twcc")[1])
        .collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<u8>>());
    assert!(seen[0].header.sequence < 0x8000, "S7");
    assert!(matches!(
        story.record.events[..],
        [
            Event::FirstPacket(PublicationId(1), 0, 96),
            Event::Keyframe(SubscriptionId(1))
        ]
    ));
}

#[test]
fn video_waits_for_a_key_frame_and_asks_for_one() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    let mut alice = Source::new(1_000, 96, 10);
    for packet in alice.frame(true, 1) {
        story.rtp(ALICE, &packet);
    }
    story.subscribe(1, BOB, screen(77), 1);
    assert_eq!(story.plis(ALICE).len(), 1);
    for packet in alice.frame(false, 3) {
        story.rtp(ALICE, &packet);
    }
    assert!(story.seen(BOB).is_empty());
    for packet in alice.frame(true, 3) {
        story.rtp(ALICE, &packet);
    }
    assert_eq!(story.seen(BOB).len(), 3);
    // Lost request: asked again while somebody waits.
    story.subscribe(2, CAROL, screen(88), 1);
    story.pass(3_000);
    assert!(story.plis(ALICE).len() >= 2);
}

#[test]
fn sound_does_not_wait_and_keeps_its_timeline() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 65_500);
    for _ in 0..100 {
        let packet = alice.sound();
        story.rtp(ALICE, &packet);
        story.pass(20);
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 100);
    assert_continuous(&seen);
    assert!(seen.windows(2).all(|pair| pair[1]
        .header
        .timestamp
        .wrapping_sub(pair[0].header.timestamp)
        == 960));
}

#[test]
fn a_source_switch_is_continuous() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.publish(2, CAROL, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 30_000);
    let mut carol = Source::new(1_000, 96, 5);
    carol.timestamp = 3;
    carol.picture = 9;
    let mut both = |story: &mut Story, alice_key, carol_key| {
        for packet in alice.frame(alice_key, 2) {
            story.rtp(ALICE, &packet);
        }
        for packet in carol.frame(carol_key, 2) {
            story.rtp(CAROL, &packet);
        }
        story.pass(33);
    };
    both(&mut story, true, true);
    both(&mut story, false, false);
    story.source(1, Some(2));
    both(&mut story, true, false); // Alice's key frame is nobody's business now
    both(&mut story, false, true);
    both(&mut story, false, false);
    story.source(1, None);
    both(&mut story, true, true);
    story.source(1, Some(1));
    both(&mut story, true, true);
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 2 * (2 + 2 + 1));
    assert_continuous(&seen);
    assert_pictures(&seen);
    // The pause is on the timeline: two frames of 33 ms lie between the fourth and the fifth packet.
    let gap = seen[4]
        .header
        .timestamp
        .wrapping_sub(seen[3].header.timestamp);
    assert!((4_500..7_500).contains(&gap), "{gap}");
    assert_eq!(story.subscription(1).packets, 10);
    let counters = story.subscription(1);
    assert_eq!(counters.last_sequence - counters.first_sequence, 9);
}

/// Send one frame of each layer.
fn layers(story: &mut Story, sources: &mut [Source], keys: [bool; 3], on: [bool; 3]) {
    for ((source, key), on) in sources.iter_mut().zip(keys).zip(on) {
        if on {
            for packet in source.frame(key, 2) {
                story.rtp(ALICE, &packet);
            }
        }
    }
    story.pass(33);
}

fn three() -> Vec<Source> {
    [("q", 501), ("h", 502), ("f", 503)]
        .map(|(rid, ssrc)| Source {
            mid: "0",
            rid,
            ..Source::new(ssrc, 96, ssrc as u16 * 100)
        })
        .to_vec()
}

const ALL: [bool; 3] = [true; 3];
const NO: [bool; 3] = [false; 3];

/// Which layer a packet was, by its last byte.
fn layer_of(seen: &Seen, sources: &[Source]) -> Option<usize> {
    let tag = *seen.payload().last()?;
    sources.iter().position(|source| source.ssrc as u8 == tag)
}

#[test]
fn layers_switch_at_key_frames_only() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, BOB, screen(77), 1);
    let mut sources = three();
    story.layer(1, 2, false);
    layers(&mut story, &mut sources, ALL, ALL);
    layers(&mut story, &mut sources, NO, ALL);
    let first = story.seen(BOB);
    assert_eq!(story.publication(1).layers, 3);
    story.plis(ALICE);
    story.pass(500);
    story.layer(1, 0, false);
    assert_eq!(
        story
            .plis(ALICE)
            .iter()
            .map(|pli| pli.1)
            .collect::<Vec<_>>(),
        [501]
    );
    layers(&mut story, &mut sources, NO, ALL);
    layers(&mut story, &mut sources, [false, true, true], ALL);
    let before = story.seen(BOB);
    assert!(before
        .iter()
        .all(|seen| layer_of(seen, &sources) == Some(2)));
    layers(&mut story, &mut sources, [true, false, false], ALL);
    layers(&mut story, &mut sources, NO, ALL);
    let after = story.seen(BOB);
    // The full layer was forwarded up to the switch; in the frame of the switch the low layer comes first.
    assert!(after.iter().all(|seen| layer_of(seen, &sources) == Some(0)));
    assert!(after[0].vp8().key);
    let all = [first, before, after].concat();
    assert_continuous(&all);
}

#[test]
fn a_layer_that_stops_falls_back_and_returns() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, BOB, screen(77), 1);
    let mut sources = three();
    for index in 0..10 {
        layers(&mut story, &mut sources, [index == 0; 3], ALL);
    }
    story.seen(BOB);
    story.plis(ALICE);
    for _ in 0..50 {
        layers(&mut story, &mut sources, NO, [true, true, false]);
    }
    assert_eq!(story.publication(1).layers, 2);
    assert!(story.plis(ALICE).iter().any(|pli| pli.1 == 502));
    assert!(story.seen(BOB).is_empty());
    layers(&mut story, &mut sources, ALL, [true, true, false]);
    let fallen = story.seen(BOB);
    assert_eq!(fallen.len(), 2);
    assert!(fallen
        .iter()
        .all(|seen| layer_of(seen, &sources) == Some(1)));
    layers(&mut story, &mut sources, NO, ALL);
    assert!(story.plis(ALICE).iter().any(|pli| pli.1 == 503));
    story.seen(BOB);
    layers(&mut story, &mut sources, [false, false, true], ALL);
    layers(&mut story, &mut sources, NO, ALL);
    let back = story.seen(BOB);
    assert_eq!(layer_of(back.last().expect("video"), &sources), Some(2));
}

#[test]
fn who_joins_a_picture_that_stands_still_asks_for_it() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    let mut sources = three();
    layers(&mut story, &mut sources, ALL, ALL);
    story.pass(10_000);
    story.subscribe(1, BOB, screen(77), 1);
    assert_eq!(
        story
            .plis(ALICE)
            .iter()
            .map(|pli| pli.1)
            .collect::<Vec<_>>(),
        [503]
    );
    layers(&mut story, &mut sources, ALL, [false, false, true]);
    assert_eq!(story.seen(BOB).len(), 2);
}

#[test]
fn a_paused_subscription_gets_nothing_and_resumes_at_a_key_frame() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 10);
    let mut frame = |story: &mut Story, key| {
        for packet in alice.frame(key, 1) {
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
    };
    frame(&mut story, true);
    story.layer(1, 2, true);
    frame(&mut story, true);
    story.pass(1_000);
    story.layer(1, 2, false);
    assert_eq!(story.plis(ALICE).len(), 1);
    frame(&mut story, false);
    frame(&mut story, true);
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 2);
    assert_continuous(&seen);
    assert_pictures(&seen);
}

#[test]
fn a_paused_subscription_gets_nothing_after_a_renegotiation() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.publish(2, ALICE, microphone());
    story.subscribe(2, BOB, speaker(90), 2);
    let mut alice = (Source::new(1_000, 96, 10), Source::new(2_000, 111, 10));
    let mut speak = |story: &mut Story| {
        for packet in alice.0.frame(true, 1) {
            story.rtp(ALICE, &packet);
        }
        story.rtp(ALICE, &alice.1.sound());
        story.pass(33);
        story.seen(BOB).len()
    };
    assert_eq!(speak(&mut story), 2);
    for id in [1, 2] {
        story.layer(id, 2, true);
    }
    assert_eq!(speak(&mut story), 0);
    for (id, mut stream) in [(1, camera()), (2, microphone())] {
        stream.extensions.playout_delay = 12;
        story.router.update_publication(PublicationId(id), stream);
    }
    assert_eq!((speak(&mut story), speak(&mut story)), (0, 0));
    for id in [1, 2] {
        story.layer(id, 2, false);
    }
    assert_eq!(speak(&mut story), 2);
}

#[test]
fn padding_is_closed_up() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 65_530);
    for index in 0..10 {
        for packet in alice.frame(index == 0, 1) {
            story.rtp(ALICE, &packet);
        }
        for _ in 0..index {
            let probe = alice.packet(false, &[]);
            story.rtp(ALICE, &probe);
        }
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 10);
    assert_continuous(&seen);
    assert_pictures(&seen);
    assert!(story.nacked(ALICE).is_empty());
}

#[test]
fn late_packets_keep_their_place() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 65_533);
    let packets: Vec<_> = (0..8)
        .flat_map(|index| alice.frame(index == 0, 1))
        .collect();
    for index in [0, 2, 1, 3, 6, 4, 5, 5, 7] {
        story.rtp(ALICE, &packets[index]);
    }
    let mut seen = story.seen(BOB);
    assert_eq!(seen.len(), 8);
    let first = seen[0].header.sequence;
    let order: Vec<_> = seen
        .iter()
        .map(|seen| seen.header.sequence - first)
        .collect();
    assert_eq!(order, [0, 2, 1, 3, 6, 4, 5, 7]);
    seen.sort_by_key(|seen| seen.header.sequence);
    assert_pictures(&seen);
}

#[test]
fn the_gate_drops_counts_and_reopens_at_a_key_frame() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.publish(2, ALICE, microphone());
    story.subscribe(1, BOB, screen(77), 1);
    story.subscribe(2, BOB, speaker(55), 2);
    let mut camera = Source::new(1_000, 96, 10);
    let mut voice = Source::new(2_000, 111, 20);
    voice.level = 0x80 | 20;
    let mut both = |story: &mut Story, key| {
        for packet in camera.frame(key, 1) {
            story.rtp(ALICE, &packet);
        }
        let packet = voice.sound();
        story.rtp(ALICE, &packet);
        story.pass(20);
    };
    both(&mut story, true);
    both(&mut story, false);
    for publication in [1, 2] {
        story.router.set_gate(PublicationId(publication), false);
    }
    let heard = story.record.events.len();
    story.plis(ALICE);
    let before = story.seen(BOB);
    assert_eq!(before.len(), 4);
    for _ in 0..50 {
        both(&mut story, true);
        story.rtcp(BOB, |b| b.nack(1, 77, &[before[0].header.sequence]));
    }
    assert!(story.seen(BOB).is_empty(), "neither copies nor repeats");
    assert!(story.plis(ALICE).is_empty());
    assert_eq!(
        (story.publication(1).gated, story.publication(2).gated),
        (50, 50)
    );
    assert_eq!(
        story.record.events.len(),
        heard,
        "a muted voice is not heard"
    );
    for publication in [1, 2] {
        story.router.set_gate(PublicationId(publication), true);
    }
    both(&mut story, false);
    assert_eq!(story.plis(ALICE).len(), 1);
    both(&mut story, true);
    let (video, sound): (Vec<_>, Vec<_>) = story
        .seen(BOB)
        .into_iter()
        .partition(|seen| seen.header.ssrc == 77);
    assert_eq!((video.len(), sound.len()), (1, 2));
    assert!(video[0].vp8().key);
    assert_continuous(&sound);
    let counters = story.subscription(2);
    assert_eq!(counters.last_sequence - counters.first_sequence, 3);
}

#[test]
fn a_codec_the_subscriber_has_not_is_not_forwarded() {
    let mut story = Story::new();
    let mut stream = camera();
    stream.codecs.push(Codec {
        name: "VP9".into(),
        ..vp8(98, None)
    });
    story.publish(1, ALICE, stream);
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 10);
    for packet in alice.frame(true, 1) {
        story.rtp(ALICE, &packet);
    }
    alice.payload_type = 98;
    let vp9 = alice.packet(true, &[0x88, 0x01, 0x00, 0x00]);
    story.rtp(ALICE, &vp9);
    alice.payload_type = 96;
    for packet in alice.frame(true, 1) {
        story.rtp(ALICE, &packet);
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 2);
    assert_continuous(&seen);
    // Nor does the publisher make key frames in vain.
    alice.payload_type = 98;
    story.plis(ALICE);
    for _ in 0..100 {
        let vp9 = alice.packet(true, &[0xc8, 0x01, 0x00, 0x00]);
        story.rtp(ALICE, &vp9);
        story.pass(33);
    }
    assert!(story.plis(ALICE).is_empty());
    assert!(story.seen(BOB).is_empty());
}

#[test]
fn a_transport_without_keys_waits_and_then_asks_for_a_key_frame() {
    let mut story = Story::new();
    story.record.closed.push(BOB);
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 10);
    for index in 0..40 {
        for packet in alice.frame(index == 0, 1) {
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
    }
    let idle = story.plis(ALICE).len();
    assert!(idle <= 1, "no requests for who cannot receive: {idle}");
    story.record.closed.clear();
    story.pass(300);
    assert_eq!(story.plis(ALICE).len(), 1);
    for packet in alice.frame(true, 1) {
        story.rtp(ALICE, &packet);
    }
    assert_eq!(story.seen(BOB).len(), 1);
}

#[test]
fn a_new_ssrc_of_the_publisher_goes_on_under_ours() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    for (ssrc, start) in [(2_000, 60_000), (2_345, 7)] {
        let mut alice = Source::new(ssrc, 111, start);
        alice.mid = "1";
        for _ in 0..5 {
            let packet = alice.sound();
            story.rtp(ALICE, &packet);
            story.pass(20);
        }
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 10);
    assert_continuous(&seen);
}

#[test]
fn removing_a_transport_says_bye_and_leaves_silence() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 1);
    let packet = alice.sound();
    story.rtp(ALICE, &packet);
    story
        .router
        .remove_transport(ALICE, story.now, &mut story.record);
    let packet = alice.sound();
    story.rtp(ALICE, &packet);
    assert_eq!(story.seen(BOB).len(), 1);
    story
        .router
        .remove_transport(BOB, story.now, &mut story.record);
    let (to, _, compound) = story.record.rtcp.last().expect("BYE");
    assert_eq!(*to, BOB);
    let ended: Vec<u32> = Compound::new(compound)
        .filter_map(|packet| match packet {
            Ok(Packet::Goodbye { sources }) => Some(sources),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(ended, [55]);
    let statistics = story.router.statistics();
    assert!(statistics.publications.is_empty() && statistics.subscriptions.is_empty());
    story
        .router
        .remove_transport(CAROL, story.now, &mut story.record);
    story.pass(1_000);
    assert_eq!(story.router.timeout(), None, "nothing to wait for");
}

/// A number repeated with another delay on it would be two packets under one nonce (RFC 7714 section 8).
#[test]
fn a_stream_without_rtx_says_no_delay_that_an_earlier_source_was_given() {
    let mut story = Story::new();
    let h264 = |payload_type, rtx| Codec {
        name: "H264".into(),
        ..vp8(payload_type, rtx)
    };
    let first = ReceiveStream {
        mid: "5".into(),
        codecs: vec![h264(98, Some(99))],
        ssrcs: vec![(5_000, 5_001)],
        ..camera()
    };
    story.publish(1, ALICE, first);
    story.publish(2, ALICE, camera());
    let mut bobs = screen(77);
    bobs.extensions.playout_delay = 12;
    bobs.codecs = vec![vp8(100, None), h264(102, Some(103))];
    story.subscribe(1, BOB, bobs, 1);
    assert!(story.router.egress[0].stamped);
    story.router.egress[0].cushion = Some([0x01, 0x43, 0xe8]);
    story.source(1, Some(2));
    story.rtp(ALICE, &Source::new(1_000, 96, 1).frame(true, 1)[0]);
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].element(12), None);
}
