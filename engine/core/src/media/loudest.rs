//! Only the loudest are forwarded: a stage of K places per group, ranked per packet.
//!
//! Whoever begins to speak is on stage with the very packet that makes him louder than the quietest there, so no
//! onset is cut off by a way to the control plane and back. A voice keeps its loudness for `HOLD_US` and then fades;
//! a challenger must be louder by `MARGIN_DB`, and who came last may stay `STAY_US`. The dominant speaker cannot be
//! displaced while there is another place. Off stage a track's packets are not copied; back on stage a subscriber's
//! stream goes on with the next number (a new segment), so nobody asks for what was never sent.
//! Each shard ranks the tracks that have subscribers in it.
//! Not here: K and who is dominant (`sfu/group.py`), copies (`fanout`).

use crate::id::{GroupId, Micros, PublicationId};

use super::publication::{Publication, NONE};
use super::router::Router;
use super::subscription::Egress;

/// -dBov of a packet that tells none.
const UNKNOWN: u8 = 44;
/// Between two syllables.
const HOLD_US: u64 = 250_000;
/// Then a dB is lost in this time (50 dB a second).
const FADE_US: u64 = 20_000;
/// Whoever was not heard for so long has left the stage.
const GONE_US: u64 = 500_000;
/// So that equally loud voices do not take turns.
const MARGIN_DB: u8 = 3;
/// The shortest stay on stage.
const STAY_US: u64 = 150_000;
/// Places of a stage.
const MAX_PLACES: usize = 16;

/// One track as the stage sees it.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// -dBov at its last peak.
    level: u8,
    peak: Micros,
    heard: Micros,
    /// On stage since.
    since: Option<Micros>,
}

impl Default for Voice {
    fn default() -> Self {
        Self {
            level: 127,
            peak: Micros(0),
            heard: Micros(0),
            since: None,
        }
    }
}

impl Voice {
    fn hear(&mut self, level: u8, now: Micros) {
        if level <= self.level_at(now) {
            (self.level, self.peak) = (level, now);
        }
        self.heard = now;
    }

    fn level_at(&self, now: Micros) -> u8 {
        let faded = now.since(self.peak).saturating_sub(HOLD_US) / FADE_US;
        self.level.saturating_add(faded.min(127) as u8).min(127)
    }
}

/// The places of one group.
#[derive(Clone, Debug)]
pub struct Stage {
    places: usize,
    dominant: Option<PublicationId>,
    /// Slots of publications.
    on: Vec<u32>,
}

impl Router {
    /// Forward only so many voices of a group, the dominant one among them; 0 = all, the initial state.
    pub fn set_loudest(&mut self, group: GroupId, places: u8, dominant: Option<PublicationId>) {
        let places = usize::from(places).min(MAX_PLACES);
        let before = self.stages.get_mut(&group);
        if let Some(stage) = before.filter(|stage| stage.places == places) {
            stage.dominant = dominant;
            return;
        }
        // Everybody starts off stage and is back with his next packet if he may.
        for publication in self.publications.iter_mut().flatten() {
            if publication.group == group && !publication.stream.video {
                leave(publication, &mut self.egress); // also what flowed before there was a stage
            }
        }
        if places == 0 {
            self.stages.remove(&group);
            return;
        }
        let stage = Stage {
            places,
            dominant,
            on: Vec::with_capacity(places),
        };
        self.stages.insert(group, stage);
    }

    /// Whether this packet's track is on stage, perhaps because of this packet.
    pub(super) fn is_on_stage(
        &mut self,
        index: u32,
        level: Option<u8>,
        newest: bool,
        now: Micros,
    ) -> bool {
        if self.stages.is_empty() {
            return true;
        }
        let Some(Some(own)) = self.publications.get_mut(index as usize) else {
            return true;
        };
        let Some(stage) = self
            .stages
            .get_mut(&own.group)
            .filter(|_| !own.stream.video)
        else {
            return true;
        };
        if newest {
            own.voice
                .hear(level.map_or(UNKNOWN, |level| level & 0x7f), now);
        }
        if own.voice.since.is_some() {
            return true;
        }
        let (group, mine) = (own.group, own.voice.level_at(now));
        if newest && stage.take_place(group, mine, now, &mut self.publications, &mut self.egress) {
            if let Some(Some(own)) = self.publications.get_mut(index as usize) {
                own.voice.since = Some(now);
                stage.on.push(index);
                return true;
            }
        }
        if let Some(Some(own)) = self.publications.get_mut(index as usize) {
            own.counters.off_stage += 1;
        }
        false
    }
}

impl Stage {
    /// Make room for a voice of this level, if it may have it.
    fn take_place(
        &mut self,
        group: GroupId,
        level: u8,
        now: Micros,
        publications: &mut [Option<Publication>],
        egress: &mut [Egress],
    ) -> bool {
        self.on.retain(|slot| {
            let Some(Some(other)) = publications.get_mut(*slot as usize) else {
                return false;
            };
            // A slot may carry another track by now.
            let there = other.group == group && other.voice.since.is_some();
            let gone = now.since(other.voice.heard) > GONE_US;
            if there && gone {
                leave(other, egress);
            }
            there && !gone
        });
        if self.on.len() < self.places {
            return true;
        }
        let weakest = self
            .on
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| {
                let other = publications.get(*slot as usize)?.as_ref()?;
                let safe = self.places > 1 && self.dominant == Some(other.id);
                (!safe).then(|| (other.voice.level_at(now), at))
            })
            .max();
        let Some((quiet, at)) = weakest else {
            return false;
        };
        let Some(Some(other)) = publications.get_mut(self.on[at] as usize) else {
            return false;
        };
        let stays = other
            .voice
            .since
            .is_some_and(|since| now.since(since) < STAY_US);
        if stays || level.saturating_add(MARGIN_DB) > quiet {
            return false;
        }
        leave(other, egress);
        self.on.swap_remove(at);
        true
    }
}

fn leave(publication: &mut Publication, egress: &mut [Egress]) {
    publication.voice.since = None;
    interrupt(publication, egress);
}

/// Its copies end; the next one begins a new segment.
fn interrupt(publication: &Publication, egress: &mut [Egress]) {
    for &sub in &publication.subscribers {
        egress[sub as usize].current = NONE;
    }
}
