//! Which simulcast layer a subscriber gets. Pure arithmetic over "who is live".
//!
//! Not here: when the switch happens (at a key frame, `Router`).

use super::publication::NONE;

/// The highest live layer up to `max`, else the lowest live one above it: a picture too large is better than
/// none. `NONE` when nothing is live.
#[must_use]
pub const fn choose(live: u8, max: u8) -> u8 {
    if live == 0 {
        return NONE;
    }
    let wanted = if max >= 7 {
        live
    } else {
        live & ((1 << (max + 1)) - 1)
    };
    if wanted == 0 {
        live.trailing_zeros() as u8
    } else {
        7 - wanted.leading_zeros() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_live_layer_within_the_wish() {
        assert_eq!(choose(0b111, 2), 2);
        assert_eq!(choose(0b111, 1), 1);
        assert_eq!(choose(0b101, 1), 0);
        assert_eq!(choose(0b100, 0), 2);
        assert_eq!(choose(0b011, 255), 1);
        assert_eq!(choose(0, 2), NONE);
    }

    #[test]
    fn never_a_layer_that_is_not_live() {
        for live in 1..=255u8 {
            for max in 0..=255u8 {
                assert_ne!(live & 1 << choose(live, max), 0);
            }
        }
    }
}
