//! Does a layer still come? Judged by its siblings: a layer that misses while they go on has stopped.
//!
//! Layers of one picture come together. Silence is counted from the first packet of a sibling that the layer did not
//! follow to the newest one, so a picture that stands still, a link that is cut and a screen of one frame a second
//! stop nobody. A layer that is known to come more rarely than its siblings has more time.
//! Not here: what follows when it stopped (`layers`), which layers there are (`publication`, `ladder`).

use crate::id::Micros;

/// A layer whose siblings went on for so long without it has stopped ...
const MISSED_US: u64 = 450_000;
/// ... or for so many times what it usually lets them go on ...
const PATIENCE: u64 = 3;
/// ... of which no more than this is remembered ...
const MOST_LAG_US: u64 = 1_000_000;
/// ... and this share less with each round, percent.
const KEPT_PERCENT: u64 = 90;

/// One layer among its siblings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pulse {
    /// Siblings came since then without it.
    missed: Option<Micros>,
    /// How long they usually go on before it comes again, the longest of late.
    lag_us: u64,
}

impl Pulse {
    /// A packet of the layer itself; `is_live`: it had not stopped.
    #[inline]
    pub fn beat(&mut self, is_live: bool, now: Micros) {
        if let (Some(since), true) = (self.missed.take(), is_live) {
            self.lag_us = self.lag_us.max(now.since(since).min(MOST_LAG_US));
        }
    }

    /// A packet of a sibling.
    #[inline]
    pub fn miss(&mut self, now: Micros) {
        self.missed.get_or_insert(now);
    }

    /// Siblings went on without it up to `newest`, the time of the newest packet of all.
    #[must_use]
    pub fn is_still(&self, newest: Micros) -> bool {
        let patience_us = MISSED_US.max(PATIENCE * self.lag_us);
        self.missed
            .is_some_and(|since| newest.since(since) >= patience_us)
    }

    /// Once a round: what was unusual is forgotten.
    pub fn forget(&mut self) {
        self.lag_us = self.lag_us * KEPT_PERCENT / 100;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    /// Milliseconds after the start at which a layer with this pause between frames is judged to have stopped, beside
    /// a sibling with another; it comes for so long.
    fn stopped_ms(pause_ms: u64, sibling_ms: u64, comes_ms: u64, lasts_ms: u64) -> Option<u64> {
        let mut pulse = Pulse::default();
        let mut newest = Micros(START);
        for ms in 0..lasts_ms {
            let now = Micros(START + ms * 1_000);
            if ms % sibling_ms == 0 {
                pulse.miss(now);
                newest = now;
            }
            if ms < comes_ms && ms % pause_ms == 5 % pause_ms {
                pulse.beat(true, now);
                newest = now;
            }
            if ms % 250 == 0 {
                if pulse.is_still(newest) {
                    return Some(ms);
                }
                pulse.forget();
            }
        }
        None
    }

    #[test]
    fn a_layer_that_misses_its_siblings_is_noticed_soon() {
        let at = stopped_ms(33, 33, 10_000, 20_000).expect("noticed");
        assert!((10_400..=10_750).contains(&at), "{at}");
    }

    #[test]
    fn a_screen_of_few_frames_is_judged_by_its_own_frames() {
        for pause_ms in [200, 500, 1_000] {
            assert_eq!(stopped_ms(pause_ms, pause_ms, 60_000, 60_000), None);
            let at = stopped_ms(pause_ms, pause_ms, 10_000, 20_000).expect("noticed");
            assert!(at <= 10_000 + 2 * pause_ms + 1_000, "{pause_ms}: {at}");
        }
    }

    #[test]
    fn a_layer_slower_than_its_siblings_is_not_taken_for_gone() {
        for pause_ms in [200, 400] {
            assert_eq!(stopped_ms(pause_ms, 33, 60_000, 60_000), None, "{pause_ms}");
        }
    }

    #[test]
    fn one_that_comes_again_after_a_while_is_given_more_time() {
        let mut pulse = Pulse::default();
        let at = |ms: u64| Micros(START + ms * 1_000);
        pulse.miss(at(0));
        assert!(!pulse.is_still(at(440)));
        pulse.beat(true, at(440));
        pulse.miss(at(450));
        assert!(!pulse.is_still(at(1_500)));
        assert!(pulse.is_still(at(1_800)));
        for _ in 0..20 {
            pulse.forget();
        }
        assert!(pulse.is_still(at(901)));
    }

    #[test]
    fn what_stands_still_together_has_not_stopped() {
        let mut pulse = Pulse::default();
        pulse.miss(Micros(START));
        // Nothing newer came from anybody, however late it is.
        assert!(!pulse.is_still(Micros(START + 10_000)));
    }
}
