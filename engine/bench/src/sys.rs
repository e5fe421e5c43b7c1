//! Batches over inherited, connected UDP sockets, and clocks (Linux only).
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::RawFd;

/// Most datagrams of one call.
pub const BATCH: usize = 64;
/// Room for one datagram, bytes.
pub const ROOM: usize = 1_536;

/// Room for one control message with a time, bytes.
const CONTROL: usize = 64;

/// Datagrams of one call and their lengths.
pub struct Batch {
    pub bytes: Box<[[u8; ROOM]; BATCH]>,
    pub lens: [usize; BATCH],
    /// When the kernel had them, CLOCK_MONOTONIC; None unless the socket has stamps.
    pub arrived_ns: [Option<u64>; BATCH],
    controls: Box<[Control; BATCH]>,
}

/// Aligned as the kernel's header of a control message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    pub fn new() -> Self {
        Self {
            bytes: Box::new([[0; ROOM]; BATCH]),
            lens: [0; BATCH],
            arrived_ns: [None; BATCH],
            controls: Box::new([Control([0; CONTROL]); BATCH]),
        }
    }

    /// Run a batch call over the first `count` rooms, of `len(at)` bytes each.
    fn call(
        &mut self,
        count: usize,
        has_control: bool,
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
            if has_control {
                messages[at].msg_hdr.msg_control = self.controls[at].0.as_mut_ptr().cast();
                messages[at].msg_hdr.msg_controllen = CONTROL as _;
            }
        }
        let done = run(messages.as_mut_ptr(), count as libc::c_uint).max(0) as usize;
        for (at, message) in messages[..done].iter().enumerate() {
            self.lens[at] = message.msg_len as usize;
            if has_control {
                let filled = message.msg_hdr.msg_controllen;
                self.arrived_ns[at] = stamp(&self.controls[at], filled);
            }
        }
        done
    }

    /// What is there, at most a batch; 0 = nothing.
    pub fn receive(&mut self, fd: RawFd) -> usize {
        self.call(
            BATCH,
            true,
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
            false,
            |lens, at| lens[at],
            |messages, count| {
                // SAFETY: `count` headers, each pointing at one live room that is at least as long as it says.
                unsafe { libc::sendmmsg(fd, messages, count, libc::MSG_DONTWAIT as _) }
            },
        )
    }
}

/// The time in a control message (SCM_TIMESTAMPNS: CLOCK_REALTIME), on the monotonic clock.
fn stamp(control: &Control, filled: usize) -> Option<u64> {
    let read = |at: usize| -> Option<u64> {
        let bytes = control.0[..filled.min(CONTROL)].get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    // One header (length, level and kind) and one timespec: nothing else is switched on.
    let kinds = read(8)?;
    let wanted = libc::SOL_SOCKET as u64 | (libc::SCM_TIMESTAMPNS as u64) << 32;
    if kinds != wanted {
        return None;
    }
    let real_ns = read(16)? * 1_000_000_000 + read(24)?;
    let ahead_ns = clock_ns(libc::CLOCK_REALTIME).ok()? - now_ns();
    real_ns.checked_sub(ahead_ns)
}

/// Let the kernel stamp what arrives, or no longer.
pub fn set_stamps(fd: RawFd, is_on: bool) {
    let value = libc::c_int::from(is_on);
    // SAFETY: the option is an int, and `value` lives through the call.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
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
