//! Two arenas of 64 datagrams: what one call brought in, and what the next call takes out.

use std::io;
use std::net::IpAddr;

use parley_core::media::Relayed;
use parley_core::shard::Notice;
use parley_core::wire::{Event, Output, Path, Traffic, FIRST_LISTENER, SLOT_BYTES};

use crate::clock;
use crate::relay::{Message, Relays};
use crate::stream::Streams;
use crate::sys::{self, Control, Name, Outgoing, Part, Received, Socket, BATCH};

/// Larger than any datagram that a peer of ours may send; a longer one is cut and dropped.
pub const INBOX_BYTES: usize = 2_048;
/// No datagram lies in a socket for so long.
const NONSENSE_US: u64 = 10_000_000;

/// Received datagrams.
pub struct Inbox {
    bytes: Box<[[u8; INBOX_BYTES]; BATCH]>,
    names: Box<[Name; BATCH]>,
    controls: Box<[Control; BATCH]>,
    received: [Received; BATCH],
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            bytes: Box::new([[0; INBOX_BYTES]; BATCH]),
            names: Box::new([Name::empty(); BATCH]),
            controls: Box::new([Control::EMPTY; BATCH]),
            received: [Received::default(); BATCH],
        }
    }

    /// Take what is there, at most a batch.
    pub fn fill(&mut self, socket: &Socket) -> io::Result<usize> {
        self.names.fill(Name::empty());
        let rows = self
            .bytes
            .iter_mut()
            .zip(self.names.iter_mut())
            .zip(self.controls.iter_mut());
        let parts = rows.map(|((bytes, name), control)| Part {
            bytes,
            name,
            control: &mut control.0,
        });
        sys::receive(socket, parts, &mut self.received)
    }

    /// How long the first of the batch lay in the socket, microseconds; 0 when nobody knows.
    pub fn waited_us(&self) -> u64 {
        match self.received[0].stamp_us {
            0 => 0,
            // A clock that was set meanwhile tells nothing.
            stamp_us => Some(clock::wall_us().saturating_sub(stamp_us))
                .filter(|waited_us| *waited_us < NONSENSE_US)
                .unwrap_or(0),
        }
    }

    /// One of them: its 5-tuple and its bytes. None if it was cut or came from nowhere.
    pub fn take(&mut self, at: usize, index: u8, socket: &Socket) -> Option<(Path, &mut [u8])> {
        let received = self.received[at];
        let remote = self.names[at].address()?;
        if received.is_truncated {
            return None;
        }
        let local: IpAddr = received.local.unwrap_or_else(|| socket.bound.ip());
        let path = Path {
            socket: index,
            local,
            remote,
        };
        Some((path, self.bytes[at].get_mut(..received.len)?))
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Default)]
struct Entry {
    socket: u8,
    bytes: usize,
    control_bytes: usize,
    /// Goes where the one before it goes, marked alike.
    follows: bool,
}

/// Datagrams to send and events to tell, collected until `flush`.
pub struct Outbox {
    sockets: Vec<Socket>,
    /// Connections; their datagrams do not wait here.
    pub streams: Streams,
    /// To other shards.
    pub relays: Relays,
    /// Audio is marked apart from the rest.
    is_marking: bool,
    slots: Box<[[u8; SLOT_BYTES]; BATCH]>,
    names: Box<[Name; BATCH]>,
    controls: Box<[Control; BATCH]>,
    entries: [Entry; BATCH],
    count: usize,
    /// Where the newest slot goes, and whether it is marked as audio.
    last: Option<(Path, bool)>,
    /// Datagrams that the kernel refused.
    pub refused: u64,
    /// Not yet told.
    pub events: Vec<Event>,
}

impl Outbox {
    pub fn new(sockets: Vec<Socket>, streams: Streams, relays: Relays, is_marking: bool) -> Self {
        Self {
            sockets,
            streams,
            relays,
            is_marking,
            slots: Box::new([[0; SLOT_BYTES]; BATCH]),
            names: Box::new([Name::empty(); BATCH]),
            controls: Box::new([Control::EMPTY; BATCH]),
            entries: [Entry::default(); BATCH],
            count: 0,
            last: None,
            refused: 0,
            events: Vec::new(),
        }
    }

    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Send everything, one call per run of the same socket.
    pub fn flush(&mut self) {
        // First, so that a peer that answers what leaves below finds every shard informed.
        self.relays.publish();
        if self.count > 0 {
            self.flush_datagrams();
        }
        self.streams.flush();
    }

    fn flush_datagrams(&mut self) {
        let parts: [Outgoing<'_>; BATCH] = std::array::from_fn(|at| {
            let entry = &self.entries[at];
            Outgoing {
                bytes: &self.slots[at][..entry.bytes],
                name: &self.names[at],
                control: &self.controls[at].0[..entry.control_bytes],
                follows: entry.follows,
            }
        });
        let mut start = 0;
        while start < self.count {
            let socket = self.entries[start].socket;
            let run = self.entries[start..self.count]
                .iter()
                .take_while(|entry| entry.socket == socket);
            let end = start + run.count();
            let socket = &self.sockets[usize::from(socket)];
            self.refused += sys::send(socket, &parts[start..end]) as u64;
            start = end;
        }
        self.last = None;
        self.count = 0;
    }
}

impl Output for Outbox {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slots[self.count]
    }

    fn commit(&mut self, path: &Path, len: usize) {
        self.commit_as(path, len, Traffic::Control);
    }

    fn commit_as(&mut self, path: &Path, len: usize, traffic: Traffic) {
        if path.socket >= FIRST_LISTENER {
            let frame = &self.slots[self.count][..len];
            self.streams.send(path, frame, traffic);
            return;
        }
        let Some(socket) = self.sockets.get(usize::from(path.socket)) else {
            return;
        };
        self.names[self.count] = Name::new(path.remote);
        let mut control = 0;
        if socket.is_wildcard() {
            control = sys::write_source(&mut self.controls[self.count], control, path.local);
        }
        let is_marked = self.is_marking && traffic == Traffic::Audio;
        if is_marked {
            let is_ipv4 = path.remote.is_ipv4();
            let room = &mut self.controls[self.count];
            control = sys::write_mark(room, control, is_ipv4, sys::EXPEDITED);
        }
        let way = (*path, is_marked);
        self.entries[self.count] = Entry {
            socket: path.socket,
            bytes: len,
            control_bytes: control,
            follows: self.last == Some(way),
        };
        self.last = Some(way);
        self.count += 1;
        if self.count == BATCH {
            self.flush();
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn pass(&mut self, to: u8, path: &Path, datagram: &[u8], is_stranger: bool) {
        self.relays.datagram(to, path, datagram, is_stranger);
    }

    fn relay(&mut self, to: u8, packet: &Relayed, bytes: &[u8]) {
        self.relays.packet(to, packet, bytes);
    }

    fn notify(&mut self, to: u8, notice: Notice) {
        self.relays.message(to, Message::Notice(notice));
    }

    fn is_behind(&self) -> bool {
        self.relays.is_behind()
    }
}
