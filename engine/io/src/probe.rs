//! The ceiling probe: what this machine can do at best, measured in the same run as whatever is compared with it.
//!
//! One thread copies one packet for N destinations, rewrites sequence number and SSRC, seals it with AES-128-GCM
//! and sends batches of 64 with sendmmsg to sockets on loopback that nobody reads. No routing, no RTCP, no history.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM};

use crate::clock;
use crate::sys::{self, Name, Outgoing, Socket, BATCH};

/// The result.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// Packets sent.
    pub copies: u64,
    /// CPU seconds of the thread.
    pub cpu_s: f64,
}

struct Destination {
    key: LessSafeKey,
    salt: [u8; 12],
    name: Name,
    ssrc: u32,
    /// Bound so that the kernel walks the whole way to a socket.
    _socket: Socket,
}

/// Bytes before the payload: a fixed header and one extension block.
const HEADER_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Small, so that a full receiver drops in the cheapest way and every run is alike.
const RECEIVE_BUFFER_BYTES: i32 = 2_304;

/// Measure for about so many CPU seconds. `packet_bytes` is the size of an SRTP packet, tag included.
///
/// # Errors
/// When sockets cannot be had.
pub fn fanout_ceiling(
    destinations: usize,
    packet_bytes: usize,
    seconds: f64,
) -> io::Result<Ceiling> {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let sender = Socket::bind(loopback)?;
    sender.set_buffers(4 << 20)?;
    let mut all = Vec::with_capacity(destinations);
    for index in 0..destinations {
        let socket = Socket::bind(loopback)?;
        socket.set_buffers(RECEIVE_BUFFER_BYTES)?;
        let fill = index as u8;
        let key = UnboundKey::new(&AES_128_GCM, &[fill; 16]).expect("16 bytes");
        let name = Name::new(socket.bound);
        let key = LessSafeKey::new(key);
        all.push(Destination {
            key,
            salt: [fill; 12],
            name,
            ssrc: index as u32,
            _socket: socket,
        });
    }
    let plain: Vec<u8> = (0..packet_bytes - TAG_BYTES).map(|at| at as u8).collect();
    let mut slots = Box::new([[0u8; 1_536]; BATCH]);
    let mut names = [Name::empty(); BATCH];
    let (mut copies, mut count, mut sequence) = (0u64, 0, 0u64);
    let started = clock::thread_cpu_s();
    loop {
        for _ in 0..8 {
            sequence += 1;
            for destination in &all {
                seal(
                    destination,
                    &plain,
                    sequence,
                    &mut slots[count][..packet_bytes],
                );
                names[count] = destination.name;
                count += 1;
                if count == BATCH {
                    let parts: [Outgoing<'_>; BATCH] = std::array::from_fn(|at| Outgoing {
                        bytes: &slots[at][..packet_bytes],
                        name: &names[at],
                        control: &[],
                        follows: false,
                    });
                    copies += (BATCH - sys::send(&sender, &parts)) as u64;
                    count = 0;
                }
            }
        }
        let cpu_s = clock::thread_cpu_s() - started;
        if cpu_s >= seconds {
            return Ok(Ceiling { copies, cpu_s });
        }
    }
}

fn seal(to: &Destination, plain: &[u8], sequence: u64, slot: &mut [u8]) {
    slot[..plain.len()].copy_from_slice(plain);
    slot[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
    slot[8..12].copy_from_slice(&to.ssrc.to_be_bytes());
    let mut iv = to.salt;
    for (byte, mask) in iv[2..6].iter_mut().zip(to.ssrc.to_be_bytes()) {
        *byte ^= mask;
    }
    for (byte, mask) in iv[4..12].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= mask;
    }
    let (header, body) = slot.split_at_mut(HEADER_BYTES);
    let (payload, tag) = body.split_at_mut(plain.len() - HEADER_BYTES);
    let nonce = Nonce::assume_unique_for_key(iv);
    let made = to
        .key
        .seal_in_place_separate_tag(nonce, Aad::from(header), payload);
    tag.copy_from_slice(made.expect("short packets can be sealed").as_ref());
}
