//! What sender and receivers share: one connected 5-tuple with its SRTP session, kept alive as a browser does.
//!
//! ICE and DTLS are over when a peer gets here; it answers consent checks (RFC 7675) and reads RTCP.

use std::os::fd::RawFd;

use parley_core::id::Micros;
use parley_core::srtp::{Profile, Session};
use parley_core::stun::{self, Class, Key, Message, Writer};

use crate::sys;

/// A peer whose handshake is done.
pub struct Peer {
    pub id: u32,
    pub fd: RawFd,
    pub session: Session,
    password: Key,
}

/// What a datagram is, by its first bytes (RFC 7983, RFC 5761).
pub enum Kind {
    Stun,
    Rtp,
    Rtcp,
    Other,
}

pub fn kind(datagram: &[u8]) -> Kind {
    match datagram {
        [first, ..] if stun::is_stun(*first) => Kind::Stun,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, ..] => Kind::Rtp,
        _ => Kind::Other,
    }
}

pub fn micros() -> Micros {
    Micros(sys::now_ns() / 1_000)
}

impl Peer {
    /// `words`: id, descriptor, DTLS-SRTP profile number, exporter's bytes in hex, our ICE password. The DTLS
    /// client is us.
    pub fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let id = words.next()?.parse().ok()?;
        let fd = words.next()?.parse().ok().filter(|fd| sys::is_open(*fd))?;
        let profile = Profile::from_number(words.next()?.parse().ok()?)?;
        let material = bytes(words.next()?)?;
        let password = Key::new(words.next()?.as_bytes());
        let session = Session::new(profile, &material, true)?;
        Some(Self {
            id,
            fd,
            session,
            password,
        })
    }

    /// Answer a check, as consent demands.
    pub fn answer(&self, datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else {
            return;
        };
        if message.class == Class::Request && message.is_authentic(&self.password) {
            let mut room = [0; 128];
            let len = Writer::new(&mut room, Class::Success, &message.transaction)
                .mapped(([127, 0, 0, 1], 1).into())
                .finish(&self.password);
            sys::send(self.fd, &room[..len]);
        }
    }

    /// Protect and send a compound.
    pub fn send_rtcp(&mut self, compound: &[u8]) {
        let mut room = [0; 512];
        room[..compound.len()].copy_from_slice(compound);
        if let Ok(len) = self.session.sender.rtcp(&mut room, compound.len()) {
            sys::send(self.fd, &room[..len]);
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
