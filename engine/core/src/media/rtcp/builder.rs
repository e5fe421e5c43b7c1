//! Writes RTCP compounds: packets appended to a buffer that is reused. Ours always begin with a report.
//!
//! Not here: parsing (the module above), bodies of transport-wide feedback (`twcc`).

use super::{
    Report, GOODBYE, PAYLOAD_FEEDBACK, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION,
    TRANSPORT_FEEDBACK,
};

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
    pub(super) fn packet(&mut self, count: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
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
