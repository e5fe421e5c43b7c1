//! P9, beyond plain forwarding (`no_allocation`): three sizes of a camera with temporal layers, redundant sound, repairs over
//! RTX in both directions, transport-wide feedback in both directions, a link with a budget, and wishes that change.
//!
//! What is counted is what the plane allocates in datagrams and timers. Not counted: wishes themselves (commands of the
//! control side), and the first seconds, in which sources, caches and histories get their memory.

mod counting;
#[allow(dead_code)] // ufrags that decide on a home
mod peers;

use counting::ALLOCATIONS;
use parley_core::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use parley_core::media::rtcp::Builder;
use parley_core::media::rtp::{element, Header, Writer};
use parley_core::media::twcc::Recorder;
use parley_core::media::{Codec, Extensions, ReceiveStream, SendStream};
use parley_core::plane::Plane;
use parley_core::srtp::{Profile, Session};
use parley_core::wire::{Event, Output, Path, Traffic, SLOT_BYTES};
use peers::{connect, path, START};

const PROFILE: Profile = Profile::Aes128Gcm;
const VIEWERS: u64 = 8;
const CAMERA: PublicationId = PublicationId(1);
const SOUND: PublicationId = PublicationId(2);
const PUBLISHER: TransportId = TransportId(1);
/// Signalled (SSRC, SSRC of its repairs), lowest size first.
const SSRCS: [(u32, u32); 3] = [(11, 21), (12, 22), (13, 23)];
const SIZES: [usize; 3] = [200, 500, 1_100];
const EXTENSIONS: Extensions = Extensions {
    mid: 1,
    rid: 0,
    repaired_rid: 0,
    audio_level: 0,
    transport_cc: 3,
    abs_send_time: 4,
    video_orientation: 0,
    abs_capture_time: 0,
    playout_delay: 6,
    dependency_descriptor: 0,
    frame_marking: 0,
};
/// A turn is five milliseconds: a packet of each size. Six are a picture.
const TURN_MS: u64 = 5;
const PICTURE: u32 = 6;
/// Pictures between key frames: two seconds.
const KEY: u32 = 67;
/// Consent is not renewed here; everything ends within its 30 s.
const TURNS: u32 = 5_000;
const WARM: u32 = 2_500;
/// Every so many packets is lost.
const LOST: u32 = 50;

/// What left for one viewer: (SSRC, number, transport-wide number).
#[derive(Default)]
struct Seen {
    packets: Vec<(u32, u16, u16)>,
    repairs: u64,
    media: u64,
}

struct Out {
    slot: [u8; SLOT_BYTES],
    viewers: Vec<Seen>,
    /// RTCP to the publisher.
    told: u64,
}

impl Output for Out {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: &Path, _len: usize) {
        self.told += u64::from(path.remote.port() == 1);
    }

    fn commit_as(&mut self, path: &Path, len: usize, traffic: Traffic) {
        let viewer = path.remote.port().checked_sub(2).map(usize::from);
        let seen = viewer.and_then(|at| self.viewers.get_mut(at));
        let (Some(seen), true) = (seen, traffic != Traffic::Control) else {
            self.commit(path, len);
            return;
        };
        let packet = &self.slot[..len];
        let header = Header::parse(packet).expect("ours");
        let number = element(&header, packet, EXTENSIONS.transport_cc);
        let number = number.map_or(0, |value| u16::from_be_bytes([value[0], value[1]]));
        seen.repairs += u64::from(header.payload_type == 97);
        seen.media += 1;
        if seen.packets.len() < seen.packets.capacity() {
            seen.packets.push((header.ssrc, header.sequence, number));
        }
    }

    fn event(&mut self, _event: Event) {}
}

fn codec(payload_type: u8, name: &str, rtx: Option<u8>) -> Codec {
    Codec {
        payload_type,
        name: name.into(),
        clock_rate: if rtx.is_some() { 90_000 } else { 48_000 },
        channels: if rtx.is_some() { 1 } else { 2 },
        rtx,
        nack: true,
        pli: rtx.is_some(),
        fir: false,
        remb: false,
        transport_cc: true,
    }
}

fn codecs(video: bool) -> Vec<Codec> {
    if video {
        vec![codec(96, "VP8", Some(97))]
    } else {
        vec![codec(63, "red", None), codec(111, "opus", None)]
    }
}

/// The plane, its output and the peers' ends.
struct Call {
    plane: Plane,
    out: Out,
    now: Micros,
    publisher: Session,
    viewers: Vec<(Session, Recorder)>,
    compound: Builder,
    counted: u64,
    /// Of the publisher: per size, and of the sound, the repairs, all.
    sequences: [u16; 3],
    repairs: [u16; 3],
    sounds: u16,
    stamp: u16,
}

impl Call {
    fn new() -> Self {
        let mut plane = Plane::new(1);
        let viewer = |_| Seen {
            packets: Vec::with_capacity(4_096),
            ..Seen::default()
        };
        let mut out = Out {
            slot: [0; SLOT_BYTES],
            viewers: (0..VIEWERS).map(viewer).collect(),
            told: 0,
        };
        let publisher = connect(&mut plane, 1, PROFILE, &mut out);
        for (id, video) in [(CAMERA, true), (SOUND, false)] {
            let stream = ReceiveStream {
                mid: if video { "0" } else { "1" }.into(),
                video,
                codecs: codecs(video),
                extensions: EXTENSIONS,
                rids: Vec::new(),
                ssrcs: if video { SSRCS.to_vec() } else { vec![(31, 0)] },
                encrypted: false,
            };
            plane
                .publish(id, PUBLISHER, GroupId(1), stream)
                .expect("valid");
        }
        let mut viewers = Vec::new();
        for id in 2..2 + VIEWERS {
            viewers.push((
                connect(&mut plane, id, PROFILE, &mut out),
                Recorder::default(),
            ));
            for (source, video) in [(CAMERA, true), (SOUND, false)] {
                let subscription = SubscriptionId(100 * source.0 + id);
                let stream = SendStream {
                    mid: source.0.to_string(),
                    video,
                    codecs: codecs(video),
                    extensions: EXTENSIONS,
                    ssrc: 1_000 * source.0 as u32 + id as u32,
                    rtx_ssrc: if video { 5_000 + id as u32 } else { 0 },
                    cname: "x".into(),
                };
                plane
                    .subscribe(subscription, TransportId(id), stream)
                    .expect("valid");
                plane.set_source(subscription, Some(source), START, &mut out);
            }
        }
        plane.set_budget(TransportId(2), 700_000);
        plane.set_frame_rate(SubscriptionId(103), 15, START, &mut out);
        Self {
            plane,
            out,
            now: START,
            publisher,
            viewers,
            compound: Builder::default(),
            counted: 0,
            sequences: [0; 3],
            repairs: [0; 3],
            sounds: 0,
            stamp: 0,
        }
    }

    /// A datagram that is counted.
    fn receive(&mut self, from: u64, datagram: &mut [u8]) {
        let before = ALLOCATIONS.get();
        self.plane
            .receive_in_batch(&path(from), datagram, self.now, &mut self.out);
        self.counted += ALLOCATIONS.get() - before;
    }

    /// The end of a batch, and timers.
    fn settle(&mut self) {
        let before = ALLOCATIONS.get();
        self.plane.end_batch(self.now, &mut self.out);
        self.plane.tick(self.now, &mut self.out);
        self.counted += ALLOCATIONS.get() - before;
    }

    /// A packet of the publisher with its extensions.
    fn send(&mut self, head: (bool, u8, u16, u32, u32), mid: &[u8], payload: &[u8]) {
        let mut room = [0; 1_400];
        let (marker, payload_type, sequence, timestamp, ssrc) = head;
        let mut writer = Writer::new(
            &mut room,
            marker,
            payload_type,
            sequence,
            timestamp,
            ssrc,
            false,
        );
        self.stamp = self.stamp.wrapping_add(1);
        writer.element(EXTENSIONS.mid, mid);
        writer.element(EXTENSIONS.transport_cc, &self.stamp.to_be_bytes());
        writer.element(EXTENSIONS.abs_send_time, &[1, 2, 3]);
        writer.payload(payload);
        let len = writer.finish().expect("it fits");
        let len = self.publisher.sender.rtp(&mut room, len).expect("room");
        self.receive(1, &mut room[..len]);
    }

    fn picture_packet(&mut self, layer: usize, turn: u32, is_repair: bool) {
        let (picture, part) = (turn / PICTURE, turn % PICTURE);
        let is_key = picture % KEY == 0;
        let temporal = if is_key { 0 } else { picture as u8 % 2 };
        let mut payload = [0u8; 1_100];
        let head = if is_repair { 2 } else { 0 };
        let number = self.sequences[layer];
        let begin: &mut [u8] = &mut payload[head..];
        begin[0] = 0x80 | u8::from(part == 0) << 4;
        begin[1] = 0xe0;
        begin[2] = picture as u8 & 0x7f;
        begin[3] = (picture / 2) as u8;
        begin[4] = temporal << 6 | 0x20;
        if part == 0 {
            let content = [0, 0, 0, 0x9d, 1, 0x2a, 64, 0, 48, 0];
            begin[5..15].copy_from_slice(&content);
            begin[5] = u8::from(!is_key);
        }
        let bytes = SIZES[layer] + head;
        let (ssrc, repairs) = SSRCS[layer];
        let timestamp = picture * 3_000;
        let is_last = part == PICTURE - 1;
        if is_repair {
            payload[..2].copy_from_slice(&number.to_be_bytes());
            self.repairs[layer] = self.repairs[layer].wrapping_add(1);
            let head = (is_last, 97, self.repairs[layer], timestamp, repairs);
            self.send(head, b"0", &payload[..bytes.min(1_100)]);
        } else {
            self.send(
                (is_last, 96, number, timestamp, ssrc),
                b"0",
                &payload[..bytes],
            );
        }
    }

    /// 20 ms of sound behind the 20 ms before it (RFC 2198).
    fn sound(&mut self) {
        self.sounds = self.sounds.wrapping_add(1);
        let mut payload = [0u8; 1 + 4 + 40 + 40];
        let earlier = 960u32 << 10 | 40;
        payload[0] = 0x80 | 111;
        payload[1..4].copy_from_slice(&earlier.to_be_bytes()[1..]);
        payload[4] = 111;
        (payload[5], payload[45]) = (0x78, 0x78);
        let timestamp = u32::from(self.sounds) * 960;
        self.send((false, 63, self.sounds, timestamp, 31), b"1", &payload);
    }

    /// What a viewer has to say of the last 50 ms.
    fn answer(&mut self, at: usize, wants_key: bool) {
        let id = 2 + at as u64;
        let camera = 1_000 + id as u32;
        self.compound.clear();
        self.compound.receiver_report(camera, &[]);
        let (session, recorder) = &mut self.viewers[at];
        let mut missing = [0; 64];
        let mut holes = 0;
        for (ssrc, sequence, number) in self.out.viewers[at].packets.drain(..) {
            let is_lost = u32::from(number) % LOST == 0;
            if !is_lost {
                recorder.record(number, ssrc, self.now);
            } else if ssrc == camera && holes < missing.len() {
                missing[holes] = sequence;
                holes += 1;
            }
        }
        while !recorder.is_empty() {
            recorder.write(camera, &mut self.compound);
        }
        if holes > 0 {
            self.compound.nack(camera, camera, &missing[..holes]);
        }
        if wants_key {
            self.compound.pli(camera, camera);
        }
        let mut room = [0; 1_400];
        let len = self.compound.bytes().len();
        room[..len].copy_from_slice(self.compound.bytes());
        let len = session.sender.rtcp(&mut room, len).expect("room");
        self.receive(id, &mut room[..len]);
    }

    fn turn(&mut self, turn: u32) {
        self.now = START.plus_ms(u64::from(turn) * TURN_MS);
        for layer in 0..3 {
            self.sequences[layer] = self.sequences[layer].wrapping_add(1);
            let is_lost = (turn + layer as u32) % LOST == 0;
            self.picture_packet(layer, turn, is_lost); // of what is lost only a repair comes
        }
        if turn % 4 == 0 {
            self.sound();
        }
        self.settle();
        if turn % 10 == 0 {
            for at in 0..VIEWERS as usize {
                self.answer(at, turn % 400 == 0 && at == 5);
            }
            self.settle();
        }
        if turn % 200 == 0 {
            let layer = (turn / 200 % 3) as u8;
            let (plane, out) = (&mut self.plane, &mut self.out);
            plane.set_layer(SubscriptionId(104), layer, false, self.now, out);
        }
    }
}

#[test]
fn repairs_feedback_and_changes_allocate_nothing() {
    let mut call = Call::new();
    let mut before = 0;
    for turn in 0..TURNS {
        if turn == WARM {
            before = call.counted;
        }
        call.turn(turn);
    }
    for (at, seen) in call.out.viewers.iter().enumerate() {
        assert!(seen.media > 3_000, "viewer {at} got {}", seen.media);
    }
    let repairs: Vec<_> = call.out.viewers.iter().map(|seen| seen.repairs).collect();
    assert!(repairs.iter().all(|count| *count > 20), "{repairs:?}");
    assert!(call.out.told > 300, "the publisher heard {}", call.out.told);
    assert_eq!(call.counted - before, 0, "allocations in {WARM} turns");
}
