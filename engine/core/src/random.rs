//! A small seeded generator (SplitMix64) for intervals and transaction ids.
//!
//! Not for secrets: keys and passwords come from the control plane. A predictable transaction id opens nothing,
//! because every response must also carry MESSAGE-INTEGRITY. Seeded, so that tests repeat themselves.

use std::hash::{DefaultHasher, Hasher};

/// One of many numbers of a secret. Finding the secret from some of them, and with it the others, means trying 2^64
/// secrets (a hash without a key, SipHash-1-3): enough for numbers that are worth nothing when their session is over.
#[must_use]
pub fn derived(secret: u64, number: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(secret);
    hasher.write_u64(number);
    hasher.finish()
}

/// The generator's state.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Start from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number of `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % (high - low)
    }
}
