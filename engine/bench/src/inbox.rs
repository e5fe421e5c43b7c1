//! What receivers read: batches of messages, each one datagram, or with UDP_GRO a run of them as it was sent.
#![allow(unsafe_code)]

use std::mem::zeroed;
use std::os::fd::RawFd;

use crate::sys::{monotonic_ns, set_option};

/// Most messages of one call.
pub const MESSAGES: usize = 32;
/// Room for one message, bytes: the largest that UDP carries.
const ROOM: usize = 65_535;
/// Room for the control messages of one, bytes.
const CONTROL: usize = 96;
const HEADER: usize = 16;

/// Aligned as the kernel's header of a control message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// A message: how long, how long each datagram in it is, and when the kernel had it (None without stamps).
#[derive(Clone, Copy, Default)]
pub struct Message {
    pub len: usize,
    pub segment: usize,
    pub arrived_ns: Option<u64>,
}

/// Messages of one call.
pub struct Inbox {
    rooms: Vec<[u8; ROOM]>,
    controls: Box<[Control; MESSAGES]>,
    pub messages: [Message; MESSAGES],
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            rooms: vec![[0; ROOM]; MESSAGES],
            controls: Box::new([Control([0; CONTROL]); MESSAGES]),
            messages: [Message::default(); MESSAGES],
        }
    }

    /// What is there, at most `MESSAGES`; 0 = nothing.
    pub fn receive(&mut self, fd: RawFd) -> usize {
        // SAFETY: both are plain C data; all zeros means "no buffers".
        let (mut headers, mut vectors): ([libc::mmsghdr; MESSAGES], [libc::iovec; MESSAGES]) =
            unsafe { (zeroed(), zeroed()) };
        for at in 0..MESSAGES {
            vectors[at] = libc::iovec {
                iov_base: self.rooms[at].as_mut_ptr().cast(),
                iov_len: ROOM,
            };
            headers[at].msg_hdr.msg_iov = &mut vectors[at];
            headers[at].msg_hdr.msg_iovlen = 1;
            headers[at].msg_hdr.msg_control = self.controls[at].0.as_mut_ptr().cast();
            headers[at].msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: as many headers as said, each pointing at one live room and one live control buffer.
        let done = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let done = done.max(0) as usize;
        for (at, header) in headers[..done].iter().enumerate() {
            let len = header.msg_len as usize;
            let filled = header.msg_hdr.msg_controllen.min(CONTROL);
            let (segment, arrived_ns) = read(&self.controls[at].0[..filled]);
            self.messages[at] = Message {
                len,
                segment: segment.filter(|size| *size > 0).unwrap_or(len).max(1),
                arrived_ns,
            };
        }
        done
    }

    /// The bytes of one message.
    pub fn bytes(&mut self, at: usize) -> &mut [u8] {
        &mut self.rooms[at][..self.messages[at].len]
    }
}

/// Segment size and arrival (monotonic) out of control messages.
fn read(mut control: &[u8]) -> (Option<usize>, Option<u64>) {
    let (mut segment, mut arrived_ns) = (None, None);
    while let Some(header) = control.get(..HEADER) {
        let word = |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let len = u64::from_ne_bytes(header[..8].try_into().expect("8 bytes")) as usize;
        let Some(data) = control.get(HEADER..len.max(HEADER)) else {
            break;
        };
        let number = |at: usize| Some(u64::from_ne_bytes(data.get(at..at + 8)?.try_into().ok()?));
        match (word(8), word(12)) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = data.get(..4).and_then(|bytes| bytes.try_into().ok());
                segment = size.map(|bytes| i32::from_ne_bytes(bytes).max(0) as usize);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let real_ns = number(0)
                    .zip(number(8))
                    .map(|(s, ns)| s * 1_000_000_000 + ns);
                arrived_ns = real_ns.and_then(monotonic_ns);
            }
            _ => {}
        }
        let step = len.max(HEADER).next_multiple_of(8);
        control = control.get(step..).unwrap_or(&[]);
    }
    (segment, arrived_ns)
}

/// Let the kernel stamp what arrives, or no longer.
pub fn set_stamps(fd: RawFd, is_on: bool) {
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, is_on);
}

/// Take runs of datagrams as they were sent, instead of having the kernel cut them, or no longer.
pub fn set_whole(fd: RawFd, is_on: bool) {
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, is_on);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn datagrams_come_with_their_length_and_time() {
        let own = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
        set_stamps(own.as_raw_fd(), true);
        set_whole(own.as_raw_fd(), true);
        let before = crate::sys::now_ns();
        for len in [3, 1_200] {
            let to = own.local_addr().expect("bound");
            other.send_to(&vec![7; len], to).expect("loopback");
        }
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(own.as_raw_fd()), 2);
        for (at, len) in [3, 1_200].into_iter().enumerate() {
            assert_eq!(inbox.bytes(at), vec![7; len]);
            assert_eq!(inbox.messages[at].segment, len);
            let arrived = inbox.messages[at].arrived_ns.expect("a stamp");
            assert!(arrived.abs_diff(before) < 1_000_000_000);
        }
        assert_eq!(inbox.receive(own.as_raw_fd()), 0);
    }

    #[test]
    fn what_is_cut_off_says_nothing() {
        assert_eq!(read(&[]), (None, None));
        assert_eq!(read(&[0; 15]), (None, None));
        assert_eq!(read(&[0xff; 40]), (None, None));
    }
}
