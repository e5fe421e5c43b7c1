//! The sender: one thread that protects and sends the packets of one publisher, at a rate or as fast as they are taken.
//!
//! With a window it never is more than so many packets ahead of the slowest receiver: the server then always has
//! work and never drowns, whatever else the machine does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver as Queue;
use std::sync::Arc;
use std::time::Duration;

use parley_core::media::rtcp::{Compound, Packet as Rtcp};

use crate::packet::{Packet, FRAME_PACKETS, TAG_BYTES};
use crate::peer::{kind, micros, Kind, Peer};
use crate::progress::Progress;
use crate::sys::{self, Batch};

const PAUSE: Duration = Duration::from_micros(150);
/// A receiver that does not move for so long holds nobody up: what was under way is lost.
const STUCK_NS: u64 = 100_000_000;
/// Most packets protected between two looks at the clock.
const BURST: u64 = 32;
/// A sender that was not scheduled does not catch up on more than this.
const MAX_DEBT_NS: u64 = 20_000_000;

/// How fast; may change while running.
#[derive(Default)]
pub struct Pace {
    /// Packets per second; 0 = silence.
    pub rate: AtomicU64,
    /// Packets ahead of the slowest receiver; 0 = whatever comes of it.
    pub window: AtomicU64,
    pub is_over: AtomicBool,
}

/// What to send.
pub struct Stream {
    pub peer: Peer,
    pub ssrc: u32,
    pub payload_type: u8,
    /// SRTP packet, tag included.
    pub packet_bytes: usize,
}

pub struct Sender {
    stream: Stream,
    progress: Arc<Progress>,
    pace: Arc<Pace>,
    batch: Batch,
    number: u64,
    is_key_asked: bool,
    is_key_frame: bool,
    timestamp: u32,
    /// Numbers below are no longer under way.
    floor: u64,
    slowest: u64,
    moved_ns: u64,
}

impl Sender {
    pub fn new(stream: Stream, progress: Arc<Progress>, pace: Arc<Pace>) -> Self {
        Self {
            stream,
            progress,
            pace,
            batch: Batch::new(),
            number: 0,
            is_key_asked: true,
            is_key_frame: false,
            timestamp: 0,
            floor: 0,
            slowest: 0,
            moved_ns: 0,
        }
    }

    /// Wait for the one stream of this run and send it until it is over.
    pub fn wait_and_run(streams: &Queue<Stream>, progress: Arc<Progress>, pace: Arc<Pace>) {
        if let Ok(stream) = streams.recv() {
            Self::new(stream, progress, pace).run();
        }
    }

    fn run(mut self) {
        let mut due_ns = sys::now_ns();
        while !self.pace.is_over.load(Relaxed) {
            self.listen();
            let now_ns = sys::now_ns();
            let rate = self.pace.rate.load(Relaxed);
            due_ns = due_ns.max(now_ns.saturating_sub(MAX_DEBT_NS));
            let allowed = if rate == 0 || due_ns > now_ns {
                0
            } else {
                let by_rate = (now_ns - due_ns) * rate / 1_000_000_000 + 1;
                by_rate.min(self.window_left(now_ns)).min(BURST)
            };
            if allowed == 0 {
                std::thread::sleep(PAUSE);
            } else {
                self.send(allowed as usize, now_ns);
                due_ns += allowed * 1_000_000_000 / rate;
            }
            self.progress
                .sender_cpu_ns
                .store(sys::thread_cpu_ns(), Relaxed);
        }
    }

    fn window_left(&mut self, now_ns: u64) -> u64 {
        let window = self.pace.window.load(Relaxed);
        if window == 0 {
            return u64::MAX;
        }
        let slowest = self.progress.slowest().unwrap_or(self.number);
        if slowest != self.slowest {
            (self.slowest, self.moved_ns) = (slowest, now_ns);
        } else if now_ns - self.moved_ns > STUCK_NS {
            (self.floor, self.moved_ns) = (self.number, now_ns);
        }
        let under_way = self.number - slowest.max(self.floor).min(self.number);
        window.saturating_sub(under_way)
    }

    fn send(&mut self, count: usize, now_ns: u64) {
        for at in 0..count {
            let len = self.stream.packet_bytes - TAG_BYTES - Packet::bytes_less(self.number);
            if self.number % FRAME_PACKETS == 0 {
                self.is_key_frame = std::mem::take(&mut self.is_key_asked);
                // 90 kHz, and never the same for two frames.
                let clock = (u128::from(now_ns) * 9 / 100_000) as u32;
                let is_ahead = (clock.wrapping_sub(self.timestamp) as i32) > 0;
                self.timestamp = if is_ahead {
                    clock
                } else {
                    self.timestamp.wrapping_add(1)
                };
            }
            let packet = Packet {
                payload_type: self.stream.payload_type,
                ssrc: self.stream.ssrc,
                number: self.number,
                timestamp: self.timestamp,
                is_key: self.is_key_frame,
                sent_ns: now_ns,
            };
            let room = &mut self.batch.bytes[at];
            packet.write(&mut room[..len]);
            let sealed = self.stream.peer.session.sender.rtp(room, len);
            self.batch.lens[at] = sealed.expect("numbers go up and there is room");
            self.number += 1;
        }
        self.batch.send(self.stream.peer.fd, count);
        self.progress.sent.store(self.number, Relaxed);
    }

    /// Checks, and what receivers say through the server.
    fn listen(&mut self) {
        let count = self.batch.receive(self.stream.peer.fd);
        for at in 0..count {
            let datagram = &mut self.batch.bytes[at][..self.batch.lens[at]];
            match kind(datagram) {
                Kind::Stun => self.stream.peer.answer(datagram),
                Kind::Rtcp => {
                    let Ok(len) = self.stream.peer.session.receiver.rtcp(datagram, micros()) else {
                        continue;
                    };
                    for packet in Compound::new(&datagram[..len]).flatten() {
                        match packet {
                            Rtcp::Pli { .. } | Rtcp::Fir { .. } => {
                                self.is_key_asked = true;
                                self.progress.keys_asked.fetch_add(1, Relaxed);
                            }
                            Rtcp::Nack { .. } => {
                                self.progress.nacks.fetch_add(1, Relaxed);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
