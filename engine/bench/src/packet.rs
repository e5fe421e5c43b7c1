//! Packets as clients make them: VP8 pictures (RFC 7741) and Opus, each with its track, number and send time inside.
//!
//! The payload behind the descriptor is opaque to a forwarder, so the stamp survives to the receiver unchanged.

/// Bytes of payload header: X with picture id, TL0PICIDX and TID, then the first three bytes of the frame.
const DESCRIPTOR_BYTES: usize = 6 + 3;
/// Bytes that SRTP adds (GCM).
pub const TAG_BYTES: usize = 16;
/// A retransmission begins with the original sequence number (RFC 4588 section 4).
pub const OSN_BYTES: usize = 2;

/// Header extension ids, as signalled.
pub const MID_ID: u8 = 1;
pub const TRANSPORT_CC_ID: u8 = 2;
pub const SEND_TIME_ID: u8 = 3;
pub const RID_ID: u8 = 4;
pub const LEVEL_ID: u8 = 5;
pub const REPAIRED_RID_ID: u8 = 6;
/// A person who talks, with the voice bit (RFC 6464): -dBov.
const VOICE: u8 = 0x80 | 30;

const MAGIC: [u8; 4] = *b"Prly";
const STAMP_BYTES: usize = 24;

/// What a receiver reads in a decrypted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub track: u16,
    pub layer: u8,
    pub video: bool,
    /// Of the publisher's stream, from 0.
    pub number: u64,
    /// CLOCK_MONOTONIC.
    pub sent_ns: u64,
}

impl Stamp {
    fn write(&self, room: &mut [u8]) {
        room[..4].copy_from_slice(&MAGIC);
        room[4..6].copy_from_slice(&self.track.to_be_bytes());
        room[6..8].copy_from_slice(&[self.layer, u8::from(self.video)]);
        room[8..16].copy_from_slice(&self.number.to_be_bytes());
        room[16..24].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    fn at(packet: &[u8], at: usize) -> Option<Self> {
        let room = packet.get(at..at + STAMP_BYTES)?;
        if room[..4] != MAGIC {
            return None;
        }
        let word = |at: usize| u64::from_be_bytes(room[at..at + 8].try_into().expect("8 bytes"));
        Some(Self {
            track: u16::from_be_bytes([room[4], room[5]]),
            layer: room[6],
            video: room[7] == 1,
            number: word(8),
            sent_ns: word(16),
        })
    }
}

/// A decrypted packet that carries a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub stamp: Stamp,
    /// The sequence number it repeats, if it is a retransmission.
    pub repeats: Option<u16>,
}

/// Read a decrypted packet; None: padding, or nothing of ours.
pub fn find(packet: &[u8]) -> Option<Found> {
    let payload = payload_at(packet)?;
    let plain = [DESCRIPTOR_BYTES, 0]
        .iter()
        .find_map(|skip| Stamp::at(packet, payload + skip));
    if let Some(stamp) = plain {
        return Some(Found {
            stamp,
            repeats: None,
        });
    }
    let osn = packet.get(payload..payload + OSN_BYTES)?;
    let repeats = Some(u16::from_be_bytes([osn[0], osn[1]]));
    [DESCRIPTOR_BYTES, 0]
        .iter()
        .find_map(|skip| Stamp::at(packet, payload + OSN_BYTES + skip))
        .map(|stamp| Found { stamp, repeats })
}

/// Where the payload begins.
pub fn payload_at(packet: &[u8]) -> Option<usize> {
    let mut at = 12 + 4 * usize::from(packet.first()? & 0x0f);
    if packet[0] & 0x10 != 0 {
        let words = packet.get(at + 2..at + 4)?;
        at += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    Some(at)
}

/// The transport-wide number under this id in a packet's one-byte header extensions (RFC 8285 section 4.2).
pub fn transport_number(packet: &[u8], id: u8) -> Option<u16> {
    let end = payload_at(packet)?;
    let mut elements = packet.get(16..end)?;
    if packet[0] & 0x10 == 0 || packet[12..14] != [0xbe, 0xde] {
        return None;
    }
    while let [head, rest @ ..] = elements {
        if *head == 0 {
            elements = rest;
            continue;
        }
        let len = usize::from(head & 15) + 1;
        if head >> 4 == id {
            return Some(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        }
        elements = rest.get(len..)?;
    }
    None
}

/// Everything of a stream's header that stays, with the places of what changes.
pub struct Shape {
    pub video: bool,
    pub frame_packets: u64,
    /// Of SRTP, tag included.
    pub packet_bytes: usize,
    /// With zeros where values go.
    pub header: Vec<u8>,
}

impl Shape {
    /// `rid` empty: a single stream. `repairs`: it names the repaired stream instead.
    pub fn new(
        video: bool,
        (payload_type, ssrc): (u8, u32),
        (mid, rid): (&str, &str),
        repairs: bool,
    ) -> Self {
        let mut header = vec![0x90, payload_type, 0, 0, 0, 0, 0, 0];
        header.extend(ssrc.to_be_bytes());
        header.extend([0xbe, 0xde, 0, 0]);
        // Both change in every packet: first, so that their places are known.
        header.extend([
            TRANSPORT_CC_ID << 4 | 1,
            0,
            0,
            SEND_TIME_ID << 4 | 2,
            0,
            0,
            0,
        ]);
        let rid_id = if repairs { REPAIRED_RID_ID } else { RID_ID };
        for (id, text) in [(MID_ID, mid), (rid_id, rid)] {
            if let Some(len) = text.len().checked_sub(1) {
                header.push(id << 4 | len as u8);
                header.extend(text.as_bytes());
            }
        }
        if !video {
            header.extend([LEVEL_ID << 4, VOICE]);
        }
        while header.len() % 4 != 0 {
            header.push(0);
        }
        header[15] = (header.len() / 4 - 4) as u8;
        Self {
            video,
            frame_packets: 1,
            packet_bytes: 0,
            header,
        }
    }

    /// Bytes before SRTP. libwebrtc cuts a frame into parts that differ by one byte, the shorter ones first.
    pub fn len(&self, number: u64) -> usize {
        let is_short = self.video && number % self.frame_packets < self.frame_packets / 2;
        self.packet_bytes - TAG_BYTES - usize::from(is_short)
    }

    /// Header with these values; where the payload begins.
    pub fn write_header(&self, room: &mut [u8], head: &Head, now_ns: u64) -> usize {
        let len = self.header.len();
        room[..len].copy_from_slice(&self.header);
        room[1] |= u8::from(head.marker) << 7;
        room[2..4].copy_from_slice(&head.sequence.to_be_bytes());
        room[4..8].copy_from_slice(&head.timestamp.to_be_bytes());
        room[17..19].copy_from_slice(&head.transport.to_be_bytes());
        let time = (u128::from(now_ns) << 18) / 1_000_000_000;
        room[20..23].copy_from_slice(&(time as u32).to_be_bytes()[1..]);
        len
    }

    /// One packet; fills the room.
    pub fn write(&self, room: &mut [u8], head: &Head, stamp: &Stamp, is_key: bool) {
        let at = self.write_header(room, head, stamp.sent_ns);
        let payload = &mut room[at..];
        if !self.video {
            stamp.write(payload);
            return;
        }
        let frame = stamp.number / self.frame_packets;
        let is_start = stamp.number % self.frame_packets == 0;
        payload[0] = 0x80 | u8::from(is_start) << 4;
        payload[1] = 0x80 | 0x40 | 0x20;
        payload[2..4].copy_from_slice(&(frame as u16 | 0x8000).to_be_bytes());
        payload[4] = frame as u8;
        payload[5] = 0;
        payload[6] = u8::from(!is_key);
        stamp.write(&mut payload[DESCRIPTOR_BYTES..]);
    }
}

/// What changes in the header from packet to packet.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    /// Transport-wide.
    pub transport: u16,
}

#[cfg(test)]
mod tests {
    use parley_core::media::vp8::Descriptor;

    use super::*;

    const HEAD: Head = Head {
        sequence: 7,
        timestamp: 77,
        marker: true,
        transport: 513,
    };

    fn stamp(number: u64) -> Stamp {
        Stamp {
            track: 3,
            layer: 2,
            video: true,
            number,
            sent_ns: 123_456_789,
        }
    }

    #[test]
    fn a_picture_is_vp8_and_carries_its_stamp() {
        let shape = Shape {
            frame_packets: 10,
            ..Shape::new(true, (97, 5), ("0", "f"), false)
        };
        for (number, is_key) in [(0, true), (0, false), (9, false), (70_000, true)] {
            let mut room = [0; 1_184];
            shape.write(&mut room, &HEAD, &stamp(number), is_key);
            let found = find(&room).expect("stamp");
            assert_eq!((found.stamp, found.repeats), (stamp(number), None));
            assert_eq!(transport_number(&room, TRANSPORT_CC_ID), Some(513));
            let at = payload_at(&room).expect("whole");
            let read = Descriptor::parse(&room[at..]).expect("VP8");
            assert_eq!(read.key, is_key && number % 10 == 0);
            assert_eq!(u64::from(read.picture), number / 10);
        }
    }

    #[test]
    fn sound_and_what_repeats_it_carry_the_stamp() {
        let shape = Shape::new(false, (111, 5), ("12", ""), false);
        let mut room = [0; 120];
        shape.write(&mut room, &HEAD, &stamp(1), false);
        assert_eq!(find(&room).map(|found| found.repeats), Some(None));
        let at = payload_at(&room).expect("whole");
        let mut again = room[..at].to_vec();
        again.extend([1, 2]);
        again.extend(&room[at..]);
        let found = find(&again).expect("stamp");
        assert_eq!((found.stamp, found.repeats), (stamp(1), Some(0x102)));
    }

    #[test]
    fn what_is_cut_off_has_no_stamp() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0x90; 15]), None);
        assert_eq!(find(&[0x80; 30]), None);
        assert_eq!(transport_number(&[0x90; 15], 2), None);
    }
}
