//! Which step (simulcast layer, spatial layer, frame rate) a subscriber should have, and what follows from that.
//!
//! Not here: when the switch happens (`fanout` at a key frame, `selection` within a stream), asking for that frame (`reports`).

use crate::id::Micros;

use super::publication::{Publication, NONE};
use super::steps::Steps;
use super::subscription::{Egress, Subscription};
use super::{Router, Sink};

/// The highest live step up to `max`, else the lowest live one above it: a picture too large is better than
/// none. `NONE` when nothing is live.
#[must_use]
pub const fn choose(live: Steps, max: u8) -> u8 {
    if live == 0 {
        return NONE;
    }
    let wanted = if max >= 15 {
        live
    } else {
        live & ((1 << (max + 1)) - 1)
    };
    if wanted == 0 {
        live.trailing_zeros() as u8
    } else {
        15 - wanted.leading_zeros() as u8
    }
}

/// Whether nothing is to be sent: the subscriber said so, or its link or the CPU do not carry it.
fn is_idle(hot: &Egress, cold: &Subscription, is_braked: bool) -> bool {
    hot.paused || cold.starved || cold.is_shed || is_braked && hot.video
}

/// The step to send: the best live one that is wanted and carried.
pub(super) fn fitting(
    publication: &Publication,
    hot: &Egress,
    cold: &Subscription,
    is_braked: bool,
) -> u8 {
    if is_idle(hot, cold, is_braked) {
        return NONE;
    }
    if !hot.video {
        return 0;
    }
    let wish = publication.wish(cold.max_layer, cold.max_fps);
    choose(
        publication.live_steps(),
        wish.min(cold.cap).min(cold.allowed),
    )
}

impl Router {
    /// Choose the layer anew and ask for a key frame if that needs one.
    pub(super) fn retarget(&mut self, sub: u32, now: Micros, sink: &mut impl Sink) {
        if self.aim(sub, now) {
            self.ask_key(self.egress[sub as usize].source, now, sink);
        }
    }

    /// Choose the layer anew. True if that needs a key frame, which is noted but not asked for.
    pub(super) fn aim(&mut self, sub: u32, now: Micros) -> bool {
        let is_braked = self.shedding.is_braked;
        let hot = &mut self.egress[sub as usize];
        let source = hot.source as usize;
        let Some(Some(publication)) = self.publications.get(source) else {
            return false;
        };
        let Some(cold) = &mut self.subscriptions[sub as usize] else {
            return false;
        };
        hot.target_step = fitting(publication, hot, cold, is_braked);
        hot.target = publication.carrier_of(hot.target_step);
        let goes_on = hot.current != NONE && hot.current == hot.target;
        if goes_on && hot.video && !hot.selective && publication.is_partial(hot.target_step) {
            hot.step = publication.whole(hot.current);
            let newest = hot.last_sequence.wrapping_sub(hot.deltas.sequence);
            cold.thin_out(hot, newest);
        }
        if is_idle(hot, cold, is_braked) {
            hot.current = NONE;
        }
        // A key frame of a codec that the subscriber has not would be in vain.
        let readable = hot.payload_types[usize::from(publication.codec)] != NONE;
        let steps_down = publication.is_nested() && hot.target_step < hot.step;
        let needed = hot.video
            && hot.target != NONE
            && (hot.target != hot.current || hot.waits_for_size() && !steps_down)
            && readable
            && !hot.stalled;
        if !needed {
            return false;
        }
        cold.key_asked = now;
        let target = hot.target;
        if self.begin_late(sub, now) {
            return false;
        }
        if let Some(Some(publication)) = self.publications.get_mut(source) {
            publication.keys_wanted |= 1 << target;
        }
        true
    }

    /// The live layers of a publication changed. True if that needs a key frame.
    pub(super) fn aim_all(&mut self, index: u32, now: Micros) -> bool {
        let Some(publication) = &mut self.publications[index as usize] else {
            return false;
        };
        let subscribers = std::mem::take(&mut publication.subscribers);
        let needed = subscribers
            .iter()
            .fold(false, |needed, sub| self.aim(*sub, now) | needed);
        if let Some(publication) = &mut self.publications[index as usize] {
            publication.subscribers = subscribers;
        }
        needed
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
        for live in 1..1 << 12u16 {
            for max in 0..=255u8 {
                assert_ne!(live & 1 << choose(live, max), 0);
            }
        }
    }
}
