//! Strangers, floods and thieves at the one port (S1, S2, S4, S6, S15).

use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};

use proptest::prelude::*;

use super::*;
use crate::id::{GroupId, PublicationId, SubscriptionId};
use crate::media::{ReceiveStream, SendStream};
use crate::srtp::Profile;
use crate::stun::{Key, Role, Writer};
use crate::wire::SLOT_BYTES;

const START: Micros = Micros(1_000_000_000);
const A: TransportId = TransportId(1);
const B: TransportId = TransportId(2);

struct Out {
    slot: [u8; SLOT_BYTES],
    sent: Vec<(Path, usize)>,
    events: Vec<Event>,
}

impl Out {
    fn new() -> Self {
        Self {
            slot: [0; SLOT_BYTES],
            sent: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Output for Out {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: &Path, len: usize) {
        self.sent.push((*path, len));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn path(port: u16) -> Path {
    let remote: SocketAddr = ([192, 0, 2, 1], port).into();
    Path {
        socket: 0,
        local: [198, 51, 100, 1].into(),
        remote,
    }
}

fn password(id: TransportId) -> Vec<u8> {
    format!("password of transport {}", id.0).into_bytes()
}

fn ufrag(id: TransportId) -> Vec<u8> {
    format!("ufrag{}", id.0).into_bytes()
}

fn two_transports() -> (Plane, Out) {
    let (mut plane, out) = (Plane::new(1), Out::new());
    for id in [A, B] {
        plane
            .open_transport(id, &ufrag(id), &password(id), false, START)
            .expect("distinct ufrags");
    }
    (plane, out)
}

fn check(id: TransportId, password: &[u8]) -> Vec<u8> {
    let mut room = [0; 512];
    let len = Writer::new(&mut room, Class::Request, &[3; 12])
        .username(&ufrag(id), b"peer")
        .priority(1)
        .role(Role::Controlling, 5)
        .use_candidate()
        .finish(&Key::new(password));
    room[..len].to_vec()
}

fn validate(plane: &mut Plane, id: TransportId, port: u16, now: Micros, out: &mut Out) {
    let mut datagram = check(id, &password(id));
    plane.receive(&path(port), &mut datagram, now, out);
}

#[test]
fn a_ufrag_answers_for_one_transport_only() {
    let (mut plane, _) = two_transports();
    let again = plane.open_transport(TransportId(3), &ufrag(A), &password(A), false, START);
    assert_eq!(again, Err(Error::UfragInUse));
    assert_eq!(
        plane.restart_ice(B, &ufrag(A), &password(A), START),
        Err(Error::UfragInUse)
    );
}

#[test]
fn datagrams_count_from_validated_paths_only() {
    let (mut plane, mut out) = two_transports();
    let mut hello = [22, 254, 253, 0];
    plane.receive(&path(1), &mut hello, START, &mut out);
    assert!(out.events.is_empty());
    validate(&mut plane, A, 1, START, &mut out);
    plane.receive(&path(1), &mut hello, START, &mut out);
    plane.receive(&path(2), &mut hello, START, &mut out);
    let datagram = Event::Datagram(A, hello.to_vec());
    assert_eq!(out.events, [Event::Validated(A), datagram]);
    assert_eq!(plane.statistics().drops.unvalidated, 2);
}

/// Somebody with credentials of his own forges the source address of another participant.
#[test]
fn a_path_in_use_cannot_be_taken_over() {
    let (mut plane, mut out) = two_transports();
    validate(&mut plane, A, 1, START, &mut out);
    out.sent.clear();
    validate(&mut plane, B, 1, START.plus_ms(4_900), &mut out);
    assert!(out.sent.is_empty());
    assert_eq!(plane.paths[&path(1)], A);
    // The port was given to somebody else, long after its owner fell silent.
    plane.tick(START.plus_ms(5_050), &mut out);
    assert!(out.events.contains(&Event::Silent(A)));
    validate(&mut plane, B, 1, START.plus_ms(5_100), &mut out);
    assert_eq!(plane.paths[&path(1)], B);
    assert_eq!(
        plane
            .table
            .get_mut(A)
            .expect("still open")
            .ice
            .paths()
            .count(),
        0
    );
    assert!(out.events.contains(&Event::Validated(B)));
    // Who lost it is not waited for any longer than anybody else without consent.
    plane.tick(START.plus_ms(5_200), &mut out);
    while let Some(due) = plane.timeout().filter(|due| *due <= START.plus_ms(31_000)) {
        plane.tick(due, &mut out);
    }
    assert!(out.events.contains(&Event::Expired(A)));
}

#[test]
fn closing_leaves_nothing_behind() {
    let (mut plane, mut out) = two_transports();
    for id in [A, B] {
        validate(&mut plane, id, id.0 as u16, START, &mut out);
        plane
            .restart_ice(
                id,
                &[b"new", ufrag(id).as_slice()].concat(),
                &password(id),
                START,
            )
            .expect("distinct");
        plane.close_transport(id, START, &mut out);
        plane.close_transport(id, START, &mut out);
    }
    assert!(plane.paths.is_empty());
    assert!(plane.ufrags.is_empty());
    assert_eq!(plane.table.iter().count(), 0);
}

/// S15: after a panic the transport whose datagram it was is gone, and nobody else.
#[test]
fn quarantine_takes_the_one_that_was_being_served() {
    let (mut plane, mut out) = two_transports();
    validate(&mut plane, A, 1, START, &mut out);
    validate(&mut plane, B, 2, START, &mut out);
    let mut sound = [0x80, 111, 0, 1];
    plane.receive_in_batch(&path(2), &mut sound, START, &mut out);
    assert_eq!(plane.quarantine(&mut out), Some(B));
    assert_eq!(plane.quarantine(&mut out), None);
    assert!(plane.paths.contains_key(&path(1)));
    assert!(!plane.paths.contains_key(&path(2)));
}

/// S15: a command that panics costs nobody who was served before it.
#[test]
fn nobody_is_being_served_behind_a_batch() {
    let (mut plane, mut out) = two_transports();
    validate(&mut plane, A, 1, START, &mut out);
    assert_eq!(plane.quarantine(&mut out), None);
    assert!(plane.paths.contains_key(&path(1)));
}

/// An output that fails when something goes to this port.
struct Broken {
    out: Out,
    port: u16,
}

impl Output for Broken {
    fn slot(&mut self) -> &mut [u8] {
        self.out.slot()
    }

    fn commit(&mut self, path: &Path, len: usize) {
        assert_ne!(path.remote.port(), self.port, "deliberate");
        self.out.commit(path, len);
    }

    fn event(&mut self, event: Event) {
        self.out.event(event);
    }
}

/// S15: a timer that panics stops nobody else's.
#[test]
fn the_timers_behind_one_that_panics_go_on() {
    let (mut plane, mut out) = two_transports();
    plane.set_remote(A, b"peer", &password(A), START, &mut out);
    validate(&mut plane, A, 1, START, &mut out);
    validate(&mut plane, B, 2, START, &mut out);
    let mut out = Broken { out, port: 1 };
    let mut panics = 0;
    while let Some(due) = plane.timeout().filter(|due| *due <= START.plus_ms(40_000)) {
        let ticked = catch_unwind(AssertUnwindSafe(|| plane.tick(due, &mut out)));
        if ticked.is_err() {
            panics += 1;
            assert_eq!(plane.quarantine(&mut out), Some(A));
        }
    }
    assert_eq!(panics, 1);
    for news in [Event::Silent(B), Event::Expired(B)] {
        assert!(out.out.events.contains(&news), "{news:?}");
    }
}

#[test]
fn forgeries_do_not_use_up_what_the_peer_may_send() {
    let (mut plane, mut out) = two_transports();
    validate(&mut plane, A, 1, START, &mut out);
    let material: Vec<u8> = (0..56).collect();
    plane.set_keys(A, Profile::Aes128Gcm, &material, false);
    let mut client = srtp::Session::new(Profile::Aes128Gcm, &material, true).expect("length");
    for _ in 0..10_000 {
        let mut forged = [0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7].to_vec();
        forged.resize(200, 9);
        plane.receive(&path(1), &mut forged, START, &mut out);
    }
    let mut good = [0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7].to_vec();
    good.resize(100, 0);
    let len = client.sender.rtp(&mut good, 80).expect("room");
    plane.receive(&path(1), &mut good[..len], START, &mut out);
    let statistics = plane.statistics();
    assert_eq!(statistics.transports[0].1.auth_failures, 10_000);
    assert_eq!(statistics.drops.over_limit, 0);
    assert_eq!(
        out.sent.len(),
        1,
        "the answer to the check, and nothing for any of this"
    );
}

/// Dino has no RTX: under AES-GCM too it gets a lost packet again, the same datagram to the last bit.
#[test]
fn a_repeat_without_rtx_is_the_same_datagram() {
    let (mut plane, mut out) = two_transports();
    let material = [7; 56];
    let mut clients = Vec::new();
    for (id, port) in [(A, 1), (B, 2)] {
        validate(&mut plane, id, port, START, &mut out);
        plane.set_keys(id, Profile::Aes128Gcm, &material, false);
        clients.push(srtp::Session::new(Profile::Aes128Gcm, &material, true).expect("length"));
    }
    let codec = media::Codec {
        payload_type: 96,
        name: "VP8".into(),
        clock_rate: 90_000,
        channels: 1,
        rtx: None,
        nack: true,
        pli: true,
        fir: false,
        remb: false,
        transport_cc: true,
    };
    let extensions = media::Extensions {
        transport_cc: 3,
        abs_send_time: 2,
        ..media::Extensions::default()
    };
    let published = ReceiveStream {
        mid: "0".into(),
        video: true,
        codecs: vec![codec.clone()],
        extensions,
        rids: vec![],
        ssrcs: vec![(7, 0)],
        encrypted: false,
    };
    let sent = SendStream {
        mid: "0".into(),
        video: true,
        codecs: vec![codec],
        extensions,
        ssrc: 900,
        rtx_ssrc: 0,
        cname: "c".into(),
    };
    let (publication, subscription) = (PublicationId(1), SubscriptionId(2));
    plane
        .publish(publication, A, GroupId(1), published)
        .expect("valid");
    plane.subscribe(subscription, B, sent).expect("valid");
    plane.set_source(subscription, Some(publication), START, &mut out);
    let mut sealed = Vec::new();
    for sequence in 1..=5u8 {
        let mut packet = [0x80, 96, 0, sequence, 0, 0, 0, 1, 0, 0, 0, 7].to_vec();
        packet.extend([0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // a VP8 key frame's first bytes
        let plain = packet.len();
        packet.resize(plain + 20, 0);
        let len = clients[0].sender.rtp(&mut packet, plain).expect("room");
        out.sent.clear();
        plane.receive(&path(1), &mut packet[..len], START.plus_ms(20), &mut out);
        let (to, len) = *out.sent.last().expect("forwarded");
        assert_eq!(to, path(2));
        sealed.push(out.slot[..len].to_vec());
    }
    let lost = u16::from_be_bytes([sealed[2][2], sealed[2][3]]);
    let mut nack = media::rtcp::Builder::default();
    nack.nack(1, 900, &[lost]);
    let mut compound = nack.bytes().to_vec();
    compound.resize(64, 0);
    let len = clients[1]
        .sender
        .rtcp(&mut compound, nack.bytes().len())
        .expect("room");
    out.sent.clear();
    plane.receive(&path(2), &mut compound[..len], START.plus_ms(60), &mut out);
    assert_eq!(out.sent.len(), 1, "the packet asked for");
    assert_eq!(out.slot[..out.sent[0].1], sealed[2]);
}

/// N11: what we send to a peer says nothing about whether it hears us; five seconds without a word are told.
#[test]
fn a_peer_whose_uplink_is_blocked_is_told_silent_in_five_seconds() {
    let (mut plane, mut out) = two_transports();
    validate(&mut plane, A, 1, START, &mut out);
    let mut told = None;
    for ms in (0..6_000).step_by(10) {
        let now = START.plus_ms(ms);
        plane.send_datagram(A, &[22, 254, 253, 0], &mut out); // down it flows
        plane.tick(now, &mut out);
        let is_told = out.events.contains(&Event::Silent(A));
        told = told.or(is_told.then_some(ms));
    }
    assert!(
        told.is_some_and(|ms| (4_900..=5_050).contains(&ms)),
        "{told:?}"
    );
    validate(&mut plane, A, 1, START.plus_ms(7_000), &mut out);
    assert_eq!(out.events.last(), Some(&Event::Heard(A)));
}

/// Bytes of a stranger: noise, damaged checks, DTLS, RTP, RTCP.
fn strange() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..1_500);
    let shaped =
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(first, rest)| {
            [vec![[0, 22, 128, 144, 64][usize::from(first) % 5]], rest].concat()
        });
    let forged = (1u64..4, prop::collection::vec(any::<u8>(), 22..40))
        .prop_map(|(id, password)| check(TransportId(id), &password));
    let damaged = (any::<prop::sample::Index>(), 1u8..=255).prop_map(|(at, flip)| {
        let mut bytes = check(A, &password(A));
        // Up to and with MESSAGE-INTEGRITY: the FINGERPRINT behind it may go missing.
        let end = bytes.len() - 8;
        bytes[at.index(end)] ^= flip;
        bytes
    });
    prop_oneof![noise, shaped, forged, damaged]
}

proptest! {
    /// S4: without the right MESSAGE-INTEGRITY not one byte goes out and no table grows, whatever comes.
    #[test]
    fn strangers_get_nothing(
        datagrams in prop::collection::vec((strange(), 1u16..5), 1..40),
    ) {
        let (mut plane, mut out) = two_transports();
        for (at, (bytes, port)) in datagrams.into_iter().enumerate() {
            let mut bytes = bytes;
            plane.receive(&path(port), &mut bytes, START.plus_ms(at as u64 * 100), &mut out);
        }
        plane.tick(START.plus_ms(60_000), &mut out);
        prop_assert!(out.sent.is_empty());
        prop_assert!(out.events.is_empty());
        prop_assert!(plane.paths.is_empty());
        prop_assert_eq!(plane.ufrags.len(), 2);
    }

    /// The same datagrams from a validated 5-tuple (whose source can be forged) still draw no answer.
    #[test]
    fn a_forged_source_gets_nothing_either(
        datagrams in prop::collection::vec(strange(), 1..40),
    ) {
        let (mut plane, mut out) = two_transports();
        validate(&mut plane, A, 1, START, &mut out);
        plane.set_keys(A, Profile::Aes128Gcm, &[7; 56], false);
        out.sent.clear();
        for mut bytes in datagrams {
            plane.receive(&path(1), &mut bytes, START.plus_ms(10), &mut out);
        }
        prop_assert!(out.sent.is_empty());
        prop_assert!(out.events.iter().all(|event| matches!(event, Event::Validated(_) | Event::Datagram(..))));
    }

    /// Whoever is authenticated gets no more than he sent, and only where he sent it from.
    #[test]
    fn an_answer_is_no_amplifier(port in any::<u16>()) {
        let (mut plane, mut out) = two_transports();
        let mut datagram = check(A, &password(A));
        let bytes = datagram.len();
        plane.receive(&path(port), &mut datagram, START, &mut out);
        prop_assert_eq!(out.sent.len(), 1);
        prop_assert_eq!(out.sent[0].0, path(port));
        prop_assert!(out.sent[0].1 <= bytes);
    }
}

/// S14: a source with 64 unfinished handshakes begins no more; others do, and finished ones make room.
#[test]
fn half_open_handshakes_of_one_source_are_bounded() {
    let (mut plane, mut out) = (Plane::new(1), Out::new());
    let hello = [22, 254, 253, 0];
    let say_hello = |plane: &mut Plane, number: u64, out: &mut Out| {
        let before = plane.statistics().drops.half_open;
        plane.receive(&path(number as u16), &mut hello.clone(), START, out);
        plane.statistics().drops.half_open == before
    };
    let all = u64::from(HALF_OPEN) + 2;
    for number in 1..=all {
        let id = TransportId(number);
        plane
            .open_transport(id, &ufrag(id), &password(id), false, START)
            .expect("distinct");
        validate(&mut plane, id, number as u16, START, &mut out);
    }
    for number in 1..=u64::from(HALF_OPEN) {
        assert!(say_hello(&mut plane, number, &mut out));
        assert!(say_hello(&mut plane, number, &mut out), "it is one of them");
    }
    assert!(!say_hello(&mut plane, all, &mut out));
    plane.set_keys(TransportId(1), Profile::Aes128Gcm, &[7; 56], false);
    assert!(say_hello(&mut plane, all, &mut out));
    assert!(!say_hello(&mut plane, all - 1, &mut out));
    plane.close_transport(TransportId(2), START, &mut out);
    assert!(say_hello(&mut plane, all - 1, &mut out));
    for number in 1..=all {
        plane.close_transport(TransportId(number), START, &mut out);
    }
    assert!(plane.half_open.is_empty());
}
