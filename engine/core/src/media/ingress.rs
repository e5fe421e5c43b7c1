//! An incoming RTP packet on its way to every copy of it.
//!
//! Not here: which stream it is (`learning`), its copies (`fanout`), how one is written (`subscription`), RTCP
//! (`control`).

use crate::id::{Micros, TransportId};

use super::cache::Cache;
use super::clock::Offset;
use super::dependency::Structure;
use super::estimate::OUTAGE_US;
use super::fanout::Copied;
use super::keyframe::{self, Kind};
use super::opus;
use super::packet::Meta;
use super::place::Place;
use super::publication::{Publication, NONE};
use super::receive::{Arrival, Holes, Receive};
use super::redundancy;
use super::router::{wake, Router, Stream, Transport};
use super::rtp::{Header, Values};
use super::shapes::{self, Known, Told};
use super::steps;
use super::subscription::{Egress, Start, Subscription};
use super::{Event, Sink};

/// How long transport-cc feedback may wait: several packets per message, quick enough for an estimator.
const FEEDBACK_US: u64 = 60_000;

impl Router {
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
        transport.note(now);
        if let (Some(number), true) = (values.transport_cc, publication.transport_cc) {
            if transport.feedback_due.is_none() {
                self.feedback.push(slot);
            }
            let due = transport.record(number, header.ssrc, now);
            wake(&mut self.wake, due);
        }
        publication.counters.packets += 1;
        publication.counters.bytes += packet.len() as u64;
        publication.counters.octets += u64::from(header.payload.len);
        let Some((codec, rtx)) = publication.codec_of(header.payload_type) else {
            self.foreign += 1;
            return;
        };
        if rtx != stream.rtx || usize::from(stream.layer) >= publication.layers.len() {
            self.foreign += 1;
            return;
        }
        if rtx {
            // RFC 4588 section 4: the number repeated, then the payload. Nothing behind it is a probe.
            let [high, low, _, ..] = *header.payload.of(packet) else {
                return;
            };
            header.sequence = u16::from_be_bytes([high, low]);
            header.payload.at += 2;
            header.payload.len -= 2;
        }
        let layer = &mut publication.layers[usize::from(stream.layer)];
        layer.counted += packet.len() as u64;
        layer.octets += u64::from(header.payload.len);
        layer.packets += 1;
        let kind = publication.kinds[usize::from(codec)];
        let mut meta = Meta::read(&header, values, codec, kind, packet);
        let place = publication.stream.video.then(|| Place::of(&meta, packet));
        let admitted = publication.admit(stream, &header, &meta, place, transport.returned, now);
        if let Some(due) = publication.holes_due(stream.layer) {
            wake(&mut self.wake, due);
        }
        let Some(admitted) = admitted else {
            return;
        };
        if admitted.first {
            sink.event(Event::FirstPacket(
                publication.id,
                stream.layer,
                publication.stream.codecs[usize::from(codec)].payload_type,
            ));
        }
        if admitted.restarted {
            self.held.forget(stream.publication, stream.layer);
            end_segments(publication, &mut self.egress, stream.layer);
        }
        if !publication.open {
            publication.counters.gated += 1;
            if admitted.revived {
                self.aim_all(stream.publication, now);
            }
            return;
        }
        if !values.capture_time.is_empty() {
            translate_capture_time(transport.offset, values, packet);
        }
        let is_guessed = publication.is_level_guessed(codec);
        if is_guessed {
            meta.values.audio_level = Some(opus::level(header.payload.of(packet)));
        }
        if let Some(level) = meta.values.audio_level.filter(|_| admitted.newest) {
            publication.activity.hear(level & 0x7f, is_guessed, now);
            if publication.hear(level & 0x7f) {
                let due = self.levels.hear(publication.group, stream.publication, now);
                wake(&mut self.wake, due);
            }
        }
        let video = publication.stream.video;
        if video && admitted.newest {
            publication.layers[usize::from(stream.layer)]
                .frames
                .see(&meta, now);
        }
        let is_remote = !publication.remotes.is_empty();
        let mut revived = admitted.revived;
        if video {
            revived |= publication.look(stream.layer, kind, &mut meta, packet, now);
            if let Some(size) = publication.take_new_size() {
                sink.event(Event::FirstPacket(
                    publication.id,
                    size,
                    header.payload_type,
                ));
            }
        } else if kind == Kind::Red && !publication.stream.encrypted {
            publication.look_inside(&mut meta, packet);
        }
        let mut is_kept = false;
        if publication.is_wanted() {
            let layer = &mut publication.layers[usize::from(stream.layer)];
            is_kept = layer.cache.get_or_insert_with(|| Cache::new(video)).put(
                admitted.dense,
                meta,
                packet,
            );
            if is_kept && meta.key {
                layer.key_kept(admitted.dense, meta.timestamp, now);
            }
        }
        if revived {
            self.release(now, sink); // they came before the layers changed
            self.aim_all(stream.publication, now);
        }
        let copied = Copied {
            layer: stream.layer,
            dense: admitted.dense,
            newest: admitted.newest,
            padding: 0,
        };
        if is_remote {
            self.relay(stream.publication, copied, &meta, packet, sink);
        }
        if is_kept && video {
            self.hold(stream.publication, copied, now, sink);
        } else {
            self.fan_out(stream.publication, copied, &meta, packet, now, sink);
        }
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
}

/// A packet that is new.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    /// Its number without the padding in between.
    dense: u64,
    /// Nothing newer came before.
    newest: bool,
    /// Numbers started over with it.
    restarted: bool,
    /// Its layer was silent.
    revived: bool,
    /// Its layer was never heard before.
    first: bool,
}

impl Publication {
    /// What a picture's packet is to those who do not want all of them. True if there are other steps than before.
    pub fn look(
        &mut self,
        layer: u8,
        kind: Kind,
        meta: &mut Meta,
        packet: &[u8],
        now: Micros,
    ) -> bool {
        let is_single = self.layers.len() == 1;
        let bytes = packet.len();
        let dependency = meta.values.dependency.of(packet);
        let own = &mut self.layers[usize::from(layer)];
        if kind == Kind::H264 {
            // Where parameter sets travel in the stream, an IDR picture without them opens nothing.
            own.parameters |= keyframe::has_parameters(meta.payload.of(packet));
            meta.key &= !own.parameters || keyframe::has_parameters(meta.payload.of(packet));
        }
        if !dependency.is_empty() {
            let state = own.dependency.get_or_insert_default();
            if let Some(mut shape) = state.read(dependency) {
                if !is_single {
                    shape.is_of(layer, state.structure().map_or(0, Structure::top_size));
                }
                meta.shape = shape;
                meta.key |= shape.structured && shape.first && kind != Kind::Audio;
                return self.climb(layer, &shape, Told::default(), bytes, now);
            }
            return false;
        }
        let known = Known {
            top: steps::layer_of(self.whole(0)),
            nested: self.is_nested(),
        };
        let (shape, told) = shapes::told(meta, kind, layer, is_single, known, packet);
        meta.shape = shape;
        self.climb(layer, &shape, told, bytes, now)
    }

    /// The newest block of a RED packet, if it is of a codec of the section (RFC 2198).
    fn look_inside(&self, meta: &mut Meta, packet: &[u8]) {
        let Some((payload_type, place)) = redundancy::primary(meta.payload, packet) else {
            return;
        };
        if let Some((codec, false)) = self.codec_of(payload_type) {
            if codec != meta.codec {
                (meta.primary, meta.primary_codec) = (place, codec);
            }
        }
    }

    /// Account for a packet (for RTX: the packet repeated). None: nothing to forward.
    fn admit(
        &mut self,
        stream: Stream,
        header: &Header,
        meta: &Meta,
        place: Option<Place>,
        returned: Micros,
        now: Micros,
    ) -> Option<Admitted> {
        let is_wanted = self.is_wanted();
        let heard = self.layers[usize::from(stream.layer)].heard;
        let was_away = heard.is_some_and(|at| at < returned);
        // An outage hit all sizes, and there is one request in half a second.
        let hit = if was_away {
            self.live()
        } else {
            1 << stream.layer
        };
        let layer = &mut self.layers[usize::from(stream.layer)];
        if layer.receive.is_none() && stream.rtx {
            return None;
        }
        let negotiated = &self.stream.codecs[usize::from(meta.codec)];
        let receive = layer
            .receive
            .get_or_insert_with(|| Receive::new(header.sequence));
        let adjoins = layer.newest.zip(place).is_some_and(|(a, b)| a.adjoins(&b));
        let holes = if adjoins {
            Holes::Padding
        } else if !self.open || !is_wanted {
            Holes::Unwanted
        } else if was_away && self.stream.video {
            Holes::Gone
        } else if negotiated.nack {
            Holes::Wanted
        } else {
            Holes::Unwanted
        };
        let empty = header.payload.is_empty();
        let arrival = receive.arrived(header.sequence, empty, stream.rtx, holes, now);
        if let Some(place) = place {
            let newest = layer.newest.get_or_insert(place);
            match arrival {
                Arrival::New(_, true) | Arrival::Closed => newest.follow(place),
                Arrival::New(_, false) => newest.mend(&place),
                Arrival::Restarted(_) => *newest = place,
                Arrival::Stale => {}
            }
        }
        if receive.take_overflow() && self.stream.video && self.open {
            self.keys_wanted |= hit;
        }
        let (dense, newest, restarted) = match arrival {
            Arrival::New(dense, newest) => (dense, newest, false),
            Arrival::Restarted(dense) => (dense, true, true),
            Arrival::Closed | Arrival::Stale => return None,
        };
        if !stream.rtx {
            receive.clocked(header.timestamp, negotiated.clock_rate, now);
        }
        if restarted {
            let fresh = layer.receive.take();
            layer.start_over();
            layer.receive = fresh;
        }
        let first = !std::mem::replace(&mut layer.announced, true);
        let revived = self.heard(stream.layer, now);
        self.codec = meta.codec;
        self.last_layer = stream.layer;
        Some(Admitted {
            dense,
            newest,
            restarted,
            revived,
            first,
        })
    }

    /// When the next request for missing packets of a layer is due.
    fn holes_due(&self, layer: u8) -> Option<Micros> {
        self.layers[usize::from(layer)].receive.as_ref()?.due()
    }
}

impl Transport {
    /// An RTP packet came.
    fn note(&mut self, now: Micros) {
        let before = self.heard.replace(now);
        if before.is_some_and(|at| now.since(at) >= OUTAGE_US) {
            self.returned = now;
        }
    }

    /// Note an arrival for transport-cc feedback; returns when that is due.
    fn record(&mut self, number: u16, ssrc: u32, now: Micros) -> Micros {
        let full = self.recorder.record(number, ssrc, now);
        let due = if full {
            now
        } else {
            Micros(now.0 + FEEDBACK_US)
        };
        let due = self.feedback_due.map_or(due, |before| before.min(due));
        self.feedback_due = Some(due);
        due
    }
}

/// A layer's numbers started over: its copies end, and video needs a key frame to begin again.
pub(super) fn end_segments(publication: &mut Publication, egress: &mut [Egress], layer: u8) {
    for &sub in &publication.subscribers {
        let hot = &mut egress[sub as usize];
        if hot.current == layer {
            hot.current = NONE;
        }
    }
    if publication.stream.video {
        publication.keys_wanted |= 1 << layer;
    }
}

/// The next transport-wide number of a transport.
pub(super) fn stamp(transport: &mut Option<Transport>) -> Option<u16> {
    Some(transport.as_mut()?.stamp() as u16)
}

/// A new segment of a subscription, at this packet.
pub(super) fn begin(
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
