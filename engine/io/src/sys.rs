//! The system calls that the standard library lacks, each behind a safe face (Linux only).

use std::cell::Cell;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::{c_int, c_void, sockaddr_in, sockaddr_in6, socklen_t};

mod sending;

pub use sending::{mark, send, write_mark, write_source, Outgoing, ASSURED_41, EXPEDITED};

/// Room for the control messages of one datagram, aligned as their headers must be: IPV6_PKTINFO (or
/// IP_PKTINFO), and two integers on the way out or a time on the way in.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control(pub [u8; 88]);

impl Control {
    pub const EMPTY: Self = Self([0; 88]);
}

/// A socket address as the kernel reads it, in the room that the larger of the two families needs.
#[derive(Clone, Copy)]
pub struct Name {
    storage: sockaddr_in6,
    pub len: socklen_t,
}

impl Name {
    /// Room for the kernel to write one.
    pub fn empty() -> Self {
        Self {
            // SAFETY: sockaddr_in6 is plain data; all zeros is a valid (unspecified) address.
            storage: unsafe { zeroed() },
            len: size_of::<sockaddr_in6>() as socklen_t,
        }
    }

    pub fn new(address: SocketAddr) -> Self {
        let mut name = Self::empty();
        let storage: *mut sockaddr_in6 = &mut name.storage;
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: sockaddr_in6 is larger than sockaddr_in and as aligned; both begin with the family.
                let raw = unsafe { &mut *storage.cast::<sockaddr_in>() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                name.len = size_of::<sockaddr_in>() as socklen_t;
            }
            SocketAddr::V6(v6) => {
                let raw = &mut name.storage;
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_scope_id = v6.scope_id();
                name.len = size_of::<sockaddr_in6>() as socklen_t;
            }
        }
        name
    }

    pub fn address(&self) -> Option<SocketAddr> {
        match c_int::from(self.storage.sin6_family) {
            libc::AF_INET => {
                let storage: *const sockaddr_in6 = &self.storage;
                // SAFETY: the family says that it is a sockaddr_in, which is smaller and as aligned.
                let raw = unsafe { &*storage.cast::<sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
            }
            libc::AF_INET6 => {
                let raw = &self.storage;
                let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
                let port = u16::from_be(raw.sin6_port);
                Some(SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    fn as_ptr(&self) -> *const c_void {
        let storage: *const sockaddr_in6 = &self.storage;
        storage.cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut c_void {
        let storage: *mut sockaddr_in6 = &mut self.storage;
        storage.cast()
    }
}

/// A bound, non-blocking UDP socket.
pub struct Socket {
    fd: OwnedFd,
    pub bound: SocketAddr,
    /// The kernel cuts long messages into datagrams (UDP_SEGMENT); false once it, or a device, said no.
    can_segment: Cell<bool>,
}

impl Socket {
    /// Bind; port 0 = any. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `::` may share a port number.
    ///
    /// Never fragmented, and deaf to what ICMP says of the path: our datagrams fit 1,280 bytes (N9), and a forged
    /// "too big" must not silence us.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_as(address, false)
    }

    /// As `bind`, on a port that `share`d sockets of ours have already.
    pub fn bind_beside(address: SocketAddr) -> io::Result<Self> {
        Self::bind_as(address, true)
    }

    /// Let other sockets bind the same port beside this one, which was bound alone: nobody else had the port.
    pub fn share(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
    }

    fn bind_as(address: SocketAddr, is_beside: bool) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked.
        let fd = check(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if address.is_ipv4() {
            set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            let probe = libc::IP_PMTUDISC_PROBE;
            set_option(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe)?;
        } else {
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            let probe = libc::IPV6_PMTUDISC_PROBE;
            set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
        }
        if is_beside {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        let mut name = Name::new(address);
        // SAFETY: the pointer and the length describe one live socket address.
        check(unsafe { libc::bind(fd.as_raw_fd(), name.as_mut_ptr().cast(), name.len) })?;
        name = Name::empty();
        // SAFETY: the kernel writes at most `len` bytes, the size of the storage.
        check(unsafe {
            libc::getsockname(fd.as_raw_fd(), name.as_mut_ptr().cast(), &mut name.len)
        })?;
        let bound = name
            .address()
            .ok_or_else(|| io::Error::other("not an internet socket"))?;
        Ok(Self {
            fd,
            bound,
            can_segment: Cell::new(true),
        })
    }

    /// Have the kernel note when datagrams arrive.
    pub fn stamp(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
    }

    /// Send every datagram as a message of its own.
    pub fn never_segment(&self) {
        self.can_segment.set(false);
    }

    /// Ask for buffers of so many bytes, beyond the system's limit where we may.
    pub fn set_buffers(&self, bytes: c_int) -> io::Result<()> {
        for (force, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            if set_option(&self.fd, libc::SOL_SOCKET, force, bytes).is_err() {
                set_option(&self.fd, libc::SOL_SOCKET, plain, bytes)?;
            }
        }
        Ok(())
    }

    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether datagrams for several addresses of ours arrive here.
    pub fn is_wildcard(&self) -> bool {
        self.bound.ip().is_unspecified()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

pub fn set_option(fd: &impl AsRawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let pointer: *const c_int = &value;
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer and the length describe one live integer.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer.cast(), len) })?;
    Ok(())
}

pub fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Room for one datagram, its address and its control data.
pub struct Part<'a> {
    pub bytes: &'a mut [u8],
    pub name: &'a mut Name,
    pub control: &'a mut [u8],
}

/// Most messages of one call.
pub const BATCH: usize = 64;

/// What one received message came with.
#[derive(Clone, Copy, Default)]
pub struct Received {
    pub len: usize,
    pub is_truncated: bool,
    pub local: Option<IpAddr>,
    /// When the kernel had it, since 1970, microseconds; 0 = unknown. Of the first of a batch only.
    pub stamp_us: u64,
}

struct Headers {
    messages: [libc::mmsghdr; BATCH],
    vectors: [libc::iovec; BATCH],
    count: usize,
}

impl Headers {
    fn new() -> Self {
        // SAFETY: both are plain C data; all zeros means "no buffers".
        unsafe {
            Self {
                messages: zeroed(),
                vectors: zeroed(),
                count: 0,
            }
        }
    }

    /// Point at the parts. The caller keeps them alive and this value in place until the call is over.
    fn point<'a>(&mut self, parts: impl Iterator<Item = Part<'a>>) {
        self.count = 0;
        for (at, part) in parts.take(BATCH).enumerate() {
            self.vectors[at] = libc::iovec {
                iov_base: part.bytes.as_mut_ptr().cast(),
                iov_len: part.bytes.len(),
            };
            let header = &mut self.messages[at].msg_hdr;
            header.msg_name = part.name.as_mut_ptr();
            header.msg_namelen = part.name.len;
            header.msg_iov = &mut self.vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = part.control.as_mut_ptr().cast();
            header.msg_controllen = part.control.len() as _;
            header.msg_flags = 0;
            self.count = at + 1;
        }
    }
}

/// Receive up to a batch. Names are written; `received` is filled. Nothing there = 0.
pub fn receive<'a>(
    socket: &Socket,
    parts: impl Iterator<Item = Part<'a>>,
    received: &mut [Received; BATCH],
) -> io::Result<usize> {
    let mut headers = Headers::new();
    headers.point(parts);
    let count = headers.count as libc::c_uint;
    // SAFETY: every header points at buffers of exactly the stated lengths, borrowed mutably by the parts'
    // iterator for 'a, which outlives this call; `headers` itself does not move before the last use below.
    let result = unsafe {
        let flags = libc::MSG_DONTWAIT;
        let none = std::ptr::null_mut();
        libc::recvmmsg(
            socket.raw(),
            headers.messages.as_mut_ptr(),
            count,
            flags as _,
            none,
        )
    };
    let count = match check(result) {
        Ok(count) => count as usize,
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => 0,
        Err(why) => return Err(why),
    };
    for (message, entry) in headers.messages[..count].iter().zip(&mut *received) {
        *entry = Received {
            len: message.msg_len as usize,
            is_truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            local: local_address(&message.msg_hdr),
            stamp_us: 0,
        };
    }
    if count > 0 {
        received[0].stamp_us = stamp_us(&headers.messages[0].msg_hdr);
    }
    Ok(count)
}

/// When the kernel received a datagram; 0 = the socket was not asked to tell.
fn stamp_us(header: &libc::msghdr) -> u64 {
    // SAFETY: as in `local_address`; the data of a TIMESTAMPNS message is a timespec.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if ((*control).cmsg_level, (*control).cmsg_type)
                == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)
            {
                let time: libc::timespec = libc::CMSG_DATA(control)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                return time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000;
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    0
}

/// The address of ours that a datagram was sent to.
fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel wrote well-formed control messages within msg_controllen; CMSG_NXTHDR stays inside them,
    // and the data of a PKTINFO message is the structure read here (unaligned, to be sure).
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = libc::CMSG_DATA(control)
                        .cast::<libc::in_pktinfo>()
                        .read_unaligned();
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = libc::CMSG_DATA(control)
                        .cast::<libc::in6_pktinfo>()
                        .read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => control = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    None
}

/// A counter that poll can wait for.
pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked and owned by nobody else.
        unsafe {
            let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Make it readable.
    pub fn signal(&self) {
        let one = 1u64;
        let pointer: *const u64 = &one;
        // SAFETY: eight live bytes. A full counter (2^64 - 2 signals) is the only refusal, and is readable too.
        unsafe { libc::write(self.raw(), pointer.cast(), 8) };
    }

    /// Make it unreadable.
    pub fn clear(&self) {
        let mut count = 0u64;
        let pointer: *mut u64 = &mut count;
        // SAFETY: eight live bytes. Nothing to read is fine.
        unsafe { libc::read(self.raw(), pointer.cast(), 8) };
    }
}

/// In the place of a descriptor that `wait` leaves alone.
pub const IGNORED: RawFd = -1;

/// Wait until one of these is readable or the time is over. Which ones, bit by bit; at most 64.
pub fn wait(fds: &[RawFd], timeout: Duration) -> u64 {
    let blank = libc::pollfd {
        fd: -1,
        events: 0,
        revents: 0,
    };
    let mut entries = [blank; 64];
    let count = fds.len().min(64);
    for (entry, fd) in entries.iter_mut().zip(fds) {
        *entry = libc::pollfd {
            fd: *fd,
            events: libc::POLLIN,
            revents: 0,
        };
    }
    let limit = libc::timespec {
        tv_sec: timeout.as_secs() as _,
        tv_nsec: timeout.subsec_nanos() as _,
    };
    // SAFETY: `count` live entries and a live timespec; a null signal mask leaves the mask alone.
    unsafe { libc::ppoll(entries.as_mut_ptr(), count as _, &limit, std::ptr::null()) };
    let ready = entries[..count]
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.revents != 0);
    ready.fold(0, |bits, (at, _)| bits | 1 << at)
}

/// The CPUs that this process may use, by number.
pub fn usable_cpus() -> Vec<usize> {
    // SAFETY: a CPU set is plain data; all zeros is the empty one.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the kernel writes at most the stated size into a live set; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return Vec::new();
    }
    let all = 0..8 * size_of::<libc::cpu_set_t>();
    // SAFETY: only reads, within the set's bits.
    all.filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect()
}

/// Keep the calling thread on one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: plain data; the number comes from `usable_cpus` and lies within the set.
    let set = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the kernel reads a live set of the stated size; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })?;
    Ok(())
}
