//! The data plane without a socket, a clock or a thread: bytes, values and `now` in; bytes and events out.
//!
//! * `stun`, `ice`: one answering ICE endpoint per transport (RFC 8489, RFC 8445, RFC 7675).
//! * `srtp`: protection and replay windows (RFC 3711, RFC 7714).
//! * `media`: RTP and RTCP parsing, publications, subscriptions, routing (RFC 3550 and friends).
//! * `frames`: datagrams in a byte stream (RFC 4571).
//! * `plane`: all of it behind one `receive` and one `tick`; `wire` is what it asks of its owner.
//! * `shard`: several planes behind one port; `sources`: what they count together.
//! * `overload`: how much video the CPU carries.
//!
//! Not here: sockets and threads (`parley-io`), Python (`parley-py`), DTLS (Python's sfu worker).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
mod emulator;
pub mod framing;
pub mod hash;
pub mod ice;
pub mod id;
pub mod limit;
pub mod media;
pub mod overload;
pub mod plane;
pub mod random;
pub mod shard;
pub mod sources;
pub mod srtp;
pub mod stun;
pub mod wire;
