//! One peer's ICE, SRTP and limits, and the table of all of them.

use crate::hash::FastMap;
use crate::ice::Ice;
use crate::id::{Micros, TransportId};
use crate::limit::Bucket;
use crate::media::SendStream;
use crate::shard::Notice;
use crate::sources::Counted;
use crate::srtp::{Profile, Session};
use crate::wire::{Event, Output, Path, Traffic};

use super::TransportStatistics;

/// What a transport may send us (S10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressLimit {
    /// UDP payload bits per second; 0 = default.
    pub bits_per_s: u64,
    /// Datagrams per second; 0 = default.
    pub packets_per_s: u64,
}

impl IngressLimit {
    /// 12 Mbit/s and 3,000 packets/s: three layers of 1080p and a screen fit several times.
    pub const DEFAULT: Self = Self {
        bits_per_s: 12_000_000,
        packets_per_s: 3_000,
    };
}

#[derive(Debug, Default)]
pub struct Counters {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    pub auth_failures: u64,
    pub replays: u64,
}

impl Counters {
    pub fn received(&mut self, bytes: usize) {
        self.packets_in += 1;
        self.bytes_in += bytes as u64;
    }

    pub fn sent(&mut self, bytes: usize) {
        self.packets_out += 1;
        self.bytes_out += bytes as u64;
    }

    /// An output that counts for this transport.
    pub fn counting<'a, O: Output>(&'a mut self, out: &'a mut O) -> Counting<'a, O> {
        Counting {
            counters: self,
            out,
        }
    }
}

pub struct Counting<'a, O> {
    counters: &'a mut Counters,
    out: &'a mut O,
}

impl<O: Output> Output for Counting<'_, O> {
    fn slot(&mut self) -> &mut [u8] {
        self.out.slot()
    }

    fn commit(&mut self, path: &Path, len: usize) {
        self.counters.sent(len);
        self.out.commit(path, len);
    }

    fn event(&mut self, event: Event) {
        self.out.event(event);
    }

    fn notify(&mut self, to: u8, notice: Notice) {
        self.out.notify(to, notice);
    }
}

/// Which payload types of what we send are video.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    video: u128,
}

impl Carried {
    /// A stream with these codecs was agreed. A number that changes its meaning has the newest one.
    pub fn learn(&mut self, stream: &SendStream) {
        for codec in &stream.codecs {
            for number in [Some(codec.payload_type), codec.rtx].into_iter().flatten() {
                let bit = 1u128 << (number & 0x7F);
                if stream.video {
                    self.video |= bit;
                } else {
                    self.video &= !bit;
                }
            }
        }
    }

    /// What this RTP packet carries.
    pub fn traffic(self, packet: &[u8]) -> Traffic {
        let number = packet.get(1).map_or(0, |byte| byte & 0x7F);
        if self.video >> number & 1 == 1 {
            Traffic::Video
        } else {
            Traffic::Audio
        }
    }
}

#[derive(Debug)]
struct Keys {
    profile: Profile,
    material: Vec<u8>,
    is_client: bool,
}

#[derive(Debug)]
pub struct Transport {
    pub id: TransportId,
    pub ice: Ice,
    pub srtp: Option<Session>,
    pub counters: Counters,
    /// Its handshake is one of its source's unfinished ones (S14).
    pub half_open: Option<Counted>,
    pub carried: Carried,
    keys: Option<Keys>,
    bits: Bucket,
    packets: Bucket,
}

impl Transport {
    pub fn new(
        id: TransportId,
        ufrag: &[u8],
        password: &[u8],
        offered_by_us: bool,
        now: Micros,
        seed: u64,
    ) -> Self {
        let limit = IngressLimit::DEFAULT;
        Self {
            id,
            ice: Ice::new(ufrag, password, offered_by_us, now, seed),
            srtp: None,
            counters: Counters::default(),
            half_open: None,
            carried: Carried::default(),
            keys: None,
            bits: Bucket::new(limit.bits_per_s, limit.bits_per_s),
            packets: Bucket::new(limit.packets_per_s, limit.packets_per_s),
        }
    }

    pub fn set_keys(&mut self, profile: Profile, material: &[u8], is_client: bool) {
        let is_same = self.keys.as_ref().is_some_and(|keys| {
            keys.profile == profile && keys.material == material && keys.is_client == is_client
        });
        if is_same {
            return; // a fresh session would start its packet indices again under the same key
        }
        if let Some(session) = Session::new(profile, material, is_client) {
            self.srtp = Some(session);
            self.keys = Some(Keys {
                profile,
                material: material.to_vec(),
                is_client,
            });
        }
    }

    /// A burst is one second of the rate: a key frame is not a flood.
    pub fn set_limit(&mut self, limit: IngressLimit) {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let bits = or(limit.bits_per_s, IngressLimit::DEFAULT.bits_per_s);
        let packets = or(limit.packets_per_s, IngressLimit::DEFAULT.packets_per_s);
        self.bits = Bucket::new(bits, bits);
        self.packets = Bucket::new(packets, packets);
    }

    /// Whether the peer may send so much now.
    pub fn admit(&mut self, bytes: usize, now: Micros) -> bool {
        self.packets.take(now) && self.bits.take_many(bytes as u64 * 8, now)
    }

    pub fn statistics(&self) -> TransportStatistics {
        TransportStatistics {
            packets_in: self.counters.packets_in,
            bytes_in: self.counters.bytes_in,
            packets_out: self.counters.packets_out,
            bytes_out: self.counters.bytes_out,
            auth_failures: self.counters.auth_failures,
            replays: self.counters.replays,
            rtt_us: self.ice.rtt_us(),
            report_rtt_us: 0,
            estimate_bps: 0,
            queue_us: 0, // the router's, and what follows
            paced_us: 0,
            paced_dropped: 0,
            state: self.ice.state(),
        }
    }
}

/// Transports in stable places, and where each handle lives.
#[derive(Debug, Default)]
pub struct Table {
    places: Vec<Option<Box<Transport>>>,
    free: Vec<usize>,
    by_id: FastMap<TransportId, usize>,
}

impl Table {
    pub fn insert(&mut self, transport: Transport) {
        let id = transport.id;
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[at] = Some(Box::new(transport));
        self.by_id.insert(id, at);
    }

    pub fn remove(&mut self, id: TransportId) -> Option<Box<Transport>> {
        let at = self.by_id.remove(&id)?;
        self.free.push(at);
        self.places[at].take()
    }

    pub fn place(&self, id: TransportId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub fn get_mut(&mut self, id: TransportId) -> Option<&mut Transport> {
        self.place(id).and_then(|at| self.at_mut(at))
    }

    pub fn at_mut(&mut self, at: usize) -> Option<&mut Transport> {
        self.places.get_mut(at)?.as_deref_mut()
    }

    /// Places, taken or free.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Transport> {
        self.places.iter().filter_map(Option::as_deref)
    }
}
