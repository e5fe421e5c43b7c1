//! A subscriber: jitter buffer, NACK, key frame requests, transport-wide feedback; and what it saw.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::clock::ntp_to_us;
use super::super::super::rtcp::Report;
use super::super::super::twcc::{extend, Recorder};
use super::publisher::{FIRST_SSRC, SOUND_TICKS};
use super::*;

const FEEDBACK_US: u64 = 50_000;
const REPORT_US: u64 = 1_000_000;
const NACK_US: u64 = 20_000;
/// A hole is asked for when it is this old ...
const REORDER_US: u64 = 15_000;
/// ... at most so often, and given up after so long.
const TRIES: u32 = 10;
const GIVE_UP_US: u64 = 1_000_000;
const KEY_US: u64 = 300_000;
/// A jitter buffer holds no more than this.
const MOST_HELD_US: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Kept {
    timestamp: u32,
    marker: bool,
    starts_key: bool,
    layer: u8,
}

/// What a viewer makes up about its link (S11). Its times are as if nothing ever waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Every number arrived, also those that did not.
    AllArrived,
    /// It tells of what arrived and never of anything else.
    NothingLost,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    since: Micros,
    asked: Micros,
    tries: u32,
}

/// One incoming stream.
#[derive(Debug, Default)]
pub struct Incoming {
    first: u64,
    highest: u64,
    /// Sequence numbers that arrived, repaired or not.
    numbers: BTreeSet<u64>,
    /// Arrivals of the same media number under the same SSRC.
    pub doubles: u64,
    pub last: Option<Micros>,
    /// Highest number and count at the last report.
    reported: (u64, u64),
    /// Bytes per second of time.
    pub bytes: Vec<u64>,
}

impl Incoming {
    fn note(&mut self, sequence: u16) -> (u64, bool) {
        let number = if self.highest == 0 {
            0x1_0000 + u64::from(sequence)
        } else {
            extend(self.highest, sequence)
        };
        if self.first == 0 {
            (self.first, self.highest) = (number, number);
        }
        self.highest = self.highest.max(number);
        (number, self.numbers.insert(number))
    }

    /// A number that came in another packet's redundancy.
    fn restore(&mut self, sequence: u16) {
        let number = extend(self.highest, sequence);
        if number >= self.first {
            self.numbers.insert(number);
        }
    }

    /// Share of numbers that never came.
    pub fn residual(&self) -> f64 {
        let expected = (self.highest - self.first + 1) as f64;
        1.0 - self.numbers.len() as f64 / expected
    }

    pub fn received(&self) -> usize {
        self.numbers.len()
    }

    /// What was lost since the last report.
    fn report(&mut self, ssrc: u32) -> Report {
        let (highest, received) = (self.highest, self.numbers.len() as u64);
        let expected = highest - self.reported.0;
        let lost = expected.saturating_sub(received - self.reported.1);
        let fraction = if self.reported.0 == 0 || expected == 0 {
            0
        } else {
            lost * 256 / expected
        };
        self.reported = (highest, received);
        Report {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            highest: highest as u32,
            ..Report::default()
        }
    }
}

/// The largest packets of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Largest {
    pub media: usize,
    /// RTX.
    pub repeat: usize,
    /// Nothing but padding.
    pub padding: usize,
    pub rtcp: usize,
}

impl Largest {
    fn of(&mut self, is_padding: bool, is_repeat: bool) -> &mut usize {
        match (is_padding, is_repeat) {
            (true, _) => &mut self.padding,
            (false, true) => &mut self.repeat,
            (false, false) => &mut self.media,
        }
    }
}

/// Who watches and listens.
#[derive(Debug)]
pub struct Viewer {
    pub id: TransportId,
    video_ssrc: u32,
    audio_ssrc: u32,
    pub video: Incoming,
    pub audio: Incoming,
    /// What of it can be heard: what arrived, and what the redundancy of later packets restored.
    pub heard: Incoming,
    /// Sends transport-wide feedback.
    pub feeds_back: bool,
    /// Sends this REMB once a second.
    pub remb_bps: u64,
    /// What the jitter buffer holds a frame for.
    pub playout_us: u64,
    start: Option<Micros>,
    kept: BTreeMap<u64, Kept>,
    /// Numbers of padding among the pictures.
    padded: BTreeSet<u64>,
    /// It asks for what is missing.
    pub nacks: bool,
    holes: BTreeMap<u64, Hole>,
    next: u64,
    needs_key: bool,
    /// It asks for key frames.
    pub asks: bool,
    asked_key: Micros,
    recorder: Recorder,
    pub lie: Option<Lie>,
    numbers: BTreeSet<u16>,
    feedback_due: Micros,
    nack_due: Micros,
    report_due: Micros,
    sender_report: Option<(u32, u32, Micros)>,
    rtt_us: u64,
    /// (when rendered, layer)
    pub frames: Vec<(Micros, u8)>,
    timeline: Option<(u32, u64)>,
    /// Playout delay of the latest picture that says one.
    pub delay: Option<[u8; 3]>,
    pub largest: Largest,
    pub padding: u64,
}

impl Viewer {
    pub fn new(id: TransportId, video_ssrc: u32, audio_ssrc: u32) -> Self {
        Self {
            id,
            video_ssrc,
            audio_ssrc,
            video: Incoming::default(),
            audio: Incoming::default(),
            heard: Incoming::default(),
            feeds_back: true,
            remb_bps: 0,
            playout_us: 100_000,
            start: None,
            kept: BTreeMap::new(),
            padded: BTreeSet::new(),
            nacks: true,
            holes: BTreeMap::new(),
            next: 0,
            needs_key: true,
            asks: true,
            asked_key: Micros(0),
            recorder: Recorder::default(),
            lie: None,
            numbers: BTreeSet::new(),
            feedback_due: Micros(0),
            nack_due: Micros(0),
            report_due: Micros(0),
            sender_report: None,
            rtt_us: 100_000,
            frames: Vec::new(),
            timeline: None,
            delay: None,
            largest: Largest::default(),
            padding: 0,
        }
    }

    fn second(&self, now: Micros) -> usize {
        self.start.map_or(0, |start| now.since(start) / 1_000_000) as usize
    }

    pub fn receive(&mut self, bytes: &[u8], now: Micros) {
        if is_rtcp(bytes) {
            for packet in Compound::new(bytes) {
                if let Ok(Packet::SenderReport { ssrc, ntp, .. }) = packet {
                    assert!(ntp_to_us(ntp) > 0);
                    self.sender_report = Some((ssrc, (ntp >> 16) as u32, now));
                }
            }
            self.largest.rtcp = self.largest.rtcp.max(bytes.len());
            return;
        }
        let header = Header::parse(bytes).expect("the router's own");
        if let Some(&[high, middle, low]) = element(&header, bytes, PLAYOUT_DELAY) {
            self.delay = Some([high, middle, low]);
        }
        let number = element(&header, bytes, BOB_EXTENSIONS.transport_cc);
        if let Some([high, low]) = number {
            let number = u16::from_be_bytes([*high, *low]);
            if self.lie.is_some() {
                self.numbers.insert(number);
            } else {
                self.recorder.record(number, header.ssrc, now);
            }
        }
        let payload = header.payload.of(bytes);
        let largest = self
            .largest
            .of(payload.is_empty(), header.ssrc == self.video_ssrc + 1);
        *largest = (*largest).max(bytes.len());
        let second = self.second(now);
        if header.ssrc == self.audio_ssrc {
            let (_, is_new) = self.audio.note(header.sequence);
            self.audio.doubles += u64::from(!is_new);
            self.audio.last = Some(now);
            self.hear(&header, payload);
        } else if header.ssrc == self.video_ssrc {
            self.video.bytes.resize(second + 1, 0);
            self.video.bytes[second] += bytes.len() as u64;
            self.video.last = Some(now);
            self.arrived(header.sequence, &header, payload, now, true);
        } else if header.ssrc == self.video_ssrc + 1 {
            let [high, low, payload @ ..] = payload else {
                self.padding += bytes.len() as u64;
                return; // padding
            };
            let original = u16::from_be_bytes([*high, *low]);
            self.arrived(original, &header, payload, now, false);
        } else {
            panic!("an SSRC nobody announced: {}", header.ssrc);
        }
    }

    /// Sound of a packet, and of those before it that it repeats.
    fn hear(&mut self, header: &Header, payload: &[u8]) {
        self.heard.note(header.sequence);
        if header.payload_type != RED {
            return;
        }
        let heads: Vec<_> = payload
            .chunks(4)
            .take_while(|head| head[0] & 0x80 != 0)
            .collect();
        let mut blocks = &payload[4 * heads.len() + 1..];
        for head in heads {
            let head = u32::from_be_bytes(head.try_into().expect("four bytes"));
            let (offset, len) = ((head >> 10) & 0x3fff, head & 0x3ff);
            let (block, rest) = blocks.split_at(len as usize);
            let age = offset / SOUND_TICKS;
            // Each block is filled with the number it was sent under: the same distance apart on both sides.
            let primary = payload[payload.len() - 1];
            assert_eq!(block[0], primary.wrapping_sub(age as u8));
            self.heard.restore(header.sequence.wrapping_sub(age as u16));
            blocks = rest;
        }
    }

    fn arrived(
        &mut self,
        sequence: u16,
        header: &Header,
        payload: &[u8],
        now: Micros,
        is_media: bool,
    ) {
        let before = self.video.highest;
        let (number, is_new) = self.video.note(sequence);
        self.video.doubles += u64::from(!is_new && is_media);
        if before > 0 && number > before {
            let hole = Hole {
                since: now,
                asked: Micros(0),
                tries: 0,
            };
            // Many at once is an outage: a key frame will help, not a thousand repeats.
            if number - before < 300 {
                self.holes.extend((before + 1..number).map(|at| (at, hole)));
            }
        }
        self.holes.remove(&number);
        if !is_new || number < self.next {
            return;
        }
        if payload.is_empty() {
            self.padding += 1;
            self.padded.insert(number);
            return;
        }
        let vp8 = Descriptor::parse(payload).expect("VP8");
        let kept = Kept {
            timestamp: header.timestamp,
            marker: header.marker,
            starts_key: vp8.key,
            layer: payload[10].wrapping_sub(FIRST_SSRC as u8),
        };
        self.kept.insert(number, kept);
    }

    /// Decode and show what is complete.
    pub fn play(&mut self, now: Micros) {
        self.start.get_or_insert(now);
        loop {
            if self.needs_key {
                let key = self.kept.iter().find(|(_, kept)| kept.starts_key);
                let Some((&number, _)) = key else {
                    self.kept.clear();
                    return;
                };
                self.next = number;
                self.kept = self.kept.split_off(&number);
                self.holes = self.holes.split_off(&number);
                self.needs_key = false;
            }
            // As libwebrtc has it: padding lies between pictures, never in one.
            while self.padded.remove(&self.next) {
                self.next += 1;
            }
            let mut end = self.next;
            let frame = loop {
                match self.kept.get(&end) {
                    Some(kept) if kept.marker => break Some(*kept),
                    Some(_) => end += 1,
                    None => break None,
                }
            };
            if let Some(frame) = frame {
                self.kept = self.kept.split_off(&(end + 1));
                self.next = end + 1;
                self.show(&frame, now);
                continue;
            }
            let newest = self.kept.keys().next_back().copied().unwrap_or(0);
            let is_hopeless = newest > end
                && self
                    .holes
                    .range(..=end)
                    .next_back()
                    .is_none_or(|(_, hole)| now.since(hole.since) > GIVE_UP_US);
            // A key frame behind a hole that is still open when its time has come: go on there.
            let later_key = self
                .kept
                .range(end..)
                .find(|(_, kept)| kept.starts_key)
                .is_some();
            let is_late = later_key
                && self
                    .holes
                    .get(&end)
                    .is_none_or(|hole| now.since(hole.since) > self.playout_us);
            if is_hopeless || is_late {
                self.kept = self.kept.split_off(&end);
                self.needs_key = true;
                continue;
            }
            return;
        }
    }

    fn show(&mut self, frame: &Kept, now: Micros) {
        let ticks = |since: u32| i64::from(frame.timestamp.wrapping_sub(since) as i32) * 100 / 9;
        let due = self
            .timeline
            .map(|(timestamp, at)| at as i64 + ticks(timestamp));
        // The timeline holds while frames come within two seconds of it.
        let due = due.filter(|due| (now.0 as i64 - due).abs() < 2_000_000);
        let at = due.unwrap_or((now.0 + self.playout_us) as i64) as u64;
        if due.is_none() {
            self.timeline = Some((frame.timestamp, at));
        }
        let last = self.frames.last().map_or(Micros(0), |(at, _)| *at);
        let shown = Micros(at.max(now.0)).max(last);
        // Late: from now on the buffer holds everything a little longer, up to a second.
        if let (true, Some((_, base))) = (shown.0 > at, &mut self.timeline) {
            let more = (shown.0 - at).min(MOST_HELD_US.saturating_sub(self.playout_us));
            *base += more;
            self.playout_us += more;
        }
        self.frames.push((shown, frame.layer));
    }

    /// Freezes as webrtc-stats counts them: a gap of three mean ones, or 150 ms more than the mean.
    pub fn freezes(&self, from: Micros) -> Vec<(Micros, u64)> {
        let shown: Vec<_> = self.frames.iter().map(|(at, _)| *at).collect();
        let mut mean = 33_000;
        let mut found = Vec::new();
        for pair in shown.windows(2) {
            let gap = pair[1].since(pair[0]);
            if gap >= (3 * mean).max(mean + 150_000) && pair[0] >= from {
                found.push((pair[0], gap));
            }
            mean = (mean * 29 + gap.min(200_000)) / 30;
        }
        found
    }

    /// RTCP that leaves in this millisecond.
    pub fn send(&mut self, now: Micros) -> Vec<Vec<u8>> {
        let mut leaving = Vec::new();
        let mut send = |write: &mut dyn FnMut(&mut Builder)| {
            let mut builder = Builder::default();
            builder.receiver_report(1, &[]);
            write(&mut builder);
            leaving.push(builder.bytes().to_vec());
        };
        if now >= self.feedback_due {
            self.feedback_due = Micros(now.0 + FEEDBACK_US);
            if let Some(lie) = self.lie {
                for told in lies(lie, &std::mem::take(&mut self.numbers)) {
                    let step_us = FEEDBACK_US / told.len() as u64;
                    for (at, number) in (0u64..).zip(told) {
                        let arrived = Micros(now.0 - FEEDBACK_US + at * step_us);
                        self.recorder.record(number, 1, arrived);
                    }
                    send(&mut |builder| self.recorder.write(1, builder));
                    self.recorder = Recorder::default();
                }
            }
            while self.feeds_back && !self.recorder.is_empty() {
                send(&mut |builder| self.recorder.write(1, builder));
            }
        }
        if now >= self.nack_due {
            self.nack_due = Micros(now.0 + NACK_US);
            self.holes
                .retain(|_, hole| hole.tries < TRIES && now.since(hole.since) <= GIVE_UP_US);
            let mut due = Vec::new();
            for (number, hole) in &mut self.holes {
                if now.since(hole.since) >= REORDER_US && now.since(hole.asked) >= self.rtt_us {
                    (hole.asked, hole.tries) = (now, hole.tries + 1);
                    due.push(*number as u16);
                }
            }
            if !due.is_empty() && self.nacks {
                send(&mut |builder| builder.nack(1, self.video_ssrc, &due));
            }
            let is_stuck = self.asks && self.needs_key && self.video.highest > 0;
            let is_flowing = self.video.last.is_some_and(|at| now.since(at) < 500_000);
            if is_stuck && is_flowing && now.since(self.asked_key) >= KEY_US {
                self.asked_key = now;
                send(&mut |builder| builder.pli(1, self.video_ssrc));
            }
        }
        if now >= self.report_due {
            self.report_due = Micros(now.0 + REPORT_US);
            if let Some((ssrc, last_sr, at)) = self.sender_report {
                let report = Report {
                    ssrc,
                    last_sr,
                    delay: ((now.since(at) << 16) / 1_000_000) as u32,
                    ..Report::default()
                };
                let video = self.video.report(self.video_ssrc);
                send(&mut |builder| builder.receiver_report(1, &[report, video]));
            }
            if self.remb_bps > 0 {
                send(&mut |builder| builder.remb(1, self.remb_bps, &[self.video_ssrc]));
            }
        }
        leaving
    }

    /// The viewer knows its round trip from elsewhere, and holds frames for two repeats of a packet.
    pub fn set_rtt(&mut self, rtt_us: u64) {
        self.rtt_us = rtt_us + 20_000;
        self.playout_us = self.playout_us.max(3 * rtt_us + 60_000);
    }
}

/// The runs of numbers that a liar tells of, a message each. The story is shorter than a wrap.
fn lies(lie: Lie, arrived: &BTreeSet<u16>) -> Vec<Vec<u16>> {
    let (Some(first), Some(last)) = (arrived.first(), arrived.last()) else {
        return Vec::new();
    };
    if lie == Lie::AllArrived {
        let all: Vec<u16> = (*first..=*last).collect();
        return all.chunks(150).map(<[u16]>::to_vec).collect();
    }
    let arrived: Vec<u16> = arrived.iter().copied().collect();
    let runs = arrived.chunk_by(|a, b| a + 1 == *b);
    runs.map(<[u16]>::to_vec).collect()
}
