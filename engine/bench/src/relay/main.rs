//! `parley-relay`: a server without a feature, for comparison. Every RTP packet that comes is copied to every receiver.
//!
//! `parley-relay <descriptor> <gso|plain> <port>...`: the socket is inherited and blocks, receivers are on loopback.
//! Standard input gives the exporter's bytes of AEAD_AES_128_GCM, alike for publisher and receivers: each packet is
//! opened once and sealed for each receiver, as SRTP demands of any server (RFC 7714), and no more. With `gso`, packets
//! that were read together are one message per receiver (UDP_SEGMENT) if padding makes them equally long.
//! Nothing is rewritten, counted, kept or answered. It runs until it is killed.
#![deny(unsafe_code)]

mod sys;

use std::io::{self, Read};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::thread;

use parley_core::id::Micros;
use parley_core::srtp::{Profile, Session};

use sys::{Batch, Copies};

const PROFILE: Profile = Profile::Aes128Gcm;
/// Longest padding, bytes, as the worker's: the parts of a picture differ by less.
const MAX_PADDING: usize = 15;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut material = vec![0; PROFILE.material_bytes()];
    let (Some((fd, joins, ports)), Ok(())) =
        (orders(&words), io::stdin().read_exact(&mut material))
    else {
        eprintln!("parley-relay <descriptor> <gso|plain> <port>...");
        return ExitCode::from(2);
    };
    // The name by which `bench.machine` knows a data-plane thread.
    let thread = thread::Builder::new().name("parley-engine".into());
    let running = thread.spawn(move || relay(fd, joins, &ports, &material));
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

fn relay(fd: RawFd, joins: bool, ports: &[u16], material: &[u8]) {
    let session = || Session::new(PROFILE, material, false).expect("as many bytes as it takes");
    let mut publisher = session();
    let mut batch = Batch::new();
    let mut copies = Copies::new(ports, session);
    loop {
        let count = batch.wait(fd);
        for (bytes, len) in batch.bytes.iter_mut().zip(&mut batch.lens[..count]) {
            let packet = &mut bytes[..*len];
            *len = match is_rtp(packet) {
                true => publisher.receiver.rtp(packet, Micros(0)).unwrap_or(0),
                false => 0,
            };
        }
        let mut from = 0;
        while from < count {
            let len = batch.lens[from];
            let alike = batch.lens[from..count]
                .iter()
                .take_while(|other| other.abs_diff(len) <= MAX_PADDING / 2);
            let until = from + if joins { alike.count() } else { 1 };
            if len > 0 {
                copies.send(fd, &batch, from..until);
            }
            from = until;
        }
    }
}

/// Neither STUN nor RTCP (RFC 7983, RFC 5761 section 4).
fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [first, second, ..] if first >> 6 == 2 && !(192..=223).contains(second))
}
