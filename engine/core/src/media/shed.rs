//! Less video when the CPU is short: who gets what of a budget for the whole plane, and how that takes effect (R11).
//!
//! The budget is divided as that of a narrow link is (`allocation`), over the subscribers of all transports together:
//! everybody's lowest layer first in order of priority, so what is given up is, in this order, high layers of
//! thumbnails, all but the top layer of who speaks, is pinned or shares a screen, frame rates and sizes of these, and
//! in the end video. Sound is not in the budget. Links are not probed meanwhile.
//! Not here: whether the CPU is short and how much fits (`overload`), the links (`congestion`).

use crate::id::{GroupId, Micros, PublicationId};
use crate::overload::Flow;

use super::allocation::{share, Stream};
use super::congestion::stream_of;
use super::publication::{KEY_INTERVAL_US, NONE};
use super::router::Router;
use super::subscription::Subscription;
use super::{Event, Sink};

/// After a brake, publishers are asked for key frames one after the other.
const KEYS_APART_US: u64 = 10_000;
/// Voices of a group that are heard when even sound is too much.
const VOICES: u8 = 3;

/// What is held back for want of CPU.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    /// All video stands still until the next division.
    pub is_braked: bool,
    /// There is a budget.
    pub is_active: bool,
    /// Groups of which only the loudest are heard.
    hushed: Vec<GroupId>,
}

impl Router {
    /// The video of this plane.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let mut flow = Flow::default();
        for sub in 0..self.egress.len() {
            let Some(stream) = self.contender(sub) else {
                continue;
            };
            let hot = &self.egress[sub];
            if hot.current != NONE {
                flow.flowing_bps += stream.rate(hot.step);
            }
            flow.granted_bps += stream.rate(hot.target_step);
            flow.wanted_bps += stream.rate(stream.wish());
        }
        flow
    }

    /// A video stream as far as its link, its subscriber and its publisher let it flow.
    fn contender(&self, sub: usize) -> Option<Stream> {
        let hot = &self.egress[sub];
        let cold = self.subscriptions[sub].as_ref()?;
        if !hot.video || hot.paused || cold.starved || hot.stalled {
            return None;
        }
        let publication = self.publications.get(hot.source as usize)?.as_ref()?;
        let mut stream = stream_of(publication, cold, u32::try_from(sub).ok()?);
        stream.max = stream.max.min(cold.cap);
        stream.had = match (cold.is_shed, cold.allowed) {
            (true, _) => NONE,
            (false, NONE) => stream.wish(),
            (false, allowed) => allowed,
        };
        (publication.open && stream.wish() != NONE).then_some(stream)
    }

    /// Stop all video at once and tell nobody: a division follows within a second.
    pub fn brake(&mut self) {
        self.held.clear();
        self.shedding.is_braked = true;
        self.shedding.is_active = true;
        for hot in self.egress.iter_mut().filter(|hot| hot.video) {
            (hot.current, hot.target, hot.target_step) = (NONE, NONE, NONE);
        }
    }

    /// Divide so many bits per second among all video; None: as much as everybody wants.
    pub fn allot(&mut self, budget_bps: Option<u64>, now: Micros, sink: &mut impl Sink) {
        let was_braked = std::mem::take(&mut self.shedding.is_braked);
        self.shedding.is_active = budget_bps.is_some();
        if was_braked {
            self.stagger_keys(now);
        }
        let mut streams = std::mem::take(&mut self.shares);
        streams.clear();
        streams.extend((0..self.egress.len()).filter_map(|sub| self.contender(sub)));
        if let Some(budget_bps) = budget_bps {
            share(budget_bps, &mut streams);
        } else {
            streams.iter_mut().for_each(|own| own.granted = own.wish());
        }
        for stream in &streams {
            self.allow(stream, was_braked, now, sink);
        }
        self.shares = streams;
        if was_braked {
            self.aim_the_rest(now);
        }
        if budget_bps.is_none() {
            self.allow_the_rest(now, sink);
        }
    }

    /// Let a share take effect.
    fn allow(&mut self, stream: &Stream, was_braked: bool, now: Micros, sink: &mut impl Sink) {
        let Some(cold) = &mut self.subscriptions[stream.sub as usize] else {
            return;
        };
        // At the wish there is no limit: a layer that comes back is taken at once.
        let allowed = if stream.granted == stream.wish() {
            NONE
        } else {
            stream.granted
        };
        let is_shed = stream.granted == NONE;
        let is_same = (allowed, is_shed) == (cold.allowed, cold.is_shed);
        if is_same && !was_braked {
            return;
        }
        (cold.allowed, cold.is_shed) = (allowed, is_shed);
        cold.tell_paused(sink);
        let hot = &mut self.egress[stream.sub as usize];
        let publication = self.publications.get(hot.source as usize);
        if let (Some(Some(publication)), false) = (publication, is_shed) {
            // What is too much does not wait for the key frame of a lower layer.
            let carrier = publication.carrier(stream.granted);
            let is_at_once = carrier == hot.current && publication.is_nested();
            if hot.current != NONE && hot.step > stream.granted && !is_at_once {
                hot.current = NONE;
            }
        }
        self.retarget(stream.sub, now, sink);
    }

    /// The brake stopped what is muted too: that is not divided, and begins when it is unmuted.
    fn aim_the_rest(&mut self, now: Micros) {
        for sub in 0..self.egress.len() {
            if self.egress[sub].target == NONE {
                self.aim(u32::try_from(sub).expect("a slot"), now);
            }
        }
    }

    /// Subscriptions that nothing would flow to now are not held back either.
    fn allow_the_rest(&mut self, now: Micros, sink: &mut impl Sink) {
        for sub in 0..self.egress.len() {
            let Some(cold) = &mut self.subscriptions[sub] else {
                continue;
            };
            if cold.is_shed || cold.allowed != NONE {
                (cold.allowed, cold.is_shed) = (NONE, false);
                cold.tell_paused(sink);
                self.retarget(u32::try_from(sub).expect("a slot"), now, sink);
            }
        }
    }

    /// Key frames of all publishers at once would be the next overload.
    fn stagger_keys(&mut self, now: Micros) {
        let mut wait_us = 0;
        for publication in self.publications.iter_mut().flatten() {
            if !publication.stream.video || publication.subscribers.is_empty() {
                continue;
            }
            let asked = (now.0 + wait_us).saturating_sub(KEY_INTERVAL_US);
            let before = publication.keys_asked.map_or(0, |asked| asked.0);
            publication.keys_asked = Some(Micros(asked.max(before)));
            wait_us = (wait_us + KEYS_APART_US) % KEY_INTERVAL_US;
        }
    }

    /// Only the loudest voices of each group that has no limit of its own, or all again.
    pub fn hush(&mut self, is_hushed: bool) {
        if !is_hushed {
            for group in std::mem::take(&mut self.shedding.hushed) {
                self.set_loudest(group, 0, None);
            }
            return;
        }
        for at in 0..self.publications.len() {
            let Some(publication) = &self.publications[at] else {
                continue;
            };
            let group = publication.group;
            if !self.stages.contains_key(&group) {
                self.set_loudest(group, VOICES, None);
                self.shedding.hushed.push(group);
            }
        }
    }

    /// The policy's own limit on voices; having none does not lift that of a hush.
    pub fn limit_voices(&mut self, group: GroupId, places: u8, dominant: Option<PublicationId>) {
        let is_hushed = self.shedding.hushed.contains(&group);
        if places > 0 {
            self.shedding.hushed.retain(|hushed| *hushed != group);
        } else if is_hushed {
            return;
        }
        self.set_loudest(group, places, dominant);
    }

    /// Video streams that are paused for want of CPU, and those that are lower than they could be.
    #[must_use]
    pub fn shed_streams(&self) -> (u64, u64) {
        let streams = self.subscriptions.iter().flatten();
        streams.fold((0, 0), |(paused, lowered), own| {
            let is_lowered = !own.is_shed && own.allowed != NONE;
            (
                paused + u64::from(own.is_shed),
                lowered + u64::from(is_lowered),
            )
        })
    }
}

impl Subscription {
    /// Say whether video is held back, if that is news.
    pub fn tell_paused(&mut self, sink: &mut impl Sink) {
        let is_paused = self.starved || self.is_shed;
        if is_paused == self.is_told_paused {
            return;
        }
        self.is_told_paused = is_paused;
        sink.event(if is_paused {
            Event::Paused(self.id)
        } else {
            Event::Resumed(self.id)
        });
    }
}
