//! Pictures of one layer as they arrive: how many, how many of them key frames, how often they stood still.
//!
//! W3C webrtc-stats: framesReceived, keyFramesReceived, freezeCount, totalFreezesDuration. A freeze is a pause between
//! two pictures longer than three times the usual one and longer than that by 150 ms, as freezeCount says; here it is
//! the publisher or the way to us that stands still.
//! Not here: what subscribers see (their own statistics tell).

use crate::id::Micros;

use super::packet::Meta;

/// A freeze is longer than the usual pause by this ...
const LONGER_US: u64 = 150_000;
/// ... and by this factor.
const FACTOR: u64 = 3;
/// The usual pause is an average over about so many.
const AVERAGED: u64 = 30;

/// Counters of one layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// Pictures that came to their last packet.
    pub count: u64,
    /// Key frames that began.
    pub keys: u64,
    /// Pauses that were too long.
    pub freezes: u64,
    /// Their sum.
    pub frozen_us: u64,
    last: Option<Micros>,
    usual_us: u64,
    key_at: Option<u32>,
}

impl Frames {
    /// A new packet, in order.
    pub fn see(&mut self, meta: &Meta, now: Micros) {
        if meta.key && self.key_at != Some(meta.timestamp) {
            self.key_at = Some(meta.timestamp);
            self.keys += 1;
        }
        if !meta.marker {
            return;
        }
        self.count += 1;
        if let Some(last) = self.last {
            let pause = now.since(last);
            let allowed = (FACTOR * self.usual_us).max(self.usual_us + LONGER_US);
            if self.usual_us != 0 && pause > allowed {
                self.freezes += 1;
                self.frozen_us += pause;
            } else if self.usual_us == 0 {
                self.usual_us = pause;
            } else {
                self.usual_us = (self.usual_us * (AVERAGED - 1) + pause) / AVERAGED;
            }
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(frames: &mut Frames, at_ms: u64, key: bool) {
        let timestamp = at_ms as u32 * 90;
        for marker in [false, true] {
            let meta = Meta {
                marker,
                key,
                timestamp,
                ..Meta::default()
            };
            frames.see(&meta, Micros(at_ms * 1_000));
        }
    }

    #[test]
    fn pictures_and_freezes_are_counted() {
        let mut frames = Frames::default();
        for at in 0..100 {
            picture(&mut frames, 1_000 + at * 40, at % 50 == 0);
        }
        assert_eq!((frames.count, frames.keys, frames.freezes), (100, 2, 0));
        picture(&mut frames, 4_960 + 180, false);
        assert_eq!(frames.freezes, 0, "late, not frozen");
        picture(&mut frames, 5_140 + 800, true);
        assert_eq!((frames.freezes, frames.frozen_us), (1, 800_000));
        picture(&mut frames, 5_980, false);
        assert_eq!((frames.count, frames.keys, frames.freezes), (103, 3, 1));
    }
}
