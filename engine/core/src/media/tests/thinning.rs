//! Steps below the whole: VP8 temporal layers, VP9 SVC, dependency descriptors; numbers close up, repeats are right.

use std::collections::HashMap;

use super::*;

/// Temporal ids of four pictures, and whether each refers to T0 only.
const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];

/// A packet without extensions but those given.
pub(super) fn packet(
    source: &mut Source,
    marker: bool,
    elements: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut slot = vec![0; 1_500];
    let two_byte = elements.iter().any(|(_, value)| value.len() > 16);
    let mut writer = Writer::new(
        &mut slot,
        marker,
        source.payload_type,
        source.sequence,
        source.timestamp,
        source.ssrc,
        two_byte,
    );
    for (id, value) in elements {
        writer.element(*id, value);
    }
    writer.payload(payload);
    let len = writer.finish().expect("fits");
    slot.truncate(len);
    source.sequence = source.sequence.wrapping_add(1);
    slot
}

/// A VP8 camera with three temporal layers; `at` counts pictures.
struct Camera {
    source: Source,
    at: usize,
}

impl Camera {
    fn new() -> Self {
        let source = Source::new(1_000, 96, 65_000);
        Self { source, at: 0 }
    }

    fn picture(&mut self, key: bool, packets: usize) -> Vec<Vec<u8>> {
        if key {
            self.at = 0;
        }
        let (temporal, sync) = PATTERN[self.at % 4];
        self.at += 1;
        let source = &mut self.source;
        source.picture = source.picture.wrapping_add(1) & 0x7fff;
        source.tl0 = source.tl0.wrapping_add(u8::from(temporal == 0));
        let frame = (0..packets)
            .map(|index| {
                let id = (source.picture | 0x8000).to_be_bytes();
                let start = if index == 0 { 0x90 } else { 0x80 };
                let layer = temporal << 6 | u8::from(sync) << 5;
                let mut payload =
                    vec![start, 0xe0, id[0], id[1], source.tl0, layer, u8::from(!key)];
                payload.extend([temporal; 20]);
                let marker = index + 1 == packets;
                packet(source, marker, &[], &payload)
            })
            .collect();
        source.timestamp = source.timestamp.wrapping_add(3_000);
        frame
    }
}

/// The step a subscriber is at by the rates it receives: pictures of each temporal id.
fn by_temporal(seen: &[Seen]) -> [usize; 3] {
    let mut counts = [0; 3];
    for seen in seen.iter().filter(|seen| seen.vp8().start) {
        counts[usize::from(seen.vp8().temporal)] += 1;
    }
    counts
}

pub(super) fn assert_gapless(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        assert_eq!(b.header.sequence, a.header.sequence.wrapping_add(1));
        let step = b.header.timestamp.wrapping_sub(a.header.timestamp);
        assert!(step < 90_000, "timestamps run: {step}");
    }
}

/// Picture ids go up by one; TL0PICIDX with each T0 picture.
fn assert_vp8_ids(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let (a, b) = (pair[0].vp8(), pair[1].vp8());
        let next = u16::from(pair[0].header.timestamp != pair[1].header.timestamp);
        assert_eq!(b.picture, (a.picture + next) & 0x7fff);
        let base = u8::from(next == 1 && b.temporal == 0);
        assert_eq!(b.tl0, a.tl0.wrapping_add(base));
    }
}

fn play(story: &mut Story, camera: &mut Camera, pictures: usize) {
    for _ in 0..pictures {
        for packet in camera.picture(false, 2) {
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
    }
}

pub(super) fn frame_rate(story: &mut Story, id: u64, fps: u8) {
    story.record.now = Some(story.now);
    let (now, id) = (story.now, SubscriptionId(id));
    story.router.set_frame_rate(id, fps, now, &mut story.record);
}

#[test]
fn fewer_frames_per_second_leave_no_hole() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.subscribe(2, CAROL, screen(88), 1);
    let mut alice = Camera::new();
    for packet in alice.picture(true, 3) {
        story.rtp(ALICE, &packet);
    }
    play(&mut story, &mut alice, 63); // long enough to know its frame rates
    frame_rate(&mut story, 1, 8);
    story.plis(ALICE);
    let all = story.seen(BOB);
    assert_eq!(by_temporal(&all), [16, 16, 32]);
    play(&mut story, &mut alice, 64);
    let slow = story.seen(BOB);
    assert_eq!(by_temporal(&slow), [16, 0, 0], "a quarter");
    frame_rate(&mut story, 1, 15);
    play(&mut story, &mut alice, 64);
    let half = story.seen(BOB);
    assert_eq!(by_temporal(&half), [16, 16, 0], "half");
    frame_rate(&mut story, 1, 0);
    play(&mut story, &mut alice, 64);
    let full = story.seen(BOB);
    assert_eq!(
        by_temporal(&full),
        [16, 16, 32],
        "up at the first frame that allows it"
    );
    let together = [all, slow, half, full].concat();
    assert_gapless(&together);
    assert_vp8_ids(&together);
    assert!(story.plis(ALICE).is_empty(), "none of it needs a key frame");
    let carol = story.seen(CAROL);
    assert_eq!(by_temporal(&carol), [64, 64, 128], "others have all");
    assert_gapless(&carol);
    assert_vp8_ids(&carol);
    let sent = story.subscription(1);
    assert_eq!(sent.last_sequence + 1 - sent.first_sequence, sent.packets);
}

#[test]
fn a_repeat_is_the_packet_that_was_sent() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Camera::new();
    for packet in alice.picture(true, 2) {
        story.rtp(ALICE, &packet);
    }
    play(&mut story, &mut alice, 63);
    frame_rate(&mut story, 1, 8);
    story.seen(BOB);
    play(&mut story, &mut alice, 80);
    frame_rate(&mut story, 1, 0);
    play(&mut story, &mut alice, 30);
    let sent = story.seen(BOB);
    for original in sent.iter().step_by(3) {
        story.pass(20);
        let number = original.header.sequence;
        story.rtcp(BOB, |builder| {
            builder.receiver_report(9, &[]);
            builder.nack(9, 77, &[number]);
        });
        let again = story.seen(BOB);
        let [again] = &again[..] else {
            panic!("{} repeats of {number}", again.len());
        };
        assert_eq!(again.header.ssrc, 78);
        assert_eq!(again.payload()[..2], number.to_be_bytes());
        assert_eq!(again.payload()[2..], *original.payload());
        assert_eq!(again.header.timestamp, original.header.timestamp);
        assert_eq!(again.header.marker, original.header.marker);
    }
}

#[test]
fn a_number_kept_for_what_turns_out_unwanted_is_filled() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Camera::new();
    for packet in alice.picture(true, 1) {
        story.rtp(ALICE, &packet);
    }
    play(&mut story, &mut alice, 63);
    frame_rate(&mut story, 1, 8);
    play(&mut story, &mut alice, 8);
    story.seen(BOB);
    let mut late = Vec::new();
    for index in 0..8 {
        for packet in alice.picture(false, 1) {
            if index == 2 || index == 4 {
                late.push(packet); // a T1 and a T0 picture
            } else {
                story.rtp(ALICE, &packet);
            }
        }
        story.pass(3);
    }
    for packet in late {
        story.rtp(ALICE, &packet);
    }
    let mut seen = story.seen(BOB);
    seen.sort_by_key(|seen| seen.header.sequence);
    assert_eq!(seen.len(), 3, "two pictures of T0, and one number filled");
    for pair in seen.windows(2) {
        assert_eq!(
            pair[1].header.sequence,
            pair[0].header.sequence.wrapping_add(1)
        );
    }
    assert_eq!(
        seen.iter().filter(|seen| seen.payload().is_empty()).count(),
        1
    );
    let filled = seen
        .iter()
        .find(|seen| seen.payload().is_empty())
        .expect("one")
        .clone();
    story.pass(50);
    story.rtcp(BOB, |builder| {
        builder.receiver_report(9, &[]);
        builder.nack(9, 77, &[filled.header.sequence]);
    });
    let again = story.seen(BOB);
    assert_eq!(again.len(), 1);
    assert_eq!(
        again[0].payload(),
        filled.header.sequence.to_be_bytes(),
        "padding again"
    );
}

/// Each layer of a simulcast has rates of its own, and a switch between layers keeps what was asked for.
#[test]
fn simulcast_layers_have_temporal_layers() {
    let mut story = Story::new();
    story.publish(
        1,
        ALICE,
        ReceiveStream {
            ssrcs: vec![(501, 0), (502, 0)],
            ..camera()
        },
    );
    story.subscribe(1, BOB, screen(77), 1);
    let mut low = Camera::new();
    let mut high = Camera::new();
    (low.source.ssrc, high.source.ssrc) = (501, 502);
    high.source.picture = 900;
    let mut both = |story: &mut Story, key: bool, count: usize| {
        for index in 0..count {
            for camera in [&mut low, &mut high] {
                for packet in camera.picture(key && index == 0, 2) {
                    story.rtp(ALICE, &packet);
                }
            }
            story.pass(33);
        }
    };
    both(&mut story, true, 64);
    frame_rate(&mut story, 1, 8);
    let first = story.seen(BOB);
    both(&mut story, false, 16);
    let slow = story.seen(BOB);
    assert_eq!(by_temporal(&slow), [4, 0, 0]);
    story.layer(1, 0, false);
    both(&mut story, false, 8);
    let waiting = story.seen(BOB);
    assert_eq!(
        by_temporal(&waiting),
        [2, 0, 0],
        "goes on until the other begins"
    );
    both(&mut story, true, 16);
    let small = story.seen(BOB);
    assert_eq!(by_temporal(&small), [4, 0, 0]);
    let together = [first, slow, waiting, small.clone()].concat();
    assert_gapless(&together);
    for pair in together.windows(2) {
        let next = u16::from(pair[0].header.timestamp != pair[1].header.timestamp);
        assert_eq!(
            pair[1].vp8().picture,
            (pair[0].vp8().picture + next) & 0x7fff
        );
    }
    // The packets before the switch can still be asked for.
    let old = &together[together.len() - small.len() - 2];
    story.pass(50);
    story.rtcp(BOB, |builder| {
        builder.receiver_report(9, &[]);
        builder.nack(9, 77, &[old.header.sequence]);
    });
    assert_eq!(story.seen(BOB)[0].payload()[2..], *old.payload());
}

/// RED for those who have it, the newest block for the others, and neither if nobody may look inside (RFC 2198).
#[test]
fn who_knows_no_red_gets_the_newest_block() {
    for encrypted in [false, true] {
        let mut story = Story::new();
        let stream = ReceiveStream {
            codecs: vec![opus(111), red(63)],
            encrypted,
            ..microphone()
        };
        story.publish(1, ALICE, stream);
        story.subscribe(1, BOB, speaker(55), 1);
        let knows = SendStream {
            codecs: vec![opus(96), red(97)],
            ..speaker(66)
        };
        story.subscribe(2, CAROL, knows, 1);
        let mut alice = Source::new(2_000, 63, 65_530);
        let block = [0xef, 0, 0, 3, 111, 1, 2, 3, 9, 8, 7, 6];
        for _ in 0..20 {
            let packet = alice.packet(false, &block);
            alice.timestamp = alice.timestamp.wrapping_add(960);
            story.rtp(ALICE, &packet);
            story.pass(20);
        }
        let carol = story.seen(CAROL);
        assert_eq!(carol.len(), 20);
        assert!(carol
            .iter()
            .all(|seen| seen.payload() == block && seen.header.payload_type == 97));
        let bob = story.seen(BOB);
        assert_eq!(bob.len(), if encrypted { 0 } else { 20 });
        assert_gapless(&bob);
        assert!(bob
            .iter()
            .all(|seen| seen.payload() == [9, 8, 7, 6] && seen.header.payload_type == 109));
    }
}

/// Orientation, playout delay and capture time arrive under the subscriber's ids, as they were sent.
#[test]
fn what_a_camera_says_of_its_pictures_is_carried() {
    let ids = |orientation, delay, time| Extensions {
        video_orientation: orientation,
        playout_delay: delay,
        abs_capture_time: time,
        ..Extensions::default()
    };
    let mut story = Story::new();
    story.publish(
        1,
        ALICE,
        ReceiveStream {
            extensions: ids(3, 5, 7),
            ..camera()
        },
    );
    story.subscribe(
        1,
        BOB,
        SendStream {
            extensions: ids(9, 2, 11),
            ..screen(77)
        },
        1,
    );
    let mut alice = Source::new(1_000, 96, 10);
    let time = [1, 2, 3, 4, 5, 6, 7, 8];
    let elements: [(u8, &[u8]); 3] = [(3, &[0x0b]), (5, &[0, 0xa0, 0x64]), (7, &time)];
    let payload = [0x10, 0, 7, 7, 7];
    let packet = packet(&mut alice, true, &elements, &payload);
    story.rtp(ALICE, &packet);
    let seen = story.seen(BOB);
    assert_eq!(seen[0].element(9), Some(&[0x0b][..]));
    assert_eq!(seen[0].element(2), Some(&[0, 0xa0, 0x64][..]));
    assert_eq!(
        seen[0].element(11),
        Some(&time[..]),
        "no report yet, so no clock to translate to"
    );
}

/// Frames encrypted end to end: the descriptor is ours to number, every byte of the frame is theirs.
#[test]
fn not_a_byte_of_an_encrypted_frame_changes() {
    let mut story = Story::new();
    story.publish(
        1,
        ALICE,
        ReceiveStream {
            encrypted: true,
            ..camera()
        },
    );
    story.subscribe(1, BOB, screen(77), 1);
    let mut alice = Camera::new();
    let mut sent = HashMap::new();
    for index in 0..200u32 {
        for mut packet in alice.picture(index == 0, 3) {
            let at = packet.len() - 20;
            packet[at..at + 4].copy_from_slice(&index.to_be_bytes());
            let header = Header::parse(&packet).expect("own");
            let payload = header.payload.of(&packet);
            sent.insert(payload[6..].to_vec(), ());
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
        if index == 80 {
            frame_rate(&mut story, 1, 8);
        }
    }
    let seen = story.seen(BOB);
    assert_gapless(&seen);
    assert_vp8_ids(&seen);
    assert!(seen.len() > 200 && seen.len() < 500);
    assert!(seen
        .iter()
        .all(|seen| sent.contains_key(&seen.payload()[6..])));
}

/// DTX: pauses are not loss, the track does not stop, and what comes behind the audio (DRED) stays.
#[test]
fn pauses_of_a_voice_are_no_loss() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 65_530);
    let voice: Vec<u8> = [&[0x7b, 0x41, 5][..], &[0x80; 40], &[0xd8, 1, 2, 3, 4]].concat();
    for index in 0..10 {
        let packet = alice.packet(index == 0, &voice);
        alice.timestamp = alice.timestamp.wrapping_add(960);
        story.rtp(ALICE, &packet);
        story.pass(20);
        if index % 5 == 4 {
            story.pass(3_000);
            alice.timestamp = alice.timestamp.wrapping_add(150 * 960);
        }
    }
    let seen = story.seen(BOB);
    assert_eq!(seen.len(), 10);
    assert_gapless_sound(&seen);
    assert!(seen.iter().all(|seen| seen.payload() == voice));
    assert_eq!(story.publication(1).lost, 0);
    assert_eq!(story.publication(1).layers, 1);
    assert!(!story
        .record
        .events
        .iter()
        .any(|event| matches!(event, Event::Bye(_))));
}

fn assert_gapless_sound(seen: &[Seen]) {
    for pair in seen.windows(2) {
        assert_eq!(
            pair[1].header.sequence,
            pair[0].header.sequence.wrapping_add(1)
        );
        let step = pair[1]
            .header
            .timestamp
            .wrapping_sub(pair[0].header.timestamp);
        assert!(step == 960 || step == 151 * 960, "{step}");
    }
}

/// Simulcast known by SSRC groups alone (SIM and FID), and a layer that stops without a word (MP62).
#[test]
fn whoever_watched_a_layer_that_stopped_goes_on_with_another() {
    let mut story = Story::new();
    let ssrcs = vec![(501, 601), (502, 602), (503, 603)];
    let extensions = Extensions::default();
    story.publish(
        1,
        ALICE,
        ReceiveStream {
            ssrcs,
            extensions,
            ..camera()
        },
    );
    story.subscribe(1, BOB, screen(77), 1);
    let mut layers = [501, 502, 503].map(|ssrc| Source::new(ssrc, 96, ssrc as u16));
    let mut key = 0b111;
    let mut seen = Vec::new();
    for at in 0..120 {
        for (index, layer) in layers.iter_mut().enumerate() {
            if index == 2 && at >= 60 {
                continue;
            }
            for packet in layer.frame(key >> index & 1 == 1, 2) {
                story.rtp(ALICE, &packet);
            }
        }
        key = 0;
        story.pass(33);
        for (_, ssrc) in story.plis(ALICE) {
            key |= 1 << (ssrc - 501);
        }
        seen.extend(story.seen(BOB));
    }
    assert_continuous(&seen);
    assert_pictures(&seen);
    let tags: Vec<u8> = seen
        .iter()
        .map(|seen| *seen.payload().last().expect("one"))
        .collect();
    assert_eq!(
        (tags[20], *tags.last().expect("many")),
        (503u16 as u8, 502u16 as u8)
    );
    let gap = seen
        .windows(2)
        .map(|pair| pair[1].at.since(pair[0].at))
        .max();
    assert!(
        gap.expect("many") <= 850_000,
        "{gap:?}: 450 ms of siblings alone, the round, the key frame"
    );
}
