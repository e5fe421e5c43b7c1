//! Several planes behind one port: whose datagram it is, who may take a 5-tuple, whose panic (S1, S2, S4, S15).

use std::net::SocketAddr;

use super::*;
use crate::id::{GroupId, PublicationId, SubscriptionId};
use crate::media::Codec;
use crate::media::{ReceiveStream, SendStream};
use crate::shard::{handle, shard_of, Notice};
use crate::srtp::Profile;
use crate::srtp::Session;
use crate::stun::{Key, Role, Writer};
use crate::wire::SLOT_BYTES;

const START: Micros = Micros(1_000_000_000);
const SHARDS: u8 = 3;

#[derive(Clone, Debug)]
enum Abroad {
    Datagram(Path, Vec<u8>, bool),
    Packet(Box<media::Relayed>, Vec<u8>),
    Notice(Notice),
}

struct Out {
    slot: [u8; SLOT_BYTES],
    sent: Vec<(Path, Vec<u8>)>,
    events: Vec<Event>,
    abroad: Vec<(u8, Abroad)>,
    is_behind: bool,
}

impl Output for Out {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: &Path, len: usize) {
        self.sent.push((*path, self.slot[..len].to_vec()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn pass(&mut self, to: u8, path: &Path, datagram: &[u8], is_stranger: bool) {
        let datagram = Abroad::Datagram(*path, datagram.to_vec(), is_stranger);
        self.abroad.push((to, datagram));
    }

    fn relay(&mut self, to: u8, packet: &media::Relayed, bytes: &[u8]) {
        let packet = Abroad::Packet(Box::new(*packet), bytes.to_vec());
        self.abroad.push((to, packet));
    }

    fn notify(&mut self, to: u8, notice: Notice) {
        self.abroad.push((to, Abroad::Notice(notice)));
    }

    fn is_behind(&self) -> bool {
        self.is_behind
    }
}

/// All planes of one port.
struct Port {
    shards: Vec<(Plane, Out)>,
    now: Micros,
}

/// A transport's ufrag, whose home is this shard.
fn ufrag(id: u64, home: u8) -> Vec<u8> {
    let tries = (0..).map(|at| format!("ufrag{id}x{at}").into_bytes());
    let mut fitting = tries.filter(|ufrag| shard_of(ufrag, SHARDS) == home);
    fitting.next().expect("one of three")
}

const PASSWORD: &[u8] = b"password of 22 charact";

fn check(ufrag: &[u8], password: &[u8]) -> Vec<u8> {
    let mut room = [0; 512];
    let len = Writer::new(&mut room, Class::Request, &[3; 12])
        .username(ufrag, b"peer")
        .role(Role::Controlling, 5)
        .use_candidate()
        .finish(&Key::new(password));
    room[..len].to_vec()
}

fn path(port: u16) -> Path {
    let remote: SocketAddr = ([192, 0, 2, 1], port).into();
    Path {
        socket: 0,
        local: [198, 51, 100, 1].into(),
        remote,
    }
}

impl Port {
    fn new() -> Self {
        let half_open = Arc::default();
        let shard = |own| {
            let mut plane = Plane::new(u64::from(own));
            plane.set_shard(Shard { own, count: SHARDS }, Arc::clone(&half_open));
            let out = Out {
                slot: [0; SLOT_BYTES],
                sent: Vec::new(),
                events: Vec::new(),
                abroad: Vec::new(),
                is_behind: false,
            };
            (plane, out)
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            now: START,
        }
    }

    fn open(&mut self, number: u64, home: u8) -> (TransportId, Vec<u8>) {
        let id = TransportId(handle(number, home));
        let ufrag = ufrag(number, home);
        let (plane, _) = &mut self.shards[usize::from(home)];
        plane
            .open_transport(id, &ufrag, PASSWORD, false, self.now)
            .expect("a new ufrag");
        (id, ufrag)
    }

    /// A datagram reaches the socket of a shard; nothing goes further yet.
    fn reach(&mut self, shard: u8, port: u16, datagram: &[u8]) {
        let (plane, out) = &mut self.shards[usize::from(shard)];
        plane.receive(&path(port), &mut datagram.to_vec(), self.now, out);
    }

    /// Everything between the shards arrives.
    fn deliver(&mut self) {
        for _ in 0..10 {
            for from in 0..SHARDS {
                for (to, message) in std::mem::take(&mut self.shards[usize::from(from)].1.abroad) {
                    let (plane, out) = &mut self.shards[usize::from(to)];
                    match message {
                        Abroad::Datagram(path, mut bytes, _) => {
                            plane.receive_passed_on(&path, &mut bytes, self.now, out);
                        }
                        Abroad::Packet(packet, bytes) => {
                            plane.relayed(&packet, &bytes, self.now, out);
                        }
                        Abroad::Notice(notice) => plane.noticed(from, notice, self.now, out),
                    }
                    plane.end_batch(self.now, out);
                }
            }
        }
        assert!(self.shards.iter().all(|(_, out)| out.abroad.is_empty()));
    }

    fn send(&mut self, shard: u8, port: u16, datagram: &[u8]) {
        self.reach(shard, port, datagram);
        self.deliver();
    }

    fn events(&mut self, shard: u8) -> Vec<Event> {
        std::mem::take(&mut self.shards[usize::from(shard)].1.events)
    }

    fn abroad(&self, shard: u8) -> &[(u8, Abroad)] {
        &self.shards[usize::from(shard)].1.abroad
    }

    fn drops(&self) -> Drops {
        let mut all = Drops::default();
        for (plane, _) in &self.shards {
            all.add(&plane.statistics().drops);
        }
        all
    }
}

#[test]
fn eight_ports_of_one_session_reach_their_home_through_any_socket() {
    let mut port = Port::new();
    let (id, ufrag) = port.open(1, 1);
    for source in 1..=8 {
        let at = (source % u16::from(SHARDS)) as u8;
        port.send(at, source, &check(&ufrag, PASSWORD));
        port.send(at, source, &[22, source as u8]);
    }
    let mut expected = vec![Event::Validated(id)];
    expected.extend((1..=8).map(|source| Event::Datagram(id, vec![22, source])));
    assert_eq!(port.events(1), expected);
    let (plane, out) = &port.shards[1];
    let to: Vec<_> = out
        .sent
        .iter()
        .map(|(path, _)| path.remote.port())
        .collect();
    assert_eq!(to, (1..=8).collect::<Vec<_>>(), "its own socket answers");
    assert_eq!(plane.statistics().transports[0].1.packets_in, 16);
    assert_eq!(port.drops(), Drops::default());
    assert!(port.shards[0].1.sent.is_empty() && port.shards[2].1.sent.is_empty());
}

#[test]
fn strangers_leave_nothing_behind() {
    let mut port = Port::new();
    let (_, ours) = port.open(1, 1);
    // A check for another shard travels, marked as a stranger's.
    port.reach(0, 5, &check(&ours, b"not the password at all"));
    assert!(matches!(
        port.abroad(0),
        [(1, Abroad::Datagram(_, _, true))]
    ));
    port.deliver();
    // Ufrags of nobody travel once at most.
    for number in 100..200 {
        port.send(2, 6, &check(&ufrag(number, (number % 3) as u8), PASSWORD));
    }
    // Neither does anything else from there count anywhere.
    for datagram in [&[22, 1][..], &[0x80, 96, 0, 1], &[1, 1, 0, 0]] {
        port.reach(0, 5, datagram);
        assert!(port.abroad(0).is_empty());
    }
    let drops = port.drops();
    assert_eq!((drops.bad_integrity, drops.unknown_ufrag), (1, 100));
    assert!((0..SHARDS).all(|shard| port.events(shard).is_empty()));
    assert!(port.shards.iter().all(|(_, out)| out.sent.is_empty()));
    // Once validated it is known everywhere.
    port.send(0, 5, &check(&ours, PASSWORD));
    port.reach(0, 5, &check(&ours, PASSWORD));
    port.reach(0, 5, &[22, 1]);
    assert!(matches!(
        port.abroad(0),
        [
            (1, Abroad::Datagram(_, _, false)),
            (1, Abroad::Datagram(_, _, false))
        ]
    ));
}

/// S14: wherever its sessions are at home, a source has 64 unfinished handshakes, and not one less.
#[test]
fn handshakes_of_a_source_are_counted_over_all_shards() {
    let homes: [fn(u64) -> u8; 2] = [|number| (number % u64::from(SHARDS)) as u8, |_| 1];
    for home in homes {
        let mut port = Port::new();
        let mut begun = 0;
        for number in 1..=u64::from(HALF_OPEN) + 9 {
            let (_, ufrag) = port.open(number, home(number));
            port.send(0, number as u16, &check(&ufrag, PASSWORD));
            port.send(2, number as u16, &[22, 1]);
            let told = port.events(home(number));
            begun += u8::from(matches!(told[..], [_, Event::Datagram(..)]));
        }
        assert_eq!((begun, port.drops().half_open), (HALF_OPEN, 9));
        let (plane, out) = &mut port.shards[1];
        plane.close_transport(TransportId(handle(1, home(1))), START, out);
        port.deliver();
        let late = u16::from(HALF_OPEN) + 1;
        port.send(0, late, &[22, 1]);
        let told = port.events(home(late.into()));
        assert!(
            matches!(told[..], [Event::Datagram(..)]),
            "there is room now"
        );
    }
}

#[test]
fn connections_travel_as_a_whole_never_their_frames() {
    let mut port = Port::new();
    let (_, ufrag) = port.open(1, 1);
    let mut frame = check(&ufrag, PASSWORD);
    let (plane, out) = &mut port.shards[0];
    assert_eq!(plane.home_of_check(&frame), Some(1));
    let over_tcp = Path {
        socket: 128,
        ..path(1)
    };
    plane.receive(&over_tcp, &mut frame, START, out);
    assert!(out.abroad.is_empty());
    assert_eq!(plane.statistics().drops.unknown_ufrag, 1);
    assert_eq!(plane.home_of_check(&[22; 40]), None);
    assert_eq!(port.shards[1].0.home_of_check(&frame), None);
}

/// Every new 5-tuple is told to all shards. A peer that checks from ever new ones cannot pile that up without end.
#[test]
fn new_5_tuples_wait_while_a_shard_is_behind() {
    let mut port = Port::new();
    let (id, ufrag) = port.open(1, 1);
    port.send(1, 5, &check(&ufrag, PASSWORD));
    port.shards[1].1.is_behind = true;
    for source in 6..106 {
        port.reach(1, source, &check(&ufrag, PASSWORD));
    }
    assert!(port.abroad(1).is_empty());
    assert_eq!(port.drops().over_limit, 100);
    port.send(1, 5, &check(&ufrag, PASSWORD));
    port.send(1, 5, &[22, 1]);
    let told = [Event::Validated(id), Event::Datagram(id, vec![22, 1])];
    assert_eq!(port.events(1), told, "who is known goes on");
    port.shards[1].1.is_behind = false;
    port.send(1, 6, &check(&ufrag, PASSWORD));
    port.reach(0, 6, &[22, 2]);
    assert_eq!(port.abroad(0).len(), 1);
}

#[test]
fn a_closed_transport_is_forgotten_everywhere() {
    let mut port = Port::new();
    let (id, ufrag) = port.open(1, 1);
    port.send(0, 5, &check(&ufrag, PASSWORD));
    let (plane, out) = &mut port.shards[1];
    plane.close_transport(id, START, out);
    port.deliver();
    port.reach(0, 5, &[22, 1]);
    assert!(port.abroad(0).is_empty());
    assert_eq!(port.drops().unvalidated, 1);
}

/// Who knows another transport's password and forges the source of this one cannot cut it off (S1), in another shard
/// as in its own; when it is gone, its 5-tuple may be somebody else's.
#[test]
fn a_5_tuple_changes_shards_only_after_silence() {
    let mut port = Port::new();
    let (_, first) = port.open(1, 0);
    let (second_id, second) = port.open(2, 1);
    port.send(2, 5, &check(&first, PASSWORD));
    port.events(0);
    port.now = START.plus_ms(4_000);
    port.send(2, 5, &check(&second, PASSWORD));
    assert_eq!(port.events(1), []);
    port.send(2, 5, &[22, 7]);
    assert_eq!(port.events(0).len(), 1, "still the first one's");
    assert_eq!(port.drops().unvalidated, 1);
    port.now = START.plus_ms(9_100);
    port.send(2, 5, &check(&second, b"not the password at all"));
    port.send(2, 5, &check(&second, PASSWORD)); // the owner lets go
    port.send(2, 5, &check(&second, PASSWORD));
    assert_eq!(port.events(1), [Event::Validated(second_id)]);
    port.send(2, 5, &[22, 8]);
    assert_eq!(
        port.events(1),
        [Event::Datagram(second_id, vec![22, 8])],
        "the second one's"
    );
    assert_eq!(port.events(0), []);
}

#[test]
fn who_validates_one_5_tuple_at_once_tries_again() {
    let mut port = Port::new();
    let (_, first) = port.open(1, 0);
    let (second_id, second) = port.open(2, 1);
    // Two checks from one source, on their way to two homes.
    port.reach(0, 5, &check(&first, PASSWORD));
    port.reach(1, 5, &check(&second, PASSWORD));
    port.deliver();
    port.now = START.plus_ms(6_000);
    for _ in 0..3 {
        port.now = port.now.plus_ms(50);
        port.send(2, 5, &check(&second, PASSWORD));
    }
    port.events(1);
    port.send(2, 5, &[22, 9]);
    assert_eq!(port.events(1), [Event::Datagram(second_id, vec![22, 9])]);
}

fn vp8() -> Codec {
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

/// S15: what panics over a packet of another shard's publisher costs that publisher, wherever it is at home.
#[test]
fn a_panic_over_a_mirrored_packet_is_the_publishers() {
    let mut port = Port::new();
    let (publisher, ufrag) = port.open(1, 0);
    let (subscriber, other) = port.open(2, 1);
    port.send(0, 5, &check(&ufrag, PASSWORD));
    port.send(0, 6, &check(&other, PASSWORD));
    let material = [7; 28 * 2];
    for (home, id) in [(0, publisher), (1, subscriber)] {
        let (plane, _) = &mut port.shards[home];
        plane.set_keys(id, Profile::Aes128Gcm, &material, false);
    }
    let track = PublicationId(handle(3, 0));
    let stream = ReceiveStream {
        mid: "0".into(),
        video: true,
        codecs: vec![vp8()],
        extensions: media::Extensions::default(),
        rids: Vec::new(),
        ssrcs: vec![(7, 0)],
        encrypted: false,
    };
    let (plane, _) = &mut port.shards[0];
    plane
        .publish(track, publisher, GroupId(1), stream)
        .expect("valid");
    let stream = SendStream {
        mid: "0".into(),
        video: true,
        codecs: vec![vp8()],
        extensions: media::Extensions::default(),
        ssrc: 9,
        rtx_ssrc: 0,
        cname: "x".into(),
    };
    let sub = SubscriptionId(handle(4, 1));
    let (plane, out) = &mut port.shards[1];
    plane.subscribe(sub, subscriber, stream).expect("valid");
    plane.set_source(sub, Some(track), START, out);
    port.deliver();
    port.events(0);
    port.events(1);
    let mut client = Session::new(Profile::Aes128Gcm, &material, true).expect("keys");
    let mut packet = vec![0x80, 0x80 | 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    packet.extend([0x10, 0, 0, 0, 0x9d, 1, 0x2a, 1, 0, 1, 0]);
    let len = packet.len();
    packet.resize(len + 32, 0);
    let len = client.sender.rtp(&mut packet, len).expect("room");
    port.reach(0, 5, &packet[..len]);
    let crossing = std::mem::take(&mut port.shards[0].1.abroad);
    let relayed = crossing.iter().find_map(|(_, one)| match one {
        Abroad::Packet(packet, bytes) => Some((packet.clone(), bytes.clone())),
        _ => None,
    });
    let (relayed, bytes) = relayed.expect("a subscriber abroad");
    let (plane, out) = &mut port.shards[1];
    plane.relayed(&relayed, &bytes, START, out);
    // As if that had panicked:
    let guilty = plane.quarantine(out).expect("somebody");
    assert_eq!(guilty, publisher);
    assert_eq!(plane.home_elsewhere(guilty), Some(0));
    out.notify(0, Notice::Failed(guilty));
    port.deliver();
    assert_eq!(port.events(0).last(), Some(&Event::Expired(publisher)));
    assert_eq!(port.events(1).len(), 0);
    assert_eq!(port.shards[1].0.statistics().transports.len(), 1);
    port.reach(0, 5, &packet[..len]);
    assert_eq!(port.drops().unvalidated, 1, "its path is gone");
}
