//! An outgoing stream: one SSRC, continuous over whatever it carries.
//!
//! `Egress` is what every copy needs and lies contiguous for all subscriptions; `Subscription` is the rest.
//! A *segment* is a run of packets of one layer, mapped by constant deltas; a switch begins a new one.
//! Not here: when to switch (`Router`, `layers`).

use std::collections::VecDeque;

use crate::id::{Micros, SubscriptionId, TransportId};

use super::clock::{units, SenderClock};
use super::dependency;
use super::packet::Meta;
use super::padding::Pads;
use super::publication::{MAX_CODECS, NONE};
use super::rtp::Writer;
use super::skips::Skips;
use super::statistics::Reception;
use super::{Codec, Error, Extensions, SendStream, MAX_PACKET_BYTES};

/// Slot of no publication.
pub const NOWHERE: u32 = u32::MAX;
/// `Egress::behind` of a stream that gets packets as they come.
pub const LIVE: u64 = u64::MAX;
/// Segments that can still be asked for.
pub const MAX_SEGMENTS: usize = 4;
/// Numbers whose repeats are counted.
const TRACKED: usize = 256;
/// Repeats of one packet for one subscriber (S9).
const MAX_REPEATS: u8 = 10;
/// A second request this soon is the same one.
const REPEAT_US: u64 = 10_000;
/// Repeats may take this share of what was sent (S9): a fifth ...
const BUDGET_SHARE: u64 = 5;
/// ... plus a handful of packets from the start, and never more than this at once.
const BUDGET_START_BYTES: u64 = 15_000;
const BUDGET_BURST_BYTES: u64 = 60_000;
/// So much of it is not for who asks again while the answer may still be on its way, as libwebrtc does every 100 ms.
const BUDGET_RESERVE_BYTES: u64 = 30_000;
/// Longest element of the one-byte form.
const ONE_BYTE_MAX: usize = 16;

/// What a segment adds to the publisher's numbers, all modulo their width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deltas {
    /// To the dense number: the extended outgoing number.
    pub sequence: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Picture id of VP8 or VP9.
    pub picture: u16,
    /// Their TL0PICIDX.
    pub tl0: u8,
    /// AV1 frame number.
    pub frame: u16,
}

/// The part of a subscription that every copy touches.
#[derive(Debug)]
pub struct Egress {
    /// Receiver.
    pub to: TransportId,
    /// Its slot.
    pub transport: u32,
    /// Ours.
    pub ssrc: u32,
    /// Slot of the source or `NOWHERE`.
    pub source: u32,
    /// Layer being forwarded or `NONE`.
    pub current: u8,
    /// Layer wanted or `NONE`.
    pub target: u8,
    /// Step being forwarded (`steps`), while there is a layer.
    pub step: u8,
    /// Step wanted or `NONE`.
    pub target_step: u8,
    /// Packets of the layer are left out: each is looked at.
    pub selective: bool,
    /// The step before this one, and the first dense number that is not its any more.
    pub before: u8,
    /// See `before`.
    pub since: u64,
    /// The step changed, and the next frame must say so; this frame does.
    pub changed: bool,
    /// See `changed`.
    pub announcing: bool,
    /// Needs a key frame to start.
    pub video: bool,
    /// Copies may have to wait (`pacer`).
    pub paced: bool,
    /// Asked to send nothing.
    pub paused: bool,
    /// The transport could not take the last packet.
    pub stalled: bool,
    /// Transport-wide sequence numbers and send times are written.
    pub stamped: bool,
    /// First dense number of the segment.
    pub first: u64,
    /// Packets from this dense number on come from the cache (`catchup`), or `LIVE`.
    pub behind: u64,
    /// Mapping of the segment.
    pub deltas: Deltas,
    /// Dense numbers below this lie before some padding (`padding`).
    pub padded: u64,
    /// What was sent last ended a picture.
    pub ended: bool,
    /// Extended number sent last.
    pub last_sequence: u64,
    /// Its timestamp.
    pub last_timestamp: u32,
    /// When that timestamp was first sent.
    pub last_time: Micros,
    /// Its VP8 picture id, TL0PICIDX and AV1 frame number.
    pub last_picture: u16,
    /// See `last_picture`.
    pub last_tl0: u8,
    /// See `last_picture`.
    pub last_frame: u16,
    /// Packets sent, repeats not counted.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their payload bytes, for sender reports.
    pub octets: u64,
    /// Outgoing payload type by the source's codec index, or `NONE`.
    pub payload_types: [u8; MAX_CODECS],
    /// Playout delay of pictures whose publisher says none (`cushion`).
    pub cushion: Option<[u8; 3]>,
    /// The subscriber's ids.
    pub extensions: Extensions,
    /// An id needs the two-byte form.
    pub two_byte: bool,
    mid: [u8; 16],
    mid_len: u8,
}

/// A run of packets of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// First extended outgoing number.
    pub first: u64,
    /// Where the packets are.
    pub layer: u8,
    /// Numbers of which life of the layer.
    pub epoch: u32,
    /// Mapping.
    pub deltas: Deltas,
    /// Which of `Subscription::skips` tells what was left out, or `NONE`.
    pub skips: u8,
}

/// Where a new segment begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Dense number of its first packet.
    pub dense: u64,
    /// Layer and its epoch.
    pub layer: u8,
    /// See `layer`.
    pub epoch: u32,
    /// Hz
    pub clock_rate: u32,
    /// Last sender report of this layer and of the one before, if it was the same source.
    pub clocks: Option<(SenderClock, SenderClock)>,
}

/// The part of a subscription that packets rarely touch.
#[derive(Debug)]
pub struct Subscription {
    /// Handle.
    pub id: SubscriptionId,
    /// As negotiated.
    pub stream: SendStream,
    /// Highest layer wanted.
    pub max_layer: u8,
    /// Frames per second wanted, 0 = all.
    pub max_fps: u8,
    /// Highest step that the link carries, `NONE` = any.
    pub cap: u8,
    /// The link does not carry even the lowest.
    pub starved: bool,
    /// Highest step that the CPU carries (`shed`), `NONE` = any.
    pub allowed: u8,
    /// Not even the lowest.
    pub is_shed: bool,
    /// `Event::Paused` was told last, not `Resumed`.
    pub is_told_paused: bool,
    /// Since when that is so, before it takes effect, and when it was so last.
    pub short: Option<(Micros, Micros)>,
    /// Who gets bandwidth first.
    pub priority: u8,
    /// Padding within the newest segment.
    pub pads: Pads,
    /// Layer of the newest segment belongs to this slot's source.
    pub segments: VecDeque<Segment>,
    /// Of the segments that are thinned out; empty until there is one.
    pub skips: Vec<Skips>,
    /// The one used last.
    pub next_skips: u8,
    /// Hz, of the newest segment.
    pub clock_rate: u32,
    /// (payload type, RTX payload type or `NONE`, may be asked for) by the source's codec index.
    pub codecs: Vec<(u8, u8, bool)>,
    /// First number sent.
    pub first_sequence: u64,
    /// Next RTX number.
    pub rtx_sequence: u16,
    /// NACK packets heard.
    pub nacks: u64,
    /// Sequence numbers in them.
    pub asked_again: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// Of these, by FIR.
    pub firs: u64,
    /// Packets repeated.
    pub retransmitted: u64,
    /// Payload bytes in them.
    pub retransmitted_octets: u64,
    /// What the subscriber last reported.
    pub reception: Reception,
    /// Packets at the last sender report.
    pub reported: u64,
    /// When a key frame was last asked for on its behalf.
    pub key_asked: Micros,
    repeated_bytes: u64,
    repeats: Vec<(u64, u8, Micros)>,
}

impl Subscription {
    /// Both parts of a stream that carries nothing. `start`: random, for its first numbers.
    ///
    /// # Errors
    /// `Invalid` for what no negotiation can have produced.
    pub fn new(
        id: SubscriptionId,
        to: TransportId,
        transport: u32,
        stream: SendStream,
        start: u64,
    ) -> Result<(Egress, Self), Error> {
        if stream.mid.len() > 16 {
            return Err(Error::Invalid("mid"));
        }
        if stream.codecs.is_empty() || stream.codecs.len() > 128 {
            return Err(Error::Invalid("number of codecs"));
        }
        let mut ids = stream.extensions;
        if !stream.codecs.iter().any(|codec| codec.transport_cc) {
            ids.transport_cc = 0; // nobody would tell us about the numbers
        }
        let two_byte = [
            ids.mid,
            ids.audio_level,
            ids.transport_cc,
            ids.abs_send_time,
            ids.video_orientation,
            ids.abs_capture_time,
            ids.playout_delay,
            ids.dependency_descriptor,
            ids.frame_marking,
        ]
        .iter()
        .any(|id| *id > 14);
        let mut mid = [0; 16];
        mid[..stream.mid.len()].copy_from_slice(stream.mid.as_bytes());
        // Below 2^15 (S7), so that the receiver's rollover counter cannot begin at a wrap.
        let first_sequence = 1 + (start & 0x3fff);
        let egress = Egress {
            to,
            transport,
            ssrc: stream.ssrc,
            source: NOWHERE,
            current: NONE,
            target: NONE,
            step: NONE,
            target_step: NONE,
            selective: false,
            before: NONE,
            since: 0,
            changed: false,
            announcing: false,
            video: stream.video,
            paced: false,
            paused: false,
            stalled: false,
            stamped: false,
            first: 0,
            behind: LIVE,
            deltas: Deltas::default(),
            padded: 0,
            ended: false,
            last_sequence: first_sequence - 1,
            last_timestamp: (start >> 16) as u32,
            last_time: Micros(0),
            last_picture: (start >> 20) as u16 & 0x7fff,
            last_tl0: (start >> 40) as u8,
            last_frame: (start >> 44) as u16,
            packets: 0,
            bytes: 0,
            octets: 0,
            payload_types: [NONE; MAX_CODECS],
            cushion: None,
            extensions: ids,
            two_byte,
            mid,
            mid_len: stream.mid.len() as u8,
        };
        let subscription = Self {
            id,
            stream,
            max_layer: NONE,
            max_fps: 0,
            cap: NONE,
            allowed: NONE,
            is_shed: false,
            is_told_paused: false,
            starved: false,
            short: None,
            priority: 0,
            pads: Pads::default(),
            segments: VecDeque::with_capacity(MAX_SEGMENTS),
            skips: Vec::new(),
            next_skips: 0,
            clock_rate: 90_000,
            codecs: Vec::new(),
            first_sequence,
            rtx_sequence: 1 + (start >> 48) as u16 % 0x4000,
            nacks: 0,
            asked_again: 0,
            plis: 0,
            firs: 0,
            retransmitted: 0,
            retransmitted_octets: 0,
            reception: Reception::default(),
            reported: 0,
            key_asked: Micros(0),
            repeated_bytes: 0,
            repeats: Vec::new(),
        };
        Ok((egress, subscription))
    }

    /// Map a source's codecs to the subscriber's by name, the same number preferred among equals.
    pub fn map_codecs(&mut self, egress: &mut Egress, source: &[Codec]) {
        self.codecs.clear();
        egress.payload_types = [NONE; MAX_CODECS];
        let mut plain = false;
        for (index, theirs) in source.iter().enumerate().take(MAX_CODECS) {
            let same = |ours: &&Codec| {
                ours.name.eq_ignore_ascii_case(&theirs.name) && ours.clock_rate == theirs.clock_rate
            };
            let mut matching = self.stream.codecs.iter().filter(same);
            let found = matching
                .clone()
                .find(|ours| ours.payload_type == theirs.payload_type)
                .or_else(|| matching.next());
            let entry = found.map_or((NONE, NONE, false), |ours| {
                let rtx = ours.rtx.filter(|_| self.stream.rtx_ssrc != 0);
                plain |= ours.nack && rtx.is_none();
                (ours.payload_type, rtx.unwrap_or(NONE), ours.nack)
            });
            egress.payload_types[index] = entry.0;
            self.codecs.push(entry);
        }
        // A packet repeated under its own number must be the same to the last bit, or SRTP would use one
        // nonce for two packets (RFC 7714 section 8): such streams carry nothing that changes with time.
        egress.stamped = !plain;
        if plain {
            egress.cushion = None;
        }
    }

    /// The next packet begins a new segment: choose its deltas so that everything goes on.
    pub fn begin(&mut self, egress: &mut Egress, start: Start, meta: &Meta, now: Micros) {
        let same_timeline = self
            .segments
            .back()
            .is_some_and(|last| (last.layer, last.epoch) == (start.layer, start.epoch));
        let ahead = |timestamp: u32| {
            egress.packets == 0 || timestamp.wrapping_sub(egress.last_timestamp) as i32 > 0
        };
        let kept = meta.timestamp.wrapping_add(egress.deltas.timestamp);
        let elapsed = units(now.since(egress.last_time) as i64, start.clock_rate).max(1);
        let by_arrival = egress.last_timestamp.wrapping_add(elapsed);
        let by_report = start.clocks.map(|(new, old)| {
            old.timestamp_at(
                new.ntp_at(meta.timestamp, start.clock_rate),
                start.clock_rate,
            )
            .wrapping_add(egress.deltas.timestamp)
        });
        let near = |timestamp: u32| {
            (timestamp.wrapping_sub(by_arrival) as i32).unsigned_abs() < start.clock_rate
        };
        let timestamp = if egress.packets == 0 {
            egress.last_timestamp
        } else if same_timeline && ahead(kept) {
            kept
        } else {
            by_report
                .filter(|timestamp| ahead(*timestamp) && near(*timestamp))
                .unwrap_or(by_arrival)
        };
        let next = egress.last_sequence + 1;
        egress.first = start.dense;
        egress.behind = LIVE;
        egress.deltas = Deltas {
            sequence: next.wrapping_sub(start.dense),
            timestamp: timestamp.wrapping_sub(meta.timestamp),
            picture: egress
                .last_picture
                .wrapping_add(1)
                .wrapping_sub(meta.ids.picture),
            tl0: egress.last_tl0.wrapping_add(1).wrapping_sub(meta.ids.tl0),
            frame: egress
                .last_frame
                .wrapping_add(1)
                .wrapping_sub(meta.frame.unwrap_or(0)),
        };
        egress.padded = 0;
        self.pads.clear();
        egress.current = start.layer;
        self.clock_rate = start.clock_rate;
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(Segment {
            first: next,
            layer: start.layer,
            epoch: start.epoch,
            deltas: egress.deltas,
            skips: NONE,
        });
        egress.selective = false;
    }

    /// The segment of an extended outgoing number.
    #[must_use]
    pub fn segment_of(&self, sequence: u64) -> Option<Segment> {
        self.segments
            .iter()
            .rev()
            .find(|segment| segment.first <= sequence)
            .copied()
    }

    /// May this number be repeated once more, at this size? Counts it if so.
    pub fn may_repeat(&mut self, sent_bytes: u64, sequence: u64, bytes: u64, now: Micros) -> bool {
        if self.repeats.is_empty() {
            self.repeats = vec![(0, 0, Micros(0)); TRACKED];
        }
        let earned = sent_bytes / BUDGET_SHARE + BUDGET_START_BYTES;
        // What was not used long ago is not saved up for a storm.
        self.repeated_bytes = self
            .repeated_bytes
            .max(earned.saturating_sub(BUDGET_BURST_BYTES));
        let (number, times, last) = &mut self.repeats[(sequence % TRACKED as u64) as usize];
        let is_on_its_way = *number == sequence && now.since(*last) < self.reception.rtt_us;
        let reserve = if is_on_its_way {
            BUDGET_RESERVE_BYTES
        } else {
            0
        };
        if self.repeated_bytes + bytes + reserve > earned {
            return false;
        }
        if *number != sequence {
            (*number, *times) = (sequence, 0);
        } else if *times >= MAX_REPEATS || now.since(*last) < REPEAT_US {
            return false;
        }
        *times += 1;
        *last = now;
        self.repeated_bytes += bytes;
        true
    }
}

/// How one copy differs from another of the same packet.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// Outgoing payload type.
    pub payload_type: u8,
    /// Outgoing number.
    pub sequence: u16,
    /// Outgoing SSRC.
    pub ssrc: u32,
    /// RTX: the number repeated.
    pub original: Option<u16>,
    /// Transport-wide number, if negotiated.
    pub transport_cc: Option<u16>,
    /// When it leaves.
    pub now: Micros,
    /// Bytes of padding, so that it is as long as its neighbours.
    pub padding: u8,
    /// Decode targets to name in the dependency descriptor, 0 = it stays as it is.
    pub active: u32,
}

impl Egress {
    /// Write a copy of a packet; None if it does not fit.
    #[must_use]
    pub fn compose(
        &self,
        slot: &mut [u8],
        face: &Face,
        deltas: &Deltas,
        meta: &Meta,
        packet: &[u8],
    ) -> Option<usize> {
        let room = slot.len().min(MAX_PACKET_BYTES);
        let ids = &self.extensions;
        let values = &meta.values;
        let mut dependency = values.dependency.of(packet);
        let mut rewritten;
        if face.active != 0 {
            let shape = &meta.shape;
            rewritten = [0; dependency::MAX_BYTES];
            let len = dependency::write_active(
                dependency,
                shape.mask_at,
                shape.targets,
                face.active,
                &mut rewritten,
            );
            dependency = len.map_or(dependency, |len| &rewritten[..len]);
        }
        let two_byte =
            self.two_byte || (ids.dependency_descriptor != 0 && dependency.len() > ONE_BYTE_MAX);
        let mut writer = Writer::new(
            &mut slot[..room],
            meta.marker,
            face.payload_type,
            face.sequence,
            meta.timestamp.wrapping_add(deltas.timestamp),
            face.ssrc,
            two_byte,
        );
        self.opening(&mut writer, face);
        if let Some(level) = values.audio_level {
            writer.element(ids.audio_level, &[level]);
        }
        if let Some(orientation) = values.video_orientation {
            writer.element(ids.video_orientation, &[orientation]);
        }
        if let Some(delay) = values.playout_delay.or(self.cushion) {
            writer.element(ids.playout_delay, &delay);
        }
        if !values.capture_time.is_empty() {
            writer.element(ids.abs_capture_time, values.capture_time.of(packet));
        }
        if let Some(frame) = meta.frame {
            let place = writer.element(ids.dependency_descriptor, dependency);
            if place != 0 {
                let frame = frame.wrapping_add(deltas.frame).to_be_bytes();
                writer.bytes()[place + 1..place + 3].copy_from_slice(&frame);
            }
        }
        if !values.frame_marking.is_empty() {
            self.mark_frame(&mut writer, deltas, values.frame_marking.of(packet));
        }
        if let Some(original) = face.original {
            writer.payload(&original.to_be_bytes());
        }
        let payload = meta.payload.of(packet);
        if payload.is_empty() {
            writer.padding_only(1);
        } else {
            let place = writer.payload(payload);
            if place != 0 {
                meta.ids
                    .rewrite(&mut writer.bytes()[place..], deltas.picture, deltas.tl0);
            }
            writer.pad(face.padding);
        }
        writer.finish()
    }

    /// Frame marking, whose TL0PICIDX goes on over switches (RFC 9626 section 3.2).
    fn mark_frame(&self, writer: &mut Writer<'_>, deltas: &Deltas, marking: &[u8]) {
        let place = writer.element(self.extensions.frame_marking, marking);
        if let (true, [_, _, tl0]) = (place != 0, marking) {
            writer.bytes()[place + 2] = tl0.wrapping_add(deltas.tl0);
        }
    }

    /// The elements that every packet of the stream carries.
    pub fn opening(&self, writer: &mut Writer<'_>, face: &Face) {
        let ids = &self.extensions;
        writer.element(ids.mid, &self.mid[..usize::from(self.mid_len)]);
        if let Some(number) = face.transport_cc {
            writer.element(ids.transport_cc, &number.to_be_bytes());
        }
        if self.stamped && ids.abs_send_time != 0 {
            // 6.18 fixed point seconds
            let time = (u128::from(face.now.0) << 18) / 1_000_000;
            let time = (time as u32).to_be_bytes();
            writer.element(ids.abs_send_time, &time[1..]);
        }
    }

    /// Account for a copy that went out.
    pub fn sent(&mut self, sequence: u64, deltas: &Deltas, meta: &Meta, len: usize, now: Micros) {
        self.packets += 1;
        self.bytes += len as u64;
        self.octets += u64::from(meta.payload.len);
        if sequence <= self.last_sequence {
            return;
        }
        self.last_sequence = sequence;
        self.ended = meta.marker;
        let timestamp = meta.timestamp.wrapping_add(self.deltas.timestamp);
        if timestamp != self.last_timestamp || self.packets == 1 {
            self.last_timestamp = timestamp;
            self.last_time = now;
        }
        if meta.ids.picture_at != 0 {
            self.last_picture = meta.ids.picture.wrapping_add(deltas.picture);
        }
        if meta.ids.tl0_at != 0 {
            self.last_tl0 = meta.ids.tl0.wrapping_add(self.deltas.tl0);
        }
        if let Some(frame) = meta.frame {
            self.last_frame = frame.wrapping_add(self.deltas.frame);
        }
    }
}
