//! The owner's side: who wants a track of ours, and what they are told before a packet.
//!
//! Not here: what is told (`mirror`), copies for subscribers here (`fanout`).

use crate::id::{Micros, PublicationId, TransportId};
use crate::shard::Shard;

use super::super::clock::Offset;
use super::super::fanout::Copied;
use super::super::packet::Meta;
use super::super::publication::{Publication, KEY_INTERVAL_US, MAX_LAYERS};
use super::super::router::Router;
use super::super::Sink;
use super::{LayerState, Notice, Opened, Relayed, State};

/// Packets of one layer that a new mirror begins with, at most: a quarter of a ring.
const MAX_RECALLED: usize = 256;

/// The other shards that have subscribers of a publication of ours.
#[derive(Debug, Default)]
pub struct Remotes {
    /// A bit each.
    shards: u64,
    /// What they know.
    told: Option<State>,
    /// They do not know the latest negotiation.
    is_renegotiated: bool,
}

impl Remotes {
    pub fn is_empty(&self) -> bool {
        self.shards == 0
    }

    #[cfg(test)]
    pub(super) fn has(&self, shard: u8) -> bool {
        self.shards >> shard & 1 == 1
    }

    pub fn renegotiated(&mut self) {
        self.is_renegotiated = true;
    }

    fn iter(shards: u64) -> impl Iterator<Item = u8> {
        let mut left = shards;
        std::iter::from_fn(move || {
            let shard = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (shard < u64::BITS).then_some(shard as u8)
        })
    }
}

impl Publication {
    /// Somebody wants it, here or elsewhere.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.subscribers.is_empty() || !self.remotes.is_empty()
    }

    /// Relay the last key frame of each layer and everything since, while nobody can be asked for a new one.
    fn recall(&self, shard: u8, now: Micros, sink: &mut impl Sink) {
        for (layer, index) in self.layers.iter().zip(0u8..) {
            let (Some(key), Some(cache)) = (layer.key, &layer.cache) else {
                continue;
            };
            if !self.open || !layer.live || now.since(key.at) > KEY_INTERVAL_US {
                continue;
            }
            let packets = key.dense..=cache.newest();
            if packets.clone().count() > MAX_RECALLED {
                continue;
            }
            for dense in packets {
                let Some((meta, packet)) = cache.get(dense) else {
                    continue;
                };
                let relayed = Relayed {
                    publication: self.id,
                    is_video: true,
                    copied: Copied {
                        layer: index,
                        dense,
                        newest: true,
                        padding: 0,
                    },
                    meta,
                };
                sink.relay(shard, &relayed, packet);
            }
        }
    }

    fn state(&self, offset: Offset) -> State {
        let mut state = State {
            is_open: self.open,
            offset,
            layers: [LayerState::default(); MAX_LAYERS],
        };
        for (told, layer) in state.layers.iter_mut().zip(&self.layers) {
            *told = LayerState {
                is_live: layer.live,
                epoch: layer.epoch,
                bps: layer.bps,
                clock: layer.clock,
            };
        }
        state
    }
}

impl State {
    /// The same with no layer alive.
    fn asleep(mut self) -> Self {
        for layer in &mut self.layers {
            layer.is_live = false;
        }
        self
    }
}

impl Router {
    /// One router of several. Before anything else.
    pub fn set_shard(&mut self, shard: Shard) {
        self.neighbours.shard = shard;
    }

    /// Before the copies of a packet here: the shards with subscribers get it, and what it follows from.
    pub(in super::super) fn relay(
        &mut self,
        index: u32,
        copied: Copied,
        meta: &Meta,
        packet: &[u8],
        sink: &mut impl Sink,
    ) {
        self.tell_mirrors(index, sink);
        let Some(publication) = &self.publications[index as usize] else {
            return;
        };
        let relayed = Relayed {
            publication: publication.id,
            is_video: publication.stream.video,
            copied,
            meta: *meta,
        };
        for shard in Remotes::iter(publication.remotes.shards) {
            sink.relay(shard, &relayed, packet);
        }
    }

    /// Tell the mirrors of a publication what they do not know yet.
    pub(in super::super) fn tell_mirrors(&mut self, index: u32, sink: &mut impl Sink) {
        let Some(Some(publication)) = self.publications.get_mut(index as usize) else {
            return;
        };
        if publication.remotes.is_empty() {
            return;
        }
        let transport = self.transports.get(publication.transport as usize);
        let Some(transport) = transport.and_then(Option::as_ref) else {
            return;
        };
        let shards = publication.remotes.shards;
        if std::mem::take(&mut publication.remotes.is_renegotiated) {
            for shard in Remotes::iter(shards) {
                sink.notify(shard, opened(publication, transport.id));
            }
        }
        let state = publication.state(transport.offset);
        if publication.remotes.told != Some(state) {
            publication.remotes.told = Some(state);
            for shard in Remotes::iter(shards) {
                sink.notify(shard, Notice::State(publication.id, state));
            }
        }
    }

    /// Something changed where nothing can be sent: tell at the next tick.
    pub(in super::super) fn tell_mirrors_soon(&mut self, index: u32) {
        let publication = self.publications[index as usize].as_ref();
        if publication.is_some_and(|own| !own.remotes.is_empty()) {
            self.neighbours.untold.push(index);
            self.wake_at(Micros(0));
        }
    }

    /// What `tell_mirrors_soon` put off.
    pub(in super::super) fn tell_untold(&mut self, sink: &mut impl Sink) {
        while let Some(index) = self.neighbours.untold.pop() {
            self.tell_mirrors(index, sink);
        }
    }

    /// A track is there: who waited for it hears of it at the next tick.
    pub(in super::super) fn welcome(&mut self, index: u32) {
        let Some(publication) = &mut self.publications[index as usize] else {
            return;
        };
        if let Some(shards) = self.neighbours.awaited.remove(&publication.id) {
            publication.remotes.shards = shards;
            publication.remotes.is_renegotiated = true;
            self.tell_mirrors_soon(index);
        }
    }

    /// A track is gone: its mirrors end.
    pub(in super::super) fn part(&mut self, publication: &Publication, sink: &mut impl Sink) {
        for shard in Remotes::iter(publication.remotes.shards) {
            sink.notify(shard, Notice::Closed(publication.id));
        }
    }

    pub(super) fn attach(
        &mut self,
        id: PublicationId,
        shard: u8,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(index) = self.slot_of(id) else {
            *self.neighbours.awaited.entry(id).or_default() |= 1 << shard;
            return;
        };
        self.tell_mirrors(index, sink); // those that are there, so that all know the same
        let Some(publication) = &mut self.publications[index as usize] else {
            return;
        };
        let Some(Some(transport)) = self.transports.get(publication.transport as usize) else {
            return;
        };
        publication.remotes.shards |= 1 << shard;
        let state = publication.state(transport.offset);
        publication.remotes.told = Some(state);
        sink.notify(shard, opened(publication, transport.id));
        // In which life of its layer a packet is must be known before it comes.
        sink.notify(shard, Notice::State(id, state.asleep()));
        publication.recall(shard, now, sink);
        // Only now are its layers alive there, and subscribers begin with what the cache holds.
        sink.notify(shard, Notice::State(id, state));
    }

    pub(super) fn let_go(&mut self, id: PublicationId, shard: u8) {
        if let Some(shards) = self.neighbours.awaited.get_mut(&id) {
            *shards &= !(1 << shard);
            if *shards == 0 {
                self.neighbours.awaited.remove(&id);
            }
        }
        let Some(index) = self.slot_of(id) else {
            return;
        };
        if let Some(publication) = &mut self.publications[index as usize] {
            publication.remotes.shards &= !(1 << shard);
        }
    }
}

fn opened(publication: &Publication, publisher: TransportId) -> Notice {
    Notice::Opened(Box::new(Opened {
        publication: publication.id,
        publisher,
        group: publication.group,
        stream: publication.stream.clone(),
    }))
}
