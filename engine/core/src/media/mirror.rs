//! Tracks whose publisher is at home in another shard, and the shards that have subscribers of ours.
//!
//! The owner receives, repairs and reports a track once. Every shard with a subscriber of it keeps a *mirror*: a
//! publication fed by the owner's packets, with a cache of its own, that fans out as any other. The owner tells each
//! mirror what its packets do not say (which layers are live, their rates and clocks, the gate) before the packet
//! that follows from it; the mirror tells the owner which key frames its subscribers need.
//!
//! * A shard asks for a track once (`Attach`), also when the owner does not know it yet, and takes that back once
//!   (`Detach`); notices and packets between two shards keep their order, so nothing needs a number.
//! * Packets may get lost between shards when one is overloaded, notices never.
//! * A new mirror begins with the last key frame of each layer and what followed, if that is young enough, so that who
//!   joins in another shard begins as everybody does (`catchup`).
//!
//! Not here: how they travel (`parley-io`), copies (`fanout`).

use crate::hash::FastMap;
use crate::id::{GroupId, Micros, PublicationId, TransportId};
use crate::shard::Shard;

use super::cache::Cache;
use super::clock::{Offset, SenderClock};
use super::fanout::Copied;
use super::ingress::end_segments;
use super::packet::Meta;
use super::publication::{Publication, MAX_LAYERS};
use super::router::Router;
use super::subscription::NOWHERE;
use super::{ReceiveStream, Sink};

mod owner;

pub use owner::Remotes;

/// Between two wishes for a key frame that a mirror passes on. The owner has the limit that the publisher sees.
pub(super) const KEY_WISH_US: u64 = 50_000;

/// About a track, from shard to shard.
#[derive(Clone, Debug)]
pub enum Notice {
    /// To the owner: somebody here wants this track.
    Attach(PublicationId),
    /// To the owner: nobody here wants it any more.
    Detach(PublicationId),
    /// To the owner: somebody here needs a key frame of these layers, a bit each.
    KeyWanted(PublicationId, u8),
    /// To a mirror: what the track is, first and after each renegotiation.
    Opened(Box<Opened>),
    /// To a mirror: what changed.
    State(PublicationId, State),
    /// To a mirror: it ended.
    Closed(PublicationId),
}

/// What a track is.
#[derive(Clone, Debug)]
pub struct Opened {
    publication: PublicationId,
    publisher: TransportId,
    group: GroupId,
    stream: ReceiveStream,
}

/// What a mirror cannot see in packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    is_open: bool,
    /// The publisher's clock against ours.
    offset: Offset,
    layers: [LayerState; MAX_LAYERS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LayerState {
    is_live: bool,
    epoch: u32,
    bps: u64,
    clock: Option<SenderClock>,
}

/// A packet on its way to a mirror; its bytes go beside it.
#[derive(Clone, Copy, Debug)]
pub struct Relayed {
    publication: PublicationId,
    is_video: bool,
    copied: Copied,
    meta: Meta,
}

impl Relayed {
    /// Video gives way to audio where not everything finds room (R11).
    #[must_use]
    pub const fn is_video(&self) -> bool {
        self.is_video
    }
}

/// What makes a publication a mirror.
#[derive(Clone, Copy, Debug)]
pub struct Mirror {
    /// Shard of the publisher.
    pub owner: u8,
    /// At home there.
    pub publisher: TransportId,
    /// The publisher's clock against ours.
    pub offset: Offset,
}

/// What a router knows of the others.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) shard: Shard,
    /// Subscriptions here that wait for a mirror.
    waiting: FastMap<PublicationId, Vec<u32>>,
    /// Shards that wait for a track that is not published yet, a bit each.
    awaited: FastMap<PublicationId, u64>,
    /// Publications whose mirrors shall hear of a change soon.
    untold: Vec<u32>,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            shard: Shard::ONLY,
            waiting: FastMap::default(),
            awaited: FastMap::default(),
            untold: Vec::new(),
        }
    }
}

impl Router {
    /// A subscription wants a track of another shard, which is not mirrored here yet.
    pub(super) fn wait_for(&mut self, sub: u32, id: PublicationId, sink: &mut impl Sink) {
        if let Some(owner) = self.neighbours.shard.elsewhere(id.0) {
            let waiting = self.neighbours.waiting.entry(id).or_default();
            if waiting.is_empty() {
                sink.notify(owner, Notice::Attach(id));
            }
            waiting.push(sub);
        }
    }

    /// A subscription wants something else now, or ends; it is on no publication's list any more.
    pub(super) fn leave(&mut self, sub: u32, source: u32, sink: &mut impl Sink) {
        let mut left = None;
        for (id, waiting) in &mut self.neighbours.waiting {
            waiting.retain(|waits| *waits != sub);
            if waiting.is_empty() {
                left = Some(*id);
            }
        }
        if let Some(id) = left {
            self.neighbours.waiting.remove(&id);
            self.detach_from(id, sink);
        }
        let publication = self.publications.get(source as usize);
        let Some(Some(publication)) = publication else {
            return;
        };
        if publication.mirror.is_some() && publication.subscribers.is_empty() {
            let id = publication.id;
            self.close_mirror(id);
            self.detach_from(id, sink);
        }
    }

    fn detach_from(&self, id: PublicationId, sink: &mut impl Sink) {
        if let Some(owner) = self.neighbours.shard.elsewhere(id.0) {
            sink.notify(owner, Notice::Detach(id));
        }
    }

    /// Somebody's subscribers here need key frames: the owner asks for them.
    pub(super) fn wish_keys(
        publication: &mut Publication,
        mirror: Mirror,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let wanted = std::mem::take(&mut publication.keys_wanted);
        publication.keys_asked = Some(now);
        sink.notify(mirror.owner, Notice::KeyWanted(publication.id, wanted));
    }

    fn open_mirror(&mut self, owner: u8, opened: Opened, now: Micros, sink: &mut impl Sink) {
        let id = opened.publication;
        if self.slot_of(id).is_some() {
            self.update_publication(id, opened.stream);
            return;
        }
        let Some(waiting) = self.neighbours.waiting.remove(&id) else {
            return; // nobody wants it any more, and the owner will know soon
        };
        let Ok(mut publication) = Publication::new(id, NOWHERE, opened.group, opened.stream) else {
            return; // the owner took it, so this cannot be
        };
        publication.mirror = Some(Mirror {
            owner,
            publisher: opened.publisher,
            offset: Offset::default(),
        });
        let index = self.place_publication(publication);
        for sub in waiting {
            self.carry(sub, index, now, sink);
        }
        // Sound on a picture's stream is silence, here too.
        self.leave(NOWHERE, index, sink);
    }

    fn close_mirror(&mut self, id: PublicationId) {
        if let Some(publication) = self.take_publication(id) {
            for sub in publication.subscribers {
                self.detach(sub);
            }
        }
    }

    /// What another shard tells of a track.
    pub fn noticed(&mut self, from: u8, notice: Notice, now: Micros, sink: &mut impl Sink) {
        match notice {
            Notice::Attach(id) => self.attach(id, from, now, sink),
            Notice::Detach(id) => self.let_go(id, from),
            Notice::KeyWanted(id, layers) => {
                let Some(index) = self.slot_of(id) else {
                    return;
                };
                if let Some(publication) = &mut self.publications[index as usize] {
                    publication.keys_wanted |= layers;
                    self.ask_key(index, now, sink);
                }
            }
            Notice::Opened(opened) => self.open_mirror(from, *opened, now, sink),
            Notice::State(id, state) => {
                if let Some(index) = self.slot_of(id) {
                    self.release(now, sink); // they came before it
                    self.learn_state(index, &state, now, sink);
                }
            }
            Notice::Closed(id) => {
                self.release(now, sink);
                self.close_mirror(id);
                // An `Attach` that was on its way meanwhile is not to wait there for ever.
                self.neighbours.waiting.remove(&id);
                self.detach_from(id, sink);
            }
        }
    }

    fn learn_state(&mut self, index: u32, state: &State, now: Micros, sink: &mut impl Sink) {
        let Some(publication) = &mut self.publications[index as usize] else {
            return;
        };
        let Some(mirror) = &mut publication.mirror else {
            return;
        };
        mirror.offset = state.offset;
        let before = publication.live();
        for at in 0..publication.layers.len().min(MAX_LAYERS) {
            let (layer, told) = (&mut publication.layers[at], &state.layers[at]);
            layer.live = told.is_live;
            layer.bps = told.bps;
            layer.clock = told.clock;
            if layer.epoch != told.epoch {
                layer.epoch = told.epoch;
                let Some(cache) = &mut layer.cache else {
                    continue; // nothing of a life before has come here
                };
                cache.clear();
                layer.key = None;
                layer.dependency = None;
                layer.parameters = false;
                end_segments(publication, &mut self.egress, at as u8);
            }
        }
        let is_changed = publication.live() != before;
        let is_key_wanted = publication.keys_wanted != 0;
        self.open_gate(index, state.is_open);
        if is_changed && self.aim_all(index, now) || is_key_wanted {
            self.ask_key(index, now, sink);
        }
    }

    /// Whose packet this is.
    #[must_use]
    pub fn publisher_of(&self, packet: &Relayed) -> Option<TransportId> {
        let index = self.slot_of(packet.publication)?;
        let publication = self.publications[index as usize].as_ref()?;
        publication.mirror.map(|mirror| mirror.publisher)
    }

    /// A packet of a track that is mirrored here.
    pub fn relayed(&mut self, packet: &Relayed, bytes: &[u8], now: Micros, sink: &mut impl Sink) {
        let Relayed { copied, meta, .. } = packet;
        let Some(index) = self.slot_of(packet.publication) else {
            return; // detached, and the owner does not know yet
        };
        let Some(publication) = &mut self.publications[index as usize] else {
            return;
        };
        let video = publication.stream.video;
        if usize::from(copied.layer) >= publication.layers.len() {
            return;
        }
        publication.codec = meta.codec;
        // Descriptors build upon those before, so what they said to the owner is kept, and only the steps are learned.
        let kind = publication.kinds.get(usize::from(meta.codec)).copied();
        let mut seen = *meta;
        if let Some(kind) = kind.filter(|_| video) {
            if publication.look(copied.layer, kind, &mut seen, bytes, now) {
                self.release(now, sink); // they came before the steps changed
                self.aim_all(index, now);
            }
        }
        let Some(publication) = &mut self.publications[index as usize] else {
            return;
        };
        let Some(layer) = publication.layers.get_mut(usize::from(copied.layer)) else {
            return;
        };
        let is_kept =
            layer
                .cache
                .get_or_insert_with(|| Cache::new(video))
                .put(copied.dense, *meta, bytes);
        if is_kept && meta.key {
            layer.key_kept(copied.dense, meta.timestamp, now);
        }
        if meta.key {
            publication.keys_wanted &= !(1 << copied.layer);
        }
        if is_kept && video {
            self.hold(index, *copied, now, sink);
        } else {
            self.fan_out(index, *copied, meta, bytes, now, sink);
        }
    }

    /// Where a publisher's clock stands against ours.
    pub(super) fn offset_of(&self, publication: &Publication) -> Option<Offset> {
        if let Some(mirror) = publication.mirror {
            return Some(mirror.offset);
        }
        let transport = self.transports.get(publication.transport as usize)?;
        transport.as_ref().map(|transport| transport.offset)
    }

    /// Whose panic it is when copies of this publication fail.
    pub(super) fn publisher(&self, publication: &Publication) -> Option<TransportId> {
        if let Some(mirror) = publication.mirror {
            return Some(mirror.publisher);
        }
        let transport = self.transports.get(publication.transport as usize)?;
        transport.as_ref().map(|transport| transport.id)
    }
}

#[cfg(test)]
impl Neighbours {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.awaited.is_empty()
    }
}

#[cfg(test)]
impl Router {
    pub(super) fn is_mirrored(&self, id: PublicationId) -> bool {
        let index = self.slot_of(id);
        let publication = index.and_then(|index| self.publications[index as usize].as_ref());
        publication.is_some_and(|own| own.mirror.is_some() && !own.subscribers.is_empty())
    }

    pub(super) fn waits_for(&self, id: PublicationId) -> bool {
        self.neighbours.waiting.contains_key(&id)
    }

    /// Whether that shard is attached to a track of ours, and whether it waits for one.
    pub(super) fn knows_subscribers_in(&self, id: PublicationId, shard: u8) -> (bool, bool) {
        let index = self.slot_of(id);
        let publication = index.and_then(|index| self.publications[index as usize].as_ref());
        let attached = publication.is_some_and(|own| own.remotes.has(shard));
        let awaited = self.neighbours.awaited.get(&id);
        (
            attached,
            awaited.is_some_and(|shards| shards >> shard & 1 == 1),
        )
    }
}
