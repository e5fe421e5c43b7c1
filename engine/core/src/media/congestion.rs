//! A peer's link and what goes over it: feedback into the estimate, the estimate into layers and pauses, probes.
//!
//! A peer that never sends transport-wide feedback or REMB costs nothing here and is held back by nothing.
//! Not here: what is known of a link (`pressure`), the estimate itself (`estimate`), the arithmetic of sharing
//! (`allocation`).

use crate::id::{Micros, TransportId};

use super::allocation::{share, Stream};
use super::estimate::{Goog, History, News, Traps, MAX_BPS};
use super::ladder::smoothed;
use super::probe::STEP_US;
use super::publication::{Layer, Publication, MAX_LAYERS, NONE};
use super::router::{Router, Transport, ROUND_US};
use super::steps::{layer_of, temporal_of, MAX_STEPS};
use super::subscription::{Face, Subscription};
use super::twcc::Feedback;
use super::Sink;

/// Video is paused only after its lowest layer was too much for this long.
pub const PAUSE_AFTER_US: u64 = 1_500_000;
/// After congestion nobody rises for this long.
const CALM_US: u64 = 1_000_000;
/// Sending so much more than the budget, percent, does not wait for the key frame of a lower layer.
const FLOOD_PERCENT: u64 = 150;
/// More than wanted by so much, percent: no need to think about the link.
const AMPLE_PERCENT: u64 = 120;
/// A layer that was not measured yet, by its index; a single one counts as the second.
const ASSUMED_BPS: [u64; MAX_LAYERS] = [150_000, 500_000, 1_700_000, 3_000_000];
/// The share of a frame rate below the full one, percent.
const ASSUMED_PERCENT: [u64; 3] = [40, 60, 100];
/// Of a budget or a sentence, percent, streams get: their measured rates are averages, and it is not to be exceeded.
const CAPPED_PERCENT: u64 = 90;
/// Padding of a probe packet without content (RFC 3550 section 5.1: one byte counts it).
pub(super) const PADDING_BYTES: usize = 255;
/// Packets of one step of a probe.
const MAX_THROWN: usize = 64;

/// How a link is.
#[derive(Clone, Copy, Debug)]
struct Mood {
    /// No congestion lately.
    calm: bool,
    /// Sound suffers.
    hurts: bool,
    /// Far more is sent than it carries.
    floods: bool,
}

impl Layer {
    /// Measure the bitrate, once a round: up within two seconds (one key frame is no bitrate), more slowly down, for
    /// what comes again after a quiet scene.
    pub fn measure(&mut self) {
        let bytes = self.counted - self.measured;
        self.measured = self.counted;
        let bps = bytes * 8 * 1_000_000 / ROUND_US;
        self.bps = smoothed(self.bps, bps);
    }
}

impl Router {
    /// Hold streams back when a link is too narrow (the initial state), or only measure it.
    pub fn set_adaptive(&mut self, adaptive: bool) {
        self.adaptive = adaptive;
    }

    /// Feedback whose numbers were written.
    pub(super) fn learn_feedback(
        &mut self,
        slot: u32,
        feedback: &Feedback<'_>,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let can_probe = self.padding_stream(slot).is_some();
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let rtt_us = transport.counters.rtt_us;
        let pressure = &mut transport.pressure;
        let was_away = pressure.take_outage(now);
        let Some(history) = &mut pressure.history else {
            pressure.history = Some(History::new(transport.stamped));
            pressure.traps = Some(Traps::new(pressure.secret, transport.stamped));
            pressure.estimator = Some(Box::new(Goog::default()));
            pressure.counted = None; // from now on sound counts too
            return;
        };
        let Some(estimator) = &mut pressure.estimator else {
            return;
        };
        let told = history.learn(feedback, now, &mut pressure.acks);
        let hidden = pressure.trust.weigh(&told, transport.stamped, now);
        let is_told = pressure
            .cushion
            .told((told.arrived, told.lost), rtt_us, now);
        pressure.sentence_bps = pressure.trust.cap_bps(now);
        transport.counters.feedback_lost -= u64::from(told.unsent);
        transport.counters.feedback_lies += u64::from(told.lies);
        let news = News {
            acks: &pressure.acks,
            lost: told.lost + hidden,
            rtt_us,
            can_probe,
        };
        estimator.feedback(&news, now);
        if let Some(bps) = pressure.probe.learn(&pressure.acks, now) {
            estimator.probed(bps);
        }
        if is_told {
            self.cushion(slot);
        }
        self.divide(slot, now, sink);
        if was_away {
            self.renew(slot, now, sink);
        }
    }

    /// What all pictures of a transport say of their playout. Repeats under their own number must stay the same.
    fn cushion(&mut self, slot: u32) {
        let Some(transport) = &self.transports[slot as usize] else {
            return;
        };
        let value = transport.pressure.cushion.value();
        for (_, sub) in &transport.subscriptions {
            let hot = &mut self.egress[*sub as usize];
            hot.cushion = value.filter(|_| hot.video && hot.stamped);
        }
    }

    /// No more than this for one peer, whatever its link carries; 0 = all that it carries, the initial state (MP32).
    /// Sound is never held back.
    pub fn set_budget(&mut self, transport: TransportId, bits_per_s: u64) {
        let slot = self.transport_slots.get(&transport);
        if let Some(Some(transport)) = slot.and_then(|slot| self.transports.get_mut(*slot as usize))
        {
            // The next round divides anew.
            transport.pressure.budget_bps = (bits_per_s > 0).then_some(bits_per_s);
        }
    }

    /// REMB: all that some peers tell, and a ceiling where there is transport-wide feedback.
    pub(super) fn learn_remb(&mut self, slot: u32, bps: u64, now: Micros, sink: &mut impl Sink) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let pressure = &mut transport.pressure;
        if bps == 0 {
            return;
        }
        if pressure.estimator.is_some() {
            pressure.ceiling.told(bps, pressure.sending_bps, now);
        } else {
            let remb = pressure.remb.get_or_insert_default();
            remb.told(bps, pressure.sending_bps, now);
        }
        self.divide(slot, now, sink);
    }

    /// Once a round: rates, and what follows from them.
    pub(super) fn press(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        if transport.pressure.estimate_bps().is_none() && !transport.pressure.holds_back() {
            transport.pressure.counted = None;
            return;
        }
        // REMB speaks of the streams it names, and peers that send it name video only (aiortc, GStreamer).
        let only_video = transport.pressure.is_by_remb();
        let streams = transport.subscriptions.iter();
        let bytes: u64 = streams
            .map(|(_, sub)| &self.egress[*sub as usize])
            .filter(|hot| hot.video || !only_video)
            .map(|hot| hot.bytes)
            .sum();
        let pressure = &mut transport.pressure;
        let before = pressure.counted.replace(bytes);
        let new = before.map_or(0, |before| bytes.saturating_sub(before));
        let bps = new * 8 * 1_000_000 / ROUND_US;
        pressure.sending_bps = (pressure.sending_bps + bps) / 2;
        pressure.probe.expire(now);
        pressure.sentence_bps = pressure.trust.cap_bps(now);
        pressure.ceiling.forget(now);
        self.divide(slot, now, sink);
    }

    /// Give every stream of a transport the layer that its link can carry.
    fn divide(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) {
        let Some(transport) = &self.transports[slot as usize] else {
            return;
        };
        // A budget that was lifted leaves nothing to know, and streams that are still held back.
        let lifted = transport.pressure.holds_back().then_some(MAX_BPS);
        let Some(estimate) = transport.pressure.estimate_bps().or(lifted) else {
            return;
        };
        let mut streams = std::mem::take(&mut self.shares);
        streams.clear();
        let (mut audio, mut wanted, mut flowing) = (0, 0, 0);
        for &(_, sub) in &transport.subscriptions {
            let hot = &self.egress[sub as usize];
            let (Some(Some(publication)), Some(cold)) = (
                self.publications.get(hot.source as usize),
                &self.subscriptions[sub as usize],
            ) else {
                continue;
            };
            if hot.paused {
                continue;
            }
            if !hot.video {
                audio += publication.layers[0].bps;
                continue;
            }
            let stream = stream_of(publication, cold, sub);
            if stream.wish() == NONE {
                continue;
            }
            wanted += stream.rate(stream.wish());
            flowing += if hot.current == NONE {
                0
            } else {
                stream.rate(hot.step)
            };
            streams.push(stream);
        }
        let is_capped = transport.pressure.is_capped();
        let by_remb = transport.pressure.is_by_remb() && !is_capped;
        if by_remb {
            audio = 0; // its number does not cover audio
        }
        let (wanted, flowing) = (wanted + audio, flowing + audio);
        let ample = estimate >= wanted * AMPLE_PERCENT / 100;
        let pace_bps = (!ample && self.adaptive).then_some(estimate);
        let rests = transport.pressure.is_resting(now);
        if ample && !rests && !transport.pressure.limited {
            self.shares = streams;
            self.pace(slot, pace_bps);
            return;
        }
        let congested = transport.pressure.congested();
        let calm = congested.is_none_or(|at| now.since(at) >= CALM_US);
        let hurts = transport.pressure.is_strained(now);
        let percent = if is_capped { CAPPED_PERCENT } else { 100 };
        let budget = (estimate * percent / 100).saturating_sub(audio);
        if self.adaptive {
            share(budget, &mut streams);
            if by_remb {
                // Without packets such a peer says nothing more, and a pause would have no end: it keeps the
                // lowest layer, and only layers follow its word. Where that one is mostly lost, pictures rest
                // for a time of ours.
                for stream in &mut streams {
                    if stream.granted == NONE {
                        stream.granted = stream.lowest();
                    }
                }
            }
            if rests {
                for stream in &mut streams {
                    stream.granted = NONE;
                }
            }
            let mood = Mood {
                calm,
                hurts,
                floods: flowing * 100 > estimate * FLOOD_PERCENT,
            };
            for stream in &streams {
                self.grant(stream, mood, now, sink);
            }
            if let Some(transport) = &mut self.transports[slot as usize] {
                // Also of what is hidden now: when it is shown again there may be room.
                let subs = transport.subscriptions.iter();
                transport.pressure.limited = subs
                    .filter_map(|(_, sub)| self.subscriptions[*sub as usize].as_ref())
                    .any(|cold| cold.cap != NONE || cold.starved);
            }
        }
        self.shares = streams;
        self.pace(slot, pace_bps);
        if !ample {
            self.begin_probe(slot, wanted * AMPLE_PERCENT / 100, now, sink);
        }
    }

    /// Let a grant take effect.
    fn grant(&mut self, stream: &Stream, mood: Mood, now: Micros, sink: &mut impl Sink) {
        let hot = &mut self.egress[stream.sub as usize];
        let Some(cold) = &mut self.subscriptions[stream.sub as usize] else {
            return;
        };
        let mut granted = stream.granted;
        if granted == NONE && !cold.starved {
            // One breath too short is no reason to take the picture away.
            let since = match cold.short {
                Some((since, last)) if now.since(last) <= 2 * ROUND_US => since,
                _ => now,
            };
            cold.short = Some((since, now));
            if now.since(since) < PAUSE_AFTER_US || !mood.hurts {
                granted = stream.lowest();
            }
        } else {
            cold.short = None;
        }
        let rises = granted != NONE && (cold.starved || granted > cold.cap);
        if rises && !mood.calm {
            return;
        }
        // At the wish there is no cap: a layer that comes back is taken at once.
        let cap = if granted == stream.wish() {
            NONE
        } else {
            granted
        };
        let starved = granted == NONE;
        if (cap, starved) == (cold.cap, cold.starved) {
            return;
        }
        cold.cap = cap;
        cold.starved = starved;
        cold.tell_paused(sink);
        let publication = self.publications.get(hot.source as usize);
        if let (true, Some(Some(publication))) = (mood.floods && granted != NONE, publication) {
            let is_at_once = publication.carrier(granted) == hot.current && publication.is_nested();
            if hot.current != NONE && hot.step > granted && !is_at_once {
                hot.current = NONE;
            }
        }
        self.retarget(stream.sub, now, sink);
    }

    // --- probes

    fn begin_probe(&mut self, slot: u32, wanted_bps: u64, now: Micros, sink: &mut impl Sink) {
        if self.shedding.is_active || self.padding_stream(slot).is_none() {
            return;
        }
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let pressure = &mut transport.pressure;
        let (Some(estimate), Some(_)) = (pressure.estimate_bps(), &pressure.estimator) else {
            return;
        };
        if pressure.is_held() {
            return;
        }
        let congested = pressure.congested();
        let sent = (transport.stamped, pressure.bytes);
        if pressure
            .probe
            .begin(estimate, wanted_bps, congested, sent, now)
        {
            self.probing.push(slot);
            self.throw_in(slot, now, sink);
            self.wake_at(Micros(now.0 + STEP_US));
        }
    }

    /// One step of every probe that is being sent.
    pub(super) fn run_probes(&mut self, now: Micros, sink: &mut impl Sink) {
        if self.probing.is_empty() {
            return;
        }
        let mut probing = std::mem::take(&mut self.probing);
        probing.retain(|slot| {
            self.throw_in(*slot, now, sink);
            let transport = self.transports[*slot as usize].as_ref();
            transport.is_some_and(|transport| transport.pressure.probe.is_sending())
        });
        if !probing.is_empty() {
            self.wake_at(Micros(now.0 + STEP_US));
        }
        self.probing = probing;
    }

    /// What a probe owes by now.
    fn throw_in(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) {
        for _ in 0..MAX_THROWN {
            let Some(transport) = &mut self.transports[slot as usize] else {
                return;
            };
            let sent = (transport.stamped, transport.pressure.bytes);
            if transport
                .pressure
                .probe
                .owed(sent, now)
                .is_none_or(|owed| owed < PADDING_BYTES as u64)
            {
                return;
            }
            let Some(sub) = self.padding_stream(slot) else {
                return;
            };
            if !self.throw_one(sub, now, sink) {
                return;
            }
        }
    }

    /// A subscription whose RTX stream, or own stream, may carry what is thrown away.
    fn padding_stream(&self, slot: u32) -> Option<u32> {
        let transport = self.transports[slot as usize].as_ref()?;
        let usable = |sub: &u32| {
            let hot = &self.egress[*sub as usize];
            let cold = self.subscriptions[*sub as usize].as_ref();
            hot.video
                && hot.packets > 0
                && !hot.stalled
                && hot.extensions.transport_cc != 0
                && (cold.is_some_and(|cold| cold.rtx_type().is_some()) || self.can_pad(hot))
        };
        let subs = transport.subscriptions.iter().map(|(_, sub)| sub);
        let flowing = |sub: &&u32| self.egress[**sub as usize].current != NONE;
        let mut found = subs.filter(|sub| usable(sub));
        let first = found.clone().find(flowing).or_else(|| found.next());
        first.copied()
    }

    /// One RTX packet: a recent packet again if there is one, else padding; without RTX padding. False: it could not go.
    fn throw_one(&mut self, sub: u32, now: Micros, sink: &mut impl Sink) -> bool {
        let hot = &self.egress[sub as usize];
        let (Some(cold), Some(transport)) = (
            &mut self.subscriptions[sub as usize],
            &mut self.transports[hot.transport as usize],
        ) else {
            return false;
        };
        let Some(rtx) = cold.rtx_type() else {
            return self.pad_one(sub, now, sink);
        };
        let Some(slot) = sink.rtp(hot.to) else {
            return false;
        };
        let pressure = &mut transport.pressure;
        pressure.thrown = (pressure.thrown + 1) % 16;
        let sequence = hot.last_sequence.saturating_sub(pressure.thrown);
        transport.stamp();
        let number = transport.stamped;
        let again = cold
            .segments
            .back()
            .filter(|last| last.first <= sequence && last.layer == hot.current)
            .and_then(|segment| {
                let publication = self.publications.get(hot.source as usize)?.as_ref()?;
                let layer = publication.layers.get(usize::from(segment.layer))?;
                let (dense, deltas, mark) = cold.source_of(segment, sequence)?;
                let (mut meta, packet) = layer.cache.as_ref()?.get(dense)?;
                meta.marker |= mark.marker;
                let codec = *cold.codecs.get(usize::from(meta.codec))?;
                let is_same = layer.epoch == segment.epoch && codec.1 != NONE && publication.open;
                (is_same && !mark.filled).then_some((deltas, meta, packet, codec.1))
            });
        let mut face = Face {
            payload_type: rtx,
            sequence: cold.rtx_sequence,
            ssrc: cold.stream.rtx_ssrc,
            original: Some(sequence as u16),
            transport_cc: Some(number as u16),
            now,
            padding: 0,
            active: 0,
        };
        let len = if let Some((deltas, meta, packet, rtx)) = again {
            face.payload_type = rtx;
            hot.compose(slot, &face, &deltas, &meta, packet)
        } else {
            hot.pad(slot, &face, PADDING_BYTES)
        };
        cold.rtx_sequence = cold.rtx_sequence.wrapping_add(1);
        sink.rtp_done(len.unwrap_or(0));
        if let Some(transport) = &mut self.transports[hot.transport as usize] {
            transport.pressure.sent(number, len.unwrap_or(0), now);
        }
        len.is_some()
    }
}

impl Transport {
    /// The next transport-wide number.
    #[inline]
    pub(super) fn stamp(&mut self) -> u64 {
        if let Some(traps) = &mut self.pressure.traps {
            if traps.is_due(self.stamped) {
                self.stamped += 1;
                self.pressure.sent(self.stamped, 0, Micros(0));
            }
        }
        self.stamped += 1;
        self.stamped
    }

    /// A packet with the latest transport-wide number left, or (0 bytes) did not.
    #[inline]
    pub(super) fn noted(&mut self, bytes: usize, now: Micros) {
        self.pressure.sent(self.stamped, bytes, now);
    }
}

impl Subscription {
    /// Any RTX payload type of the stream.
    fn rtx_type(&self) -> Option<u8> {
        let mut types = self.codecs.iter().map(|(_, rtx, _)| *rtx);
        types.find(|rtx| *rtx != NONE)
    }
}

/// A video stream as the division of a budget sees it.
pub(super) fn stream_of(publication: &Publication, cold: &Subscription, sub: u32) -> Stream {
    let live = publication.live_steps();
    let is_plain = publication.layers.len() == 1 && publication.ladder.is_none();
    let mut rates = [0; MAX_STEPS];
    for (step, rate) in (0u8..)
        .zip(&mut rates)
        .filter(|(step, _)| live >> step & 1 == 1)
    {
        *rate = match publication.measured_bps(step) {
            0 => {
                let size = usize::from(layer_of(step)).max(usize::from(is_plain));
                ASSUMED_BPS[size] * ASSUMED_PERCENT[usize::from(temporal_of(step))] / 100
            }
            measured => measured,
        };
    }
    let mut stream = Stream {
        sub,
        priority: cold.priority,
        rates,
        live,
        max: publication.wish(cold.max_layer, cold.max_fps),
        had: NONE,
        granted: NONE,
    };
    stream.had = match (cold.starved, cold.cap) {
        (true, _) => NONE,
        (false, NONE) => stream.wish(),
        (false, cap) => cap,
    };
    stream
}
