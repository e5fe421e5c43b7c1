//! Datagrams on their way out: control messages, runs cut by the kernel (UDP_SEGMENT), and what it refuses.
//!
//! Not here: sockets, what arrives (`sys`), which datagrams are one run (`batch`).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use libc::c_int;

use super::{set_option, Control, Name, Socket, BATCH};

/// Differentiated services code points (RFC 8837 section 5): interactive audio, interactive video.
pub const EXPEDITED: u8 = 46;
pub const ASSURED_41: u8 = 34;

/// Append the control message that makes a datagram leave from this address; the new length in bytes.
pub fn write_source(control: &mut Control, used: usize, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(ip) => {
            // SAFETY: plain data; all zeros is valid.
            let mut info: libc::in_pktinfo = unsafe { zeroed() };
            info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
            append(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(ip) => {
            // SAFETY: plain data; all zeros is valid.
            let mut info: libc::in6_pktinfo = unsafe { zeroed() };
            info.ipi6_addr.s6_addr = ip.octets();
            append(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// Append the control message that marks one datagram otherwise than its socket does; the new length in bytes.
pub fn write_mark(control: &mut Control, used: usize, is_ipv4: bool, dscp: u8) -> usize {
    let (level, kind) = mark_option(is_ipv4);
    append(control, used, level, kind, c_int::from(dscp) << 2)
}

fn mark_option(is_ipv4: bool) -> (c_int, c_int) {
    if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_TOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    }
}

/// Mark everything that leaves a socket.
pub fn mark(fd: &impl AsRawFd, is_ipv4: bool, dscp: u8) -> io::Result<()> {
    let (level, option) = mark_option(is_ipv4);
    set_option(fd, level, option, c_int::from(dscp) << 2)
}

fn append<T>(control: &mut Control, used: usize, level: c_int, kind: c_int, value: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: pure arithmetic.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
    let room = &mut control.0[used..used + space]; // panics rather than writes past the end
    let header: *mut libc::cmsghdr = room.as_mut_ptr().cast();
    // SAFETY: `room` has CMSG_SPACE of the value; `Control` is aligned for cmsghdr and `used` is a sum of
    // CMSG_SPACEs, which keep that alignment; CMSG_DATA lies inside CMSG_LEN.
    unsafe {
        header.write(libc::cmsghdr {
            cmsg_len: len as _,
            cmsg_level: level,
            cmsg_type: kind,
        });
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    used + space
}

/// A datagram to send.
pub struct Outgoing<'a> {
    pub bytes: &'a [u8],
    pub name: &'a Name,
    /// Control messages, may be empty.
    pub control: &'a [u8],
    /// Goes where the one before it goes, from the same address of ours, with the same control messages.
    pub follows: bool,
}

/// Largest message to be cut into datagrams, below what an IP packet may hold.
const MAX_MESSAGE_BYTES: usize = 65_000;

/// What leaves in one call: a message per datagram, or per run of datagrams of one size to one peer.
struct Departure {
    vectors: [libc::iovec; BATCH],
    messages: [libc::mmsghdr; BATCH],
    /// Datagrams in each message.
    runs: [usize; BATCH],
    controls: [Control; BATCH],
}

impl Departure {
    fn new() -> Self {
        // SAFETY: all of it is plain C data; all zeros means "no buffers".
        unsafe { zeroed() }
    }

    /// Messages for these datagrams, at most a batch; how many. The caller keeps the datagrams alive and this value
    /// in place until the call is over.
    fn arrange(&mut self, parts: &[Outgoing<'_>], is_cut: bool) -> usize {
        let (mut count, mut at) = (0, 0);
        while at < parts.len() {
            let first = &parts[at];
            let run = if is_cut { run(&parts[at..]) } else { 1 };
            for (vector, part) in self.vectors[at..].iter_mut().zip(&parts[at..at + run]) {
                vector.iov_base = part.bytes.as_ptr().cast_mut().cast();
                vector.iov_len = part.bytes.len();
            }
            let header = &mut self.messages[count].msg_hdr;
            header.msg_name = first.name.as_ptr().cast_mut();
            header.msg_namelen = first.name.len;
            header.msg_iov = &mut self.vectors[at];
            header.msg_iovlen = run as _;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = first.control.len() as _;
            if run > 1 {
                let control = &mut self.controls[count];
                control.0[..first.control.len()].copy_from_slice(first.control);
                let len = write_segment(control, first.control.len(), first.bytes.len() as u16);
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = len as _;
            } else if !first.control.is_empty() {
                header.msg_control = first.control.as_ptr().cast_mut().cast();
            }
            self.runs[count] = run;
            count += 1;
            at += run;
        }
        count
    }
}

/// How many datagrams from the first on can leave as one message: equal sizes, only the last may be shorter.
fn run(parts: &[Outgoing<'_>]) -> usize {
    let size = parts[0].bytes.len();
    let most = parts.len().min(MAX_MESSAGE_BYTES / size.max(1)).max(1);
    let mut end = 1;
    while end < most && parts[end].follows && parts[end].bytes.len() <= size {
        end += 1;
        if parts[end - 1].bytes.len() < size {
            break;
        }
    }
    end
}

/// Append the control message that has a message cut into datagrams of so many bytes; the new length in bytes.
fn write_segment(control: &mut Control, used: usize, bytes: u16) -> usize {
    append(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, bytes)
}

/// `sendmmsg`: how many messages have left, or -1 and errno says why the first one has not.
///
/// # Safety
/// Every header points at live names, control data and vectors of live datagrams, of the stated lengths.
unsafe fn depart(socket: &Socket, messages: &mut [libc::mmsghdr]) -> c_int {
    #[cfg(test)]
    let messages = match tests::up_to_refused(messages) {
        [] => return -1,
        rest => rest,
    };
    let (first, flags) = (messages.as_mut_ptr(), libc::MSG_DONTWAIT);
    // SAFETY: the caller's promise.
    unsafe { libc::sendmmsg(socket.raw(), first, messages.len() as _, flags as _) }
}

/// Send all, at most a batch; returns how many the kernel refused. One that it refuses is skipped: media does not wait.
pub fn send(socket: &Socket, mut parts: &[Outgoing<'_>]) -> usize {
    let mut departure = Departure::new();
    let mut is_cut = socket.can_segment.get();
    let mut refused = 0;
    'arranging: while !parts.is_empty() {
        let count = departure.arrange(&parts[..parts.len().min(BATCH)], is_cut);
        let mut at = 0;
        while at < count {
            let rest = &mut departure.messages[at..count];
            // SAFETY: every header points at live names, control data and datagrams of the stated lengths, which
            // the kernel only reads, and at vectors that do not move during the call.
            let sent = unsafe { depart(socket, rest) };
            if sent > 0 {
                let gone = at + sent as usize;
                parts = &parts[departure.runs[at..gone].iter().sum::<usize>()..];
                at = gone;
                continue;
            }
            let why = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            match why {
                libc::EINTR => continue,
                libc::EAGAIN => {}
                _ if departure.runs[at] > 1 => {
                    // Quite some devices promise what they cannot do; EIO is what that looks like.
                    if matches!(why, libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) {
                        socket.can_segment.set(false);
                    }
                    is_cut = false;
                    continue 'arranging;
                }
                _ => {}
            }
            refused += departure.runs[at];
            parts = &parts[departure.runs[at]..];
            at += 1;
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// Why the "kernel" of this thread refuses messages to be cut (errno); zero: the real one is asked.
        static REFUSES: Cell<c_int> = const { Cell::new(0) };
        /// Messages so refused.
        static REFUSED: Cell<usize> = const { Cell::new(0) };
    }

    /// Whether a message asks the kernel to cut it.
    fn is_run(message: &libc::mmsghdr) -> bool {
        let header = &message.msg_hdr;
        // SAFETY: the header points at live control data of the stated length, which these two walk.
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(header);
            while !control.is_null() {
                if ((*control).cmsg_level, (*control).cmsg_type)
                    == (libc::SOL_UDP, libc::UDP_SEGMENT)
                {
                    return true;
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        false
    }

    /// What the kernel is asked to send: nothing from the message on that is refused, as `sendmmsg` stops there.
    pub fn up_to_refused(messages: &mut [libc::mmsghdr]) -> &mut [libc::mmsghdr] {
        let errno = REFUSES.get();
        let taken = messages.iter().position(is_run);
        let Some(taken) = taken.filter(|_| errno != 0) else {
            return messages;
        };
        if taken == 0 {
            REFUSED.set(REFUSED.get() + 1);
            // SAFETY: the address of this thread's errno.
            unsafe { *libc::__errno_location() = errno };
        }
        &mut messages[..taken]
    }

    /// A run of three between two lone datagrams, by a kernel that refuses runs: (messages refused, datagrams lost,
    /// datagrams of the run that arrive). The lone ones do.
    fn refused_with(errno: c_int, socket: &Socket) -> (usize, usize, usize) {
        let peers = [peer(), peer()];
        let datagrams = [[1; 300], [2; 300], [3; 300], [4; 300], [5; 300]];
        let part = |at: usize| Outgoing {
            bytes: &datagrams[at],
            name: &peers[usize::from((1..4).contains(&at))].1,
            control: &[],
            follows: at == 2 || at == 3,
        };
        REFUSED.set(0);
        REFUSES.set(errno);
        let lost = send(socket, &[part(0), part(1), part(2), part(3), part(4)]);
        REFUSES.set(0);
        assert_eq!(received(&peers[0].0), datagrams[0]);
        assert_eq!(received(&peers[0].0), datagrams[4]);
        peers[1].0.set_nonblocking(true).expect("an option");
        let mut room = [0; 2_000];
        let mut arrived = 0;
        while let Ok(len) = peers[1].0.recv(&mut room) {
            arrived += 1;
            assert_eq!(room[..len], datagrams[arrived]);
        }
        (REFUSED.get(), lost, arrived)
    }

    /// A device that cannot cut what it promised to: its datagrams leave one by one, now and ever after.
    #[test]
    fn a_kernel_that_cannot_cut_is_not_asked_again() {
        for errno in [libc::EIO, libc::EOPNOTSUPP, libc::ENOPROTOOPT] {
            let socket = bound();
            assert!(socket.can_segment.get());
            assert_eq!(refused_with(errno, &socket), (1, 0, 3));
            assert!(!socket.can_segment.get(), "errno {errno}");
            assert_eq!(refused_with(errno, &socket), (0, 0, 3));
            // Another socket may be of another device.
            assert!(bound().can_segment.get());
        }
    }

    /// A run that is too long for the path leaves one by one, but the next one is cut again.
    #[test]
    fn a_run_refused_for_its_length_is_no_verdict() {
        let socket = bound();
        for _ in 0..2 {
            assert_eq!(refused_with(libc::EMSGSIZE, &socket), (1, 0, 3));
            assert!(socket.can_segment.get());
        }
    }

    /// Where there is no room now, the run is lost and the rest is not; nothing is learnt of the device.
    #[test]
    fn a_full_socket_is_no_verdict() {
        let socket = bound();
        for _ in 0..2 {
            assert_eq!(refused_with(libc::EAGAIN, &socket), (1, 3, 0));
            assert!(socket.can_segment.get());
        }
    }

    fn peer() -> (UdpSocket, Name) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let limit = Some(Duration::from_secs(2));
        socket.set_read_timeout(limit).expect("an option");
        let name = Name::new(socket.local_addr().expect("bound"));
        (socket, name)
    }

    fn received(from: &UdpSocket) -> Vec<u8> {
        let mut room = vec![0; 70_000];
        let len = from.recv(&mut room).expect("a datagram within two seconds");
        room.truncate(len);
        room
    }

    /// Send to two peers: (to the second one, size).
    fn deliver(socket: &Socket, plan: &[(bool, usize)]) {
        let peers = [peer(), peer()];
        let datagrams: Vec<_> = plan
            .iter()
            .enumerate()
            .map(|(at, (_, size))| vec![at as u8; *size])
            .collect();
        let parts: Vec<_> = plan
            .iter()
            .enumerate()
            .map(|(at, (second, _))| Outgoing {
                bytes: &datagrams[at],
                name: &peers[usize::from(*second)].1,
                control: &[],
                follows: at > 0 && plan[at - 1].0 == *second,
            })
            .collect();
        assert_eq!(send(socket, &parts), 0);
        for (datagram, (second, _)) in datagrams.iter().zip(plan) {
            assert_eq!(&received(&peers[usize::from(*second)].0), datagram);
        }
    }

    fn bound() -> Socket {
        Socket::bind(([127, 0, 0, 1], 0).into()).expect("loopback")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever leaves as one message, every datagram arrives as it was, in order.
        #[test]
        fn runs_arrive_as_datagrams(
            plan in prop::collection::vec((any::<bool>(), prop::sample::select(vec![1usize, 50, 1_200, 1_460])), 1..64),
            segments: bool,
        ) {
            let socket = bound();
            socket.can_segment.set(segments);
            deliver(&socket, &plan);
            prop_assert_eq!(socket.can_segment.get(), segments);
        }
    }

    #[test]
    fn only_the_last_of_a_run_is_shorter() {
        let name = Name::empty();
        let bytes = [0; 1_500];
        let run_of = |sizes: &[usize]| {
            let parts: Vec<_> = sizes
                .iter()
                .map(|size| Outgoing {
                    bytes: &bytes[..*size],
                    name: &name,
                    control: &[],
                    follows: true,
                })
                .collect();
            run(&parts)
        };
        assert_eq!(run_of(&[9, 9, 9]), 3);
        assert_eq!(run_of(&[9, 9, 8, 8]), 3);
        assert_eq!(run_of(&[9, 10]), 1);
        assert_eq!(run_of(&[1_500; 64]), 43); // 65,000 bytes
    }

    /// A run that is refused is tried one by one, and only what cannot leave is lost.
    #[test]
    fn what_is_too_long_costs_nobody_else() {
        let socket = bound();
        let (receiver, name) = peer();
        let (long, short) = (vec![1; 65_536], [2; 10]);
        let part = |bytes, follows| Outgoing {
            bytes,
            name: &name,
            control: &[],
            follows,
        };
        let parts = [
            part(&short[..], false),
            part(&long, true),
            part(&short, true),
            part(&short, true),
        ];
        assert_eq!(send(&socket, &parts), 1);
        assert!(socket.can_segment.get());
        for _ in 0..3 {
            assert_eq!(received(&receiver), short);
        }
    }

    /// The longest control messages there are, of IPv6, leave room for the size of the segments.
    #[test]
    fn a_marked_run_of_ipv6_is_cut() {
        let socket = Socket::bind((Ipv6Addr::UNSPECIFIED, 0).into()).expect("any");
        let receiver = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).expect("loopback");
        let limit = Some(Duration::from_secs(2));
        receiver.set_read_timeout(limit).expect("an option");
        let name = Name::new(receiver.local_addr().expect("bound"));
        let mut control = Control::EMPTY;
        let len = write_source(&mut control, 0, Ipv6Addr::LOCALHOST.into());
        let len = write_mark(&mut control, len, false, EXPEDITED);
        let bytes = [5; 100];
        let parts: Vec<_> = (0..3)
            .map(|at| Outgoing {
                bytes: &bytes,
                name: &name,
                control: &control.0[..len],
                follows: at > 0,
            })
            .collect();
        assert_eq!(send(&socket, &parts), 0);
        assert!(socket.can_segment.get());
        for _ in 0..3 {
            assert_eq!(received(&receiver), bytes);
        }
    }

    /// The address that a datagram leaves from stays that of its run.
    #[test]
    fn a_run_leaves_from_its_address() {
        let socket = Socket::bind(([0, 0, 0, 0], 0).into()).expect("any");
        let (receiver, name) = peer();
        let mut control = Control::EMPTY;
        let len = write_source(&mut control, 0, Ipv4Addr::new(127, 0, 0, 7).into());
        let bytes = [5; 100];
        let parts: Vec<_> = (0..3)
            .map(|at| Outgoing {
                bytes: &bytes,
                name: &name,
                control: &control.0[..len],
                follows: at > 0,
            })
            .collect();
        assert_eq!(send(&socket, &parts), 0);
        for _ in 0..3 {
            let mut room = [0; 200];
            let (len, from) = receiver.recv_from(&mut room).expect("a datagram");
            assert_eq!((len, from.ip()), (100, Ipv4Addr::new(127, 0, 0, 7).into()));
        }
    }
}
