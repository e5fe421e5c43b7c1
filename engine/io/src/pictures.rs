//! A second socket beside each common one, into which the kernel sorts pictures: by payload type, before it queues them.
//!
//! Under load the thread may leave pictures alone for half a millisecond and read several at once, while everything
//! else wakes it as ever; and when more pictures come than it can take, their queue overflows and nobody else's does.
//! A stream has one socket, so its order stays. Where the kernel cannot sort there is no second socket.
//!
//! Only for a thread that is alone: among several, the kernel spreads peers over sockets as it likes.
//! Not here: whether to wait (`parley_core::media::gather`), the loop (`run`).

use std::io;
use std::mem::size_of;

use libc::sock_filter;
use parley_core::id::Micros;

use crate::sys::{self, Socket};

/// Sockets that hold nothing but pictures, and until when they are left alone.
#[derive(Default)]
pub struct Pictures {
    /// Beside the common ones, in their order.
    pub sockets: Vec<Socket>,
    types: u128,
    until: Option<Micros>,
    /// What is read now was left alone.
    is_due: bool,
    /// Packets that were left alone.
    pub waited: u64,
}

impl Pictures {
    /// Beside each of these, which were bound alone. None where the system cannot.
    pub fn beside(common: &[Socket]) -> Self {
        let beside = common.iter().map(|socket| {
            socket.share()?;
            let own = Socket::bind_beside(socket.bound)?;
            sort(socket, 0)?;
            Ok(own)
        });
        Self {
            sockets: beside.collect::<io::Result<_>>().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// These payload types, a bit each, are pictures from now on.
    pub fn sort(&mut self, common: &[Socket], types: u128) {
        if types == self.types || self.sockets.is_empty() {
            return;
        }
        self.types = types;
        for socket in common {
            // It could at the start. If not now, they come by the common socket, or wait although they are sound.
            let _ = sort(socket, types);
        }
    }

    /// When to look again, while they are left alone.
    pub fn left_alone(&self) -> Option<Micros> {
        self.until
    }

    /// End the time of being left alone if it is over. True: all of them are to be read.
    pub fn come_due(&mut self, now: Micros) -> bool {
        self.is_due = self.until.is_some_and(|until| until <= now);
        if self.is_due {
            self.until = None;
        }
        self.is_due
    }

    /// So many of a socket were read just now, and no more are there: those that come now may wait so long.
    pub fn were_read(&mut self, count: usize, hold_us: u64, now: Micros) {
        if self.is_due {
            self.waited += count as u64;
        }
        if hold_us > 0 && count > 0 {
            self.until = Some(Micros(now.0 + hold_us));
        }
    }
}

/// Datagrams that the kernel takes for RTP of these payload types go to the second socket of a port.
fn sort(first: &Socket, types: u128) -> io::Result<()> {
    let steps = program(types);
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_ptr().cast_mut(),
    };
    let pointer: *const libc::sock_fprog = &program;
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: a live program of the stated length, which the kernel checks and copies.
    sys::check(unsafe { libc::setsockopt(first.raw(), level, option, pointer.cast(), len) })?;
    Ok(())
}

/// Classic BPF upon the UDP payload; what it returns is the number of the socket. A load beyond the end returns 0.
fn program(types: u128) -> [sock_filter; 20] {
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const CONSTANT: u32 = libc::BPF_LD | libc::BPF_IMM;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const SHIFT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_X;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const RETURN_A: u32 = libc::BPF_RET | libc::BPF_A;
    let step = |code: u32, (jt, jf), k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let plain = |code, k| step(code, (0, 0), k);
    let word = |number: u32| (types >> (32 * number)) as u32;
    [
        // RTP and RTCP begin with 128..=191 (RFC 7983).
        plain(BYTE, 0),
        plain(AND, 0xc0),
        step(EQUAL, (0, 8), 0x80),
        // The payload type without the marker: which bit, then which word.
        plain(BYTE, 1),
        plain(AND, 0x1f),
        plain(TO_X, 0),
        plain(BYTE, 1),
        plain(AND, 0x60),
        step(EQUAL, (3, 0), 0x00),
        step(EQUAL, (4, 0), 0x20),
        step(EQUAL, (5, 0), 0x60),
        plain(RETURN, 0), // 64..=95 would be RTCP (RFC 5761 section 4)
        plain(CONSTANT, word(0)),
        plain(JUMP, 3),
        plain(CONSTANT, word(1)),
        plain(JUMP, 1),
        plain(CONSTANT, word(3)),
        plain(SHIFT, 0),
        plain(AND, 1),
        plain(RETURN_A, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Vec<Socket>, Pictures, UdpSocket) {
        let common = vec![Socket::bind(([127, 0, 0, 1], 0).into()).expect("loopback")];
        let pictures = Pictures::beside(&common);
        assert_eq!(pictures.sockets.len(), 1, "Linux has had this since 4.5");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        peer.connect(common[0].bound).expect("loopback");
        (common, pictures, peer)
    }

    /// Whether the datagram went to the second socket. It is taken from there.
    fn is_sorted_out(
        common: &[Socket],
        pictures: &Pictures,
        peer: &UdpSocket,
        datagram: &[u8],
    ) -> bool {
        peer.send(datagram).expect("loopback");
        let sockets = [&common[0], &pictures.sockets[0]];
        let ready = sys::wait(&sockets.map(Socket::raw), Duration::from_secs(2));
        assert!(ready == 1 || ready == 2, "one datagram: {ready}");
        let mut room = [0; 64];
        let socket = sockets[ready as usize - 1];
        // SAFETY: the kernel writes at most the stated length into live memory.
        let len = unsafe { libc::recv(socket.raw(), room.as_mut_ptr().cast(), room.len(), 0) };
        assert_eq!(&room[..len as usize], datagram);
        ready == 2
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// RTP of the payload types asked for goes to the second socket and nothing else does; and never what RFC 5761
        /// takes for RTCP.
        #[test]
        fn pictures_are_sorted_out(types: u128, first: u8, second: u8, len in 1usize..20) {
            let (common, mut pictures, peer) = pair();
            pictures.sort(&common, types);
            for first in [first, 128 | first & 63] {
                let mut datagram = vec![7; len];
                datagram[0] = first;
                if len > 1 {
                    datagram[1] = second;
                }
                let is_rtp = len > 1 && (128..=191).contains(&first) && !(64..=95).contains(&(second & 0x7f));
                let is_picture = is_rtp && types >> (second & 0x7f) & 1 == 1;
                prop_assert_eq!(is_sorted_out(&common, &pictures, &peer, &datagram), is_picture);
            }
        }
    }

    #[test]
    fn nobody_else_has_the_port_and_types_come_and_go() {
        let (common, mut pictures, peer) = pair();
        let again = Socket::bind(common[0].bound);
        assert_eq!(
            again.map(|_| ()).map_err(|why| why.kind()),
            Err(io::ErrorKind::AddrInUse)
        );
        let vp8 = [0x80, 0xe0, 0, 1]; // payload type 96 with the marker
        assert!(!is_sorted_out(&common, &pictures, &peer, &vp8));
        pictures.sort(&common, 1 << 96);
        assert!(is_sorted_out(&common, &pictures, &peer, &vp8));
        pictures.sort(&common, 0);
        assert!(!is_sorted_out(&common, &pictures, &peer, &vp8));
    }

    #[test]
    fn they_are_left_alone_only_while_some_come() {
        let mut pictures = Pictures::default();
        let now = Micros(1_000_000);
        pictures.were_read(3, 0, now);
        assert_eq!(pictures.left_alone(), None);
        pictures.were_read(3, 700, now);
        assert_eq!(pictures.left_alone(), Some(Micros(1_000_700)));
        assert!(!pictures.come_due(Micros(1_000_699)) && pictures.come_due(Micros(1_000_700)));
        assert_eq!(pictures.left_alone(), None, "until some were read");
        pictures.were_read(2, 700, Micros(1_000_750));
        assert_eq!(
            (pictures.waited, pictures.left_alone()),
            (2, Some(Micros(1_001_450)))
        );
        assert!(pictures.come_due(Micros(1_001_450)));
        pictures.were_read(0, 700, Micros(1_001_500));
        assert_eq!((pictures.waited, pictures.left_alone()), (2, None));
    }

    /// Of two addresses one is idle, whichever is read first.
    #[test]
    fn an_idle_socket_does_not_end_it_for_another() {
        let now = Micros(1_000_000);
        for counts in [[3, 0], [0, 3]] {
            let mut pictures = Pictures::default();
            for count in counts {
                pictures.were_read(count, 700, now);
            }
            assert_eq!(pictures.left_alone(), Some(Micros(1_000_700)));
        }
    }
}
