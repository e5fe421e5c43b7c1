//! Steps: the qualities in which a publication can be had, from the fewest bits to the most.
//!
//! A step is a layer of size (simulcast, or a spatial layer) and a layer of frame rate (temporal): number
//! `3 * layer + rate`. Rates are told from both ends: 0 is the lowest there is, 2 all frames, 1 what lies between;
//! where there is no choice of frame rates only the step with 2 exists. Sets of steps are bits.
//! Not here: which packet belongs to which (`dependency`, `shapes`), who gets which (`layers`, `selection`).

/// Steps of one layer.
pub const RATES: u8 = 3;
/// Layers 0..4 at three rates.
pub const MAX_STEPS: usize = 12;

/// A set of steps.
pub type Steps = u16;

/// All steps of all layers.
pub const EVERY: Steps = (1 << MAX_STEPS) - 1;

/// Number of a step.
#[must_use]
pub const fn step(layer: u8, rate: u8) -> u8 {
    RATES * layer + rate
}

/// Layer of a step.
#[must_use]
pub const fn layer_of(step: u8) -> u8 {
    step / RATES
}

/// Rate of a step.
#[must_use]
pub const fn temporal_of(step: u8) -> u8 {
    step % RATES
}

/// The steps of one layer.
#[must_use]
pub const fn layer_mask(layer: u8) -> Steps {
    if layer >= 4 {
        return 0;
    }
    0b111 << (RATES * layer)
}

/// The rate that a temporal id is, of a stream that has ids up to `most`.
const fn rate(temporal: u8, most: u8) -> u8 {
    if temporal >= most {
        2
    } else if temporal == 0 {
        0
    } else {
        1
    }
}

/// Everything a decode target of these ids stands for: steps without a frame of their own go with the one below.
#[must_use]
pub const fn of(spatial: u8, temporal: u8, most: u8) -> Steps {
    let own = match (rate(temporal, most), most) {
        (_, 0) => 0b111,
        (0, 1) => 0b011,
        (rate, _) => 1 << rate,
    };
    (own << (RATES * spatial)) & layer_mask(spatial)
}

/// The step of these ids alone.
#[must_use]
pub const fn named(spatial: u8, temporal: u8, most: u8) -> Steps {
    (1 << step(spatial, rate(temporal, most))) & layer_mask(spatial)
}

/// The steps that include a frame of this temporal id, of any stream whose ids are nested.
#[must_use]
pub const fn from_temporal(layer: u8, temporal: u8) -> Steps {
    let lowest = if temporal > 2 { 2 } else { temporal };
    (layer_mask(layer) << lowest) & layer_mask(layer)
}

/// The highest temporal id of a rate, in a stream with ids up to `most`.
#[must_use]
pub const fn highest_temporal(rate: u8, most: u8) -> u8 {
    match rate {
        0 => 0,
        1 if most > 0 => most - 1,
        _ => most,
    }
}

/// The steps of one layer, as those of another.
#[must_use]
pub const fn moved(set: Steps, from: u8, to: u8) -> Steps {
    let own = (set & layer_mask(from)) >> (RATES * from);
    (own << (RATES * to)) & layer_mask(to)
}

/// Of the existing steps: with each that is in a set, all that are above it in size and rate are too.
#[must_use]
pub fn is_upward(set: Steps, existing: Steps) -> bool {
    let steps = || (0..MAX_STEPS as u8).filter(|step| existing >> step & 1 == 1);
    steps().filter(|low| set >> low & 1 == 1).all(|low| {
        steps()
            .filter(|high| {
                layer_of(*high) >= layer_of(low) && temporal_of(*high) >= temporal_of(low)
            })
            .all(|high| set >> high & 1 == 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_from_both_ends() {
        assert_eq!(named(0, 0, 0), 0b100);
        assert_eq!((named(0, 0, 1), named(0, 1, 1)), (0b001, 0b100));
        assert_eq!((0..3).fold(0, |all, t| all | named(1, t, 2)), 0b11_1000);
        assert_eq!((of(0, 0, 1), of(0, 1, 1)), (0b011, 0b100));
        assert_eq!(of(2, 0, 0), 0b1_1100_0000);
        for most in 0..8 {
            let all = (0..=most).fold(0, |all, t| all | of(3, t, most));
            assert_eq!(all, layer_mask(3), "{most}");
        }
        assert_eq!(named(4, 0, 0), 0);
    }

    #[test]
    fn a_frame_belongs_to_its_rate_and_all_above() {
        assert_eq!(from_temporal(0, 0), 0b111);
        assert_eq!(from_temporal(0, 1), 0b110);
        assert_eq!(from_temporal(1, 7), 0b10_0000);
    }

    #[test]
    fn upward_means_that_all_above_are_there_too() {
        let three = 0b1_1111_1111;
        assert!(is_upward(0b1_1011_0110, three));
        assert!(
            !is_upward(0b0_0000_0111, three),
            "k-SVC: the lowest size alone"
        );
        assert!(is_upward(0b0_0000_0111, 0b111));
    }
}
