//! RTCP that arrives: a peer speaks for its own SSRCs and about those we send to it, nothing else (S8).
//!
//! Not here: parsing (`rtcp`), what we send on our own accord (`reports`).

use crate::id::{Micros, TransportId};

use super::clock::{ntp, ntp_to_us, SenderClock};
use super::ingress::stamp;
use super::publication::{Publication, NONE};
use super::router::Router;
use super::rtcp::{Compound, Packet, Report};
use super::subscription::Face;
use super::twcc::{extend, Feedback};
use super::{Event, Sink};

impl Router {
    /// A decrypted, authenticated RTCP compound.
    pub fn rtcp(&mut self, from: TransportId, packet: &[u8], now: Micros, sink: &mut impl Sink) {
        let Some(&slot) = self.transport_slots.get(&from) else {
            return;
        };
        self.release(now, sink); // somebody may ask again for what is held
        for packet in Compound::new(packet) {
            let Ok(packet) = packet else {
                self.malformed += 1; // what came before the fault was acted upon: it was whole
                return;
            };
            match packet {
                Packet::SenderReport {
                    ssrc,
                    ntp,
                    timestamp,
                    reports,
                } => {
                    self.sender_report(slot, ssrc, ntp, timestamp, now);
                    reports.for_each(|report| self.heard_of(slot, &report, now));
                }
                Packet::ReceiverReport { reports, .. } => {
                    reports.for_each(|report| self.heard_of(slot, &report, now));
                }
                Packet::Goodbye { sources } => {
                    for ssrc in sources {
                        self.goodbye(slot, ssrc, sink);
                    }
                }
                Packet::Nack { media, lost } => {
                    if let Some(sub) = self.sent_to(slot, media) {
                        if let Some(cold) = &mut self.subscriptions[sub as usize] {
                            cold.nacks += 1;
                        }
                        for sequence in lost {
                            self.repeat(sub, sequence, now, sink);
                        }
                    }
                }
                Packet::Pli { media } => self.key_wanted(slot, media, false, now, sink),
                Packet::Fir { media } => {
                    for ssrc in media {
                        self.key_wanted(slot, ssrc, true, now, sink);
                    }
                }
                Packet::Remb { bits_per_s, .. } => {
                    if let Some(transport) = &mut self.transports[slot as usize] {
                        transport.counters.remb_bps = bits_per_s;
                    }
                    self.learn_remb(slot, bits_per_s, now, sink);
                }
                Packet::TransportCc(feedback) => self.transport_cc(slot, &feedback, now, sink),
                Packet::SourceDescription | Packet::Other(_) => {}
            }
        }
    }

    /// The clock of a stream that this peer publishes.
    fn sender_report(&mut self, slot: u32, ssrc: u32, ntp: u64, timestamp: u32, now: Micros) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let own = transport
            .streams
            .iter()
            .find(|stream| stream.ssrc == ssrc && !stream.rtx);
        let Some(stream) = own else {
            // RTX streams report too, and a peer that only receives reports under any SSRC.
            return;
        };
        let Some(publication) = &mut self.publications[stream.publication as usize] else {
            return;
        };
        let Some(layer) = publication.layers.get_mut(usize::from(stream.layer)) else {
            return;
        };
        let middle = (ntp >> 16) as u32;
        layer.reported = Some((middle, now));
        if ntp == 0 {
            return; // RFC 3550 section 6.4.1: no clock
        }
        let ntp_us = ntp_to_us(ntp);
        layer.clock = Some(SenderClock { ntp_us, timestamp });
        transport.offset.learn(ntp_us, now);
    }

    /// A report on something we may have sent.
    fn heard_of(&mut self, slot: u32, report: &Report, now: Micros) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let sent = transport
            .subscriptions
            .iter()
            .find(|(sent, _)| *sent == report.ssrc);
        let repeats = |(_, sub): &(u32, u32)| {
            let cold = self.subscriptions[*sub as usize].as_ref();
            cold.is_some_and(|cold| cold.stream.rtx_ssrc == report.ssrc)
        };
        if let Some((_, sub)) = sent {
            let hot = &self.egress[*sub as usize];
            let publication = self.publications.get(hot.source as usize);
            let live = publication
                .and_then(Option::as_ref)
                .map_or(0, Publication::live);
            if hot.video && u32::from(hot.current) == live.trailing_zeros() {
                transport
                    .pressure
                    .reported(report.fraction_lost, report.highest, now);
            }
        } else if !transport.subscriptions.iter().any(repeats) {
            self.foreign += 1;
            return;
        }
        let sent = |(own, _): &&(u32, u32)| *own == report.ssrc;
        let sub = transport.subscriptions.iter().find(sent).map(|own| own.1);
        if let Some(Some(cold)) = sub.map(|sub| &mut self.subscriptions[sub as usize]) {
            cold.reception.learn(report);
        }
        if report.last_sr == 0 {
            return;
        }
        let middle = (ntp(now) >> 16) as u32;
        let trip = middle
            .wrapping_sub(report.last_sr)
            .wrapping_sub(report.delay);
        // 1/65536 s; more than 10 s or negative is a wrong answer.
        if trip < 10 << 16 {
            transport.counters.rtt_us = (u64::from(trip) * 1_000_000) >> 16;
            if let Some(Some(cold)) = sub.map(|sub| &mut self.subscriptions[sub as usize]) {
                cold.reception.rtt_us = transport.counters.rtt_us;
            }
        }
    }

    fn goodbye(&mut self, slot: u32, ssrc: u32, sink: &mut impl Sink) {
        let stream = self.transports[slot as usize]
            .as_ref()
            .and_then(|entry| entry.streams.iter().find(|stream| stream.ssrc == ssrc));
        let Some(stream) = stream else {
            self.foreign += 1;
            return;
        };
        if stream.rtx {
            return;
        }
        if let Some(publication) = &self.publications[stream.publication as usize] {
            sink.event(Event::Bye(publication.id));
        }
    }

    /// The subscription that this SSRC is, on this transport and no other.
    fn sent_to(&mut self, slot: u32, ssrc: u32) -> Option<u32> {
        let found = self.transports[slot as usize].as_ref().and_then(|entry| {
            let mut subscriptions = entry.subscriptions.iter();
            subscriptions.find(|(sent, _)| *sent == ssrc)
        });
        if found.is_none() {
            self.foreign += 1;
        }
        found.map(|(_, sub)| *sub)
    }

    fn key_wanted(
        &mut self,
        slot: u32,
        ssrc: u32,
        by_fir: bool,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(sub) = self.sent_to(slot, ssrc) else {
            return;
        };
        if let Some(cold) = &mut self.subscriptions[sub as usize] {
            cold.plis += 1;
            cold.firs += u64::from(by_fir);
        }
        self.need_key(sub, now, sink);
    }

    /// A peer whose link was away is back. It lacks pictures, and libwebrtc may say so seconds later: what it asks
    /// before an ICE check has been answered is lost, and it asks again every 3 s.
    pub(super) fn renew(&mut self, slot: u32, now: Micros, sink: &mut impl Sink) {
        let mut place = 0;
        while let Some(&(_, sub)) = self.transports[slot as usize]
            .as_ref()
            .and_then(|transport| transport.subscriptions.get(place))
        {
            place += 1;
            self.need_key(sub, now, sink);
        }
    }

    /// A subscriber cannot go on without a key frame.
    fn need_key(&mut self, sub: u32, now: Micros, sink: &mut impl Sink) {
        let hot = &self.egress[sub as usize];
        let source = hot.source;
        if hot.target == NONE || !hot.video {
            return;
        }
        if let Some(Some(publication)) = self.publications.get_mut(source as usize) {
            let current = publication.layers.get(usize::from(hot.current));
            let layer = match current {
                Some(layer) if layer.live => hot.current,
                _ => hot.target,
            };
            publication.keys_wanted |= 1 << layer;
            self.ask_key(source, now, sink);
        }
    }

    /// Send a packet again, from the cache of its layer.
    fn repeat(&mut self, sub: u32, sequence: u16, now: Micros, sink: &mut impl Sink) {
        let hot = &mut self.egress[sub as usize];
        let Some(cold) = &mut self.subscriptions[sub as usize] else {
            return;
        };
        cold.asked_again += 1;
        let sequence = extend(hot.last_sequence, sequence);
        if hot.packets == 0 || sequence > hot.last_sequence || hot.paused {
            return;
        }
        let (Some(segment), Some(Some(publication))) = (
            cold.segment_of(sequence),
            self.publications.get(hot.source as usize),
        ) else {
            return;
        };
        let layer = publication.layers.get(usize::from(segment.layer));
        let Some(layer) = layer.filter(|layer| layer.epoch == segment.epoch) else {
            return;
        };
        let Some((dense, deltas, mark)) = cold.source_of(&segment, sequence) else {
            return;
        };
        let Some((mut meta, packet)) = layer.cache.as_ref().and_then(|cache| cache.get(dense))
        else {
            return;
        };
        let mut codec = cold.codecs.get(usize::from(meta.codec));
        if codec.is_some_and(|codec| codec.0 == NONE) && !meta.primary.is_empty() {
            meta.payload = meta.primary; // as it went out (RED)
            codec = cold.codecs.get(usize::from(meta.primary_codec));
        }
        let Some(&(payload_type, rtx, allowed)) = codec else {
            return;
        };
        meta.marker |= mark.marker;
        if mark.filled {
            meta.payload.len = 0;
        }
        if !allowed || payload_type == NONE || !publication.open {
            return;
        }
        if !cold.may_repeat(hot.bytes, sequence, packet.len() as u64, now) {
            return;
        }
        let Some(slot) = sink.rtp(hot.to) else {
            return;
        };
        let number = sequence as u16;
        let mut face = Face {
            payload_type,
            sequence: number,
            ssrc: hot.ssrc,
            original: None,
            transport_cc: None,
            now,
            padding: 0,
            active: if mark.masked {
                publication.active_targets(segment.layer, hot.step)
            } else {
                0
            },
        };
        if rtx != NONE {
            face.payload_type = rtx;
            face.ssrc = cold.stream.rtx_ssrc;
            face.sequence = cold.rtx_sequence;
            face.original = Some(number);
            cold.rtx_sequence = cold.rtx_sequence.wrapping_add(1);
        }
        if hot.stamped && hot.extensions.transport_cc != 0 {
            face.transport_cc = stamp(&mut self.transports[hot.transport as usize]);
        }
        let len = hot.compose(slot, &face, &deltas, &meta, packet);
        if face.transport_cc.is_some() {
            if let Some(transport) = &mut self.transports[hot.transport as usize] {
                transport.noted(len.unwrap_or(0), now);
            }
        }
        if rtx == NONE {
            sink.rtp_done_repeatable(len.unwrap_or(0));
        } else {
            sink.rtp_done(len.unwrap_or(0));
        }
        if len.is_some() {
            cold.retransmitted += 1;
            cold.retransmitted_octets += u64::from(meta.payload.len);
        }
    }

    /// Feedback about numbers that were never written is a lie (S8).
    fn transport_cc(
        &mut self,
        slot: u32,
        feedback: &Feedback<'_>,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(transport) = &mut self.transports[slot as usize] else {
            return;
        };
        let first = extend(transport.stamped, feedback.base);
        let end = first + u64::from(feedback.count);
        if transport.stamped == 0 || first == 0 || end > transport.stamped + 1 {
            self.foreign += 1;
            return;
        }
        transport.counters.feedback_received += u64::from(feedback.received);
        transport.counters.feedback_lost += u64::from(feedback.count - feedback.received);
        self.learn_feedback(slot, feedback, now, sink);
    }
}
