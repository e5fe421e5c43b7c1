//! RTCP compounds, parsed in place (RFC 3550 section 6, RFC 4585, RFC 5104, REMB draft 03).
//!
//! A compound is an iterator of packets; parsing is total and allocates nothing. Reduced-size compounds
//! (RFC 5506) are accepted.
//! Not here: writing (`builder`), transport-wide feedback bodies (`twcc`), what a packet causes (`Router`).

mod builder;
#[cfg(test)]
mod tests;

pub use builder::Builder;

use super::twcc::Feedback;
use super::Error;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Bytes of a report block.
const BLOCK_BYTES: usize = 24;

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// SR
    SenderReport {
        /// Whose clock it is.
        ssrc: u32,
        /// 32.32 seconds.
        ntp: u64,
        /// The same instant on the RTP clock.
        timestamp: u32,
        /// What the sender heard.
        reports: Reports<'a>,
    },
    /// RR
    ReceiverReport {
        /// Reporter.
        ssrc: u32,
        /// What it heard.
        reports: Reports<'a>,
    },
    /// SDES, contents unread.
    SourceDescription,
    /// BYE
    Goodbye {
        /// Sources that end.
        sources: Words<'a>,
    },
    /// Generic NACK
    Nack {
        /// Stream meant.
        media: u32,
        /// What is missing.
        lost: Lost<'a>,
    },
    /// Picture loss.
    Pli {
        /// Stream meant.
        media: u32,
    },
    /// Full intra request.
    Fir {
        /// Streams meant.
        media: FirTargets<'a>,
    },
    /// Receiver estimated maximum bit rate.
    Remb {
        /// Sum over the sources.
        bits_per_s: u64,
        /// Streams meant.
        sources: Words<'a>,
    },
    /// transport-cc feedback.
    TransportCc(Feedback<'a>),
    /// A well-formed packet of a kind we do not read.
    Other(u8),
}

/// A report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Stream reported on.
    pub ssrc: u32,
    /// Loss since the last report, of 256.
    pub fraction_lost: u8,
    /// Low 24 bits of the sum.
    pub lost: u32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// RTP clock units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report, 0 = none.
    pub last_sr: u32,
    /// Since then, 1/65536 s.
    pub delay: u32,
}

/// Report blocks of a packet.
#[derive(Clone, Debug)]
pub struct Reports<'a>(&'a [u8]);

impl Iterator for Reports<'_> {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        let block = self.0.get(..BLOCK_BYTES)?;
        self.0 = &self.0[BLOCK_BYTES..];
        Some(Report {
            ssrc: word(block, 0),
            fraction_lost: block[4],
            lost: word(block, 4) & 0x00ff_ffff,
            highest: word(block, 8),
            jitter: word(block, 12),
            last_sr: word(block, 16),
            delay: word(block, 20),
        })
    }
}

/// 32-bit words.
#[derive(Clone, Debug)]
pub struct Words<'a>(&'a [u8]);

impl Iterator for Words<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let value = self.0.get(..4).map(|bytes| word(bytes, 0))?;
        self.0 = &self.0[4..];
        Some(value)
    }
}

/// Sequence numbers of a NACK, in order of its entries.
#[derive(Clone, Debug)]
pub struct Lost<'a> {
    entries: &'a [u8],
    first: u16,
    /// Bit 0 = `first`, bit n = `first` + n.
    mask: u32,
}

impl Iterator for Lost<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let entry = self.entries.get(..4)?;
            self.entries = &self.entries[4..];
            self.first = u16::from_be_bytes([entry[0], entry[1]]);
            self.mask = u32::from(u16::from_be_bytes([entry[2], entry[3]])) << 1 | 1;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        Some(self.first.wrapping_add(bit as u16))
    }
}

/// Streams a FIR names.
#[derive(Clone, Debug)]
pub struct FirTargets<'a>(&'a [u8]);

impl Iterator for FirTargets<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let ssrc = self.0.get(..8).map(|entry| word(entry, 0))?;
        self.0 = &self.0[8..];
        Some(ssrc)
    }
}

/// The packets of a compound; the first fault ends it with an error.
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Over a decrypted compound.
    #[must_use]
    pub const fn new(compound: &'a [u8]) -> Self {
        Self { rest: compound }
    }

    fn step(&mut self) -> Result<Packet<'a>, Error> {
        let head = self
            .rest
            .get(..4)
            .ok_or(Error::Malformed("RTCP: shorter than its header"))?;
        if head[0] >> 6 != 2 {
            return Err(Error::Malformed("RTCP: version"));
        }
        let bytes = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let packet = self
            .rest
            .get(..bytes)
            .ok_or(Error::Malformed("RTCP: length"))?;
        self.rest = &self.rest[bytes..];
        let mut body = &packet[4..];
        if head[0] & 0x20 != 0 {
            let padding = body.last().map_or(0, |count| usize::from(*count));
            // COMPAT: a multiple of four (RFC 3550 section 6.4.1), but libwebrtc counts the one to three bytes that
            // its transport-wide feedback needs to end on a word: three messages of four would be lost.
            if padding == 0 || padding > body.len() {
                return Err(Error::Malformed("RTCP: padding"));
            }
            body = &body[..body.len() - padding];
        }
        read(head[1], head[0] & 0x1f, body)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.step();
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

fn read(kind: u8, count: u8, body: &[u8]) -> Result<Packet<'_>, Error> {
    let blocks = BLOCK_BYTES * usize::from(count);
    match (kind, count) {
        (SENDER_REPORT, _) => {
            let reports = body.get(24..24 + blocks).ok_or(Error::Malformed("SR"))?;
            Ok(Packet::SenderReport {
                ssrc: word(body, 0),
                ntp: u64::from(word(body, 4)) << 32 | u64::from(word(body, 8)),
                timestamp: word(body, 12),
                reports: Reports(reports),
            })
        }
        (RECEIVER_REPORT, _) => {
            let reports = body.get(4..4 + blocks).ok_or(Error::Malformed("RR"))?;
            Ok(Packet::ReceiverReport {
                ssrc: word(body, 0),
                reports: Reports(reports),
            })
        }
        (SOURCE_DESCRIPTION, _) => Ok(Packet::SourceDescription),
        (GOODBYE, _) => {
            let sources = body
                .get(..4 * usize::from(count))
                .ok_or(Error::Malformed("BYE"))?;
            Ok(Packet::Goodbye {
                sources: Words(sources),
            })
        }
        (TRANSPORT_FEEDBACK, 1) => {
            let (_, media, entries) = feedback(body)?;
            if entries.is_empty() || entries.len() % 4 != 0 {
                return Err(Error::Malformed("NACK"));
            }
            Ok(Packet::Nack {
                media,
                lost: Lost {
                    entries,
                    first: 0,
                    mask: 0,
                },
            })
        }
        (TRANSPORT_FEEDBACK, 15) => {
            let (_, media, rest) = feedback(body)?;
            Ok(Packet::TransportCc(Feedback::parse(media, rest)?))
        }
        (PAYLOAD_FEEDBACK, 1) => Ok(Packet::Pli {
            media: feedback(body)?.1,
        }),
        (PAYLOAD_FEEDBACK, 4) => {
            let (_, _, entries) = feedback(body)?;
            if entries.is_empty() || entries.len() % 8 != 0 {
                return Err(Error::Malformed("FIR"));
            }
            Ok(Packet::Fir {
                media: FirTargets(entries),
            })
        }
        (PAYLOAD_FEEDBACK, 15) => {
            let (_, _, rest) = feedback(body)?;
            if rest.get(..4) != Some(b"REMB") {
                return Ok(Packet::Other(kind)); // another application layer message
            }
            let sizes = rest.get(4..8).ok_or(Error::Malformed("REMB"))?;
            let sources = rest
                .get(8..8 + 4 * usize::from(sizes[0]))
                .ok_or(Error::Malformed("REMB: count beyond the packet"))?;
            let mantissa = u64::from(word(sizes, 0) & 0x3_ffff);
            Ok(Packet::Remb {
                // 18 bits shifted by at most 63: saturate instead of losing the top.
                bits_per_s: u64::try_from(u128::from(mantissa) << (sizes[1] >> 2))
                    .unwrap_or(u64::MAX),
                sources: Words(sources),
            })
        }
        _ => Ok(Packet::Other(kind)),
    }
}

/// Sender, media source and the rest of a feedback message (RFC 4585 section 6.1).
fn feedback(body: &[u8]) -> Result<(u32, u32, &[u8]), Error> {
    if body.len() < 8 {
        return Err(Error::Malformed("RTCP: feedback without sources"));
    }
    Ok((word(body, 0), word(body, 4), &body[8..]))
}

/// The caller checked the length.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
