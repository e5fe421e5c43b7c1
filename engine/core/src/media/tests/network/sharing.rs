//! What one link gets of a room: pacing, hysteresis, audio only, who goes first (MP22, MP25, MP26, MP28 to MP31).

use super::viewer::Incoming;
use super::*;

const LAYERS: [u64; 3] = [150_000, 500_000, 2_000_000];

fn limited(rate_bps: u64) -> Shape {
    Shape {
        rate_bps,
        ..Shape::clean(20_000)
    }
}

fn call(layers: &[u64], down: Vec<Phase>) -> Call {
    let clean = steady(Shape::clean(10_000));
    Call::new(
        Publisher::new(layers),
        (clean.clone(), clean.clone()),
        vec![(clean, down)],
    )
}

fn phase(what: &'static str, seconds: u64, shape: Shape) -> Phase {
    Phase {
        what,
        lasts_us: seconds * 1_000_000,
        shape,
    }
}

/// MP28: on a link that is the limit a key frame leaves at one and a half times the estimate.
#[test]
fn a_key_frame_leaves_no_faster_than_one_and_a_half_times_the_estimate() {
    let mut call = call(&LAYERS, steady(limited(650_000)));
    call.run(15);
    let (mut over, mut longest) = (0, 0);
    for _ in 0..20 {
        call.publisher.renew();
        let estimate = call.estimate(0);
        let before = call.links[&call.viewers[0].id].down.fate.sent_bytes;
        call.run_ms(50);
        let bps = (call.links[&call.viewers[0].id].down.fate.sent_bytes - before) * 8 * 20;
        // Sound, and what may leave at once, come on top; a probe is meant to be more.
        over += u32::from(bps > estimate * 3 / 2 + 250_000);
        call.run_ms(950);
        longest = longest.max(call.transport(0).paced_us);
    }
    assert!(over <= 3, "{over} of 20 key frames left at once");
    assert!((5_000..500_000).contains(&longest), "waited {longest} us");
    assert_eq!(call.transport(0).paced_dropped, 0);
}

/// MP29.
#[test]
fn a_link_that_breathes_by_ten_percent_flaps_nobody() {
    let mut down = vec![phase("steady", 20, limited(900_000))];
    for _ in 0..30 {
        down.push(phase("a little more", 1, limited(990_000)));
        down.push(phase("a little less", 1, limited(810_000)));
    }
    let mut call = call(&LAYERS, down);
    call.run(80);
    let viewer = &call.viewers[0];
    let from = call.start.plus_ms(20_000);
    let frames = viewer.frames.iter().filter(|(at, _)| *at >= from);
    let layers: Vec<_> = frames.map(|(_, layer)| *layer).collect();
    let switches = layers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(switches <= 2, "{switches} switches in a minute");
    assert_eq!(layers.last(), Some(&1));
}

/// MP30: 80 kbit/s carry sound and nothing else.
#[test]
fn below_the_lowest_layer_there_is_sound_alone_and_pictures_come_back() {
    let down = vec![
        phase("wide", 10, limited(4_000_000)),
        phase("sound fits", 30, limited(80_000)),
        phase("wide again", 60, limited(4_000_000)),
    ];
    let mut call = call(&LAYERS, down);
    call.run(20);
    // It is found out by now: from here on sound is whole.
    call.viewers[0].audio = Incoming::default();
    call.run(20);
    let told = |call: &Call| -> Vec<_> {
        let events = call.events.iter();
        events
            .filter_map(|(at, event)| match event {
                Event::Paused(_) => Some((call.second(*at), true)),
                Event::Resumed(_) => Some((call.second(*at), false)),
                _ => None,
            })
            .collect()
    };
    let early = told(&call);
    let lost = call.viewers[0].audio.residual();
    assert!(lost <= 0.01, "{lost} of sound, {early:?}");
    assert!(
        early.iter().any(|(at, paused)| *paused && *at < 17.0),
        "{early:?}"
    );
    let video = call.viewers[0].video.bytes.iter().skip(25);
    assert!(video.sum::<u64>() * 8 / 15 < 40_000);
    call.run(20);
    let all = told(&call);
    assert!(
        matches!(all.last(), Some((at, false)) if (40.0..50.0).contains(at)),
        "{all:?}"
    );
    let shown = call.viewers[0].frames.last().map(|(_, layer)| *layer);
    assert_eq!(shown, Some(2), "{all:?}");
}

/// MP25: a queue that grows is believed before anything is lost.
#[test]
fn a_growing_queue_lowers_the_estimate_before_loss() {
    let narrow = Shape {
        queue_us: 5_000_000,
        ..limited(700_000)
    };
    let down = vec![
        phase("wide", 10, limited(4_000_000)),
        phase("deep queue", 60, narrow),
    ];
    let mut call = call(&LAYERS, down);
    call.run(10);
    let before = call.estimate(0);
    call.run(3);
    let fate = call.links[&call.viewers[0].id].down.fate;
    assert_eq!(fate.overflowed, 0);
    assert!(
        call.estimate(0) < before * 2 / 3,
        "{before} {}",
        call.estimate(0)
    );
}

/// MP24: what chance does not explain as a loss of one in ten lowers what is believed. One in ten by chance does not:
/// sending less helps nobody then, and pictures stay (N3).
#[test]
fn loss_beyond_a_tenth_lowers_the_estimate_within_two_seconds() {
    for (percent, is_lowered) in [(10, false), (15, true), (20, true)] {
        let lossy = Shape {
            loss: crate::emulator::Loss::percent(percent),
            ..limited(4_000_000)
        };
        let down = vec![
            phase("clean", 10, limited(4_000_000)),
            phase("lossy", 60, lossy),
        ];
        let mut call = call(&LAYERS, down);
        call.run(10);
        let before = call.estimate(0);
        call.run(2);
        let after = call.estimate(0);
        let what = format!("{percent} %: {before} {after}");
        if is_lowered {
            assert!(after * 3 <= before * 2, "{what}");
        } else {
            assert_eq!(after, before, "{what}");
        }
    }
}

/// MP23: what fits is found and shown, and no queue stands before the link. While a probe that does not fit is under way
/// the estimate is down to what pictures need, for a tenth of a second; then it is what the probe found.
#[test]
fn a_megabit_is_known_within_ten_seconds_and_no_queue_stands_before_it() {
    for queue_us in [300_000, 2_000_000] {
        let narrow = Shape {
            queue_us,
            ..limited(1_000_000)
        };
        let mut call = call(&LAYERS, steady(narrow));
        call.viewers[0].set_rtt(40_000);
        call.run(9);
        let mut known = Vec::new();
        for _ in 0..300 {
            call.run_ms(100);
            known.push(call.estimate(0) / 1_000);
        }
        let mean = known.iter().sum::<u64>() / known.len() as u64;
        let queues = &call.queues[0];
        let what = format!("kbit/s {known:?}, {mean} of them, queues us {queues:?}");
        assert!(
            known.iter().all(|kbps| (540..=1_200).contains(kbps)),
            "{what}"
        );
        let low = known.iter().filter(|kbps| **kbps < 800).count();
        assert!(low <= 10, "{low} of {what}");
        assert!((840..=1_200).contains(&mean), "{what}");
        assert!(queues[3..].iter().all(|us| *us < 150_000), "{what}");
        let from = call.start.plus_ms(10_000);
        let frames = call.viewers[0].frames.iter();
        let shown = frames.filter(|(at, _)| *at >= from);
        let layers: Vec<_> = shown.map(|(_, layer)| *layer).collect();
        let middle = layers.iter().filter(|layer| **layer == 1).count();
        assert!(
            middle > 840 && middle == layers.len(),
            "{what} {middle} {}",
            layers.len()
        );
    }
}

/// MP22: a peer that knows nothing but REMB.
#[test]
fn a_remb_of_300_kbit_is_met_within_five_seconds() {
    let mut call = call(&LAYERS, steady(Shape::clean(20_000)));
    call.viewers[0].feeds_back = false;
    call.run(10);
    call.viewers[0].remb_bps = 300_000;
    call.run(5);
    let seconds = call.viewers[0].video.bytes.len();
    call.run(5);
    let video = &call.viewers[0].video.bytes[seconds..];
    assert!(video.iter().all(|bytes| bytes * 8 <= 300_000), "{video:?}");
}

/// MP26: a REMB beside transport-wide feedback is a ceiling, and no more than that.
#[test]
fn a_remb_beside_feedback_is_a_ceiling() {
    let mut call = call(&LAYERS, steady(Shape::clean(20_000)));
    call.run(10);
    assert!(call.estimate(0) > 2_000_000);
    call.viewers[0].remb_bps = 700_000;
    call.run(10);
    let bits = &call.viewers[0].video.bytes[13..20];
    assert!(bits.iter().all(|bytes| bytes * 8 <= 700_000), "{bits:?}");
    call.viewers[0].remb_bps = 0;
    call.run(20);
    let shown = call.viewers[0].frames.last().map(|(_, layer)| *layer);
    assert_eq!(shown, Some(2), "forgotten when it is not repeated");
}

/// Bits that left for the first viewer in each of so many seconds, with IP and UDP around them.
fn egress(call: &mut Call, seconds: u64) -> Vec<u64> {
    let id = call.viewers[0].id;
    let sent = |call: &Call| {
        let fate = call.links[&id].down.fate;
        fate.sent_bytes + 28 * fate.sent
    };
    (0..seconds)
        .map(|_| {
            let before = sent(call);
            call.run(1);
            (sent(call) - before) * 8
        })
        .collect()
}

/// MP32: what a client wants at most is kept, whether it tells of its link or not, and as long as it wants it.
#[test]
fn a_budget_is_kept_and_lifted() {
    for feeds_back in [true, false] {
        let mut call = call(&LAYERS, steady(Shape::clean(20_000)));
        call.viewers[0].feeds_back = feeds_back;
        call.run(8);
        for budget in [800_000, 500_000, 100_000] {
            call.router.set_budget(call.viewers[0].id, budget);
            call.run(3);
            let bits = egress(&mut call, 10);
            let what = format!("{feeds_back} {budget}: {bits:?}");
            assert!(bits.iter().all(|bits| *bits <= budget), "{what}");
            if budget > 250_000 {
                assert!(bits.iter().all(|bits| *bits >= budget / 4), "{what}");
            }
            assert_eq!(call.viewers[0].audio.residual(), 0.0, "{what}");
        }
        call.router.set_budget(call.viewers[0].id, 0);
        call.run(10);
        let shown = call.viewers[0].frames.last().copied();
        assert_eq!(shown.map(|(_, layer)| layer), Some(2), "{feeds_back}");
        assert!(shown.is_some_and(|(at, _)| call.now.since(at) < 500_000));
    }
}

/// What was hardly anything leaves no debt behind.
#[test]
fn a_budget_of_next_to_nothing_is_forgotten_when_it_is_lifted() {
    let mut call = call(&LAYERS, steady(limited(900_000)));
    call.run(15);
    call.router.set_budget(call.viewers[0].id, 1);
    call.run(5);
    let frames = call.viewers[0].frames.len();
    call.run(3);
    assert_eq!(call.viewers[0].frames.len(), frames, "no picture fits");
    call.router.set_budget(call.viewers[0].id, 0);
    call.run(10);
    let shown = call.viewers[0].frames.last().copied();
    assert_eq!(shown.map(|(_, layer)| layer), Some(1));
    assert!(shown.is_some_and(|(at, _)| call.now.since(at) < 500_000));
}

/// A budget that does not bind changes nothing, and raises nothing.
#[test]
fn a_generous_budget_widens_no_link() {
    let mut call = call(&LAYERS, steady(limited(900_000)));
    call.router.set_budget(call.viewers[0].id, 50_000_000);
    call.run(15);
    assert!(call.estimate(0) < 1_100_000, "{}", call.estimate(0));
    let shown = call.viewers[0].frames.last().map(|(_, layer)| *layer);
    assert_eq!(shown, Some(1));
}

/// The same screen without RTX and NACK, which is what lets it be padded.
fn bare(ssrc: u32) -> SendStream {
    let plain = Codec {
        nack: false,
        rtx: None,
        ..vp8(100, None)
    };
    SendStream {
        codecs: vec![plain],
        rtx_ssrc: 0,
        ..screen(ssrc)
    }
}

fn steps_up() -> Vec<Phase> {
    vec![
        phase("narrow", 20, limited(500_000)),
        phase("wide", 60, limited(4_000_000)),
    ]
}

/// MP28: probes find out about a link that became wider, with what the peer has: RTX or padding among its pictures.
#[test]
fn a_probe_raises_the_estimate_after_a_bandwidth_step_up() {
    for screen in [screen, bare] {
        let clean = steady(Shape::clean(10_000));
        let upstream = (clean.clone(), clean.clone());
        let viewers = vec![(clean, steps_up())];
        let mut call = Call::with(Publisher::new(&LAYERS), upstream, viewers, screen);
        call.run(20);
        let (before, padding) = (call.estimate(0), call.viewers[0].padding);
        call.run(10);
        let after = call.estimate(0);
        assert!(before < 600_000 && after > 2_000_000, "{before} {after}");
        let shown = call.viewers[0].frames.last().map(|(_, layer)| *layer);
        assert_eq!(shown, Some(2));
        if screen(2).rtx_ssrc == 0 {
            assert!(call.viewers[0].padding > padding + 20);
        }
    }
}

/// Padding among pictures harms nobody: not a number is missing or there twice, not a picture is late, also where the
/// publisher's packets come out of order and some of them late.
#[test]
fn padding_among_pictures_is_not_noticed() {
    for (loss, reorder) in [(0, 0), (2, 0), (0, 100_000)] {
        let rough = steady(Shape {
            loss: crate::emulator::Loss::percent(loss),
            reorder,
            reorder_us: 30_000,
            ..Shape::clean(10_000)
        });
        let clean = steady(Shape::clean(10_000));
        // Wide enough for the middle layer and too narrow for the top one: probes for ever.
        let viewers = vec![(clean.clone(), steady(limited(1_500_000)))];
        let mut call = Call::with(Publisher::new(&LAYERS), (rough, clean), viewers, bare);
        call.viewers[0].nacks = false;
        call.run(15);
        let lost = call.links[&call.viewers[0].id].down.fate.overflowed;
        let padding = call.viewers[0].padding;
        call.viewers[0].video = Incoming::default();
        call.run(45);
        let viewer = &call.viewers[0];
        let what = format!("loss {loss} reorder {reorder}");
        assert!(viewer.padding > padding + 100, "{what}: {}", viewer.padding);
        assert_eq!(viewer.video.doubles, 0, "{what}");
        let dropped = call.links[&viewer.id].down.fate.overflowed - lost;
        let missing = viewer.video.residual() * viewer.video.received() as f64;
        assert!(
            missing <= dropped as f64 + 20.0,
            "{what}: {missing} {dropped}"
        );
        assert!(
            viewer.frames.len() > 1_700,
            "{what}: {}",
            viewer.frames.len()
        );
    }
}
