//! The rate at which packets arrive, by the peer's clock, over a sliding half second.

const BUCKET_US: i64 = 50_000;
const BUCKETS: usize = 10;

/// Bytes of the last half second.
#[derive(Debug, Default)]
pub struct Acked {
    bytes: [u32; BUCKETS],
    /// Number of the newest bucket.
    newest: i64,
    /// Number of the first bucket ever.
    oldest: i64,
    started: bool,
}

impl Acked {
    /// A packet arrived.
    pub fn arrived(&mut self, at_us: i64, bytes: u32) {
        let bucket = at_us.div_euclid(BUCKET_US);
        if !self.started {
            (self.newest, self.oldest, self.started) = (bucket, bucket, true);
        }
        if (self.newest - bucket).abs() > 4 * BUCKETS as i64 {
            // A clock that leapt, or a long silence: begin anew.
            self.bytes = [0; BUCKETS];
            (self.newest, self.oldest) = (bucket, bucket);
        }
        while self.newest < bucket {
            self.newest += 1;
            self.bytes[place(self.newest)] = 0;
        }
        if bucket + (BUCKETS as i64) > self.newest {
            self.bytes[place(bucket)] += bytes;
        }
    }

    /// Bits per second; None before there is a quarter of a second to look at.
    pub fn bps(&self) -> Option<u64> {
        let span = (self.newest - self.oldest).min(BUCKETS as i64 - 1);
        if !self.started || span < BUCKETS as i64 / 2 {
            return None;
        }
        // The newest bucket is not full yet: leave it out.
        let complete = (1..=span).map(|back| u64::from(self.bytes[place(self.newest - back)]));
        Some(complete.sum::<u64>() * 8 * 1_000_000 / (span * BUCKET_US) as u64)
    }
}

fn place(bucket: i64) -> usize {
    bucket.rem_euclid(BUCKETS as i64) as usize
}
