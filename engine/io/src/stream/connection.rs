//! One connection: what is read from it, and bytes that wait for room.
//!
//! Not here: frames out of bytes (`parley_core::framing`), which connections there are, what is dropped when too much
//! waits (`stream`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};

use parley_core::framing::Frames;
use parley_core::id::Micros;
use parley_core::sources::Counted;
use parley_core::wire::Path;

/// One connection and what it has not read or written yet.
pub struct Connection {
    pub(super) stream: TcpStream,
    pub(super) path: Path,
    pub(super) source: IpAddr,
    /// Among its source's, of all shards.
    _counted: Counted,
    pub(super) opened: Micros,
    pub(super) is_proven: bool,
    pub(super) input: Frames,
    pub(super) output: VecDeque<u8>,
    pub(super) is_watched_for_room: bool,
    pub(super) is_dirty: bool,
    pub(super) is_over: bool,
}

impl Connection {
    /// As accepted at this time.
    pub(super) fn new(
        stream: TcpStream,
        path: Path,
        source: IpAddr,
        counted: Counted,
        now: Micros,
    ) -> Self {
        Self {
            stream,
            path,
            source,
            _counted: counted,
            opened: now,
            is_proven: false,
            input: Frames::default(),
            output: VecDeque::new(),
            is_watched_for_room: false,
            is_dirty: false,
            is_over: false,
        }
    }

    /// Bytes read; 0 = nothing now. The end is an error.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        match self.stream.read(self.input.room()) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.filled(count);
                Ok(count)
            }
            Err(why) if is_temporary(&why) => Ok(0),
            Err(why) => Err(why),
        }
    }

    /// Whether something still waits.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            match self.stream.write(front) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(why) => return Err(why),
            }
        }
        Ok(false)
    }
}

fn is_temporary(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
