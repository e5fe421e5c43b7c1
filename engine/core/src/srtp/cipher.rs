//! The transforms: AES-CM with HMAC-SHA1-80 (RFC 3711 section 4) and AES-GCM (RFC 7714), in place.

use aes::cipher::{InnerIvInit, StreamCipher, StreamCipherCoreWrapper};
use aes::Aes128Enc;
use ctr::flavors::Ctr128BE;
use ctr::CtrCore;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, AES_256_GCM};
use sha1::Sha1;

use super::derive::{derive, Label};
use super::{Error, Profile};

const GCM_TAG: usize = 16;
const CM_TAG: usize = 10;
/// E flag and SRTCP index.
const TRAILER: usize = 4;
const ENCRYPTED: u32 = 1 << 31;
/// RTCP header and SSRC stay in the clear.
const RTCP_HEADER: usize = 8;

/// Session keys of one direction.
pub enum Cipher {
    /// RFC 7714.
    Gcm(Box<Gcm>),
    /// RFC 3711.
    Cm(Box<Cm>),
}

pub struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: [u8; 12],
    rtcp: LessSafeKey,
    rtcp_salt: [u8; 12],
}

pub struct Cm {
    rtp: Aes128Enc,
    rtp_auth: Hmac<Sha1>,
    rtp_salt: [u8; 14],
    rtcp: Aes128Enc,
    rtcp_auth: Hmac<Sha1>,
    rtcp_salt: [u8; 14],
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gcm(_) => "Gcm(..)",
            Self::Cm(_) => "Cm(..)",
        })
    }
}

impl Cipher {
    /// Session keys from the master key and salt of one direction.
    pub fn derive(profile: Profile, key: &[u8], salt: &[u8]) -> Self {
        match profile {
            Profile::Aes128CmSha1 => Self::Cm(Box::new(Cm {
                rtp: Aes128Enc::new(&derive::<16>(key, salt, Label::RtpKey).into()),
                rtp_auth: authenticator(derive(key, salt, Label::RtpAuth)),
                rtp_salt: derive(key, salt, Label::RtpSalt),
                rtcp: Aes128Enc::new(&derive::<16>(key, salt, Label::RtcpKey).into()),
                rtcp_auth: authenticator(derive(key, salt, Label::RtcpAuth)),
                rtcp_salt: derive(key, salt, Label::RtcpSalt),
            })),
            Profile::Aes128Gcm => Self::gcm(
                &derive::<16>(key, salt, Label::RtpKey),
                derive(key, salt, Label::RtpSalt),
                &derive::<16>(key, salt, Label::RtcpKey),
                derive(key, salt, Label::RtcpSalt),
            ),
            Profile::Aes256Gcm => Self::gcm(
                &derive::<32>(key, salt, Label::RtpKey),
                derive(key, salt, Label::RtpSalt),
                &derive::<32>(key, salt, Label::RtcpKey),
                derive(key, salt, Label::RtcpSalt),
            ),
        }
    }

    /// From session keys.
    pub fn gcm(rtp: &[u8], rtp_salt: [u8; 12], rtcp: &[u8], rtcp_salt: [u8; 12]) -> Self {
        let key = |bytes: &[u8]| {
            let algorithm = if bytes.len() == 32 {
                &AES_256_GCM
            } else {
                &AES_128_GCM
            };
            LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("16 or 32 bytes"))
        };
        Self::Gcm(Box::new(Gcm {
            rtp: key(rtp),
            rtp_salt,
            rtcp: key(rtcp),
            rtcp_salt,
        }))
    }

    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, Error> {
        match self {
            Self::Gcm(keys) => {
                let end = len + GCM_TAG;
                let room = packet.get_mut(..end).ok_or(Error::Malformed)?;
                let (head, body) = room.split_at_mut(header);
                let (payload, tag) = body.split_at_mut(len - header);
                let nonce = rtp_nonce(&keys.rtp_salt, ssrc, index);
                let made = keys
                    .rtp
                    .seal_in_place_separate_tag(nonce, Aad::from(head), payload);
                tag.copy_from_slice(made.map_err(|_| Error::Malformed)?.as_ref());
                Ok(end)
            }
            Self::Cm(keys) => {
                let end = len + CM_TAG;
                if end > packet.len() {
                    return Err(Error::Malformed);
                }
                keystream(
                    &keys.rtp,
                    &keys.rtp_salt,
                    ssrc,
                    index,
                    &mut packet[header..len],
                );
                let mac = rtp_mac(&keys.rtp_auth, &packet[..len], index);
                packet[len..end].copy_from_slice(&mac.finalize().into_bytes()[..CM_TAG]);
                Ok(end)
            }
        }
    }

    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, Error> {
        match self {
            Self::Gcm(keys) => {
                if packet.len() < header + GCM_TAG {
                    return Err(Error::Malformed);
                }
                let len = packet.len() - GCM_TAG;
                let (head, body) = packet.split_at_mut(header);
                let nonce = rtp_nonce(&keys.rtp_salt, ssrc, index);
                let opened = keys.rtp.open_in_place(nonce, Aad::from(head), body);
                opened.map_err(|_| Error::Forged)?;
                Ok(len)
            }
            Self::Cm(keys) => {
                if packet.len() < header + CM_TAG {
                    return Err(Error::Malformed);
                }
                let len = packet.len() - CM_TAG;
                let (signed, tag) = packet.split_at_mut(len);
                let mac = rtp_mac(&keys.rtp_auth, signed, index);
                mac.verify_truncated_left(tag).map_err(|_| Error::Forged)?;
                keystream(
                    &keys.rtp,
                    &keys.rtp_salt,
                    ssrc,
                    index,
                    &mut signed[header..],
                );
                Ok(len)
            }
        }
    }

    /// The SRTCP index of a packet, if it is long enough and says that it is encrypted. We never negotiate
    /// unencrypted RTCP, so a clear E flag is nothing a peer may send.
    pub fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let (at, least) = match self {
            Self::Gcm(_) => (packet.len().checked_sub(TRAILER)?, GCM_TAG + TRAILER),
            Self::Cm(_) => (
                packet.len().checked_sub(CM_TAG + TRAILER)?,
                CM_TAG + TRAILER,
            ),
        };
        if packet.len() < RTCP_HEADER + least {
            return None;
        }
        let word = u32::from_be_bytes(packet.get(at..at + TRAILER)?.try_into().ok()?);
        (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
    }

    pub fn seal_rtcp(
        &self,
        packet: &mut [u8],
        len: usize,
        ssrc: u32,
        index: u32,
    ) -> Result<usize, Error> {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        match self {
            Self::Gcm(keys) => {
                let end = len + GCM_TAG + TRAILER;
                let room = packet.get_mut(..end).ok_or(Error::Malformed)?;
                let (head, body) = room.split_at_mut(RTCP_HEADER);
                let (payload, rest) = body.split_at_mut(len - RTCP_HEADER);
                let nonce = rtcp_nonce(&keys.rtcp_salt, ssrc, index);
                let aad = Aad::from(rtcp_aad(head, trailer));
                let made = keys.rtcp.seal_in_place_separate_tag(nonce, aad, payload);
                rest[..GCM_TAG].copy_from_slice(made.map_err(|_| Error::Malformed)?.as_ref());
                rest[GCM_TAG..].copy_from_slice(&trailer);
                Ok(end)
            }
            Self::Cm(keys) => {
                let (signed, end) = (len + TRAILER, len + TRAILER + CM_TAG);
                if end > packet.len() {
                    return Err(Error::Malformed);
                }
                let body = &mut packet[RTCP_HEADER..len];
                keystream(&keys.rtcp, &keys.rtcp_salt, ssrc, u64::from(index), body);
                packet[len..signed].copy_from_slice(&trailer);
                let mac = keys.rtcp_auth.clone().chain_update(&packet[..signed]);
                packet[signed..end].copy_from_slice(&mac.finalize().into_bytes()[..CM_TAG]);
                Ok(end)
            }
        }
    }

    /// `index` is what `rtcp_index` read, so the lengths are known to be enough.
    pub fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<usize, Error> {
        match self {
            Self::Gcm(keys) => {
                let end = packet.len() - TRAILER;
                let (sealed, trailer) = packet.split_at_mut(end);
                let trailer = [trailer[0], trailer[1], trailer[2], trailer[3]];
                let (head, body) = sealed.split_at_mut(RTCP_HEADER);
                let nonce = rtcp_nonce(&keys.rtcp_salt, ssrc, index);
                let aad = Aad::from(rtcp_aad(head, trailer));
                keys.rtcp
                    .open_in_place(nonce, aad, body)
                    .map_err(|_| Error::Forged)?;
                Ok(end - GCM_TAG)
            }
            Self::Cm(keys) => {
                let (signed, tag) = packet.split_at_mut(packet.len() - CM_TAG);
                let mac = keys.rtcp_auth.clone().chain_update(&*signed);
                mac.verify_truncated_left(tag).map_err(|_| Error::Forged)?;
                let len = signed.len() - TRAILER;
                let body = &mut signed[RTCP_HEADER..len];
                keystream(&keys.rtcp, &keys.rtcp_salt, ssrc, u64::from(index), body);
                Ok(len)
            }
        }
    }
}

fn authenticator(key: [u8; 20]) -> Hmac<Sha1> {
    Hmac::new_from_slice(&key).expect("HMAC takes keys of every length")
}

/// RFC 3711 section 4.2: over the packet and the rollover counter.
fn rtp_mac(key: &Hmac<Sha1>, packet: &[u8], index: u64) -> Hmac<Sha1> {
    let rollover = ((index >> 16) as u32).to_be_bytes();
    key.clone().chain_update(packet).chain_update(rollover)
}

/// RFC 3711 section 4.1.1.
fn keystream(key: &Aes128Enc, salt: &[u8; 14], ssrc: u32, index: u64, body: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    let core = CtrCore::<_, Ctr128BE>::inner_iv_init(key.clone(), &iv.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(body);
}

/// RFC 7714 section 8.1.
fn rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(iv)
}

/// RFC 7714 section 9.1.
fn rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[8..12], &index.to_be_bytes());
    Nonce::assume_unique_for_key(iv)
}

/// RFC 7714 section 9.2: header, sender SSRC, E flag and index.
fn rtcp_aad(head: &[u8], trailer: [u8; 4]) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&head[..8]);
    aad[8..].copy_from_slice(&trailer);
    aad
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (byte, mask) in into.iter_mut().zip(with) {
        *byte ^= mask;
    }
}
