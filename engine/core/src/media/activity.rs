//! How much somebody spoke lately, on two of the three time scales of dominant-speaker detection.
//!
//! I. Volfin and I. Cohen, "Dominant speaker identification for multipoint videoconferencing" (2012), section 3: an
//! immediate score from the level of a frame (Python takes the report's loudest), a medium one from how many of the
//! last frames were speech, a long one from how many of the last medium blocks were. Here a frame is 20 ms of wall
//! clock, so packets of any length count alike and DTX counts as silence; a block is five frames, the long scale
//! ten blocks (one second).
//! Not here: the scores and the election (`sfu/speakers.py`), who is forwarded (`loudest`).

use crate::id::Micros;

/// One frame.
const FRAME_US: u64 = 20_000;
/// Frames of the medium scale.
const BLOCK: u32 = 5;
/// Blocks of the long scale.
const BLOCKS: u32 = 10;
/// Frames of a block that make it one of speech.
const SPOKEN: u32 = 3;
/// A packet speaks for the time since the one before, up to this: the longest Opus packet, with jitter.
const LONGEST: u64 = 7;
/// Loudness is 127 minus the -dBov of RFC 6464. Speech at a usual distance is 87..107.
const FAINTEST: u8 = 127 - 45;
/// Speech is this much louder than the noise of the place.
const ABOVE_NOISE: u8 = 8;
/// The noise of the place is between these, or it would silence who sings one note.
const NOISE: (u16, u16) = (60, 92);
/// It is followed down at once, and up by this many twentieths of a dB per frame (2.5 dB a second).
const RISE: u16 = 1;
const TWENTIETHS: u16 = 20;

/// The last second of one voice, a bit per frame, the newest lowest.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    frames: u64,
    /// Frame number of the newest bit.
    at: u64,
    /// Twentieths of a dB.
    noise: u16,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            frames: 0,
            at: 0,
            noise: NOISE.0 * TWENTIETHS,
        }
    }
}

impl Activity {
    /// A packet with a level of 0 (loudest) to 127. `guessed`: from its bytes, so that noise cannot be told.
    pub fn hear(&mut self, level: u8, guessed: bool, now: Micros) {
        let frame = now.0 / FRAME_US;
        let passed = frame.saturating_sub(self.at);
        let loudness = 127 - level.min(127);
        let spoken = passed.clamp(1, LONGEST);
        if !guessed {
            let risen = self.noise + RISE * spoken as u16;
            self.noise = risen
                .min(u16::from(loudness) * TWENTIETHS)
                .clamp(NOISE.0 * TWENTIETHS, NOISE.1 * TWENTIETHS);
        }
        let threshold = if guessed {
            FAINTEST
        } else {
            FAINTEST.max((self.noise / TWENTIETHS) as u8 + ABOVE_NOISE)
        };
        self.shift(passed);
        if loudness >= threshold {
            self.frames |= (1 << spoken) - 1;
        }
        self.at = self.at.max(frame);
    }

    /// (frames of speech in the last block, blocks of speech in the last second), as of now.
    #[must_use]
    pub fn read(&self, now: Micros) -> (u8, u8) {
        let mut then = *self;
        let passed = (now.0 / FRAME_US).saturating_sub(self.at);
        if passed > LONGEST {
            then.shift(passed);
        }
        let block = |index: u32| (then.frames >> (index * BLOCK) & ((1 << BLOCK) - 1)).count_ones();
        let long = (0..BLOCKS).filter(|index| block(*index) >= SPOKEN).count();
        (block(0) as u8, long as u8)
    }

    const fn shift(&mut self, frames: u64) {
        self.frames = if frames < u64::BITS as u64 {
            self.frames << frames
        } else {
            0
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packets of `every_ms` at this level.
    fn speak(activity: &mut Activity, from_ms: u64, ms: u64, every_ms: u64, level: u8) -> u64 {
        for at in (from_ms..from_ms + ms).step_by(every_ms as usize) {
            activity.hear(level, false, Micros(at * 1_000));
        }
        from_ms + ms
    }

    fn read(activity: &Activity, at_ms: u64) -> (u8, u8) {
        activity.read(Micros(at_ms * 1_000))
    }

    #[test]
    fn speech_fills_a_block_in_100_ms_and_the_second_in_a_second() {
        for every_ms in [10, 20, 40, 60] {
            let mut activity = Activity::default();
            let start = speak(&mut activity, 10_000, 1_000, every_ms, 127);
            assert_eq!(read(&activity, start), (0, 0));
            let half = speak(&mut activity, start, 480, every_ms, 30);
            let (medium, long) = read(&activity, half);
            assert_eq!(medium, 5, "packets of {every_ms} ms");
            assert!((4..=5).contains(&long), "{long}, packets of {every_ms} ms");
            let end = speak(&mut activity, half, 620, every_ms, 30);
            assert_eq!(read(&activity, end), (5, 10));
        }
    }

    #[test]
    fn a_cough_of_200_ms_is_no_more_than_three_blocks() {
        for start in 0..20 {
            let mut activity = Activity::default();
            let from = speak(&mut activity, 5_000 + start, 3_000, 20, 90);
            let mut now = speak(&mut activity, from, 200, 20, 5);
            let mut most = 0;
            for _ in 0..60 {
                now = speak(&mut activity, now, 20, 20, 90);
                most = most.max(read(&activity, now).1);
            }
            assert!(most <= 3, "{most}");
            assert_eq!(read(&activity, now), (0, 0));
        }
    }

    #[test]
    fn silence_by_dtx_is_silence() {
        let mut activity = Activity::default();
        let end = speak(&mut activity, 1_000, 1_500, 20, 30);
        assert_eq!(
            read(&activity, end + 100),
            (5, 10),
            "a late packet is no pause"
        );
        assert_eq!(read(&activity, end + 500).0, 0);
        assert!((4..=6).contains(&read(&activity, end + 500).1));
        assert_eq!(read(&activity, end + 5_000), (0, 0));
        activity.hear(30, false, Micros((end + 5_000) * 1_000));
        assert_eq!(read(&activity, end + 5_000).1, 1);
    }

    #[test]
    fn noise_is_learned_and_a_voice_above_it_heard() {
        let mut activity = Activity::default();
        let mut now = 1_000;
        for step in 0..1_000u16 {
            now = speak(&mut activity, now, 20, 20, 41 + (step % 5) as u8); // a fan, 41..45 -dBov
        }
        assert_eq!(read(&activity, now).1, 0);
        now = speak(&mut activity, now, 1_000, 20, 28);
        assert_eq!(read(&activity, now), (5, 10));
        // A room of -60 dBov never was speech.
        let mut quiet = Activity::default();
        let end = speak(&mut quiet, 1_000, 2_000, 20, 60);
        assert_eq!(read(&quiet, end), (0, 0));
    }

    #[test]
    fn a_long_loud_tone_and_guessed_speech_stay_speech() {
        let mut tone = Activity::default();
        let end = speak(&mut tone, 1_000, 60_000, 20, 14);
        assert_eq!(read(&tone, end), (5, 10));
        let mut guessed = Activity::default();
        for at in (1_000..60_000).step_by(20) {
            guessed.hear(44, true, Micros(at * 1_000));
        }
        assert_eq!(read(&guessed, 60_000), (5, 10));
    }

    proptest! {
        #[test]
        fn counts_stay_in_their_scales(steps in proptest::collection::vec((any::<u8>(), any::<bool>(), 0..3_000_000u64), 0..200)) {
            let (mut activity, mut now) = (Activity::default(), 0);
            for (level, guessed, passed) in steps {
                now += passed;
                activity.hear(level, guessed, Micros(now));
                let (medium, long) = activity.read(Micros(now));
                prop_assert!(medium <= 5 && long <= 10);
            }
        }
    }
}
