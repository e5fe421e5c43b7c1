//! A data-plane thread's loop: wait, commands, what other shards sent, datagrams, timers, send, tell.

use std::os::fd::RawFd;
use std::panic::{self, catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Once, PoisonError};
use std::time::Duration;

use parley_core::id::Micros;
use parley_core::overload::{Governor, LoadStatistics};
use parley_core::plane::{Plane, Statistics};
use parley_core::shard::Notice;
use parley_core::wire::{Event, Output};

use crate::batch::{Inbox, Outbox};
use crate::clock;
use crate::command::Command;
use crate::engine::Shared;
use crate::pictures::Pictures;
use crate::relay::{Message, Reader, RelayCounters};
use crate::shard::Seat;
use crate::stream::{StreamCounters, Streams, MAX_FRAME_BYTES};
use crate::sys::{self, BATCH, IGNORED};

/// How old a report may be.
const REPORT_US: u64 = 250_000;
/// Between two looks at connections without a check or without consent.
const SWEEP_US: u64 = 1_000_000;
/// Commands between two looks at the sockets: media does not wait for a burst of joins.
const COMMANDS_PER_TURN: usize = 256;
/// Batches of one socket between two looks at the others and the timers.
const BATCHES_PER_TURN: usize = 4;
/// The clock starts here, so that differences to "never" (0) are old.
const CLOCK_START_US: u64 = 3_600_000_000;
/// Without any timer the thread still looks whether it shall stop.
const LONGEST_WAIT_US: u64 = 1_000_000;

/// Notices wait for room in another shard's ring.
const SOON_US: u64 = 500;
/// Messages of another shard taken before it may reuse their slots.
const RELEASED_AT_ONCE: usize = 64;

const PAUSE_AFTER_PANIC: Duration = Duration::from_millis(5);

/// The data-plane thread; one of several has its number behind it.
pub const THREAD_NAME: &str = "parley-engine";

/// A panic of the data-plane thread says what and where, and no more: a backtrace (RUST_BACKTRACE=1) is resolved
/// while every peer waits, 0.3 s when it was measured.
pub fn keep_panics_short() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |why| match std::thread::current().name() {
            Some(name) if name.starts_with(THREAD_NAME) => eprintln!("{name}: {why}"),
            _ => before(why),
        }));
    });
}

/// The thread's last word about itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The plane's counters.
    pub plane: Statistics,
    /// Panics caught; each cost one transport (S15).
    pub panics: u64,
    /// Commands that could not be carried out.
    pub refused_commands: u64,
    /// Datagrams that the kernel refused to take.
    pub refused_sends: u64,
    /// Events lost because nobody polled.
    pub lost_events: u64,
    /// ICE-TCP.
    pub streams: StreamCounters,
    /// To other shards.
    pub relays: RelayCounters,
    /// Packets of pictures that lay in their socket for those behind them, at most a millisecond.
    pub waited: u64,
    /// Each thread's CPU, in the order of the shards.
    pub loads: Vec<Load>,
}

/// How a thread is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Its own judgement.
    pub own: LoadStatistics,
    /// Video streams that are paused for want of CPU.
    pub paused: u64,
    /// Video streams that are lower than they could be.
    pub lowered: u64,
}

impl Report {
    /// Take another thread's in. `lost_events` is nobody's own.
    pub fn add(&mut self, other: &Self) {
        self.plane.add(&other.plane);
        self.panics += other.panics;
        self.refused_commands += other.refused_commands;
        self.refused_sends += other.refused_sends;
        self.streams.add(&other.streams);
        self.relays.add(&other.relays);
        self.waited += other.waited;
        self.loads.extend_from_slice(&other.loads);
    }
}

pub struct Loop {
    pub plane: Plane,
    pub inbox: Inbox,
    pub outbox: Outbox,
    pub pictures: Pictures,
    pub commands: Receiver<Command>,
    pub shared: Arc<Shared>,
    pub seat: Arc<Seat>,
    /// From other shards, with whose it is.
    pub incoming: Vec<(u8, Reader)>,
    pub report: Report,
    pub report_due: Micros,
    pub sweep_due: Micros,
    governor: Governor,
    /// Connections with something to read.
    readable: Vec<usize>,
    frame: Box<[u8; MAX_FRAME_BYTES]>,
}

impl Loop {
    pub fn new(
        plane: Plane,
        outbox: Outbox,
        pictures: Pictures,
        commands: Receiver<Command>,
        incoming: Vec<(u8, Reader)>,
        shared: Arc<Shared>,
        seat: Arc<Seat>,
    ) -> Self {
        Self {
            plane,
            inbox: Inbox::new(),
            outbox,
            pictures,
            commands,
            shared,
            seat,
            incoming,
            report: Report::default(),
            report_due: Micros(0),
            sweep_due: Micros(0),
            governor: Governor::default(),
            readable: Vec::new(),
            frame: Box::new([0; MAX_FRAME_BYTES]),
        }
    }

    fn now(&self) -> Micros {
        let elapsed = self.shared.started.elapsed();
        Micros(CLOCK_START_US + elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros()))
    }

    /// Until somebody says stop.
    pub fn run(mut self) {
        let sockets = self.outbox.sockets().iter().chain(&self.pictures.sockets);
        let fds: Vec<_> = std::iter::once(self.seat.bell.wake.raw())
            .chain(sockets.map(sys::Socket::raw))
            .chain([self.outbox.streams.raw()])
            .collect();
        let streams = fds.len() - 1;
        let mut is_busy = false;
        while !self.shared.is_stopping() {
            let ready = self.wait(&fds, is_busy);
            is_busy = self.take_commands();
            if let Some(types) = self.plane.new_picture_types() {
                self.pictures.sort(self.outbox.sockets(), types);
            }
            self.take_messages();
            for socket in 0..streams - 1 {
                if ready >> (socket + 1) & 1 == 1 {
                    is_busy |= self.take_datagrams(socket);
                }
            }
            if ready >> streams & 1 == 1 {
                self.take_frames();
            }
            let now = self.now();
            if now >= self.sweep_due {
                self.sweep_due = Micros(now.0 + SWEEP_US);
                let plane = &self.plane;
                let is_validated = |path: &_| plane.is_validated(path);
                self.outbox.streams.sweep(now, is_validated);
            }
            self.close_streams();
            self.guarded(|own| own.plane.tick(now, &mut own.outbox));
            if self.governor.is_reading_due(now) {
                self.guarded(|own| own.govern(now));
            }
            self.outbox.flush();
            if now >= self.report_due {
                self.report_due = Micros(now.0 + REPORT_US);
                self.guarded(Self::publish_report);
            }
            if !self.outbox.events.is_empty() {
                self.shared.ring.push(&mut self.outbox.events);
            }
        }
        // Whatever was asked before the end still happens: BYE leaves, for one.
        while self.take_commands() {}
        self.outbox.flush();
    }

    /// Until something is there or due; which descriptors, bit by bit.
    fn wait(&mut self, fds: &[RawFd], is_busy: bool) -> u64 {
        let mut pause = Duration::ZERO;
        if !is_busy {
            pause = self.pause();
            if !self.incoming.is_empty() {
                self.seat.bell.fall_asleep();
                if self.incoming.iter().any(|(_, reader)| !reader.is_empty()) {
                    pause = Duration::ZERO;
                }
            }
        }
        let mut ready = match self.pictures.left_alone() {
            Some(until) => self.wait_for_others(fds, pause, until),
            None => sys::wait(fds, pause),
        };
        self.seat.bell.is_up();
        if ready & 1 == 1 {
            self.seat.bell.wake.clear();
        }
        let now = self.now();
        if self.pictures.are_due(now) {
            ready |= self.all_pictures();
        }
        ready
    }

    /// As `sys::wait`, but pictures do not end it before their time.
    fn wait_for_others(&self, fds: &[RawFd], pause: Duration, until: Micros) -> u64 {
        let left = Duration::from_micros(until.since(self.now()));
        let pictures = self.all_pictures();
        let mut others = [IGNORED; 64];
        for (at, (other, fd)) in others.iter_mut().zip(fds).enumerate() {
            if pictures >> at & 1 == 0 {
                *other = *fd;
            }
        }
        sys::wait(&others[..fds.len()], pause.min(left))
    }

    /// Their places among the descriptors: behind the bell and the common sockets.
    fn all_pictures(&self) -> u64 {
        let places = (1 << self.pictures.sockets.len()) - 1;
        places << (1 + self.outbox.sockets().len())
    }

    fn pause(&self) -> Duration {
        let now = self.now();
        let due = self
            .plane
            .timeout()
            .map_or(self.report_due, |due| due.min(self.report_due));
        let longest_us = if self.outbox.relays.is_waiting() {
            SOON_US
        } else {
            LONGEST_WAIT_US
        };
        Duration::from_micros(due.since(now).min(longest_us))
    }

    /// Run something; a panic costs the transport that caused it, never the thread (S15).
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.report.panics += 1;
            if let Some(id) = self.plane.quarantine(&mut self.outbox) {
                match self.plane.home_elsewhere(id) {
                    Some(home) => self.outbox.notify(home, Notice::Failed(id)),
                    None => self.outbox.event(Event::Expired(id)),
                }
            } else {
                // A timer that panics is due again at once: leave the sockets some time.
                std::thread::sleep(PAUSE_AFTER_PANIC);
            }
        }
    }

    /// Whether there may be more.
    fn take_commands(&mut self) -> bool {
        let now = self.now();
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else {
                return false;
            };
            self.guarded(|own| {
                if command.run(&mut own.plane, now, &mut own.outbox).is_err() {
                    own.report.refused_commands += 1;
                }
            });
        }
        true
    }

    /// Whether there may be more.
    fn take_datagrams(&mut self, place: usize) -> bool {
        let common = self.outbox.sockets().len();
        let (socket, is_picture) = (place % common, place >= common);
        for _ in 0..BATCHES_PER_TURN {
            let from = if is_picture {
                &self.pictures.sockets[socket]
            } else {
                &self.outbox.sockets()[socket]
            };
            // An error here is a pending ICMP of somebody's; the next call reads on.
            let count = self.inbox.fill(from).unwrap_or(0);
            if count > 0 {
                self.guarded(Self::look_at_waits);
            }
            // What a shard announced before its peer sent one of these is in the ring by now.
            self.take_messages();
            let now = self.now();
            let mut at = 0;
            while at < count {
                self.guarded(|own| {
                    while at < count {
                        let bound = &own.outbox.sockets()[socket];
                        let taken = own.inbox.take(at, socket as u8, bound);
                        at += 1; // before the work: after a panic the next one is due
                        if let Some((path, datagram)) = taken {
                            own.plane
                                .receive_in_batch(&path, datagram, now, &mut own.outbox);
                        }
                    }
                });
            }
            self.outbox.relays.publish(); // the others copy at the same time
            self.guarded(|own| own.plane.end_batch(now, &mut own.outbox));
            self.outbox.flush();
            if count < BATCH {
                if is_picture {
                    let hold_us = self.plane.hold_us(now);
                    self.pictures.were_read(count, hold_us, now);
                }
                return false;
            }
        }
        true
    }

    /// Whether what was read waited for too long; then all video stops before any of it is copied.
    fn look_at_waits(&mut self) {
        let waited_us = self.inbox.waited_us();
        if Governor::is_late(waited_us) {
            let now = self.now();
            if self.governor.late(waited_us, now, clock::thread_cpu_us()) {
                self.governor.braked(self.plane.flow(), now);
                self.plane.brake();
            }
        }
    }

    /// As much video as the CPU carries (R11).
    fn govern(&mut self, now: Micros) {
        if self.governor.note(now, clock::thread_cpu_us()) {
            if let Some(order) = self.governor.decide(self.plane.flow(), now) {
                self.plane.obey(order, now, &mut self.outbox);
            }
        }
    }

    /// What other shards sent until now.
    fn take_messages(&mut self) {
        let mut is_any = false;
        for at in 0..self.incoming.len() {
            self.incoming[at].1.look();
            let mut is_done = self.incoming[at].1.is_empty();
            is_any |= !is_done;
            while !is_done {
                // after a panic the next message is due
                self.guarded(|own| {
                    own.take_messages_of(at);
                    is_done = true;
                });
                self.incoming[at].1.release();
            }
        }
        if is_any {
            let now = self.now();
            self.guarded(|own| own.plane.end_batch(now, &mut own.outbox));
            self.outbox.flush();
        }
    }

    fn take_messages_of(&mut self, at: usize) {
        let now = self.now();
        let (from, reader) = &mut self.incoming[at];
        let mut adopted = Vec::new();
        let mut taken = 0;
        while let Some((message, bytes)) = reader.next() {
            match message {
                Message::Empty => {}
                Message::Datagram(path) => {
                    self.plane
                        .receive_passed_on(&path, bytes, now, &mut self.outbox);
                }
                Message::Packet(packet) => {
                    self.plane.relayed(&packet, bytes, now, &mut self.outbox);
                }
                Message::Notice(notice) => {
                    self.plane.noticed(*from, notice, now, &mut self.outbox);
                }
                Message::Connection(connection) => {
                    adopted.extend(self.outbox.streams.adopt(connection));
                }
            }
            taken += 1;
            if taken % RELEASED_AT_ONCE == 0 {
                reader.release();
            }
        }
        for at in adopted {
            self.take_frames_of(at, now);
        }
    }

    /// From connections; what is left makes the wait return at once.
    fn take_frames(&mut self) {
        let now = self.now();
        let mut readable = std::mem::take(&mut self.readable);
        self.outbox.streams.look(&mut readable, now);
        for &at in &readable {
            self.take_frames_of(at, now);
        }
        self.readable = readable;
        self.outbox.flush();
    }

    fn take_frames_of(&mut self, at: usize, now: Micros) {
        let mut reads = Streams::reads();
        let mut is_done = false;
        while !is_done {
            // after a panic the next frame is due
            self.guarded(|own| {
                while let Some((path, len)) =
                    own.outbox.streams.next(at, &mut own.frame, &mut reads)
                {
                    let frame = &mut own.frame[..len];
                    if !own.incoming.is_empty() {
                        if let Some(home) = own.plane.home_of_check(frame) {
                            if let Some(connection) = own.outbox.streams.give_away(at, len) {
                                let message = Message::Connection(connection);
                                own.outbox.relays.message(home, message);
                                break;
                            }
                        }
                    }
                    own.plane.receive(&path, frame, now, &mut own.outbox);
                    let is_validated = own.plane.is_validated(&path);
                    own.outbox.streams.judge(at, is_validated);
                }
                is_done = true;
            });
        }
    }

    /// Forget connections that are over.
    fn close_streams(&mut self) {
        while let Some(path) = self.outbox.streams.close_next() {
            self.guarded(|own| own.plane.hung_up(&path, &mut own.outbox));
        }
    }

    fn publish_report(&mut self) {
        self.report.refused_sends = self.outbox.refused;
        self.report.streams = self.outbox.streams.counters;
        self.report.relays = self.outbox.relays.counters;
        self.report.waited = self.pictures.waited;
        self.report.plane = self.plane.statistics();
        let (paused, lowered) = self.plane.shed_streams();
        self.report.loads.clear();
        self.report.loads.push(Load {
            own: self.governor.statistics(),
            paused,
            lowered,
        });
        let mut shared = self
            .seat
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        shared.clone_from(&self.report);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::relay::{Bell, Relays};
    use crate::sys::Socket;

    fn quiet(outbox: Outbox, pictures: Pictures) -> Loop {
        let shared = Arc::new(Shared::new().expect("descriptors"));
        let seat = Arc::new(Seat::new(Arc::new(Bell::new().expect("descriptors"))));
        let (_commands, queue) = sync_channel(1);
        Loop::new(
            Plane::new(1),
            outbox,
            pictures,
            queue,
            Vec::new(),
            shared,
            seat,
        )
    }

    const SOUND: [u8; 4] = [0x80, 111, 0, 1];
    const PICTURE: [u8; 4] = [0x80, 96, 0, 1];

    /// A loop with so many listen addresses, its descriptors, and a peer of each address.
    fn with_pictures(addresses: usize) -> (Loop, Vec<RawFd>, Vec<UdpSocket>) {
        let bind = |_| Socket::bind(([127, 0, 0, 1], 0).into()).expect("loopback");
        let common: Vec<_> = (0..addresses).map(bind).collect();
        let peer = |to: &Socket| {
            let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
            peer.connect(to.bound).expect("loopback");
            peer
        };
        let peers = common.iter().map(peer).collect();
        let mut pictures = Pictures::beside(&common);
        pictures.sort(&common, 1 << 96);
        for socket in &pictures.sockets {
            socket.set_buffers(4 << 20).expect("an option");
        }
        let streams = Streams::new(Vec::new(), None).expect("descriptors");
        let outbox = Outbox::new(common, streams, Relays::default(), false);
        let mut own = quiet(outbox, pictures);
        own.report_due = Micros(u64::MAX);
        let sockets = own.outbox.sockets().iter().chain(&own.pictures.sockets);
        let fds = std::iter::once(own.seat.bell.wake.raw())
            .chain(sockets.map(Socket::raw))
            .collect();
        (own, fds, peers)
    }

    /// Pictures wait for their time, whatever else comes does not, and is not waited for.
    #[test]
    fn sound_is_heard_while_pictures_are_left_alone() {
        let (mut own, fds, peers) = with_pictures(1);
        let wait_us = 200_000;
        let began = own.now();
        own.pictures.were_read(1, wait_us, began);
        peers[0].send(&PICTURE).expect("loopback");
        peers[0].send(&SOUND).expect("loopback");
        assert_eq!(own.wait(&fds, false), 0b010, "sound, at once");
        assert!(own.now().since(began) < wait_us);
        assert!(!own.take_datagrams(0));
        assert_eq!(own.wait(&fds, false), 0b100, "the picture, later");
        assert!(own.now().since(began) >= wait_us);
        assert!(!own.take_datagrams(1));
        assert_eq!(own.pictures.waited, 1);
        assert_eq!(own.pictures.left_alone(), None, "it was only one");
    }

    /// More pictures than a turn takes: the rest is neither left alone nor waited for.
    #[test]
    fn pictures_that_fill_every_batch_are_read_on_at_once() {
        let (mut own, fds, peers) = with_pictures(1);
        for is_busy in [true, false] {
            let began = own.now();
            own.pictures.were_read(1, 1, began);
            let most = BATCH * BATCHES_PER_TURN;
            for _ in 0..most + 10 {
                peers[0].send(&PICTURE).expect("loopback");
            }
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(own.wait(&fds, false), 0b100);
            assert!(own.take_datagrams(1), "there is more");
            assert_eq!(own.wait(&fds, is_busy), 0b100);
            assert!(own.now().since(began) < 100_000, "at once");
            assert!(!own.take_datagrams(1));
            assert_eq!(
                own.plane.statistics().drops.unvalidated % most as u64,
                10 * if is_busy { 1 } else { 2 }
            );
        }
    }

    /// S15: one that panics costs neither the thread nor what comes after it.
    #[test]
    fn a_panic_is_counted_and_survived() {
        let streams = Streams::new(Vec::new(), None).expect("descriptors");
        let outbox = Outbox::new(Vec::new(), streams, Relays::default(), false);
        let mut own = quiet(outbox, Pictures::default());
        let mut done = 0;
        for round in 0..10 {
            own.guarded(|_| {
                assert!(round % 2 == 0, "deliberate");
                done += 1;
            });
        }
        own.guarded(Loop::publish_report);
        assert_eq!(done, 5);
        assert_eq!(own.seat.report.lock().expect("whole").panics, 5);
    }
}
