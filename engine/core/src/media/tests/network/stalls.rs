//! Layers that stop without a word, and pictures that only stand still (MP62).

use super::*;

const LAYERS: [u64; 3] = [150_000, 500_000, 2_000_000];
const TOP: u8 = 2;

fn call() -> Call {
    let clean = steady(Shape::clean(20_000));
    let both = (clean.clone(), clean);
    let mut call = Call::new(Publisher::new(&LAYERS), both.clone(), vec![both]);
    call.viewers[0].set_rtt(40_000);
    call
}

fn shown(call: &Call) -> Option<u8> {
    call.viewers[0].frames.last().map(|(_, layer)| *layer)
}

/// How often the layer changed since.
fn switches(call: &Call, from: Micros) -> usize {
    let frames = call.viewers[0].frames.iter();
    let layers: Vec<_> = frames.filter(|(at, _)| *at >= from).collect();
    layers
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].1)
        .count()
}

#[test]
fn when_a_layer_stops_without_a_word_the_next_is_seen_within_a_second() {
    for phase_ms in [0, 60, 120, 180, 240] {
        let mut call = call();
        call.run(10);
        call.run_ms(phase_ms);
        assert_eq!(shown(&call), Some(TOP));
        call.publisher.stops_at = 2;
        let stopped = call.now;
        call.run(3);
        let lower = call.viewers[0].frames.iter().find(|(_, layer)| *layer == 1);
        let after_ms = lower.map(|(at, _)| at.since(stopped) / 1_000);
        assert!(after_ms.is_some_and(|ms| ms <= 1_000), "{after_ms:?} ms");
        assert_eq!(switches(&call, stopped), 1);
        // And it is taken again when it comes again.
        call.publisher.stops_at = usize::MAX;
        call.run(2);
        assert_eq!(shown(&call), Some(TOP));
    }
}

#[test]
fn a_screen_of_few_frames_keeps_its_layer() {
    for frames_per_s in [1, 2, 5] {
        let mut call = call();
        call.publisher.frame_us = 1_000_000 / frames_per_s;
        call.run(10);
        assert_eq!(shown(&call), Some(TOP), "{frames_per_s} fps");
        let from = call.now;
        call.run(30);
        assert_eq!(switches(&call, from), 0, "{frames_per_s} fps");
        assert!(call.viewers[0].frames.len() as u64 >= 35 * frames_per_s);
    }
}

#[test]
fn a_picture_that_stands_still_or_an_outage_stops_no_layer() {
    let mut call = call();
    call.run(10);
    let (from, asked) = (call.now, call.publisher.keys_asked);
    for still_ms in [400, 700, 1_500, 5_000] {
        call.publisher.stops_at = 0;
        call.run_ms(still_ms);
        call.publisher.stops_at = usize::MAX;
        call.run(2);
    }
    assert_eq!(switches(&call, from), 0);
    assert_eq!(
        call.publisher.keys_asked, asked,
        "nobody needed a key frame"
    );
}
