//! A connected 5-tuple with its SRTP session: ICE and DTLS are over when a peer gets here.
//!
//! Both threads have one: RTP out and RTCP out never share a key, so each thread keeps its own session.

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
    /// `words`: id, descriptor, DTLS-SRTP profile number, exporter's bytes in hex, our ICE password, and whether
    /// we were the DTLS client (1 or 0).
    pub fn read(words: &[&str]) -> Option<Self> {
        let [id, fd, profile, material, password, client] = words else {
            return None;
        };
        let profile = Profile::from_number(profile.parse().ok()?)?;
        Some(Self {
            id: id.parse().ok()?,
            fd: fd.parse().ok().filter(|fd| sys::is_open(*fd))?,
            session: Session::new(profile, &bytes(material)?, *client == "1")?,
            password: Key::new(password.as_bytes()),
        })
    }

    /// The answer to a check, as consent demands (RFC 7675).
    pub fn answer(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let message = Message::parse(datagram).ok()?;
        if message.class != Class::Request || !message.is_authentic(&self.password) {
            return None;
        }
        let mut room = [0; 128];
        let len = Writer::new(&mut room, Class::Success, &message.transaction)
            .mapped(([127, 0, 0, 1], 1).into())
            .finish(&self.password);
        Some(room[..len].to_vec())
    }

    /// A compound, protected.
    pub fn seal_rtcp(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        let mut room = compound.to_vec();
        room.resize(compound.len() + 64, 0);
        let len = self.session.sender.rtcp(&mut room, compound.len()).ok()?;
        room.truncate(len);
        Some(room)
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
