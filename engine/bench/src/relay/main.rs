//! `parley-relay`: a server without a feature, for comparison. Every RTP packet that comes is copied to every receiver.
//!
//! `parley-relay <descriptor> <gso|plain> <port>...`: the socket is inherited and blocks, receivers are on loopback.
//! With `gso`, packets that were read together and are equally long are one message per receiver (UDP_SEGMENT).
//! Nothing is decrypted, rewritten, counted or answered. It runs until it is killed.
#![deny(unsafe_code)]

mod sys;

use std::os::fd::RawFd;
use std::process::ExitCode;
use std::thread;

use sys::{Batch, Copies};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((fd, joins, ports)) = orders(&words) else {
        eprintln!("parley-relay <descriptor> <gso|plain> <port>...");
        return ExitCode::from(2);
    };
    // The name by which `bench.machine` knows a data-plane thread.
    let thread = thread::Builder::new().name("parley-engine".into());
    let running = thread.spawn(move || relay(fd, joins, &ports));
    running.expect("a thread").join().expect("no panic");
    ExitCode::SUCCESS
}

fn orders(words: &[String]) -> Option<(RawFd, bool, Vec<u16>)> {
    let [fd, mode, ports @ ..] = words else {
        return None;
    };
    let joins = match mode.as_str() {
        "gso" => true,
        "plain" => false,
        _ => return None,
    };
    let ports: Option<Vec<u16>> = ports.iter().map(|port| port.parse().ok()).collect();
    Some((fd.parse().ok()?, joins, ports?))
}

fn relay(fd: RawFd, joins: bool, ports: &[u16]) {
    let mut batch = Batch::new();
    let mut copies = Copies::new(ports);
    loop {
        let count = batch.wait(fd);
        let mut from = 0;
        while from < count {
            let len = batch.lens[from];
            let alike = batch.lens[from..count]
                .iter()
                .take_while(|&&other| other == len);
            let until = from + if joins { alike.count() } else { 1 };
            if is_rtp(&batch.bytes[from][..len]) {
                copies.send(fd, &mut batch, from..until);
            }
            from = until;
        }
    }
}

/// Neither STUN nor RTCP (RFC 7983, RFC 5761 section 4).
fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [first, second, ..] if first >> 6 == 2 && !(192..=223).contains(second))
}
