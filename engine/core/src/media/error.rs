//! What can go wrong, named by fault.

use std::fmt;

/// Why the router or a parser said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The transport is not there (never added, or removed).
    UnknownTransport,
    /// This handle is in use already.
    DuplicateHandle,
    /// A value no caller may pass: the word names it.
    Invalid(&'static str),
    /// A packet no peer may send: the word names what is wrong with it.
    Malformed(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTransport => f.write_str("unknown transport"),
            Self::DuplicateHandle => f.write_str("handle already in use"),
            Self::Invalid(what) => write!(f, "invalid {what}"),
            Self::Malformed(what) => write!(f, "malformed {what}"),
        }
    }
}

impl std::error::Error for Error {}
