//! Who gets what: transports, publications, subscriptions, and every RTP packet between them.
//!
//! Slots are indices into vectors, resolved from handles once per command or incoming packet; a copy costs an
//! index, no hash. SSRCs belong to the transport they arrive on (S8).
//! Not here: RTCP that arrives (`control`), what timers send (`reports`).

use std::collections::HashMap;

use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};

use super::cache::Cache;
use super::clock::Offset;
use super::layers::choose;
use super::levels::Levels;
use super::packet::Meta;
use super::publication::{Layer, Publication, LAYER_SILENT_US, NONE};
use super::receive::{Arrival, Receive};
use super::rtcp::Builder;
use super::rtp::{element, Header, Values};
use super::statistics::TransportStatistics;
use super::subscription::{Egress, Face, Start, Subscription, NOWHERE};
use super::twcc::Recorder;
use super::{
    Error, Event, PublicationStatistics, ReceiveStream, SendStream, Sink, Statistics,
    SubscriptionStatistics,
};

/// How long transport-cc feedback may wait: several packets per message, quick enough for an estimator.
const FEEDBACK_US: u64 = 60_000;
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
    /// What we tell a peer that wants REMB, bits per second.
    pub(super) remb_bps: u64,
    pub(super) counters: TransportStatistics,
}

/// All media of one data plane.
#[derive(Debug)]
pub struct Router {
    random: u64,
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
    pub(super) levels: Levels,
    /// Transports whose recorder waits.
    pub(super) feedback: Vec<u32>,
    /// Publications with `keys_wanted`.
    pub(super) keys: Vec<u32>,
    pub(super) round_due: Option<Micros>,
    pub(super) round: u64,
    pub(super) wake: Option<Micros>,
    pub(super) builder: Builder,
    pub(super) numbers: Vec<u16>,
    pub(super) malformed: u64,
    pub(super) foreign: u64,
}

impl Router {
    /// An empty router. `seed` starts the generator of sequence numbers and timestamps.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: seed,
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
            levels: Levels::default(),
            feedback: Vec::new(),
            keys: Vec::new(),
            round_due: None,
            round: 0,
            wake: None,
            builder: Builder::default(),
            numbers: Vec::new(),
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
            remb_bps: super::reports::REMB_START_BPS,
            counters: TransportStatistics::default(),
        };
        let slot = place(&mut self.transports, &mut self.free_transports, entry);
        self.transport_slots.insert(transport, slot);
        // The round needs a clock reading: take it at the first tick.
        if self.round_due.is_none() {
            self.round_due = Some(Micros(0));
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
        let index = place(&mut self.publications, &mut self.free_publications, entry);
        self.publication_slots.insert(publication, index);
        if let Some(entry) = &mut self.transports[slot as usize] {
            entry.publications.push(index);
        }
        self.signalled(index);
        Ok(())
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
            egress.target = choose(live, cold.max_layer);
        }
        entry.keys_wanted |= live;
        if let Some(transport) = &mut self.transports[entry.transport as usize] {
            transport
                .streams
                .retain(|stream| stream.publication != index || usize::from(stream.layer) < layers);
        }
        self.list_key(index);
        self.signalled(index);
    }

    /// Stop receiving a track; its subscriptions stay and carry nothing.
    pub fn unpublish(&mut self, publication: PublicationId, _now: Micros, _sink: &mut impl Sink) {
        let Some(index) = self.publication_slots.remove(&publication) else {
            return;
        };
        let Some(entry) = self.publications[index as usize].take() else {
            return;
        };
        for sub in entry.subscribers {
            self.detach(sub);
        }
        if let Some(transport) = &mut self.transports[entry.transport as usize] {
            transport.publications.retain(|slot| *slot != index);
            transport
                .streams
                .retain(|stream| stream.publication != index);
        }
        self.keys.retain(|slot| *slot != index);
        self.free_publications.push(index);
    }

    /// Closed: packets are counted and dropped. Open is the initial state.
    pub fn set_gate(&mut self, publication: PublicationId, open: bool) {
        let Some(&index) = self.publication_slots.get(&publication) else {
            return;
        };
        let Some(entry) = &mut self.publications[index as usize] else {
            return;
        };
        if entry.open == open {
            return;
        }
        entry.open = open;
        entry.loudest = 127;
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
            if let Some(cache) = &mut layer.cache {
                cache.clear(); // nobody hears the last second again
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
        let index = source.and_then(|id| self.publication_slots.get(&id).copied());
        let before = self.egress[sub as usize].source;
        if index.unwrap_or(NOWHERE) == before {
            return;
        }
        if let Some(Some(old)) = self.publications.get_mut(before as usize) {
            old.subscribers.retain(|slot| *slot != sub);
        }
        self.detach(sub);
        let Some(index) = index else {
            return;
        };
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

    /// Highest simulcast layer to forward (0 lowest), and whether to forward at all.
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
        self.subscriptions[sub as usize] = None;
        self.free_subscriptions.push(sub);
        if sent > 0 {
            self.builder.clear();
            self.builder.receiver_report(ssrc, &[]);
            self.builder.goodbye(ssrc);
            sink.rtcp(to, self.builder.bytes());
        }
    }

    /// A decrypted, authenticated RTP packet. The buffer may be altered.
    pub fn rtp(&mut self, from: TransportId, packet: &mut [u8], now: Micros, sink: &mut impl Sink) {
        let Some(&slot) = self.transport_slots.get(&from) else {
            return;
        };
        let Ok(mut header) = Header::parse(packet) else {
            self.malformed += 1;
            return;
        };
        let Some(stream) = self.find(slot, &header, packet, now) else {
            self.foreign += 1;
            return;
        };
        let (Some(transport), Some(publication)) = (
            &mut self.transports[slot as usize],
            &mut self.publications[stream.publication as usize],
        ) else {
            return;
        };
        let Ok(values) = Values::read(&header, packet, &publication.stream.extensions) else {
            self.malformed += 1;
            return;
        };
        if let (Some(number), true) = (values.transport_cc, publication.transport_cc) {
            let full = transport.recorder.record(number, header.ssrc, now);
            let due = if full {
                now
            } else {
                Micros(now.0 + FEEDBACK_US)
            };
            if transport.feedback_due.is_none() {
                self.feedback.push(slot);
            }
            let due = transport.feedback_due.map_or(due, |before| before.min(due));
            transport.feedback_due = Some(due);
            wake(&mut self.wake, due);
        }
        publication.counters.packets += 1;
        publication.counters.bytes += packet.len() as u64;
        let Some((codec, rtx)) = publication.codec_of(header.payload_type) else {
            self.foreign += 1;
            return;
        };
        if rtx != stream.rtx || usize::from(stream.layer) >= publication.layers.len() {
            self.foreign += 1;
            return;
        }
        let layer = &mut publication.layers[usize::from(stream.layer)];
        if rtx {
            // RFC 4588 section 4: the number repeated, then the payload. Nothing behind it is a probe.
            let [high, low, _, ..] = *header.payload.of(packet) else {
                return;
            };
            if layer.receive.is_none() {
                return;
            }
            header.sequence = u16::from_be_bytes([high, low]);
            header.payload.at += 2;
            header.payload.len -= 2;
        }
        let negotiated = &publication.stream.codecs[usize::from(codec)];
        let clock_rate = negotiated.clock_rate;
        let wanted = negotiated.nack && publication.open && !publication.subscribers.is_empty();
        let empty = header.payload.is_empty();
        let receive = layer
            .receive
            .get_or_insert_with(|| Receive::new(header.sequence));
        let (dense, newest) = match receive.arrived(header.sequence, empty, rtx, wanted, now) {
            Arrival::New(dense, newest) => (dense, newest),
            Arrival::Closed | Arrival::Stale => return,
            Arrival::Restarted(dense) => {
                let fresh = layer.receive.take();
                layer.start_over();
                layer.receive = fresh;
                for &sub in &publication.subscribers {
                    let hot = &mut self.egress[sub as usize];
                    if hot.current == stream.layer {
                        hot.current = NONE;
                    }
                }
                publication.keys_wanted |= u8::from(publication.stream.video) << stream.layer;
                (dense, true)
            }
        };
        let Some(receive) = &mut layer.receive else {
            return;
        };
        if !rtx {
            receive.clocked(header.timestamp, clock_rate, now);
        }
        if receive.take_overflow() && publication.stream.video && publication.open {
            publication.keys_wanted |= 1 << stream.layer;
        }
        if let Some(due) = receive.due() {
            wake(&mut self.wake, due);
        }
        publication.codec = codec;
        publication.last_layer = stream.layer;
        layer.heard = Some(now);
        let revived = !std::mem::replace(&mut layer.live, true);
        if !std::mem::replace(&mut layer.announced, true) {
            sink.event(Event::FirstPacket(
                publication.id,
                stream.layer,
                header.payload_type,
            ));
        }
        if !publication.open {
            publication.counters.gated += 1;
            if revived {
                self.aim_all(stream.publication, now);
            }
            return;
        }
        if !values.capture_time.is_empty() {
            translate_capture_time(transport.offset, values, packet);
        }
        let kind = publication.kinds[usize::from(codec)];
        let meta = Meta::read(&header, values, codec, kind, packet);
        if let (Some(level), true) = (values.audio_level, newest) {
            let level = level & 0x7f;
            if level < publication.loudest {
                if publication.loudest == 127 {
                    let due = self.levels.hear(publication.group, stream.publication, now);
                    wake(&mut self.wake, due);
                }
                publication.loudest = level;
            }
        }
        if !publication.subscribers.is_empty() {
            layer
                .cache
                .get_or_insert_with(|| Cache::new(publication.stream.video))
                .put(dense, meta, packet);
        }
        if revived {
            self.aim_all(stream.publication, now);
        }
        self.fan_out(stream, dense, newest, &meta, packet, now, sink);
        let Some(publication) = &mut self.publications[stream.publication as usize] else {
            return;
        };
        if meta.key {
            publication.keys_wanted &= !(1 << stream.layer);
        }
        if publication.keys_wanted != 0 {
            self.ask_key(stream.publication, now, sink);
        }
    }

    /// When `tick` wants to run next; None = nothing to wait for.
    #[must_use]
    pub fn timeout(&self) -> Option<Micros> {
        self.wake
    }

    /// All counters.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let transports = self.transports.iter().flatten();
        let publications = self.publications.iter().flatten();
        let subscriptions = self.subscriptions.iter().zip(&self.egress);
        Statistics {
            transports: transports.map(|entry| (entry.id, entry.counters)).collect(),
            publications: publications
                .map(|entry| {
                    let lost = |layer: &Layer| {
                        layer.lost_before + layer.receive.as_ref().map_or(0, Receive::lost)
                    };
                    let last = &entry.layers[usize::from(entry.last_layer)];
                    let counters = PublicationStatistics {
                        lost: entry.layers.iter().map(lost).sum(),
                        jitter: last.receive.as_ref().map_or(0, Receive::jitter),
                        layers: u64::from(entry.live().count_ones()),
                        ..entry.counters
                    };
                    (entry.id, counters)
                })
                .collect(),
            subscriptions: subscriptions
                .filter_map(|(cold, hot)| {
                    let cold = cold.as_ref()?;
                    let sent = u64::from(hot.packets > 0);
                    let counters = SubscriptionStatistics {
                        packets: hot.packets,
                        bytes: hot.bytes,
                        nacks: cold.nacks,
                        plis: cold.plis,
                        retransmitted: cold.retransmitted,
                        first_sequence: cold.first_sequence * sent,
                        last_sequence: hot.last_sequence * sent,
                    };
                    Some((cold.id, counters))
                })
                .collect(),
            malformed: self.malformed,
            foreign_ssrc: self.foreign,
        }
    }

    /// The copies of one packet.
    #[allow(clippy::too_many_arguments)] // the packet's own facts; a struct would only be taken apart again
    fn fan_out(
        &mut self,
        stream: Stream,
        dense: u64,
        newest: bool,
        meta: &Meta,
        packet: &[u8],
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(publication) = &self.publications[stream.publication as usize] else {
            return;
        };
        let layer = stream.layer;
        for &sub in &publication.subscribers {
            let hot = &mut self.egress[sub as usize];
            let mut switched = false;
            if hot.current != layer {
                let due = if hot.video {
                    meta.key && (hot.target == layer || hot.current == NONE && layer < hot.target)
                } else {
                    newest && hot.target == layer
                };
                if !due || hot.target == NONE || hot.stalled {
                    continue;
                }
                if hot.payload_types[usize::from(meta.codec)] == NONE {
                    continue;
                }
                let Some(cold) = &mut self.subscriptions[sub as usize] else {
                    continue;
                };
                begin(publication, hot, cold, layer, dense, meta, now);
                switched = true;
            }
            if dense < hot.first {
                continue;
            }
            let payload_type = hot.payload_types[usize::from(meta.codec)];
            if payload_type == NONE {
                hot.current = NONE; // a codec that cannot be mapped: go on at the next that can
                continue;
            }
            let Some(slot) = sink.rtp(hot.to) else {
                hot.stalled = true;
                hot.current = NONE;
                continue;
            };
            let sequence = dense.wrapping_add(hot.deltas.sequence);
            let mut face = Face {
                payload_type,
                sequence: sequence as u16,
                ssrc: hot.ssrc,
                original: None,
                transport_cc: None,
                now,
            };
            if hot.stamped && hot.extensions.transport_cc != 0 {
                face.transport_cc = stamp(&mut self.transports[hot.transport as usize]);
            }
            let len = hot.compose(slot, &face, &hot.deltas, meta, packet);
            sink.rtp_done(len.unwrap_or(0));
            if let Some(len) = len {
                hot.sent(sequence, meta, len, now);
                if switched && hot.video {
                    if let Some(cold) = &self.subscriptions[sub as usize] {
                        sink.event(Event::Keyframe(cold.id));
                    }
                }
            }
        }
    }

    /// The stream of a packet: known SSRC, else learned by mid and rid, else by payload type.
    fn find(&mut self, slot: u32, header: &Header, packet: &[u8], now: Micros) -> Option<Stream> {
        let transport = self.transports[slot as usize].as_ref()?;
        let known = transport
            .streams
            .iter()
            .find(|stream| stream.ssrc == header.ssrc);
        if let Some(stream) = known {
            return Some(*stream);
        }
        let mut by_type = None;
        let mut candidates = 0;
        let mut found = None;
        let mut named = false;
        for &index in &transport.publications {
            let Some(publication) = &self.publications[index as usize] else {
                continue;
            };
            let ids = &publication.stream.extensions;
            let mid = element(header, packet, ids.mid);
            named |= mid.is_some();
            let Some((_, rtx)) = publication.codec_of(header.payload_type) else {
                continue;
            };
            if mid.is_some_and(|mid| mid == publication.stream.mid.as_bytes()) {
                let id = if rtx { ids.repaired_rid } else { ids.rid };
                let rid = element(header, packet, id);
                let layer = publication.layer_of(rid)?;
                found = Some((index, layer, rtx));
                break;
            }
            candidates += 1;
            let silent = publication.layers[0]
                .heard
                .is_none_or(|heard| now.since(heard) > LAYER_SILENT_US);
            let free = publication.layers.len() == 1 && (rtx || silent);
            by_type = free.then_some((index, 0, rtx));
        }
        // Without a mid the payload type must name exactly one section (RFC 8843 section 9.2).
        let by_type = by_type.filter(|_| !named && candidates == 1);
        let (index, layer, rtx) = found.or(by_type)?;
        let stream = Stream {
            ssrc: header.ssrc,
            publication: index,
            layer,
            rtx,
        };
        self.learn(slot, stream);
        Some(stream)
    }

    /// From now on this SSRC is that layer; the one before is forgotten.
    fn learn(&mut self, slot: u32, stream: Stream) {
        let (Some(transport), Some(publication)) = (
            &mut self.transports[slot as usize],
            &mut self.publications[stream.publication as usize],
        ) else {
            return;
        };
        transport.streams.retain(|old| {
            old.ssrc != stream.ssrc
                && (old.publication, old.layer, old.rtx)
                    != (stream.publication, stream.layer, stream.rtx)
        });
        transport.streams.push(stream);
        if stream.rtx {
            return;
        }
        let layer = &mut publication.layers[usize::from(stream.layer)];
        if layer.ssrc.replace(stream.ssrc) == Some(stream.ssrc) {
            return;
        }
        if layer.receive.is_some() {
            layer.start_over();
            for &sub in &publication.subscribers {
                let hot = &mut self.egress[sub as usize];
                if hot.current == stream.layer {
                    hot.current = NONE;
                }
            }
            if publication.stream.video {
                publication.keys_wanted |= 1 << stream.layer;
            }
        }
    }

    /// Enter the signalled SSRCs of a publication.
    fn signalled(&mut self, index: u32) {
        let Some(publication) = &self.publications[index as usize] else {
            return;
        };
        let slot = publication.transport;
        let pairs = publication.stream.ssrcs.clone();
        for ((ssrc, rtx_ssrc), layer) in pairs.into_iter().zip(0u8..) {
            for (ssrc, rtx) in [(ssrc, false), (rtx_ssrc, true)] {
                let known = self.transports[slot as usize]
                    .as_ref()
                    .is_none_or(|entry| entry.streams.iter().any(|stream| stream.ssrc == ssrc));
                if ssrc != 0 && !known {
                    let stream = Stream {
                        ssrc,
                        publication: index,
                        layer,
                        rtx,
                    };
                    self.learn(slot, stream);
                }
            }
        }
    }

    /// A subscription carries nothing; its numbers wait for what comes next.
    fn detach(&mut self, sub: u32) {
        let hot = &mut self.egress[sub as usize];
        hot.source = NOWHERE;
        hot.current = NONE;
        hot.target = NONE;
        if let Some(cold) = &mut self.subscriptions[sub as usize] {
            cold.segments.clear();
        }
    }

    /// Choose the layer anew and ask for a key frame if that needs one.
    pub(super) fn retarget(&mut self, sub: u32, now: Micros, sink: &mut impl Sink) {
        if self.aim(sub, now) {
            self.ask_key(self.egress[sub as usize].source, now, sink);
        }
    }

    /// Choose the layer anew. True if that needs a key frame, which is noted but not asked for.
    pub(super) fn aim(&mut self, sub: u32, now: Micros) -> bool {
        let hot = &mut self.egress[sub as usize];
        let Some(Some(publication)) = self.publications.get_mut(hot.source as usize) else {
            return false;
        };
        let Some(cold) = &mut self.subscriptions[sub as usize] else {
            return false;
        };
        hot.target = match (hot.paused, hot.video) {
            (true, _) => NONE,
            (false, true) => choose(publication.live(), cold.max_layer),
            (false, false) => 0,
        };
        if hot.paused {
            hot.current = NONE;
        }
        let needed = hot.video && hot.target != NONE && hot.target != hot.current && !hot.stalled;
        if needed {
            publication.keys_wanted |= 1 << hot.target;
            cold.key_asked = now;
        }
        needed
    }

    /// The live layers of a publication changed. True if that needs a key frame.
    pub(super) fn aim_all(&mut self, index: u32, now: Micros) -> bool {
        let Some(publication) = &mut self.publications[index as usize] else {
            return false;
        };
        let subscribers = std::mem::take(&mut publication.subscribers);
        let needed = subscribers
            .iter()
            .fold(false, |needed, sub| self.aim(*sub, now) | needed);
        if let Some(publication) = &mut self.publications[index as usize] {
            publication.subscribers = subscribers;
        }
        needed
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

    /// `SplitMix64`: enough for numbers that need no secrecy.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Wake no later than this.
fn wake(wake: &mut Option<Micros>, due: Micros) {
    *wake = Some(wake.map_or(due, |before| before.min(due)));
}

/// The next transport-wide number of a transport.
pub(super) fn stamp(transport: &mut Option<Transport>) -> Option<u16> {
    let transport = transport.as_mut()?;
    transport.stamped += 1;
    Some(transport.stamped as u16)
}

/// A new segment of a subscription, at this packet.
fn begin(
    publication: &Publication,
    hot: &mut Egress,
    cold: &mut Subscription,
    layer: u8,
    dense: u64,
    meta: &Meta,
    now: Micros,
) {
    let entry = &publication.layers[usize::from(layer)];
    let before = cold
        .segments
        .back()
        .and_then(|last| publication.layers.get(usize::from(last.layer)))
        .and_then(|layer| layer.clock);
    let start = Start {
        dense,
        layer,
        epoch: entry.epoch,
        clock_rate: publication.clock_rate(meta.codec),
        clocks: entry.clock.zip(before),
    };
    cold.begin(hot, start, meta, now);
}

/// Rewrite abs-capture-time to our NTP clock, which our sender reports use too.
fn translate_capture_time(offset: Offset, values: Values, packet: &mut [u8]) {
    let at = usize::from(values.capture_time.at);
    let Some(place) = packet.get_mut(at..at + 8) else {
        return;
    };
    let theirs = place
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    if let Some(ours) = offset.ours(theirs) {
        place.copy_from_slice(&ours.to_be_bytes());
    }
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
