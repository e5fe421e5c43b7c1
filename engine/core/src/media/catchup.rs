//! A newcomer begins at the last key frame, from the cache, if the publisher may not be asked for a new one yet.
//!
//! Key frames are dear, so they are asked for at most every `KEY_INTERVAL_US` (S9). Who joins in between gets the
//! last one and all that followed, faster than it was sent, until nothing is left to make up for; only then do
//! live packets reach it. Numbers and timestamps are those that everybody else got, so repeats work as ever.
//! Not here: whether a key frame is needed at all (`layers`), the copies themselves (`fanout`).

use crate::id::{Micros, SubscriptionId};

use super::fanout::Copied;
use super::publication::{KEY_INTERVAL_US, NONE};
use super::router::{wake, Router};
use super::subscription::LIVE;
use super::Sink;

/// Between two handfuls.
const STEP_US: u64 = 5_000;
/// So much faster than the layer is sent, percent; as fast as a browser sends a key frame.
const PACE_PERCENT: u64 = 250;
/// Slower than this, percent, nobody arrives: better to wait for a new key frame.
const LEAST_PERCENT: u64 = 150;
/// Who has not arrived after so long never will: the publisher sends more than it did. A new key frame is better.
const GIVE_UP_US: u64 = 1_200_000;
/// For all that one peer catches up on, when nothing is known of its link.
const UNKNOWN_LINK_BPS: u64 = 10_000_000;

/// Somebody on the way from a key frame to the present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    sub: u32,
    /// The slot may be another's by now.
    id: SubscriptionId,
    layer: u8,
    epoch: u32,
    /// Dense number of the next packet.
    next: u64,
    is_begun: bool,
    rate_bps: u64,
    since: Micros,
    sent_bytes: u64,
}

impl Router {
    /// Let a newcomer begin at the last key frame. False: there is none that is young and whole enough, or its link
    /// is too narrow for more than what is sent now.
    pub(super) fn begin_late(&mut self, sub: u32, now: Micros) -> bool {
        let hot = &self.egress[sub as usize];
        let (Some(Some(publication)), Some(cold), Some(transport)) = (
            self.publications.get(hot.source as usize),
            &self.subscriptions[sub as usize],
            &self.transports[hot.transport as usize],
        ) else {
            return false;
        };
        let Some(layer) = publication.layers.get(usize::from(hot.target)) else {
            return false;
        };
        if hot.packets > 0 || !publication.open {
            return false;
        }
        let (Some(key), Some(cache)) = (layer.key, &layer.cache) else {
            return false;
        };
        let first = cache.get(key.dense);
        let is_readable =
            first.is_some_and(|(meta, _)| hot.payload_types[usize::from(meta.codec)] != NONE);
        if !is_readable || now.since(key.at) > KEY_INTERVAL_US {
            return false;
        }
        if self.late.iter().any(|late| late.id == cold.id) {
            return true;
        }
        let others: u64 = self
            .late
            .iter()
            .filter(|late| self.egress[late.sub as usize].transport == hot.transport)
            .map(|late| late.rate_bps)
            .sum();
        let spare_bps = transport.pressure.spare_bps().unwrap_or(UNKNOWN_LINK_BPS);
        let rate_bps = (layer.bps * PACE_PERCENT / 100).min(spare_bps.saturating_sub(others));
        if layer.bps == 0 || rate_bps < layer.bps * LEAST_PERCENT / 100 {
            return false;
        }
        self.late.push(Late {
            sub,
            id: cold.id,
            layer: hot.target,
            epoch: layer.epoch,
            next: key.dense,
            is_begun: false,
            rate_bps,
            since: now,
            sent_bytes: 0,
        });
        wake(&mut self.wake, Micros(now.0 + 1)); // this tick may be over
        true
    }

    /// Transports that can send by now: whoever waited for that begins.
    pub(super) fn look_at_opened(&mut self, now: Micros, sink: &mut impl Sink) {
        let mut opened = std::mem::take(&mut self.opened);
        for slot in opened.drain(..) {
            let mut place = 0;
            while let Some(&(_, sub)) = self.transports[slot as usize]
                .as_ref()
                .and_then(|transport| transport.subscriptions.get(place))
            {
                place += 1;
                let hot = &mut self.egress[sub as usize];
                if sink.rtp(hot.to).is_none() {
                    break;
                }
                sink.rtp_done(0);
                hot.stalled = false;
                if hot.video && hot.current == NONE {
                    self.retarget(sub, now, sink);
                }
            }
        }
        self.opened = opened;
    }

    /// The next handful for everybody who is late.
    pub(super) fn catch_up(&mut self, now: Micros, sink: &mut impl Sink) {
        if self.late.is_empty() {
            return;
        }
        self.release(now, sink); // nothing of the cache may still be on its way to the others
        let mut all = std::mem::take(&mut self.late);
        all.retain_mut(|late| self.hurry(late, now, sink));
        if !all.is_empty() {
            self.wake_at(Micros(now.0 + STEP_US));
        }
        self.late = all;
    }

    /// False: it has arrived, or something else was decided meanwhile.
    fn hurry(&mut self, late: &mut Late, now: Micros, sink: &mut impl Sink) -> bool {
        let earned = late.rate_bps * (now.since(late.since) + STEP_US) / 8_000_000;
        loop {
            let hot = &mut self.egress[late.sub as usize];
            let is_same = self.subscriptions[late.sub as usize]
                .as_ref()
                .is_some_and(|cold| cold.id == late.id);
            let expected = if late.is_begun { late.layer } else { NONE };
            if !is_same || hot.target != late.layer || hot.current != expected {
                return false;
            }
            let Some(Some(publication)) = self.publications.get(hot.source as usize) else {
                return false;
            };
            if now.since(late.since) > GIVE_UP_US {
                (hot.current, hot.behind) = (NONE, LIVE);
                self.retarget(late.sub, now, sink);
                return false;
            }
            let layer = &publication.layers[usize::from(late.layer)];
            let Some(cache) = layer.cache.as_ref().filter(|_| layer.epoch == late.epoch) else {
                return false;
            };
            if late.is_begun && late.next > cache.newest() {
                hot.behind = LIVE;
                return false;
            }
            let Some((_, packet)) = cache.get(late.next) else {
                if late.is_begun {
                    late.next += 1; // a hole: it is asked for like any other
                    hot.behind = late.next;
                    continue;
                }
                return false; // the next round asks for a key frame
            };
            if late.sent_bytes >= earned {
                return true;
            }
            late.sent_bytes += packet.len() as u64;
            let copied = Copied {
                layer: late.layer,
                dense: late.next,
                newest: false,
                padding: 0,
            };
            hot.behind = late.next + 1;
            self.copy_one(late.sub, copied, now, sink);
            let hot = &mut self.egress[late.sub as usize];
            late.next += 1;
            late.is_begun = true;
            hot.behind = late.next;
        }
    }
}
