//! What each fuzz target does with its bytes, and what must hold whatever they are (S6).
//!
//! `fuzz_targets/*.rs` feed these from libFuzzer; `core/tests/corpus.rs` includes this file and replays every
//! seed and every crash of the past in ordinary test runs. Panics (arithmetic overflow included) are findings.
//! Not here: where seeds come from (`seeds.py` writes them).

use std::hint::black_box;
use std::net::SocketAddr;

use parley_core::framing::{Frames, MAX_FRAME_BYTES};
use parley_core::id::{GroupId, Micros, PublicationId, SubscriptionId, TransportId};
use parley_core::media::dependency::{self, State};
use parley_core::media::keyframe::Kind;
use parley_core::media::redundancy::primary;
use parley_core::media::rtcp::{Compound, Packet};
use parley_core::media::rtp::{Header, Span, Values};
use parley_core::media::twcc::Feedback;
use parley_core::media::vp8::Descriptor;
use parley_core::media::{Codec, Extensions, ReceiveStream, SendStream};
use parley_core::plane::Plane;
use parley_core::srtp::{Profile, Session};
use parley_core::stun::{Class, Key, Message, Role, Writer};
use parley_core::wire::{Event, Output, Path, SLOT_BYTES};

/// A target: bytes in, panic or not.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary.
pub const ALL: [(&str, Target); 18] = [
    ("frames", frames),
    ("stun", stun),
    ("plane", plane),
    ("call", call),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("twcc", twcc),
    ("remb", remb),
    ("nack", nack),
    ("rtx", rtx),
    ("vp8", vp8),
    ("vp9", vp9),
    ("h264", h264),
    ("h265", h265),
    ("av1", av1),
    ("dependency", dependency),
    ("red", red),
    ("srtp", srtp),
];

const START: Micros = Micros(3_600_000_000);
const ALICE: TransportId = TransportId(1);
const BOB: TransportId = TransportId(2);
const PASSWORD: &[u8] = b"a password of 22 chars";
const MATERIAL: [u8; 56] = [7; 56];
const DATAGRAM_BYTES: usize = 1_500;

/// Ids that the harness negotiates, for seeds too.
pub const EXTENSIONS: Extensions = Extensions {
    mid: 1,
    rid: 2,
    repaired_rid: 3,
    audio_level: 4,
    transport_cc: 5,
    abs_send_time: 6,
    video_orientation: 7,
    abs_capture_time: 8,
    playout_delay: 9,
    dependency_descriptor: 10,
    frame_marking: 11,
};

/// What Alice publishes: (SSRC, RTX SSRC) of the video, then the audio's SSRC.
pub const VIDEO: (u32, u32) = (0x0a0a_0a01, 0x0a0a_0a02);
/// See `VIDEO`.
pub const AUDIO: u32 = 0x0a0a_0a03;
/// What Bob receives of the video: (SSRC, RTX SSRC).
pub const TO_BOB: (u32, u32) = (0x0b0b_0b01, 0x0b0b_0b02);
/// What Bob receives of the audio.
pub const AUDIO_TO_BOB: u32 = 0x0b0b_0b03;
/// Payload types of the video codecs; RTX is one more each.
pub const CODECS: [(&str, u8); 5] = [
    ("VP8", 96),
    ("VP9", 98),
    ("H264", 100),
    ("H265", 102),
    ("AV1", 104),
];

/// A byte stream in reads of any size, the first byte's: the same frames come out as of the whole, or it is too long.
pub fn frames(data: &[u8]) {
    let Some((step, mut stream)) = data.split_first() else {
        return;
    };
    let (step, mut rest) = (1 + 16 * usize::from(*step), stream);
    let mut frames = Frames::default();
    let mut frame = Box::new([0; MAX_FRAME_BYTES]);
    loop {
        let room = frames.room();
        let read = step.min(stream.len()).min(room.len());
        assert!(!room.is_empty(), "a connection would read nothing for ever");
        room[..read].copy_from_slice(&stream[..read]);
        stream = &stream[read..];
        frames.filled(read);
        loop {
            match frames.take(&mut frame) {
                Ok(Some(len)) => {
                    frames.put_back(len); // as for another shard
                    assert_eq!(frames.take(&mut frame), Ok(Some(len)));
                    let (header, body) = rest.split_at(2);
                    assert_eq!(usize::from(u16::from_be_bytes([header[0], header[1]])), len);
                    assert_eq!(body[..len], frame[..len]);
                    rest = &body[len..];
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(usize::from(u16::from_be_bytes([rest[0], rest[1]])) > MAX_FRAME_BYTES);
                    return;
                }
            }
        }
        if read == 0 {
            break;
        }
    }
    // What is left is less than a frame.
    assert!(rest.len() < 2 || rest.len() - 2 < usize::from(u16::from_be_bytes([rest[0], rest[1]])));
}

/// A STUN message, and its signature.
pub fn stun(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        assert!(data.len() >= 20);
        black_box(message.is_authentic(&Key::new(PASSWORD)));
        black_box(message.asked());
    }
}

/// RTP header, extensions of all forms, known values.
pub fn rtp(data: &[u8]) {
    let Ok(header) = Header::parse(data) else {
        return;
    };
    assert!(header.payload.of(data).len() <= data.len());
    let mut elements = 0;
    for element in header.elements(data) {
        let Ok((_, place)) = element else { break };
        assert!(place.of(data).len() == usize::from(place.len));
        elements += 1;
    }
    assert!(elements <= data.len());
    black_box(Values::read(&header, data, &EXTENSIONS).is_ok());
}

/// An RTCP compound, down to every list in it.
pub fn rtcp(data: &[u8]) {
    // An iterator may give more items than bytes (a NACK entry is 17 numbers), never unboundedly more.
    let most = 17 * data.len() + 17;
    for packet in Compound::new(data) {
        let Ok(packet) = packet else { break };
        let items = match packet {
            Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                reports.count()
            }
            Packet::Goodbye { sources } => sources.count(),
            Packet::Nack { lost, .. } => lost.count(),
            Packet::Fir { media } => media.count(),
            Packet::Remb {
                sources,
                bits_per_s,
            } => {
                black_box(bits_per_s);
                sources.count()
            }
            Packet::TransportCc(feedback) => arrivals(&feedback),
            Packet::Pli { .. } | Packet::SourceDescription | Packet::Other(_) => 0,
        };
        assert!(items <= most.max(1 << 16));
    }
}

fn arrivals(feedback: &Feedback<'_>) -> usize {
    let count = feedback.arrivals().count();
    assert!(count <= usize::from(feedback.count));
    count
}

/// A stream of dependency descriptors, each behind its length.
pub fn dependency(data: &[u8]) {
    let mut state = State::default();
    let mut rest = data;
    while let Some((len, more)) = rest.split_first() {
        let len = usize::from(*len).min(more.len());
        let (descriptor, more) = more.split_at(len);
        rest = more;
        let Some(shape) = state.read(descriptor) else {
            continue;
        };
        let mut room = [0; dependency::MAX_BYTES];
        let written =
            dependency::write_active(descriptor, shape.mask_at, shape.targets, 1, &mut room);
        if let Some(written) = written {
            let mut fresh = None;
            let again = dependency::parse(&room[..written], state.structure(), &mut fresh);
            assert!(again.is_ok_and(|again| again.active == Some(1)) || !shape.structured);
        }
    }
}

/// A RED packet.
pub fn red(data: &[u8]) {
    let all = Span {
        at: 0,
        len: data.len().min(1_500) as u16,
    };
    if let Some((_, place)) = primary(all, data) {
        assert!(!place.of(data).is_empty());
    }
}

/// The body of transport-cc feedback.
pub fn twcc(data: &[u8]) {
    if let Ok(feedback) = Feedback::parse(1, data) {
        assert!(feedback.received <= feedback.count);
        assert_eq!(arrivals(&feedback), usize::from(feedback.received));
    }
}

/// The body of a REMB.
pub fn remb(data: &[u8]) {
    rtcp(&feedback(206, 15, b"\0\0\0\x01\0\0\0\0REMB", data));
}

/// The entries of a NACK.
pub fn nack(data: &[u8]) {
    let mut entries = VIDEO.0.to_be_bytes().to_vec();
    entries.splice(0..0, [0, 0, 0, 1]);
    rtcp(&feedback(205, 1, &entries, data));
}

fn feedback(kind: u8, format: u8, head: &[u8], data: &[u8]) -> Vec<u8> {
    let body = &data[..data.len().min(1_400) / 4 * 4];
    let words = ((head.len() + body.len()) / 4) as u16;
    let [high, low] = words.to_be_bytes();
    [&[0x80 | format, kind, high, low], head, body].concat()
}

/// SRTP and SRTCP as a stranger with a forged source sends them, with all ciphers.
pub fn srtp(data: &[u8]) {
    for profile in [
        Profile::Aes128Gcm,
        Profile::Aes256Gcm,
        Profile::Aes128CmSha1,
    ] {
        let material = vec![7; profile.material_bytes()];
        let mut session = Session::new(profile, &material, false).expect("length");
        for is_rtcp in [false, true] {
            let mut packet = data.to_vec();
            let opened = if is_rtcp {
                session.receiver.rtcp(&mut packet, START)
            } else {
                session.receiver.rtp(&mut packet, START)
            };
            if let Ok(len) = opened {
                assert!(len <= data.len());
            }
        }
    }
}

/// VP8 descriptor, alone and through a call.
pub fn vp8(data: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(data) {
        let mut copy = data.to_vec();
        descriptor.rewrite(&mut copy, 0x1234, 0x56);
        let again = Descriptor::parse(&copy).expect("rewriting keeps the form");
        assert_eq!(copy.len(), data.len());
        black_box(again);
    }
    video(0, data);
}

/// VP9 descriptor.
pub fn vp9(data: &[u8]) {
    video(1, data);
}

/// H.264 aggregates and fragments.
pub fn h264(data: &[u8]) {
    video(2, data);
}

/// H.265 aggregates and fragments.
pub fn h265(data: &[u8]) {
    video(3, data);
}

/// AV1 aggregation header; the first byte says how much of the rest is a dependency descriptor.
pub fn av1(data: &[u8]) {
    video(4, data);
}

/// RTX: what the repeated packet may be.
pub fn rtx(data: &[u8]) {
    let mut call = Call::new();
    call.alice_says(&[0x80, 96, 0, 9, 0, 0, 0, 9], VIDEO.0, &[0x10, 0, 0, 0x9d]);
    for payload_type in [97, 101] {
        call.alice_says(
            &[0x80, payload_type, 0, 1, 0, 0, 0, 9],
            VIDEO.1,
            &data[..data.len().min(1_200)],
        );
    }
    call.pass(200);
}

/// One codec's payload through a subscriber whose ids and numbers differ, then asked for again.
fn video(codec: usize, data: &[u8]) {
    let (split, data) = data.split_first().unwrap_or((&0, &[]));
    let (dependency, payload) = data.split_at(usize::from(*split).min(data.len()).min(250));
    let (name, payload_type) = CODECS[codec];
    black_box(Kind::named(name, true).starts_key_frame(payload, dependency));
    let mut call = Call::new();
    let payload = &payload[..payload.len().min(1_000)];
    for sequence in 1..4u8 {
        let mut head = vec![0x80, payload_type | 0x80, 0, sequence, 0, 0, 0, sequence];
        let mut block = Vec::new();
        if !dependency.is_empty() {
            head[0] |= 0x10;
            block.extend([EXTENSIONS.dependency_descriptor, dependency.len() as u8]);
            block.extend(dependency);
            block.resize(block.len().next_multiple_of(4), 0);
            let words = (block.len() / 4) as u16;
            block.splice(0..0, [0x10, 0, (words >> 8) as u8, words as u8]);
        }
        block.extend(payload);
        call.alice_says(&head, VIDEO.0, &block);
    }
    call.pass(100);
    call.ask_again();
}

/// A call of two in which every datagram is the fuzzer's: authenticated, so everything behind SRTP is reached.
///
/// Records: one byte of what it is, one of length (times 4), one of time, then the bytes.
pub fn call(data: &[u8]) {
    let mut call = Call::new();
    for (kind, wait_ms, bytes) in records(data) {
        let from = if kind & 1 == 0 { ALICE } else { BOB };
        let mut packet = bytes.to_vec();
        if kind & 2 == 0 {
            let sources = [VIDEO.0, VIDEO.1, AUDIO, TO_BOB.0];
            if let Some(place) = packet.get_mut(8..12).filter(|_| kind & 4 == 0) {
                place.copy_from_slice(&sources[usize::from(kind >> 4 & 3)].to_be_bytes());
            }
            call.send_rtp(from, &packet);
        } else {
            call.send_rtcp(from, &packet);
        }
        call.pass(u64::from(wait_ms));
        match kind >> 6 {
            1 => call.switch(kind & 8 != 0),
            2 => call.ask_again(),
            _ => {}
        }
    }
    call.pass(2_000);
}

/// Strangers' datagrams, and signed checks with attributes of the fuzzer's: no stranger gets a byte (S4).
pub fn plane(data: &[u8]) {
    let (mut plane, mut out) = (Plane::new(1), Out::default());
    plane
        .open_transport(ALICE, b"ufrag", PASSWORD, false, START)
        .expect("the only one");
    let mut now = START;
    for (kind, wait_ms, bytes) in records(data) {
        let from = path(u16::from(kind >> 4));
        if kind & 1 == 0 {
            plane.receive(&from, &mut bytes.to_vec(), now, &mut out);
            // Only a signed request is worth an answer, and the signature cannot be guessed.
            assert_eq!((out.sent, out.validated), (0, 0));
        } else {
            let mut check = signed(bytes);
            plane.receive(&from, &mut check, now, &mut out);
            assert!(out.bytes <= 2 * check.len(), "an answer, and one check");
            (out.sent, out.bytes, out.validated) = (0, 0, 0);
        }
        now = now.plus_ms(u64::from(wait_ms));
        plane.tick(now, &mut out);
        (out.sent, out.bytes, out.validated) = (0, 0, 0);
    }
    black_box(plane.statistics());
}

/// A Binding request of any attributes, for the right user, with a right MESSAGE-INTEGRITY.
fn signed(attributes: &[u8]) -> Vec<u8> {
    let body = &attributes[..attributes.len() / 4 * 4];
    let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend([5; 12]);
    message.extend([0, 6, 0, 10]);
    message.extend(b"ufrag:peer\0\0");
    message.extend(body);
    let length = (message.len() - 20 + 24) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, PASSWORD);
    let tag = ring::hmac::sign(&key, &message);
    message.extend([0, 8, 0, 20]);
    message.extend(tag.as_ref());
    message
}

/// (what, milliseconds until the next, bytes), at most 64 of them.
fn records(mut data: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    let next = move || {
        let [kind, words, wait_ms, rest @ ..] = data else {
            return None;
        };
        let (bytes, rest) = rest.split_at(rest.len().min(4 * usize::from(*words)));
        data = rest;
        Some((*kind, *wait_ms, bytes))
    };
    std::iter::from_fn(next).take(64)
}

fn path(port: u16) -> Path {
    let remote: SocketAddr = ([192, 0, 2, 1], port).into();
    Path {
        socket: 0,
        local: [198, 51, 100, 1].into(),
        remote,
    }
}

/// Counts what leaves.
struct Out {
    slot: Box<[u8; SLOT_BYTES]>,
    sent: usize,
    bytes: usize,
    validated: usize,
}

impl Default for Out {
    fn default() -> Self {
        Self {
            slot: Box::new([0; SLOT_BYTES]),
            sent: 0,
            bytes: 0,
            validated: 0,
        }
    }
}

impl Output for Out {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot[..]
    }

    fn commit(&mut self, _: &Path, len: usize) {
        assert!(0 < len && len <= SLOT_BYTES);
        self.sent += 1;
        self.bytes += len;
    }

    fn event(&mut self, event: Event) {
        self.validated += usize::from(matches!(event, Event::Validated(_)));
    }
}

/// Alice publishes video of every codec and audio; Bob, with other numbers, receives both.
struct Call {
    plane: Plane,
    out: Out,
    now: Micros,
    peers: [Session; 2],
}

impl Call {
    fn new() -> Self {
        let (mut plane, mut out) = (Plane::new(1), Out::default());
        let now = START;
        for (id, name) in [(ALICE, "alice"), (BOB, "bobby")] {
            plane
                .open_transport(id, name.as_bytes(), PASSWORD, false, now)
                .expect("distinct");
            let mut room = [0; 512];
            let len = Writer::new(&mut room, Class::Request, &[3; 12])
                .username(name.as_bytes(), b"peer")
                .priority(1)
                .role(Role::Controlling, 5)
                .use_candidate()
                .finish(&Key::new(PASSWORD));
            plane.receive(&path(id.0 as u16), &mut room[..len], now, &mut out);
            plane.set_keys(id, Profile::Aes128Gcm, &MATERIAL, false);
        }
        assert_eq!(out.validated, 2);
        let session = || Session::new(Profile::Aes128Gcm, &MATERIAL, true).expect("length");
        let (codecs, theirs) = (codecs(0), codecs(6));
        let opus = |payload_type| vec![codec("opus", payload_type, 48_000, None)];
        let receive = |mid: &str, video, codecs, ssrcs| ReceiveStream {
            mid: mid.into(),
            video,
            codecs,
            extensions: EXTENSIONS,
            rids: Vec::new(),
            ssrcs,
            encrypted: false,
        };
        let group = GroupId(1);
        let video = receive("0", true, codecs, vec![VIDEO]);
        let audio = receive("1", false, opus(111), vec![(AUDIO, 0)]);
        let send = |mid: &str, video, codecs, (ssrc, rtx_ssrc)| SendStream {
            mid: mid.into(),
            video,
            codecs,
            // Other numbers, one of which needs the two-byte form.
            extensions: Extensions {
                dependency_descriptor: 15,
                mid: 9,
                ..EXTENSIONS
            },
            ssrc,
            rtx_ssrc,
            cname: "parley".into(),
        };
        for (number, stream, copy) in [
            (11, video, send("0", true, theirs, TO_BOB)),
            (12, audio, send("1", false, opus(109), (AUDIO_TO_BOB, 0))),
        ] {
            let publication = PublicationId(number);
            let subscription = SubscriptionId(number + 10);
            plane
                .publish(publication, ALICE, group, stream)
                .expect("valid");
            plane.subscribe(subscription, BOB, copy).expect("valid");
            plane.set_source(subscription, Some(publication), now, &mut out);
        }
        Self {
            plane,
            out,
            now,
            peers: [session(), session()],
        }
    }

    fn alice_says(&mut self, head: &[u8], ssrc: u32, rest: &[u8]) {
        self.send_rtp(ALICE, &[head, &ssrc.to_be_bytes(), rest].concat());
    }

    fn send_rtp(&mut self, from: TransportId, packet: &[u8]) {
        self.send(from, packet, |peer, room, len| peer.sender.rtp(room, len));
    }

    fn send_rtcp(&mut self, from: TransportId, packet: &[u8]) {
        self.send(from, packet, |peer, room, len| peer.sender.rtcp(room, len));
    }

    fn send(
        &mut self,
        from: TransportId,
        packet: &[u8],
        seal: impl FnOnce(&mut Session, &mut [u8], usize) -> Result<usize, parley_core::srtp::Error>,
    ) {
        let mut room = [0; DATAGRAM_BYTES + 64];
        let len = packet.len().min(DATAGRAM_BYTES - 64);
        room[..len].copy_from_slice(&packet[..len]);
        let peer = &mut self.peers[from.0 as usize - 1];
        let sealed = seal(peer, &mut room, len).unwrap_or(len);
        let before = self.out.sent;
        let path = path(from.0 as u16);
        self.plane
            .receive(&path, &mut room[..sealed], self.now, &mut self.out);
        // One NACK packet may ask for a lot; nothing else makes many of one.
        assert!(self.out.sent - before <= 512, "amplification");
    }

    /// Bob misses what came last, and wants a key frame.
    fn ask_again(&mut self) {
        let ssrc = TO_BOB.0.to_be_bytes();
        let last = self
            .plane
            .statistics()
            .subscriptions
            .iter()
            .find(|(id, _)| *id == SubscriptionId(21))
            .map_or(0, |(_, own)| own.last_sequence as u16);
        let [high, low] = last.wrapping_sub(2).to_be_bytes();
        let nack = [&[0, 0, 0, 1], &ssrc[..], &[high, low, 0, 3]].concat();
        self.send_rtcp(BOB, &[&[0x81, 205, 0, 3], &nack[..]].concat());
        let pli = [&[0x81, 206, 0, 2, 0, 0, 0, 1], &ssrc[..]].concat();
        self.send_rtcp(BOB, &pli);
        self.pass(20);
    }

    fn switch(&mut self, paused: bool) {
        self.plane
            .set_layer(SubscriptionId(21), 0, paused, self.now, &mut self.out);
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.plane.tick(self.now, &mut self.out);
    }
}

fn codec(name: &str, payload_type: u8, clock_rate: u32, rtx: Option<u8>) -> Codec {
    Codec {
        payload_type,
        name: name.into(),
        clock_rate,
        channels: 1,
        rtx,
        nack: true,
        pli: true,
        fir: true,
        remb: true,
        transport_cc: true,
    }
}

fn codecs(shift: u8) -> Vec<Codec> {
    let make = |(name, payload_type): &(&str, u8)| {
        let payload_type = payload_type + shift;
        codec(name, payload_type, 90_000, Some(payload_type + 1))
    };
    CODECS.iter().map(make).collect()
}
