//! From one data-plane thread to another: a ring of slots that exist from the start, and a bell for who sleeps.
//!
//! One thread writes a ring and one reads it, so neither locks nor allocates. What is written becomes visible at
//! `publish`, once per batch. Packets that find the ring full are dropped and counted; notices wait until there is
//! room, and packets behind them are dropped meanwhile, so that order is kept.
//! Not here: what travels (`parley-core`), who is at home where (`shard`).

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use parley_core::media::Relayed;
use parley_core::shard::Notice;
use parley_core::wire::Path;

use crate::batch::INBOX_BYTES;
use crate::stream::Connection;
use crate::sys::EventFd;

mod budget;
#[cfg(test)]
mod tests;

use budget::{Crowd, Strangers};

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
    bytes: [u8; INBOX_BYTES],
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
            bytes: [0; INBOX_BYTES],
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
        if !self.backlog.is_empty() || bytes.len() > INBOX_BYTES || !self.writer.has_room(limit) {
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
