//! One connection: frames out of its bytes, and bytes that wait for room.
//!
//! Not here: which connections there are, what is dropped when too much waits (`stream`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};

use parley_core::id::Micros;
use parley_core::sources::Counted;
use parley_core::wire::Path;

use super::MAX_FRAME_BYTES;

/// Two frames and their lengths.
const READ_BYTES: usize = 2 * (2 + MAX_FRAME_BYTES);

/// One connection and what it has not read or written yet.
pub struct Connection {
    pub(super) stream: TcpStream,
    pub(super) path: Path,
    pub(super) source: IpAddr,
    /// Among its source's, of all shards.
    _counted: Counted,
    pub(super) opened: Micros,
    pub(super) is_proven: bool,
    /// Part of a frame, or several.
    input: Box<[u8; READ_BYTES]>,
    start: usize,
    end: usize,
    pub(super) output: VecDeque<u8>,
    pub(super) is_watched_for_room: bool,
    pub(super) is_dirty: bool,
    pub(super) is_over: bool,
}

pub(super) struct TooLong;

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
            input: Box::new([0; READ_BYTES]),
            start: 0,
            end: 0,
            output: VecDeque::new(),
            is_watched_for_room: false,
            is_dirty: false,
            is_over: false,
        }
    }

    /// The next whole frame of what was read, copied.
    pub(super) fn take_frame(
        &mut self,
        frame: &mut [u8; MAX_FRAME_BYTES],
    ) -> Result<Option<usize>, TooLong> {
        let waiting = &self.input[self.start..self.end];
        let Some((header, rest)) = waiting.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*header));
        if len > MAX_FRAME_BYTES {
            return Err(TooLong);
        }
        let Some(bytes) = rest.get(..len) else {
            return Ok(None);
        };
        frame[..len].copy_from_slice(bytes);
        self.start += 2 + len;
        Ok(Some(len))
    }

    /// The frame that was taken last, of so many bytes, is the next one again.
    pub(super) fn put_back(&mut self, frame_bytes: usize) {
        self.start -= 2 + frame_bytes;
    }

    /// Bytes read; 0 = nothing now. The end is an error.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
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
