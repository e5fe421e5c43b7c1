//! ICE-TCP, the passive side: datagrams in connections (RFC 6544, RFC 4571 section 2: two bytes of length each).
//!
//! A connection is one more 5-tuple of the plane. Its first frame must be a check that validates it, within
//! five seconds, or it is closed; so is one whose pair lost consent. What cannot be written waits: when too much
//! does, video is dropped first, then audio; a peer that does not even take control packets is closed.
//! We never connect anywhere (S18).
//! Not here: what the datagrams mean (`parley-core`), system calls (`epoll`).

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::sync::Arc;

use parley_core::hash::FastMap;
use parley_core::id::Micros;
use parley_core::sources::{source_of, Counted, Sources};
use parley_core::wire::{Path, Traffic};

use crate::epoll::{self, Epoll, Ready, READY};
use crate::sys;

/// `Path::socket` of the first listener.
pub const FIRST_LISTENER: u8 = 128;
/// Largest frame taken, bytes: what fits an Ethernet packet, as over UDP.
pub const MAX_FRAME_BYTES: usize = 1_500;
/// Two frames and their lengths.
const READ_BYTES: usize = 2 * (2 + MAX_FRAME_BYTES);
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

/// One connection and what it has not read or written yet.
pub struct Connection {
    stream: TcpStream,
    path: Path,
    source: IpAddr,
    /// Among its source's, of all shards.
    _counted: Counted,
    opened: Micros,
    is_proven: bool,
    /// Part of a frame, or several.
    input: Box<[u8; READ_BYTES]>,
    start: usize,
    end: usize,
    output: VecDeque<u8>,
    is_watched_for_room: bool,
    is_dirty: bool,
    is_over: bool,
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
        self.keep(Box::new(Connection {
            stream,
            path,
            source,
            _counted: counted,
            opened: now,
            is_proven: false,
            input: Box::new([0; READ_BYTES]),
            start: 0,
            end: 0,
            output: VecDeque::new(),
            is_watched_for_room: false,
            is_dirty: false,
            is_over: false,
        }))
        .map(|_| ())
    }

    fn is_full(&self, source: IpAddr) -> bool {
        let unproven = self.unproven.get(&source).copied().unwrap_or_default();
        self.by_path.len() >= self.most || unproven >= MAX_UNPROVEN_PER_SOURCE
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
        connection.start -= 2 + frame_bytes;
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
            match connection.take_frame(frame) {
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
            let Some(connection) = self.get_mut(at) else {
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
        self.by_path.remove(&connection.path);
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

struct TooLong;

impl Connection {
    fn take_frame(&mut self, frame: &mut [u8; MAX_FRAME_BYTES]) -> Result<Option<usize>, TooLong> {
        let waiting = &self.input[self.start..self.end];
        let Some((header, rest)) = waiting.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*header));
        if len > MAX_FRAME_BYTES {
            return Err(TooLong);
        }
        let Some(bytes) = rest.get(..len) else {
            return Ok(None);
        };
        frame[..len].copy_from_slice(bytes);
        self.start += 2 + len;
        Ok(Some(len))
    }

    /// Bytes read; 0 = nothing now. The end is an error.
    fn fill(&mut self) -> io::Result<usize> {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
                Ok(count)
            }
            Err(why) if is_temporary(&why) => Ok(0),
            Err(why) => Err(why),
        }
    }

    /// Whether something still waits.
    fn write(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(why) => return Err(why),
            }
        }
        Ok(false)
    }
}

fn is_temporary(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const NOW: Micros = Micros(1_000_000_000);

    struct Scene {
        streams: Streams,
        address: SocketAddr,
        readable: Vec<usize>,
    }

    impl Scene {
        fn new() -> Self {
            let listener = epoll::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
            let address = listener.local_addr().expect("bound");
            let streams = Streams::new(vec![listener], None).expect("descriptors");
            Self {
                streams,
                address,
                readable: Vec::new(),
            }
        }

        fn connect(&mut self) -> TcpStream {
            let client = TcpStream::connect(self.address).expect("accepted by the kernel");
            self.look(NOW);
            client
        }

        fn look(&mut self, now: Micros) {
            self.streams.look(&mut self.readable, now);
        }

        /// Everything that arrived, frame by frame.
        fn frames(&mut self) -> Vec<(Path, Vec<u8>)> {
            let mut found = Vec::new();
            for _ in 0..100 {
                self.look(NOW);
                for at in self.readable.clone() {
                    let mut frame = [0; MAX_FRAME_BYTES];
                    let mut reads = Streams::reads();
                    while let Some((path, len)) = self.streams.next(at, &mut frame, &mut reads) {
                        found.push((path, frame[..len].to_vec()));
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            found
        }

        fn path(&self) -> Path {
            *self.streams.by_path.keys().next().expect("a connection")
        }

        fn closed(&mut self) -> usize {
            std::iter::from_fn(|| self.streams.close_next()).count()
        }
    }

    #[test]
    fn frames_survive_every_way_of_cutting_the_stream() {
        let mut scene = Scene::new();
        let mut client = scene.connect();
        let sent: Vec<Vec<u8>> = [1, 1_500, 20, 700, 1_499]
            .iter()
            .map(|len| vec![*len as u8; *len])
            .collect();
        let mut bytes = Vec::new();
        for frame in &sent {
            bytes.extend((frame.len() as u16).to_be_bytes());
            bytes.extend(frame);
        }
        for part in bytes.chunks(611) {
            client.write_all(part).expect("room");
        }
        let got: Vec<_> = scene.frames().into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(got, sent);
    }

    #[test]
    fn a_long_frame_and_the_end_close() {
        let mut scene = Scene::new();
        let mut client = scene.connect();
        client.write_all(&1_501u16.to_be_bytes()).expect("room");
        assert!(scene.frames().is_empty());
        assert_eq!(scene.closed(), 1);
        let client = scene.connect();
        drop(client);
        assert!(scene.frames().is_empty());
        assert_eq!(scene.closed(), 1);
        assert_eq!(scene.streams.counters.open, 0);
    }

    #[test]
    fn a_source_has_only_so_many_connections_without_a_check() {
        let mut scene = Scene::new();
        let clients: Vec<_> = (0..40).map(|_| scene.connect()).collect();
        assert_eq!(scene.streams.counters.open, 16);
        assert_eq!(scene.streams.counters.refused, 24);
        for at in 0..16 {
            scene.streams.judge(at, at < 4);
        }
        assert_eq!(scene.closed(), 12);
        drop(clients);
        let more: Vec<_> = (0..40).map(|_| scene.connect()).collect();
        assert_eq!(
            scene.streams.counters.open,
            4 + 16,
            "proven ones do not count"
        );
        drop(more);
        scene
            .streams
            .sweep(Micros(NOW.0 + PATIENCE_US + 1), |_| true);
        assert_eq!(scene.closed(), 16, "too late");
        scene.streams.sweep(NOW, |_| false);
        assert_eq!(scene.closed(), 4, "consent lost");
        assert!(scene.streams.unproven.is_empty() && scene.streams.sources.is_empty());
    }

    #[test]
    fn who_does_not_read_loses_video_then_audio_then_the_connection() {
        let mut scene = Scene::new();
        let _client = scene.connect();
        let path = scene.path();
        let frame = [0; 1_200];
        let fill = |scene: &mut Scene, traffic, count| {
            for _ in 0..count {
                scene.streams.send(&path, &frame, traffic);
                scene.streams.flush();
            }
        };
        // The kernels' buffers take some megabytes first.
        while scene.streams.counters.dropped_video == 0 {
            fill(&mut scene, Traffic::Video, 100);
        }
        assert_eq!(scene.streams.counters.dropped_audio, 0);
        fill(&mut scene, Traffic::Audio, 1_000);
        assert!(scene.streams.counters.dropped_audio > 900);
        assert_eq!(scene.closed(), 0);
        fill(&mut scene, Traffic::Control, 1_000);
        assert_eq!(scene.streams.counters.stuck, 1);
        assert_eq!(scene.closed(), 1);
    }
}
