//! Whether pictures may lie in their socket for a moment, so that several are read and copied at once.
//!
//! What lies side by side for one peer leaves as one message, and a thread that wakes up once for three packets spends
//! a third of what waking up costs. While little arrives nothing waits: in the last `WINDOW_US` there must have been
//! `MANY_COPIES`, and afterwards `FEW_COPIES` at least, of at least `MANY_PACKETS`.
//!
//! Where one packet has `FULL_COPIES` subscribers nothing waits either: to send them takes as long as the wait would,
//! and what comes meanwhile is a batch by itself. The same goes for more than `MOST_PACKETS`.
//! Sound, repairs, feedback and checks lie in another socket (`picture_types`) and never wait.
//! Not here: the copies (`fanout`), the sockets (`parley-io`).

use crate::id::Micros;

use super::router::Router;

/// How long the next packet may wait. When it comes is known by the mean distance, which is no more than this.
const HOLD_US: u64 = 500;
/// Copies of one packet that are a batch of their own: one call to the system takes as many.
const FULL_COPIES: usize = 64;

/// How often the load is looked at.
const WINDOW_US: u64 = 10_000;
/// Copies of pictures in a window from which on they wait: 20,000 per second, a few percent of a CPU.
const MANY_COPIES: usize = 200;
/// Below this it is over.
const FEW_COPIES: usize = 100;
/// Packets of pictures in a window that make it likely that another one comes within the wait.
const MANY_PACKETS: usize = 20;
/// Packets in a window that are large batches by themselves.
const MOST_PACKETS: usize = 640;

/// What arrived lately.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Begin of the window.
    since: Micros,
    packets: usize,
    copies: usize,
    is_busy: bool,
    /// So long the socket may be left alone; 0 = not at all.
    hold_us: u64,
}

impl Gathering {
    pub(super) fn new() -> Self {
        Self {
            since: Micros(0),
            packets: 0,
            copies: 0,
            is_busy: false,
            hold_us: 0,
        }
    }

    /// A picture came for so many subscribers.
    pub(super) fn arrived(&mut self, subscribers: usize, now: Micros) {
        let passed_us = now.since(self.since);
        if passed_us >= WINDOW_US {
            let needed = if self.is_busy {
                FEW_COPIES
            } else {
                MANY_COPIES
            };
            self.is_busy = passed_us < 2 * WINDOW_US && self.copies >= needed;
            let is_wide = self.copies >= FULL_COPIES * self.packets;
            let is_many = (MANY_PACKETS..=MOST_PACKETS).contains(&self.packets);
            self.hold_us = 0;
            if self.is_busy && is_many && !is_wide {
                self.hold_us = HOLD_US + passed_us / self.packets as u64;
            }
            (self.since, self.packets, self.copies) = (now, 0, 0);
        }
        self.packets += 1;
        self.copies += subscribers;
    }

    fn hold_us(&self, now: Micros) -> u64 {
        if now.since(self.since) < 2 * WINDOW_US {
            self.hold_us
        } else {
            0
        }
    }
}

impl Router {
    /// How long pictures that come from now on may lie in their socket, microseconds; 0 = they are to be read at once.
    #[must_use]
    pub fn hold_us(&self, now: Micros) -> u64 {
        self.gathering.hold_us(now)
    }

    /// Payload types that are pictures whoever sends them, a bit each, and neither sound nor repairs; if they may have
    /// changed since the last call.
    pub fn new_picture_types(&mut self) -> Option<u128> {
        if !std::mem::take(&mut self.types_changed) {
            return None;
        }
        let (mut pictures, mut others) = (0, 0);
        for publication in self.publications.iter().flatten() {
            let stream = &publication.stream;
            for codec in &stream.codecs {
                let types = if stream.video {
                    &mut pictures
                } else {
                    &mut others
                };
                *types |= 1u128 << (codec.payload_type & 0x7f);
                others |= codec.rtx.map_or(0, |number| 1u128 << (number & 0x7f));
            }
        }
        Some(pictures & !others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::tests::{camera, microphone, opus, vp8, Story, ALICE};
    use crate::media::ReceiveStream;

    const BEGIN: Micros = Micros(3_600_000_000);

    /// Packets at this distance, each for so many, from then on; the hold afterwards, and when that is.
    fn after(
        gathering: &mut Gathering,
        from: Micros,
        (packets, each_us): (u64, u64),
        subscribers: usize,
    ) -> (u64, Micros) {
        let mut now = from;
        for _ in 0..packets {
            now = Micros(now.0 + each_us);
            gathering.arrived(subscribers, now);
        }
        (gathering.hold_us(now), now)
    }

    #[test]
    fn the_next_packet_waits_half_a_millisecond_when_many_come() {
        for (each_us, subscribers) in [(400, 10), (200, 10), (480, 60), (20, 2)] {
            let mut gathering = Gathering::new();
            let (hold_us, now) = after(&mut gathering, BEGIN, (2_000, each_us), subscribers);
            let longest_us = HOLD_US + each_us + 20;
            assert!(
                (HOLD_US..=longest_us).contains(&hold_us),
                "{each_us}: {hold_us}"
            );
            assert!(hold_us <= 1_000);
            // Silence: what comes after it is read at once.
            assert_eq!(gathering.hold_us(Micros(now.0 + 2 * WINDOW_US)), 0);
            let late = Micros(now.0 + 1_000_000);
            assert_eq!(after(&mut gathering, late, (1, 0), subscribers).0, 0);
        }
    }

    #[test]
    fn nothing_waits_while_little_comes_or_a_packet_is_a_batch_by_itself() {
        for (each_us, subscribers) in [
            (3_000, 10), // one stream of 3 Mbit/s
            (600, 10),   // none within the wait
            (400, 7),    // few copies
            (400, 64),   // many of each
            (10, 10),    // a batch by themselves
        ] {
            let mut gathering = Gathering::new();
            let (hold_us, _) = after(&mut gathering, BEGIN, (5_000, each_us), subscribers);
            assert_eq!(hold_us, 0, "{each_us} us, {subscribers}");
        }
    }

    #[test]
    fn a_load_that_sways_does_not_flicker() {
        let mut gathering = Gathering::new();
        let (hold_us, now) = after(&mut gathering, BEGIN, (100, 400), 10);
        assert!(hold_us > 0);
        let (hold_us, now) = after(&mut gathering, now, (100, 400), 5);
        assert!(hold_us > 0, "half of what it took to begin");
        let (hold_us, _) = after(&mut gathering, now, (100, 400), 3);
        assert_eq!(hold_us, 0);
    }

    #[test]
    fn what_may_wait_is_a_picture_whoever_sends_it() {
        let mut story = Story::new();
        let mut ids = 1..;
        let mut publish = |story: &mut Story, stream: ReceiveStream| {
            let id = ids.next().expect("endless");
            let ssrcs = vec![];
            let mid = id.to_string();
            story.publish(
                id,
                ALICE,
                ReceiveStream {
                    mid,
                    ssrcs,
                    ..stream
                },
            );
        };
        let pictures = |payload_type, rtx| ReceiveStream {
            codecs: vec![vp8(payload_type, rtx)],
            ..camera()
        };
        assert_eq!(story.router.new_picture_types(), None);
        publish(&mut story, pictures(96, Some(97)));
        publish(&mut story, pictures(120, Some(124)));
        publish(&mut story, microphone());
        assert_eq!(story.router.new_picture_types(), Some(1 << 96 | 1 << 120));
        assert_eq!(story.router.new_picture_types(), None, "told once");
        let codecs = vec![opus(96)];
        publish(
            &mut story,
            ReceiveStream {
                codecs,
                ..microphone()
            },
        );
        let types = story.router.new_picture_types();
        assert_eq!(types, Some(1 << 120), "96 is somebody's sound");
        publish(&mut story, pictures(97, None));
        let types = story.router.new_picture_types();
        assert_eq!(types, Some(1 << 120), "97 is somebody's repairs");
    }
}
