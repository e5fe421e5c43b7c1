//! RTCP compounds, parsed in place and written (RFC 3550 section 6, RFC 4585, RFC 5104, REMB draft 03).
//!
//! A compound is an iterator of packets; parsing is total and allocates nothing. Reduced-size compounds
//! (RFC 5506) are accepted, ours always begin with a report.
//! Not here: transport-wide feedback bodies (`twcc`), what a packet causes (`Router`).

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

/// Appends packets to a buffer that is reused.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// What was built.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Start over, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Append one packet: its head, then whatever `body` writes, then the length.
    fn packet(&mut self, count: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0x80 | count, kind, 0, 0]);
        body(&mut self.bytes);
        while (self.bytes.len() - start) % 4 != 0 {
            self.bytes.push(0);
        }
        let words = (self.bytes.len() - start) / 4 - 1;
        self.bytes[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
    }

    /// SR without blocks.
    pub fn sender_report(
        &mut self,
        ssrc: u32,
        ntp: u64,
        timestamp: u32,
        packets: u32,
        octets: u32,
    ) {
        self.packet(0, SENDER_REPORT, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend(ntp.to_be_bytes());
            for value in [timestamp, packets, octets] {
                out.extend(value.to_be_bytes());
            }
        });
    }

    /// RR with at most 31 blocks; more are cut off.
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[Report]) {
        let reports = &reports[..reports.len().min(31)];
        self.packet(reports.len() as u8, RECEIVER_REPORT, |out| {
            out.extend(ssrc.to_be_bytes());
            for block in reports {
                let loss = u32::from(block.fraction_lost) << 24 | (block.lost & 0x00ff_ffff);
                for value in [
                    block.ssrc,
                    loss,
                    block.highest,
                    block.jitter,
                    block.last_sr,
                    block.delay,
                ] {
                    out.extend(value.to_be_bytes());
                }
            }
        });
    }

    /// SDES with one CNAME, cut at 255 bytes.
    pub fn cname(&mut self, ssrc: u32, cname: &str) {
        let name = &cname.as_bytes()[..cname.len().min(255)];
        self.packet(1, SOURCE_DESCRIPTION, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend([1, name.len() as u8]);
            out.extend(name);
            out.push(0); // the list ends with at least one zero
        });
    }

    /// BYE of one source.
    pub fn goodbye(&mut self, ssrc: u32) {
        self.packet(1, GOODBYE, |out| out.extend(ssrc.to_be_bytes()));
    }

    /// Generic NACK; `lost` ascending. Nothing is written for an empty list.
    pub fn nack(&mut self, sender: u32, media: u32, lost: &[u16]) {
        if lost.is_empty() {
            return;
        }
        self.packet(1, TRANSPORT_FEEDBACK, |out| {
            out.extend(sender.to_be_bytes());
            out.extend(media.to_be_bytes());
            let mut rest = lost;
            while let [first, following @ ..] = rest {
                let within = following
                    .iter()
                    .take_while(|next| (1..=16).contains(&next.wrapping_sub(*first)))
                    .count();
                let mask = following[..within].iter().fold(0u16, |mask, next| {
                    mask | 1 << (next.wrapping_sub(*first) - 1)
                });
                out.extend(first.to_be_bytes());
                out.extend(mask.to_be_bytes());
                rest = &following[within..];
            }
        });
    }

    /// PLI.
    pub fn pli(&mut self, sender: u32, media: u32) {
        self.packet(1, PAYLOAD_FEEDBACK, |out| {
            out.extend(sender.to_be_bytes());
            out.extend(media.to_be_bytes());
        });
    }

    /// FIR for one source (RFC 5104 section 4.3.1).
    pub fn fir(&mut self, sender: u32, media: u32, number: u8) {
        self.packet(4, PAYLOAD_FEEDBACK, |out| {
            out.extend(sender.to_be_bytes());
            out.extend([0; 4]);
            out.extend(media.to_be_bytes());
            out.extend([number, 0, 0, 0]);
        });
    }

    /// REMB for at most 255 sources.
    pub fn remb(&mut self, sender: u32, bits_per_s: u64, sources: &[u32]) {
        let sources = &sources[..sources.len().min(255)];
        let exponent = (64 - bits_per_s.leading_zeros()).saturating_sub(18);
        let value = exponent << 18 | (bits_per_s >> exponent) as u32;
        self.packet(15, PAYLOAD_FEEDBACK, |out| {
            out.extend(sender.to_be_bytes());
            out.extend([0; 4]);
            out.extend(b"REMB");
            out.push(sources.len() as u8);
            out.extend(&value.to_be_bytes()[1..]);
            for ssrc in sources {
                out.extend(ssrc.to_be_bytes());
            }
        });
    }

    /// transport-cc feedback; `write` appends what follows the two sources.
    pub fn transport_cc(&mut self, sender: u32, media: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.packet(15, TRANSPORT_FEEDBACK, |out| {
            out.extend(sender.to_be_bytes());
            out.extend(media.to_be_bytes());
            write(out);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Walk everything a compound holds, as the router does.
    fn walk(compound: &[u8]) -> Result<usize, Error> {
        let mut values = 0;
        for packet in Compound::new(compound) {
            values += match packet? {
                Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                    reports.count()
                }
                Packet::Goodbye { sources } | Packet::Remb { sources, .. } => sources.count(),
                Packet::Nack { lost, .. } => lost.count(),
                Packet::Fir { media } => media.count(),
                Packet::TransportCc(feedback) => feedback.arrivals().count(),
                _ => 1,
            };
        }
        Ok(values)
    }

    fn one(write: impl FnOnce(&mut Builder)) -> Vec<u8> {
        let mut builder = Builder::default();
        write(&mut builder);
        builder.bytes().to_vec()
    }

    #[test]
    fn every_length_from_0_to_64_of_every_shape() {
        for kind in 190..=212u8 {
            for count in 0..=31u8 {
                for len in 0..=64usize {
                    for fill in [0u8, 0x55, 0xff] {
                        let mut packet = vec![fill; len];
                        for (place, value) in packet.iter_mut().zip([0x80 | count, kind, 0]) {
                            *place = value;
                        }
                        if let Some(words) = packet.get_mut(3) {
                            let claim = (len / 4 - 1) as u8;
                            *words = claim;
                        }
                        let _ = walk(&packet);
                        if len % 4 != 0 {
                            assert!(walk(&packet).is_err(), "{kind} {count} {len}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn four_bytes_of_a_report_are_malformed() {
        for kind in [
            SENDER_REPORT,
            RECEIVER_REPORT,
            TRANSPORT_FEEDBACK,
            PAYLOAD_FEEDBACK,
        ] {
            assert!(walk(&[0x81, kind, 0, 0]).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_remb_count_beyond_the_packet_is_malformed() {
        let mut packet = one(|b| b.remb(1, 1_000_000, &[7]));
        packet[16] = 2;
        assert!(walk(&packet).is_err());
    }

    #[test]
    fn padding_must_fit() {
        let mut packet = one(|b| b.pli(1, 2));
        packet[0] |= 0x20;
        packet.extend([0, 0, 0, 4]);
        packet[3] += 1;
        assert_eq!(walk(&packet), Ok(1));
        for wrong in [0, 20] {
            *packet.last_mut().expect("padded") = wrong;
            assert!(walk(&packet).is_err(), "{wrong}");
        }
    }

    /// As libwebrtc sends it: three packets, and three bytes so that it ends on a word.
    #[test]
    fn feedback_is_read_although_its_padding_is_no_multiple_of_four() {
        let bytes = [
            0xaf, 0xcd, 0, 6, 0xfa, 0x17, 0xfa, 0x17, 0x44, 0xb4, 0x7c, 0x17, 4, 0xdc, 0, 3, 3,
            0x8e, 0x6c, 0xce, 0x20, 3, 0x55, 0x51, 0x50, 0, 0, 3,
        ];
        let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(&bytes).next() else {
            panic!("not read");
        };
        assert_eq!((feedback.base, feedback.received), (1_244, 3));
        let arrivals: Vec<_> = feedback.arrivals().collect();
        assert_eq!(arrivals, [(1_244, 0x55), (1_245, 0xa6), (1_246, 0xf6)]);
    }

    proptest! {
        #[test]
        fn parsing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = walk(&bytes);
        }

        #[test]
        fn parsing_is_total_behind_a_good_header(
            kind in 199u8..208, count in 0u8..32,
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let packet = one(|b| b.packet(count, kind, |out| out.extend(&body)));
            let _ = walk(&packet);
        }

        #[test]
        fn reports_round_trip(ssrc: u32, ntp: u64, timestamp: u32, lost in 0u32..0x100_0000,
                              words: [u32; 5], fraction: u8) {
            let block = Report { ssrc: words[0], fraction_lost: fraction, lost, highest: words[1],
                                 jitter: words[2], last_sr: words[3], delay: words[4] };
            let compound = one(|b| {
                b.sender_report(ssrc, ntp, timestamp, 1, 2);
                b.receiver_report(ssrc, &[block, block]);
                b.cname(ssrc, "name");
                b.goodbye(ssrc);
            });
            let packets: Vec<_> = Compound::new(&compound).map(|p| p.expect("own packet")).collect();
            let Packet::SenderReport { ssrc: s, ntp: n, timestamp: t, .. } = packets[0] else { panic!("SR") };
            prop_assert_eq!((s, n, t), (ssrc, ntp, timestamp));
            let Packet::ReceiverReport { reports, .. } = &packets[1] else { panic!("RR") };
            prop_assert_eq!(reports.clone().collect::<Vec<_>>(), vec![block, block]);
            let Packet::Goodbye { sources } = &packets[3] else { panic!("BYE") };
            prop_assert_eq!(sources.clone().collect::<Vec<_>>(), vec![ssrc]);
        }

        #[test]
        fn nacks_round_trip(start: u16, steps in proptest::collection::vec(1u16..40, 1..60)) {
            let mut lost = vec![start];
            for step in steps { lost.push(lost[lost.len() - 1].wrapping_add(step)); }
            let packet = one(|b| b.nack(1, 2, &lost));
            let Some(Ok(Packet::Nack { media: 2, lost: read })) = Compound::new(&packet).next() else {
                panic!("NACK")
            };
            prop_assert_eq!(read.collect::<Vec<_>>(), lost);
        }

        #[test]
        fn remb_round_trips_to_18_bits(bits: u64, sources in proptest::collection::vec(any::<u32>(), 0..9)) {
            let packet = one(|b| b.remb(1, bits, &sources));
            let Some(Ok(Packet::Remb { bits_per_s, sources: read })) = Compound::new(&packet).next() else {
                panic!("REMB")
            };
            prop_assert!(bits_per_s <= bits && bits - bits_per_s <= bits >> 17);
            prop_assert_eq!(read.collect::<Vec<_>>(), sources);
        }
    }
}
