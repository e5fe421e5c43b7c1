//! Many connections behind one descriptor: epoll, and listeners as we need them (Linux only).
//!
//! Not here: what the connections carry (`stream`), UDP (`sys`).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

use crate::sys::{check, set_option, Name};

/// Connections that wait to be accepted.
const BACKLOG: c_int = 128;
/// Events of one look.
pub const READY: usize = 64;

/// What became possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// The number it was added under.
    pub token: u64,
    /// There is something to read, or the end.
    pub can_read: bool,
    /// There is room to write.
    pub can_write: bool,
}

/// A set of descriptors; readable itself while one of them is ready.
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked and owned by nobody else.
        unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn control(&self, operation: c_int, fd: RawFd, events: c_int, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: one live event, which the kernel copies.
        check(unsafe { libc::epoll_ctl(self.raw(), operation, fd, &mut event) })?;
        Ok(())
    }

    /// Watch a descriptor for reading.
    pub fn add(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), libc::EPOLLIN, token)
    }

    /// Watch it for reading, writing, both or nothing.
    pub fn change(&self, fd: &impl AsRawFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        let reading = if read { libc::EPOLLIN } else { 0 };
        let writing = if write { libc::EPOLLOUT } else { 0 };
        self.control(
            libc::EPOLL_CTL_MOD,
            fd.as_raw_fd(),
            reading | writing,
            token,
        )
    }

    /// Watch it no longer; it lives on elsewhere.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    /// What is ready now; closing a descriptor removes it.
    pub fn look(&self, ready: &mut [Ready; READY]) -> usize {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; READY];
        // SAFETY: READY live events; a timeout of 0 never blocks.
        let count = unsafe { libc::epoll_wait(self.raw(), events.as_mut_ptr(), READY as c_int, 0) };
        let count = usize::try_from(count).unwrap_or(0); // an error is a signal: look again later
        for (entry, event) in ready.iter_mut().zip(&events[..count]) {
            let bits = event.events as c_int;
            let is_over = bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
            *entry = Ready {
                token: event.u64,
                can_read: is_over || bits & libc::EPOLLIN != 0,
                can_write: is_over || bits & libc::EPOLLOUT != 0,
            };
        }
        count
    }
}

/// Listen. IPv6 listeners take IPv6 only, so that `0.0.0.0` and `::` may share a port number.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the result is checked.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Connections of a worker that just ended must not keep the next one from starting.
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    let mut name = Name::new(address);
    // SAFETY: the pointer and the length describe one live socket address.
    check(unsafe { libc::bind(fd.as_raw_fd(), name.as_mut_ptr().cast(), name.len) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(fd))
}

/// A small send buffer: what waits in the kernel can no longer be dropped in favour of something fresher.
pub fn limit_send_buffer(stream: &TcpStream, bytes: c_int) -> io::Result<()> {
    set_option(stream, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)
}
