//! A loop without its thread: what wakes it, what it reads, what a panic costs.

use std::net::UdpSocket;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::relay::{Bell, Relays};
use crate::sys::Socket;

fn quiet(outbox: Outbox, pictures: Pictures) -> Loop {
    let shared = Arc::new(Shared::new().expect("descriptors"));
    let seat = Arc::new(Seat::new(Arc::new(Bell::new().expect("descriptors"))));
    let (_commands, queue) = sync_channel(1);
    Loop::new(
        Plane::new(1),
        outbox,
        pictures,
        queue,
        Vec::new(),
        shared,
        seat,
    )
}

const SOUND: [u8; 4] = [0x80, 111, 0, 1];
const PICTURE: [u8; 4] = [0x80, 96, 0, 1];

/// A loop with so many listen addresses, its descriptors, and a peer of each address.
fn with_pictures(addresses: usize) -> (Loop, Vec<RawFd>, Vec<UdpSocket>) {
    let bind = |_| Socket::bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let common: Vec<_> = (0..addresses).map(bind).collect();
    let peer = |to: &Socket| {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        peer.connect(to.bound).expect("loopback");
        peer
    };
    let peers = common.iter().map(peer).collect();
    let mut pictures = Pictures::beside(&common);
    pictures.sort(&common, 1 << 96);
    for socket in &pictures.sockets {
        socket.set_buffers(4 << 20).expect("an option");
    }
    let streams = Streams::new(Vec::new(), None).expect("descriptors");
    let outbox = Outbox::new(common, streams, Relays::default(), false);
    let mut own = quiet(outbox, pictures);
    own.report_due = Micros(u64::MAX);
    let sockets = own.outbox.sockets().iter().chain(&own.pictures.sockets);
    let fds = std::iter::once(own.seat.bell.wake.raw())
        .chain(sockets.map(Socket::raw))
        .collect();
    (own, fds, peers)
}

/// Pictures wait for their time, whatever else comes does not, and is not waited for.
#[test]
fn sound_is_heard_while_pictures_are_left_alone() {
    let (mut own, fds, peers) = with_pictures(1);
    let wait_us = 200_000;
    let began = own.now();
    own.pictures.were_read(1, wait_us, began);
    peers[0].send(&PICTURE).expect("loopback");
    peers[0].send(&SOUND).expect("loopback");
    assert_eq!(own.wait(&fds, false), 0b010, "sound, at once");
    assert!(own.now().since(began) < wait_us);
    assert!(!own.take_datagrams(0));
    assert_eq!(own.wait(&fds, false), 0b100, "the picture, later");
    assert!(own.now().since(began) >= wait_us);
    assert!(!own.take_datagrams(1));
    assert_eq!(own.pictures.waited, 1);
    assert_eq!(own.pictures.left_alone(), None, "it was only one");
}

/// More pictures than a turn takes: the rest is neither left alone nor waited for.
#[test]
fn pictures_that_fill_every_batch_are_read_on_at_once() {
    let (mut own, fds, peers) = with_pictures(1);
    for is_busy in [true, false] {
        let began = own.now();
        own.pictures.were_read(1, 1, began);
        let most = BATCH * BATCHES_PER_TURN;
        for _ in 0..most + 10 {
            peers[0].send(&PICTURE).expect("loopback");
        }
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(own.wait(&fds, false), 0b100);
        assert!(own.take_datagrams(1), "there is more");
        assert_eq!(own.wait(&fds, is_busy), 0b100);
        assert!(own.now().since(began) < 100_000, "at once");
        assert!(!own.take_datagrams(1));
        assert_eq!(
            own.plane.statistics().drops.unvalidated % most as u64,
            10 * if is_busy { 1 } else { 2 }
        );
    }
}

/// S15: one that panics costs neither the thread nor what comes after it.
#[test]
fn a_panic_is_counted_and_survived() {
    let streams = Streams::new(Vec::new(), None).expect("descriptors");
    let outbox = Outbox::new(Vec::new(), streams, Relays::default(), false);
    let mut own = quiet(outbox, Pictures::default());
    let mut done = 0;
    for round in 0..10 {
        own.guarded(|_| {
            assert!(round % 2 == 0, "deliberate");
            done += 1;
        });
    }
    own.guarded(Loop::publish_report);
    assert_eq!(done, 5);
    assert_eq!(own.seat.report.lock().expect("whole").panics, 5);
}
