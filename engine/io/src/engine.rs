//! The handle that callers hold: queue a command, drain events, read the last report, stop.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use parley_core::plane::Plane;
use parley_core::shard::{self as homes, Shard};
use parley_core::sources::Sources;
use parley_core::wire::Event;
use ring::rand::{SecureRandom, SystemRandom};

use crate::batch::Outbox;
use crate::command::Command;
use crate::pictures::Pictures;
use crate::relay::{self, Bell, Reader};
use crate::report::Report;
use crate::ring::Ring;
use crate::run::{keep_panics_short, Loop};
use crate::shard::{self, Seat};
use crate::stream::Streams;
use crate::sys::{self, Socket};

/// Commands that may wait: a room of a hundred people who all join at once is about 10,000 subscriptions.
const COMMANDS: usize = 65_536;
/// Bytes of each socket buffer: about 20 ms at 1.6 Gbit/s.
const SOCKET_BUFFER_BYTES: i32 = 4 << 20;
/// Listen addresses of one engine: two sockets of each, the bell and the streams are bits of one word.
pub const MAX_LISTEN: usize = 31;

/// The command queue is full: a thread is stuck or hopelessly behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What may be switched off.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Accept ICE over TCP on the same port number (RFC 6544).
    pub tcp: bool,
    /// Mark datagrams (RFC 8837).
    pub dscp: bool,
    /// Data-plane threads; 0 = one for each usable CPU.
    pub shards: usize,
}

/// What all threads and the callers hold.
pub struct Shared {
    pub ring: Ring,
    /// Zero of every thread's clock.
    pub started: Instant,
    stopping: AtomicBool,
}

impl Shared {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new()?,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
        })
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Set in the environment, every datagram is a message of its own: to compare, and for a device that fails silently.
const NO_SEGMENTS: &str = "PARLEY_NO_GSO";

/// Set in the environment, video is never shed: benchmarks saturate threads on purpose.
const NO_SHEDDING: &str = "PARLEY_NO_SHEDDING";

/// The callers' end of one thread.
struct Handle {
    seat: Arc<Seat>,
    commands: SyncSender<Command>,
}

/// A running data plane: one thread, or several on the same port.
pub struct Engine {
    shared: Arc<Shared>,
    shards: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_number: AtomicU64,
    port: u16,
}

impl Engine {
    /// Bind one port on every address and start the threads.
    ///
    /// # Errors
    /// When a port cannot be bound or the system gives no descriptors or thread.
    pub fn start(listen: &[IpAddr], port: u16, options: Options) -> io::Result<Self> {
        if listen.is_empty() || listen.len() > MAX_LISTEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "1 to 31 listen addresses",
            ));
        }
        let count = shard::count(options.shards);
        let bound = shard::bind_all(listen, port, options.tcp, count)?;
        let port = bound.sockets[0][0].bound.port();
        for socket in bound.sockets.iter().flatten() {
            prepare(socket, options)?;
        }
        let mut pictures = Pictures::default();
        if count == 1 {
            pictures = Pictures::beside(&bound.sockets[0]);
            for socket in &pictures.sockets {
                prepare(socket, options)?;
            }
        }
        let shared = Arc::new(Shared::new()?);
        let bells = (0..count)
            .map(|_| Bell::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let ends = relay::connect(&bells);
        let mut listeners = bound.listeners;
        let mut engine = Self {
            shared,
            shards: Vec::with_capacity(count),
            threads: Mutex::default(),
            next_number: AtomicU64::new(1),
            port,
        };
        keep_panics_short();
        // What one source may have, all shards count together.
        let (half_open, connections) = (Arc::default(), Arc::default());
        for (((own, sockets), bell), (relays, incoming)) in
            bound.sockets.into_iter().enumerate().zip(bells).zip(ends)
        {
            let mark = options.dscp.then_some(sys::ASSURED_41);
            // Connections come to the first thread and go where their first check belongs.
            let mut streams = Streams::new(std::mem::take(&mut listeners), mark)?;
            streams.share(count, Arc::clone(&connections));
            let outbox = Outbox::new(sockets, streams, relays, options.dscp);
            let shard = Shard {
                own: own as u8,
                count: count as u8,
            };
            let half_open = Arc::clone(&half_open);
            let pictures = std::mem::take(&mut pictures);
            engine.add(shard, half_open, bell, outbox, pictures, incoming)?;
        }
        Ok(engine)
    }

    fn add(
        &mut self,
        shard: Shard,
        half_open: Arc<Sources>,
        bell: Arc<Bell>,
        outbox: Outbox,
        pictures: Pictures,
        incoming: Vec<(u8, Reader)>,
    ) -> io::Result<()> {
        let mut seed = [0; 8];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| io::Error::other("no randomness"))?;
        let mut plane = Plane::new(u64::from_ne_bytes(seed));
        plane.set_shard(shard, half_open);
        let (own, count) = (usize::from(shard.own), usize::from(shard.count));
        let seat = Arc::new(Seat::new(bell));
        let (commands, queue) = sync_channel(COMMANDS);
        let (shared, thread_seat) = (Arc::clone(&self.shared), Arc::clone(&seat));
        let thread = std::thread::Builder::new()
            .name(shard::name(own, count))
            .spawn(move || {
                shard::pin(own, count);
                Loop::new(
                    plane,
                    outbox,
                    pictures,
                    queue,
                    incoming,
                    shared,
                    thread_seat,
                )
                .run();
            })?;
        self.shards.push(Handle { seat, commands });
        self.threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    /// The bound port, of UDP and of TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The eventfd of `poll`; None after `close`.
    #[must_use]
    pub fn event_fd(&self) -> Option<RawFd> {
        self.shared.ring.fd()
    }

    /// How many threads there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Where a transport with this ufrag of ours is at home.
    #[must_use]
    pub fn shard_of(&self, ufrag: &[u8]) -> u8 {
        homes::shard_of(ufrag, self.shards.len() as u8)
    }

    /// A number that no transport, publication or subscription of this engine has had, for something at home there.
    pub fn handle(&self, home: u8) -> u64 {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        homes::handle(number, home)
    }

    /// Queue a command. After `close` it is ignored, and so is one about a handle that never was.
    ///
    /// # Errors
    /// `Full`.
    pub fn submit(&self, command: Command) -> Result<(), Full> {
        let Some(handle) = command.about() else {
            return self
                .shards
                .iter()
                .try_for_each(|shard| Self::queue(shard, command.clone()));
        };
        let home = usize::from(homes::home_of(handle));
        let shard = self.shards.get(home);
        shard.map_or(Ok(()), |shard| Self::queue(shard, command))
    }

    fn queue(shard: &Handle, command: Command) -> Result<(), Full> {
        use std::sync::mpsc::TrySendError;
        match shard.commands.try_send(command) {
            Ok(()) => {
                shard.seat.bell.wake.signal();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Full),
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// The oldest events, at most so many, and how many were lost since the last call.
    #[must_use]
    pub fn poll(&self, most: usize) -> (Vec<Event>, u64) {
        self.shared.ring.drain(most)
    }

    /// The threads' last reports, at most 250 ms old, as one.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut all = Report::default();
        for shard in &self.shards {
            let report = shard.seat.report.lock();
            all.add(&report.unwrap_or_else(PoisonError::into_inner));
        }
        all.lost_events = self.shared.ring.lost_ever();
        all
    }

    /// Stop the threads and close everything. Idempotent.
    pub fn close(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for shard in &self.shards {
            shard.seat.bell.wake.signal();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // It cannot have panicked out of the loop's guard in a way that we could mend here.
            let _ = thread.join();
        }
        self.shared.ring.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn prepare(socket: &Socket, options: Options) -> io::Result<()> {
    socket.set_buffers(SOCKET_BUFFER_BYTES)?;
    if std::env::var_os(NO_SEGMENTS).is_some() {
        socket.never_segment();
    }
    if std::env::var_os(NO_SHEDDING).is_none() {
        socket.stamp()?;
    }
    if options.dscp {
        // Most datagrams are video, so the socket has its mark and only audio carries one of its own:
        // free for video, 40 ns of about 850 for audio.
        sys::mark(socket, socket.bound.is_ipv4(), sys::ASSURED_41)?;
    }
    Ok(())
}
