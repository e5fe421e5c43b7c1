//! Bit strings, most significant bit first, as AV1 and its RTP payload format write them.
//!
//! Not here: what the bits mean (`dependency`).

/// Reads from the front; None beyond the end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the first bit.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// `f(n)`: at most 32 bits.
    pub fn take(&mut self, count: usize) -> Option<u32> {
        if count > 32 || self.at + count > 8 * self.bytes.len() {
            return None;
        }
        let mut value = 0u64;
        for at in self.at..self.at + count {
            value = value << 1 | u64::from(self.bytes[at / 8] >> (7 - at % 8) & 1);
        }
        self.at += count;
        Some(value as u32)
    }

    /// `f(1)`
    pub fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// `ns(n)`: a number below `n`, in as few bits as that allows (AV1 section 4.10.7).
    pub fn below(&mut self, n: u32) -> Option<u32> {
        let width = 32 - n.leading_zeros();
        let short = (1u32 << width) - n;
        let value = self.take(width.checked_sub(1)? as usize)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }
}

/// Writes to the front of a buffer; `finish` is None if it was too small.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
    fits: bool,
}

impl<'a> Writer<'a> {
    /// At the first bit.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            fits: true,
        }
    }

    /// `f(n)`: the lowest `count` bits of a value, at most 32.
    pub fn put(&mut self, value: u32, count: usize) {
        if count > 32 || self.at + count > 8 * self.bytes.len() {
            self.fits = false;
            return;
        }
        for bit in (0..count).rev() {
            let mask = 0x80 >> (self.at % 8);
            let byte = &mut self.bytes[self.at / 8];
            if value >> bit & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
            self.at += 1;
        }
    }

    /// The bits of another string between two places.
    pub fn copy(&mut self, from: &[u8], first: usize, end: usize) {
        let mut reader = Reader {
            bytes: from,
            at: first,
        };
        while reader.at < end {
            let count = (end - reader.at).min(32);
            let Some(value) = reader.take(count) else {
                self.fits = false;
                return;
            };
            self.put(value, count);
        }
    }

    /// Zeros up to the next byte; the bytes written.
    #[must_use]
    pub fn finish(mut self) -> Option<usize> {
        while self.fits && self.at % 8 != 0 {
            self.put(0, 1);
        }
        self.fits.then_some(self.at / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_is_taken(values in proptest::collection::vec((any::<u32>(), 0usize..=32), 0..40)) {
            let mut room = [0xffu8; 200];
            let mut writer = Writer::new(&mut room);
            for (value, count) in &values {
                writer.put(*value, *count);
            }
            let len = writer.finish().expect("room for forty words");
            let mut reader = Reader::new(&room[..len]);
            for (value, count) in &values {
                let mask = if *count == 32 { u32::MAX } else { (1 << count) - 1 };
                prop_assert_eq!(reader.take(*count), Some(value & mask));
            }
            prop_assert!(8 * len - reader.position() < 8);
        }

        #[test]
        fn a_number_below_n_is_below_n(bytes in proptest::array::uniform4(any::<u8>()), n in 1u32..70) {
            prop_assert!(Reader::new(&bytes).below(n).expect("long enough") < n);
        }
    }
}
