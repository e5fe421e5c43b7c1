//! The targets, for the binaries in `fuzz_targets`.
pub mod targets;
