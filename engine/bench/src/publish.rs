//! The sender: one thread that protects and sends every stream, each at its rate or as fast as it is taken.
//!
//! With a window a stream never is more than so many packets ahead of the slowest receiver: the server then always
//! has work and never drowns, whatever else the machine does.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver as Queue, TryRecvError};
use std::sync::Arc;
use std::time::Duration;

use crate::link::{Way, Weather};
use crate::packet::{payload_at, Head, Shape, Stamp, OSN_BYTES, TAG_BYTES};
use crate::peer::Peer;
use crate::progress::Progress;
use crate::sys::{self, Batch, BATCH, ROOM};

const PAUSE: Duration = Duration::from_micros(150);
/// A receiver that does not move for so long holds nobody up: what was under way is lost.
const STUCK_NS: u64 = 100_000_000;
/// Most packets of one stream between two looks at the clock.
const BURST: u64 = 32;
/// A sender that was not scheduled does not catch up on more than this.
const MAX_DEBT_NS: u64 = 20_000_000;
/// Packets kept to be repeated; a second of the fastest simulcast layer.
const HISTORY: usize = 512;
const SEED: u64 = 0x5eed;

/// What the sender is told.
pub enum Order {
    Join(Box<Peer>),
    Send(Box<Stream>),
    /// Track, packets/s (0 = silence), window in packets (0 = whatever comes of it).
    Pace(u16, u64, u64),
    /// The server wants a key frame of this stream of a peer.
    Key(u32, u32),
    /// ... or misses this.
    Repeat(u32, u32, Vec<u16>),
}

/// One RTP stream: a track, or one simulcast layer of it.
pub struct Stream {
    pub peer: u32,
    pub track: u16,
    pub layer: u8,
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    pub shape: Shape,
    pub rtx: Shape,
    /// Packets per second; 0 = silence.
    pub rate: u64,
    pub window: u64,
    /// Packets that leave together.
    pub burst: u64,
    pub state: State,
}

/// Where a stream is.
#[derive(Default)]
pub struct State {
    number: u64,
    is_key_asked: bool,
    is_key_frame: bool,
    timestamp: u32,
    due_ns: u64,
    rtx_sequence: u16,
    /// Numbers below are no longer under way.
    floor: u64,
    slowest: u64,
    moved_ns: u64,
    /// Plaintext, by number modulo `HISTORY`.
    history: Vec<Vec<u8>>,
}

struct Publisher {
    peer: Peer,
    /// Transport-wide number of the next packet.
    transport: u16,
}

pub struct Sender {
    publishers: HashMap<u32, Publisher>,
    streams: Vec<Stream>,
    progress: Arc<Progress>,
    weather: Arc<Weather>,
    way: Way,
    batch: Batch,
}

impl Sender {
    pub fn new(progress: Arc<Progress>, weather: Arc<Weather>) -> Self {
        Self {
            publishers: HashMap::new(),
            streams: Vec::new(),
            progress,
            weather,
            way: Way::new(SEED),
            batch: Batch::new(),
        }
    }

    /// Until nobody can order any more.
    pub fn run(mut self, orders: &Queue<Order>) {
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(order),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let mut is_idle = true;
            for at in 0..self.streams.len() {
                is_idle &= self.step(at) == 0;
            }
            self.way.flush(sys::now_ns());
            let cpu_ns = sys::thread_cpu_ns();
            self.progress.sender_cpu_ns.store(cpu_ns, Relaxed);
            if is_idle {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(peer) => {
                let transport = 0;
                self.publishers.insert(
                    peer.id,
                    Publisher {
                        peer: *peer,
                        transport,
                    },
                );
            }
            Order::Send(mut stream) => {
                stream.state.is_key_asked = true;
                // Not all pictures of a room at the same instant.
                stream.state.due_ns = sys::now_ns() + self.streams.len() as u64 * 1_700_000;
                if stream.rtx_ssrc != 0 {
                    stream.state.history = vec![Vec::new(); HISTORY];
                }
                self.streams.push(*stream);
            }
            Order::Pace(track, rate, window) => {
                for stream in self.streams.iter_mut().filter(|one| one.track == track) {
                    (stream.rate, stream.window) = (rate, window);
                }
            }
            Order::Key(peer, ssrc) => {
                self.progress.keys_asked.fetch_add(1, Relaxed);
                if let Some(at) = self.find(peer, ssrc) {
                    self.streams[at].state.is_key_asked = true;
                }
            }
            Order::Repeat(peer, ssrc, lost) => {
                let count = lost.len() as u64;
                self.progress.nacks.fetch_add(count, Relaxed);
                if let Some(at) = self.find(peer, ssrc) {
                    lost.iter().for_each(|sequence| self.repeat(at, *sequence));
                }
            }
        }
    }

    fn find(&self, peer: u32, ssrc: u32) -> Option<usize> {
        let mut streams = self.streams.iter();
        streams.position(|one| one.peer == peer && one.ssrc == ssrc)
    }

    /// Send what is due of one stream; how many packets that was.
    fn step(&mut self, at: usize) -> u64 {
        let now_ns = sys::now_ns();
        let stream = &mut self.streams[at];
        let rate = stream.rate;
        let due_ns = stream.state.due_ns.max(now_ns.saturating_sub(MAX_DEBT_NS));
        if rate == 0 || due_ns > now_ns {
            return 0;
        }
        let by_rate = (now_ns - due_ns) * rate / 1_000_000_000 / stream.burst + 1;
        let allowed = (by_rate * stream.burst).min(BURST);
        let allowed = allowed.min(stream.window_left(now_ns, &self.progress));
        if allowed == 0 {
            return 0;
        }
        stream.state.due_ns = due_ns + allowed * 1_000_000_000 / rate;
        self.send(at, allowed as usize, now_ns);
        allowed
    }

    fn send(&mut self, at: usize, count: usize, now_ns: u64) {
        let stream = &mut self.streams[at];
        let Some(publisher) = self.publishers.get_mut(&stream.peer) else {
            return;
        };
        let mut bytes = 0;
        for place in 0..count.min(BATCH) {
            let room = &mut self.batch.bytes[place];
            let len = stream.fill(room, &mut publisher.transport, now_ns);
            let sealed = publisher.peer.session.sender.rtp(room, len);
            self.batch.lens[place] = sealed.expect("numbers go up and there is room");
            bytes += self.batch.lens[place] as u64;
        }
        let fd = publisher.peer.fd;
        if self.weather.is_fair() {
            self.batch.send(fd, count);
        } else {
            for (room, len) in self.batch.bytes[..count].iter().zip(self.batch.lens) {
                self.way.send(&self.weather, fd, &room[..len], now_ns);
            }
        }
        self.progress.sent.fetch_add(count as u64, Relaxed);
        self.progress.sent_bytes.fetch_add(bytes, Relaxed);
    }

    /// RFC 4588: the packet again, on the stream's repair SSRC.
    fn repeat(&mut self, at: usize, sequence: u16) {
        let stream = &mut self.streams[at];
        let Some(publisher) = self.publishers.get_mut(&stream.peer) else {
            return;
        };
        let back = (stream.state.number as u16).wrapping_sub(sequence);
        let Some(number) = stream.state.number.checked_sub(u64::from(back)) else {
            return;
        };
        let kept = stream.state.history.get(number as usize % HISTORY);
        let Some(old) = kept.filter(|old| old.get(2..4) == Some(&sequence.to_be_bytes()[..]))
        else {
            return;
        };
        let Some(payload) = payload_at(old).map(|start| &old[start..]) else {
            return;
        };
        let mut room = [0; ROOM];
        let now_ns = sys::now_ns();
        let head = Head {
            sequence: stream.state.rtx_sequence,
            timestamp: u32::from_be_bytes([old[4], old[5], old[6], old[7]]),
            marker: old[1] >> 7 == 1,
            transport: publisher.transport,
        };
        let start = stream.rtx.write_header(&mut room, &head, now_ns);
        let end = start + OSN_BYTES + payload.len();
        if end + TAG_BYTES > ROOM {
            return;
        }
        room[start..start + OSN_BYTES].copy_from_slice(&sequence.to_be_bytes());
        room[start + OSN_BYTES..end].copy_from_slice(payload);
        stream.state.rtx_sequence = head.sequence.wrapping_add(1);
        publisher.transport = head.transport.wrapping_add(1);
        if let Ok(len) = publisher.peer.session.sender.rtp(&mut room, end) {
            let fd = publisher.peer.fd;
            self.way.send(&self.weather, fd, &room[..len], now_ns);
            self.progress.resent.fetch_add(1, Relaxed);
        }
    }
}

impl Stream {
    /// Write the next packet; its length before SRTP.
    fn fill(&mut self, room: &mut [u8; ROOM], transport: &mut u16, now_ns: u64) -> usize {
        let (shape, state) = (&self.shape, &mut self.state);
        let len = shape.len(state.number);
        if state.number % shape.frame_packets == 0 {
            state.is_key_frame = std::mem::take(&mut state.is_key_asked);
            // 90 or 48 kHz, and never the same for two frames.
            let per_10_us = if shape.video { 9 } else { 5 };
            let clock = (u128::from(now_ns) * per_10_us / 100_000) as u32;
            let is_ahead = (clock.wrapping_sub(state.timestamp) as i32) > 0;
            state.timestamp = if is_ahead {
                clock
            } else {
                state.timestamp.wrapping_add(1)
            };
        }
        let head = Head {
            sequence: state.number as u16,
            timestamp: state.timestamp,
            marker: shape.video && (state.number + 1) % shape.frame_packets == 0,
            transport: *transport,
        };
        let stamp = Stamp {
            track: self.track,
            layer: self.layer,
            video: shape.video,
            number: state.number,
            sent_ns: sys::now_ns(),
        };
        shape.write(&mut room[..len], &head, &stamp, state.is_key_frame);
        *transport = transport.wrapping_add(1);
        if !state.history.is_empty() {
            let kept = &mut state.history[state.number as usize % HISTORY];
            kept.clear();
            kept.extend(&room[..len]);
        }
        state.number += 1;
        len
    }

    fn window_left(&mut self, now_ns: u64, progress: &Progress) -> u64 {
        if self.window == 0 {
            return u64::MAX;
        }
        let state = &mut self.state;
        let slowest = progress.slowest().unwrap_or(state.number);
        if slowest != state.slowest {
            (state.slowest, state.moved_ns) = (slowest, now_ns);
        } else if now_ns - state.moved_ns > STUCK_NS {
            (state.floor, state.moved_ns) = (state.number, now_ns);
        }
        let under_way = state.number - slowest.max(state.floor).min(state.number);
        self.window.saturating_sub(under_way)
    }
}
