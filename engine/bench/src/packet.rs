//! Video packets as a VP8 sender makes them (RFC 7741), each with its number and send time in the payload.
//!
//! The payload behind the descriptor is opaque to a forwarder, so both survive to the receiver unchanged.

/// Bytes of fixed header, three header extensions and their padding.
pub const HEADER_BYTES: usize = 12 + 4 + 12;
/// X with picture id, TL0PICIDX and TID, then the first three bytes of the frame.
const DESCRIPTOR_BYTES: usize = 6 + 3;
/// Packets of one frame: 30 frames/s of them are 2.9 Mbit/s.
pub const FRAME_PACKETS: u64 = 10;
/// Bytes that SRTP adds (GCM).
pub const TAG_BYTES: usize = 16;

/// Header extension ids, as signalled: mid, transport-wide number, send time.
pub const MID_ID: u8 = 1;
pub const TRANSPORT_CC_ID: u8 = 2;
pub const SEND_TIME_ID: u8 = 3;

/// One packet to write.
pub struct Packet {
    pub payload_type: u8,
    pub ssrc: u32,
    /// Counts from 0.
    pub number: u64,
    pub timestamp: u32,
    pub is_key: bool,
    pub sent_ns: u64,
}

impl Packet {
    /// How much shorter than the longest: libwebrtc cuts a frame into parts that differ by one byte, the shorter
    /// ones first.
    pub fn bytes_less(number: u64) -> usize {
        usize::from(number % FRAME_PACKETS < FRAME_PACKETS / 2)
    }

    /// Fill the room, all of it.
    pub fn write(&self, room: &mut [u8]) {
        let place = self.number % FRAME_PACKETS;
        let frame = self.number / FRAME_PACKETS;
        let marker = u8::from(place == FRAME_PACKETS - 1) << 7;
        room[0] = 0x90;
        room[1] = self.payload_type | marker;
        room[2..4].copy_from_slice(&(self.number as u16).to_be_bytes());
        room[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        room[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        room[12..16].copy_from_slice(&[0xbe, 0xde, 0, 3]);
        room[16..18].copy_from_slice(&[MID_ID << 4, b'0']);
        room[18] = TRANSPORT_CC_ID << 4 | 1;
        room[19..21].copy_from_slice(&(self.number as u16).to_be_bytes());
        room[21] = SEND_TIME_ID << 4 | 2;
        let time = (u128::from(self.sent_ns) << 18) / 1_000_000_000;
        room[22..25].copy_from_slice(&(time as u32).to_be_bytes()[1..]);
        room[25..28].fill(0);
        let payload = &mut room[HEADER_BYTES..];
        payload[0] = 0x80 | u8::from(place == 0) << 4;
        payload[1] = 0x80 | 0x40 | 0x20;
        payload[2..4].copy_from_slice(&(frame as u16 | 0x8000).to_be_bytes());
        payload[4] = frame as u8;
        payload[5] = 0;
        payload[6] = u8::from(!self.is_key);
        let stamp = &mut payload[DESCRIPTOR_BYTES..];
        stamp[..8].copy_from_slice(&self.number.to_be_bytes());
        stamp[8..16].copy_from_slice(&self.sent_ns.to_be_bytes());
    }
}

/// Number and send time (ns) of a decrypted packet.
pub fn stamp(packet: &[u8]) -> Option<(u64, u64)> {
    let mut at = 12;
    if packet.first()? & 0x10 != 0 {
        let words = packet.get(14..16)?;
        at += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    at += DESCRIPTOR_BYTES;
    let word = |at: usize| Some(u64::from_be_bytes(packet.get(at..at + 8)?.try_into().ok()?));
    Some((word(at)?, word(at + 8)?))
}

#[cfg(test)]
mod tests {
    use parley_core::media::vp8::Descriptor;

    use super::*;

    #[test]
    fn a_packet_is_vp8_and_carries_its_stamp() {
        for (number, is_key) in [(0, true), (0, false), (9, false), (70_000, true)] {
            let packet = Packet {
                payload_type: 97,
                ssrc: 5,
                number,
                timestamp: 77,
                is_key,
                sent_ns: 123_456_789,
            };
            let mut room = [0; 1_184];
            packet.write(&mut room);
            assert_eq!(stamp(&room), Some((number, 123_456_789)));
            assert_eq!(room[1] >> 7 == 1, number == 9);
            let found = Descriptor::parse(&room[HEADER_BYTES..]).expect("VP8");
            assert_eq!(found.key, is_key && number % FRAME_PACKETS == 0);
            assert_eq!(u64::from(found.picture), number / FRAME_PACKETS);
        }
    }

    #[test]
    fn what_is_cut_off_has_no_stamp() {
        assert_eq!(stamp(&[]), None);
        assert_eq!(stamp(&[0x90; 15]), None);
        assert_eq!(stamp(&[0x80; 30]), None);
    }
}
