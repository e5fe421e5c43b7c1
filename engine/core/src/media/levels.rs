//! Who was heard, per group: at most ten reports a second, loudest level of the interval (RFC 6464).
//!
//! Not here: who is the dominant speaker (`sfu/speakers.py`), the levels themselves (`rtp::Values`).

use crate::id::{GroupId, Micros, PublicationId};

/// Between two reports.
pub const INTERVAL_US: u64 = 100_000;

/// One voice in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub publication: PublicationId,
    /// -dBov of its loudest packet since the last report: 0 loudest, 127 silent.
    pub level: u8,
    /// Frames of speech among the last five (`activity`).
    pub medium: u8,
    /// Blocks of speech among the last ten.
    pub long: u8,
}

/// Publications heard since the last report, by slot.
#[derive(Debug, Default)]
pub struct Levels {
    heard: Vec<(GroupId, u32)>,
    due: Option<Micros>,
    last: Option<Micros>,
}

impl Levels {
    /// A publication was heard for the first time in this interval. Returns when the report is due.
    pub fn hear(&mut self, group: GroupId, publication: u32, now: Micros) -> Micros {
        self.heard.push((group, publication));
        *self.due.get_or_insert_with(|| {
            let earliest = self.last.map_or(now.0, |last| last.0 + INTERVAL_US);
            Micros(earliest.max(now.0 + INTERVAL_US / 2))
        })
    }

    /// When the next report is due.
    #[must_use]
    pub const fn due(&self) -> Option<Micros> {
        self.due
    }

    /// Take what was heard, sorted by group, if a report is due. Give the list back with `recycle`.
    pub fn take(&mut self, now: Micros) -> Option<Vec<(GroupId, u32)>> {
        if self.due? > now {
            return None;
        }
        self.due = None;
        self.last = Some(now);
        self.heard.sort_unstable();
        Some(std::mem::take(&mut self.heard))
    }

    /// Keep the memory of a list that was taken.
    pub fn recycle(&mut self, mut list: Vec<(GroupId, u32)>) {
        if self.heard.is_empty() {
            list.clear();
            self.heard = list;
        }
    }
}
