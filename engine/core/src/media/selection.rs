//! Which packets of a layered stream a subscriber gets: its step, when that changes, what is rewritten.
//!
//! A step goes down at the next frame (or picture, if sizes go), up at a frame that says so and refers to nothing
//! that was left out. The marker bit ends the picture at the subscriber's size (RFC 9628 section 4.1); the
//! dependency descriptor says which decode targets are still sent (AV1 RTP payload format appendix A.8.3.1),
//! whenever that changed.
//! Not here: which step is wanted (`layers`), the numbers that follow (`skips`).

use super::packet::Meta;
use super::publication::Publication;
use super::skips::{Mark, Skips};
use super::steps::{self, layer_of, temporal_of, Steps};
use super::subscription::{Deltas, Egress, Segment, Subscription, MAX_SEGMENTS};

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes out, changed like this.
    Send(Mark),
    /// It is left out, and the numbers close up.
    Skip,
    /// Its number was kept, so something must go out under it.
    Fill,
    /// Too old.
    Drop,
}

impl Egress {
    /// Decide about a packet; `skips` are those of the segment.
    pub fn select(
        &mut self,
        skips: &mut Skips,
        publication: &Publication,
        dense: u64,
        meta: &Meta,
    ) -> Verdict {
        let shape = &meta.shape;
        let newest = skips.newest();
        if dense <= newest {
            if skips.is_forgotten(dense) {
                return Verdict::Drop;
            }
            let step = if dense < self.since {
                self.before
            } else {
                self.step
            };
            if has(shape.present, step) {
                return Verdict::Send(self.mark(publication, step, meta));
            }
            return Verdict::Fill;
        }
        if shape.first {
            self.climb(publication.is_nested(), dense, meta);
            self.announcing = std::mem::take(&mut self.changed) || shape.structured;
        }
        skips.advance(dense);
        if has(shape.present, self.step) {
            return Verdict::Send(self.mark(publication, self.step, meta));
        }
        // Only VP8 counts pictures so that a hole would be a loss; the others say what they refer to.
        skips.skip(meta.ids.counted.then_some(meta.ids.picture));
        Verdict::Skip
    }

    /// At the first packet of a frame: take the step wanted, or one nearer to it, if that is possible here.
    fn climb(&mut self, is_nested: bool, dense: u64, meta: &Meta) {
        let (step, target) = (self.step, self.target_step);
        if step == target || self.target != self.current {
            return; // another simulcast layer begins at its own key frame
        }
        let shape = &meta.shape;
        let outgoing = meta.timestamp.wrapping_add(self.deltas.timestamp);
        let is_new_picture = outgoing != self.last_timestamp || self.packets == 0;
        let same_size = layer_of(step) == layer_of(target);
        let next = if target < step && (same_size || is_nested && is_new_picture) {
            // Fewer pixels at once; more pictures of them where the stream allows it.
            let rate = temporal_of(step).min(temporal_of(target));
            steps::step(layer_of(target), rate)
        } else if has(shape.base, step) && (same_size || shape.across && is_new_picture) {
            self.toward(shape.switch)
        } else {
            step
        };
        if next != step {
            self.before = step;
            self.since = dense;
            self.step = next;
            self.changed = true;
        }
    }

    /// The step nearest to the one wanted, of those that may begin here.
    fn toward(&self, switch: Steps) -> u8 {
        let (step, target) = (self.step, self.target_step);
        if has(switch, target) {
            return target;
        }
        let same_size = |other: &u8| layer_of(*other) == layer_of(target);
        let mut between = (step + 1..target).rev().filter(same_size);
        between.find(|other| has(switch, *other)).unwrap_or(step)
    }

    /// It is to have another size of the stream it has.
    #[must_use]
    pub const fn waits_for_size(&self) -> bool {
        self.selective && layer_of(self.step) != layer_of(self.target_step)
    }

    fn mark(&self, publication: &Publication, step: u8, meta: &Meta) -> Mark {
        let shape = &meta.shape;
        let is_single = publication.layers.len() == 1;
        Mark {
            filled: false,
            marker: is_single && shape.last && shape.spatial == layer_of(step),
            masked: self.announcing && self.stamped && shape.targets > 1,
        }
    }
}

impl Subscription {
    /// Leave packets of the newest segment out from now on. `newest`: dense number up to which nothing was.
    pub fn thin_out(&mut self, hot: &mut Egress, newest: u64) {
        let Some(segment) = self.segments.back_mut() else {
            return;
        };
        if self.skips.is_empty() {
            self.skips.resize_with(MAX_SEGMENTS, Skips::default);
        }
        // As many slots as segments: whose this was cannot be asked for any more.
        self.next_skips = (self.next_skips + 1) % MAX_SEGMENTS as u8;
        segment.skips = self.next_skips;
        self.skips[usize::from(segment.skips)].start(newest);
        hot.selective = true;
        hot.since = newest + 1;
        hot.before = hot.step;
        hot.changed = true;
    }

    /// The packet behind an outgoing number of a segment: its dense number, its mapping, what was changed in it.
    #[must_use]
    pub fn source_of(&self, segment: &Segment, sequence: u64) -> Option<(u64, Deltas, Mark)> {
        let closed_up = sequence.wrapping_sub(segment.deltas.sequence);
        let Some(skips) = self.skips.get(usize::from(segment.skips)) else {
            return Some((closed_up, segment.deltas, Mark::default()));
        };
        let dense = skips.dense_of(closed_up)?;
        let deltas = segment.deltas.without(skips.before(dense));
        Some((dense, deltas, skips.noted(dense)))
    }
}

impl Deltas {
    /// The mapping behind so many packets and pictures that were left out.
    #[must_use]
    pub const fn without(mut self, (packets, pictures): (u64, u16)) -> Self {
        self.sequence = self.sequence.wrapping_sub(packets);
        self.picture = self.picture.wrapping_sub(pictures);
        self
    }
}

impl Publication {
    /// The decode targets that are sent to a subscriber with this step, as the publisher numbers them.
    #[must_use]
    pub fn active_targets(&self, layer: u8, step: u8) -> u32 {
        let state = self.layers.get(usize::from(layer));
        let state = state.and_then(|layer| layer.dependency.as_ref());
        let Some((state, structure)) = state.and_then(|state| Some((state, state.structure()?)))
        else {
            return 0;
        };
        let step = if self.layers.len() == 1 {
            step
        } else {
            steps::step(structure.top_size(), steps::temporal_of(step))
        };
        state.active_targets() & structure.targets_within(step)
    }
}

const fn has(set: Steps, step: u8) -> bool {
    step < 16 && set >> step & 1 == 1
}
