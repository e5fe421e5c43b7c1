//! Who gets what: transports, publications, subscriptions and the commands upon them.
//!
//! Slots are indices into vectors, resolved from handles once per command or incoming packet; a copy costs an
//! index, no hash. SSRCs belong to the transport they arrive on (S8).
//! Not here: RTP that arrives (`ingress`, `learning`), RTCP that arrives (`control`), what timers send (`reports`).

use std::collections::HashMap;

use crate::hash::FastMap;
use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use crate::random::derived;

use super::activity::Activity;
use super::allocation::Stream as Share;
use super::catchup::Late;
use super::clock::Offset;
use super::fanout::Held;
use super::filling::Blank;
use super::gather::Gathering;
use super::layers::fitting;
use super::levels::Levels;
use super::loudest::{Stage, Voice};
use super::mirror::Neighbours;
use super::pressure::Pressure;
use super::publication::{Publication, NONE};
use super::rtcp::{Builder, Report};
use super::shed::Shedding;
use super::statistics::TransportStatistics;
use super::subscription::{Egress, Subscription, NOWHERE};
use super::twcc::Recorder;
use super::{Error, ReceiveStream, SendStream, Sink};

/// Between two rounds of `reports`; a transport has its turn in every fourth.
pub(super) const ROUND_US: u64 = 250_000;

/// What an incoming SSRC is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) ssrc: u32,
    pub(super) publication: u32,
    pub(super) layer: u8,
    pub(super) rtx: bool,
}

/// One peer, as far as RTP is concerned.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) id: TransportId,
    /// Our SSRC where we only receive.
    pub(super) reporter: u32,
    /// Incoming SSRCs, signalled or learned: at most two per layer.
    pub(super) streams: Vec<Stream>,
    pub(super) publications: Vec<u32>,
    /// (outgoing SSRC, slot)
    pub(super) subscriptions: Vec<(u32, u32)>,
    pub(super) recorder: Recorder,
    pub(super) feedback_due: Option<Micros>,
    /// Transport-wide numbers written so far.
    pub(super) stamped: u64,
    pub(super) offset: Offset,
    /// Its last RTP packet.
    pub(super) heard: Option<Micros>,
    /// Its last outage ended.
    pub(super) returned: Micros,
    /// What we tell a peer that wants REMB, bits per second.
    pub(super) remb_bps: u64,
    pub(super) counters: TransportStatistics,
    /// How much its link carries.
    pub(super) pressure: Pressure,
}

/// All media of one data plane.
#[derive(Debug)]
pub struct Router {
    secret: u64,
    drawn: u64,
    pub(super) transports: Vec<Option<Transport>>,
    pub(super) publications: Vec<Option<Publication>>,
    pub(super) egress: Vec<Egress>,
    /// Same slots as `egress`; None = free.
    pub(super) subscriptions: Vec<Option<Subscription>>,
    pub(super) transport_slots: HashMap<TransportId, u32>,
    publication_slots: HashMap<PublicationId, u32>,
    subscription_slots: HashMap<SubscriptionId, u32>,
    free_transports: Vec<u32>,
    free_publications: Vec<u32>,
    free_subscriptions: Vec<u32>,
    pub(super) held: Held,
    pub(super) gathering: Gathering,
    /// Publications came, changed or went: see `new_picture_types`.
    pub(super) types_changed: bool,
    pub(super) levels: Levels,
    /// Groups in which only the loudest are forwarded.
    pub(super) stages: FastMap<GroupId, Stage>,
    /// Transports whose recorder waits.
    pub(super) feedback: Vec<u32>,
    /// Publications with `keys_wanted`.
    pub(super) keys: Vec<u32>,
    /// Memory for those that are due.
    pub(super) keys_due: Vec<u32>,
    /// Memory for a report: its blocks, and the SSRCs that a REMB names.
    pub(super) blocks: Vec<Report>,
    pub(super) sources: Vec<u32>,
    pub(super) round_due: Option<Micros>,
    pub(super) round: u64,
    pub(super) wake: Option<Micros>,
    pub(super) builder: Builder,
    pub(super) numbers: Vec<u16>,
    /// Lost padding found, empty between ticks.
    pub(super) blanks: Vec<Blank>,
    /// Narrow links hold streams back.
    pub(super) adaptive: bool,
    /// Scratch space of `divide`.
    pub(super) shares: Vec<Share>,
    /// Transports with a probe on its way out.
    pub(super) probing: Vec<u32>,
    /// Transports with pictures that wait.
    pub(super) pacing: Vec<u32>,
    /// Who catches up from a key frame in a cache.
    pub(super) late: Vec<Late>,
    /// Transports that can send since the last tick.
    pub(super) opened: Vec<u32>,
    /// What is held back for want of CPU.
    pub(super) shedding: Shedding,
    /// Other shards.
    pub(super) neighbours: Neighbours,
    pub(super) malformed: u64,
    pub(super) foreign: u64,
}

impl Router {
    /// An empty router. `secret`: random, for sequence numbers, timestamps and what no peer may predict.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            drawn: 0,
            transports: Vec::new(),
            publications: Vec::new(),
            egress: Vec::new(),
            subscriptions: Vec::new(),
            transport_slots: HashMap::new(),
            publication_slots: HashMap::new(),
            subscription_slots: HashMap::new(),
            free_transports: Vec::new(),
            free_publications: Vec::new(),
            free_subscriptions: Vec::new(),
            held: Held::new(),
            gathering: Gathering::new(),
            types_changed: false,
            levels: Levels::default(),
            stages: FastMap::default(),
            feedback: Vec::new(),
            keys: Vec::new(),
            keys_due: Vec::new(),
            blocks: Vec::new(),
            sources: Vec::new(),
            round_due: None,
            round: 0,
            wake: None,
            builder: Builder::default(),
            numbers: Vec::new(),
            blanks: Vec::new(),
            adaptive: true,
            shares: Vec::new(),
            probing: Vec::new(),
            pacing: Vec::new(),
            late: Vec::new(),
            opened: Vec::new(),
            shedding: Shedding::default(),
            neighbours: Neighbours::default(),
            malformed: 0,
            foreign: 0,
        }
    }

    /// A transport that may publish and subscribe.
    pub fn add_transport(&mut self, transport: TransportId) {
        if self.transport_slots.contains_key(&transport) {
            return;
        }
        let reporter = (self.next_random() as u32).max(1);
        let pressure = Pressure::new(self.next_random());
        let entry = Transport {
            id: transport,
            reporter,
            streams: Vec::new(),
            publications: Vec::new(),
            subscriptions: Vec::new(),
            recorder: Recorder::default(),
            feedback_due: None,
            stamped: 0,
            offset: Offset::default(),
            heard: None,
            returned: Micros(0),
            remb_bps: super::reports::REMB_START_BPS,
            counters: TransportStatistics::default(),
            pressure,
        };
        let slot = place(&mut self.transports, &mut self.free_transports, entry);
        self.transport_slots.insert(transport, slot);
        // The round needs a clock reading: take it at the first tick.
        if self.round_due.is_none() {
            self.round_due = Some(Micros(0));
            self.wake_at(Micros(0));
        }
    }

    /// A transport has keys and a path: its pictures begin without waiting for a round.
    pub fn opened(&mut self, transport: TransportId) {
        if let Some(&slot) = self.transport_slots.get(&transport) {
            if !self.opened.contains(&slot) {
                self.opened.push(slot);
            }
            self.wake_at(Micros(0));
        }
    }

    /// Forget a transport with its publications and subscriptions; says BYE for its outgoing streams.
    pub fn remove_transport(&mut self, transport: TransportId, now: Micros, sink: &mut impl Sink) {
        let Some(&slot) = self.transport_slots.get(&transport) else {
            return;
        };
        let Some(entry) = &self.transports[slot as usize] else {
            return;
        };
        let publications: Vec<_> = entry.publications.clone();
        let subscriptions: Vec<_> = entry.subscriptions.iter().map(|(_, slot)| *slot).collect();
        for index in subscriptions {
            if let Some(id) = self.subscriptions[index as usize].as_ref().map(|s| s.id) {
                self.unsubscribe(id, now, sink);
            }
        }
        for index in publications {
            if let Some(id) = self.publications[index as usize].as_ref().map(|p| p.id) {
                self.unpublish(id, now, sink);
            }
        }
        self.feedback.retain(|waiting| *waiting != slot);
        self.probing.retain(|probing| *probing != slot);
        self.pacing.retain(|pacing| *pacing != slot);
        self.opened.retain(|opened| *opened != slot);
        self.transports[slot as usize] = None;
        self.transport_slots.remove(&transport);
        self.free_transports.push(slot);
    }

    /// Receive a track.
    ///
    /// # Errors
    /// `UnknownTransport`, `DuplicateHandle` or `Invalid`.
    pub fn publish(
        &mut self,
        publication: PublicationId,
        transport: TransportId,
        group: GroupId,
        stream: ReceiveStream,
    ) -> Result<(), Error> {
        let slot = *self
            .transport_slots
            .get(&transport)
            .ok_or(Error::UnknownTransport)?;
        if self.publication_slots.contains_key(&publication) {
            return Err(Error::DuplicateHandle);
        }
        let entry = Publication::new(publication, slot, group, stream)?;
        let index = self.place_publication(entry);
        if let Some(entry) = &mut self.transports[slot as usize] {
            entry.publications.push(index);
        }
        self.signalled(index);
        self.welcome(index);
        Ok(())
    }

    pub(super) fn place_publication(&mut self, entry: Publication) -> u32 {
        let id = entry.id;
        self.types_changed = true;
        let index = place(&mut self.publications, &mut self.free_publications, entry);
        self.publication_slots.insert(id, index);
        index
    }

    /// Forget a publication; its subscriptions and its transport are the caller's business.
    pub(super) fn take_publication(&mut self, id: PublicationId) -> Option<Publication> {
        let index = self.publication_slots.remove(&id)?;
        self.types_changed = true;
        let entry = self.publications[index as usize].take()?;
        self.keys.retain(|slot| *slot != index);
        self.free_publications.push(index);
        Some(entry)
    }

    pub(super) fn slot_of(&self, publication: PublicationId) -> Option<u32> {
        self.publication_slots.get(&publication).copied()
    }

    /// New codecs, extensions or rids after a renegotiation. Nonsense is ignored.
    pub fn update_publication(&mut self, publication: PublicationId, stream: ReceiveStream) {
        let Some(&index) = self.publication_slots.get(&publication) else {
            return;
        };
        let Some(entry) = &mut self.publications[index as usize] else {
            return;
        };
        if entry.stream == stream || entry.negotiated(stream).is_err() {
            return;
        }
        self.types_changed = true;
        let (live, layers) = (entry.live(), entry.layers.len());
        for &sub in &entry.subscribers {
            let (egress, cold) = (&mut self.egress[sub as usize], &mut self.subscriptions);
            let Some(cold) = &mut cold[sub as usize] else {
                continue;
            };
            cold.map_codecs(egress, &entry.stream.codecs);
            // A repeat must equal its original, whose payload type may have been another.
            cold.segments.clear();
            egress.current = NONE;
            egress.target_step = fitting(entry, egress, cold, self.shedding.is_braked);
            egress.target = entry.carrier_of(egress.target_step);
        }
        entry.keys_wanted |= live;
        entry.remotes.renegotiated();
        if let Some(Some(transport)) = self.transports.get_mut(entry.transport as usize) {
            transport
                .streams
                .retain(|stream| stream.publication != index || usize::from(stream.layer) < layers);
        }
        self.list_key(index);
        self.signalled(index);
        self.tell_mirrors_soon(index);
    }

    /// Stop receiving a track; its subscriptions stay and carry nothing.
    pub fn unpublish(&mut self, publication: PublicationId, _now: Micros, sink: &mut impl Sink) {
        let Some(index) = self.slot_of(publication) else {
            return;
        };
        let Some(entry) = self.take_publication(publication) else {
            return;
        };
        self.part(&entry, sink);
        for sub in entry.subscribers {
            self.detach(sub);
        }
        if let Some(transport) = &mut self.transports[entry.transport as usize] {
            transport.publications.retain(|slot| *slot != index);
            transport
                .streams
                .retain(|stream| stream.publication != index);
        }
    }

    /// Closed: packets are counted and dropped. Open is the initial state.
    pub fn set_gate(&mut self, publication: PublicationId, open: bool) {
        if let Some(index) = self.slot_of(publication) {
            self.open_gate(index, open);
            self.tell_mirrors_soon(index);
        }
    }

    pub(super) fn open_gate(&mut self, index: u32, open: bool) {
        let Some(entry) = &mut self.publications[index as usize] else {
            return;
        };
        if entry.open == open {
            return;
        }
        entry.open = open;
        entry.loudest = 127;
        entry.activity = Activity::default();
        entry.voice = Voice::default();
        if open {
            entry.keys_wanted = entry
                .subscribers
                .iter()
                .map(|sub| self.egress[*sub as usize].target)
                .filter(|target| *target != NONE && entry.stream.video)
                .fold(0, |mask, layer| mask | 1 << layer);
            self.list_key(index);
            return;
        }
        for layer in &mut entry.layers {
            if let Some(receive) = &mut layer.receive {
                receive.forget_missing();
            }
        }
        for &sub in &entry.subscribers {
            self.egress[sub as usize].current = NONE;
        }
    }

    /// An outgoing stream that carries nothing yet.
    ///
    /// # Errors
    /// `UnknownTransport`, `DuplicateHandle` or `Invalid`.
    pub fn subscribe(
        &mut self,
        subscription: SubscriptionId,
        transport: TransportId,
        stream: SendStream,
    ) -> Result<(), Error> {
        let slot = *self
            .transport_slots
            .get(&transport)
            .ok_or(Error::UnknownTransport)?;
        if self.subscription_slots.contains_key(&subscription) {
            return Err(Error::DuplicateHandle);
        }
        let start = self.next_random();
        let entry = self.transports[slot as usize]
            .as_mut()
            .ok_or(Error::UnknownTransport)?;
        let ours = [stream.ssrc, stream.rtx_ssrc];
        if stream.ssrc == 0 || ours[0] == ours[1] {
            return Err(Error::Invalid("SSRC"));
        }
        let taken = |ssrc: &u32| *ssrc != 0 && ours.contains(ssrc);
        if entry.subscriptions.iter().any(|(ssrc, slot)| {
            let rtx = self.subscriptions[*slot as usize].as_ref();
            taken(ssrc) || rtx.is_some_and(|other| taken(&other.stream.rtx_ssrc))
        }) {
            return Err(Error::Invalid("SSRC in use on this transport"));
        }
        let (hot, cold) = Subscription::new(subscription, transport, slot, stream, start)?;
        let ssrc = hot.ssrc;
        let index = if let Some(index) = self.free_subscriptions.pop() {
            self.egress[index as usize] = hot;
            self.subscriptions[index as usize] = Some(cold);
            index
        } else {
            self.egress.push(hot);
            self.subscriptions.push(Some(cold));
            u32::try_from(self.egress.len() - 1).expect("fewer than 2^32 subscriptions")
        };
        entry.subscriptions.push((ssrc, index));
        self.subscription_slots.insert(subscription, index);
        Ok(())
    }

    /// Carry this publication from now on; None = silence. An unknown one is silence too.
    pub fn set_source(
        &mut self,
        subscription: SubscriptionId,
        source: Option<PublicationId>,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(&sub) = self.subscription_slots.get(&subscription) else {
            return;
        };
        let index = source.and_then(|id| self.slot_of(id));
        let before = self.egress[sub as usize].source;
        if index.is_some_and(|index| index == before) {
            return;
        }
        if let Some(Some(old)) = self.publications.get_mut(before as usize) {
            old.subscribers.retain(|slot| *slot != sub);
        }
        self.detach(sub);
        self.leave(sub, before, sink);
        match (index, source) {
            (Some(index), _) => self.carry(sub, index, now, sink),
            (None, Some(id)) => self.wait_for(sub, id, sink),
            (None, None) => {}
        }
    }

    /// A subscription that carries nothing begins with this publication.
    pub(super) fn carry(&mut self, sub: u32, index: u32, now: Micros, sink: &mut impl Sink) {
        let Some(entry) = &mut self.publications[index as usize] else {
            return;
        };
        let hot = &mut self.egress[sub as usize];
        let Some(cold) = &mut self.subscriptions[sub as usize] else {
            return;
        };
        if entry.stream.video != hot.video {
            return; // sound on a picture's stream: silence
        }
        entry.subscribers.push(sub);
        hot.source = index;
        cold.map_codecs(hot, &entry.stream.codecs);
        self.retarget(sub, now, sink);
    }

    /// Highest layer to forward, simulcast or spatial (0 lowest), and whether to forward at all.
    pub fn set_layer(
        &mut self,
        subscription: SubscriptionId,
        max_layer: u8,
        paused: bool,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(&sub) = self.subscription_slots.get(&subscription) else {
            return;
        };
        let hot = &mut self.egress[sub as usize];
        hot.paused = paused;
        if let Some(cold) = &mut self.subscriptions[sub as usize] {
            cold.max_layer = max_layer;
        }
        self.retarget(sub, now, sink);
    }

    /// So many frames per second are enough, 0 = all; streams with temporal layers are thinned out.
    pub fn set_frame_rate(
        &mut self,
        subscription: SubscriptionId,
        max_fps: u8,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(&sub) = self.subscription_slots.get(&subscription) else {
            return;
        };
        if let Some(cold) = &mut self.subscriptions[sub as usize] {
            cold.max_fps = max_fps;
        }
        self.retarget(sub, now, sink);
    }

    /// Who gets bandwidth first: higher before lower, equals in turn. 0 is the initial state.
    pub fn set_priority(&mut self, subscription: SubscriptionId, priority: u8) {
        let sub = self.subscription_slots.get(&subscription);
        if let Some(Some(cold)) = sub.and_then(|sub| self.subscriptions.get_mut(*sub as usize)) {
            cold.priority = priority; // the next round divides anew
        }
    }

    /// End an outgoing stream with BYE.
    pub fn unsubscribe(
        &mut self,
        subscription: SubscriptionId,
        _now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(sub) = self.subscription_slots.remove(&subscription) else {
            return;
        };
        let hot = &self.egress[sub as usize];
        let (source, ssrc, to, sent) = (hot.source, hot.ssrc, hot.to, hot.packets);
        if let Some(Some(entry)) = self.publications.get_mut(source as usize) {
            entry.subscribers.retain(|slot| *slot != sub);
        }
        if let Some(entry) = &mut self.transports[hot.transport as usize] {
            entry.subscriptions.retain(|(_, slot)| *slot != sub);
        }
        self.detach(sub);
        self.leave(sub, source, sink);
        self.subscriptions[sub as usize] = None;
        self.free_subscriptions.push(sub);
        if sent > 0 {
            self.builder.clear();
            self.builder.receiver_report(ssrc, &[]);
            self.builder.goodbye(ssrc);
            sink.rtcp(to, self.builder.bytes());
        }
    }

    /// When `tick` wants to run next; None = nothing to wait for.
    #[must_use]
    pub fn timeout(&self) -> Option<Micros> {
        self.wake
    }

    /// A subscription carries nothing; its numbers wait for what comes next.
    pub(super) fn detach(&mut self, sub: u32) {
        self.forget_waiting(sub);
        let hot = &mut self.egress[sub as usize];
        hot.source = NOWHERE;
        hot.current = NONE;
        hot.target = NONE;
        hot.target_step = NONE;
        hot.selective = false;
        if let Some(cold) = &mut self.subscriptions[sub as usize] {
            cold.segments.clear();
        }
    }

    /// Put a publication with `keys_wanted` on the list, to be asked at the next tick.
    fn list_key(&mut self, index: u32) {
        if !self.keys.contains(&index) {
            self.keys.push(index);
        }
        self.wake_at(Micros(0));
    }

    pub(super) fn wake_at(&mut self, due: Micros) {
        wake(&mut self.wake, due);
    }

    /// Tells nothing of the next.
    fn next_random(&mut self) -> u64 {
        self.drawn += 1;
        derived(self.secret, self.drawn)
    }
}

/// Wake no later than this.
pub(super) fn wake(wake: &mut Option<Micros>, due: Micros) {
    *wake = Some(wake.map_or(due, |before| before.min(due)));
}

/// Into a free slot or a new one.
fn place<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<u32>, entry: T) -> u32 {
    if let Some(index) = free.pop() {
        slots[index as usize] = Some(entry);
        return index;
    }
    slots.push(Some(entry));
    u32::try_from(slots.len() - 1).expect("fewer than 2^32 entries")
}
