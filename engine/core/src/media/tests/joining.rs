//! Newcomers: from the last key frame when a new one may not be asked for yet, else from a new one (MP16, S9).

use super::*;

/// 30 frames a second of some packets, key frames when asked for (30 ms later).
struct Camera {
    source: Source,
    is_key_due: bool,
    frames: u64,
    asked: u64,
}

impl Camera {
    fn new(tail: usize) -> Self {
        let mut source = Source::new(1_000, 96, 65_000);
        source.tail = tail;
        Self {
            source,
            is_key_due: true,
            frames: 0,
            asked: 0,
        }
    }

    fn run(&mut self, story: &mut Story, frames: u64) {
        for _ in 0..frames {
            for packet in self.source.frame(self.is_key_due, 4) {
                story.rtp(ALICE, &packet);
            }
            self.frames += 1;
            story.pass(33);
            let asked = story.plis(ALICE).len();
            self.asked += asked as u64;
            self.is_key_due = asked > 0;
        }
    }

    /// A call of Bob's that runs for a while and had a key frame `frames` ago.
    fn in_a_call(story: &mut Story, frames: u64) -> Self {
        Self::in_a_call_of(300, story, frames)
    }

    /// The same with so many bytes in each of four packets of a frame.
    fn in_a_call_of(tail: usize, story: &mut Story, frames: u64) -> Self {
        story.publish(1, ALICE, camera());
        story.subscribe(1, BOB, screen(77), 1);
        let mut camera = Self::new(tail);
        camera.run(story, 60);
        story.rtcp(BOB, |b| b.pli(1, 77));
        story.plis(ALICE);
        camera.is_key_due = true;
        camera.run(story, frames);
        camera.asked = 0;
        story.seen(BOB);
        camera
    }
}

#[test]
fn a_newcomer_begins_at_the_last_key_frame_and_catches_up() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 10);
    story.subscribe(2, CAROL, screen(88), 1);
    let joined = story.now;
    story.pass(1);
    let first = story.seen(CAROL);
    assert!(!first.is_empty(), "nothing at once");
    assert!(first[0].vp8().key, "begins with the key frame");
    assert!(first.len() < 40, "all in one burst");
    story.rtcp(CAROL, |b| b.pli(1, 88)); // one that asks now waits like everybody
    story.plis(ALICE);
    camera.run(&mut story, 60);
    let mut seen = first;
    seen.extend(story.seen(CAROL));
    assert_continuous(&seen);
    assert_pictures(&seen);
    // Everything since the key frame, and in the end as quick as Bob.
    assert_eq!(seen.len(), 4 * 70);
    let (bob, last) = (story.seen(BOB), seen.last().expect("seen").at);
    assert_eq!(bob.last().expect("seen").at, last);
    let late = |place: usize| seen[place].at.since(joined);
    assert!(late(4 * 10) < 400_000, "behind for {} us", late(40));
    // Never faster than it may: 250 percent of the layer, and what is allowed at once.
    let bytes: usize = seen[..40].iter().map(|one| one.bytes.len()).sum();
    let spent_us = late(40).max(1);
    let bps = story.publication(1).bytes * 8 * 1_000_000 / 4_290_000;
    assert!((bytes as u64) < bps * 3 * (spent_us + 5_000) / 8_000_000);
}

#[test]
fn a_key_frame_that_is_old_is_not_warmed_up() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 20); // 660 ms
    story.subscribe(2, CAROL, screen(88), 1);
    assert_eq!(story.plis(ALICE).len(), 1, "asked at once");
    story.pass(1);
    assert!(story.seen(CAROL).is_empty());
    camera.is_key_due = true;
    camera.run(&mut story, 2);
    let seen = story.seen(CAROL);
    assert_eq!(seen.len(), 8);
    assert!(seen[0].vp8().key);
}

#[test]
fn fifty_join_in_a_second_and_the_publisher_makes_two_key_frames() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 30);
    let joined = story.now;
    let transports: Vec<_> = (100..150).map(TransportId).collect();
    for (at, transport) in transports.iter().enumerate() {
        story.router.add_transport(*transport);
        story.subscribe(100 + at as u64, *transport, screen(500), 1);
        if at % 5 == 4 {
            camera.run(&mut story, 3); // 10 times 99 ms
        }
    }
    camera.run(&mut story, 30);
    assert!(camera.asked <= 2, "{} key frames", camera.asked);
    for (at, transport) in transports.iter().enumerate() {
        let seen = story.seen(*transport);
        let came = joined.plus_ms(at as u64 / 5 * 99);
        assert!(seen[0].vp8().key);
        // One frame to ask, one until it is made: nobody waits for half a second.
        assert!(seen[0].at.since(came) <= 110_000, "{at}");
        assert_continuous(&seen);
        assert_pictures(&seen);
    }
}

#[test]
fn what_was_sent_late_can_be_asked_for_again() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 10);
    story.subscribe(2, CAROL, screen(88), 1);
    camera.run(&mut story, 30);
    let seen = story.seen(CAROL);
    let lost = &seen[17];
    story.rtcp(CAROL, |b| b.nack(1, 88, &[lost.header.sequence]));
    let again = story.seen(CAROL).remove(0);
    assert_eq!((again.header.ssrc, again.header.payload_type), (89, 101));
    assert_eq!(again.payload()[..2], lost.header.sequence.to_be_bytes());
    assert_eq!(again.payload()[2..], *lost.payload());
    assert_eq!(again.header.timestamp, lost.header.timestamp);
}

#[test]
fn a_hole_of_the_publisher_stays_one_until_it_is_filled() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 9);
    let mut frame = camera.source.frame(false, 4);
    let lost = frame.remove(1);
    for packet in &frame {
        story.rtp(ALICE, packet);
    }
    story.subscribe(2, CAROL, screen(88), 1);
    camera.run(&mut story, 5);
    story.rtp(ALICE, &lost);
    camera.run(&mut story, 20);
    let mut seen = story.seen(CAROL);
    assert_eq!(seen.len(), 4 * 35);
    seen.sort_by_key(|one| one.header.sequence);
    assert_continuous(&seen);
    assert_pictures(&seen);
}

#[test]
fn who_cannot_be_sent_to_yet_begins_when_it_can() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 1);
    story.record.closed.push(CAROL);
    story.subscribe(2, CAROL, screen(88), 1);
    camera.run(&mut story, 4);
    story.record.closed.clear();
    let opened = story.now;
    story.router.opened(CAROL);
    camera.run(&mut story, 30);
    let seen = story.seen(CAROL);
    assert!(seen[0].vp8().key);
    assert_eq!(seen[0].at, opened);
    assert_continuous(&seen);
    assert_eq!(camera.asked, 0);
}

#[test]
fn a_publisher_that_starts_over_meanwhile_is_asked() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 12);
    story.subscribe(2, CAROL, screen(88), 1);
    story.pass(1);
    assert!(story.seen(CAROL)[0].vp8().key);
    camera.source.sequence = camera.source.sequence.wrapping_sub(20_000);
    camera.run(&mut story, 60);
    assert!(camera.asked >= 1);
    let seen = story.seen(CAROL);
    let restarted = seen
        .iter()
        .position(|one| one.vp8().key)
        .expect("a new key frame");
    assert_continuous(&seen[restarted..]);
    assert_eq!(
        seen.last().expect("seen").at,
        story.seen(BOB).last().expect("seen").at
    );
}

#[test]
fn a_narrow_link_waits_for_what_it_can_carry() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call_of(1_400, &mut story, 5); // 1.4 Mbit/s
    story.rtcp(CAROL, |b| b.remb(1, 2_000_000, &[88]));
    story.subscribe(2, CAROL, screen(88), 1);
    story.pass(1);
    assert!(story.seen(CAROL).is_empty());
    camera.run(&mut story, 30);
    assert_eq!(camera.asked, 1);
    assert!(story.seen(CAROL)[0].vp8().key);
}

#[test]
fn who_never_arrives_gets_a_new_key_frame() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 12);
    story.subscribe(2, CAROL, screen(88), 1);
    camera.source.tail = 1_400; // four times as much as before
    camera.run(&mut story, 100);
    assert_eq!(camera.asked, 1);
    let seen = story.seen(CAROL);
    assert_continuous(&seen);
    assert_pictures(&seen);
    let keys = seen.iter().filter(|one| one.vp8().key && one.vp8().start);
    assert_eq!(keys.count(), 2);
    let bob = story.seen(BOB);
    assert_eq!(seen.last().expect("seen").at, bob.last().expect("seen").at);
}

#[test]
fn leaving_while_late_ends_it() {
    let mut story = Story::new();
    let mut camera = Camera::in_a_call(&mut story, 12);
    story.subscribe(2, CAROL, screen(88), 1);
    story.pass(1);
    assert!(!story.seen(CAROL).is_empty());
    story.source(2, None);
    camera.run(&mut story, 5);
    assert!(story.seen(CAROL).is_empty());
    // The slot is another's by now.
    story
        .router
        .unsubscribe(SubscriptionId(2), story.now, &mut story.record);
    story.subscribe(3, CAROL, screen(99), 1);
    story.layer(3, 0, true);
    camera.run(&mut story, 5);
    assert!(story.seen(CAROL).is_empty());
    story.layer(3, 0, false);
    camera.run(&mut story, 40);
    assert_continuous(&story.seen(CAROL));
}
