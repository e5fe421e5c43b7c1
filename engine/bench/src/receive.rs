//! The sink: one thread that reads every datagram of every peer, counts gaps and decrypts a sample.
//!
//! It sweeps all sockets and then sleeps a moment: whoever waits in poll is woken once per packet, and on loopback
//! the server would pay for that. How long a packet waits for the sweep is no delay of the server: with stamps on,
//! the kernel says when it arrived.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as Queue, SyncSender, TryRecvError};
use std::sync::Arc;
use std::time::Duration;

use parley_core::id::Micros;
use parley_core::media::rtcp::{Builder, Compound, Packet as Rtcp};
use parley_core::media::twcc::Recorder;
use parley_core::random::Random;

use crate::inbox::{self, Inbox, MESSAGES};
use crate::incoming::Incoming;
use crate::link::{Way, Weather};
use crate::packet::{self, Found};
use crate::peer::{kind, micros, Kind, Peer};
use crate::progress::{Progress, LAYERS};
use crate::publish::Order;
use crate::sys;

/// Between two sweeps; longer when nothing comes.
const PAUSE: Duration = Duration::from_micros(300);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
const REPORT_NS: u64 = 1_000_000_000;
/// Transport-wide feedback, as libwebrtc sends it.
const FEEDBACK_NS: u64 = 50_000_000;
const SEED: u64 = 0x0dd5;

/// How receivers behave; set from outside.
pub struct Manner {
    /// Every so many packets of a stream one is decrypted.
    pub sample: AtomicU64,
    /// Send NACKs and transport-wide feedback.
    pub feedback: AtomicBool,
    /// The kernel stamps arrivals.
    pub stamps: AtomicBool,
    /// Messages of several datagrams are read as they were sent.
    pub whole: AtomicBool,
    /// Header extension id of transport-wide numbers on the way down.
    pub transport_id: AtomicU8,
}

struct Receiver {
    peer: Peer,
    streams: Vec<Incoming>,
    recorder: Recorder,
    report_due_ns: u64,
    feedback_due_ns: u64,
    has_begun: bool,
}

pub struct Sink {
    receivers: Vec<Receiver>,
    progress: Arc<Progress>,
    weather: Arc<Weather>,
    manner: Arc<Manner>,
    orders: SyncSender<Order>,
    way: Way,
    random: Random,
    inbox: Inbox,
    builder: Builder,
    lost: Vec<u16>,
    has_stamps: bool,
    takes_whole: bool,
}

impl Sink {
    pub fn new(
        progress: Arc<Progress>,
        weather: Arc<Weather>,
        manner: Arc<Manner>,
        orders: SyncSender<Order>,
    ) -> Self {
        Self {
            receivers: Vec::new(),
            progress,
            weather,
            manner,
            orders,
            way: Way::new(SEED),
            random: Random::new(!SEED),
            inbox: Inbox::new(),
            builder: Builder::default(),
            lost: Vec::new(),
            has_stamps: false,
            takes_whole: false,
        }
    }

    /// Until nobody can add peers any more.
    pub fn run(mut self, joining: &Queue<Peer>) {
        let mut pause = PAUSE;
        loop {
            loop {
                match joining.try_recv() {
                    Ok(peer) => self.join(peer),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let manner = &self.manner;
            let wants = (manner.stamps.load(Relaxed), manner.whole.load(Relaxed));
            if wants != (self.has_stamps, self.takes_whole) {
                (self.has_stamps, self.takes_whole) = wants;
                for receiver in &self.receivers {
                    inbox::set_stamps(receiver.peer.fd, wants.0);
                    inbox::set_whole(receiver.peer.fd, wants.1);
                }
            }
            let mut is_idle = true;
            for at in 0..self.receivers.len() {
                is_idle &= self.drain(at) == 0;
            }
            self.way.flush(sys::now_ns());
            let cpu_ns = sys::thread_cpu_ns();
            self.progress.sink_cpu_ns.store(cpu_ns, Relaxed);
            if is_idle {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                pause = PAUSE;
            }
        }
    }

    fn join(&mut self, peer: Peer) {
        inbox::set_stamps(peer.fd, self.has_stamps);
        inbox::set_whole(peer.fd, self.takes_whole);
        self.receivers.push(Receiver {
            peer,
            streams: Vec::new(),
            recorder: Recorder::default(),
            report_due_ns: 0,
            feedback_due_ns: 0,
            has_begun: false,
        });
        let count = self.receivers.len() as u64;
        self.progress.receivers.store(count, Relaxed);
    }

    fn drain(&mut self, at: usize) -> usize {
        let mut total = 0;
        loop {
            let count = self.inbox.receive(self.receivers[at].peer.fd);
            total += count;
            self.take(at, count);
            if count < MESSAGES {
                break;
            }
        }
        self.speak(at);
        total
    }

    /// Reports and feedback that are due.
    fn speak(&mut self, at: usize) {
        let now_ns = sys::now_ns();
        let feedback = self.manner.feedback.load(Relaxed);
        let receiver = &mut self.receivers[at];
        if receiver.streams.is_empty() {
            return;
        }
        self.builder.clear();
        let own = receiver.peer.id + 1;
        let is_report_due = now_ns >= receiver.report_due_ns;
        let is_feedback_due = feedback && now_ns >= receiver.feedback_due_ns;
        if is_report_due {
            receiver.report_due_ns = now_ns + REPORT_NS;
        }
        if is_report_due || is_feedback_due {
            let streams = receiver.streams.iter_mut().take(31);
            let blocks: Vec<_> = if is_report_due {
                streams.map(Incoming::report).collect()
            } else {
                Vec::new()
            };
            self.builder.receiver_report(own, &blocks);
        }
        if is_feedback_due {
            receiver.feedback_due_ns = now_ns + FEEDBACK_NS;
            if !receiver.recorder.is_empty() {
                receiver.recorder.write(own, &mut self.builder);
            }
        }
        if feedback {
            for stream in &mut receiver.streams {
                stream.due(now_ns / 1_000, &mut self.lost);
                if !self.lost.is_empty() {
                    let count = self.lost.len() as u64;
                    self.progress.asked.fetch_add(count, Relaxed);
                    if self.builder.bytes().is_empty() {
                        self.builder.receiver_report(own, &[]);
                    }
                    self.builder.nack(own, stream.ssrc, &self.lost);
                }
            }
        }
        if !self.builder.bytes().is_empty() {
            if let Some(sealed) = receiver.peer.seal_rtcp(self.builder.bytes()) {
                self.way
                    .send(&self.weather, receiver.peer.fd, &sealed, now_ns);
            }
        }
    }

    fn take(&mut self, at: usize, count: usize) {
        let progress = &*self.progress;
        let receiver = &mut self.receivers[at];
        let feedback = self.manner.feedback.load(Relaxed);
        let sample = self.manner.sample.load(Relaxed).max(1);
        let transport_id = self.manner.transport_id.load(Relaxed);
        let fair = self.weather.is_fair();
        let (mut copies, mut bytes, mut others, mut audio) = (0, 0, 0, 0);
        let (mut lost, mut lost_audio) = (0i64, 0i64);
        for place in 0..count {
            let message = self.inbox.messages[place];
            let segments = self.inbox.bytes(place).chunks_mut(message.segment);
            for datagram in segments {
                let len = datagram.len();
                if !fair && self.weather.loses(&mut self.random) {
                    progress.eaten.fetch_add(1, Relaxed);
                    continue;
                }
                match kind(datagram) {
                    Kind::Rtp if len > 28 => {
                        if feedback {
                            receiver.note(datagram, transport_id);
                        }
                        let Some(stream) = receiver.stream(datagram) else {
                            others += 1;
                            lost += receiver.meet(datagram, progress);
                            continue;
                        };
                        copies += 1;
                        bytes += len as u64;
                        let sequence = u16::from_be_bytes([datagram[2], datagram[3]]);
                        let incoming = &mut receiver.streams[stream];
                        let repairs = feedback && incoming.video;
                        let gap = incoming.count(sequence, repairs, sys::now_ns() / 1_000);
                        if incoming.video {
                            lost += gap;
                        } else {
                            audio += 1;
                            lost_audio += gap;
                        }
                        if incoming.received % sample == 0 || incoming.received == 1 {
                            receiver.sample(stream, datagram, message.arrived_ns, progress);
                        } else {
                            let layer = usize::from(incoming.layer).min(LAYERS - 1);
                            progress.layers[layer].fetch_add(1, Relaxed);
                        }
                    }
                    Kind::Stun => {
                        if let Some(answer) = receiver.peer.answer(datagram) {
                            let now_ns = sys::now_ns();
                            self.way
                                .send(&self.weather, receiver.peer.fd, &answer, now_ns);
                        }
                        others += 1;
                    }
                    Kind::Rtcp => {
                        others += 1;
                        receiver.heed(datagram, &self.orders);
                    }
                    _ => others += 1,
                }
            }
        }
        if let Some(stream) = receiver.streams.iter().find(|one| one.track == 0) {
            let number = stream.highest as i64 + stream.offset;
            progress.reach(at, number.max(0) as u64 + 1);
        }
        progress.copies.fetch_add(copies, Relaxed);
        progress.bytes.fetch_add(bytes, Relaxed);
        progress.audio.fetch_add(audio, Relaxed);
        progress.lost.fetch_add(lost as u64, Relaxed); // wraps back when a late one comes
        progress.lost_audio.fetch_add(lost_audio as u64, Relaxed);
        progress.others.fetch_add(others, Relaxed);
    }
}

fn ssrc_of(datagram: &[u8]) -> u32 {
    u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]])
}

impl Receiver {
    /// For transport-wide feedback.
    fn note(&mut self, datagram: &[u8], id: u8) {
        if let Some(number) = packet::transport_number(datagram, id) {
            let now = Micros(sys::now_ns() / 1_000);
            self.recorder.record(number, ssrc_of(datagram), now);
        }
    }

    /// The stream of a packet. What was just met counts as known, so that its first packet is a copy too.
    fn stream(&mut self, datagram: &[u8]) -> Option<usize> {
        let ssrc = ssrc_of(datagram);
        self.streams.iter().position(|one| one.ssrc == ssrc)
    }

    /// A packet of an unknown SSRC: a new stream, a retransmission, or a probe. How many fewer are missing.
    fn meet(&mut self, datagram: &[u8], progress: &Progress) -> i64 {
        let mut copy = datagram.to_vec();
        progress.opened.fetch_add(1, Relaxed);
        let Ok(len) = self.peer.session.receiver.rtp(&mut copy, micros()) else {
            progress.forged.fetch_add(1, Relaxed);
            return 0;
        };
        let Some(Found { stamp, repeats }) = packet::find(&copy[..len]) else {
            return 0;
        };
        let Some(sequence) = repeats else {
            if !self.has_begun {
                self.has_begun = true;
                println!("first {} {}", self.peer.id, sys::now_ns());
            }
            let sequence = u16::from_be_bytes([datagram[2], datagram[3]]);
            let stream = Incoming::new(ssrc_of(datagram), &stamp, sequence);
            self.streams.push(stream);
            progress.incoming.fetch_add(1, Relaxed);
            return 0;
        };
        let mut streams = self.streams.iter_mut();
        let filled = streams
            .find(|one| one.track == stamp.track)
            .and_then(|one| one.fill(sequence));
        let Some(noticed_us) = filled else {
            return 0;
        };
        progress.recovered.fetch_add(1, Relaxed);
        progress.repaired(micros().0.saturating_sub(noticed_us));
        -1
    }

    fn sample(
        &mut self,
        stream: usize,
        datagram: &mut [u8],
        arrived_ns: Option<u64>,
        progress: &Progress,
    ) {
        let opened = self.peer.session.receiver.rtp(datagram, micros());
        progress.opened.fetch_add(1, Relaxed);
        let Ok(len) = opened else {
            progress.forged.fetch_add(1, Relaxed);
            return;
        };
        let Some(Found { stamp, .. }) = packet::find(&datagram[..len]) else {
            return; // padding
        };
        self.streams[stream].layer = stamp.layer;
        let layer = usize::from(stamp.layer).min(LAYERS - 1);
        progress.layers[layer].fetch_add(1, Relaxed);
        let arrived_ns = arrived_ns.unwrap_or_else(sys::now_ns);
        let delay_us = arrived_ns.saturating_sub(stamp.sent_ns) / 1_000;
        progress.delayed(delay_us, stamp.video);
    }

    /// What the server wants of this peer's own streams.
    fn heed(&mut self, datagram: &mut [u8], orders: &SyncSender<Order>) {
        let Ok(len) = self.peer.session.receiver.rtcp(datagram, micros()) else {
            return;
        };
        let id = self.peer.id;
        for packet in Compound::new(&datagram[..len]).flatten() {
            // A full queue loses the request; the server asks again.
            let _ = match packet {
                Rtcp::Pli { media } => orders.try_send(Order::Key(id, media)),
                Rtcp::Fir { mut media } => match media.next() {
                    Some(media) => orders.try_send(Order::Key(id, media)),
                    None => continue,
                },
                Rtcp::Nack { media, lost } => {
                    orders.try_send(Order::Repeat(id, media, lost.collect()))
                }
                _ => continue,
            };
        }
    }
}
