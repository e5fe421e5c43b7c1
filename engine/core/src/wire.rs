//! Where datagrams come from and go to: a 5-tuple, and the caller's place to put what leaves.
//!
//! Not here: sockets (`parley-io`), what the datagrams mean (`stun`, `srtp`, `media`).

use std::net::{IpAddr, SocketAddr};

use crate::id::TransportId;
use crate::media;
use crate::shard::Notice;

/// Bytes of an outgoing slot: the largest plaintext (1,460) plus every SRTP trailer, below one Ethernet frame's payload.
pub const SLOT_BYTES: usize = 1_536;

/// `Path::socket` of the first TCP listener.
pub const FIRST_LISTENER: u8 = 128;

/// A 5-tuple as we see it: our socket, the address the datagram was sent to, and the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Index of the listening socket. From `FIRST_LISTENER` on: of a TCP listener, and `remote` names the connection.
    pub socket: u8,
    /// Our address; replies must leave from it or ICE drops them on a multi-homed host.
    pub local: IpAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// What a datagram carries, as far as those who send it need to know: its mark in the network (RFC 8837) and
/// what goes first when a stream is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Video, its repairs and its padding.
    Video,
    /// Audio.
    Audio,
    /// STUN, DTLS, RTCP.
    Control,
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
    /// The slot holds `len` bytes of `Traffic::Control` for this path.
    fn commit(&mut self, path: &Path, len: usize);
    /// The slot holds `len` bytes of this traffic for this path.
    fn commit_as(&mut self, path: &Path, len: usize, traffic: Traffic) {
        let _ = traffic;
        self.commit(path, len);
    }
    /// Something to tell.
    fn event(&mut self, event: Event);
    /// A datagram for another shard; `is_stranger`: from no validated 5-tuple. Lost when too many wait.
    fn pass(&mut self, to: u8, path: &Path, datagram: &[u8], is_stranger: bool) {
        let _ = (to, path, datagram, is_stranger);
    }
    /// A packet of a track for the subscribers of another shard. Lost when too many wait.
    fn relay(&mut self, to: u8, packet: &media::Relayed, bytes: &[u8]) {
        let _ = (to, packet, bytes);
    }
    /// Something to tell another shard; never lost.
    fn notify(&mut self, to: u8, notice: Notice) {
        let _ = (to, notice);
    }
    /// Many notices wait for another shard: nothing that peers may cause at will should add to them.
    fn is_behind(&self) -> bool {
        false
    }
}
