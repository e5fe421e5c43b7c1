//! The thread around the plane: sockets, batches, queues. The only crate that blocks or holds `unsafe`.
//!
//! One thread owns the `Plane`, every socket and every connection. Callers queue commands and drain events; neither waits for it.
//! Not here: what datagrams mean (`parley-core`), Python (`parley-py`).
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod batch;
mod command;
mod engine;
mod epoll;
mod interfaces;
mod probe;
mod ring;
mod run;
mod stream;
mod sys;

pub use command::Command;
pub use engine::{Engine, Full, Options};
pub use interfaces::local_addresses;
pub use probe::{fanout_ceiling, Ceiling};
pub use run::Report;
pub use stream::StreamCounters;
