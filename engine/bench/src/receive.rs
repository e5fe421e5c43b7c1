//! The sink: one thread that reads every packet of every receiver, counts gaps and decrypts a sample.
//!
//! It sweeps all sockets and then sleeps a moment: whoever waits in poll is woken once per packet, and on loopback
//! the server would pay for that.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver as Queue;
use std::sync::Arc;
use std::time::Duration;

use parley_core::media::rtcp::{Builder, Report};

use crate::packet;
use crate::peer::{kind, micros, Kind, Peer};
use crate::progress::Progress;
use crate::sys::{self, Batch, BATCH};

const PAUSE: Duration = Duration::from_micros(300);
/// Every so many packets of a receiver one is decrypted.
const SAMPLE: u64 = 64;
const REPORT_NS: u64 = 1_000_000_000;

struct Receiver {
    peer: Peer,
    ssrc: u32,
    /// Publisher's number minus our extended sequence number.
    offset: i64,
    highest: u64,
    received: u64,
    report_due_ns: u64,
}

pub struct Sink {
    receivers: Vec<Receiver>,
    progress: Arc<Progress>,
    batch: Batch,
    builder: Builder,
}

impl Sink {
    pub fn new(progress: Arc<Progress>) -> Self {
        Self {
            receivers: Vec::new(),
            progress,
            batch: Batch::new(),
            builder: Builder::default(),
        }
    }

    /// Until nobody can add receivers any more.
    pub fn run(mut self, joining: &Queue<Peer>) {
        use std::sync::mpsc::TryRecvError;
        loop {
            match joining.try_recv() {
                Ok(peer) => {
                    self.receivers.push(Receiver {
                        peer,
                        ssrc: 0,
                        offset: 0,
                        highest: 0,
                        received: 0,
                        report_due_ns: 0,
                    });
                    let count = self.receivers.len() as u64;
                    self.progress.receivers.store(count, Relaxed);
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            let mut is_idle = true;
            for at in 0..self.receivers.len() {
                is_idle &= self.drain(at) == 0;
            }
            self.progress
                .sink_cpu_ns
                .store(sys::thread_cpu_ns(), Relaxed);
            if is_idle {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn drain(&mut self, at: usize) -> usize {
        let mut total = 0;
        loop {
            let count = self.batch.receive(self.receivers[at].peer.fd);
            total += count;
            self.take(at, count);
            if count < BATCH {
                break;
            }
        }
        let now_ns = sys::now_ns();
        let receiver = &mut self.receivers[at];
        if receiver.ssrc != 0 && now_ns >= receiver.report_due_ns {
            receiver.report_due_ns = now_ns + REPORT_NS;
            self.builder.clear();
            let block = Report {
                ssrc: receiver.ssrc,
                highest: receiver.highest as u32,
                ..Report::default()
            };
            self.builder.receiver_report(receiver.peer.id + 1, &[block]);
            receiver.peer.send_rtcp(self.builder.bytes());
        }
        total
    }

    fn take(&mut self, at: usize, count: usize) {
        let progress = &*self.progress;
        let receiver = &mut self.receivers[at];
        let (mut copies, mut bytes, mut lost, mut others) = (0, 0, 0i64, 0);
        for (room, len) in self.batch.bytes[..count].iter_mut().zip(self.batch.lens) {
            let datagram = &mut room[..len];
            match kind(datagram) {
                Kind::Rtp if len > 28 => {
                    let ssrc =
                        u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]);
                    if receiver.ssrc == 0 {
                        receiver.begin(ssrc, datagram, progress);
                    } else if ssrc != receiver.ssrc {
                        others += 1;
                        continue;
                    }
                    copies += 1;
                    bytes += len as u64;
                    lost += receiver.count(datagram);
                    if receiver.received % SAMPLE == 0 {
                        receiver.sample(datagram, progress);
                    }
                }
                Kind::Stun => receiver.peer.answer(datagram),
                _ => others += 1,
            }
        }
        if receiver.ssrc != 0 {
            let number = receiver.highest as i64 + receiver.offset;
            progress.reach(at, number.max(0) as u64 + 1);
        }
        progress.copies.fetch_add(copies, Relaxed);
        progress.bytes.fetch_add(bytes, Relaxed);
        progress.lost.fetch_add(lost as u64, Relaxed); // wraps back when a late one comes
        progress.others.fetch_add(others, Relaxed);
    }
}

impl Receiver {
    /// The first packet: its stream is ours if it can be decrypted.
    fn begin(&mut self, ssrc: u32, datagram: &[u8], progress: &Progress) {
        let sequence = u64::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        let mut copy = datagram.to_vec();
        let opened = self.peer.session.receiver.rtp(&mut copy, micros());
        progress.opened.fetch_add(1, Relaxed);
        let Some((number, _)) = opened.ok().and_then(|len| packet::stamp(&copy[..len])) else {
            progress.forged.fetch_add(1, Relaxed);
            return;
        };
        println!("first {} {}", self.peer.id, sys::now_ns());
        self.ssrc = ssrc;
        self.highest = sequence;
        self.offset = number as i64 - sequence as i64;
    }

    /// Account for a packet; how many more (or fewer) are missing now.
    fn count(&mut self, datagram: &[u8]) -> i64 {
        self.received += 1;
        let sequence = u16::from_be_bytes([datagram[2], datagram[3]]);
        let step = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if step > 0 {
            self.highest += step as u64;
            step - 1
        } else if self.received == 1 {
            0
        } else {
            -1
        }
    }

    fn sample(&mut self, datagram: &mut [u8], progress: &Progress) {
        let opened = self.peer.session.receiver.rtp(datagram, micros());
        progress.opened.fetch_add(1, Relaxed);
        match opened.ok().and_then(|len| packet::stamp(&datagram[..len])) {
            Some((_, sent_ns)) => {
                let delay_us = sys::now_ns().saturating_sub(sent_ns) / 1_000;
                progress.delayed(u32::try_from(delay_us).unwrap_or(u32::MAX));
            }
            None => {
                progress.forged.fetch_add(1, Relaxed);
            }
        }
    }
}
