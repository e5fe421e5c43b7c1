//! The threads around the planes: sockets, batches, queues. The only crate that blocks or holds `unsafe`.
//!
//! A thread owns its `Plane`, its sockets and its connections. Callers queue commands and drain events; neither waits for it.
//! With several threads (shards) each has sockets of its own on the same port, and rings to the others.
//! Not here: what datagrams mean (`parley-core`), Python (`parley-py`).
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod batch;
mod clock;
mod command;
mod engine;
mod epoll;
mod interfaces;
mod pictures;
mod probe;
mod relay;
mod report;
mod ring;
mod run;
mod shard;
mod stream;
mod sys;

pub use command::Command;
pub use engine::{Engine, Full, Options, MAX_LISTEN};
pub use interfaces::local_addresses;
pub use probe::{fanout_ceiling, Ceiling};
pub use relay::RelayCounters;
pub use report::{Load, Report};
pub use stream::StreamCounters;
