//! Order, budgets, and who is rung for.

use std::time::Duration;

use parley_core::id::TransportId;

use super::*;
use crate::sys;

fn path(port: u16) -> Path {
    Path {
        socket: 0,
        local: [127, 0, 0, 1].into(),
        remote: ([127, 0, 0, 1], port).into(),
    }
}

fn pair() -> (Relays, Reader, Arc<Bell>) {
    let bells: Vec<_> = (0..2)
        .map(|_| Arc::new(Bell::new().expect("eventfd")))
        .collect();
    let mut ends = connect(&bells);
    let reader = ends[1].1.pop().expect("from the first").1;
    (ends.swap_remove(0).0, reader, Arc::clone(&bells[1]))
}

fn drain(reader: &mut Reader) -> Vec<(Option<u16>, usize)> {
    let mut got = Vec::new();
    reader.look();
    while let Some((message, bytes)) = reader.next() {
        let port = match message {
            Message::Datagram(path) => Some(path.remote.port()),
            _ => None,
        };
        got.push((port, bytes.len()));
    }
    reader.release();
    got
}

#[test]
fn strangers_have_a_sixteenth_and_notices_always_arrive_in_order() {
    let (mut relays, mut reader, _bell) = pair();
    for port in 0..2_000 {
        relays.datagram(1, &path(port), &[1; 100], true);
    }
    assert_eq!(relays.counters.passed_on, 64);
    assert_eq!(relays.counters.strangers, 2_000 - 64);
    for port in 0..2_000 {
        relays.datagram(1, &path(port), &[1; 200], false);
    }
    assert_eq!(relays.counters.passed_on, 1_024 - 32);
    for id in 0..100 {
        relays.message(1, Message::Notice(Notice::Failed(TransportId(id))));
    }
    assert!(relays.is_waiting() && !relays.is_behind());
    relays.datagram(1, &path(1), &[1; 100], false);
    let before = relays.counters;
    assert!(drain(&mut reader).is_empty(), "not published");
    relays.publish();
    let first = drain(&mut reader);
    assert_eq!(first.len(), 1_024);
    assert!(first[..992].iter().all(|(port, _)| port.is_some()));
    relays.datagram(1, &path(1), &[1; 100], false);
    assert_eq!(
        relays.counters.dropped,
        before.dropped + 1,
        "a notice waits before it"
    );
    relays.publish();
    assert_eq!(drain(&mut reader), vec![(None, 0); 68]);
    assert!(!relays.is_waiting());
}

#[test]
fn who_floods_has_half_and_leaves_the_rest_to_others() {
    let (mut relays, mut reader, _bell) = pair();
    let flood = |relays: &mut Relays, count| {
        let before = relays.counters.passed_on;
        for _ in 0..count {
            relays.datagram(1, &path(1), &[1; 100], false);
        }
        relays.counters.passed_on - before
    };
    assert_eq!(flood(&mut relays, 2_000), 512 + 32);
    for port in 2..22 {
        relays.datagram(1, &path(port), &[2; 100], false);
    }
    // One in 64 has its share in the flood's place, and nobody knows which.
    let others = relays.counters.passed_on - 512 - 32;
    assert!((12..=20).contains(&others), "{others} of 20");
    assert_eq!(flood(&mut relays, 100), 0);
    relays.publish();
    reader.look();
    for _ in 0..200 {
        assert!(reader.next().is_some());
    }
    reader.release();
    assert_eq!(flood(&mut relays, 2_000), 200 - others, "a new count");
    for port in 0..200 {
        relays.datagram(1, &path(port), &[1; 100], true);
    }
    assert_eq!(relays.counters.strangers, 200 - 64);
    relays.publish();
    assert_eq!(drain(&mut reader).len(), 512 + 32 + 64);
    for port in 0..200 {
        relays.datagram(1, &path(port), &[1; 100], true);
    }
    assert_eq!(relays.counters.strangers, 2 * (200 - 64));
}

#[test]
fn nobody_rings_for_who_is_awake() {
    let (mut relays, mut reader, bell) = pair();
    let rang = || sys::wait(&[bell.wake.raw()], Duration::ZERO) == 1;
    relays.datagram(1, &path(1), &[1], false);
    relays.publish();
    assert!(!rang());
    assert!(!reader.is_empty());
    drain(&mut reader);
    bell.fall_asleep();
    relays.publish();
    assert!(!rang(), "nothing new");
    relays.datagram(1, &path(1), &[1], false);
    relays.publish();
    assert!(rang());
    bell.wake.clear();
    relays.datagram(1, &path(1), &[1], false);
    relays.publish();
    assert!(!rang(), "once is enough");
}

/// Two threads at full speed, one of which sleeps whenever it can: everything written arrives once, whole and in
/// order, and nobody is left asleep.
#[test]
fn a_storm_arrives_whole_and_in_order() {
    const COUNT: u32 = 300_000;
    let (mut relays, mut reader, bell) = pair();
    let writer = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < COUNT {
            for _ in 0..1 + sent % 61 {
                let mut bytes = [0; 900];
                let len = 4 + (sent as usize * 7) % 896;
                bytes[..4].copy_from_slice(&sent.to_be_bytes());
                bytes[4..len].fill(sent as u8);
                let before = relays.counters.dropped;
                relays.datagram(1, &path(sent as u16), &bytes[..len], false);
                if relays.counters.dropped > before {
                    std::thread::yield_now();
                    break; // full: again
                }
                sent += 1;
                if sent == COUNT {
                    break;
                }
            }
            relays.publish();
        }
        relays.counters.passed_on
    });
    let mut next = 0u32;
    while next < COUNT {
        bell.fall_asleep();
        if reader.is_empty() {
            let ready = sys::wait(&[bell.wake.raw()], Duration::from_secs(5));
            assert!(ready == 1 || !reader.is_empty(), "left asleep at {next}");
        }
        bell.is_up();
        bell.wake.clear();
        reader.look();
        while let Some((message, bytes)) = reader.next() {
            assert!(matches!(message, Message::Datagram(own) if own.remote.port() == next as u16));
            assert_eq!(bytes.len(), 4 + (next as usize * 7) % 896);
            assert_eq!(bytes[..4], next.to_be_bytes());
            assert!(bytes[4..].iter().all(|byte| *byte == next as u8));
            next += 1;
            if next % 64 == 0 {
                reader.release();
            }
        }
        reader.release();
    }
    assert_eq!(writer.join().expect("whole"), u64::from(COUNT));
}
