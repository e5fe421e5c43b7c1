//! One stream of three sizes at three rates: whatever a subscriber switches to, it can decode all it gets.

use std::collections::{HashMap, HashSet};

use super::thinning::{assert_gapless, frame_rate, packet};
use super::*;
use crate::media::dependency::tests::{full_svc, key_svc, Meant, Packet as Described};
use crate::media::dependency::{parse, Structure};
use crate::media::vp9;

const DEPENDENCY: u8 = 12;
/// Temporal ids of four pictures; templates of each size are in the order key, T0, T1, T2.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

fn codec(name: &str, payload_type: u8) -> Codec {
    Codec {
        name: name.into(),
        ..vp8(payload_type, Some(payload_type + 1))
    }
}

fn stream(name: &str, dependency_descriptor: u8) -> ReceiveStream {
    ReceiveStream {
        codecs: vec![codec(name, 45)],
        extensions: Extensions {
            dependency_descriptor,
            ..ALICE_EXTENSIONS
        },
        ..camera()
    }
}

fn sink(name: &str, dependency_descriptor: u8) -> SendStream {
    SendStream {
        codecs: vec![codec(name, 102)],
        extensions: Extensions {
            dependency_descriptor,
            ..BOB_EXTENSIONS
        },
        ..screen(77)
    }
}

/// An AV1 publisher: pictures of three frames, two packets each.
struct Av1 {
    source: Source,
    meant: Meant,
    at: usize,
    frame: u16,
}

impl Av1 {
    fn new(meant: Meant) -> Self {
        Self {
            source: Source::new(1_000, 45, 65_100),
            meant,
            at: 0,
            frame: 65_000,
        }
    }

    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        if key {
            self.at = 0;
        }
        let temporal = PATTERN[self.at % 4];
        self.at += 1;
        let mut packets = Vec::new();
        for spatial in 0..3u8 {
            for part in 0..2 {
                let described = Described {
                    first: part == 0,
                    last: part == 1,
                    template: 4 * spatial + if key { 0 } else { 1 + temporal },
                    frame: self.frame,
                    ..Described::default()
                };
                let attach = key && spatial == 0 && part == 0;
                let bytes = described.write(&self.meant, attach);
                let marker = spatial == 2 && part == 1;
                let payload = [[0x10, spatial, temporal], [7; 3]].concat();
                let elements = [(DEPENDENCY, &bytes[..])];
                packets.push(packet(&mut self.source, marker, &elements, &payload));
            }
            self.frame = self.frame.wrapping_add(1);
        }
        self.source.timestamp = self.source.timestamp.wrapping_add(3_000);
        packets
    }
}

/// What Bob could do with what he got.
#[derive(Default)]
struct Decoder {
    structure: Option<Structure>,
    frames: HashSet<u16>,
    active: u32,
    /// By (spatial, temporal): frames.
    got: HashMap<(u8, u8), usize>,
}

impl Decoder {
    fn take(&mut self, seen: &[Seen], id: u8) {
        for (index, seen) in seen.iter().enumerate() {
            let bytes = seen.element(id).expect("a descriptor");
            let mut fresh = None;
            let found = parse(bytes, self.structure.as_ref(), &mut fresh).expect("understood");
            if fresh.is_some() {
                self.structure = fresh;
                self.frames.clear();
            }
            self.active = found.active.unwrap_or(self.active);
            if found.first {
                for diff in found.diffs.as_slice() {
                    let number = found.frame.wrapping_sub(*diff);
                    assert!(
                        self.frames.contains(&number),
                        "{index}: frame {} of S{}T{} refers to {number}, which never came",
                        found.frame,
                        found.spatial,
                        found.temporal
                    );
                }
                self.frames.insert(found.frame);
                *self.got.entry((found.spatial, found.temporal)).or_default() += 1;
            }
        }
    }
}

/// The marker bit is on the last packet of each picture and nowhere else.
fn assert_markers(seen: &[Seen]) {
    for pair in seen.windows(2) {
        let ends = pair[0].header.timestamp != pair[1].header.timestamp;
        assert_eq!(pair[0].header.marker, ends);
    }
}

/// A hundred changes of mind, in an order that looks random.
fn wishes() -> impl Iterator<Item = (u8, u8)> {
    let mut state = 7u32;
    (0..100).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (
            (state >> 20) as u8 % 3,
            [0, 16, 8][(state >> 28) as usize % 3],
        )
    })
}

fn switches(meant: Meant, nested: bool) {
    let mut story = Story::new();
    story.publish(1, ALICE, stream("AV1", DEPENDENCY));
    story.subscribe(1, BOB, sink("AV1", 9), 1);
    story.subscribe(
        2,
        CAROL,
        SendStream {
            ssrc: 88,
            rtx_ssrc: 89,
            ..sink("AV1", 9)
        },
        1,
    );
    let mut alice = Av1::new(meant);
    let mut asked = 0;
    let (mut bob, mut carol) = (Vec::new(), Vec::new());
    let mut key = true;
    let mut play = |story: &mut Story, pictures: usize| {
        for _ in 0..pictures {
            // The pattern begins anew at a key frame; a publisher answers at its next T0 picture.
            for packet in alice.picture(key && alice.at % 4 == 0) {
                story.rtp(ALICE, &packet);
            }
            key &= alice.at % 4 != 1;
            story.pass(33);
            let plis = story.plis(ALICE).len();
            asked += plis;
            key |= plis > 0;
            bob.extend(story.seen(BOB));
            carol.extend(story.seen(CAROL));
        }
    };
    play(&mut story, 40);
    for (layer, fps) in wishes() {
        story.layer(1, layer, false);
        frame_rate(&mut story, 1, fps);
        play(&mut story, 13);
    }
    assert_gapless(&bob);
    assert_markers(&bob);
    let mut decoder = Decoder::default();
    decoder.take(&bob, 9);
    for spatial in 0..3 {
        for temporal in 0..3 {
            assert!(
                decoder.got.contains_key(&(spatial, temporal)),
                "S{spatial}T{temporal}"
            );
        }
    }
    assert_gapless(&carol);
    Decoder::default().take(&carol, 9);
    if nested {
        assert_eq!(carol.len(), 6 * 1_340, "who wants all has all");
    } else {
        assert!(carol.len() < 3 * 1_340, "smaller sizes are not sent along");
    }
    assert!(asked > 5, "up in size needs key frames");
    assert!(
        nested || asked > 20,
        "and down too, where sizes do not stand on each other: {asked}"
    );
}

#[test]
fn a_hundred_switches_of_full_svc_leave_a_decodable_stream() {
    switches(full_svc(), true);
}

#[test]
fn a_hundred_switches_of_key_picture_svc_leave_a_decodable_stream() {
    switches(key_svc(), false);
}

/// Whoever had few pictures of the largest size has none of those that more pictures of the smallest refer to.
#[test]
fn a_smaller_size_begins_at_the_rate_there_was() {
    for phase in 0..4 {
        let mut story = Story::new();
        story.publish(1, ALICE, stream("AV1", DEPENDENCY));
        story.subscribe(1, BOB, sink("AV1", 9), 1);
        let mut alice = Av1::new(full_svc());
        let mut bob = Vec::new();
        let mut play = |story: &mut Story, pictures: usize| {
            for _ in 0..pictures {
                for packet in alice.picture(alice.at == 0) {
                    story.rtp(ALICE, &packet);
                }
                story.pass(33);
                bob.extend(story.seen(BOB));
            }
        };
        play(&mut story, 40);
        frame_rate(&mut story, 1, 8);
        play(&mut story, 12 + phase);
        frame_rate(&mut story, 1, 0);
        story.layer(1, 0, false);
        play(&mut story, 12);
        let mut decoder = Decoder::default();
        decoder.take(&bob, 9);
        assert!(decoder.got[&(0, 2)] > 4, "all pictures in the end");
        assert_gapless(&bob);
    }
}

#[test]
fn the_receiver_is_told_which_decode_targets_are_left() {
    let mut story = Story::new();
    story.publish(1, ALICE, stream("AV1", DEPENDENCY));
    story.subscribe(1, BOB, sink("AV1", 9), 1);
    let mut alice = Av1::new(full_svc());
    let mut play = |story: &mut Story, key: bool, pictures: usize| {
        for index in 0..pictures {
            for packet in alice.picture(key && index == 0) {
                story.rtp(ALICE, &packet);
            }
            story.pass(33);
        }
        story.seen(BOB)
    };
    let mut decoder = Decoder::default();
    let all = play(&mut story, true, 40);
    decoder.take(&all, 9);
    assert_eq!(decoder.active, 0b1_1111_1111);
    let plain: Vec<_> = all
        .iter()
        .filter(|seen| seen.element(9).expect("one").len() > 3)
        .collect();
    assert_eq!(plain.len(), 1, "nothing is said while all is sent");
    story.layer(1, 0, false);
    let small = play(&mut story, false, 8);
    assert!(
        small.len() == 16 && story.plis(ALICE).is_empty(),
        "at once, without a key frame"
    );
    decoder.take(&small, 9);
    assert_eq!(decoder.active, 0b111);
    let told = small
        .iter()
        .filter(|seen| seen.element(9).expect("one").len() > 3);
    assert_eq!(told.count(), 2, "in the packets of one frame");
    // Bytes of the payload are never touched.
    assert!(small
        .iter()
        .all(|seen| seen.payload() == [0x10, 0, seen.payload()[2], 7, 7, 7]));
}

/// The same of VP9 by its payload descriptor: non-flexible mode, three sizes, three rates.
fn vp9_picture(source: &mut Source, at: usize, key: bool, key_only: bool) -> Vec<Vec<u8>> {
    let temporal = if key { 0 } else { PATTERN[at % 4] };
    source.picture = source.picture.wrapping_add(1) & 0x7fff;
    source.tl0 = source.tl0.wrapping_add(u8::from(temporal == 0));
    let mut packets = Vec::new();
    for spatial in 0..3u8 {
        for part in 0..2 {
            let alone = key_only && !key && spatial < 2;
            let flags = 0xa0
                | u8::from(!key) << 6
                | u8::from(part == 0) << 3
                | u8::from(part == 1) << 2
                | u8::from(key && spatial == 0 && part == 0) << 1
                | u8::from(alone);
            let id = (source.picture | 0x8000).to_be_bytes();
            // Up at T0 pictures, and from T2 that follow T0: the pattern refers to T0 and T1 alone.
            let up = u8::from(temporal == 0);
            let upon = u8::from(spatial > 0 && (key || !key_only));
            let layer = temporal << 5 | up << 4 | spatial << 1 | upon;
            let mut payload = vec![flags, id[0], id[1], layer, source.tl0];
            if key && spatial == 0 && part == 0 {
                payload.push(2 << 5);
            }
            payload.extend([spatial, temporal, 9, 9]);
            packets.push(packet(source, spatial == 2 && part == 1, &[], &payload));
        }
    }
    source.timestamp = source.timestamp.wrapping_add(3_000);
    packets
}

fn vp9_switches(key_only: bool) {
    let mut story = Story::new();
    story.publish(1, ALICE, stream("VP9", 0));
    story.subscribe(1, BOB, sink("VP9", 0), 1);
    let mut source = Source::new(1_000, 45, 65_300);
    let (mut at, mut key, mut bob) = (0, true, Vec::new());
    let mut asked = 0;
    let mut play = |story: &mut Story, pictures: usize| {
        for _ in 0..pictures {
            let now = key && at % 4 == 0;
            for packet in vp9_picture(&mut source, at, now, key_only) {
                story.rtp(ALICE, &packet);
            }
            key &= !now;
            at += 1;
            story.pass(33);
            let plis = story.plis(ALICE).len();
            asked += plis;
            key |= plis > 0;
            bob.extend(story.seen(BOB));
        }
    };
    play(&mut story, 40);
    for (layer, fps) in wishes() {
        story.layer(1, layer, false);
        frame_rate(&mut story, 1, fps);
        play(&mut story, 13);
    }
    assert_gapless(&bob);
    assert_markers(&bob);
    let mut seen_sizes = HashSet::new();
    let mut before = None;
    for picture in bob.chunk_by(|a, b| a.header.timestamp == b.header.timestamp) {
        let found: Vec<_> = picture
            .iter()
            .map(|seen| vp9::Descriptor::parse(seen.payload()).expect("VP9"))
            .collect();
        let is_key = !found[0].inter;
        let mut sizes: Vec<_> = found.iter().map(|found| found.spatial).collect();
        sizes.dedup();
        let top = *sizes.last().expect("a packet");
        seen_sizes.insert((top, found[0].temporal));
        assert!(is_key || before.is_some_and(|size| top == size || top < size && !key_only));
        before = Some(top);
        let expected: Vec<u8> = if key_only && !is_key {
            vec![top]
        } else {
            (0..=top).collect()
        };
        assert_eq!(
            sizes, expected,
            "a picture in one size, with what that size stands on"
        );
    }
    assert_eq!(seen_sizes.len(), 9);
    // Picture ids are the publisher's, moved by a constant: they tell what refers to what.
    let ids = |seen: &Seen| {
        vp9::Descriptor::parse(seen.payload())
            .expect("VP9")
            .ids
            .picture
    };
    for pair in bob.windows(2) {
        let pictures = pair[1]
            .header
            .timestamp
            .wrapping_sub(pair[0].header.timestamp)
            / 3_000;
        assert_eq!(
            u32::from(ids(&pair[1]).wrapping_sub(ids(&pair[0])) & 0x7fff),
            pictures
        );
    }
    assert!(asked > if key_only { 20 } else { 5 }, "{asked}");
}

#[test]
fn a_hundred_switches_of_vp9_by_its_payload_descriptor() {
    vp9_switches(false);
}

#[test]
fn a_hundred_switches_of_vp9_whose_sizes_meet_at_key_pictures() {
    vp9_switches(true);
}

/// A link that carries the middle size takes the rate down before the size.
#[test]
fn the_steps_of_one_stream_have_rates_of_their_own() {
    let mut story = Story::new();
    story.publish(1, ALICE, stream("AV1", DEPENDENCY));
    story.subscribe(1, BOB, sink("AV1", 9), 1);
    let mut alice = Av1::new(full_svc());
    for index in 0..90 {
        for packet in alice.picture(index == 0) {
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
    }
    let publication = story
        .router
        .publications
        .iter()
        .flatten()
        .next()
        .expect("one");
    let rates: Vec<_> = (0..9).map(|step| publication.measured_bps(step)).collect();
    assert_eq!(publication.live_steps(), 0b1_1111_1111);
    for size in 0..3 {
        let own = &rates[3 * size..3 * size + 3];
        assert!(
            own[0] * 3 / 2 < own[1] && own[1] * 3 / 2 < own[2],
            "{rates:?}"
        );
    }
    assert!(
        rates[2] * 3 / 2 < rates[5] && rates[5] * 5 / 4 < rates[8],
        "{rates:?}"
    );
    assert_eq!(story.publication(1).layers, 3);
    let firsts = story
        .record
        .events
        .iter()
        .filter(|event| matches!(event, Event::FirstPacket(..)));
    assert_eq!(firsts.count(), 3, "each size is told");
}
