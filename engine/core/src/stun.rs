//! STUN messages as ICE uses them: bytes to value and back (RFC 8489 sections 5, 6, 14; RFC 8445 section 16.1).
//!
//! Parsing is total: a value or `Malformed`, no allocation, linear time. MESSAGE-INTEGRITY is HMAC-SHA1 with the
//! short-term password; FINGERPRINT is checked when present.
//! Not here: who is allowed to ask and what happens then (`ice`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Largest message read, bytes: what fits a datagram of ours.
pub const MAX_MESSAGE_BYTES: usize = 1_500;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 20;

const MAGIC: u32 = 0x2112_A442;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const BINDING: u16 = 0x001;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;

/// Comprehension-required attributes that we know well enough to pass over: MAPPED-ADDRESS, REALM, NONCE,
/// MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH.
const PASSED_OVER: [u16; 6] = [0x0001, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E];

/// Bytes that are no STUN message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Indication,
    /// Success response.
    Success,
    /// Error response.
    Error,
}

/// ICE role of whoever wrote the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nominates.
    Controlling,
    /// Follows.
    Controlled,
}

/// Twelve bytes that tie a response to its request.
pub type Transaction = [u8; 12];

/// A short-term password, ready to sign and verify.
#[derive(Clone)]
pub struct Key(Hmac<Sha1>);

impl Key {
    /// From an ICE password.
    #[must_use]
    pub fn new(password: &[u8]) -> Self {
        Self(Hmac::new_from_slice(password).expect("HMAC takes keys of every length"))
    }

    /// The HMAC of a message up to its MESSAGE-INTEGRITY, whose header shall claim to end with that attribute.
    fn mac(&self, before: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.0.clone();
        let length = u16::try_from(before.len() - HEADER_BYTES + 24).unwrap_or(u16::MAX);
        mac.update(&before[..2]);
        mac.update(&length.to_be_bytes());
        mac.update(&before[4..]);
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)") // a password never reaches a log (S42)
    }
}

/// A message that parsed. Nothing in it is to be trusted before `is_authentic`.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    integrity_at: Option<usize>,
    /// The class.
    pub class: Class,
    /// Ties a response to its request.
    pub transaction: Transaction,
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub role: Option<Role>,
    /// USE-CANDIDATE is present.
    pub use_candidate: bool,
    /// XOR-MAPPED-ADDRESS.
    pub mapped: Option<SocketAddr>,
    /// ERROR-CODE, 300..=699.
    pub error: Option<u16>,
    /// The first comprehension-required attribute that we do not know.
    pub unknown: Option<u16>,
}

impl<'a> Message<'a> {
    /// Read a Binding message.
    ///
    /// # Errors
    /// `Malformed` on anything else.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES || bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed);
        }
        let kind = read_u16(bytes, 0)?;
        let length = usize::from(read_u16(bytes, 2)?);
        if kind >> 14 != 0
            || length % 4 != 0
            || length != bytes.len() - HEADER_BYTES
            || read_u32(bytes, 4)? != MAGIC
        {
            return Err(Malformed);
        }
        let method = (kind & 0x000F) | ((kind >> 1) & 0x0070) | ((kind >> 2) & 0x0F80);
        if method != BINDING {
            return Err(Malformed);
        }
        let class = match (kind >> 8 & 1, kind >> 4 & 1) {
            (0, 0) => Class::Request,
            (0, _) => Class::Indication,
            (_, 0) => Class::Success,
            _ => Class::Error,
        };
        let mut message = Self {
            bytes,
            integrity_at: None,
            class,
            transaction: bytes[8..20].try_into().map_err(|_| Malformed)?,
            username: None,
            role: None,
            use_candidate: false,
            mapped: None,
            error: None,
            unknown: None,
        };
        message.read_attributes()?;
        Ok(message)
    }

    fn read_attributes(&mut self) -> Result<(), Malformed> {
        let mut at = HEADER_BYTES;
        while at < self.bytes.len() {
            let kind = read_u16(self.bytes, at)?;
            let length = usize::from(read_u16(self.bytes, at + 2)?);
            let value = self.bytes.get(at + 4..at + 4 + length).ok_or(Malformed)?;
            let next = at + 4 + length.next_multiple_of(4);
            if kind == FINGERPRINT {
                return self.check_fingerprint(at, value);
            }
            // RFC 8489 section 14.5: whatever follows MESSAGE-INTEGRITY is not covered by it, so not read.
            if self.integrity_at.is_none() {
                self.read_attribute(kind, value, at)?;
            }
            at = next;
        }
        Ok(())
    }

    fn check_fingerprint(&self, at: usize, value: &[u8]) -> Result<(), Malformed> {
        let is_last = at + 8 == self.bytes.len();
        if is_last
            && value.len() == 4
            && read_u32(value, 0)? == crc32(&self.bytes[..at]) ^ FINGERPRINT_XOR
        {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn read_attribute(&mut self, kind: u16, value: &'a [u8], at: usize) -> Result<(), Malformed> {
        match kind {
            USERNAME if value.len() > 513 => return Err(Malformed), // RFC 8489 section 14.3: 508 characters, 513 bytes before
            USERNAME => {
                self.username.get_or_insert(value);
            }
            MESSAGE_INTEGRITY if value.len() != 20 => return Err(Malformed),
            MESSAGE_INTEGRITY => self.integrity_at = Some(at),
            ERROR_CODE => {
                let (class, number) = (value.get(2), value.get(3));
                let (class, number) = class.zip(number).ok_or(Malformed)?;
                let code = u16::from(class & 7) * 100 + u16::from(*number);
                self.error.get_or_insert(code);
            }
            XOR_MAPPED_ADDRESS => {
                let address = self.read_mapped(value)?;
                self.mapped.get_or_insert(address);
            }
            USE_CANDIDATE => self.use_candidate = true,
            ICE_CONTROLLING | ICE_CONTROLLED if value.len() != 8 => return Err(Malformed),
            ICE_CONTROLLING => self.role = Some(Role::Controlling),
            ICE_CONTROLLED => self.role = Some(Role::Controlled),
            PRIORITY if value.len() != 4 => return Err(Malformed),
            PRIORITY | UNKNOWN_ATTRIBUTES | 0x8000.. => {}
            _ if PASSED_OVER.contains(&kind) => {}
            _ => {
                self.unknown.get_or_insert(kind);
            }
        }
        Ok(())
    }

    fn read_mapped(&self, value: &[u8]) -> Result<SocketAddr, Malformed> {
        let port = read_u16(value, 2)? ^ (MAGIC >> 16) as u16;
        let ip = match (value[1], value.len()) {
            (1, 8) => IpAddr::V4(Ipv4Addr::from(read_u32(value, 4)? ^ MAGIC)),
            (2, 20) => {
                let mut octets: [u8; 16] = value[4..20].try_into().map_err(|_| Malformed)?;
                for (octet, mask) in octets.iter_mut().zip(&self.bytes[4..20]) {
                    *octet ^= mask;
                }
                IpAddr::V6(Ipv6Addr::from(octets))
            }
            _ => return Err(Malformed),
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// Whether MESSAGE-INTEGRITY is there and made with this key (constant time).
    #[must_use]
    pub fn is_authentic(&self, key: &Key) -> bool {
        self.integrity_at.is_some_and(|at| {
            let tag = &self.bytes[at + 4..at + 24];
            key.mac(&self.bytes[..at]).verify_slice(tag).is_ok()
        })
    }

    /// The part of USERNAME before the first colon: whom the sender asks.
    #[must_use]
    pub fn asked(&self) -> Option<&'a [u8]> {
        self.username?.split(|byte| *byte == b':').next()
    }
}

/// Writes one message into a buffer. Too small a buffer is our bug and panics.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Start a Binding message.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], class: Class, transaction: &Transaction) -> Self {
        let kind = BINDING
            | match class {
                Class::Request => 0x000,
                Class::Indication => 0x010,
                Class::Success => 0x100,
                Class::Error => 0x110,
            };
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        bytes[2..4].copy_from_slice(&[0, 0]);
        bytes[4..8].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[8..20].copy_from_slice(transaction);
        Self {
            bytes,
            len: HEADER_BYTES,
        }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let at = self.len;
        let length = u16::try_from(value.len()).expect("attributes of ours are short");
        self.bytes[at..at + 2].copy_from_slice(&kind.to_be_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
        self.bytes[at + 4..at + 4 + value.len()].copy_from_slice(value);
        self.len = at + 4 + value.len().next_multiple_of(4);
        self.bytes[at + 4 + value.len()..self.len].fill(0);
        self.set_length(self.len);
        self
    }

    fn set_length(&mut self, end: usize) {
        let length = u16::try_from(end - HEADER_BYTES).expect("messages of ours are short");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }

    /// USERNAME: whom we ask, and who we are.
    #[must_use]
    pub fn username(self, theirs: &[u8], ours: &[u8]) -> Self {
        let mut value = [0; 513];
        let end = theirs.len() + 1 + ours.len();
        value[..theirs.len()].copy_from_slice(theirs);
        value[theirs.len()] = b':';
        value[theirs.len() + 1..end].copy_from_slice(ours);
        self.attribute(USERNAME, &value[..end])
    }

    /// PRIORITY.
    #[must_use]
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(PRIORITY, &priority.to_be_bytes())
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    #[must_use]
    pub fn role(self, role: Role, tie_breaker: u64) -> Self {
        let kind = match role {
            Role::Controlling => ICE_CONTROLLING,
            Role::Controlled => ICE_CONTROLLED,
        };
        self.attribute(kind, &tie_breaker.to_be_bytes())
    }

    /// USE-CANDIDATE.
    #[must_use]
    pub fn use_candidate(self) -> Self {
        self.attribute(USE_CANDIDATE, &[])
    }

    /// XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped(self, address: SocketAddr) -> Self {
        let mut value = [0; 20];
        let port = address.port() ^ (MAGIC >> 16) as u16;
        value[2..4].copy_from_slice(&port.to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&(u32::from(ip) ^ MAGIC).to_be_bytes());
                self.attribute(XOR_MAPPED_ADDRESS, &value[..8])
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                for (octet, mask) in value[4..20].iter_mut().zip(&self.bytes[4..20]) {
                    *octet ^= mask;
                }
                self.attribute(XOR_MAPPED_ADDRESS, &value)
            }
        }
    }

    /// ERROR-CODE without a reason phrase.
    #[must_use]
    pub fn error(self, code: u16) -> Self {
        let (class, number) = ((code / 100) as u8, (code % 100) as u8);
        self.attribute(ERROR_CODE, &[0, 0, class, number])
    }

    /// UNKNOWN-ATTRIBUTES with one name.
    #[must_use]
    pub fn unknown(self, kind: u16) -> Self {
        self.attribute(UNKNOWN_ATTRIBUTES, &kind.to_be_bytes())
    }

    /// Sign, add FINGERPRINT and return the length in bytes.
    #[must_use]
    pub fn finish(self, key: &Key) -> usize {
        let tag = key.mac(&self.bytes[..self.len]).finalize().into_bytes();
        let mut signed = self.attribute(MESSAGE_INTEGRITY, &tag);
        // The CRC covers a header whose length includes the FINGERPRINT itself (RFC 8489 section 14.7).
        signed.set_length(signed.len + 8);
        let sum = crc32(&signed.bytes[..signed.len]) ^ FINGERPRINT_XOR;
        signed.attribute(FINGERPRINT, &sum.to_be_bytes()).len
    }
}

/// Whether the first byte says STUN (RFC 7983 section 7).
#[must_use]
pub const fn is_stun(first: u8) -> bool {
    first < 4
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let two = bytes.get(at..at + 2).ok_or(Malformed)?;
    Ok(u16::from_be_bytes([two[0], two[1]]))
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let four = bytes.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xEDB8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        CRC_TABLE[((sum ^ u32::from(*byte)) & 0xFF) as usize] ^ (sum >> 8)
    })
}

#[cfg(test)]
mod tests;
