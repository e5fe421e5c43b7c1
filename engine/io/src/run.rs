//! A data-plane thread's loop: wait, commands, what other shards sent, datagrams, timers, send, tell.
//!
//! Not here: what it tells of itself (`report`), the system calls (`sys`), what anything means (`parley-core`).

use std::os::fd::RawFd;
use std::panic::{self, catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Once};
use std::time::Duration;

use parley_core::id::Micros;
use parley_core::overload::Governor;
use parley_core::plane::Plane;
use parley_core::shard::Notice;
use parley_core::wire::{Event, Output};

use crate::batch::{Inbox, Outbox};
use crate::clock;
use crate::command::Command;
use crate::engine::Shared;
use crate::pictures::Pictures;
use crate::relay::{Message, Reader};
use crate::report::Report;
use crate::shard::Seat;
use crate::stream::{Streams, MAX_FRAME_BYTES};
use crate::sys::{self, BATCH, IGNORED};

#[cfg(test)]
mod tests;

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
        self.guarded(Self::publish_report); // the last word is whole
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
        if self.pictures.come_due(now) {
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
            // A signal, or no memory: what is there makes the next wait return at once.
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
        let Self {
            plane,
            governor,
            outbox,
            pictures,
            ..
        } = self;
        self.report.read(plane, governor, outbox, pictures);
        self.seat.publish(&self.report);
    }
}
