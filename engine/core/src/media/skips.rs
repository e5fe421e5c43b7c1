//! Which packets of a segment were left out, so that the rest is numbered without holes.
//!
//! A window of bits over the publisher's dense numbers: bounded whatever is left out, nothing is ever searched
//! on the way out, and a request for a number finds its packet. What is older than the window cannot be asked for.
//! Not here: who decides (`selection`).

/// Dense numbers remembered: as many packets as a layer's cache.
pub const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;

/// A bit per dense number of the window.
#[derive(Clone, Debug, Default)]
struct Bits([u64; WORDS]);

impl Bits {
    const fn place(dense: u64) -> (usize, u64) {
        ((dense % WINDOW / 64) as usize, dense % 64)
    }

    const fn get(&self, dense: u64) -> bool {
        let (word, bit) = Self::place(dense);
        self.0[word] >> bit & 1 == 1
    }

    const fn set(&mut self, dense: u64) {
        let (word, bit) = Self::place(dense);
        self.0[word] |= 1 << bit;
    }

    const fn clear(&mut self, dense: u64) {
        let (word, bit) = Self::place(dense);
        self.0[word] &= !(1 << bit);
    }

    /// Bits set behind `dense`, up to `newest`.
    fn after(&self, dense: u64, newest: u64) -> u64 {
        let mut at = dense + 1;
        let mut count = 0;
        while at <= newest {
            let (word, bit) = Self::place(at);
            let width = (64 - bit).min(newest - at + 1);
            let mask = if width == 64 {
                u64::MAX
            } else {
                ((1 << width) - 1) << bit
            };
            count += u64::from((self.0[word] & mask).count_ones());
            at += width;
        }
        count
    }
}

/// What a packet was to its subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// It came late and is not of the step: padding went out under the number kept for it.
    pub filled: bool,
    /// The marker bit was added.
    pub marker: bool,
    /// The mask of active decode targets was rewritten.
    pub masked: bool,
}

/// The left-out packets of one segment.
#[derive(Clone, Debug, Default)]
pub struct Skips {
    newest: u64,
    packets: u64,
    pictures: u16,
    skipped: Bits,
    pictures_at: Bits,
    filled: Bits,
    markers: Bits,
    masked: Bits,
    last_picture: Option<u16>,
}

impl Skips {
    /// Nothing was left out up to here.
    pub fn start(&mut self, newest: u64) {
        *self = Self {
            newest,
            ..Self::default()
        };
    }

    /// The newest packet decided upon.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// Too old to know its number.
    #[must_use]
    pub const fn is_forgotten(&self, dense: u64) -> bool {
        dense + WINDOW <= self.newest
    }

    /// Decide on packets up to this one: those that did not come keep their numbers.
    pub fn advance(&mut self, dense: u64) {
        if dense - self.newest >= WINDOW {
            self.skipped = Bits::default();
            self.pictures_at = Bits::default();
            self.filled = Bits::default();
            self.markers = Bits::default();
            self.masked = Bits::default();
        } else {
            for between in self.newest + 1..=dense {
                self.skipped.clear(between);
                self.pictures_at.clear(between);
                self.filled.clear(between);
                self.markers.clear(between);
                self.masked.clear(between);
            }
        }
        self.newest = dense;
    }

    /// Leave the newest packet out. `picture`: its picture id, if those must have no holes.
    pub fn skip(&mut self, picture: Option<u16>) {
        self.skipped.set(self.newest);
        self.packets += 1;
        if picture.is_some() && picture != self.last_picture {
            self.pictures_at.set(self.newest);
            self.pictures = self.pictures.wrapping_add(1);
            self.last_picture = picture;
        }
    }

    #[cfg(test)]
    const fn is_skipped(&self, dense: u64) -> bool {
        self.skipped.get(dense)
    }

    /// How many (packets, pictures) were left out before a packet of the window.
    #[must_use]
    pub fn before(&self, dense: u64) -> (u64, u16) {
        if dense >= self.newest {
            let last = u64::from(self.skipped.get(self.newest) && dense == self.newest);
            return (self.packets - last, self.pictures);
        }
        let pictures = self.pictures_at.after(dense, self.newest) as u16;
        (
            self.packets - self.skipped.after(dense, self.newest),
            self.pictures.wrapping_sub(pictures),
        )
    }

    /// Remember how a packet went out.
    pub fn note(&mut self, dense: u64, mark: Mark) {
        for (bits, is_set) in [
            (&mut self.filled, mark.filled),
            (&mut self.markers, mark.marker),
            (&mut self.masked, mark.masked),
        ] {
            if is_set {
                bits.set(dense);
            }
        }
    }

    /// How it went out.
    #[must_use]
    pub const fn noted(&self, dense: u64) -> Mark {
        Mark {
            filled: self.filled.get(dense),
            marker: self.markers.get(dense),
            masked: self.masked.get(dense),
        }
    }

    /// The packet whose number is the dense number minus what was left out before it.
    #[must_use]
    pub fn dense_of(&self, closed_up: u64) -> Option<u64> {
        let mut before = self.packets;
        let mut dense = self.newest;
        loop {
            if self.skipped.get(dense) {
                before = before.checked_sub(1)?;
            } else if dense.checked_sub(before)? == closed_up {
                return Some(dense);
            } else if dense - before < closed_up {
                return None;
            }
            dense = dense.checked_sub(1)?;
            if self.is_forgotten(dense) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is lost, late or left out: numbers of what goes out are unique, in order, and without holes but
        /// for what was lost; each leads back to its packet; pictures that go out count up by one.
        #[test]
        fn the_rest_is_numbered_without_holes(
            start in 65_536u64..1 << 40,
            pictures in proptest::collection::vec((1usize..4, any::<bool>(), 0u8..12), 1..700),
        ) {
            let mut skips = Skips::default();
            skips.start(start - 1);
            let (mut dense, mut sent, mut late) = (start, Vec::new(), Vec::new());
            let mut out_pictures = Vec::new();
            for (index, (packets, skip, fate)) in pictures.iter().enumerate() {
                let picture = index as u16;
                for _ in 0..*packets {
                    if *fate == 0 {
                        late.push((dense, *skip)); // the whole picture comes late or never
                    } else {
                        skips.advance(dense);
                        if *skip {
                            skips.skip(Some(picture));
                        } else {
                            let (packets, pictures) = skips.before(dense);
                            sent.push((dense, dense - packets));
                            out_pictures.push((index, picture.wrapping_sub(pictures)));
                        }
                    }
                    dense += 1;
                }
            }
            for (late, _) in late.iter().filter(|(at, _)| *at < skips.newest() && !skips.is_forgotten(*at)) {
                prop_assert!(!skips.is_skipped(*late));
                sent.push((*late, *late - skips.before(*late).0));
            }
            sent.sort_unstable();
            prop_assert!(sent.windows(2).all(|pair| pair[0].1 < pair[1].1));
            if late.is_empty() {
                prop_assert!(sent.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1));
                out_pictures.dedup();
                prop_assert!(out_pictures.windows(2).all(|pair| pair[0].1.wrapping_add(1) == pair[1].1));
            }
            for (dense, number) in sent {
                if !skips.is_forgotten(dense) {
                    prop_assert_eq!(skips.dense_of(number), Some(dense));
                }
            }
        }
    }

    #[test]
    fn a_jump_beyond_the_window_keeps_the_count() {
        let mut skips = Skips::default();
        skips.start(70_000);
        skips.advance(70_001);
        skips.skip(Some(3));
        skips.advance(90_000);
        assert_eq!(skips.before(90_000), (1, 1));
        assert_eq!(skips.dense_of(89_999), Some(90_000));
        assert_eq!(skips.dense_of(89_999 - WINDOW), None);
        assert!(skips.is_forgotten(70_001));
    }

    #[test]
    fn a_mark_lasts_as_long_as_the_window() {
        let mut skips = Skips::default();
        skips.start(70_000);
        skips.advance(70_001);
        let mark = Mark {
            filled: false,
            marker: true,
            masked: true,
        };
        skips.note(70_001, mark);
        assert_eq!(skips.noted(70_001), mark);
        skips.advance(70_001 + WINDOW);
        assert_eq!(skips.noted(70_001 + WINDOW), Mark::default());
    }
}
