//! Links that are away for some seconds (N8): pictures come back although nobody who watches asks for them.
//!
//! libwebrtc asks, but what it says before an ICE check has been answered is lost, and it asks again every 3 s. So these
//! viewers never ask; how it really goes is in `tests/scenarios/test_bad_links.py`.

use super::*;

const LAYERS: [u64; 3] = [150_000, 500_000, 2_000_000];
const TOP: u8 = 2;
const GOOD_S: u64 = 10;

/// Good, away for so long, good.
fn away(seconds: u64) -> Vec<Phase> {
    let phase = |what, lasts_us, blocked| Phase {
        what,
        lasts_us,
        shape: Shape {
            blocked,
            ..Shape::clean(25_000)
        },
    };
    vec![
        phase("good", GOOD_S * 1_000_000, false),
        phase("nothing passes", seconds * 1_000_000, true),
        phase("good again", u64::MAX, false),
    ]
}

/// A call until the link of one side comes back, and that instant.
fn call(layers: &[u64], outage_s: u64, viewers: usize, is_publisher_away: bool) -> (Call, Micros) {
    let clean = steady(Shape::clean(10_000));
    let (bad, good) = ((away(outage_s), away(outage_s)), (clean.clone(), clean));
    let (upstream, down) = if is_publisher_away {
        (bad, good)
    } else {
        (good, bad)
    };
    let mut call = Call::new(Publisher::new(layers), upstream, vec![down; viewers]);
    for viewer in &mut call.viewers {
        viewer.set_rtt(50_000);
    }
    call.run(GOOD_S);
    for viewer in &mut call.viewers {
        viewer.asks = false;
    }
    call.run(outage_s);
    let back = call.now;
    (call, back)
}

/// Seconds until each viewer saw a picture again.
fn waits(call: &Call, back: Micros) -> Vec<f64> {
    let viewers = call.viewers.iter();
    viewers
        .map(|viewer| {
            let first = viewer.frames.iter().find(|(at, _)| *at >= back);
            first.map_or(f64::INFINITY, |(at, _)| at.since(back) as f64 / 1e6)
        })
        .collect()
}

#[test]
fn n8_after_an_outage_of_a_viewer_pictures_are_back_within_a_second() {
    for outage_s in [2, 3, 10, 25] {
        let (mut call, back) = call(&LAYERS, outage_s, 1, false);
        call.run(15);
        let waits = waits(&call, back);
        assert!(waits[0] <= 1.0, "{outage_s} s: {waits:?}");
        let last = call.viewers[0].frames.last().map(|(_, layer)| *layer);
        assert_eq!(last, Some(TOP), "{outage_s} s");
    }
}

/// The lowest size alone has few packets: its gap is no longer than what is asked for one by one.
#[test]
fn n8_after_an_outage_of_the_publisher_pictures_are_back_within_a_second() {
    for layers in [&LAYERS[..], &LAYERS[..1]] {
        for outage_s in [2, 3, 10, 25] {
            let (mut call, back) = call(layers, outage_s, 2, true);
            let nacked = call.publisher.nacked;
            call.run(10);
            let waits = waits(&call, back);
            let what = format!("{outage_s} s, {} sizes: {waits:?}", layers.len());
            assert!(waits.iter().all(|wait| *wait <= 0.5), "{what}");
            let nacked = call.publisher.nacked - nacked;
            assert_eq!(nacked, 0, "asked for what is gone: {what}");
        }
    }
}

/// S9: the publisher is not asked more often than every half second, however many are back.
#[test]
fn n8_fifty_viewers_who_are_back_at_once_cost_two_key_frames() {
    let (mut call, back) = call(&LAYERS[..1], 10, 50, false);
    let asked = call.publisher.keys_asked;
    call.run(5);
    let waits = waits(&call, back);
    assert!(waits.iter().all(|wait| *wait <= 1.0), "{waits:?}");
    let asked = call.publisher.keys_asked - asked;
    assert!(asked <= 2, "{asked} key frames");
}

/// S9: who is away every other second on purpose costs no more than who asks for key frames.
#[test]
fn n8_a_viewer_who_comes_and_goes_on_purpose_costs_a_key_frame_a_second_at_most() {
    let clean = steady(Shape::clean(10_000));
    let both = (clean.clone(), clean);
    let mut call = Call::new(
        Publisher::new(&LAYERS[..1]),
        both.clone(),
        vec![both.clone(), both],
    );
    call.run(10);
    let asked = call.publisher.keys_asked;
    for _ in 0..20 {
        call.viewers[0].feeds_back = false;
        call.run_ms(1_100);
        call.viewers[0].feeds_back = true;
        call.run_ms(100);
    }
    let asked = call.publisher.keys_asked - asked;
    assert!((10..=24).contains(&asked), "{asked} key frames in 24 s");
    assert!(call.viewers[1]
        .freezes(call.start.plus_ms(10_000))
        .is_empty());
}
