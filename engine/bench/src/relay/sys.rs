//! The two system calls of a relay: read what there is, send it to everybody (Linux only).
#![allow(unsafe_code)]

use std::mem::zeroed;
use std::ops::Range;
use std::os::fd::RawFd;

use parley_core::srtp::Session;

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

/// The same packets to many ports of the loopback, to each with keys of its own.
pub struct Copies {
    to: Vec<(libc::sockaddr_in, Session)>,
    slots: Box<[[u8; ROOM]; BATCH]>,
}

impl Copies {
    pub fn new(ports: &[u16], session: impl Fn() -> Session) -> Self {
        let to = ports.iter().map(|port| libc::sockaddr_in {
            sin_family: libc::AF_INET as _,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        });
        Self {
            to: to.map(|to| (to, session())).collect(),
            slots: Box::new([[0; ROOM]; BATCH]),
        }
    }

    /// These packets, padded to the longest, to everybody; several are one message that the kernel cuts (UDP_SEGMENT).
    pub fn send(&mut self, fd: RawFd, batch: &Batch, which: Range<usize>) {
        // SAFETY: all three are plain C data; all zeros means "nothing".
        let (mut messages, mut vectors, mut control): (
            [libc::mmsghdr; BATCH],
            [libc::iovec; BATCH],
            [u64; 3],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let lens = &batch.lens[which.clone()];
        let (count, longest) = (lens.len(), *lens.iter().max().expect("at least one"));
        for to in self.to.chunks_mut(BATCH / count) {
            let mut slots = self.slots.iter_mut().zip(&mut vectors);
            let mut sealed = 0;
            for (_, session) in to.iter_mut() {
                let packets = &batch.bytes[which.clone()];
                for ((packet, &len), (slot, vector)) in packets.iter().zip(lens).zip(slots.by_ref())
                {
                    slot[..len].copy_from_slice(&packet[..len]);
                    pad(&mut slot[..longest], len);
                    sealed = session.sender.rtp(slot, longest).unwrap_or(longest);
                    vector.iov_base = slot.as_mut_ptr().cast();
                    vector.iov_len = sealed;
                }
            }
            if count > 1 {
                write_segment(&mut control, sealed as u16);
            }
            for (at, (message, (to, _))) in messages.iter_mut().zip(to.iter_mut()).enumerate() {
                let header = &mut message.msg_hdr;
                header.msg_name = std::ptr::from_mut(to).cast();
                header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
                header.msg_iov = &mut vectors[at * count];
                header.msg_iovlen = count;
                if count > 1 {
                    header.msg_control = control.as_mut_ptr().cast();
                    header.msg_controllen = size_of_val(&control);
                }
            }
            send_all(fd, &mut messages[..to.len()]);
        }
    }
}

/// From so many bytes to all of them (RFC 3550 section 5.1).
fn pad(packet: &mut [u8], from: usize) {
    let padding = &mut packet[from..];
    let Some(last) = padding.len().checked_sub(1) else {
        return;
    };
    padding.fill(0);
    padding[last] = padding.len() as u8;
    packet[0] |= 0x20;
}

/// The control message that has a message cut into datagrams of so many bytes.
fn write_segment(control: &mut [u64; 3], bytes: u16) {
    let header: *mut libc::cmsghdr = control.as_mut_ptr().cast();
    // SAFETY: `control` is aligned and long enough for one header and its two bytes.
    unsafe {
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(2) as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(bytes);
    }
}

/// What the kernel refuses is lost. Names, vectors and control messages of the headers are the caller's, and live.
fn send_all(fd: RawFd, mut messages: &mut [libc::mmsghdr]) {
    while !messages.is_empty() {
        let (first, left) = (messages.as_mut_ptr(), messages.len());
        // SAFETY: `left` headers from there on; what they point at lives through the call.
        let sent = unsafe { libc::sendmmsg(fd, first, left as _, 0) };
        messages = &mut messages[sent.max(1) as usize..];
    }
}
