//! RTP packets: fixed header and header extensions, parsed in place (RFC 3550 section 5, RFC 8285).
//!
//! Parsing is total: any byte string gives a value or `Error::Malformed`, nothing is allocated.
//! Not here: what a payload means (`vp8`, `keyframe`), SRTP (`crate::srtp`).

use super::{Error, Extensions};

/// Fixed header, without CSRCs and extensions.
pub const HEADER_BYTES: usize = 12;

/// Longest element of the one-byte form (RFC 8285 section 4.2).
const ONE_BYTE_MAX: usize = 16;

/// Where something lies in a packet; `len` 0 = absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: u16,
    /// Bytes.
    pub len: u16,
}

impl Span {
    /// The bytes meant, empty if absent or outside.
    #[must_use]
    pub fn of(self, packet: &[u8]) -> &[u8] {
        let at = usize::from(self.at);
        packet
            .get(at..at + usize::from(self.len))
            .unwrap_or_default()
    }

    /// Nothing there.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A parsed header; positions refer to the packet it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// M bit.
    pub marker: bool,
    /// 0..=127
    pub payload_type: u8,
    /// As on the wire.
    pub sequence: u16,
    /// As on the wire.
    pub timestamp: u32,
    /// As on the wire.
    pub ssrc: u32,
    /// Profile word of the extension block, 0 without one.
    pub profile: u16,
    /// Elements of the extension block.
    pub extensions: Span,
    /// Payload without padding.
    pub payload: Span,
}

impl Header {
    /// Read a header.
    ///
    /// # Errors
    /// `Malformed` for whatever RFC 3550 appendix A.1 refuses.
    pub fn parse(packet: &[u8]) -> Result<Self, Error> {
        if packet.len() < HEADER_BYTES {
            return Err(Error::Malformed("RTP: shorter than its header"));
        }
        if packet.len() > usize::from(u16::MAX) {
            return Err(Error::Malformed("RTP: longer than a datagram"));
        }
        let first = packet[0];
        if first >> 6 != 2 {
            return Err(Error::Malformed("RTP: version"));
        }
        let mut at = HEADER_BYTES + 4 * usize::from(first & 0x0f);
        let mut profile = 0;
        let mut extensions = Span::default();
        if first & 0x10 != 0 {
            let Some(head) = packet.get(at..at + 4) else {
                return Err(Error::Malformed("RTP: extension header"));
            };
            profile = u16::from_be_bytes([head[0], head[1]]);
            let bytes = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            at += 4;
            if at + bytes > packet.len() {
                return Err(Error::Malformed("RTP: extension length"));
            }
            extensions = span(at, bytes);
            at += bytes;
        }
        if at > packet.len() {
            return Err(Error::Malformed("RTP: CSRC count"));
        }
        let mut end = packet.len();
        if first & 0x20 != 0 {
            let padding = usize::from(packet[end - 1]);
            if padding == 0 || padding > end - at {
                return Err(Error::Malformed("RTP: padding"));
            }
            end -= padding;
        }
        Ok(Self {
            marker: packet[1] & 0x80 != 0,
            payload_type: packet[1] & 0x7f,
            sequence: u16::from_be_bytes([packet[2], packet[3]]),
            timestamp: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
            ssrc: u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]),
            profile,
            extensions,
            payload: span(at, end - at),
        })
    }

    /// The extension elements in order; an unknown profile has none.
    #[must_use]
    pub fn elements<'a>(&self, packet: &'a [u8]) -> Elements<'a> {
        let form = match self.profile {
            0xbede => Form::OneByte,
            profile if profile & 0xfff0 == 0x1000 => Form::TwoByte,
            _ => Form::Unknown,
        };
        Elements {
            packet,
            at: usize::from(self.extensions.at),
            end: usize::from(self.extensions.at) + usize::from(self.extensions.len),
            form,
        }
    }
}

/// Lengths were checked against a packet of at most 65,535 bytes.
fn span(at: usize, len: usize) -> Span {
    Span {
        at: at as u16,
        len: len as u16,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
    Unknown,
}

/// Iterator over (id, where); an element that overruns the block ends it with an error.
#[derive(Debug)]
pub struct Elements<'a> {
    packet: &'a [u8],
    at: usize,
    end: usize,
    form: Form,
}

impl Iterator for Elements<'_> {
    type Item = Result<(u8, Span), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.form == Form::Unknown {
            return None;
        }
        let end = self.end.min(self.packet.len());
        while self.at < end {
            let head = self.packet[self.at];
            if head == 0 {
                self.at += 1; // padding
                continue;
            }
            let (id, len, body) = if self.form == Form::OneByte {
                if head >> 4 == 15 {
                    break; // RFC 8285 section 4.2: stop here
                }
                (head >> 4, usize::from(head & 0x0f) + 1, self.at + 1)
            } else {
                let Some(&len) = self.packet[..end].get(self.at + 1) else {
                    self.at = end;
                    return Some(Err(Error::Malformed("RTP: extension element")));
                };
                (head, usize::from(len), self.at + 2)
            };
            if body + len > end {
                self.at = end;
                return Some(Err(Error::Malformed("RTP: extension element")));
            }
            self.at = body + len;
            return Some(Ok((id, span(body, len))));
        }
        self.at = end;
        None
    }
}

/// The extension values we understand, found by the publisher's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Voice bit and level, as on the wire (RFC 6464).
    pub audio_level: Option<u8>,
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// Camera and rotation bits.
    pub video_orientation: Option<u8>,
    /// Two 12-bit limits.
    pub playout_delay: Option<[u8; 3]>,
    /// 8 or 16 bytes.
    pub capture_time: Span,
    /// Dependency descriptor, any length.
    pub dependency: Span,
    /// Frame marking (RFC 9626), 1 to 3 bytes.
    pub frame_marking: Span,
}

impl Values {
    /// Read what the section negotiated; the rest is skipped.
    ///
    /// # Errors
    /// `Malformed` if an element overruns its block. A known element of a wrong size is skipped.
    pub fn read(header: &Header, packet: &[u8], ids: &Extensions) -> Result<Self, Error> {
        let mut values = Self::default();
        for element in header.elements(packet) {
            let (id, place) = element?;
            let value = place.of(packet);
            if id == ids.audio_level && value.len() == 1 {
                values.audio_level = Some(value[0]);
            } else if id == ids.transport_cc && value.len() >= 2 {
                values.transport_cc = Some(u16::from_be_bytes([value[0], value[1]]));
            } else if id == ids.video_orientation && value.len() == 1 {
                values.video_orientation = Some(value[0]);
            } else if id == ids.playout_delay && value.len() == 3 {
                values.playout_delay = Some([value[0], value[1], value[2]]);
            } else if id == ids.abs_capture_time && (value.len() == 8 || value.len() == 16) {
                values.capture_time = place;
            } else if id == ids.dependency_descriptor && value.len() >= 3 {
                values.dependency = place;
            } else if id == ids.frame_marking && (1..=3).contains(&value.len()) {
                values.frame_marking = place;
            }
        }
        Ok(values)
    }
}

/// The bytes of the first element with this id; 0 finds nothing.
#[must_use]
pub fn element<'a>(header: &Header, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
    if id == 0 {
        return None;
    }
    header
        .elements(packet)
        .map_while(Result::ok)
        .find(|(found, _)| *found == id)
        .map(|(_, place)| place.of(packet))
}

/// Writes one packet front to back into a slot; `finish` is None if it did not fit.
#[derive(Debug)]
pub struct Writer<'a> {
    slot: &'a mut [u8],
    at: usize,
    block: usize,
    two_byte: bool,
    fits: bool,
}

impl<'a> Writer<'a> {
    /// Fixed header; extension elements may follow, in the two-byte form if asked.
    pub fn new(
        slot: &'a mut [u8],
        marker: bool,
        payload_type: u8,
        sequence: u16,
        timestamp: u32,
        ssrc: u32,
        two_byte: bool,
    ) -> Self {
        let fits = slot.len() >= HEADER_BYTES + 4;
        if fits {
            slot[0] = 0x80;
            slot[1] = u8::from(marker) << 7 | (payload_type & 0x7f);
            slot[2..4].copy_from_slice(&sequence.to_be_bytes());
            slot[4..8].copy_from_slice(&timestamp.to_be_bytes());
            slot[8..12].copy_from_slice(&ssrc.to_be_bytes());
        }
        Self {
            slot,
            at: HEADER_BYTES,
            block: 0,
            two_byte,
            fits,
        }
    }

    /// One element; id 0 or an empty value writes nothing. Returns where the value lies.
    pub fn element(&mut self, id: u8, value: &[u8]) -> usize {
        if id == 0 || value.is_empty() || !self.fits {
            return 0;
        }
        let opening = if self.block == 0 { 4 } else { 0 };
        let head = if self.two_byte { 2 } else { 1 };
        if self.at + opening + head + value.len() > self.slot.len()
            || value.len() > 255
            || (!self.two_byte && (value.len() > ONE_BYTE_MAX || id > 14))
        {
            self.fits = false;
            return 0;
        }
        if self.block == 0 {
            self.block = self.at + 4;
            let profile: u16 = if self.two_byte { 0x1000 } else { 0xbede };
            self.slot[self.at..self.at + 2].copy_from_slice(&profile.to_be_bytes());
            self.slot[0] |= 0x10;
            self.at += 4;
        }
        if self.two_byte {
            self.slot[self.at] = id;
            self.slot[self.at + 1] = value.len() as u8;
        } else {
            self.slot[self.at] = id << 4 | (value.len() - 1) as u8;
        }
        self.at += head;
        let place = self.at;
        self.slot[place..place + value.len()].copy_from_slice(value);
        self.at += value.len();
        place
    }

    /// Append payload bytes; closes the extension block. Returns where they lie.
    pub fn payload(&mut self, bytes: &[u8]) -> usize {
        self.close_block();
        if !self.fits || self.at + bytes.len() > self.slot.len() {
            self.fits = false;
            return 0;
        }
        let place = self.at;
        self.slot[place..place + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        place
    }

    /// Nothing but padding: at most 255 bytes, of which the last counts them (RFC 3550 section 5.1).
    pub fn padding_only(&mut self, bytes: usize) {
        let mut padding = [0; 255];
        let bytes = bytes.clamp(1, padding.len());
        padding[bytes - 1] = bytes as u8;
        if self.payload(&padding[..bytes]) != 0 {
            self.slot[0] |= 0x20;
        }
    }

    /// Padding behind the payload, 1 to 255 bytes, of which the last counts them (RFC 3550 section 5.1). None if there
    /// is no room for it: a packet does without.
    pub fn pad(&mut self, bytes: u8) {
        let end = self.at + usize::from(bytes);
        if bytes == 0 || !self.fits || self.block != 0 || end > self.slot.len() {
            return;
        }
        self.slot[self.at..end].fill(0);
        self.slot[end - 1] = bytes;
        self.slot[0] |= 0x20;
        self.at = end;
    }

    /// What was written so far, for patches in place.
    pub fn bytes(&mut self) -> &mut [u8] {
        let at = self.at;
        &mut self.slot[..at]
    }

    /// Bytes of the packet, or None if the slot was too small.
    #[must_use]
    pub fn finish(mut self) -> Option<usize> {
        self.close_block();
        self.fits.then_some(self.at)
    }

    fn close_block(&mut self) {
        if self.block == 0 || !self.fits {
            return;
        }
        let words = (self.at - self.block).div_ceil(4);
        let end = self.block + 4 * words;
        if end > self.slot.len() {
            self.fits = false;
            return;
        }
        self.slot[self.at..end].fill(0);
        self.at = end;
        let count = (words as u16).to_be_bytes();
        self.slot[self.block - 2..self.block].copy_from_slice(&count);
        self.block = 0;
        // A second block is impossible: elements after the payload would be one.
        self.two_byte = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> Extensions {
        Extensions {
            mid: 1,
            rid: 2,
            repaired_rid: 3,
            audio_level: 4,
            transport_cc: 5,
            abs_send_time: 6,
            video_orientation: 7,
            abs_capture_time: 8,
            playout_delay: 9,
            dependency_descriptor: 10,
            frame_marking: 11,
        }
    }

    #[test]
    fn each_prefix_of_a_rich_packet_is_a_value_or_malformed() {
        let mut slot = [0u8; 200];
        let mut writer = Writer::new(&mut slot, true, 96, 7, 8, 9, false);
        writer.element(1, b"0");
        writer.element(4, &[0x85]);
        writer.element(8, &[1; 8]);
        writer.payload(&[0xaa; 20]);
        let len = writer.finish().expect("fits");
        for cut in 0..len {
            if let Ok(header) = Header::parse(&slot[..cut]) {
                let _ = Values::read(&header, &slot[..cut], &ids());
            }
        }
        assert_eq!(
            Header::parse(&slot[..11]),
            Err(Error::Malformed("RTP: shorter than its header"))
        );
    }

    #[test]
    fn the_two_byte_form_ignores_appbits() {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend([0x10, 0x0b, 0, 2, 4, 1, 0x7f, 0, 200, 1, 9, 0]);
        packet.push(0x55);
        let header = Header::parse(&packet).expect("whole");
        let found: Vec<_> = header.elements(&packet).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(element(&header, &packet, 4), Some(&[0x7f][..]));
        assert_eq!(element(&header, &packet, 200), Some(&[9][..]));
        assert_eq!(header.payload.of(&packet), &[0x55]);
    }

    #[test]
    fn padding_beyond_the_payload_is_malformed() {
        let mut packet = vec![0xa0, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 2];
        assert_eq!(Header::parse(&packet).expect("2 of 3").payload.len, 1);
        packet[14] = 4;
        assert!(Header::parse(&packet).is_err());
        packet[14] = 0;
        assert!(Header::parse(&packet).is_err());
    }

    #[test]
    fn an_overrunning_element_is_malformed() {
        let packet = [
            0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0, 1, 0x4f, 0, 0, 0,
        ];
        let header = Header::parse(&packet).expect("header is whole");
        assert!(Values::read(&header, &packet, &ids()).is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200), form in 0u8..3) {
            let mut bytes = bytes;
            // Steer half of the cases into the extension parser.
            if bytes.len() > 16 {
                bytes[0] = 0x90 | (bytes[0] & 0x20);
                if form == 0 { bytes[12..14].copy_from_slice(&[0xbe, 0xde]); bytes[14] = 0; }
                if form == 1 { bytes[12] = 0x10; bytes[13] &= 0x0f; bytes[14] = 0; }
            }
            if let Ok(header) = Header::parse(&bytes) {
                for element in header.elements(&bytes) { if element.is_err() { break; } }
                let _ = Values::read(&header, &bytes, &ids());
                prop_assert!(header.payload.of(&bytes).len() <= bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read_again(
            marker: bool, pt in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32, two_byte: bool,
            level: u8, cc: u16, dependency in proptest::collection::vec(any::<u8>(), 3..17),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut slot = [0u8; 300];
            let mut writer = Writer::new(&mut slot, marker, pt, sequence, timestamp, ssrc, two_byte);
            writer.element(4, &[level]);
            writer.element(5, &cc.to_be_bytes());
            writer.element(10, &dependency);
            writer.payload(&payload);
            let len = writer.finish().expect("300 bytes are enough");
            let packet = &slot[..len];
            let header = Header::parse(packet).expect("own packet");
            let values = Values::read(&header, packet, &ids()).expect("own elements");
            prop_assert_eq!((header.marker, header.payload_type, header.sequence), (marker, pt, sequence));
            prop_assert_eq!((header.timestamp, header.ssrc), (timestamp, ssrc));
            prop_assert_eq!(values.audio_level, Some(level));
            prop_assert_eq!(values.transport_cc, Some(cc));
            prop_assert_eq!(values.dependency.of(packet), &dependency[..]);
            prop_assert_eq!(header.payload.of(packet), &payload[..]);
        }

        #[test]
        fn a_small_slot_is_refused_not_overrun(size in 0usize..60) {
            let mut slot = vec![0u8; size];
            let mut writer = Writer::new(&mut slot, false, 1, 2, 3, 4, false);
            writer.element(1, b"mid");
            writer.payload(&[1; 20]);
            prop_assert_eq!(writer.finish().is_some(), size >= 12 + 4 + 4 + 20);
        }
    }
}
