//! What timers send: NACK, PLI and FIR to publishers, transport-cc feedback and REMB, sender and receiver reports.
//!
//! Not here: RTCP that arrives (`control`).

use crate::id::Micros;

use super::clock::{ntp, units};
use super::levels::Heard;
use super::mirror::KEY_WISH_US;
use super::publication::{KEY_INTERVAL_US, LAYER_SILENT_US, NONE};
use super::router::{Router, ROUND_US};
use super::rtcp::{Builder, Report};
use super::{Event, Sink};

/// Transports share four rounds, so that a report goes out about once a second and not all at once.
const PHASES: u64 = 4;
/// A subscription that still waits asks again.
const KEY_RETRY_US: u64 = 1_000_000;
/// A compound is sent when it reaches this, to stay below any path's datagram.
const COMPOUND_BYTES: usize = 1_000;
/// Report blocks of one RR; the format allows 31.
const BLOCKS: usize = 16;
/// Sources named in one REMB: all that one peer may publish (S10), and more.
const REMB_SOURCES: usize = 64;
/// REMB begins here (one good camera), and moves between these.
pub(super) const REMB_START_BPS: u64 = 1_500_000;
const REMB_MIN_BPS: u64 = 150_000;
const REMB_MAX_BPS: u64 = 4_000_000;

impl Router {
    /// Whatever is due: NACKs, reports, feedback, levels, layer fallback.
    pub fn tick(&mut self, now: Micros, sink: &mut impl Sink) {
        if self.wake.is_none_or(|due| due > now) {
            return;
        }
        self.wake = None;
        self.tell_untold(sink);
        self.fill_blanks(now, sink);
        self.send_nacks(now, sink);
        self.look_at_opened(now, sink);
        self.catch_up(now, sink);
        // Those whose time has not come list themselves again: two lists, so that neither is ever made anew.
        let mut due = std::mem::replace(&mut self.keys, std::mem::take(&mut self.keys_due));
        for index in due.drain(..) {
            self.ask_key(index, now, sink);
        }
        self.keys_due = due;
        self.send_feedback(now, sink);
        self.run_pacers(now, sink);
        self.run_probes(now, sink);
        self.tell_levels(now, sink);
        if let Some(due) = self.round_due {
            if self.transport_slots.is_empty() {
                self.round_due = None;
            } else if due <= now {
                self.run_round(now, sink);
            } else {
                self.wake_at(due);
            }
        }
    }

    /// Ask a publication for the key frames noted in `keys_wanted`, at most every `KEY_INTERVAL_US`.
    pub(super) fn ask_key(&mut self, index: u32, now: Micros, sink: &mut impl Sink) {
        let Some(Some(publication)) = self.publications.get_mut(index as usize) else {
            return;
        };
        if !publication.open || !publication.stream.video {
            publication.keys_wanted = 0;
        }
        if publication.keys_wanted == 0 {
            return;
        }
        let interval_us = if publication.mirror.is_some() {
            KEY_WISH_US
        } else {
            KEY_INTERVAL_US
        };
        let earliest = publication
            .keys_asked
            .map_or(now, |asked| Micros(asked.0 + interval_us));
        if earliest > now {
            if !self.keys.contains(&index) {
                self.keys.push(index);
            }
            self.wake_at(earliest);
            return;
        }
        if let Some(mirror) = publication.mirror {
            Self::wish_keys(publication, mirror, now, sink);
            return;
        }
        let Some(transport) = &self.transports[publication.transport as usize] else {
            return;
        };
        let wanted = std::mem::take(&mut publication.keys_wanted);
        let codec = &publication.stream.codecs[usize::from(publication.codec)];
        self.builder.clear();
        self.builder.receiver_report(transport.reporter, &[]);
        let mut asked = 0;
        for (index, layer) in publication.layers.iter_mut().enumerate() {
            let (true, Some(ssrc)) = (wanted >> index & 1 == 1, layer.ssrc) else {
                continue;
            };
            if codec.pli {
                self.builder.pli(transport.reporter, ssrc);
            } else if codec.fir {
                self.builder.fir(transport.reporter, ssrc, layer.fir);
                publication.counters.firs_sent += 1;
                layer.fir = layer.fir.wrapping_add(1);
            } else {
                continue;
            }
            asked += 1;
        }
        if asked > 0 {
            publication.counters.plis_sent += asked;
            publication.keys_asked = Some(now);
            sink.rtcp(transport.id, self.builder.bytes());
        }
    }

    fn send_nacks(&mut self, now: Micros, sink: &mut impl Sink) {
        for publication in self.publications.iter_mut().flatten() {
            for layer in &mut publication.layers {
                let (Some(receive), Some(ssrc)) = (&mut layer.receive, layer.ssrc) else {
                    continue;
                };
                self.numbers.clear();
                receive.take_due(now, &mut self.numbers);
                if let Some(due) = receive.due() {
                    self.wake = Some(self.wake.map_or(due, |before| before.min(due)));
                }
                let Some(transport) = &self.transports[publication.transport as usize] else {
                    continue;
                };
                if self.numbers.is_empty() {
                    continue;
                }
                publication.counters.nacks_sent += 1;
                self.builder.clear();
                self.builder.receiver_report(transport.reporter, &[]);
                self.builder.nack(transport.reporter, ssrc, &self.numbers);
                sink.rtcp(transport.id, self.builder.bytes());
            }
        }
    }

    fn send_feedback(&mut self, now: Micros, sink: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.feedback);
        waiting.retain(|slot| {
            let Some(transport) = &mut self.transports[*slot as usize] else {
                return false;
            };
            match transport.feedback_due {
                Some(due) if due > now => {
                    self.wake = Some(self.wake.map_or(due, |before| before.min(due)));
                    true
                }
                Some(_) => {
                    transport.feedback_due = None;
                    while !transport.recorder.is_empty() {
                        self.builder.clear();
                        self.builder.receiver_report(transport.reporter, &[]);
                        transport
                            .recorder
                            .write(transport.reporter, &mut self.builder);
                        sink.rtcp(transport.id, self.builder.bytes());
                    }
                    false
                }
                None => false,
            }
        });
        self.feedback = waiting;
    }

    fn tell_levels(&mut self, now: Micros, sink: &mut impl Sink) {
        if let Some(heard) = self.levels.take(now) {
            for group in heard.chunk_by(|a, b| a.0 == b.0) {
                let levels: Vec<_> = group
                    .iter()
                    .filter_map(|(_, index)| {
                        let publication = self.publications[*index as usize].as_mut()?;
                        let loudest = std::mem::replace(&mut publication.loudest, 127);
                        let (medium, long) = publication.activity.read(now);
                        (loudest < 127 && publication.group == group[0].0).then_some(Heard {
                            publication: publication.id,
                            level: loudest,
                            medium,
                            long,
                        })
                    })
                    .collect();
                if !levels.is_empty() {
                    sink.event(Event::Levels(group[0].0, levels));
                }
            }
            self.levels.recycle(heard);
        }
        if let Some(due) = self.levels.due() {
            self.wake_at(due);
        }
    }

    /// Four times a second: layers that stopped, subscriptions that wait, a quarter of the reports.
    fn run_round(&mut self, now: Micros, sink: &mut impl Sink) {
        let due = Micros(now.0 + ROUND_US);
        self.round_due = Some(due);
        self.wake_at(due);
        self.round += 1;
        for index in 0..self.publications.len() {
            let Some(publication) = &mut self.publications[index] else {
                continue;
            };
            let stopped = if publication.mirror.is_some() {
                publication.measure_steps(); // of layers the owner tells
                publication.stop_silent_sizes()
            } else {
                publication.measure();
                publication.stop_silent()
            };
            let index = u32::try_from(index).expect("a slot");
            if stopped && self.aim_all(index, now) {
                self.ask_key(index, now, sink);
            }
            self.tell_mirrors(index, sink);
        }
        for sub in 0..self.egress.len() {
            let hot = &mut self.egress[sub];
            let Some(cold) = &self.subscriptions[sub] else {
                continue;
            };
            let mut retry = hot.video
                && hot.target != NONE
                && (hot.target != hot.current || hot.waits_for_size())
                && now.since(cold.key_asked) >= KEY_RETRY_US;
            if hot.stalled {
                retry = sink.rtp(hot.to).is_some();
                if retry {
                    sink.rtp_done(0);
                    hot.stalled = false;
                }
            }
            if retry {
                let sub = u32::try_from(sub).expect("a slot");
                self.retarget(sub, now, sink);
            }
        }
        for slot in 0..self.transports.len() {
            self.press(u32::try_from(slot).expect("a slot"), now, sink);
            if slot as u64 % PHASES == self.round % PHASES {
                self.report(slot, now, sink);
            }
        }
    }

    /// Sender reports, receiver reports and REMB of one transport.
    fn report(&mut self, slot: usize, now: Micros, sink: &mut impl Sink) {
        if let Some(transport) = &mut self.transports[slot] {
            transport.counters.paced_us = transport.pressure.pacer.take_longest_us();
        }
        let Some(transport) = &self.transports[slot] else {
            return;
        };
        let (to, reporter) = (transport.id, transport.reporter);
        let mut builder = std::mem::take(&mut self.builder);
        builder.clear();
        for &(ssrc, sub) in &transport.subscriptions {
            let timestamp = self.timestamp_now(sub, now);
            let hot = &self.egress[sub as usize];
            let Some(cold) = &mut self.subscriptions[sub as usize] else {
                continue;
            };
            if hot.packets == cold.reported {
                continue; // nothing new: a report would only repeat the old mapping
            }
            cold.reported = hot.packets;
            builder.sender_report(
                ssrc,
                ntp(now),
                timestamp,
                hot.packets as u32,
                hot.octets as u32,
            );
            builder.cname(ssrc, &cold.stream.cname);
            if builder.bytes().len() > COMPOUND_BYTES {
                sink.rtcp(to, builder.bytes());
                builder.clear();
            }
        }
        self.report_reception(slot, reporter, now, &mut builder, sink);
        if !builder.bytes().is_empty() {
            sink.rtcp(to, builder.bytes());
        }
        self.builder = builder;
    }

    /// The RTP clock of an outgoing stream: by the publisher's reports, else by what was sent last.
    fn timestamp_now(&self, sub: u32, now: Micros) -> u32 {
        let hot = &self.egress[sub as usize];
        let rate = self.subscriptions[sub as usize]
            .as_ref()
            .map_or(90_000, |cold| cold.clock_rate);
        let since = units(now.since(hot.last_time) as i64, rate);
        let by_arrival = hot.last_timestamp.wrapping_add(since);
        let by_report = || {
            let publication = self.publications.get(hot.source as usize)?.as_ref()?;
            let layer = publication.layers.get(usize::from(hot.current))?;
            let instant = self.offset_of(publication)?.publisher_us(now)?;
            let theirs = layer.clock?.timestamp_at(instant, rate);
            Some(theirs.wrapping_add(hot.deltas.timestamp))
        };
        by_report()
            // Two seconds off what was sent last is a clock that lies.
            .filter(|at| (at.wrapping_sub(by_arrival) as i32).unsigned_abs() < 2 * rate)
            .unwrap_or(by_arrival)
    }

    /// Report blocks on everything this peer publishes, and REMB if that is all it understands.
    fn report_reception(
        &mut self,
        slot: usize,
        reporter: u32,
        now: Micros,
        builder: &mut Builder,
        sink: &mut impl Sink,
    ) {
        let Some(transport) = &mut self.transports[slot] else {
            return;
        };
        let (blocks, sources) = (&mut self.blocks, &mut self.sources);
        blocks.clear();
        sources.clear();
        let (mut worst, mut remb, mut estimates) = (0, false, false);
        for index in &transport.publications {
            let Some(publication) = &mut self.publications[*index as usize] else {
                continue;
            };
            let codecs = &publication.stream.codecs;
            estimates |= publication.transport_cc;
            remb |= publication.stream.video && codecs.iter().any(|codec| codec.remb);
            for layer in &mut publication.layers {
                let (Some(receive), Some(ssrc)) = (&mut layer.receive, layer.ssrc) else {
                    continue;
                };
                if layer
                    .heard
                    .is_none_or(|at| now.since(at) > 10 * LAYER_SILENT_US)
                {
                    continue;
                }
                let (fraction_lost, lost, highest) = receive.report();
                let (last_sr, at) = layer.reported.unwrap_or((0, now));
                if publication.stream.video {
                    sources.push(ssrc);
                    worst = worst.max(fraction_lost);
                }
                blocks.push(Report {
                    ssrc,
                    fraction_lost,
                    lost,
                    highest,
                    jitter: receive.jitter() as u32,
                    last_sr,
                    delay: ((u128::from(now.since(at)) << 16) / 1_000_000) as u32,
                });
            }
        }
        if blocks.is_empty() {
            return;
        }
        let to = transport.id;
        for chunk in blocks.chunks(BLOCKS) {
            if builder.bytes().len() + 24 * chunk.len() > COMPOUND_BYTES {
                sink.rtcp(to, builder.bytes());
                builder.clear();
            }
            builder.receiver_report(reporter, chunk);
        }
        if remb && !estimates && !sources.is_empty() {
            // Loss tells too much from enough: above 10 % less, below 2 % carefully more.
            let now_bps = transport.remb_bps;
            transport.remb_bps = match worst {
                26.. => now_bps * (512 - u64::from(worst)) / 512,
                6..=25 => now_bps,
                _ => now_bps + now_bps / 20,
            }
            .clamp(REMB_MIN_BPS, REMB_MAX_BPS);
            let named = &sources[..sources.len().min(REMB_SOURCES)];
            builder.remb(reporter, transport.remb_bps, named);
        }
    }
}
