//! Who was silent speaks, and is seen again (MP38): from his first loud packet to the first of his picture.
//!
//! Not here: that the control plane lets the picture go on with the report that we wait for here
//! (tests/sfu/test_pictures.py), which it does at once.

use super::*;

const STEP_MS: u64 = 10;
/// Between two pictures of a camera of 15 a second, and as long again for an encoder to get at it.
const KEY_FRAME_MS: u64 = 2 * 67;
/// What makes somebody active (`ACTIVE_BELOW`, `ACTIVE_FRAMES` of `sfu/speakers.py`).
const ACTIVE: (u8, u8) = (50, 3);

/// Milliseconds until the report, and until the picture.
fn onset(phase_ms: u64, round_trip_ms: u64, silent_every_ms: u64) -> (u64, u64) {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.publish(2, ALICE, microphone());
    story.subscribe(1, BOB, screen(77), 1);
    story.layer(1, 0, true);
    let (mut eyes, mut voice) = (Source::new(1_000, 96, 1), Source::new(2_000, 111, 1));
    let began_ms = 3_000 + phase_ms;
    let (mut told_ms, mut key_at_ms) = (None, None);
    for now_ms in (0..began_ms + 1_000).step_by(STEP_MS as usize) {
        let is_loud = now_ms >= began_ms;
        let every_ms = if is_loud { 20 } else { silent_every_ms };
        if now_ms % every_ms == began_ms % every_ms {
            voice.level = if is_loud { 0x80 | 20 } else { 127 };
            let packet = voice.sound();
            story.rtp(ALICE, &packet);
        }
        if now_ms % 70 == 0 {
            let is_key = now_ms == 0 || key_at_ms.is_some_and(|at| at <= now_ms);
            for packet in eyes.frame(is_key, 2) {
                story.rtp(ALICE, &packet);
            }
        }
        let seen = story.seen(BOB);
        if let (Some(told), Some(first)) = (told_ms, seen.first()) {
            assert!(first.vp8().key, "it begins with a key frame");
            return (told, now_ms - began_ms);
        }
        assert!(seen.is_empty(), "it was held back");
        if told_ms.is_none() && is_active(&story) {
            assert!(is_loud, "silence is nobody's turn");
            told_ms = Some(now_ms - began_ms);
            story.plis(ALICE);
            story.layer(1, 0, false);
        }
        story.pass(STEP_MS);
        if told_ms.is_some() && key_at_ms.is_none() && !story.plis(ALICE).is_empty() {
            key_at_ms = Some(now_ms + round_trip_ms + KEY_FRAME_MS - 70);
        }
    }
    panic!("never seen");
}

/// A report says that the microphone is that of a speaker.
fn is_active(story: &Story) -> bool {
    let mut events = story.record.events.iter();
    events.any(|event| match event {
        Event::Levels(_, levels) => levels.iter().any(|heard| {
            heard.publication == PublicationId(2)
                && heard.level <= ACTIVE.0
                && heard.medium >= ACTIVE.1
        }),
        _ => false,
    })
}

#[test]
fn who_speaks_again_is_seen_within_half_a_second() {
    let mut worst = (0, 0);
    for phase_ms in (0..140).step_by(STEP_MS as usize) {
        for silent_every_ms in [20, 400] {
            let (told, seen) = onset(phase_ms, 100, silent_every_ms);
            worst = (worst.0.max(told), worst.1.max(seen));
        }
    }
    assert!(worst.0 <= 60, "reported after {} ms", worst.0);
    assert!(worst.1 < 500, "seen after {} ms", worst.1);
    println!("reported after {} ms, seen after {} ms", worst.0, worst.1);
}
