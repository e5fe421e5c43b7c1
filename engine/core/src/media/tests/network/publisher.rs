//! A camera and a microphone that repair and renew what they are asked to.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const FRAME_US: u64 = 33_333;
/// The same of the RTP clock.
const TICKS: u32 = 3_000;
const SOUND_US: u64 = 20_000;
/// The same of the RTP clock, and the bytes of a block.
pub(super) const SOUND_TICKS: u32 = 960;
const SOUND_BYTES: usize = 40;
/// Payload of one packet.
const PACKET_BYTES: usize = 1_100;
/// Header of one, with mid and rid.
const HEADER_BYTES: usize = 20;
/// A key frame is so many times larger.
const KEY_FACTOR: usize = 4;
/// A real encoder does not answer each request with a key frame.
const KEY_US: u64 = 300_000;
/// What is older is not sent again: libwebrtc promises no more.
const KEPT_US: u64 = 1_000_000;
/// Packets of a frame leave one after the other, so many per millisecond.
const PER_MS: usize = 2;
/// Payload types of its sound: bare, and with the blocks of the packets before it.
const OPUS: u8 = 111;
const RED: u8 = 63;
/// Layers have these SSRCs in order; the last byte of the SSRC fills the payload, so it names the layer.
pub(super) const FIRST_SSRC: u32 = 5_000;

#[derive(Debug)]
struct Layer {
    source: Source,
    bps: u64,
    key: bool,
    keyed: Micros,
}

/// Who is seen and heard.
#[derive(Debug)]
pub struct Publisher {
    layers: Vec<Layer>,
    sound: Source,
    /// Blocks of earlier packets that each packet of sound repeats (RFC 2198); Chromium repeats one.
    pub repeats: usize,
    /// The latest of these, oldest first.
    said: VecDeque<Vec<u8>>,
    next_frame: Micros,
    next_sound: Micros,
    outbox: VecDeque<Vec<u8>>,
    sent: BTreeMap<(u32, u16), Vec<u8>>,
    order: VecDeque<(Micros, (u32, u16))>,
    /// Layers from this one on are not sent.
    pub stops_at: usize,
    /// Between two frames.
    pub frame_us: u64,
    /// Padding behind each picture of the lowest layer, as libwebrtc without RTX sends it: never again.
    pub pads: usize,
    /// Packets of pictures are as large as this instead of equal parts of a picture.
    pub packet_bytes: Option<usize>,
    /// The largest packet sent.
    pub largest: usize,
    pub packets: u64,
    pub nacked: u64,
    /// Of these, for what is not sent again.
    pub in_vain: u64,
    pub keys_asked: u64,
}

impl Publisher {
    /// Layers of these bitrates, lowest first.
    pub fn new(bitrates: &[u64]) -> Self {
        let rids = ["q", "h", "f"];
        let layers = bitrates
            .iter()
            .enumerate()
            .map(|(index, bps)| {
                let mut source = Source::new(FIRST_SSRC + index as u32, 96, 100);
                source.mid = "0";
                source.rid = if bitrates.len() > 1 { rids[index] } else { "" };
                Layer {
                    source,
                    bps: *bps,
                    key: true,
                    keyed: Micros(0),
                }
            })
            .collect();
        let mut sound = Source::new(2_000, OPUS, 500);
        sound.mid = "1";
        sound.level = 30;
        Self {
            layers,
            sound,
            repeats: 0,
            said: VecDeque::new(),
            next_frame: Micros(0),
            next_sound: Micros(0),
            outbox: VecDeque::new(),
            sent: BTreeMap::new(),
            order: VecDeque::new(),
            stops_at: usize::MAX,
            frame_us: FRAME_US,
            pads: 0,
            packet_bytes: None,
            largest: 0,
            packets: 0,
            nacked: 0,
            in_vain: 0,
            keys_asked: 0,
        }
    }

    /// The next frames are key frames.
    pub fn renew(&mut self) {
        for layer in &mut self.layers {
            layer.key = true;
        }
    }

    pub fn stream(&self) -> ReceiveStream {
        if self.layers.len() > 1 {
            simulcast()
        } else {
            ReceiveStream {
                ssrcs: vec![(FIRST_SSRC, 0)],
                ..camera()
            }
        }
    }

    /// What its sound is published as.
    pub fn voice(&self) -> ReceiveStream {
        let mut stream = microphone();
        if self.repeats > 0 {
            stream.codecs.push(red(RED));
        }
        stream
    }

    /// 20 ms of sound, behind the blocks that are repeated.
    fn talk(&mut self) -> Vec<u8> {
        if self.repeats == 0 {
            return self.sound.sound();
        }
        let block = vec![self.sound.sequence as u8; SOUND_BYTES];
        let mut payload = Vec::new();
        for (age, block) in (1..=self.said.len() as u32).rev().zip(&self.said) {
            // One bit more, payload type (7), timestamp offset (14), length (10): RFC 2198 section 3.
            let head = ((SOUND_TICKS * age) << 10) | block.len() as u32;
            payload.extend((u32::from(0x80 | OPUS) << 24 | head).to_be_bytes());
        }
        payload.push(OPUS);
        payload.extend(self.said.iter().flatten());
        payload.extend(&block);
        self.said.push_back(block);
        if self.said.len() > self.repeats {
            self.said.pop_front();
        }
        self.sound.payload_type = RED;
        let packet = self.sound.packet(false, &payload);
        self.sound.timestamp = self.sound.timestamp.wrapping_add(SOUND_TICKS);
        packet
    }

    /// What leaves in this millisecond.
    pub fn send(&mut self, now: Micros) -> Vec<Vec<u8>> {
        let mut leaving = Vec::new();
        if now >= self.next_sound {
            self.next_sound = Micros(self.next_sound.0.max(now.0) + SOUND_US);
            leaving.push(self.talk());
        }
        if now >= self.next_frame {
            self.next_frame = Micros(self.next_frame.0.max(now.0 - 1_000) + self.frame_us);
            let rate = 1_000_000 / self.frame_us.max(1);
            let sent = self.stops_at.min(self.layers.len());
            for layer in &mut self.layers[..sent] {
                let is_key = layer.key && now.since(layer.keyed) >= KEY_US;
                if is_key {
                    (layer.key, layer.keyed) = (false, now);
                }
                let factor = if is_key { KEY_FACTOR } else { 1 };
                let bytes = layer.bps as usize / 8 / rate as usize * factor;
                self.outbox
                    .extend(frame(&mut layer.source, is_key, bytes, self.packet_bytes));
            }
            let lowest = &mut self.layers[0].source;
            lowest.timestamp = lowest.timestamp.wrapping_sub(TICKS);
            let pads = (0..self.pads).map(|_| lowest.packet(false, &[]));
            self.outbox.extend(pads);
            lowest.timestamp = lowest.timestamp.wrapping_add(TICKS);
        }
        let count = self.outbox.len().min(PER_MS);
        leaving.extend(self.outbox.drain(..count));
        for packet in &leaving {
            self.packets += 1;
            self.largest = self.largest.max(packet.len());
            let header = Header::parse(packet).expect("own packet");
            if header.payload.is_empty() {
                continue;
            }
            let name = (header.ssrc, header.sequence);
            self.sent.insert(name, packet.clone());
            self.order.push_back((now, name));
        }
        while self
            .order
            .front()
            .is_some_and(|(at, _)| now.since(*at) > KEPT_US)
        {
            let (_, old) = self.order.pop_front().expect("there is one");
            self.sent.remove(&old);
        }
        leaving
    }

    /// RTCP of the router.
    pub fn receive(&mut self, compound: &[u8], _now: Micros) {
        for packet in Compound::new(compound) {
            match packet.expect("the router's own") {
                Packet::Nack { media, lost } => {
                    for sequence in lost {
                        self.nacked += 1;
                        match self.sent.get(&(media, sequence)) {
                            Some(packet) => self.outbox.push_front(packet.clone()),
                            None => self.in_vain += 1,
                        }
                    }
                }
                Packet::Pli { media } => {
                    self.keys_asked += 1;
                    let mut layers = self.layers.iter_mut();
                    if let Some(layer) = layers.find(|layer| layer.source.ssrc == media) {
                        layer.key = true;
                    }
                }
                _ => {}
            }
        }
    }
}

/// A frame of so many bytes, in equal parts or in packets that are all this large.
fn frame(source: &mut Source, key: bool, bytes: usize, each: Option<usize>) -> Vec<Vec<u8>> {
    source.picture = source.picture.wrapping_add(1);
    source.tl0 = source.tl0.wrapping_add(1);
    let packets = bytes.div_ceil(PACKET_BYTES).max(1);
    let part = each.map_or(bytes / packets, |each| each - HEADER_BYTES);
    let made = (0..packets)
        .map(|index| {
            let mut payload = source.picture_payload(key, index == 0, source.ssrc as u8);
            payload.resize(part.max(payload.len()), source.ssrc as u8);
            source.packet(index + 1 == packets, &payload)
        })
        .collect();
    source.timestamp = source.timestamp.wrapping_add(TICKS);
    made
}
