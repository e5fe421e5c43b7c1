//! Several planes behind one port: which of them is at home where, and what they tell each other.
//!
//! Every transport has one home shard, fixed by our ufrag when it is opened; handles carry the number of their home in
//! their low bits. So every shard can tell whose a check is, and whose a track, without asking anybody.
//! Not here: the queues between shards (`parley-io`), 5-tuples of other shards (`plane::routes`), tracks of other
//! shards (`media::mirror`).

use crate::id::TransportId;
use crate::media;
use crate::wire::Path;

/// Shards of one engine, at most.
pub const MAX_SHARDS: u8 = 64;
/// Low bits of a handle that name its home.
pub const HANDLE_BITS: u32 = 6;

/// Which of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 0.
    pub own: u8,
    /// 1..=`MAX_SHARDS`.
    pub count: u8,
}

impl Shard {
    /// The only one.
    pub const ONLY: Self = Self { own: 0, count: 1 };

    /// Whether there are others.
    #[must_use]
    pub const fn is_one_of_several(self) -> bool {
        self.count > 1
    }

    /// The home of a handle, if that is another shard.
    #[must_use]
    pub const fn elsewhere(self, handle: u64) -> Option<u8> {
        let home = home_of(handle);
        if self.count > 1 && home != self.own && home < self.count {
            Some(home)
        } else {
            None
        }
    }

    /// All but this one.
    pub fn others(self) -> impl Iterator<Item = u8> {
        (0..self.count).filter(move |other| *other != self.own)
    }
}

/// The home of the transport that answers to this ufrag, of so many shards: FNV-1a, mixed once more.
#[must_use]
pub fn shard_of(ufrag: &[u8], count: u8) -> u8 {
    if count <= 1 {
        return 0;
    }
    let hash = ufrag.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The last bytes have not reached the upper bits yet.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) % u64::from(count)) as u8
}

/// The shard that a handle was made for.
#[must_use]
pub const fn home_of(handle: u64) -> u8 {
    (handle & (MAX_SHARDS as u64 - 1)) as u8
}

/// A handle from a running number.
#[must_use]
pub const fn handle(number: u64, home: u8) -> u64 {
    number << HANDLE_BITS | home as u64
}

/// What shards tell each other and must not lose. Notices of one shard to another arrive in order, and in order with
/// the packets between them.
#[derive(Clone, Debug)]
pub enum Notice {
    /// This 5-tuple is a validated one of the sender's.
    Routed(Path),
    /// No longer.
    Unrouted(Path),
    /// An authenticated check for a transport of the sender's came from a 5-tuple that is the receiver's.
    Contested(Path),
    /// Something of this transport's, which is at home at the receiver, made the sender panic (S15).
    Failed(TransportId),
    /// About tracks.
    Media(media::Notice),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_even_and_handles_keep_them() {
        for count in [2u8, 3, 4, 7] {
            let mut tally = vec![0u32; usize::from(count)];
            for number in 0..20_000u32 {
                let home = shard_of(format!("{number:012}").as_bytes(), count);
                tally[usize::from(home)] += 1;
                assert_eq!(home_of(handle(u64::from(number), home)), home);
            }
            let fair = 20_000 / u32::from(count);
            assert!(
                tally.iter().all(|n| n.abs_diff(fair) < fair / 10),
                "{tally:?}"
            );
        }
        assert_eq!(shard_of(b"anything", 1), 0);
    }

    #[test]
    fn only_shards_that_exist_are_elsewhere() {
        let shard = Shard { own: 1, count: 3 };
        let found: Vec<_> = (0..5)
            .map(|home| shard.elsewhere(handle(9, home)))
            .collect();
        assert_eq!(found, [Some(0), None, Some(2), None, None]);
        assert_eq!(Shard::ONLY.elsewhere(handle(9, 5)), None);
        assert_eq!(shard.others().collect::<Vec<_>>(), [0, 2]);
    }
}
