//! The recent plaintext packets of one published layer, kept once for all subscribers.
//!
//! Bytes lie in a ring of fixed size, so memory is bounded whatever a publisher sends; an index by dense
//! number finds them. Not here: how often somebody may ask (`Subscription`).

use super::packet::Meta;

/// About 2 s of 1.7 Mbit/s, 0.8 s of a 5 Mbit/s screen.
const VIDEO_BYTES: usize = 384 << 10;
/// About 2 s of Opus.
const AUDIO_BYTES: usize = 24 << 10;
/// Packets remembered.
const VIDEO_PACKETS: usize = 1_024;
const AUDIO_PACKETS: usize = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0 = never used; dense numbers start at 65,536.
    dense: u64,
    /// Bytes ever written before this one.
    offset: u64,
    len: u16,
    meta: Meta,
}

/// Packets of one layer.
#[derive(Debug)]
pub struct Cache {
    bytes: Vec<u8>,
    written: u64,
    /// What was written before is forgotten.
    floor: u64,
    newest: u64,
    entries: Vec<Entry>,
}

impl Cache {
    /// An empty ring; pages that are never used cost nothing.
    #[must_use]
    pub fn new(video: bool) -> Self {
        let (bytes, packets) = if video {
            (VIDEO_BYTES, VIDEO_PACKETS)
        } else {
            (AUDIO_BYTES, AUDIO_PACKETS)
        };
        Self {
            bytes: vec![0; bytes],
            written: 0,
            floor: 0,
            newest: 0,
            entries: vec![Entry::default(); packets],
        }
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.newest = 0;
        self.floor = self.written; // constant time: a publisher may force this with each packet
    }

    /// Keep a packet as it arrived. False: it is not kept.
    pub fn put(&mut self, dense: u64, meta: Meta, packet: &[u8]) -> bool {
        let (size, Ok(len)) = (self.bytes.len() as u64, u16::try_from(packet.len())) else {
            return false;
        };
        let place = self.slot(dense);
        let old = &self.entries[place];
        if len == 0 || u64::from(len) > size || (old.dense > dense && old.offset >= self.floor) {
            return false;
        }
        let mut offset = self.written;
        if offset % size + u64::from(len) > size {
            offset += size - offset % size; // packets lie in one piece
        }
        let at = (offset % size) as usize;
        self.bytes[at..at + packet.len()].copy_from_slice(packet);
        self.written = offset + u64::from(len);
        self.entries[place] = Entry {
            dense,
            offset,
            len,
            meta,
        };
        self.newest = self.newest.max(dense);
        true
    }

    /// Highest dense number that was put; 0 = none.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// A packet, if it is still there.
    #[must_use]
    pub fn get(&self, dense: u64) -> Option<(Meta, &[u8])> {
        let entry = &self.entries[self.slot(dense)];
        let size = self.bytes.len() as u64;
        let kept = entry.offset >= self.floor && self.written <= entry.offset + size;
        if entry.dense != dense || dense == 0 || !kept {
            return None;
        }
        let at = (entry.offset % size) as usize;
        Some((entry.meta, &self.bytes[at..at + usize::from(entry.len)]))
    }

    /// Payload bytes of the packet kept last under this number; 0 if none was.
    #[must_use]
    pub fn payload_bytes(&self, dense: u64) -> u16 {
        let entry = &self.entries[self.slot(dense)];
        if entry.dense == dense {
            entry.meta.payload.len
        } else {
            0
        }
    }

    fn slot(&self, dense: u64) -> usize {
        (dense % self.entries.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was put: a hit is exact, the newest is always there, and memory never grows.
        #[test]
        fn a_hit_is_what_was_put(sizes in proptest::collection::vec(12usize..1_500, 1..600), video: bool) {
            let mut cache = Cache::new(video);
            let capacity = cache.bytes.capacity();
            let packet = |index: usize, size: usize| -> Vec<u8> {
                (0..size).map(|byte| (byte ^ index).to_le_bytes()[0]).collect()
            };
            for (index, size) in sizes.iter().enumerate() {
                cache.put(65_536 + index as u64, Meta::default(), &packet(index, *size));
            }
            for (index, size) in sizes.iter().enumerate() {
                if let Some((_, bytes)) = cache.get(65_536 + index as u64) {
                    prop_assert_eq!(bytes, &packet(index, *size)[..]);
                }
            }
            prop_assert!(cache.get(65_535 + sizes.len() as u64).is_some());
            prop_assert_eq!(cache.bytes.capacity(), capacity);
            cache.clear();
            prop_assert!(cache.get(65_535 + sizes.len() as u64).is_none());
        }
    }
}
