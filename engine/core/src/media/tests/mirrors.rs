//! Two routers joined by hand: what a subscriber in another shard gets is what it would get at home.

use proptest::prelude::*;

use crate::shard::{handle, Shard};

use super::*;

/// Alice's tracks, at home in shard 0.
const CAMERA: u64 = handle(5, 0);
const MICROPHONE: u64 = handle(6, 0);

/// Alice is at home in one shard, Bob and Carol in the other. Or all of them in one.
struct Pair {
    shards: Vec<Story>,
    /// Every so manyth packet between shards is lost.
    loses: Option<u64>,
    passed: u64,
}

impl Pair {
    fn new() -> Self {
        let mut shards = vec![Story::new(), Story::new()];
        for (own, story) in (0..).zip(&mut shards) {
            story.router.set_shard(Shard { own, count: 2 });
        }
        Self {
            shards,
            loses: None,
            passed: 0,
        }
    }

    fn together() -> Self {
        Self {
            shards: vec![Story::new()],
            loses: None,
            passed: 0,
        }
    }

    fn alice(&mut self) -> &mut Story {
        &mut self.shards[0]
    }

    fn bob(&mut self) -> &mut Story {
        self.shards.last_mut().expect("one at least")
    }

    /// Everything between the shards arrives.
    fn deliver(&mut self) {
        while self
            .shards
            .iter()
            .any(|story| !story.record.abroad.is_empty())
        {
            for from in 0..self.shards.len() {
                for (to, message) in std::mem::take(&mut self.shards[from].record.abroad) {
                    self.arrive(from as u8, to, message);
                }
            }
            for story in &mut self.shards {
                story.router.release(story.now, &mut story.record);
            }
        }
    }

    fn arrive(&mut self, from: u8, to: u8, message: Abroad) {
        assert_ne!(from, to);
        let story = &mut self.shards[usize::from(to)];
        let (router, record) = (&mut story.router, &mut story.record);
        record.now = Some(story.now);
        match message {
            Abroad::Packet(packet, bytes) => {
                self.passed += 1;
                if self.loses.is_none_or(|each| self.passed % each != 0) {
                    router.relayed(&packet, &bytes, story.now, record);
                }
            }
            Abroad::Notice(notice) => router.noticed(from, notice, story.now, record),
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            for story in &mut self.shards {
                story.pass(1);
            }
            self.deliver();
        }
    }

    fn send(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.alice().rtp(ALICE, packet);
        }
        self.deliver();
    }

    /// 30 pictures a second; a key frame whenever Alice is asked for one. How often she was.
    fn film(&mut self, source: &mut Source, frames: usize) -> usize {
        let mut asked = 0;
        for _ in 0..frames {
            let is_asked = !self.alice().plis(ALICE).is_empty();
            asked += usize::from(is_asked);
            self.send(&source.frame(is_asked, 3));
            self.pass(33);
        }
        asked
    }
}

/// What does not depend on where the numbers began.
fn essence(seen: &[Seen]) -> Vec<(u16, u32, bool, u8, u16, Vec<u8>)> {
    let first = &seen[0];
    let picture = first.vp8().picture;
    seen.iter()
        .map(|one| {
            (
                one.header.sequence.wrapping_sub(first.header.sequence),
                one.header.timestamp.wrapping_sub(first.header.timestamp),
                one.header.marker,
                one.header.payload_type,
                one.vp8().picture.wrapping_sub(picture) & 0x7fff,
                one.payload()[5..].to_vec(),
            )
        })
        .collect()
}

/// Joins, leaves and layers, with losses on Alice's way to us: the same story wherever Bob is at home.
fn played(mut pair: Pair) -> (Vec<Seen>, Vec<Seen>) {
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 65_500);
    let mut asked = pair.film(&mut source, 20);
    pair.bob().subscribe(71, CAROL, screen(87), CAMERA);
    pair.deliver();
    asked += pair.film(&mut source, 40);
    assert!(asked >= 1, "somebody begins, so somebody asks");
    // One packet comes late, one never.
    let mut frame = source.frame(false, 6);
    frame.swap(1, 3);
    frame.remove(4);
    pair.send(&frame);
    pair.film(&mut source, 20);
    assert!(!pair.alice().nacked(ALICE).is_empty(), "repair is wanted");
    let (bob, carol) = (pair.bob().seen(BOB), pair.bob().seen(CAROL));
    (bob, carol)
}

#[test]
fn what_arrives_is_the_same_as_at_home() {
    let (bob, carol) = played(Pair::new());
    let (bob_at_home, carol_at_home) = played(Pair::together());
    assert!(bob.len() > 200);
    assert_eq!(essence(&bob), essence(&bob_at_home));
    assert_eq!(essence(&carol), essence(&carol_at_home));
}

#[test]
fn one_copy_crosses_however_many_listen() {
    let mut pair = Pair::new();
    pair.alice().publish(MICROPHONE, ALICE, microphone());
    pair.bob().subscribe(70, BOB, speaker(77), MICROPHONE);
    pair.bob().subscribe(71, CAROL, speaker(87), MICROPHONE);
    pair.deliver();
    let mut source = Source::new(2_000, 111, 7);
    for _ in 0..50 {
        let packet = source.sound();
        pair.send(&[packet]);
        pair.pass(20);
    }
    assert_eq!(pair.passed, 50);
    for who in [BOB, CAROL] {
        let seen = pair.bob().seen(who);
        assert_eq!(seen.len(), 50);
        assert_continuous(&seen);
    }
    // Nothing crosses for nobody.
    pair.bob().source(70, None);
    pair.bob().source(71, None);
    pair.deliver();
    pair.send(&[source.sound()]);
    assert_eq!(pair.passed, 50);
    assert_eq!(pair.bob().router.statistics().publications, []);
}

#[test]
fn a_mirrors_wish_for_a_key_frame_reaches_the_publisher_in_its_measure() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 30);
    pair.bob().seen(BOB);
    pair.alice().plis(ALICE);
    // Bob asks fifty times within a second and a half.
    for _ in 0..50 {
        pair.bob().rtcp(BOB, |builder| {
            builder.receiver_report(9, &[]);
            builder.pli(9, 77);
        });
        pair.deliver();
        pair.pass(30);
    }
    let asked = pair.alice().plis(ALICE);
    assert!((2..=4).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|(_, ssrc)| *ssrc == 1_000));
}

/// As at home: the publisher was asked a moment ago and is not asked again.
#[test]
fn who_joins_in_another_shard_begins_at_the_last_key_frame() {
    begins_at_the_last_key_frame(&[1]);
}

/// Also when the publisher's numbers started over once.
#[test]
fn who_joins_in_another_shard_after_a_restart_does_too() {
    begins_at_the_last_key_frame(&[1, 40_000]);
}

fn begins_at_the_last_key_frame(lives: &[u16]) {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.alice().subscribe(60, CAROL, screen(97), CAMERA); // somebody at home
    let mut source = Source::new(1_000, 96, 1);
    for sequence in lives {
        source.sequence = *sequence;
        pair.film(&mut source, 30);
    }
    pair.send(&source.frame(true, 3));
    pair.pass(33);
    for _ in 0..8 {
        pair.send(&source.frame(false, 3));
        pair.pass(33);
    }
    pair.alice().plis(ALICE);
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    assert!(pair.bob().seen(BOB).len() <= 3, "paced, not in one burst");
    let mut seen = Vec::new();
    for _ in 0..20 {
        pair.send(&source.frame(false, 3));
        pair.pass(33);
        seen.extend(pair.bob().seen(BOB));
    }
    assert!(pair.alice().plis(ALICE).is_empty());
    assert!(seen.len() >= 27 + 60 - 3, "{}", seen.len());
    assert_continuous(&seen);
    assert_pictures(&seen);
}

#[test]
fn what_is_lost_behind_the_mirror_comes_from_its_cache() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 10);
    let seen = pair.bob().seen(BOB);
    let lost = &seen[5];
    pair.bob().rtcp(BOB, |builder| {
        builder.receiver_report(9, &[]);
        builder.nack(9, 77, &[lost.header.sequence]);
    });
    let again = pair.bob().seen(BOB);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].header.ssrc, 78);
    assert_eq!(again[0].payload()[2..], *lost.payload());
    assert!(pair.alice().nacked(ALICE).is_empty());
}

#[test]
fn layers_switch_and_fall_back_across_shards() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, simulcast());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut layers: Vec<_> = ["q", "h", "f"]
        .iter()
        .zip(0u32..)
        .map(|(rid, index)| {
            let mut source = Source::new(3_000 + index, 96, 100);
            (source.mid, source.rid) = ("0", *rid);
            source
        })
        .collect();
    let mut film = |pair: &mut Pair, live: usize, frames: usize| {
        for _ in 0..frames {
            let asked: Vec<_> = pair.alice().plis(ALICE).iter().map(|(_, s)| *s).collect();
            for source in &mut layers[..live] {
                let frame = source.frame(asked.contains(&source.ssrc), 2);
                pair.send(&frame);
            }
            pair.pass(33);
        }
    };
    let tag = |seen: &[Seen]| {
        seen.last()
            .map(|last| *last.payload().last().expect("bytes"))
    };
    film(&mut pair, 3, 60);
    let seen = pair.bob().seen(BOB);
    assert_eq!(tag(&seen), Some(3_002u32 as u8));
    pair.bob().layer(70, 0, false);
    pair.deliver();
    film(&mut pair, 3, 30);
    let low = pair.bob().seen(BOB);
    assert_eq!(tag(&low), Some(3_000u32 as u8));
    pair.bob().layer(70, 2, false);
    pair.deliver();
    film(&mut pair, 3, 30);
    film(&mut pair, 2, 90); // the highest stops
    let rest = pair.bob().seen(BOB);
    assert_eq!(tag(&rest), Some(3_001u32 as u8));
    assert_continuous(&[seen, low, rest].concat());
}

#[test]
fn a_closed_gate_is_closed_for_all_and_opens_at_a_key_frame() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 20);
    assert!(!pair.bob().seen(BOB).is_empty());
    pair.alice().router.set_gate(PublicationId(CAMERA), false);
    let passed = pair.passed;
    assert_eq!(pair.film(&mut source, 20), 0);
    assert_eq!(pair.passed, passed, "the very next packet is dropped");
    assert!(pair.bob().seen(BOB).is_empty());
    pair.alice().router.set_gate(PublicationId(CAMERA), true);
    assert!(pair.film(&mut source, 20) >= 1);
    let seen = pair.bob().seen(BOB);
    assert!(seen[0].vp8().key);
    assert_continuous(&seen);
}

#[test]
fn the_loudest_are_ranked_among_mirrors_and_those_at_home() {
    let carols = handle(7, 1);
    let mut pair = Pair::new();
    pair.alice().publish(MICROPHONE, ALICE, microphone());
    pair.bob().publish(carols, CAROL, microphone());
    pair.bob().subscribe(70, BOB, speaker(77), MICROPHONE);
    pair.bob().subscribe(71, BOB, speaker(78), carols);
    pair.deliver();
    for story in &mut pair.shards {
        story.router.set_loudest(GROUP, 1, None);
    }
    let mut voices = [Source::new(2_000, 111, 1), Source::new(2_000, 111, 1)];
    for (loud, wanted) in [(0, 77), (1, 78), (0, 77)] {
        for turn in 0..50 {
            for (index, voice) in voices.iter_mut().enumerate() {
                voice.level = 0x80 | if index == loud { 20 } else { 60 };
            }
            let [alices, carols] = &mut voices;
            let (from_alice, from_carol) = (alices.sound(), carols.sound());
            pair.send(&[from_alice]);
            pair.bob().rtp(CAROL, &from_carol);
            pair.pass(20);
            let seen = pair.bob().seen(BOB);
            if turn >= 25 {
                assert!(seen.iter().all(|seen| seen.header.ssrc == wanted));
                assert_eq!(seen.len(), 1, "turn {turn}");
            }
        }
    }
}

#[test]
fn the_end_crosses_and_so_does_a_beginning_that_was_awaited() {
    let mut pair = Pair::new();
    pair.bob().subscribe(70, BOB, screen(77), CAMERA); // before Alice's shard knows of it
    pair.deliver();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.pass(1);
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 10);
    assert!(!pair.bob().seen(BOB).is_empty());
    let story = pair.alice();
    story
        .router
        .unpublish(PublicationId(CAMERA), story.now, &mut story.record);
    pair.deliver();
    assert_eq!(pair.film(&mut source, 5), 0);
    assert!(pair.bob().seen(BOB).is_empty());
    pair.bob().source(70, None);
    pair.deliver();
    let story = pair.alice();
    story
        .router
        .remove_transport(ALICE, story.now, &mut story.record);
    pair.deliver();
    for story in &pair.shards {
        assert!(story.router.neighbours.is_idle());
    }
}

#[test]
fn a_renegotiation_and_a_new_sender_reach_the_mirror() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 10);
    let mut stream = camera();
    stream.codecs = vec![opus(111), vp8(120, None)]; // nonsense before it: the index moves
    pair.alice()
        .router
        .update_publication(PublicationId(CAMERA), stream);
    source.payload_type = 120;
    pair.film(&mut source, 20);
    let mut other = Source::new(5_000, 120, 9_000);
    other.mid = "0";
    pair.pass(1_500); // Alice's first camera is silent
    pair.film(&mut other, 40);
    let seen = pair.bob().seen(BOB);
    assert_eq!(
        seen.last().map(|one| *one.payload().last().expect("bytes")),
        Some(5_000u32 as u8)
    );
    assert!(seen.iter().all(|one| one.header.payload_type == 100));
    assert_continuous(&seen);
}

#[test]
fn packets_lost_between_shards_cost_no_more_than_lost_packets() {
    let mut pair = Pair::new();
    pair.alice().publish(CAMERA, ALICE, camera());
    pair.bob().subscribe(70, BOB, screen(77), CAMERA);
    pair.deliver();
    let mut source = Source::new(1_000, 96, 1);
    pair.film(&mut source, 10);
    pair.loses = Some(10);
    pair.film(&mut source, 100);
    pair.loses = None;
    let seen = pair.bob().seen(BOB);
    let missing = u64::from(seen[seen.len() - 1].header.sequence - seen[0].header.sequence) + 1
        - seen.len() as u64;
    assert!((25..=35).contains(&missing), "{missing} of 330");
    pair.bob().rtcp(BOB, |builder| {
        builder.receiver_report(9, &[]);
        builder.pli(9, 77);
    });
    pair.deliver();
    assert!(pair.film(&mut source, 20) >= 1);
    assert!(pair.bob().seen(BOB).iter().any(|one| one.vp8().key));
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u64),
    Unpublish(u64),
    Source(usize, u64, Option<u64>),
    Gate(u64, bool),
    Layer(usize, u64, u8, bool),
    Leave(usize),
    Send(u64, bool),
    Pass(u64),
    Deliver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let track = || 0u64..2;
    prop_oneof![
        2 => track().prop_map(Step::Publish),
        1 => track().prop_map(Step::Unpublish),
        4 => (0usize..2, 0u64..3, prop::option::weighted(0.8, track()))
            .prop_map(|(shard, sub, track)| Step::Source(shard, sub, track)),
        1 => (track(), any::<bool>()).prop_map(|(track, open)| Step::Gate(track, open)),
        1 => (0usize..2, 0u64..3, 0u8..3, any::<bool>())
            .prop_map(|(shard, sub, max, paused)| Step::Layer(shard, sub, max, paused)),
        1 => (0usize..2).prop_map(Step::Leave),
        6 => (track(), any::<bool>()).prop_map(|(track, key)| Step::Send(track, key)),
        3 => (1u64..400).prop_map(Step::Pass),
        2 => Just(Step::Deliver),
    ]
}

/// Streams of shard `shard`: three pictures for Bob.
fn join(pair: &mut Pair, shard: usize) {
    for sub in 0..3 {
        let ssrc = 77 + 10 * sub as u32;
        let id = SubscriptionId(70 + sub);
        let added = pair.shards[shard].router.subscribe(id, BOB, screen(ssrc));
        added.expect("valid");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever happens in whatever order: nothing breaks, and once all is delivered each shard has exactly the
    /// mirrors that its subscribers need, and the owner knows it.
    #[test]
    fn mirrors_are_where_subscribers_are(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut pair = Pair::new();
        let tracks = [CAMERA, CAMERA + 64];
        let mut sources = [Source::new(1_000, 96, 1), Source::new(1_500, 96, 1)];
        let mut published = [false; 2];
        join(&mut pair, 0);
        join(&mut pair, 1);
        for step in steps {
            match step {
                Step::Publish(track) => {
                    let at = track as usize;
                    if !published[at] {
                        let mut stream = camera();
                        stream.ssrcs = vec![(sources[at].ssrc, 0)];
                        stream.mid = track.to_string();
                        pair.alice().publish(tracks[at], ALICE, stream);
                        published[at] = true;
                    }
                }
                Step::Unpublish(track) => {
                    // A handle is never used again: whoever carried it is told to carry nothing.
                    let at = track as usize;
                    let story = pair.alice();
                    story.router.unpublish(PublicationId(tracks[at]), story.now, &mut story.record);
                    published[at] = false;
                }
                Step::Source(shard, sub, track) => {
                    let source = track.map(|track| tracks[track as usize]);
                    pair.shards[shard].source(70 + sub, source);
                }
                Step::Gate(track, open) => {
                    pair.alice().router.set_gate(PublicationId(tracks[track as usize]), open);
                }
                Step::Layer(shard, sub, max, paused) => pair.shards[shard].layer(70 + sub, max, paused),
                Step::Leave(shard) => {
                    let story = &mut pair.shards[shard];
                    story.router.remove_transport(BOB, story.now, &mut story.record);
                    story.router.add_transport(BOB);
                    join(&mut pair, shard);
                }
                Step::Send(track, key) => {
                    for packet in sources[track as usize].frame(key, 2) {
                        pair.alice().rtp(ALICE, &packet);
                    }
                }
                Step::Pass(ms) => {
                    for story in &mut pair.shards {
                        story.pass(ms);
                    }
                }
                Step::Deliver => pair.deliver(),
            }
        }
        pair.pass(2);
        for (track, is_published) in tracks.into_iter().zip(published) {
            let id = PublicationId(track);
            let carried = pair.shards[1].router.is_mirrored(id);
            let (attached, awaited) = pair.shards[0].router.knows_subscribers_in(id, 1);
            prop_assert_eq!(carried, attached);
            prop_assert!(!(attached && awaited));
            prop_assert!(is_published || !carried);
            prop_assert_eq!(awaited, pair.shards[1].router.waits_for(id));
        }
    }
}
