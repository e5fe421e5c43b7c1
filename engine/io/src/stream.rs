//! ICE-TCP, the passive side: datagrams in connections (RFC 6544, RFC 4571 section 2: two bytes of length each).
//!
//! A connection is one more 5-tuple of the plane. Its first frame must be a check that validates it, within
//! five seconds, or it is closed; so is one whose pair lost consent. What cannot be written waits: when too much
//! does, video is dropped first, then audio; a peer that does not even take control packets is closed.
//! We never connect anywhere (S18).
//! Not here: frames out of bytes, what the datagrams mean (`parley-core`), system calls (`epoll`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::sync::Arc;

use parley_core::framing::TooLong;
pub use parley_core::framing::MAX_FRAME_BYTES;
use parley_core::hash::FastMap;
use parley_core::id::Micros;
use parley_core::sources::{source_of, Sources};
use parley_core::wire::{Path, Traffic, FIRST_LISTENER};

use crate::epoll::{self, Epoll, Ready, READY};
use crate::sys;

mod connection;
#[cfg(test)]
mod tests;

pub use connection::Connection;

/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 16;

/// Connections at once: a file descriptor each, of the usual 1,024.
const MAX_CONNECTIONS: usize = 512;
/// Of one source (an IPv4 address, an IPv6 /64): an office behind one address that lets no UDP out.
const MAX_PER_SOURCE: u8 = 64;
/// Of one source, not yet validated: in the first shard, for the others get them with their check.
const MAX_UNPROVEN_PER_SOURCE: u32 = 16;
/// To send the check in.
const PATIENCE_US: u64 = 5_000_000;

/// Half a second at 1 Mbit/s: later than that, video is of no use.
const MAX_VIDEO_QUEUE_BYTES: usize = 64 * 1024;
/// Audio alone fills the rest only when the connection has stopped for seconds.
const MAX_AUDIO_QUEUE_BYTES: usize = 128 * 1024;
/// With handshakes and answers to checks on top, the peer is gone.
const MAX_QUEUE_BYTES: usize = 192 * 1024;
/// In the kernel, in addition.
const SEND_BUFFER_BYTES: i32 = 64 * 1024;

/// What the thread counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Connections that are open.
    pub open: u64,
    /// Closed at once: too many, of one source or in all.
    pub refused: u64,
    /// Closed because they did not begin with a valid check.
    pub unproven: u64,
    /// Closed because the peer did not read.
    pub stuck: u64,
    /// Video packets dropped because too much waited.
    pub dropped_video: u64,
    /// Audio packets.
    pub dropped_audio: u64,
}

impl StreamCounters {
    /// Take another thread's in.
    pub fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.refused += other.refused;
        self.unproven += other.unproven;
        self.stuck += other.stuck;
        self.dropped_video += other.dropped_video;
        self.dropped_audio += other.dropped_audio;
    }
}

/// All listeners and connections.
pub struct Streams {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    /// Stable places; the token of a connection is its place after those of the listeners.
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    by_path: FastMap<Path, usize>,
    /// Of all shards, by source.
    sources: Arc<Sources>,
    /// Not yet validated, by source.
    unproven: HashMap<IpAddr, u32>,
    dirty: Vec<usize>,
    /// Connections to close, and their paths to tell.
    over: Vec<usize>,
    is_accepting: bool,
    dscp: Option<u8>,
    /// Connections at once.
    most: usize,
    pub counters: StreamCounters,
}

impl Streams {
    /// Accept on these.
    pub fn new(listeners: Vec<TcpListener>, dscp: Option<u8>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for (token, listener) in listeners.iter().enumerate() {
            epoll.add(listener, token as u64)?;
        }
        Ok(Self {
            epoll,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            by_path: FastMap::default(),
            sources: Arc::default(),
            unproven: HashMap::new(),
            dirty: Vec::new(),
            over: Vec::new(),
            is_accepting: true,
            dscp,
            most: MAX_CONNECTIONS,
            counters: StreamCounters::default(),
        })
    }

    /// One of so many shards, which share the descriptors and count together what each source has.
    pub fn share(&mut self, shards: usize, sources: Arc<Sources>) {
        self.most = MAX_CONNECTIONS / shards.max(1);
        self.sources = sources;
    }

    /// Readable while something is to be done.
    pub fn raw(&self) -> RawFd {
        self.epoll.raw()
    }

    /// Accept, write what waited, and say which connections have something to read.
    pub fn look(&mut self, readable: &mut Vec<usize>, now: Micros) {
        readable.clear();
        let mut ready = [Ready::default(); READY];
        let count = self.epoll.look(&mut ready);
        for entry in &ready[..count] {
            let token = entry.token as usize;
            if token < self.listeners.len() {
                self.accept(token, now);
                continue;
            }
            let at = token - self.listeners.len();
            if entry.can_write {
                self.write(at);
            }
            if entry.can_read {
                readable.push(at);
            }
        }
    }

    fn accept(&mut self, listener: usize, now: Micros) {
        for _ in 0..READY {
            match self.listeners[listener].accept() {
                Ok((stream, remote)) => {
                    if self.admit(stream, remote, listener, now).is_none() {
                        self.counters.refused += 1;
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    // No descriptors, most likely: the listener stays readable, and looking again would spin.
                    self.watch_listeners(false);
                    return;
                }
            }
        }
    }

    fn watch_listeners(&mut self, is_accepting: bool) {
        if self.is_accepting != is_accepting {
            self.is_accepting = is_accepting;
            for (token, listener) in self.listeners.iter().enumerate() {
                let _ = self
                    .epoll
                    .change(listener, token as u64, is_accepting, false);
            }
        }
    }

    /// None: dropped, which closes it.
    fn admit(
        &mut self,
        stream: TcpStream,
        remote: SocketAddr,
        listener: usize,
        now: Micros,
    ) -> Option<()> {
        let source = source_of(remote.ip());
        if self.is_full(source) {
            return None;
        }
        let counted = self.sources.count(source, MAX_PER_SOURCE)?;
        let local = stream.local_addr().ok()?.ip();
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        epoll::limit_send_buffer(&stream, SEND_BUFFER_BYTES).ok()?;
        if let Some(dscp) = self.dscp {
            let _ = sys::mark(&stream, local.is_ipv4(), dscp); // a wish, never a reason to refuse
        }
        let path = Path {
            socket: FIRST_LISTENER + listener as u8,
            local,
            remote,
        };
        let connection = Connection::new(stream, path, source, counted, now);
        self.keep(Box::new(connection)).map(|_| ())
    }

    fn is_full(&self, source: IpAddr) -> bool {
        let unproven = self.unproven.get(&source).copied().unwrap_or_default();
        self.counters.open as usize >= self.most || unproven >= MAX_UNPROVEN_PER_SOURCE
    }

    /// Watch a connection from now on; its place.
    fn keep(&mut self, connection: Box<Connection>) -> Option<usize> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        if self.epoll.add(&connection.stream, self.token(at)).is_err() {
            self.free.push(at);
            return None;
        }
        self.by_path.insert(connection.path, at);
        *self.unproven.entry(connection.source).or_default() += 1;
        self.counters.open += 1;
        self.connections[at] = Some(connection);
        Some(at)
    }

    /// A connection whose first frame, of so many bytes, names a transport of another shard: it goes there, frame and
    /// all. None for one that has proven itself.
    pub fn give_away(&mut self, at: usize, frame_bytes: usize) -> Option<Box<Connection>> {
        let connection = self.get_mut(at)?;
        if connection.is_proven || connection.is_over {
            return None;
        }
        connection.input.put_back(frame_bytes);
        let connection = self.forget(at)?;
        if self.epoll.remove(&connection.stream).is_err() {
            return None; // closes it
        }
        Some(connection)
    }

    /// A connection that another shard gave away; its place, if there is room. Frames may lie in it already.
    pub fn adopt(&mut self, connection: Box<Connection>) -> Option<usize> {
        let at = if self.is_full(connection.source) {
            None
        } else {
            self.keep(connection)
        };
        self.counters.refused += u64::from(at.is_none());
        at
    }

    fn token(&self, at: usize) -> u64 {
        (at + self.listeners.len()) as u64
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut Connection> {
        self.connections.get_mut(at)?.as_deref_mut()
    }

    /// The next whole frame of a connection, copied; reads when there is none. `reads` counts down.
    pub fn next(
        &mut self,
        at: usize,
        frame: &mut [u8; MAX_FRAME_BYTES],
        reads: &mut usize,
    ) -> Option<(Path, usize)> {
        loop {
            let connection = self.get_mut(at)?;
            if connection.is_over {
                return None;
            }
            match connection.input.take(frame) {
                Ok(Some(len)) => return Some((connection.path, len)),
                Ok(None) if *reads == 0 => return None, // level-triggered: the next look brings it back
                Ok(None) => {
                    *reads -= 1;
                    match connection.fill() {
                        Ok(0) => return None,
                        Ok(_) => {}
                        Err(_) => {
                            self.end(at);
                            return None;
                        }
                    }
                }
                Err(TooLong) => {
                    self.end(at);
                    return None;
                }
            }
        }
    }

    /// How many reads of one connection a turn has.
    pub const fn reads() -> usize {
        READS_PER_TURN
    }

    /// A frame was processed: the first one must have made the path a validated pair.
    pub fn judge(&mut self, at: usize, is_validated: bool) {
        let Some(connection) = self.get_mut(at) else {
            return;
        };
        if connection.is_proven {
            return; // later ones may be junk, as over UDP; the sweep looks at consent
        }
        if is_validated {
            connection.is_proven = true;
            let source = connection.source;
            self.proved(source);
        } else {
            self.counters.unproven += 1;
            self.end(at);
        }
    }

    /// One unproven connection of a source less.
    fn proved(&mut self, source: IpAddr) {
        if let Some(unproven) = self.unproven.get_mut(&source) {
            *unproven -= 1;
            if *unproven == 0 {
                self.unproven.remove(&source);
            }
        }
    }

    /// Once in a while: who has no business here any more.
    pub fn sweep(&mut self, now: Micros, is_validated: impl Fn(&Path) -> bool) {
        self.watch_listeners(true);
        for at in 0..self.connections.len() {
            let Some(connection) = self.get_mut(at).filter(|own| !own.is_over) else {
                continue;
            };
            let is_late = !connection.is_proven && now.since(connection.opened) > PATIENCE_US;
            let is_stale = connection.is_proven && !is_validated(&connection.path);
            if is_late {
                self.counters.unproven += 1;
            }
            if is_late || is_stale {
                self.end(at);
            }
        }
    }

    fn end(&mut self, at: usize) {
        if let Some(connection) = self.get_mut(at).filter(|own| !own.is_over) {
            connection.is_over = true;
            self.over.push(at);
        }
    }

    /// Close one that is over; its path, so that the plane hears of it.
    pub fn close_next(&mut self) -> Option<Path> {
        let at = self.over.pop()?;
        self.forget(at).map(|connection| connection.path)
    }

    /// Take a connection out of all tables.
    fn forget(&mut self, at: usize) -> Option<Box<Connection>> {
        let connection = self.connections[at].take()?;
        self.free.push(at);
        if self.by_path.get(&connection.path) == Some(&at) {
            self.by_path.remove(&connection.path); // unless its peer has come back from the same port already
        }
        if !connection.is_proven {
            self.proved(connection.source);
        }
        self.counters.open -= 1;
        Some(connection)
    }

    /// Queue a frame. Nobody there, or too much waiting: dropped.
    pub fn send(&mut self, path: &Path, frame: &[u8], traffic: Traffic) {
        let Some(&at) = self.by_path.get(path) else {
            return;
        };
        let Some(connection) = self.connections[at].as_deref_mut() else {
            return;
        };
        let Ok(len) = u16::try_from(frame.len()) else {
            return;
        };
        let waiting = connection.output.len() + 2 + frame.len();
        match traffic {
            _ if connection.is_over => return,
            Traffic::Video if waiting > MAX_VIDEO_QUEUE_BYTES => {
                self.counters.dropped_video += 1;
                return;
            }
            Traffic::Audio if waiting > MAX_AUDIO_QUEUE_BYTES => {
                self.counters.dropped_audio += 1;
                return;
            }
            Traffic::Control if waiting > MAX_QUEUE_BYTES => {
                self.counters.stuck += 1;
                self.end(at);
                return;
            }
            _ => {}
        }
        connection.output.extend(len.to_be_bytes());
        connection.output.extend(frame);
        if !connection.is_dirty && !connection.is_watched_for_room {
            connection.is_dirty = true;
            self.dirty.push(at);
        }
    }

    /// Write what was queued.
    pub fn flush(&mut self) {
        while let Some(at) = self.dirty.pop() {
            self.write(at);
        }
    }

    fn write(&mut self, at: usize) {
        let token = self.token(at);
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_deref_mut) else {
            return;
        };
        connection.is_dirty = false;
        if connection.is_over {
            return;
        }
        let Ok(is_waiting) = connection.write() else {
            self.end(at);
            return;
        };
        if is_waiting != connection.is_watched_for_room {
            connection.is_watched_for_room = is_waiting;
            if self
                .epoll
                .change(&connection.stream, token, true, is_waiting)
                .is_err()
            {
                self.end(at);
            }
        }
    }
}
