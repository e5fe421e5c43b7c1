//! The two system calls of a relay: read what there is, send it to everybody (Linux only).
#![allow(unsafe_code)]

use std::mem::zeroed;
use std::ops::Range;
use std::os::fd::RawFd;

/// Most messages of one call.
const BATCH: usize = 64;
/// Most datagrams of one read: joined they still fit one message.
const READ: usize = 32;
/// Room for one datagram, bytes.
const ROOM: usize = 1_536;

/// Datagrams of one read and their lengths.
pub struct Batch {
    pub bytes: Box<[[u8; ROOM]; READ]>,
    pub lens: [usize; READ],
}

impl Batch {
    pub fn new() -> Self {
        Self {
            bytes: Box::new([[0; ROOM]; READ]),
            lens: [0; READ],
        }
    }

    /// Wait for datagrams, and take as many as there are. Returns how many.
    pub fn wait(&mut self, fd: RawFd) -> usize {
        // SAFETY: both are plain C data; all zeros means "no buffers".
        let (mut messages, mut vectors): ([libc::mmsghdr; READ], [libc::iovec; READ]) =
            unsafe { (zeroed(), zeroed()) };
        for at in 0..READ {
            vectors[at] = libc::iovec {
                iov_base: self.bytes[at].as_mut_ptr().cast(),
                iov_len: ROOM,
            };
            messages[at].msg_hdr.msg_iov = &mut vectors[at];
            messages[at].msg_hdr.msg_iovlen = 1;
        }
        let (flags, forever) = (libc::MSG_WAITFORONE as _, std::ptr::null_mut());
        // SAFETY: `READ` headers, each pointing at one live room that is as long as it says.
        let got = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), READ as _, flags, forever) };
        let count = got.max(0) as usize;
        for (len, message) in self.lens.iter_mut().zip(&messages[..count]) {
            *len = message.msg_len as usize;
        }
        count
    }
}

/// The same bytes to many ports of the loopback.
pub struct Copies {
    to: Vec<libc::sockaddr_in>,
}

impl Copies {
    pub fn new(ports: &[u16]) -> Self {
        let to = ports.iter().map(|port| libc::sockaddr_in {
            sin_family: libc::AF_INET as _,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        });
        Self { to: to.collect() }
    }

    /// These datagrams, equally long, to everybody; several are one message that the kernel cuts (UDP_SEGMENT).
    pub fn send(&mut self, fd: RawFd, batch: &mut Batch, which: Range<usize>) {
        // SAFETY: all three are plain C data; all zeros means "nothing".
        let (mut messages, mut vectors, mut control): (
            [libc::mmsghdr; BATCH],
            [libc::iovec; READ],
            [u64; 3],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let count = which.len();
        let segment = batch.lens[which.start];
        for (vector, at) in vectors.iter_mut().zip(which) {
            vector.iov_base = batch.bytes[at].as_mut_ptr().cast();
            vector.iov_len = batch.lens[at];
        }
        let mut pattern = messages[0].msg_hdr;
        pattern.msg_namelen = size_of::<libc::sockaddr_in>() as _;
        pattern.msg_iov = vectors.as_mut_ptr();
        pattern.msg_iovlen = count;
        if count > 1 {
            pattern.msg_control = control.as_mut_ptr().cast();
            pattern.msg_controllen = size_of_val(&control);
            // SAFETY: `control` is aligned and long enough for one header and its two bytes.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&pattern);
                (*header).cmsg_level = libc::SOL_UDP;
                (*header).cmsg_type = libc::UDP_SEGMENT;
                (*header).cmsg_len = libc::CMSG_LEN(2) as _;
                libc::CMSG_DATA(header)
                    .cast::<u16>()
                    .write_unaligned(segment as u16);
            }
        }
        for to in self.to.chunks_mut(BATCH) {
            for (message, to) in messages.iter_mut().zip(to.iter_mut()) {
                message.msg_hdr = pattern;
                message.msg_hdr.msg_name = std::ptr::from_mut(to).cast();
            }
            let mut done = 0;
            while done < to.len() {
                let (next, left) = (messages[done..].as_mut_ptr(), to.len() - done);
                // SAFETY: `left` headers from there on, whose address, vectors and control live through the call.
                let sent = unsafe { libc::sendmmsg(fd, next, left as _, 0) };
                done += sent.max(1) as usize; // what the kernel refuses is lost
            }
        }
    }
}
