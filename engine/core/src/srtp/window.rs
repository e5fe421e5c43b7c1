//! Packet indices: the rollover estimate (RFC 3711 section 3.3.1) and the replay window (section 3.3.2).

/// Packets that may arrive late or out of order.
pub const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;

/// The highest index so far, and which of the last 1,024 were seen.
#[derive(Clone, Debug)]
pub struct Window {
    top: Option<u64>,
    seen: [u64; WORDS],
}

impl Window {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self {
            top: None,
            seen: [0; WORDS],
        }
    }

    /// The index that a 16-bit sequence number means now: the one nearest to the highest so far. None if that
    /// would lie before the first rollover began.
    pub fn estimate(&self, sequence: u16) -> Option<u64> {
        let Some(top) = self.top else {
            return Some(u64::from(sequence));
        };
        let step = sequence.wrapping_sub(top as u16) as i16;
        top.checked_add_signed(i64::from(step))
    }

    /// Seen already, or older than the window can tell.
    pub fn has(&self, index: u64) -> bool {
        self.top.is_some_and(|top| {
            index + WINDOW <= top || (index <= top && self.seen[word(index)] & bit(index) != 0)
        })
    }

    /// Remember an authenticated index that `has` said no to.
    pub fn mark(&mut self, index: u64) {
        match self.top {
            Some(top) if index > top => {
                if index - top >= WINDOW {
                    self.seen = [0; WORDS];
                } else {
                    for skipped in top + 1..=index {
                        self.seen[word(skipped)] &= !bit(skipped);
                    }
                }
                self.top = Some(index);
            }
            Some(_) => {}
            None => self.top = Some(index),
        }
        self.seen[word(index)] |= bit(index);
    }
}

const fn word(index: u64) -> usize {
    (index / 64) as usize % WORDS
}

const fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wrap_of_the_sequence_number_counts_on() {
        let mut window = Window::new();
        window.mark(65_533);
        for (sequence, index) in [(65_535, 65_535), (0, 65_536), (65_534, 65_534), (3, 65_539)] {
            assert_eq!(window.estimate(sequence), Some(index));
            assert!(!window.has(index));
            window.mark(index);
            assert!(window.has(index));
        }
    }

    #[test]
    fn a_late_packet_before_the_first_rollover_has_no_index() {
        let mut window = Window::new();
        window.mark(3);
        assert_eq!(window.estimate(65_000), None);
    }

    proptest! {
        /// Against the obvious model: a set of everything seen, and the top.
        #[test]
        fn the_window_is_a_set_of_the_last_1024(steps in prop::collection::vec(-1_500i64..1_500, 1..200)) {
            let mut window = Window::new();
            let mut model = BTreeSet::new();
            let mut at = 100_000i64;
            for step in steps {
                at = (at + step).max(0);
                let index = at as u64;
                let top = model.last().copied();
                let expected = model.contains(&index) || top.is_some_and(|top: u64| index + WINDOW <= top);
                prop_assert_eq!(window.has(index), expected);
                if !expected {
                    window.mark(index);
                    model.insert(index);
                }
            }
        }
    }
}
