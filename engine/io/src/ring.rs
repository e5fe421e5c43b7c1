//! The event ring: bounded, with an eventfd that is readable exactly while something is in it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use parley_core::media;
use parley_core::wire::Event;

use crate::sys::EventFd;

/// Events kept. With datagrams of 1,500 bytes at most that is 12 MiB.
const CAPACITY: usize = 8_192;
/// Datagrams and levels may fill only so much: the truth about a transport must get through a flood.
const CAPACITY_FOR_BULK: usize = 6_144;

struct State {
    events: VecDeque<Event>,
    lost: u64,
    lost_ever: u64,
    fd: Option<EventFd>,
}

/// Between the data-plane thread and whoever polls.
pub struct Ring(Mutex<State>);

impl Ring {
    pub fn new() -> io::Result<Self> {
        let fd = Some(EventFd::new()?);
        Ok(Self(Mutex::new(State {
            events: VecDeque::new(),
            lost: 0,
            lost_ever: 0,
            fd,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The eventfd, or None after `close`.
    pub fn fd(&self) -> Option<RawFd> {
        self.lock().fd.as_ref().map(EventFd::raw)
    }

    /// Take all events of a batch.
    pub fn push(&self, events: &mut Vec<Event>) {
        let mut state = self.lock();
        let was_empty = state.events.is_empty();
        for event in events.drain(..) {
            let is_bulk = matches!(
                event,
                Event::Datagram(..) | Event::Media(media::Event::Levels(..))
            );
            let capacity = if is_bulk { CAPACITY_FOR_BULK } else { CAPACITY };
            if state.events.len() < capacity {
                state.events.push_back(event);
            } else {
                state.lost += 1;
                state.lost_ever += 1;
            }
        }
        if was_empty && !state.events.is_empty() {
            if let Some(fd) = &state.fd {
                fd.signal();
            }
        }
    }

    /// The oldest events, at most so many, and how many were lost since the last call.
    pub fn drain(&self, most: usize) -> (Vec<Event>, u64) {
        let mut state = self.lock();
        let count = state.events.len().min(most);
        let events = state.events.drain(..count).collect();
        let lost = std::mem::take(&mut state.lost);
        if state.events.is_empty() {
            if let Some(fd) = &state.fd {
                fd.clear();
            }
        }
        (events, lost)
    }

    /// Events lost since the start.
    pub fn lost_ever(&self) -> u64 {
        self.lock().lost_ever
    }

    /// Close the eventfd; nothing more comes.
    pub fn close(&self) {
        let mut state = self.lock();
        state.fd = None;
        state.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parley_core::id::TransportId;

    use super::*;
    use crate::sys;

    #[test]
    fn readable_exactly_while_something_is_in_it() {
        let ring = Ring::new().expect("eventfd");
        let readable = || sys::wait(&[ring.fd().expect("open")], Duration::ZERO) == 1;
        assert!(!readable());
        ring.push(
            &mut (0..10)
                .map(|id| Event::Validated(TransportId(id)))
                .collect(),
        );
        assert!(readable());
        assert_eq!(ring.drain(4).0.len(), 4);
        assert!(readable());
        assert_eq!(ring.drain(100).0.len(), 6);
        assert!(!readable());
    }

    #[test]
    fn a_flood_of_datagrams_leaves_room_for_the_truth_and_is_counted() {
        let ring = Ring::new().expect("eventfd");
        let id = TransportId(1);
        let mut flood = (0..CAPACITY)
            .map(|_| Event::Datagram(id, vec![22]))
            .collect();
        ring.push(&mut flood);
        ring.push(&mut vec![Event::Expired(id)]);
        let (events, lost) = ring.drain(CAPACITY);
        assert_eq!(events.len(), CAPACITY_FOR_BULK + 1);
        assert_eq!(events.last(), Some(&Event::Expired(id)));
        assert_eq!(lost as usize, CAPACITY - CAPACITY_FOR_BULK);
        assert_eq!(ring.drain(1).1, 0);
    }
}
