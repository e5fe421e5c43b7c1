//! Which packets may be protected once more: those that are the same to the last bit.
//!
//! A peer without RTX gets a lost packet again under its own number. Under AES-GCM two different packets under
//! one index would give away the authentication key (RFC 7714 section 8); two equal ones give away nothing.
//! Sealing is deterministic, and for one key and index the tag is a keyed hash of the packet whose key nobody
//! outside knows: so a packet equals the one sent before exactly if its tag does (but for 1 in 2^112 for GCM,
//! 2^80 for HMAC-SHA1-80). Remembering tags costs the first sending nothing.

/// Packets remembered per SSRC: a second of 4 Mbit/s.
const REMEMBERED: usize = 512;
/// The longest tag.
const TAG_BYTES: usize = 16;

/// Tags of the latest packets of one SSRC.
#[derive(Debug)]
pub struct Repeats(Box<[(u64, [u8; TAG_BYTES])]>);

impl Repeats {
    /// Nothing sent.
    pub fn new() -> Self {
        Self(vec![(u64::MAX, [0; TAG_BYTES]); REMEMBERED].into_boxed_slice())
    }

    /// A packet of this index left with this tag.
    pub fn remember(&mut self, index: u64, tag: &[u8]) {
        self.0[place(index)] = (index, widened(tag));
    }

    /// The packet that left under this index is remembered.
    pub fn knows(&self, index: u64) -> bool {
        self.0[place(index)].0 == index
    }

    /// The packet that left under this index had this tag.
    pub fn is_same(&self, index: u64, tag: &[u8]) -> bool {
        self.0[place(index)] == (index, widened(tag))
    }
}

const fn place(index: u64) -> usize {
    (index % REMEMBERED as u64) as usize
}

fn widened(tag: &[u8]) -> [u8; TAG_BYTES] {
    let mut wide = [0; TAG_BYTES];
    wide[..tag.len()].copy_from_slice(tag);
    wide
}
