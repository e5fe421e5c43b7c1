//! An incoming track: its layers, what its packets mean, who receives it.
//!
//! Not here: finding the publication of a packet (`Router`), sequence numbers (`Receive`).

use crate::id::{GroupId, Micros, PublicationId};

use super::activity::Activity;
use super::cache::Cache;
use super::clock::SenderClock;
use super::dependency;
use super::frames::Frames;
use super::keyframe::Kind;
use super::ladder::Ladder;
use super::loudest::Voice;
use super::mirror::{Mirror, Remotes};
use super::place::Place;
use super::pulse::Pulse;
use super::receive::Receive;
use super::{Error, PublicationStatistics, ReceiveStream};

/// Simulcast layers of a publication.
pub const MAX_LAYERS: usize = 4;
/// Payload types of a section that can be forwarded; an answer has fewer.
pub const MAX_CODECS: usize = 32;
/// "No layer", "no codec".
pub const NONE: u8 = 0xff;
/// Who was silent this long has nothing to report, and its SSRC may be another's.
pub const LAYER_SILENT_US: u64 = 1_000_000;
/// Key frame requests of one publication are at least this far apart (S9).
pub const KEY_INTERVAL_US: u64 = 500_000;

/// Marks a payload type of `Publication::table` as repeating its codec.
const RTX: u8 = 0x40;

/// A key frame that can be sent again.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dense number of its first packet.
    pub dense: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Arrival of that packet.
    pub at: Micros,
}

/// One simulcast layer.
#[derive(Debug, Default)]
pub struct Layer {
    /// Learned or signalled.
    pub ssrc: Option<u32>,
    /// State of that SSRC, from its first packet on.
    pub receive: Option<Receive>,
    /// Where its newest packet stands, if it shows pictures.
    pub newest: Option<Place>,
    /// From the first packet that had a subscriber.
    pub cache: Option<Cache>,
    /// The last key frame in it.
    pub key: Option<Key>,
    /// Last packet with a payload.
    pub heard: Option<Micros>,
    /// It comes with its siblings.
    pub live: bool,
    /// See `live`.
    pub pulse: Pulse,
    /// Last sender report.
    pub clock: Option<SenderClock>,
    /// Middle 32 bits of its NTP time and its arrival.
    pub reported: Option<(u32, Micros)>,
    /// `Event::FirstPacket` was told.
    pub announced: bool,
    /// Counts the times sequence numbers started over.
    pub epoch: u32,
    /// Lost with former SSRCs.
    pub lost_before: u64,
    /// Packets ever received.
    pub packets: u64,
    /// Payload bytes in them.
    pub octets: u64,
    /// Bytes ever received, and at the last round.
    pub counted: u64,
    /// See `counted`.
    pub measured: u64,
    /// Measured bits per second; 0 = not yet.
    pub bps: u64,
    /// FIR sequence number.
    pub fir: u8,
    /// Pictures.
    pub frames: Frames,
    /// What its dependency descriptors said, from the first on.
    pub dependency: Option<Box<dependency::State>>,
    /// Parameter sets came in the stream: a key frame begins with them.
    pub parameters: bool,
}

impl Layer {
    /// Sequence numbers and clock start over; whoever received it must start a new segment.
    pub fn start_over(&mut self) {
        self.lost_before += self.receive.take().map_or(0, |receive| receive.lost());
        self.clock = None;
        self.reported = None;
        self.epoch += 1;
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
        self.key = None;
        self.dependency = None;
        self.parameters = false;
    }

    /// The first packet of a key frame, or one like it (several may look so), lies in the cache.
    pub fn key_kept(&mut self, dense: u64, timestamp: u32, at: Micros) {
        let is_new = self
            .key
            .is_none_or(|known| known.timestamp != timestamp && known.dense < dense);
        if is_new {
            self.key = Some(Key {
                dense,
                timestamp,
                at,
            });
        }
    }
}

/// An incoming track.
#[derive(Debug)]
pub struct Publication {
    /// Handle.
    pub id: PublicationId,
    /// Slot of its transport; `NOWHERE` for a mirror.
    pub transport: u32,
    /// Its publisher is at home in another shard.
    pub mirror: Option<Mirror>,
    /// Other shards with subscribers.
    pub remotes: Remotes,
    /// Who is heard together.
    pub group: GroupId,
    /// As negotiated.
    pub stream: ReceiveStream,
    /// What its codecs are, by index.
    pub kinds: Vec<Kind>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The steps there are, if layers have steps.
    pub ladder: Option<Box<Ladder>>,
    /// Slots of subscriptions.
    pub subscribers: Vec<u32>,
    /// Force-mute: closed drops everything.
    pub open: bool,
    /// Index of the codec last received.
    pub codec: u8,
    /// transport-cc feedback was negotiated.
    pub transport_cc: bool,
    /// Loudest level since the last report, 127 = unheard.
    pub loudest: u8,
    /// Its last second of speech.
    pub activity: Activity,
    /// Its standing where only the loudest are forwarded.
    pub voice: Voice,
    /// Layers that need a key frame, a bit each.
    pub keys_wanted: u8,
    /// Last request for one.
    pub keys_asked: Option<Micros>,
    /// Layer heard last, for `jitter`.
    pub last_layer: u8,
    /// Counters; `lost`, `jitter` and `layers` are filled in by `statistics`.
    pub counters: PublicationStatistics,
    table: [u8; 128],
}

impl Publication {
    /// A track that nothing arrived of.
    ///
    /// # Errors
    /// `Invalid` for what no negotiation can have produced.
    pub fn new(
        id: PublicationId,
        transport: u32,
        group: GroupId,
        stream: ReceiveStream,
    ) -> Result<Self, Error> {
        check(&stream)?;
        let mut publication = Self {
            id,
            transport,
            mirror: None,
            remotes: Remotes::default(),
            group,
            stream: ReceiveStream {
                codecs: Vec::new(),
                ..stream.clone()
            },
            kinds: Vec::new(),
            layers: Vec::new(),
            ladder: None,
            subscribers: Vec::new(),
            open: true,
            codec: 0,
            transport_cc: false,
            loudest: 127,
            activity: Activity::default(),
            voice: Voice::default(),
            keys_wanted: 0,
            keys_asked: None,
            last_layer: 0,
            counters: PublicationStatistics::default(),
            table: [NONE; 128],
        };
        publication.negotiated(stream)?;
        Ok(publication)
    }

    /// Take the result of a renegotiation; layers that remain keep their state.
    ///
    /// # Errors
    /// `Invalid`, and nothing changed.
    pub fn negotiated(&mut self, stream: ReceiveStream) -> Result<(), Error> {
        check(&stream)?;
        self.table = [NONE; 128];
        for (codec, index) in stream.codecs.iter().zip(0u8..) {
            if let Some(rtx) = codec.rtx {
                self.table[usize::from(rtx & 0x7f)] = RTX | index;
            }
        }
        for (codec, index) in stream.codecs.iter().zip(0u8..) {
            self.table[usize::from(codec.payload_type & 0x7f)] = index;
        }
        self.kinds = stream
            .codecs
            .iter()
            .map(|codec| Kind::named(&codec.name, stream.video))
            .collect();
        self.transport_cc = stream.extensions.transport_cc != 0
            && stream.codecs.iter().any(|codec| codec.transport_cc);
        let layers = stream.rids.len().max(stream.ssrcs.len()).max(1);
        self.layers.resize_with(layers, Layer::default);
        self.last_layer = 0;
        self.codec = 0;
        self.ladder = None;
        self.stream = stream;
        Ok(())
    }

    /// (codec index, is RTX) of a payload type.
    #[must_use]
    pub const fn codec_of(&self, payload_type: u8) -> Option<(u8, bool)> {
        match self.table[(payload_type & 0x7f) as usize] {
            NONE => None,
            index => Some((index & !RTX, index & RTX != 0)),
        }
    }

    /// A packet of a layer came. True if it had stopped, or was never heard.
    pub fn heard(&mut self, index: u8, now: Micros) -> bool {
        let layer = &mut self.layers[usize::from(index)];
        layer.heard = Some(now);
        let revived = !std::mem::replace(&mut layer.live, true);
        layer.pulse.beat(!revived, now);
        if self.layers.len() > 1 {
            let layers = (0u8..).zip(&mut self.layers);
            for (_, sibling) in layers.filter(|(other, _)| *other != index) {
                sibling.pulse.miss(now);
            }
        }
        revived
    }

    /// Layers that fell silent while others go on have stopped. When all are silent the picture stands still
    /// (a shared screen may): who joins then still knows which layer to ask for. True if one stopped.
    pub fn stop_silent(&mut self) -> bool {
        let mut stopped = self.stop_silent_sizes();
        let newest = self.layers.iter().filter_map(|layer| layer.heard).max();
        for layer in &mut self.layers {
            if layer.live && newest.is_some_and(|newest| layer.pulse.is_still(newest)) {
                layer.live = false;
                stopped = true;
            }
            layer.pulse.forget();
        }
        stopped
    }

    /// The publisher cannot tell audio levels (RFC 6464), and packets of this codec show a little of it.
    #[must_use]
    pub fn is_level_guessed(&self, codec: u8) -> bool {
        self.stream.extensions.audio_level == 0
            && !self.stream.video
            && !self.stream.encrypted
            && self.stream.codecs[usize::from(codec)]
                .name
                .eq_ignore_ascii_case("opus")
    }

    /// A level was heard, 127 is silence. True if it is the first of this interval.
    pub fn hear(&mut self, level: u8) -> bool {
        let first = self.loudest == 127 && level < 127;
        self.loudest = self.loudest.min(level);
        first
    }

    /// The layer a rid names; without rids there is one.
    #[must_use]
    pub fn layer_of(&self, rid: Option<&[u8]>) -> Option<u8> {
        let at = match rid {
            _ if self.layers.len() == 1 && self.stream.rids.is_empty() => 0,
            Some(rid) => self
                .stream
                .rids
                .iter()
                .position(|known| known.as_bytes() == rid)?,
            None if self.layers.len() == 1 => 0,
            None => return None,
        };
        u8::try_from(at).ok()
    }

    /// Clock of the codec in use, Hz.
    #[must_use]
    pub fn clock_rate(&self, codec: u8) -> u32 {
        self.stream
            .codecs
            .get(usize::from(codec))
            .map_or(90_000, |codec| codec.clock_rate.max(1))
    }
}

fn check(stream: &ReceiveStream) -> Result<(), Error> {
    if stream.codecs.is_empty() || stream.codecs.len() > MAX_CODECS {
        return Err(Error::Invalid("number of codecs"));
    }
    if stream.rids.len().max(stream.ssrcs.len()) > MAX_LAYERS {
        return Err(Error::Invalid("number of layers"));
    }
    if stream.mid.len() > 16 {
        return Err(Error::Invalid("mid"));
    }
    let beyond = |payload_type: u8| payload_type > 127;
    if stream
        .codecs
        .iter()
        .any(|codec| beyond(codec.payload_type) || codec.rtx.is_some_and(beyond))
    {
        return Err(Error::Invalid("payload type"));
    }
    Ok(())
}
