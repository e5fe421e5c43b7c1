//! Where datagrams come from and go to: a 5-tuple, and the caller's place to put what leaves.
//!
//! Not here: sockets (`parley-io`), what the datagrams mean (`stun`, `srtp`, `media`).

use std::net::{IpAddr, SocketAddr};

use crate::id::TransportId;
use crate::media;

/// Bytes of an outgoing slot: the largest plaintext (1,460) plus every SRTP trailer, below one Ethernet frame's payload.
pub const SLOT_BYTES: usize = 1_536;

/// A 5-tuple as we see it: our socket, the address the datagram was sent to, and the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Index of the listening socket.
    pub socket: u8,
    /// Our address; replies must leave from it or ICE drops them on a multi-homed host.
    pub local: IpAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// What the plane tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first authenticated check of a transport; datagrams may follow.
    Validated(TransportId),
    /// A DTLS datagram from a validated 5-tuple.
    Datagram(TransportId, Vec<u8>),
    /// No authenticated packet for five seconds.
    Silent(TransportId),
    /// An authenticated packet after `Silent`.
    Heard(TransportId),
    /// Consent is lost; nothing is sent any more until an ICE restart.
    Expired(TransportId),
    /// From the router.
    Media(media::Event),
}

/// Where the plane puts what leaves it. The implementation batches.
pub trait Output {
    /// Room for the next datagram, at least `SLOT_BYTES`. Asking twice without `commit` gives the same room.
    fn slot(&mut self) -> &mut [u8];
    /// The slot holds `len` bytes for this path.
    fn commit(&mut self, path: &Path, len: usize);
    /// Something to tell.
    fn event(&mut self, event: Event);
}
