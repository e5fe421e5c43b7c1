//! P9: the packet path allocates nothing in the steady state, counted by the allocator itself.

mod counting;
mod peers;

use std::sync::Arc;

use counting::ALLOCATIONS;
use parley_core::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use parley_core::media::{Codec, Extensions, ReceiveStream, Relayed, SendStream};
use parley_core::plane::Plane;
use parley_core::shard::{handle, shard_of, Notice, Shard};
use parley_core::srtp::{Profile, Session};
use parley_core::wire::{Event, Output, Path, SLOT_BYTES};
use peers::{connect, connect_as, path, START};

struct Out {
    slot: [u8; SLOT_BYTES],
    sent: u64,
    /// To the other shard: what a ring would hold.
    packets: Vec<(Relayed, [u8; 1_300], usize)>,
    datagrams: Vec<(Path, [u8; 1_300], usize)>,
    notices: Vec<Notice>,
}

impl Out {
    fn new() -> Self {
        Self {
            slot: [0; SLOT_BYTES],
            sent: 0,
            packets: Vec::with_capacity(64),
            datagrams: Vec::with_capacity(64),
            notices: Vec::with_capacity(1_024),
        }
    }
}

impl Output for Out {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, _path: &Path, _len: usize) {
        self.sent += 1;
    }

    fn event(&mut self, _event: Event) {}

    fn pass(&mut self, _to: u8, path: &Path, datagram: &[u8], _is_stranger: bool) {
        let mut bytes = [0; 1_300];
        bytes[..datagram.len()].copy_from_slice(datagram);
        self.datagrams.push((*path, bytes, datagram.len()));
    }

    fn relay(&mut self, _to: u8, packet: &Relayed, packet_bytes: &[u8]) {
        let mut bytes = [0; 1_300];
        bytes[..packet_bytes.len()].copy_from_slice(packet_bytes);
        self.packets.push((*packet, bytes, packet_bytes.len()));
    }

    fn notify(&mut self, _to: u8, notice: Notice) {
        self.notices.push(notice);
    }
}

const SUBSCRIBERS: u64 = 10;

fn codec() -> Codec {
    Codec {
        payload_type: 96,
        name: "VP8".into(),
        clock_rate: 90_000,
        channels: 1,
        rtx: None,
        nack: true,
        pli: true,
        fir: false,
        remb: false,
        transport_cc: false,
    }
}

fn packet(sequence: u16, client: &mut Session, room: &mut [u8; 1_300]) -> usize {
    // A key frame (VP8, 1x1) first, delta frames behind it.
    let payload: [u8; 11] = if sequence == 1 {
        [0x10, 0, 0, 0, 0x9d, 1, 0x2a, 1, 0, 1, 0]
    } else {
        [0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    room[..4].copy_from_slice(&[0x80, 0x80 | 96, (sequence >> 8) as u8, sequence as u8]);
    room[4..8].copy_from_slice(&(u32::from(sequence) * 3_000).to_be_bytes());
    room[8..12].copy_from_slice(&7u32.to_be_bytes());
    room[12..23].copy_from_slice(&payload);
    client.sender.rtp(room, 1_200).expect("room for the tag")
}

fn incoming() -> ReceiveStream {
    ReceiveStream {
        mid: "0".into(),
        video: true,
        codecs: vec![codec()],
        extensions: Extensions::default(),
        rids: Vec::new(),
        ssrcs: vec![(7, 0)],
        encrypted: false,
    }
}

fn outgoing(id: u64) -> SendStream {
    SendStream {
        mid: "0".into(),
        video: true,
        codecs: vec![codec()],
        extensions: Extensions::default(),
        ssrc: id as u32,
        rtx_ssrc: 0,
        cname: "x".into(),
    }
}

fn allocations_of(profile: Profile) -> (u64, u64) {
    let (mut plane, mut out) = (Plane::new(1), Out::new());
    let mut publisher = connect(&mut plane, 1, profile, &mut out);
    plane
        .publish(PublicationId(1), TransportId(1), GroupId(1), incoming())
        .expect("valid");
    for id in 2..2 + SUBSCRIBERS {
        connect(&mut plane, id, profile, &mut out);
        plane
            .subscribe(SubscriptionId(id), TransportId(id), outgoing(id))
            .expect("valid");
        let source = Some(PublicationId(1));
        plane.set_source(SubscriptionId(id), source, START, &mut out);
    }
    let mut room = [0; 1_300];
    let mut before = (0, 0);
    for sequence in 1..=8_000 {
        if sequence == 4_000 {
            before = (ALLOCATIONS.get(), out.sent);
        }
        let len = packet(sequence, &mut publisher, &mut room);
        let now = START.plus_ms(u64::from(sequence));
        plane.receive(&path(1), &mut room[..len], now, &mut out);
    }
    (ALLOCATIONS.get() - before.0, out.sent - before.1)
}

#[test]
fn forwarding_allocates_nothing() {
    for profile in [
        Profile::Aes128Gcm,
        Profile::Aes256Gcm,
        Profile::Aes128CmSha1,
    ] {
        let (allocations, copies) = allocations_of(profile);
        assert_eq!(copies, 4_001 * SUBSCRIBERS);
        assert_eq!(allocations, 0, "in {copies} copies under {profile:?}");
    }
}

/// Two shards. The publisher is at home in the first, but its datagrams reach the second one's socket; subscribers
/// are at home in both.
struct Two {
    planes: [Plane; 2],
    outs: [Out; 2],
}

impl Two {
    fn new() -> Self {
        let mut planes = [Plane::new(1), Plane::new(2)];
        let half_open = Arc::default();
        for (own, plane) in (0..).zip(&mut planes) {
            plane.set_shard(Shard { own, count: 2 }, Arc::clone(&half_open));
        }
        Self {
            planes,
            outs: [Out::new(), Out::new()],
        }
    }

    fn connect(&mut self, number: u64, home: u8, profile: Profile) -> (u64, Session) {
        let id = handle(number, home);
        let mut tries = (0..).map(|at| format!("ufrag{number}x{at}"));
        let ufrag = tries
            .find(|ufrag| shard_of(ufrag.as_bytes(), 2) == home)
            .expect("every other one");
        let at = usize::from(home);
        let (plane, out) = (&mut self.planes[at], &mut self.outs[at]);
        let session = connect_as(plane, id, &ufrag, profile, out);
        self.deliver(START);
        (id, session)
    }

    fn deliver(&mut self, now: Micros) {
        while self.outs.iter().any(|out| {
            !(out.packets.is_empty() && out.datagrams.is_empty() && out.notices.is_empty())
        }) {
            for from in 0..2 {
                let [first, second] = &mut self.outs;
                let (out, mine) = if from == 0 {
                    (second, first)
                } else {
                    (first, second)
                };
                let plane = &mut self.planes[1 - from];
                for notice in mine.notices.drain(..) {
                    plane.noticed(from as u8, notice, now, out);
                }
                for (path, bytes, len) in &mut mine.datagrams {
                    plane.receive_passed_on(path, &mut bytes[..*len], now, out);
                }
                for (packet, bytes, len) in &mine.packets {
                    plane.relayed(packet, &bytes[..*len], now, out);
                }
                mine.datagrams.clear();
                mine.packets.clear();
                plane.end_batch(now, out);
            }
        }
    }
}

#[test]
fn forwarding_between_shards_allocates_nothing() {
    let mut two = Two::new();
    let profile = Profile::Aes128Gcm;
    let (publisher, mut client) = two.connect(1, 0, profile);
    let track = PublicationId(handle(2, 0));
    two.planes[0]
        .publish(track, TransportId(publisher), GroupId(1), incoming())
        .expect("valid");
    for number in 3..3 + SUBSCRIBERS {
        let home = (number % 2) as u8;
        let (id, _) = two.connect(number, home, profile);
        let at = usize::from(home);
        let (plane, out) = (&mut two.planes[at], &mut two.outs[at]);
        let sub = SubscriptionId(id);
        plane
            .subscribe(sub, TransportId(id), outgoing(number))
            .expect("valid");
        plane.set_source(sub, Some(track), START, out);
    }
    two.deliver(START);
    let mut room = [0; 1_300];
    let mut before = (0, 0);
    let sent = |two: &Two| two.outs[0].sent + two.outs[1].sent;
    for sequence in 1..=8_000 {
        if sequence == 4_000 {
            before = (ALLOCATIONS.get(), sent(&two));
        }
        let len = packet(sequence, &mut client, &mut room);
        let now = START.plus_ms(u64::from(sequence));
        two.planes[1].receive(&path(publisher), &mut room[..len], now, &mut two.outs[1]);
        two.deliver(now);
    }
    let (allocations, copies) = (ALLOCATIONS.get() - before.0, sent(&two) - before.1);
    assert_eq!(copies, 4_001 * SUBSCRIBERS);
    assert_eq!(allocations, 0, "in {copies} copies");
}

/// A voice or (SILK without its flag) a pause, 20 ms of it.
fn sound(sequence: u16, speaks: bool, client: &mut Session, room: &mut [u8; 1_300]) -> usize {
    room[..4].copy_from_slice(&[0x80, 111, (sequence >> 8) as u8, sequence as u8]);
    room[4..8].copy_from_slice(&(u32::from(sequence) * 960).to_be_bytes());
    room[8..12].copy_from_slice(&7u32.to_be_bytes());
    room[12..16].copy_from_slice(&[0x78, if speaks { 0x80 } else { 0 }, 0, 0]);
    client.sender.rtp(room, 100).expect("room for the tag")
}

fn opus() -> Codec {
    Codec {
        payload_type: 111,
        name: "opus".into(),
        clock_rate: 48_000,
        channels: 2,
        ..codec()
    }
}

#[test]
fn two_voices_that_take_turns_on_one_place_allocate_nothing() {
    let (mut plane, mut out) = (Plane::new(1), Out::new());
    let mut publishers: Vec<Session> = (1..=2)
        .map(|id| connect(&mut plane, id, Profile::Aes128Gcm, &mut out))
        .collect();
    for id in 1..=2 {
        let stream = ReceiveStream {
            video: false,
            codecs: vec![opus()],
            ..incoming()
        };
        plane
            .publish(PublicationId(id), TransportId(id), GroupId(1), stream)
            .expect("valid");
    }
    for id in 3..3 + SUBSCRIBERS {
        connect(&mut plane, id, Profile::Aes128Gcm, &mut out);
        for source in 1..=2 {
            let subscription = SubscriptionId(source * 100 + id);
            let stream = SendStream {
                video: false,
                codecs: vec![opus()],
                ..outgoing(subscription.0)
            };
            plane
                .subscribe(subscription, TransportId(id), stream)
                .expect("valid");
            plane.set_source(subscription, Some(PublicationId(source)), START, &mut out);
        }
    }
    plane.set_loudest(GroupId(1), 1, None);
    let mut room = [0; 1_300];
    let mut before = (0, 0);
    for sequence in 1..=4_000u16 {
        if sequence == 2_000 {
            before = (ALLOCATIONS.get(), out.sent);
        }
        let now = START.plus_ms(u64::from(sequence) * 20);
        for (at, publisher) in publishers.iter_mut().enumerate() {
            let speaks = usize::from(sequence / 50 % 2) == at;
            let len = sound(sequence, speaks, publisher, &mut room);
            plane.receive(&path(at as u64 + 1), &mut room[..len], now, &mut out);
        }
    }
    let copies = out.sent - before.1;
    let one_voice = 2_001 * SUBSCRIBERS;
    assert!(
        copies >= one_voice && copies < one_voice * 21 / 20,
        "{copies}: one voice, and both in the moment of a change"
    );
    assert_eq!(ALLOCATIONS.get() - before.0, 0, "in {copies} copies");
}
