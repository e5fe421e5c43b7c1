//! Frames out of a byte stream: two bytes of length each (RFC 4571 section 2, of ICE-TCP: RFC 6544).
//!
//! What strangers send reaches this before anything is authenticated.
//! Not here: the stream itself, what is written to it (`parley-io`), what frames mean (`plane`).

/// Largest frame taken, bytes: what fits an Ethernet packet, as over UDP.
pub const MAX_FRAME_BYTES: usize = 1_500;
/// Two frames and their lengths.
const ROOM_BYTES: usize = 2 * (2 + MAX_FRAME_BYTES);

/// A length above `MAX_FRAME_BYTES`: the stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// What was read and not yet taken: part of a frame, or several.
pub struct Frames {
    input: Box<[u8; ROOM_BYTES]>,
    start: usize,
    end: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            input: Box::new([0; ROOM_BYTES]),
            start: 0,
            end: 0,
        }
    }
}

impl Frames {
    /// Where to read to; `filled` says how much it was. Never empty when no whole frame waits.
    pub fn room(&mut self) -> &mut [u8] {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.input[self.end..]
    }

    /// So many bytes were read to the room.
    pub fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= ROOM_BYTES, "no more than there was room for");
    }

    /// The next whole frame of what was read, copied: its length.
    pub fn take(&mut self, frame: &mut [u8; MAX_FRAME_BYTES]) -> Result<Option<usize>, TooLong> {
        let waiting = &self.input[self.start..self.end];
        let Some((header, rest)) = waiting.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*header));
        if len > MAX_FRAME_BYTES {
            return Err(TooLong);
        }
        let Some(bytes) = rest.get(..len) else {
            return Ok(None);
        };
        frame[..len].copy_from_slice(bytes);
        self.start += 2 + len;
        Ok(Some(len))
    }

    /// The frame that was taken last, of so many bytes, is the next one again.
    pub fn put_back(&mut self, frame_bytes: usize) {
        self.start -= 2 + frame_bytes;
    }
}
