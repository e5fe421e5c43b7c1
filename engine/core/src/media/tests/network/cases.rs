//! The network matrix: what a call must stand (N0 to N10, N12; N11 is the plane's).

use super::viewer::Incoming;
use super::*;
use crate::emulator::Loss;

pub(super) const LAYERS: [u64; 3] = [150_000, 500_000, 2_000_000];
const TOP: u8 = 2;

/// Where the impairment lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leg {
    Publisher,
    Subscriber,
}

pub(super) type Both = (Vec<Phase>, Vec<Phase>);

/// Links of the publisher and of the viewer, one of the two like this in both directions.
pub(super) fn links(leg: Leg, shape: Shape) -> (Both, Both) {
    let clean = steady(Shape::clean(5_000));
    let bad = steady(shape);
    match leg {
        Leg::Publisher => ((bad.clone(), bad), (clean.clone(), clean)),
        Leg::Subscriber => ((clean.clone(), clean), (bad.clone(), bad)),
    }
}

pub(super) fn a_minute_of(mut call: Call, rtt_ms: u64) -> Call {
    call.viewers[0].set_rtt(rtt_ms * 1_000);
    call.run(60);
    call
}

/// A minute of a call with one leg like this.
fn minute(leg: Leg, shape: Shape, rtt_ms: u64) -> Call {
    let (upstream, viewer) = links(leg, shape);
    let call = Call::new(Publisher::new(&LAYERS), upstream, vec![viewer]);
    a_minute_of(call, rtt_ms)
}

fn settled(call: &Call) -> Micros {
    call.start.plus_ms(5_000)
}

pub(super) fn say(what: &str, call: &Call) -> String {
    let viewer = &call.viewers[0];
    format!(
        "{what}: video residual {:.4} %, audio residual {:.2} %, freezes {:?}, frames {}, layer {:?}, estimate {}",
        viewer.video.residual() * 100.0,
        viewer.audio.residual() * 100.0,
        viewer.freezes(settled(call)).iter().map(|(at, gap)| (call.second(*at), gap / 1_000)).collect::<Vec<_>>(),
        viewer.frames.len(),
        viewer.frames.last(),
        call.estimate(0),
    )
}

/// Nothing is held back, nothing waits, nothing is asked for twice.
#[test]
fn n0_a_clean_link_gets_everything_at_once() {
    let call = minute(Leg::Subscriber, Shape::clean(15_000), 30);
    let what = say("clean", &call);
    let viewer = &call.viewers[0];
    assert!(viewer.freezes(settled(&call)).is_empty(), "{what}");
    assert_eq!(viewer.video.residual(), 0.0, "{what}");
    assert_eq!(viewer.audio.residual(), 0.0, "{what}");
    assert_eq!(call.publisher.nacked, 0, "{what}");
    assert_eq!(call.transport(0).paced_us, 0, "{what}");
    assert_eq!(viewer.frames.last().map(|(_, layer)| *layer), Some(TOP));
}

#[test]
fn n1_one_percent_of_loss_is_not_seen() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(1),
            ..Shape::clean(15_000)
        };
        let call = minute(leg, shape, 30);
        let what = say(&format!("{leg:?}"), &call);
        let viewer = &call.viewers[0];
        assert!(viewer.freezes(settled(&call)).is_empty(), "{what}");
        assert!(viewer.video.residual() <= 0.0005, "{what}");
        assert!(
            viewer.frames.last().is_some_and(|(_, layer)| *layer == TOP),
            "{what}"
        );
    }
}

#[test]
fn n2_five_percent_of_loss_are_repaired() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(5),
            ..Shape::clean(40_000)
        };
        let call = minute(leg, shape, 80);
        let what = say(&format!("{leg:?}"), &call);
        let viewer = &call.viewers[0];
        assert!(viewer.freezes(settled(&call)).len() <= 1, "{what}");
        assert!(viewer.video.residual() <= 0.005, "{what}");
        if matches!(leg, Leg::Subscriber) {
            // MP17: what this leg loses is repaired from what is kept here.
            assert!(viewer.video.residual() < 0.001, "{what}");
            assert_eq!(call.publisher.nacked, 0, "{what}");
        }
        // Without redundancy (`redundancy`) nothing beyond the link is lost.
        assert!(viewer.audio.residual() <= 0.06, "{what}");
    }
}

#[test]
fn n3_ten_percent_of_loss_and_jitter_leave_a_picture() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(10),
            jitter_us: 30_000,
            ..Shape::clean(60_000)
        };
        let call = minute(leg, shape, 150);
        let what = say(&format!("{leg:?}"), &call);
        let viewer = &call.viewers[0];
        assert!(viewer.freezes(settled(&call)).len() <= 3, "{what}");
        assert!(viewer.frames.len() > 1_500, "{what}");
        assert!(viewer.audio.residual() <= 0.115, "{what}");
    }
}

/// Chance brings one second in two above ten percent: that is no reason to send less, and layers do not flap.
#[test]
fn n3_random_loss_takes_no_layer_away() {
    let shape = Shape {
        loss: Loss::percent(10),
        jitter_us: 30_000,
        ..Shape::clean(60_000)
    };
    let call = minute(Leg::Subscriber, shape, 150);
    let after = settled(&call);
    let frames = call.viewers[0].frames.iter();
    let layers: Vec<_> = frames
        .filter(|(at, _)| *at >= after)
        .map(|(_, layer)| *layer)
        .collect();
    let switches = layers.windows(2).filter(|two| two[0] != two[1]).count();
    let high = layers.iter().filter(|layer| **layer == TOP).count();
    let what = format!("{switches} switches, {high} of {} high", layers.len());
    assert!(switches <= 2, "{what}");
    assert!(high * 10 >= layers.len() * 9, "{what}");
}

/// What repairs need is said to who negotiated it, unless the publisher knows better, and is unsaid afterwards.
#[test]
fn n3_pictures_on_a_lossy_link_are_held_for_their_repairs() {
    let cushioned: fn(u32) -> SendStream = |base| {
        let mut stream = screen(base);
        stream.extensions.playout_delay = PLAYOUT_DELAY;
        stream
    };
    let bad = Shape {
        loss: Loss::percent(10),
        ..Shape::clean(75_000)
    };
    let phase = |seconds: u64, shape| Phase {
        what: "a stretch",
        lasts_us: seconds * 1_000_000,
        shape,
    };
    let clean = steady(Shape::clean(75_000));
    let down = vec![
        phase(10, Shape::clean(75_000)),
        phase(10, bad),
        phase(60, Shape::clean(75_000)),
    ];
    let mut said = Vec::new();
    for screen in [cushioned, screen] {
        let viewer = (clean.clone(), down.clone());
        let upstream = (clean.clone(), clean.clone());
        let mut call = Call::with(Publisher::new(&LAYERS), upstream, vec![viewer], screen);
        call.viewers[0].set_rtt(150_000);
        for seconds in [9, 7, 9, 10] {
            call.run(seconds);
            said.push(call.viewers[0].delay);
        }
    }
    let held = Some([0x02, 0x83, 0xe8]); // 400 ms to 10 s
    let free = Some([0, 0x03, 0xe8]);
    assert_eq!(said[..4], [None, held, held, free]);
    assert_eq!(said[4..], [None; 4], "not negotiated");
}

/// Native LiveKit clients have no RTX, so libwebrtc pads between the pictures and never repeats that.
#[test]
fn n3_lost_padding_is_neither_asked_for_nor_missed() {
    let shape = Shape {
        loss: Loss::percent(10),
        jitter_us: 30_000,
        ..Shape::clean(60_000)
    };
    let clean = steady(Shape::clean(5_000));
    let bad = steady(shape);
    let mut publisher = Publisher::new(&LAYERS[..1]);
    publisher.pads = 2;
    let mut call = Call::new(publisher, (bad.clone(), bad), vec![(clean.clone(), clean)]);
    call.viewers[0].set_rtt(150_000);
    call.run(60);
    let publisher = &call.publisher;
    let what = format!(
        "{}; of {} asked for {} in vain",
        say("padded", &call),
        publisher.nacked,
        publisher.in_vain
    );
    let viewer = &call.viewers[0];
    assert!(viewer.video.residual() <= 0.0005, "{what}");
    assert!(publisher.in_vain * 4 <= publisher.nacked, "{what}");
}

#[test]
fn n4_bursts_of_loss_leave_sound() {
    let shape = Shape {
        loss: Loss::bursts(20, 5),
        ..Shape::clean(30_000)
    };
    let call = minute(Leg::Subscriber, shape, 60);
    let what = say("bursts", &call);
    let viewer = &call.viewers[0];
    assert!(viewer.audio.residual() <= 0.23, "{what}");
    assert!(
        viewer
            .audio
            .last
            .is_some_and(|at| call.now.since(at) < 500_000),
        "{what}"
    );
    assert!(
        viewer
            .video
            .last
            .is_some_and(|at| call.now.since(at) < 5_000_000),
        "{what}"
    );
    assert!(call.estimate(0) >= 250_000, "{what}");
}

#[test]
fn n5_reordering_is_not_loss() {
    let shape = Shape {
        reorder: 300_000,
        reorder_us: 50_000,
        ..Shape::clean(20_000)
    };
    let call = minute(Leg::Publisher, shape, 40);
    let publisher = &call.publisher;
    let what = format!("{} of {}", publisher.nacked, publisher.packets);
    assert!(publisher.nacked * 50 <= publisher.packets, "{what}");
    assert!(call.viewers[0].video.residual() <= 0.0005);
}

#[test]
fn n6_a_link_that_narrows_is_met_in_time_and_left_in_time() {
    let phase = |what, seconds: u64, rate_bps| Phase {
        what,
        lasts_us: seconds * 1_000_000,
        shape: Shape {
            rate_bps,
            queue_us: 2_000_000,
            ..Shape::clean(20_000)
        },
    };
    let down = vec![
        phase("wide enough", 20, 4_000_000),
        phase("an eighth is left", 30, 500_000),
        phase("wide again", 60, 4_000_000),
    ];
    let clean = steady(Shape::clean(20_000));
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(Publisher::new(&LAYERS), upstream, vec![(clean, down)]);
    call.viewers[0].set_rtt(40_000);
    call.run(80);
    let viewer = &call.viewers[0];
    let layer_at = |second: u64| {
        let until = call.start.plus_ms(second * 1_000);
        let mut frames = viewer.frames.iter().filter(|(at, _)| *at < until);
        frames.next_back().map(|(_, layer)| *layer)
    };
    let log = format!(
        "kbit/s {:?}\nqueue ms {:?}\nlayers {:?}\nevents {:?}",
        viewer
            .video
            .bytes
            .iter()
            .map(|bytes| bytes / 125)
            .collect::<Vec<_>>(),
        call.queues[0]
            .iter()
            .map(|us| us / 1_000)
            .collect::<Vec<_>>(),
        (1..80).map(layer_at).collect::<Vec<_>>(),
        call.events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Paused(_) | Event::Resumed(_)))
            .collect::<Vec<_>>(),
    );
    assert_eq!(layer_at(10), Some(TOP), "{log}");
    assert_eq!(layer_at(20), Some(TOP), "{log}");
    let narrow = &call.queues[0][23..50];
    assert!(narrow.iter().all(|us| *us <= 300_000), "{log}");
    let passed = |from: usize, to: usize| {
        viewer.video.bytes[from..to].iter().sum::<u64>() * 8 / (to - from) as u64
    };
    assert!(passed(23, 50) <= 500_000, "{log}");
    assert!(passed(23, 50) >= 120_000, "{log}");
    assert_eq!(layer_at(60), Some(TOP), "{log}");
    // And it stays there.
    let after = viewer
        .frames
        .iter()
        .filter(|(at, _)| *at > call.start.plus_ms(60_000));
    assert!(
        after.clone().filter(|(_, layer)| *layer == TOP).count() * 10 >= after.count() * 9,
        "{log}"
    );
}

#[test]
fn n7_a_narrow_receiver_costs_the_other_nothing() {
    let run = |narrow_bps: Option<u64>| {
        let clean = steady(Shape::clean(15_000));
        let mut viewers = vec![(clean.clone(), clean.clone())];
        if let Some(rate_bps) = narrow_bps {
            let narrow = Shape {
                rate_bps,
                ..Shape::clean(15_000)
            };
            viewers.push((clean.clone(), steady(narrow)));
        }
        let upstream = (clean.clone(), clean);
        let mut call = Call::new(Publisher::new(&LAYERS), upstream, viewers);
        call.run(8);
        // What it costs to find out about a link is not what it costs to know.
        for viewer in &mut call.viewers {
            viewer.audio = Incoming::default();
        }
        call.run(32);
        call
    };
    let bytes = |call: &Call| call.viewers[0].video.bytes[5..].iter().sum::<u64>() as f64;
    let (alone, both) = (run(None), run(Some(300_000)));
    let ratio = bytes(&both) / bytes(&alone);
    assert!((0.95..=1.05).contains(&ratio), "{ratio}");
    let narrow = &both.viewers[1];
    let passed = narrow.video.bytes[10..40].iter().sum::<u64>() * 8 / 30;
    assert!((100_000..=300_000).contains(&passed), "{passed}");
    assert!(
        narrow.audio.residual() <= 0.05,
        "{}",
        narrow.audio.residual()
    );
}

/// Without UDP media comes over TCP: nothing is lost, but all waits while a segment is sent again.
#[test]
fn n12_a_pipe_that_stalls_and_loses_nothing_keeps_its_picture() {
    let phase = |what, ms: u64, latency_us| Phase {
        what,
        lasts_us: ms * 1_000,
        shape: Shape::clean(latency_us),
    };
    let mut down = Vec::new();
    for _ in 0..25 {
        down.push(phase("flows", 2_000, 20_000));
        down.push(phase("a segment is sent again", 60, 140_000));
    }
    down.push(phase("flows", 1_000, 20_000));
    let clean = steady(Shape::clean(20_000));
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(Publisher::new(&LAYERS), upstream, vec![(clean, down)]);
    call.viewers[0].set_rtt(40_000);
    call.run(50);
    let what = say("stalls", &call);
    let viewer = &call.viewers[0];
    assert_eq!(viewer.audio.residual(), 0.0, "{what}");
    assert!(viewer.freezes(settled(&call)).len() <= 1, "{what}");
    let paused = call
        .events
        .iter()
        .any(|(_, event)| matches!(event, Event::Paused(_)));
    assert!(!paused, "{what}");
    let from = settled(&call);
    let layers = viewer.frames.iter().filter(|(at, _)| *at >= from);
    let good = layers.clone().filter(|(_, layer)| *layer >= 1).count();
    assert!(good * 10 >= layers.count() * 9, "{what}");
}

#[test]
fn n10_duplicates_are_not_forwarded() {
    let shape = Shape {
        duplicate: 50_000,
        ..Shape::clean(20_000)
    };
    let call = minute(Leg::Publisher, shape, 40);
    let viewer = &call.viewers[0];
    assert!(call.links[&ALICE].up.fate.doubled > 500);
    assert_eq!((viewer.video.doubles, viewer.audio.doubles), (0, 0));
    assert!(viewer.video.received() > 10_000);
}

#[test]
fn a_peer_that_only_knows_remb_is_believed_where_it_limits() {
    let clean = steady(Shape::clean(15_000));
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(
        Publisher::new(&LAYERS),
        upstream,
        vec![(clean.clone(), clean)],
    );
    call.viewers[0].feeds_back = false;
    call.run(5);
    assert_eq!(
        call.viewers[0].frames.last().map(|(_, layer)| *layer),
        Some(TOP)
    );
    call.viewers[0].remb_bps = 700_000;
    call.run(5);
    assert_eq!(
        call.viewers[0].frames.last().map(|(_, layer)| *layer),
        Some(1)
    );
    call.viewers[0].remb_bps = 5_000_000;
    call.run(40);
    assert_eq!(
        call.viewers[0].frames.last().map(|(_, layer)| *layer),
        Some(TOP)
    );
}

/// COMPAT: aiortc 1.16 and GStreamer tell about one and a half times what arrives, so a quiet picture makes
/// them tell next to nothing; a pause would silence their feedback and never end.
#[test]
fn a_low_remb_alone_never_takes_the_picture_away() {
    let clean = steady(Shape::clean(15_000));
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(
        Publisher::new(&LAYERS),
        upstream,
        vec![(clean.clone(), clean)],
    );
    call.viewers[0].feeds_back = false;
    call.viewers[0].remb_bps = 60_000;
    call.run(20);
    let frames = call.viewers[0].frames.len();
    call.run(5);
    assert!(call.viewers[0].frames.len() > frames + 50);
    assert_eq!(
        call.viewers[0].frames.last().map(|(_, layer)| *layer),
        Some(0)
    );
}

/// Such a peer behind a link that carries sound and little else: sound alone, and pictures again when they fit.
#[test]
fn a_peer_that_only_knows_remb_keeps_sound_where_pictures_drown() {
    let clean = steady(Shape::clean(15_000));
    let phase = |what, seconds: u64, rate_bps| Phase {
        what,
        lasts_us: seconds * 1_000_000,
        shape: Shape {
            rate_bps,
            queue_us: 200_000,
            ..Shape::clean(15_000)
        },
    };
    let down = vec![
        phase("enough", 10, 3_000_000),
        phase("for sound", 80, 100_000),
        phase("enough again", 200, 3_000_000),
    ];
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(Publisher::new(&LAYERS), upstream, vec![(clean, down)]);
    call.viewers[0].feeds_back = false;
    call.viewers[0].remb_bps = 90_000;
    call.run(10);
    let counted = |call: &Call, wanted: fn(&Event) -> bool| {
        call.events.iter().filter(|(_, one)| wanted(one)).count()
    };
    let paused = |one: &Event| matches!(one, Event::Paused(_));
    let resumed = |one: &Event| matches!(one, Event::Resumed(_));
    assert_eq!(counted(&call, paused), 0, "a number alone");
    call.run(20);
    assert!(counted(&call, paused) >= 1);
    let heard = call.viewers[0].audio.received();
    call.run(60);
    // 50 a second. Each try of a picture costs a few seconds of it, and tries become rare.
    assert!(call.viewers[0].audio.received() - heard > 2_600);
    assert!(counted(&call, paused) <= 4);
    call.run(80);
    assert_eq!(counted(&call, paused), counted(&call, resumed));
    let frames = call.viewers[0].frames.len();
    call.run(10);
    assert!(call.viewers[0].frames.len() > frames + 100);
    assert!(counted(&call, paused) <= 5);
}

#[test]
fn a_single_size_that_does_not_fit_is_paused_and_resumed() {
    let phase = |what, seconds: u64, rate_bps| Phase {
        what,
        lasts_us: seconds * 1_000_000,
        shape: Shape {
            rate_bps,
            ..Shape::clean(15_000)
        },
    };
    let down = vec![
        phase("wide", 10, 3_000_000),
        phase("only sound fits", 20, 200_000),
        phase("wide again", 60, 3_000_000),
    ];
    let clean = steady(Shape::clean(15_000));
    let upstream = (clean.clone(), clean.clone());
    let mut call = Call::new(Publisher::new(&[1_000_000]), upstream, vec![(clean, down)]);
    call.run(60);
    let told: Vec<_> = call
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Paused(id) => Some((call.second(*at), *id, true)),
            Event::Resumed(id) => Some((call.second(*at), *id, false)),
            _ => None,
        })
        .collect();
    let [(paused, video, true), (resumed, again, false)] = told[..] else {
        panic!("{told:?}, {}", say("", &call));
    };
    assert_eq!((video, again), (SubscriptionId(101), SubscriptionId(101)));
    assert!((10.0..16.0).contains(&paused), "{told:?}");
    assert!((30.0..40.0).contains(&resumed), "{told:?}");
    let viewer = &call.viewers[0];
    assert!(viewer
        .frames
        .last()
        .is_some_and(|(at, _)| call.now.since(*at) < 500_000));
}

/// A link that was narrow from the start: found out within three seconds, and hardly a packet is dropped from then on.
#[test]
fn a_link_narrow_from_the_start_is_met_within_three_seconds() {
    let narrow = Shape {
        rate_bps: 500_000,
        ..Shape::clean(20_000)
    };
    let clean = steady(Shape::clean(20_000));
    let upstream = (clean.clone(), clean.clone());
    let viewer = (clean, steady(narrow));
    let mut call = Call::new(Publisher::new(&LAYERS), upstream, vec![viewer]);
    call.run(3);
    let sent_before = call.links[&call.viewers[0].id].down.fate;
    call.run(20);
    let fate = call.links[&call.viewers[0].id].down.fate;
    let dropped = fate.overflowed - sent_before.overflowed;
    let sent = fate.sent - sent_before.sent;
    assert!(
        dropped * 50 <= sent,
        "{dropped} of {sent} after three seconds"
    );
}
