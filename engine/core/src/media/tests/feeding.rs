//! How packets find their publication: mid, rid, payload type, RTX; loss and its repair on both sides.

use super::*;

/// Repeat a packet as RFC 4588 does.
fn as_rtx(
    packet: &[u8],
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    mid: &str,
    rid: &str,
) -> Vec<u8> {
    let header = Header::parse(packet).expect("own packet");
    let mut slot = vec![0; 1_500];
    let mut writer = Writer::new(
        &mut slot,
        header.marker,
        payload_type,
        sequence,
        header.timestamp,
        ssrc,
        false,
    );
    writer.element(ALICE_EXTENSIONS.mid, mid.as_bytes());
    writer.element(ALICE_EXTENSIONS.repaired_rid, rid.as_bytes());
    writer.payload(&header.sequence.to_be_bytes());
    writer.payload(header.payload.of(packet));
    let len = writer.finish().expect("fits");
    slot.truncate(len);
    slot
}

#[test]
fn mid_and_rid_name_a_layer_once_and_the_ssrc_from_then_on() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, BOB, screen(77), 1);
    story.layer(1, 0, false);
    let mut alice = Source::new(501, 96, 10);
    let unnamed = alice.clone().frame(true, 1).remove(0);
    story.rtp(ALICE, &unnamed);
    assert_eq!(story.router.statistics().foreign_ssrc, 1);
    (alice.mid, alice.rid) = ("0", "x");
    story.rtp(ALICE, &alice.clone().frame(true, 1).remove(0));
    assert_eq!(story.router.statistics().foreign_ssrc, 2, "an unknown rid");
    alice.rid = "q";
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    (alice.mid, alice.rid) = ("", "");
    story.rtp(ALICE, &alice.frame(false, 1).remove(0));
    assert_eq!(story.seen(BOB).len(), 2);
    assert!(story
        .record
        .events
        .contains(&Event::FirstPacket(PublicationId(1), 0, 96)));
}

#[test]
fn the_payload_type_decides_only_if_it_is_unique() {
    let mut story = Story::new();
    let unsignalled = |mid: &str| ReceiveStream {
        mid: mid.into(),
        ssrcs: vec![],
        ..microphone()
    };
    story.publish(1, ALICE, unsignalled("1"));
    story.subscribe(1, BOB, speaker(55), 1);
    let mut voice = Source::new(4_711, 111, 1);
    let packet = voice.sound();
    story.rtp(ALICE, &packet);
    assert_eq!(story.seen(BOB).len(), 1);
    // A second stranger does not displace a stream that is alive.
    let packet = Source::new(4_712, 111, 1).sound();
    story.rtp(ALICE, &packet);
    assert!(story.seen(BOB).is_empty());
    story.publish(2, CAROL, unsignalled("1"));
    story.publish(3, CAROL, unsignalled("2"));
    let packet = Source::new(4_713, 111, 1).sound();
    story.rtp(CAROL, &packet);
    assert_eq!(
        story.publication(2).packets + story.publication(3).packets,
        0
    );
}

#[test]
fn a_hole_is_asked_for_and_filled_by_rtx() {
    for signalled in [true, false] {
        let mut story = Story::new();
        let stream = if signalled { camera() } else { simulcast() };
        story.publish(1, ALICE, stream);
        story.subscribe(1, BOB, screen(77), 1);
        let mut alice = Source::new(1_000, 96, 65_533);
        (alice.mid, alice.rid) = ("0", if signalled { "" } else { "h" });
        let packets: Vec<_> = (0..6)
            .flat_map(|index| alice.frame(index == 0, 1))
            .collect();
        for index in [0, 1, 4] {
            story.rtp(ALICE, &packets[index]);
        }
        assert!(story.nacked(ALICE).is_empty(), "reordering gets its time");
        story.pass(20);
        assert_eq!(story.nacked(ALICE), vec![65_535, 0]);
        let (mid, rid) = if signalled { ("", "") } else { ("0", "h") };
        for (sequence, index) in [(9, 2), (10, 3)] {
            let rtx = as_rtx(&packets[index], 1_001, 97, sequence, mid, rid);
            story.rtp(ALICE, &rtx);
            story.rtp(ALICE, &packets[index]); // a duplicate must not go out twice
        }
        // A probe on the RTX stream: padding only.
        let probe = Source::new(1_001, 97, 11).packet(false, &[]);
        story.rtp(ALICE, &probe);
        story.rtp(ALICE, &packets[5]);
        story.pass(500);
        assert!(story.nacked(ALICE).is_empty());
        let mut seen = story.seen(BOB);
        assert_eq!(seen.len(), 6);
        seen.sort_by_key(|seen| seen.header.sequence);
        assert_continuous(&seen);
        assert_pictures(&seen);
        assert_eq!(story.publication(1).lost, 0);
        assert_eq!(
            story.publication(1).nacks_sent,
            1,
            "one packet asked for two"
        );
    }
}

#[test]
fn requests_go_on_ten_times_then_the_hole_is_given_up() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 1);
    let packets: Vec<_> = (0..3)
        .flat_map(|index| alice.frame(index == 0, 1))
        .collect();
    story.rtp(ALICE, &packets[0]);
    story.rtp(ALICE, &packets[2]);
    story.pass(5_000);
    assert_eq!(story.nacked(ALICE), vec![2; 10]);
    assert_eq!(story.publication(1).lost, 1);
}

#[test]
fn an_outage_asks_for_a_key_frame_instead() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 1);
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    story.pass(1_000);
    story.plis(ALICE);
    alice.sequence += 400;
    story.rtp(ALICE, &alice.frame(false, 1).remove(0));
    story.pass(100);
    assert!(story.nacked(ALICE).is_empty());
    assert_eq!(story.plis(ALICE).len(), 1);
}

#[test]
fn a_nack_is_answered_from_the_cache_by_rtx() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 65_530);
    for index in 0..20 {
        for packet in alice.frame(index == 0, 1) {
            story.rtp(ALICE, &packet);
        }
    }
    let seen = story.seen(BOB);
    let wanted = [&seen[3], &seen[15]];
    let lost: Vec<_> = wanted.iter().map(|seen| seen.header.sequence).collect();
    story.rtcp(BOB, |b| b.nack(1, 77, &lost));
    let repeats = story.seen(BOB);
    assert_eq!(repeats.len(), 2);
    for (repeat, original) in repeats.iter().zip(wanted) {
        assert_eq!((repeat.header.ssrc, repeat.header.payload_type), (78, 101));
        assert_eq!(repeat.header.timestamp, original.header.timestamp);
        assert_eq!(
            repeat.payload()[..2],
            original.header.sequence.to_be_bytes()
        );
        assert_eq!(repeat.payload()[2..], *original.payload());
    }
    assert_eq!(repeats[1].header.sequence, repeats[0].header.sequence + 1);
    let counted = story.subscription(1);
    assert_eq!((counted.nacks, counted.asked_again), (1, 2));
    assert_eq!(story.subscription(1).retransmitted, 2);
}

#[test]
fn without_rtx_a_repeat_is_the_same_to_the_last_bit() {
    let mut story = Story::new();
    let mut stream = screen(77);
    stream.codecs = vec![vp8(98, None)];
    stream.extensions.abs_send_time = 2;
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, stream, 1);
    let mut alice = Source::new(1_000, 96, 1);
    for index in 0..5 {
        story.rtp(ALICE, &alice.frame(index == 0, 1).remove(0));
        story.pass(33);
    }
    let seen = story.seen(BOB);
    let lost = [seen[2].header.sequence];
    story.rtcp(BOB, |b| b.nack(1, 77, &lost));
    let repeats = story.seen(BOB);
    assert_eq!(repeats.len(), 1);
    assert_eq!(repeats[0].bytes, seen[2].bytes);
}

#[test]
fn a_nack_reaches_back_over_a_layer_switch() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, BOB, screen(77), 1);
    let mut low = Source::new(501, 96, 9_000);
    let mut high = Source::new(502, 96, 33);
    (low.mid, low.rid, high.mid, high.rid) = ("0", "q", "0", "h");
    story.rtp(ALICE, &low.frame(true, 1).remove(0));
    story.rtp(ALICE, &low.frame(false, 1).remove(0));
    story.rtp(ALICE, &high.frame(true, 1).remove(0));
    story.rtp(ALICE, &high.frame(false, 1).remove(0));
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 4);
    assert_continuous(&seen);
    assert_pictures(&seen);
    let lost: Vec<_> = seen.iter().map(|seen| seen.header.sequence).collect();
    story.rtcp(BOB, |b| b.nack(1, 77, &lost));
    for (repeat, original) in story.seen(BOB).iter().zip(&seen) {
        assert_eq!(repeat.payload()[2..], *original.payload());
    }
    assert_eq!(story.subscription(1).retransmitted, 4);
}

/// Who asks again before an answer can have come does not use up what first requests need.
#[test]
fn what_may_be_on_its_way_is_repeated_only_from_plenty() {
    let made =
        crate::media::subscription::Subscription::new(SubscriptionId(1), BOB, 0, screen(77), 1);
    let (_, mut sub) = made.expect("valid");
    sub.reception.rtt_us = 150_000;
    let now = Micros(5_000_000);
    let mut ask = |number, ms| sub.may_repeat(1_000_000, number, 1_000, now.plus_ms(ms));
    assert!(ask(1, 0));
    assert!(ask(1, 100), "there is plenty");
    assert!((2..31).all(|number| ask(number, 200)));
    assert!(!ask(1, 200), "soon, and half is gone");
    assert!(ask(31, 200), "a first request");
    assert!(ask(1, 260), "the answer was lost");
}

#[test]
fn repeats_keep_their_budget_and_their_number() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Source::new(1_000, 96, 1);
    let (mut sent, mut repeated) = (0, 0);
    let mut newest = Vec::new();
    for second in 0..10 {
        for index in 0..100 {
            let mut payload = alice.frame(second + index == 0, 1).remove(0);
            payload.extend([7; 1_000]);
            story.rtp(ALICE, &payload);
            let seen = story.seen(BOB);
            sent += seen.iter().map(|seen| seen.bytes.len()).sum::<usize>();
            newest.extend(seen.iter().map(|seen| seen.header.sequence));
            newest.drain(..newest.len().saturating_sub(100));
            story.rtcp(BOB, |b| b.nack(1, 77, &newest));
            repeated += story
                .seen(BOB)
                .iter()
                .map(|seen| seen.bytes.len())
                .sum::<usize>();
            story.pass(10);
        }
    }
    assert!(
        repeated > 0 && repeated * 100 <= sent * 22,
        "{repeated} of {sent}"
    );
    // One number, asked for a hundred times.
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    let one = [story.seen(BOB)[0].header.sequence];
    for _ in 0..100 {
        story.rtcp(BOB, |b| b.nack(1, 77, &one));
        story.pass(20);
    }
    assert_eq!(story.subscription(1).retransmitted, 10);
}
