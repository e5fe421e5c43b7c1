//! Who may fill how much of a ring: strangers little, and nobody all of it.
//!
//! Not here: video before audio, room for notices (`relay`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parley_core::wire::Path;

use super::Writer;

/// Of a ring's slots, one in so many may hold checks of strangers at the same time: what validated peers send never
/// waits for theirs, nor is dropped for it.
const STRANGERS: usize = 16;
/// Of a ring that is half full, one slot in so many is left to each 5-tuple: who floods has the first half.
const CROWDED: usize = 32;
/// Shares of a crowded ring are counted in so many places, by a keyed hash of the 5-tuple.
const SHARES: usize = 64;

/// Which slots the latest strangers have.
pub struct Strangers {
    /// Their numbers, the oldest at `next`; None at first.
    slots: Box<[Option<usize>]>,
    next: usize,
}

impl Strangers {
    pub fn new(slots: usize) -> Self {
        Self {
            slots: vec![None; slots / STRANGERS].into(),
            next: 0,
        }
    }

    /// Whether one more may come, into this slot.
    pub fn admit(&mut self, writer: &mut Writer) -> bool {
        let oldest = &mut self.slots[self.next];
        if oldest.is_some_and(|number| !writer.has_passed(number)) {
            return false;
        }
        *oldest = Some(writer.written);
        self.next = (self.next + 1) % self.slots.len();
        true
    }
}

/// Who has added how much since the ring was half full.
pub struct Crowd {
    shares: [u16; SHARES],
    is_counting: bool,
    /// Nobody can choose whose share they use up.
    key: RandomState,
}

impl Crowd {
    pub fn new() -> Self {
        Self {
            shares: [0; SHARES],
            is_counting: false,
            key: RandomState::new(),
        }
    }

    /// Whether this 5-tuple may add one more.
    pub fn admit(&mut self, path: &Path, writer: &mut Writer) -> bool {
        let slots = writer.ring.slots.len();
        if writer.has_room(slots / 2) {
            if std::mem::take(&mut self.is_counting) {
                self.shares.fill(0);
            }
            return true;
        }
        self.is_counting = true;
        let share = &mut self.shares[self.key.hash_one(path) as usize % SHARES];
        *share = share.saturating_add(1);
        usize::from(*share) <= slots / CROWDED
    }
}
