//! How long a viewer's buffer should hold pictures back, so that repairs come in time: the playout delay that is
//! written on the copies for a link that loses packets.
//!
//! libwebrtc's buffer begins with a few milliseconds and grows by what repairs took only where it knows its round
//! trip, which who sends nothing does not. On a link that loses every tenth packet most frames need a repair, and
//! each would be late.
//! Not here: how a copy is written (`subscription`), the repairs (`reports`).

use crate::id::Micros;

/// Loss is judged over this time.
const WINDOW_US: u64 = 1_000_000;
/// Loss of so much, per mille, in so many windows in a row, and the cushion is there ...
const LOSSY_PERMILLE: u64 = 20;
const LOSSY_WINDOWS: u8 = 2;
/// ... and after so long with less than this it is gone.
const CLEAN_PERMILLE: u64 = 10;
const CLEAN_US: u64 = 10_000_000;
/// A viewer that does not know its round trip asks every 100 ms: in two and a half trips the request, its repeat and
/// both answers have gone their way; and what notices the hole and sends the request takes this.
const TRIPS_TENTHS: u64 = 25;
const NOTICE_US: u64 = 30_000;
/// Nobody talks well with more.
const LONGEST_US: u64 = 400_000;
/// Values are that far apart: a new one moves the picture.
const STEP_US: u64 = 50_000;
/// One unit on the wire.
const UNIT_US: u64 = 10_000;
/// Ten seconds, libwebrtc's own limit: the buffer may grow beyond the least as it always may.
const MOST_UNITS: u32 = 1_000;

/// The cushion of one transport.
#[derive(Debug, Default)]
pub struct Cushion {
    arrived: u32,
    lost: u32,
    since: Option<Micros>,
    /// Lossy windows in a row.
    lossy: u8,
    /// The last window that was not clean.
    bad: Option<Micros>,
    /// None until there was one; from then on something is said, or the last word would hold.
    least_us: Option<u64>,
}

impl Cushion {
    /// Feedback told of these. True once a window: `value` may be another.
    pub fn told(&mut self, (arrived, lost): (u32, u32), rtt_us: u64, now: Micros) -> bool {
        self.arrived += arrived;
        self.lost += lost;
        let since = *self.since.get_or_insert(now);
        if now.since(since) < WINDOW_US {
            return false;
        }
        let permille = u64::from(self.lost) * 1_000 / u64::from(self.arrived + self.lost).max(1);
        (self.arrived, self.lost, self.since) = (0, 0, Some(now));
        self.lossy = if permille >= LOSSY_PERMILLE {
            self.lossy.saturating_add(1)
        } else {
            0
        };
        if permille >= CLEAN_PERMILLE {
            self.bad = Some(now);
        }
        if self.lossy >= LOSSY_WINDOWS && rtt_us > 0 {
            let wanted = (rtt_us * TRIPS_TENTHS / 10 + NOTICE_US).next_multiple_of(STEP_US);
            let least = self.least_us.get_or_insert(0);
            *least = (*least).max(wanted.min(LONGEST_US));
        } else if self.bad.is_some_and(|bad| now.since(bad) >= CLEAN_US) {
            self.least_us = self.least_us.map(|_| 0);
        }
        true
    }

    /// The element (two limits of 12 bits); None: nothing was ever to be said.
    pub fn value(&self) -> Option<[u8; 3]> {
        let least = (self.least_us? / UNIT_US) as u32;
        let [_, high, middle, low] = (least << 12 | MOST_UNITS).to_be_bytes();
        Some([high, middle, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seconds with this loss, percent.
    fn pass(cushion: &mut Cushion, now: &mut Micros, seconds: u64, lost: u32, rtt_ms: u64) {
        for _ in 0..seconds * 10 {
            *now = now.plus_ms(100);
            cushion.told((100 - lost, lost), rtt_ms * 1_000, *now);
        }
    }

    fn least_ms(cushion: &Cushion) -> Option<u32> {
        cushion.value().map(|[high, middle, _]| {
            (u32::from(high) << 4 | u32::from(middle) >> 4) * (UNIT_US / 1_000) as u32
        })
    }

    #[test]
    fn it_comes_with_loss_and_goes_when_that_is_long_gone() {
        let (mut cushion, mut now) = (Cushion::default(), Micros(5_000_000));
        pass(&mut cushion, &mut now, 30, 0, 60);
        pass(&mut cushion, &mut now, 1, 10, 60);
        pass(&mut cushion, &mut now, 30, 1, 60);
        assert_eq!(cushion.value(), None, "one bad second is none");
        pass(&mut cushion, &mut now, 4, 5, 60);
        assert_eq!(least_ms(&cushion), Some(200), "2.5 trips and a bit");
        pass(&mut cushion, &mut now, 4, 5, 150);
        assert_eq!(least_ms(&cushion), Some(400));
        pass(&mut cushion, &mut now, 9, 0, 150);
        pass(&mut cushion, &mut now, 2, 5, 60);
        pass(&mut cushion, &mut now, 9, 0, 60);
        assert_eq!(least_ms(&cushion), Some(400), "not calm for long");
        pass(&mut cushion, &mut now, 3, 0, 60);
        assert_eq!(
            cushion.value(),
            Some([0, 0x03, 0xe8]),
            "nothing, up to 10 s"
        );
        pass(&mut cushion, &mut now, 4, 5, 2_000);
        assert_eq!(least_ms(&cushion), Some(400), "never more");
    }

    #[test]
    fn without_a_round_trip_there_is_none() {
        let (mut cushion, mut now) = (Cushion::default(), Micros(5_000_000));
        pass(&mut cushion, &mut now, 30, 10, 0);
        assert_eq!(cushion.value(), None);
    }
}
