//! The thread around the plane: sockets, batches, queues. The only crate that blocks or holds `unsafe`.
//!
//! One thread owns the `Plane` and every socket. Callers queue commands and drain events; neither waits for it.
//! Not here: what datagrams mean (`parley-core`), Python (`parley-py`).
#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod batch;
mod command;
mod engine;
mod probe;
mod ring;
mod run;
mod sys;

pub use command::Command;
pub use engine::{Engine, Full};
pub use probe::{fanout_ceiling, Ceiling};
pub use run::Report;
