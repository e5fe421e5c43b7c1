//! Sound that repeats itself (RFC 2198): what loss leaves of it (the audio of N2 and N3, MP20).
//!
//! Not here: sound without redundancy, of which the link's loss is lost (`cases`).

use super::cases::{a_minute_of, links, Leg, LAYERS};
use super::*;
use crate::emulator::Loss;

/// A minute of a call where sound repeats so many packets before each one, for a viewer who knows that or does not.
fn minute(leg: Leg, shape: Shape, rtt_ms: u64, repeats: usize, is_known: bool) -> Call {
    let (upstream, viewer) = links(leg, shape);
    let mut publisher = Publisher::new(&LAYERS);
    publisher.repeats = repeats;
    let make = if is_known { Call::redundant } else { Call::new };
    a_minute_of(make(publisher, upstream, vec![viewer]), rtt_ms)
}

/// What cannot be heard of redundant sound: where the viewer takes it, and where the router strips it.
fn unheard(leg: Leg, shape: Shape, rtt_ms: u64, repeats: usize) -> (f64, f64) {
    let [known, stripped] = [true, false].map(|is_known| {
        let call = minute(leg, shape, rtt_ms, repeats, is_known);
        let heard = &call.viewers[0].heard;
        assert!(heard.received() > 2_000, "{leg:?} {is_known}");
        heard.residual()
    });
    (known, stripped)
}

#[test]
fn n2_sound_is_whole_where_it_is_redundant() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(5),
            ..Shape::clean(40_000)
        };
        let (known, stripped) = unheard(leg, shape, 80, 1);
        assert!(known <= 0.01, "{leg:?}: {known}");
        assert!((0.04..=0.06).contains(&stripped), "{leg:?}: {stripped}");
    }
}

#[test]
fn n3_sound_is_whole_where_it_is_redundant() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(10),
            jitter_us: 30_000,
            ..Shape::clean(60_000)
        };
        let (known, stripped) = unheard(leg, shape, 150, 1);
        assert!(known <= 0.03, "{leg:?}: {known}");
        assert!((0.08..=0.115).contains(&stripped), "{leg:?}: {stripped}");
    }
}

/// MP20: of one packet in five that is lost, one repeated block leaves the fifth of a fifth, and two next to nothing.
#[test]
fn twenty_percent_of_loss_are_not_heard_where_sound_is_redundant() {
    for leg in [Leg::Publisher, Leg::Subscriber] {
        let shape = Shape {
            loss: Loss::percent(20),
            ..Shape::clean(30_000)
        };
        for (repeats, most) in [(1, 0.05), (2, 0.012)] {
            let (known, stripped) = unheard(leg, shape, 60, repeats);
            assert!(known <= most, "{leg:?} {repeats}: {known}");
            assert!((0.17..0.23).contains(&stripped), "{leg:?}: {stripped}");
        }
    }
}
