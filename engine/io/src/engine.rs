//! The handle that callers hold: queue a command, drain events, read the last report, stop.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use parley_core::plane::Plane;
use parley_core::wire::Event;
use ring::rand::{SecureRandom, SystemRandom};

use crate::batch::Outbox;
use crate::command::Command;
use crate::epoll;
use crate::ring::Ring;
use crate::run::{keep_panics_short, Loop, Report, SharedReport, THREAD_NAME};
use crate::stream::Streams;
use crate::sys::{self, EventFd, Socket};

/// Commands that may wait: a room of a hundred people who all join at once is about 10,000 subscriptions.
const COMMANDS: usize = 65_536;
/// Bytes of each socket buffer: about 20 ms at 1.6 Gbit/s.
const SOCKET_BUFFER_BYTES: i32 = 4 << 20;
/// Listen addresses of one engine.
const MAX_SOCKETS: usize = 32;
/// Tries to find one free port number on all addresses.
const PORT_TRIES: usize = 16;

/// The command queue is full: the thread is stuck or hopelessly behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What may be switched off.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Accept ICE over TCP on the same port number (RFC 6544).
    pub tcp: bool,
    /// Mark datagrams (RFC 8837).
    pub dscp: bool,
}

/// What both sides hold.
pub struct Shared {
    pub ring: Ring,
    pub wake: EventFd,
    pub report: SharedReport,
    stopping: AtomicBool,
}

impl Shared {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new()?,
            wake: EventFd::new()?,
            report: Mutex::default(),
            stopping: AtomicBool::new(false),
        })
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Set in the environment, every datagram is a message of its own: to compare, and for a device that fails silently.
const NO_SEGMENTS: &str = "PARLEY_NO_GSO";

/// A running data plane.
pub struct Engine {
    shared: Arc<Shared>,
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    next_handle: AtomicU64,
    port: u16,
}

impl Engine {
    /// Bind one port on every address and start the thread.
    ///
    /// # Errors
    /// When a port cannot be bound or the system gives no descriptors or thread.
    pub fn start(listen: &[IpAddr], port: u16, options: Options) -> io::Result<Self> {
        if listen.is_empty() || listen.len() > MAX_SOCKETS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "1 to 32 listen addresses",
            ));
        }
        let (sockets, listeners) = bind_all(listen, port, options.tcp)?;
        let port = sockets[0].bound.port();
        for socket in &sockets {
            socket.set_buffers(SOCKET_BUFFER_BYTES)?;
            if std::env::var_os(NO_SEGMENTS).is_some() {
                socket.never_segment();
            }
            if options.dscp {
                // Most datagrams are video, so the socket has its mark and only audio carries one of its own:
                // free for video, 40 ns of about 850 for audio. A second socket on the port would take flows.
                sys::mark(socket, socket.bound.is_ipv4(), sys::ASSURED_41)?;
            }
        }
        let streams = Streams::new(listeners, options.dscp.then_some(sys::ASSURED_41))?;
        let outbox = Outbox::new(sockets, streams, options.dscp);
        let mut seed = [0; 8];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| io::Error::other("no randomness"))?;
        let shared = Arc::new(Shared::new()?);
        let (commands, queue) = sync_channel(COMMANDS);
        let plane = Plane::new(u64::from_ne_bytes(seed));
        keep_panics_short();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || {
                Loop::new(plane, outbox, queue, for_thread).run();
            })?;
        Ok(Self {
            shared,
            commands,
            thread: Mutex::new(Some(thread)),
            next_handle: AtomicU64::new(1),
            port,
        })
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

    /// A number that no transport, publication or subscription of this engine has had.
    pub fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Queue a command. After `close` it is ignored.
    ///
    /// # Errors
    /// `Full`.
    pub fn submit(&self, command: Command) -> Result<(), Full> {
        use std::sync::mpsc::TrySendError;
        match self.commands.try_send(command) {
            Ok(()) => {
                self.shared.wake.signal();
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

    /// The thread's last report, at most 250 ms old.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stop the thread and close everything. Idempotent.
    pub fn close(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.signal();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
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

fn bind_rest(
    first: Socket,
    listen: &[IpAddr],
    port: u16,
    tcp: bool,
) -> io::Result<(Vec<Socket>, Vec<TcpListener>)> {
    let mut sockets = vec![first];
    for ip in &listen[1..] {
        sockets.push(Socket::bind(SocketAddr::new(*ip, port))?);
    }
    let streaming = listen.iter().filter(|_| tcp);
    let listeners = streaming.map(|ip| epoll::listen(SocketAddr::new(*ip, port)));
    Ok((sockets, listeners.collect::<io::Result<_>>()?))
}

/// The same port number everywhere, also when any will do.
fn bind_all(
    listen: &[IpAddr],
    port: u16,
    tcp: bool,
) -> io::Result<(Vec<Socket>, Vec<TcpListener>)> {
    let mut tries = 0;
    loop {
        let first = Socket::bind(SocketAddr::new(listen[0], port))?;
        let chosen = first.bound.port();
        tries += 1;
        match bind_rest(first, listen, chosen, tcp) {
            Ok(bound) => return Ok(bound),
            Err(why) if port != 0 || why.kind() != io::ErrorKind::AddrInUse => return Err(why),
            Err(why) if tries == PORT_TRIES => return Err(why),
            Err(_) => {} // somebody has that number on another address: take the next one
        }
    }
}
