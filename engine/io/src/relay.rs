//! From one data-plane thread to another: a ring of slots that exist from the start, and a bell for who sleeps.
//!
//! One thread writes a ring and one reads it, so neither locks nor allocates. What is written becomes visible at
//! `publish`, once per batch. Packets that find the ring full are dropped and counted; notices wait until there is
//! room, and packets behind them are dropped meanwhile, so that order is kept.
//! Not here: what travels (`parley-core`), who is at home where (`shard`).

use std::cell::UnsafeCell;
use std::collections::hash_map::RandomState;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use parley_core::media::Relayed;
use parley_core::shard::Notice;
use parley_core::wire::Path;

use crate::stream::Connection;
use crate::sys::EventFd;

/// Bytes of a slot: as much as the inbox takes.
pub const SLOT_BYTES: usize = 2_048;
/// Slots of a ring among so many shards: 25 ms of 40,000 packets/s between two, and a bounded sum.
const fn slots(shards: usize) -> usize {
    match shards {
        0..=4 => 1_024,
        5..=8 => 512,
        _ => 256,
    }
}
/// Slots that packets leave to notices.
const KEPT_FOR_NOTICES: usize = 32;

/// Of a ring's slots, one in so many may hold checks of strangers at the same time: what validated peers send never
/// waits for theirs, nor is dropped for it.
const STRANGERS: usize = 16;
/// Of a ring that is half full, one slot in so many is left to each 5-tuple: who floods has the first half.
const CROWDED: usize = 32;
/// Shares of a crowded ring are counted in so many places, by a keyed hash of the 5-tuple.
const SHARES: usize = 64;

/// Notices that may wait before peers can no longer add to them.
const MANY_NOTICES: usize = 1_024;

/// What travels beside the bytes of a slot.
pub enum Message {
    /// Nothing: the slot is free.
    Empty,
    /// A datagram of a 5-tuple that the receiver may know.
    Datagram(Path),
    /// A packet for the receiver's subscribers.
    Packet(Relayed),
    /// Something to know.
    Notice(Notice),
    /// A connection whose transport is at home at the receiver.
    Connection(Box<Connection>),
}

struct Slot {
    message: Message,
    len: usize,
    bytes: [u8; SLOT_BYTES],
}

/// Counters on lines of their own, so that writer and reader do not fight for one.
#[repr(align(128))]
struct Counter(AtomicUsize);

struct Ring {
    slots: Box<[UnsafeCell<Slot>]>,
    /// Slots ever read. Moved by the reader.
    read: Counter,
    /// Slots ever written. Moved by the writer.
    written: Counter,
}

// SAFETY: a slot is touched by the writer alone while its number is not below `written`, and by the reader alone from
// then until `read` has passed it; both counters move by Release and are looked at by Acquire. There is one writer
// and one reader, because `Writer` and `Reader` are made once each and cannot be cloned. What a slot holds is Send.
unsafe impl Sync for Ring {}

/// The only writer of a ring.
pub struct Writer {
    ring: Arc<Ring>,
    /// Slots written, of which the reader may not know yet.
    written: usize,
    /// Slots read, when last looked.
    read: usize,
}

/// The only reader of a ring.
pub struct Reader {
    ring: Arc<Ring>,
    /// Slots taken, of which the writer may not know yet.
    taken: usize,
    /// Slots written, when last looked.
    written: usize,
}

/// An empty ring of so many slots, a power of two.
fn ring(slots: usize) -> (Writer, Reader) {
    assert!(slots.is_power_of_two(), "invariant");
    let slot = || {
        UnsafeCell::new(Slot {
            message: Message::Empty,
            len: 0,
            bytes: [0; SLOT_BYTES],
        })
    };
    let ring = Arc::new(Ring {
        slots: std::iter::repeat_with(slot).take(slots).collect(),
        read: Counter(AtomicUsize::new(0)),
        written: Counter(AtomicUsize::new(0)),
    });
    let writer = Writer {
        ring: Arc::clone(&ring),
        written: 0,
        read: 0,
    };
    let reader = Reader {
        ring,
        taken: 0,
        written: 0,
    };
    (writer, reader)
}

impl Writer {
    /// Whether the reader is done with the slot of this number.
    fn has_passed(&mut self, number: usize) -> bool {
        if self.read <= number {
            self.read = self.ring.read.0.load(Ordering::Acquire);
        }
        self.read > number
    }

    /// Whether fewer than so many slots are taken.
    fn has_room(&mut self, limit: usize) -> bool {
        if self.written - self.read >= limit {
            self.read = self.ring.read.0.load(Ordering::Acquire);
        }
        self.written - self.read < limit
    }

    /// Write the next slot, after `has_room`.
    fn put(&mut self, message: Message, bytes: &[u8]) {
        assert!(
            self.written - self.read < self.ring.slots.len(),
            "invariant"
        );
        let at = self.written & (self.ring.slots.len() - 1);
        // SAFETY: slot number `written` is not published, and with fewer than all slots taken the reader is past
        // its former use (Acquire above); this is the only writer.
        let slot = unsafe { &mut *self.ring.slots[at].get() };
        slot.message = message;
        slot.len = bytes.len();
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        self.written += 1;
    }

    /// Let the reader see what was written. True if there was something.
    fn publish(&mut self) -> bool {
        let is_new = self.ring.written.0.load(Ordering::Relaxed) != self.written;
        if is_new {
            self.ring.written.0.store(self.written, Ordering::Release);
        }
        is_new
    }
}

impl Reader {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ring.written.0.load(Ordering::Acquire) == self.taken
    }

    /// See what was published until now.
    pub fn look(&mut self) {
        self.written = self.ring.written.0.load(Ordering::Acquire);
    }

    /// The next of what `look` saw. It counts as taken whatever becomes of it.
    pub fn next(&mut self) -> Option<(Message, &mut [u8])> {
        if self.taken == self.written {
            return None;
        }
        let at = self.taken & (self.ring.slots.len() - 1);
        self.taken += 1;
        // SAFETY: the slot is published (Acquire in `look`) and not released; this is the only reader, and the borrow
        // of `self` ends before the next call.
        let slot = unsafe { &mut *self.ring.slots[at].get() };
        let message = std::mem::replace(&mut slot.message, Message::Empty);
        Some((message, &mut slot.bytes[..slot.len]))
    }

    /// Let the writer have what was taken.
    pub fn release(&mut self) {
        self.ring.read.0.store(self.taken, Ordering::Release);
    }
}

/// How a thread is woken, and whether it needs to be.
pub struct Bell {
    pub wake: EventFd,
    is_asleep: AtomicBool,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wake: EventFd::new()?,
            is_asleep: AtomicBool::new(false),
        })
    }

    /// The thread is about to wait: whoever writes to it from now on rings. It must look once more before it does.
    pub fn fall_asleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the one in `ring`: one of the two sees the other
    }

    pub fn is_up(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// After something was published.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.wake.signal();
        }
    }
}

/// What went from one thread to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// Datagrams that reached the wrong shard's socket.
    pub passed_on: u64,
    /// Packets for subscribers of other shards, once per shard.
    pub relayed: u64,
    /// Either of them, dropped because a ring was full, or half full and this 5-tuple had its share.
    pub dropped: u64,
    /// Checks from 5-tuples that nobody has validated, dropped because too many of them were in the ring.
    pub strangers: u64,
}

impl RelayCounters {
    /// Take another thread's in.
    pub fn add(&mut self, other: &Self) {
        self.passed_on += other.passed_on;
        self.relayed += other.relayed;
        self.dropped += other.dropped;
        self.strangers += other.strangers;
    }
}

struct Way {
    writer: Writer,
    bell: Arc<Bell>,
    /// Notices that found no room.
    backlog: VecDeque<Message>,
    strangers: Strangers,
    crowd: Crowd,
}

/// Which slots the latest strangers have.
struct Strangers {
    /// Their numbers, the oldest at `next`; None at first.
    slots: Box<[Option<usize>]>,
    next: usize,
}

impl Strangers {
    fn new(slots: usize) -> Self {
        Self {
            slots: vec![None; slots / STRANGERS].into(),
            next: 0,
        }
    }

    /// Whether one more may come, into this slot.
    fn admit(&mut self, writer: &mut Writer) -> bool {
        let oldest = &mut self.slots[self.next];
        if oldest.is_some_and(|number| !writer.has_passed(number)) {
            return false;
        }
        *oldest = Some(writer.written);
        self.next = (self.next + 1) % self.slots.len();
        true
    }
}

/// Who has added how much since the ring was half full.
struct Crowd {
    shares: [u16; SHARES],
    is_counting: bool,
    /// Nobody can choose whose share they use up.
    key: RandomState,
}

impl Crowd {
    fn new() -> Self {
        Self {
            shares: [0; SHARES],
            is_counting: false,
            key: RandomState::new(),
        }
    }

    /// Whether this 5-tuple may add one more.
    fn admit(&mut self, path: &Path, writer: &mut Writer) -> bool {
        let slots = writer.ring.slots.len();
        if writer.has_room(slots / 2) {
            if std::mem::take(&mut self.is_counting) {
                self.shares.fill(0);
            }
            return true;
        }
        self.is_counting = true;
        let share = &mut self.shares[self.key.hash_one(path) as usize % SHARES];
        *share = share.saturating_add(1);
        usize::from(*share) <= slots / CROWDED
    }
}

/// The ways from one thread to all others.
#[derive(Default)]
pub struct Relays {
    /// By shard; None for the own.
    ways: Vec<Option<Way>>,
    pub counters: RelayCounters,
}

impl Relays {
    /// Whether something waits for room: look again soon.
    pub fn is_waiting(&self) -> bool {
        let mut ways = self.ways.iter().flatten();
        ways.any(|way| !way.backlog.is_empty())
    }

    /// Whether so many notices wait that peers had better cause no more.
    pub fn is_behind(&self) -> bool {
        let mut ways = self.ways.iter().flatten();
        ways.any(|way| way.backlog.len() >= MANY_NOTICES)
    }

    pub fn datagram(&mut self, to: u8, path: &Path, datagram: &[u8], is_stranger: bool) {
        let Some(way) = way(&mut self.ways, to) else {
            return;
        };
        let limit = way.writer.ring.slots.len() - KEPT_FOR_NOTICES;
        let is_admitted = if is_stranger {
            way.writer.has_room(limit) && way.strangers.admit(&mut way.writer)
        } else {
            way.crowd.admit(path, &mut way.writer)
        };
        if is_admitted && way.packet(limit, Message::Datagram(*path), datagram) {
            self.counters.passed_on += 1;
        } else if is_stranger {
            self.counters.strangers += 1;
        } else {
            self.counters.dropped += 1;
        }
    }

    pub fn packet(&mut self, to: u8, packet: &Relayed, bytes: &[u8]) {
        let Some(way) = way(&mut self.ways, to) else {
            return;
        };
        let slots = way.writer.ring.slots.len();
        let limit = if packet.is_video() {
            slots - slots / 4 // a picture with holes is bad, sound with holes is worse
        } else {
            slots - KEPT_FOR_NOTICES
        };
        if way.packet(limit, Message::Packet(*packet), bytes) {
            self.counters.relayed += 1;
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Something that must arrive.
    pub fn message(&mut self, to: u8, message: Message) {
        if let Some(way) = way(&mut self.ways, to) {
            way.backlog.push_back(message);
            way.fill();
        }
    }

    /// Let the others see what was written, and wake those who sleep.
    pub fn publish(&mut self) {
        for way in self.ways.iter_mut().flatten() {
            way.fill();
            if way.writer.publish() {
                way.bell.ring();
            }
        }
    }
}

fn way(ways: &mut [Option<Way>], to: u8) -> Option<&mut Way> {
    ways.get_mut(usize::from(to))?.as_mut()
}

impl Way {
    fn packet(&mut self, limit: usize, message: Message, bytes: &[u8]) -> bool {
        if !self.backlog.is_empty() || bytes.len() > SLOT_BYTES || !self.writer.has_room(limit) {
            return false;
        }
        self.writer.put(message, bytes);
        true
    }

    /// What waited goes first.
    fn fill(&mut self) {
        let all = self.writer.ring.slots.len();
        while !self.backlog.is_empty() && self.writer.has_room(all) {
            if let Some(message) = self.backlog.pop_front() {
                self.writer.put(message, &[]);
            }
        }
    }
}

/// Rings between all pairs of threads: what each writes, and what each reads with whose it is.
pub fn connect(bells: &[Arc<Bell>]) -> Vec<(Relays, Vec<(u8, Reader)>)> {
    let mut ends: Vec<_> = bells
        .iter()
        .map(|_| (Relays::default(), Vec::new()))
        .collect();
    for from in 0..bells.len() {
        for (to, bell) in bells.iter().enumerate() {
            if to == from {
                ends[from].0.ways.push(None);
                continue;
            }
            let (writer, reader) = ring(slots(bells.len()));
            ends[from].0.ways.push(Some(Way {
                writer,
                bell: Arc::clone(bell),
                backlog: VecDeque::new(),
                strangers: Strangers::new(slots(bells.len())),
                crowd: Crowd::new(),
            }));
            ends[to].1.push((from as u8, reader));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parley_core::id::TransportId;

    use super::*;
    use crate::sys;

    fn path(port: u16) -> Path {
        Path {
            socket: 0,
            local: [127, 0, 0, 1].into(),
            remote: ([127, 0, 0, 1], port).into(),
        }
    }

    fn pair() -> (Relays, Reader, Arc<Bell>) {
        let bells: Vec<_> = (0..2)
            .map(|_| Arc::new(Bell::new().expect("eventfd")))
            .collect();
        let mut ends = connect(&bells);
        let reader = ends[1].1.pop().expect("from the first").1;
        (ends.swap_remove(0).0, reader, Arc::clone(&bells[1]))
    }

    fn drain(reader: &mut Reader) -> Vec<(Option<u16>, usize)> {
        let mut got = Vec::new();
        reader.look();
        while let Some((message, bytes)) = reader.next() {
            let port = match message {
                Message::Datagram(path) => Some(path.remote.port()),
                _ => None,
            };
            got.push((port, bytes.len()));
        }
        reader.release();
        got
    }

    #[test]
    fn strangers_have_a_sixteenth_and_notices_always_arrive_in_order() {
        let (mut relays, mut reader, _bell) = pair();
        for port in 0..2_000 {
            relays.datagram(1, &path(port), &[1; 100], true);
        }
        assert_eq!(relays.counters.passed_on, 64);
        assert_eq!(relays.counters.strangers, 2_000 - 64);
        for port in 0..2_000 {
            relays.datagram(1, &path(port), &[1; 200], false);
        }
        assert_eq!(relays.counters.passed_on, 1_024 - 32);
        for id in 0..100 {
            relays.message(1, Message::Notice(Notice::Failed(TransportId(id))));
        }
        assert!(relays.is_waiting() && !relays.is_behind());
        relays.datagram(1, &path(1), &[1; 100], false);
        let before = relays.counters;
        assert!(drain(&mut reader).is_empty(), "not published");
        relays.publish();
        let first = drain(&mut reader);
        assert_eq!(first.len(), 1_024);
        assert!(first[..992].iter().all(|(port, _)| port.is_some()));
        relays.datagram(1, &path(1), &[1; 100], false);
        assert_eq!(
            relays.counters.dropped,
            before.dropped + 1,
            "a notice waits before it"
        );
        relays.publish();
        assert_eq!(drain(&mut reader), vec![(None, 0); 68]);
        assert!(!relays.is_waiting());
    }

    #[test]
    fn who_floods_has_half_and_leaves_the_rest_to_others() {
        let (mut relays, mut reader, _bell) = pair();
        let flood = |relays: &mut Relays, count| {
            let before = relays.counters.passed_on;
            for _ in 0..count {
                relays.datagram(1, &path(1), &[1; 100], false);
            }
            relays.counters.passed_on - before
        };
        assert_eq!(flood(&mut relays, 2_000), 512 + 32);
        for port in 2..22 {
            relays.datagram(1, &path(port), &[2; 100], false);
        }
        assert_eq!(relays.counters.passed_on, 512 + 32 + 20);
        assert_eq!(flood(&mut relays, 100), 0);
        relays.publish();
        reader.look();
        for _ in 0..200 {
            assert!(reader.next().is_some());
        }
        reader.release();
        assert_eq!(flood(&mut relays, 2_000), 200 - 32 - 20 + 32, "a new count");
        for port in 0..200 {
            relays.datagram(1, &path(port), &[1; 100], true);
        }
        assert_eq!(relays.counters.strangers, 200 - 64);
        relays.publish();
        assert_eq!(drain(&mut reader).len(), 512 + 32 + 64);
        for port in 0..200 {
            relays.datagram(1, &path(port), &[1; 100], true);
        }
        assert_eq!(relays.counters.strangers, 2 * (200 - 64));
    }

    #[test]
    fn nobody_rings_for_who_is_awake() {
        let (mut relays, mut reader, bell) = pair();
        let rang = || sys::wait(&[bell.wake.raw()], Duration::ZERO) == 1;
        relays.datagram(1, &path(1), &[1], false);
        relays.publish();
        assert!(!rang());
        assert!(!reader.is_empty());
        drain(&mut reader);
        bell.fall_asleep();
        relays.publish();
        assert!(!rang(), "nothing new");
        relays.datagram(1, &path(1), &[1], false);
        relays.publish();
        assert!(rang());
        bell.wake.clear();
        relays.datagram(1, &path(1), &[1], false);
        relays.publish();
        assert!(!rang(), "once is enough");
    }

    /// Two threads at full speed, one of which sleeps whenever it can: everything written arrives once, whole and in
    /// order, and nobody is left asleep.
    #[test]
    fn a_storm_arrives_whole_and_in_order() {
        const COUNT: u32 = 300_000;
        let (mut relays, mut reader, bell) = pair();
        let writer = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < COUNT {
                for _ in 0..1 + sent % 61 {
                    let mut bytes = [0; 900];
                    let len = 4 + (sent as usize * 7) % 896;
                    bytes[..4].copy_from_slice(&sent.to_be_bytes());
                    bytes[4..len].fill(sent as u8);
                    let before = relays.counters.dropped;
                    relays.datagram(1, &path(sent as u16), &bytes[..len], false);
                    if relays.counters.dropped > before {
                        std::thread::yield_now();
                        break; // full: again
                    }
                    sent += 1;
                    if sent == COUNT {
                        break;
                    }
                }
                relays.publish();
            }
            relays.counters.passed_on
        });
        let mut next = 0u32;
        while next < COUNT {
            bell.fall_asleep();
            if reader.is_empty() {
                let ready = sys::wait(&[bell.wake.raw()], Duration::from_secs(5));
                assert!(ready == 1 || !reader.is_empty(), "left asleep at {next}");
            }
            bell.is_up();
            bell.wake.clear();
            reader.look();
            while let Some((message, bytes)) = reader.next() {
                assert!(
                    matches!(message, Message::Datagram(own) if own.remote.port() == next as u16)
                );
                assert_eq!(bytes.len(), 4 + (next as usize * 7) % 896);
                assert_eq!(bytes[..4], next.to_be_bytes());
                assert!(bytes[4..].iter().all(|byte| *byte == next as u8));
                next += 1;
                if next % 64 == 0 {
                    reader.release();
                }
            }
            reader.release();
        }
        assert_eq!(writer.join().expect("whole"), u64::from(COUNT));
    }
}
