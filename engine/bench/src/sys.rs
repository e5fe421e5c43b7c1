//! Batches over inherited, connected UDP sockets, and clocks (Linux only).
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::RawFd;

/// Most datagrams of one call.
pub const BATCH: usize = 64;
/// Room for one datagram, bytes.
pub const ROOM: usize = 1_536;

/// Datagrams of one call and their lengths.
pub struct Batch {
    pub bytes: Box<[[u8; ROOM]; BATCH]>,
    pub lens: [usize; BATCH],
}

impl Batch {
    pub fn new() -> Self {
        Self {
            bytes: Box::new([[0; ROOM]; BATCH]),
            lens: [0; BATCH],
        }
    }

    /// Send the first `count`; returns how many the kernel took.
    pub fn send(&mut self, fd: RawFd, count: usize) -> usize {
        // SAFETY: both are plain C data; all zeros means "no buffers".
        let (mut messages, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        for at in 0..count {
            vectors[at] = libc::iovec {
                iov_base: self.bytes[at].as_mut_ptr().cast(),
                iov_len: self.lens[at],
            };
            messages[at].msg_hdr.msg_iov = &mut vectors[at];
            messages[at].msg_hdr.msg_iovlen = 1;
        }
        let count = count as libc::c_uint;
        // SAFETY: `count` headers, each pointing at one live room that is at least as long as it says.
        let done =
            unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
        done.max(0) as usize
    }
}

/// A time of CLOCK_REALTIME on the monotonic clock.
pub fn monotonic_ns(real_ns: u64) -> Option<u64> {
    let ahead_ns = clock_ns(libc::CLOCK_REALTIME).ok()? - now_ns();
    real_ns.checked_sub(ahead_ns)
}

/// Switch an option that is an int; a kernel without it stays as it is.
pub fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, is_on: bool) {
    let value = libc::c_int::from(is_on);
    // SAFETY: the option is an int, and `value` lives through the call.
    unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// Send one datagram; a full buffer loses it, as a network would.
pub fn send(fd: RawFd, bytes: &[u8]) {
    // SAFETY: the pointer and the length describe live bytes.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
}

/// Whether the number is an open descriptor of ours.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    // SAFETY: timespec is plain data, and the call writes one.
    unsafe {
        let mut time: libc::timespec = zeroed();
        if libc::clock_gettime(clock, &mut time) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// CLOCK_MONOTONIC, nanoseconds: the same clock in every process of the machine.
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC).expect("every Linux has the clock")
}

/// CPU time of the calling thread, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has the clock")
}
