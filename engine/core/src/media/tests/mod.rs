//! The router in virtual time: peers that send, a sink that records.

mod batches;
mod budgets;
mod control;
mod counters;
mod feeding;
mod forwarding;
mod hostile;
mod joining;
mod mirrors;
mod network;
mod onset;
mod shedding;
mod stage;
mod svc;
mod thinning;

use crate::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};

use super::rtcp::{Builder, Compound, Packet};
use super::rtp::{element, Header, Writer};
use super::vp8::Descriptor;
use super::{
    Codec, Event, Extensions, Notice, PublicationStatistics, ReceiveStream, Relayed, Router,
    SendStream, Sink, SubscriptionStatistics,
};

pub(super) const ALICE: TransportId = TransportId(1);
pub(super) const BOB: TransportId = TransportId(2);
pub(super) const CAROL: TransportId = TransportId(3);
pub(super) const GROUP: GroupId = GroupId(9);
pub(super) const ALICE_EXTENSIONS: Extensions = Extensions {
    mid: 4,
    rid: 10,
    repaired_rid: 11,
    audio_level: 1,
    transport_cc: 3,
    abs_send_time: 2,
    video_orientation: 13,
    abs_capture_time: 0,
    playout_delay: 0,
    dependency_descriptor: 0,
    frame_marking: 0,
};
/// Other numbers for the same meanings.
pub(super) const BOB_EXTENSIONS: Extensions = Extensions {
    mid: 1,
    rid: 0,
    repaired_rid: 0,
    audio_level: 7,
    transport_cc: 5,
    abs_send_time: 0,
    video_orientation: 6,
    abs_capture_time: 0,
    playout_delay: 0,
    dependency_descriptor: 0,
    frame_marking: 0,
};

/// A packet as the subscriber reads it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub to: TransportId,
    pub at: Micros,
    pub bytes: Vec<u8>,
    pub header: Header,
}

impl Seen {
    pub fn payload(&self) -> &[u8] {
        self.header.payload.of(&self.bytes)
    }

    pub fn vp8(&self) -> Descriptor {
        Descriptor::parse(self.payload()).expect("VP8")
    }

    pub fn element(&self, id: u8) -> Option<&[u8]> {
        element(&self.header, &self.bytes, id)
    }
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub now: Option<Micros>,
    pub rtp: Vec<Seen>,
    pub rtcp: Vec<(TransportId, Micros, Vec<u8>)>,
    pub events: Vec<Event>,
    /// Transports without keys.
    pub closed: Vec<TransportId>,
    /// To other shards, in order.
    pub abroad: Vec<(u8, Abroad)>,
    slot: Vec<u8>,
    to: Option<TransportId>,
}

impl Sink for Record {
    fn rtp(&mut self, to: TransportId) -> Option<&mut [u8]> {
        assert!(self.to.is_none(), "a slot is out already");
        if self.closed.contains(&to) {
            return None;
        }
        self.to = Some(to);
        self.slot.resize(super::MAX_PACKET_BYTES + 40, 0xee);
        Some(&mut self.slot)
    }

    fn rtp_done(&mut self, len: usize) {
        let to = self.to.take().expect("a slot is out");
        assert!(len <= super::MAX_PACKET_BYTES);
        if len == 0 {
            return;
        }
        let bytes = self.slot[..len].to_vec();
        let header = Header::parse(&bytes).expect("the router writes RTP");
        assert!(header.elements(&bytes).all(|element| element.is_ok()));
        self.rtp.push(Seen {
            to,
            at: self.now.expect("set by the story"),
            bytes,
            header,
        });
    }

    fn rtcp(&mut self, to: TransportId, compound: &[u8]) {
        assert!(!compound.is_empty() && compound.len() <= 1_180);
        assert!(
            compound[1] == 200 || compound[1] == 201,
            "begins with a report"
        );
        assert!(Compound::new(compound).all(|packet| packet.is_ok()));
        let now = self.now.expect("set by the story");
        self.rtcp.push((to, now, compound.to_vec()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn relay(&mut self, to: u8, packet: &Relayed, bytes: &[u8]) {
        let packet = Abroad::Packet(Box::new(*packet), bytes.to_vec());
        self.abroad.push((to, packet));
    }

    fn notify(&mut self, to: u8, notice: Notice) {
        self.abroad.push((to, Abroad::Notice(notice)));
    }
}

/// What leaves for another shard.
#[derive(Clone, Debug)]
pub(super) enum Abroad {
    Packet(Box<Relayed>, Vec<u8>),
    Notice(Notice),
}

/// A router, its sink and the time.
#[derive(Debug)]
pub(super) struct Story {
    pub router: Router,
    pub record: Record,
    pub now: Micros,
}

impl Story {
    pub fn new() -> Self {
        let mut story = Self {
            router: Router::new(7),
            record: Record::default(),
            now: Micros(50_000_000),
        };
        for transport in [ALICE, BOB, CAROL] {
            story.router.add_transport(transport);
        }
        story.pass(0);
        story
    }

    /// Time goes by, timers fire when they said they would.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = self.router.timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.record.now = Some(self.now);
            self.router.tick(self.now, &mut self.record);
            let next = self.router.timeout();
            assert!(next.is_none_or(|next| next > self.now), "a busy timer");
        }
        self.now = end;
        self.record.now = Some(end);
    }

    pub fn rtp(&mut self, from: TransportId, packet: &[u8]) {
        self.rtp_in_batch(from, packet);
        self.router.release(self.now, &mut self.record);
    }

    /// Copies may wait for `router.release`.
    pub fn rtp_in_batch(&mut self, from: TransportId, packet: &[u8]) {
        self.record.now = Some(self.now);
        let mut packet = packet.to_vec();
        self.router
            .rtp(from, &mut packet, self.now, &mut self.record);
    }

    pub fn rtcp(&mut self, from: TransportId, write: impl FnOnce(&mut Builder)) {
        let mut builder = Builder::default();
        write(&mut builder);
        self.record.now = Some(self.now);
        self.router
            .rtcp(from, builder.bytes(), self.now, &mut self.record);
    }

    pub fn publish(&mut self, id: u64, from: TransportId, stream: ReceiveStream) {
        self.router
            .publish(PublicationId(id), from, GROUP, stream)
            .expect("valid");
    }

    pub fn subscribe(&mut self, id: u64, to: TransportId, stream: SendStream, source: u64) {
        self.router
            .subscribe(SubscriptionId(id), to, stream)
            .expect("valid");
        self.source(id, Some(source));
    }

    pub fn source(&mut self, id: u64, source: Option<u64>) {
        self.record.now = Some(self.now);
        self.router.set_source(
            SubscriptionId(id),
            source.map(PublicationId),
            self.now,
            &mut self.record,
        );
    }

    pub fn layer(&mut self, id: u64, max: u8, paused: bool) {
        self.record.now = Some(self.now);
        self.router
            .set_layer(SubscriptionId(id), max, paused, self.now, &mut self.record);
    }

    /// Take what went to a transport so far.
    pub fn seen(&mut self, to: TransportId) -> Vec<Seen> {
        let all = std::mem::take(&mut self.record.rtp);
        let (mine, rest) = all.into_iter().partition(|seen| seen.to == to);
        self.record.rtp = rest;
        mine
    }

    /// SSRCs of key frame requests that went to a transport, with their time; takes them.
    pub fn plis(&mut self, to: TransportId) -> Vec<(Micros, u32)> {
        let mut found = Vec::new();
        self.record.rtcp.retain(|(receiver, at, compound)| {
            if *receiver != to {
                return true;
            }
            let before = found.len();
            for packet in Compound::new(compound) {
                match packet.expect("own packet") {
                    Packet::Pli { media } => found.push((*at, media)),
                    Packet::Fir { media } => found.extend(media.map(|ssrc| (*at, ssrc))),
                    _ => {}
                }
            }
            found.len() == before
        });
        found
    }

    /// Sequence numbers asked of a transport; takes the requests.
    pub fn nacked(&mut self, to: TransportId) -> Vec<u16> {
        let mut found = Vec::new();
        self.record.rtcp.retain(|(receiver, _, compound)| {
            let before = found.len();
            for packet in Compound::new(compound) {
                if let (Ok(Packet::Nack { lost, .. }), true) = (packet, *receiver == to) {
                    found.extend(lost);
                }
            }
            found.len() == before
        });
        found
    }

    pub fn publication(&self, id: u64) -> PublicationStatistics {
        let all = self.router.statistics().publications;
        let entry = all.iter().find(|(found, _)| *found == PublicationId(id));
        entry.expect("published").1
    }

    pub fn subscription(&self, id: u64) -> SubscriptionStatistics {
        let all = self.router.statistics().subscriptions;
        let entry = all.iter().find(|(found, _)| *found == SubscriptionId(id));
        entry.expect("subscribed").1
    }
}

pub(super) fn vp8(payload_type: u8, rtx: Option<u8>) -> Codec {
    Codec {
        payload_type,
        name: "VP8".into(),
        clock_rate: 90_000,
        channels: 1,
        rtx,
        nack: true,
        pli: true,
        fir: true,
        remb: false,
        transport_cc: true,
    }
}

pub(super) fn opus(payload_type: u8) -> Codec {
    Codec {
        payload_type,
        name: "opus".into(),
        clock_rate: 48_000,
        channels: 2,
        rtx: None,
        nack: false,
        pli: false,
        fir: false,
        remb: false,
        transport_cc: true,
    }
}

/// Redundant sound (RFC 2198).
pub(super) fn red(payload_type: u8) -> Codec {
    Codec {
        name: "red".into(),
        ..opus(payload_type)
    }
}

/// One VP8 stream of SSRC 1000, RTX 1001, mid "0".
pub(super) fn camera() -> ReceiveStream {
    ReceiveStream {
        mid: "0".into(),
        video: true,
        codecs: vec![vp8(96, Some(97))],
        extensions: ALICE_EXTENSIONS,
        rids: vec![],
        ssrcs: vec![(1_000, 1_001)],
        encrypted: false,
    }
}

/// Three layers known by rid only.
pub(super) fn simulcast() -> ReceiveStream {
    ReceiveStream {
        rids: ["q", "h", "f"].map(String::from).to_vec(),
        ssrcs: vec![],
        ..camera()
    }
}

/// Opus of SSRC 2000, mid "1".
pub(super) fn microphone() -> ReceiveStream {
    ReceiveStream {
        mid: "1".into(),
        video: false,
        codecs: vec![opus(111)],
        extensions: ALICE_EXTENSIONS,
        rids: vec![],
        ssrcs: vec![(2_000, 0)],
        encrypted: false,
    }
}

/// Bob's screen: other numbers, RTX 77/78.
pub(super) fn screen(ssrc: u32) -> SendStream {
    SendStream {
        mid: "v7".into(),
        video: true,
        codecs: vec![vp8(100, Some(101))],
        extensions: BOB_EXTENSIONS,
        ssrc,
        rtx_ssrc: ssrc + 1,
        cname: "alice".into(),
    }
}

/// Bob's loudspeaker.
pub(super) fn speaker(ssrc: u32) -> SendStream {
    SendStream {
        mid: "a1".into(),
        video: false,
        codecs: vec![opus(109)],
        extensions: BOB_EXTENSIONS,
        ssrc,
        rtx_ssrc: 0,
        cname: "alice".into(),
    }
}

/// A stream that a peer sends, one packet after the other.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub ssrc: u32,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture: u16,
    pub tl0: u8,
    pub mid: &'static str,
    pub rid: &'static str,
    pub level: u8,
    pub transport_cc: Option<u16>,
    /// Bytes of a picture's packet behind the descriptor.
    pub tail: usize,
}

impl Source {
    pub fn new(ssrc: u32, payload_type: u8, sequence: u16) -> Self {
        Self {
            ssrc,
            payload_type,
            sequence,
            timestamp: ssrc.wrapping_mul(77_777),
            picture: (ssrc % 32_768) as u16,
            tl0: ssrc as u8,
            mid: "",
            rid: "",
            level: 255,
            transport_cc: None,
            tail: 30,
        }
    }

    pub fn packet(&mut self, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut slot = vec![0; 1_500];
        let mut writer = Writer::new(
            &mut slot,
            marker,
            self.payload_type,
            self.sequence,
            self.timestamp,
            self.ssrc,
            false,
        );
        writer.element(ALICE_EXTENSIONS.mid, self.mid.as_bytes());
        writer.element(ALICE_EXTENSIONS.rid, self.rid.as_bytes());
        if self.level != 255 {
            writer.element(ALICE_EXTENSIONS.audio_level, &[self.level]);
        }
        if let Some(number) = &mut self.transport_cc {
            writer.element(ALICE_EXTENSIONS.transport_cc, &number.to_be_bytes());
            *number = number.wrapping_add(1);
        }
        if payload.is_empty() {
            writer.padding_only(1);
        } else {
            writer.payload(payload);
        }
        let len = writer.finish().expect("fits");
        slot.truncate(len);
        self.sequence = self.sequence.wrapping_add(1);
        slot
    }

    pub fn picture_payload(&self, key: bool, first: bool, tag: u8) -> Vec<u8> {
        let start = if first { 0x90 } else { 0x80 };
        let picture = (self.picture & 0x7fff | 0x8000).to_be_bytes();
        let mut payload = vec![start, 0xc0, picture[0], picture[1], self.tl0];
        payload.push(u8::from(!key)); // P bit
        payload.extend(std::iter::repeat_n(tag, self.tail));
        payload
    }

    /// A frame of some packets; 3,000 ticks later the next.
    pub fn frame(&mut self, key: bool, packets: usize) -> Vec<Vec<u8>> {
        self.picture = self.picture.wrapping_add(1);
        self.tl0 = self.tl0.wrapping_add(1);
        let frame = (0..packets)
            .map(|index| {
                let payload = self.picture_payload(key, index == 0, self.ssrc as u8);
                self.packet(index + 1 == packets, &payload)
            })
            .collect();
        self.timestamp = self.timestamp.wrapping_add(3_000);
        frame
    }

    /// 20 ms of sound.
    pub fn sound(&mut self) -> Vec<u8> {
        let payload = [self.sequence as u8; 40];
        let packet = self.packet(false, &payload);
        self.timestamp = self.timestamp.wrapping_add(960);
        packet
    }
}

/// Sequence numbers go up by one, timestamps and (per frame) picture ids too.
pub(super) fn assert_continuous(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        assert_eq!(b.header.sequence, a.header.sequence.wrapping_add(1));
        assert_eq!(b.header.ssrc, a.header.ssrc);
        let step = b.header.timestamp.wrapping_sub(a.header.timestamp);
        assert!(step < 90_000 * 20, "timestamps run: {step}");
    }
}

/// Picture ids and TL0PICIDX go up by one with each frame.
pub(super) fn assert_pictures(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        let next = u16::from(a.header.timestamp != b.header.timestamp);
        assert_eq!(b.vp8().picture, (a.vp8().picture + next) & 0x7fff);
        assert_eq!(b.vp8().tl0, a.vp8().tl0.wrapping_add(next as u8));
    }
}
