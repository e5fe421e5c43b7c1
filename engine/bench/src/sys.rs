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

    /// Run a batch call over the first `count` rooms, of `len(at)` bytes each.
    fn call(
        &mut self,
        count: usize,
        len: impl Fn(&[usize; BATCH], usize) -> usize,
        run: impl FnOnce(*mut libc::mmsghdr, libc::c_uint) -> libc::c_int,
    ) -> usize {
        // SAFETY: both are plain C data; all zeros means "no buffers".
        let (mut messages, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { (zeroed(), zeroed()) };
        for at in 0..count {
            vectors[at] = libc::iovec {
                iov_base: self.bytes[at].as_mut_ptr().cast(),
                iov_len: len(&self.lens, at),
            };
            messages[at].msg_hdr.msg_iov = &mut vectors[at];
            messages[at].msg_hdr.msg_iovlen = 1;
        }
        let done = run(messages.as_mut_ptr(), count as libc::c_uint).max(0) as usize;
        for (len, message) in self.lens.iter_mut().zip(&messages[..done]) {
            *len = message.msg_len as usize;
        }
        done
    }

    /// What is there, at most a batch; 0 = nothing.
    pub fn receive(&mut self, fd: RawFd) -> usize {
        self.call(
            BATCH,
            |_, _| ROOM,
            |messages, count| {
                // SAFETY: `count` headers, each pointing at one live room of `ROOM` bytes.
                unsafe {
                    libc::recvmmsg(
                        fd,
                        messages,
                        count,
                        libc::MSG_DONTWAIT as _,
                        std::ptr::null_mut(),
                    )
                }
            },
        )
    }

    /// Send the first `count`; returns how many the kernel took.
    pub fn send(&mut self, fd: RawFd, count: usize) -> usize {
        self.call(
            count,
            |lens, at| lens[at],
            |messages, count| {
                // SAFETY: `count` headers, each pointing at one live room that is at least as long as it says.
                unsafe { libc::sendmmsg(fd, messages, count, libc::MSG_DONTWAIT as _) }
            },
        )
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
