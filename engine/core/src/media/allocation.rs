//! What a subscriber's streams get of its budget: arithmetic over measured layer bitrates.
//!
//! First everybody's lowest layer in order of priority, then upwards: a higher priority takes all it wants
//! before the next gets more than its lowest layer; equals rise in turn. Audio is not here: it is never held
//! back, the caller takes it off the budget first.
//! Not here: who has which priority (`sfu`), when a grant takes effect (`congestion`).

use super::layers::choose;
use super::publication::NONE;
use super::steps::{Steps, MAX_STEPS};

/// Something more than it has must fit with this room to spare, percent ...
const RISE_PERCENT: u64 = 110;
/// ... and what it has may be this much too large before it goes: estimates breathe.
const KEEP_PERCENT: u64 = 95;

/// One video stream that somebody wants and somebody sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Slot of the subscription.
    pub sub: u32,
    /// Higher first.
    pub priority: u8,
    /// Bits per second of each step (`steps`), which are the layers of this file.
    pub rates: [u64; MAX_STEPS],
    /// Layers that are sent, a bit each.
    pub live: Steps,
    /// Highest layer wished for.
    pub max: u8,
    /// Layer granted before, `NONE` = paused.
    pub had: u8,
    /// The result: layer granted or `NONE`.
    pub granted: u8,
}

impl Stream {
    /// The layer it would have on a link without limits.
    #[must_use]
    pub const fn wish(&self) -> u8 {
        choose(self.live, self.max)
    }

    /// Bits per second of a layer.
    #[must_use]
    pub fn rate(&self, layer: u8) -> u64 {
        self.rates
            .get(usize::from(layer))
            .copied()
            .unwrap_or_default()
    }

    /// What a layer counts for, so that a border case does not flap.
    fn cost(&self, layer: u8) -> u64 {
        let had = self.had != NONE && layer <= self.had;
        self.rate(layer) * if had { KEEP_PERCENT } else { RISE_PERCENT } / 100
    }

    /// The next live layer above, up to the wish.
    fn above(&self, layer: u8) -> Option<u8> {
        (layer + 1..=self.wish()).find(|next| self.live >> next & 1 == 1)
    }

    /// The lowest live layer; the wish if that is the only one there is.
    pub const fn lowest(&self) -> u8 {
        let lowest = self.live.trailing_zeros() as u8;
        if lowest > self.wish() {
            self.wish()
        } else {
            lowest
        }
    }
}

/// Divide a budget; sorts the streams by priority.
pub fn share(budget_bps: u64, streams: &mut [Stream]) {
    streams.sort_unstable_by_key(|stream| (u8::MAX - stream.priority, stream.sub));
    let mut left = budget_bps;
    for stream in streams.iter_mut() {
        stream.granted = NONE;
        let lowest = stream.lowest();
        if stream.wish() != NONE && stream.cost(lowest) <= left {
            left -= stream.cost(lowest);
            stream.granted = lowest;
        }
    }
    for equals in streams.chunk_by_mut(|a, b| a.priority == b.priority) {
        let mut rose = true;
        while rose {
            rose = false;
            for stream in equals.iter_mut().filter(|stream| stream.granted != NONE) {
                let Some(next) = stream.above(stream.granted) else {
                    continue;
                };
                let more = stream
                    .cost(next)
                    .saturating_sub(stream.cost(stream.granted));
                if more <= left {
                    left -= more;
                    stream.granted = next;
                    rose = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates(lowest: [u64; 3]) -> [u64; MAX_STEPS] {
        let mut rates = [0; MAX_STEPS];
        rates[..3].copy_from_slice(&lowest);
        rates
    }

    fn camera(sub: u32, priority: u8) -> Stream {
        Stream {
            sub,
            priority,
            rates: rates([150_000, 500_000, 2_000_000]),
            live: 0b111,
            max: 2,
            had: NONE,
            granted: NONE,
        }
    }

    fn granted(budget: u64, mut streams: Vec<Stream>) -> Vec<(u32, u8)> {
        share(budget, &mut streams);
        let mut all: Vec<_> = streams.iter().map(|s| (s.sub, s.granted)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn everybody_is_seen_before_anybody_is_sharp() {
        let room: Vec<_> = (0..4).map(|sub| camera(sub, 1)).collect();
        assert_eq!(
            granted(700_000, room.clone()),
            [(0, 0), (1, 0), (2, 0), (3, 0)]
        );
        assert_eq!(
            granted(2_300_000, room.clone()),
            [(0, 1), (1, 1), (2, 1), (3, 1)]
        );
        assert_eq!(
            granted(400_000, room),
            [(0, 0), (1, 0), (2, NONE), (3, NONE)]
        );
    }

    #[test]
    fn the_speaker_takes_what_the_others_could_rise_by() {
        let room = vec![camera(0, 1), camera(1, 9), camera(2, 1)];
        assert_eq!(granted(2_700_000, room.clone()), [(0, 0), (1, 2), (2, 0)]);
        assert_eq!(granted(200_000, room), [(0, NONE), (1, 0), (2, NONE)]);
    }

    /// MP31: six tracks, 800 kbit/s; the shared screen first, then in the order that was declared.
    #[test]
    fn the_screen_is_readable_and_the_last_in_order_are_paused_first() {
        let screen = Stream {
            live: 1,
            rates: rates([400_000, 0, 0]),
            ..camera(0, 200)
        };
        let room = |budget| {
            let cameras = (1..6).map(|sub| camera(sub, 100 - sub as u8));
            granted(budget, std::iter::once(screen).chain(cameras).collect())
        };
        let paused = |budget| -> Vec<u32> {
            let all = room(budget).into_iter();
            all.filter(|(_, layer)| *layer == NONE)
                .map(|(sub, _)| sub)
                .collect()
        };
        assert_eq!(paused(800_000), [3, 4, 5]);
        assert_eq!(paused(500_000), [1, 2, 3, 4, 5]);
        assert_eq!(paused(1_200_000), [5]);
        for budget in (450_000..4_000_000).step_by(10_000) {
            let out = paused(budget);
            let last = 6 - out.len() as u32..6;
            assert_eq!(out, last.collect::<Vec<_>>(), "at {budget}");
        }
    }

    #[test]
    fn a_border_case_stays_what_it_is() {
        let mut stream = camera(0, 1);
        assert_eq!(granted(2_050_000, vec![stream]), [(0, 1)]);
        stream.had = 2;
        assert_eq!(granted(2_050_000, vec![stream]), [(0, 2)]);
        assert_eq!(granted(1_920_000, vec![stream]), [(0, 2)]);
        assert_eq!(granted(1_880_000, vec![stream]), [(0, 1)]);
    }

    #[test]
    fn a_single_size_flows_or_is_paused() {
        let screen = Stream {
            live: 1,
            rates: rates([1_200_000, 0, 0]),
            ..camera(0, 1)
        };
        assert_eq!(granted(1_000_000, vec![screen]), [(0, NONE)]);
        assert_eq!(granted(1_400_000, vec![screen]), [(0, 0)]);
        let only_large = Stream {
            live: 0b100,
            max: 0,
            ..camera(0, 1)
        };
        assert_eq!(granted(3_000_000, vec![only_large]), [(0, 2)]);
    }

    prop_compose! {
        fn any_stream()(sub in 0u32..50, priority: u8, rates in proptest::array::uniform12(0u64..5_000_000),
                        live in 0u16..1 << 12, max: u8, had in prop::sample::select(vec![0u8, 1, 2, 3, 7, 11, NONE])) -> Stream {
            let mut rates = rates;
            rates.sort_unstable();
            Stream { sub, priority, rates, live, max, had, granted: 0 }
        }
    }

    proptest! {
        /// Never more than the budget (but for what is kept), only live layers within the wish, and nobody is
        /// paused while somebody of lower priority rises above the lowest layer.
        #[test]
        fn a_share_is_sound(budget in 0u64..20_000_000, streams in prop::collection::vec(any_stream(), 0..20)) {
            let mut streams = streams;
            share(budget, &mut streams);
            let spent: u64 = streams.iter().filter(|s| s.granted != NONE).map(|s| s.cost(s.granted)).sum();
            prop_assert!(spent <= budget);
            for stream in &streams {
                if stream.granted != NONE {
                    prop_assert!(stream.live >> stream.granted & 1 == 1);
                    prop_assert!(stream.granted <= stream.wish());
                }
                if stream.granted == NONE && stream.wish() != NONE {
                    prop_assert!(stream.cost(stream.lowest()) > 0);
                }
            }
        }

        /// More budget never costs anybody a layer when all are equals in a row.
        #[test]
        fn more_is_never_less_for_one(budget in 0u64..4_000_000, more in 0u64..4_000_000, stream in any_stream()) {
            let rank = |layer: u8| if layer == NONE { 0 } else { layer + 1 };
            let mut a = [stream];
            let mut b = [stream];
            share(budget, &mut a);
            share(budget + more, &mut b);
            prop_assert!(rank(a[0].granted) <= rank(b[0].granted));
        }
    }
}
