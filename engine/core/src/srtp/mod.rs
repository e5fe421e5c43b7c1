//! SRTP and SRTCP in place: keys of one DTLS association, one transport (RFC 3711, RFC 7714, RFC 5764).
//!
//! A packet is authenticated before any state changes; replay windows are 1,024 packets per SSRC, for RTP and for
//! RTCP. Nothing is allocated per packet: only the first packet of an SSRC adds an entry.
//! Not here: who may send which SSRC (`media`), DTLS itself (Python).

mod cipher;
mod derive;
mod repeats;
mod window;

#[cfg(test)]
pub(crate) mod tests;

use crate::hash::FastMap;
use crate::id::Micros;

use cipher::Cipher;
use repeats::Repeats;
use window::Window;

/// SSRCs kept per transport in each direction that a peer decides: a camera with three layers has six.
pub const MAX_SSRCS: usize = 128;
/// An entry unused for this long may be replaced when the table is full.
const IDLE_US: u64 = 60_000_000;
/// RFC 3711 section 9.2: no more packets than this under one key.
const MAX_RTP_INDEX: u64 = (1 << 48) - 1;
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;

/// Protection profiles by their DTLS-SRTP number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 1: SRTP_AES128_CM_HMAC_SHA1_80 (RFC 5764 section 4.1.2).
    Aes128CmSha1,
    /// 7: SRTP_AEAD_AES_128_GCM (RFC 7714 section 14.2).
    Aes128Gcm,
    /// 8: SRTP_AEAD_AES_256_GCM.
    Aes256Gcm,
}

impl Profile {
    /// From the number in the use_srtp extension.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Aes128CmSha1),
            7 => Some(Self::Aes128Gcm),
            8 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128CmSha1 | Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    const fn salt_bytes(self) -> usize {
        match self {
            Self::Aes128CmSha1 => 14,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
        }
    }

    /// Bytes that the DTLS exporter must give (RFC 5764 section 4.2).
    #[must_use]
    pub const fn material_bytes(self) -> usize {
        2 * (self.key_bytes() + self.salt_bytes())
    }
}

/// Why a packet was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No RTP or RTCP packet.
    Malformed,
    /// The tag is wrong.
    Forged,
    /// Seen before, or too old to tell.
    Replayed,
    /// More SSRCs than `MAX_SSRCS` at once.
    TooManySources,
    /// The key has protected all it may.
    Exhausted,
}

/// Where the payload of an RTP packet starts.
fn rtp_header_bytes(packet: &[u8]) -> Result<usize, Error> {
    if packet.len() < 12 || packet[0] >> 6 != 2 {
        return Err(Error::Malformed);
    }
    let mut end = 12 + 4 * usize::from(packet[0] & 0x0F);
    if packet[0] & 0x10 != 0 {
        let length = packet.get(end + 2..end + 4).ok_or(Error::Malformed)?;
        end += 4 + 4 * usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    if end > packet.len() {
        return Err(Error::Malformed);
    }
    Ok(end)
}

fn ssrc_at(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn rtp_sequence(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

#[derive(Debug)]
struct Source {
    rtp: Window,
    rtcp: Window,
    used: Micros,
}

/// What the peer sends.
#[derive(Debug)]
pub struct Receiver {
    cipher: Cipher,
    sources: FastMap<u32, Source>,
}

impl Receiver {
    fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            sources: FastMap::default(),
        }
    }

    /// Authenticate and decrypt; the plaintext is the first so many bytes.
    ///
    /// # Errors
    /// See `Error`; nothing has changed then, but the packet's bytes are spoilt.
    pub fn rtp(&mut self, packet: &mut [u8], now: Micros) -> Result<usize, Error> {
        let header = rtp_header_bytes(packet)?;
        let ssrc = ssrc_at(packet, 8);
        let sequence = rtp_sequence(packet);
        let index = match self.sources.get(&ssrc) {
            Some(source) => source.rtp.estimate(sequence).ok_or(Error::Replayed)?,
            None => u64::from(sequence),
        };
        if index > MAX_RTP_INDEX {
            return Err(Error::Exhausted);
        }
        if self
            .sources
            .get(&ssrc)
            .is_some_and(|source| source.rtp.has(index))
        {
            return Err(Error::Replayed);
        }
        let len = self.cipher.open_rtp(packet, header, ssrc, index)?;
        self.source(ssrc, now)?.rtp.mark(index);
        Ok(len)
    }

    /// Authenticate and decrypt a compound; the plaintext is the first so many bytes.
    ///
    /// # Errors
    /// See `Error`.
    pub fn rtcp(&mut self, packet: &mut [u8], now: Micros) -> Result<usize, Error> {
        if packet.len() < 8 || packet[0] >> 6 != 2 {
            return Err(Error::Malformed);
        }
        let ssrc = ssrc_at(packet, 4);
        let index = self.cipher.rtcp_index(packet).ok_or(Error::Malformed)?;
        let wide = u64::from(index);
        if self
            .sources
            .get(&ssrc)
            .is_some_and(|source| source.rtcp.has(wide))
        {
            return Err(Error::Replayed);
        }
        let len = self.cipher.open_rtcp(packet, ssrc, index)?;
        self.source(ssrc, now)?.rtcp.mark(wide);
        Ok(len)
    }

    /// The entry of an SSRC whose packet was authenticated.
    fn source(&mut self, ssrc: u32, now: Micros) -> Result<&mut Source, Error> {
        if !self.sources.contains_key(&ssrc) {
            if self.sources.len() >= MAX_SSRCS {
                let idlest = self.sources.iter().min_by_key(|(_, source)| source.used);
                let (&ssrc, source) = idlest.expect("a full table has entries");
                if now.since(source.used) < IDLE_US {
                    return Err(Error::TooManySources);
                }
                self.sources.remove(&ssrc);
            }
            let source = Source {
                rtp: Window::new(),
                rtcp: Window::new(),
                used: now,
            };
            self.sources.insert(ssrc, source);
        }
        let source = self
            .sources
            .get_mut(&ssrc)
            .expect("present or just inserted");
        source.used = now;
        Ok(source)
    }
}

/// One SSRC of ours.
#[derive(Debug)]
struct Sent {
    window: Window,
    /// From the first packet that may be repeated.
    repeats: Option<Repeats>,
}

/// What we send.
#[derive(Debug)]
pub struct Sender {
    cipher: Cipher,
    sources: FastMap<u32, Sent>,
    rtcp_index: u32,
}

impl Sender {
    fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            sources: FastMap::default(),
            rtcp_index: 0,
        }
    }

    /// Protect the first `len` bytes in place; returns the new length. The packet goes out only this once.
    ///
    /// # Errors
    /// `Malformed` (or no room for the tag), `Replayed` or `Exhausted`.
    pub fn rtp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, Error> {
        self.seal(packet, len, false)
    }

    /// The same for a packet that may have to go out again under its own number, or does so now: one of the
    /// last 512 of its SSRC, and the same to the last bit. Another packet under a used number is refused.
    ///
    /// # Errors
    /// `Malformed` (or no room for the tag), `Replayed` or `Exhausted`; when refused, nothing of the packet is left.
    pub fn rtp_repeatable(&mut self, packet: &mut [u8], len: usize) -> Result<usize, Error> {
        self.seal(packet, len, true)
    }

    fn seal(&mut self, packet: &mut [u8], len: usize, repeatable: bool) -> Result<usize, Error> {
        let header = rtp_header_bytes(packet.get(..len).ok_or(Error::Malformed)?)?;
        let ssrc = ssrc_at(packet, 8);
        let sent = self.sources.entry(ssrc).or_insert_with(|| Sent {
            window: Window::new(),
            repeats: None,
        });
        let index = sent
            .window
            .estimate(rtp_sequence(packet))
            .ok_or(Error::Replayed)?;
        if index > MAX_RTP_INDEX {
            return Err(Error::Exhausted);
        }
        if sent.window.has(index) {
            let Some(repeats) = sent.repeats.as_ref().filter(|known| known.knows(index)) else {
                return Err(Error::Replayed);
            };
            let sealed = self.cipher.seal_rtp(packet, header, len, ssrc, index)?;
            if !repeats.is_same(index, &packet[len..sealed]) {
                packet[..sealed].fill(0); // nobody may see this one
                return Err(Error::Replayed);
            }
            return Ok(sealed);
        }
        let sealed = self.cipher.seal_rtp(packet, header, len, ssrc, index)?;
        sent.window.mark(index);
        if repeatable {
            sent.repeats
                .get_or_insert_with(Repeats::new)
                .remember(index, &packet[len..sealed]);
        }
        Ok(sealed)
    }

    /// Protect a compound of `len` bytes in place; returns the new length.
    ///
    /// # Errors
    /// `Malformed` (or no room) or `Exhausted`.
    pub fn rtcp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, Error> {
        if len < 8 || len > packet.len() {
            return Err(Error::Malformed);
        }
        if self.rtcp_index >= MAX_RTCP_INDEX {
            return Err(Error::Exhausted);
        }
        // One counter for all our SSRCs: still unique per SSRC, and receivers accept gaps.
        self.rtcp_index += 1;
        let ssrc = ssrc_at(packet, 4);
        self.cipher.seal_rtcp(packet, len, ssrc, self.rtcp_index)
    }
}

/// Both directions of one DTLS association.
#[derive(Debug)]
pub struct Session {
    /// What the peer sends.
    pub receiver: Receiver,
    /// What we send.
    pub sender: Sender,
}

impl Session {
    /// From the exporter's bytes: client key, server key, client salt, server salt (RFC 5764 section 4.2).
    /// None if there are not `material_bytes` of them.
    #[must_use]
    pub fn new(profile: Profile, material: &[u8], is_client: bool) -> Option<Self> {
        if material.len() != profile.material_bytes() {
            return None;
        }
        let (keys, salts) = material.split_at(2 * profile.key_bytes());
        let (client_key, server_key) = keys.split_at(profile.key_bytes());
        let (client_salt, server_salt) = salts.split_at(profile.salt_bytes());
        let client = Cipher::derive(profile, client_key, client_salt);
        let server = Cipher::derive(profile, server_key, server_salt);
        let (ours, theirs) = if is_client {
            (client, server)
        } else {
            (server, client)
        };
        Some(Self {
            receiver: Receiver::new(theirs),
            sender: Sender::new(ours),
        })
    }
}
