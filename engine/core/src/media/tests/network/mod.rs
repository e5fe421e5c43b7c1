//! Whole calls over bad links in virtual time: a publisher, the router, subscribers (N1 to N10).
//!
//! The publisher sends Opus and three VP8 layers (or one) and repairs and renews what it is asked to; the
//! subscriber has a jitter buffer, NACKs, asks for key frames, and sends transport-wide feedback or REMB.

mod cases;
mod liars;
mod outages;
mod publisher;
mod redundancy;
mod sharing;
mod sizes;
mod stalls;
mod viewer;

use std::collections::HashMap;

use super::super::TransportStatistics;
use super::*;
use crate::emulator::{Link, Phase, Shape};

pub(super) use publisher::Publisher;
pub(super) use viewer::Viewer;

/// Video and audio of the one publisher.
pub(super) const VIDEO: u64 = 1;
pub(super) const AUDIO: u64 = 2;
/// Id of that extension, where a viewer takes it.
const PLAYOUT_DELAY: u8 = 12;

/// Payload type of redundant sound at a viewer who knows it.
const RED: u8 = 97;

/// What the router sends: (to, bytes).
#[derive(Debug, Default)]
struct Outgoing {
    packets: Vec<(TransportId, Vec<u8>)>,
    events: Vec<Event>,
    slot: Vec<u8>,
    to: Option<TransportId>,
}

impl Sink for Outgoing {
    fn rtp(&mut self, to: TransportId) -> Option<&mut [u8]> {
        self.to = Some(to);
        self.slot.resize(super::super::MAX_PACKET_BYTES + 40, 0);
        Some(&mut self.slot)
    }

    fn rtp_done(&mut self, len: usize) {
        let to = self.to.take().expect("a slot is out");
        if len > 0 {
            self.packets.push((to, self.slot[..len].to_vec()));
        }
    }

    fn rtcp(&mut self, to: TransportId, compound: &[u8]) {
        self.packets.push((to, compound.to_vec()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn is_rtcp(bytes: &[u8]) -> bool {
    (192..=223).contains(&bytes[1])
}

/// Up and down to one peer.
#[derive(Debug)]
pub(super) struct Access {
    pub up: Link,
    pub down: Link,
}

/// A call: one publisher, some viewers.
#[derive(Debug)]
pub(super) struct Call {
    pub router: Router,
    out: Outgoing,
    pub now: Micros,
    pub start: Micros,
    pub publisher: Publisher,
    pub viewers: Vec<Viewer>,
    pub links: HashMap<TransportId, Access>,
    /// Events with their time.
    pub events: Vec<(Micros, Event)>,
    /// Longest wait before each viewer's limit, by second.
    pub queues: Vec<Vec<u64>>,
}

/// A link that stays as it is.
pub(super) fn steady(shape: Shape) -> Vec<Phase> {
    vec![Phase {
        what: "all the time",
        lasts_us: u64::MAX,
        shape,
    }]
}

impl Call {
    /// Links in both directions for the publisher and each viewer.
    pub fn new(
        publisher: Publisher,
        upstream: (Vec<Phase>, Vec<Phase>),
        viewers: Vec<(Vec<Phase>, Vec<Phase>)>,
    ) -> Self {
        Self::with(publisher, upstream, viewers, screen)
    }

    /// The same, with viewers who know redundant sound (RFC 2198).
    pub fn redundant(
        publisher: Publisher,
        upstream: (Vec<Phase>, Vec<Phase>),
        viewers: Vec<(Vec<Phase>, Vec<Phase>)>,
    ) -> Self {
        let speaker = |ssrc| {
            let mut stream = speaker(ssrc);
            stream.codecs.push(red(RED));
            stream
        };
        Self::between(publisher, upstream, viewers, screen, speaker)
    }

    /// The same, with viewers who get their pictures like this.
    pub fn with(
        publisher: Publisher,
        upstream: (Vec<Phase>, Vec<Phase>),
        viewers: Vec<(Vec<Phase>, Vec<Phase>)>,
        screen: fn(u32) -> SendStream,
    ) -> Self {
        Self::between(publisher, upstream, viewers, screen, speaker)
    }

    fn between(
        publisher: Publisher,
        upstream: (Vec<Phase>, Vec<Phase>),
        viewers: Vec<(Vec<Phase>, Vec<Phase>)>,
        screen: fn(u32) -> SendStream,
        speaker: fn(u32) -> SendStream,
    ) -> Self {
        let start = Micros(3_600_000_000);
        let mut router = Router::new(11);
        let mut links = HashMap::new();
        let access = |seed: u64, (up, down): (Vec<Phase>, Vec<Phase>)| Access {
            up: Link::new(seed, start, up),
            down: Link::new(seed + 1, start, down),
        };
        router.add_transport(ALICE);
        links.insert(ALICE, access(100, upstream));
        for (id, stream) in [(VIDEO, publisher.stream()), (AUDIO, publisher.voice())] {
            let id = PublicationId(id);
            router.publish(id, ALICE, GROUP, stream).expect("valid");
        }
        let mut call = Self {
            router,
            out: Outgoing::default(),
            now: start,
            start,
            publisher,
            viewers: Vec::new(),
            links,
            events: Vec::new(),
            queues: Vec::new(),
        };
        for (index, phases) in viewers.into_iter().enumerate() {
            let id = TransportId(10 + index as u64);
            call.router.add_transport(id);
            call.links
                .insert(id, access(200 + 10 * index as u64, phases));
            let base = 10_000 + 100 * index as u32;
            let streams = [(VIDEO, screen(base)), (AUDIO, speaker(base + 10))];
            for (source, stream) in streams {
                let subscription = SubscriptionId(100 * (1 + index as u64) + source);
                call.router
                    .subscribe(subscription, id, stream)
                    .expect("valid");
                let source = Some(PublicationId(source));
                call.router
                    .set_source(subscription, source, start, &mut call.out);
            }
            call.viewers.push(Viewer::new(id, base, base + 10));
            call.queues.push(Vec::new());
        }
        call
    }

    /// Let seconds go by, a millisecond at a time.
    pub fn run(&mut self, seconds: u64) {
        self.run_ms(seconds * 1_000);
    }

    /// Let milliseconds go by.
    pub fn run_ms(&mut self, count: u64) {
        for _ in 0..count {
            self.step();
            self.now = self.now.plus_ms(1);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        for packet in self.publisher.send(now) {
            self.up(ALICE, &packet);
        }
        for index in 0..self.viewers.len() {
            let id = self.viewers[index].id;
            for packet in self.viewers[index].send(now) {
                self.up(id, &packet);
            }
        }
        let mut ids: Vec<_> = self.links.keys().copied().collect();
        ids.sort_unstable();
        for id in &ids {
            let link = &mut self.links.get_mut(id).expect("known").up;
            while let Some(mut packet) = link.take(now) {
                if is_rtcp(&packet) {
                    self.router.rtcp(*id, &packet, now, &mut self.out);
                } else {
                    self.router.rtp(*id, &mut packet, now, &mut self.out);
                }
            }
        }
        self.router.release(now, &mut self.out);
        if self.router.timeout().is_some_and(|due| due <= now) {
            self.router.tick(now, &mut self.out);
        }
        for (to, packet) in std::mem::take(&mut self.out.packets) {
            let link = self.links.get_mut(&to).expect("known");
            link.down.send(now, &packet);
        }
        for event in std::mem::take(&mut self.out.events) {
            self.events.push((now, event));
        }
        for id in &ids {
            let link = &mut self.links.get_mut(id).expect("known").down;
            while let Some(packet) = link.take(now) {
                if *id == ALICE {
                    self.publisher.receive(&packet, now);
                } else {
                    let viewer = self.viewers.iter_mut().find(|viewer| viewer.id == *id);
                    viewer.expect("known").receive(&packet, now);
                }
            }
        }
        let second = (now.since(self.start) / 1_000_000) as usize;
        for (viewer, queues) in self.viewers.iter_mut().zip(&mut self.queues) {
            viewer.play(now);
            queues.resize(second + 1, 0);
            let waits = self.links[&viewer.id].down.queue_us(now);
            queues[second] = queues[second].max(waits);
        }
    }

    fn up(&mut self, from: TransportId, packet: &[u8]) {
        let link = self.links.get_mut(&from).expect("known");
        link.up.send(self.now, packet);
    }

    /// Seconds since the start.
    pub fn second(&self, at: Micros) -> f64 {
        at.since(self.start) as f64 / 1e6
    }

    /// What is believed of a viewer's link.
    pub fn estimate(&self, viewer: usize) -> u64 {
        self.transport(viewer).estimate_bps
    }

    /// Counters of a viewer's link.
    pub fn transport(&self, viewer: usize) -> TransportStatistics {
        let id = self.viewers[viewer].id;
        let all = self.router.statistics().transports;
        let own = all.iter().find(|(found, _)| *found == id);
        own.expect("known").1
    }
}
