//! Less video when the CPU is short: who keeps what, what people are told, and that it all comes back (R11).

use super::*;

const VIEWERS: u64 = 6;
const FIRST: u64 = 0;
const VIDEO: u64 = 10;
const SOUND: u64 = 50;
/// Of the layers as they are sent here, payload and headers, with some room.
const LOWEST_BPS: u64 = 450_000;

fn viewer(at: u64) -> TransportId {
    TransportId(100 + at)
}

/// Three sizes and a voice for six viewers, the first of whom has pinned the picture.
struct Room {
    story: Story,
    layers: Vec<Source>,
    voice: Source,
}

impl Room {
    fn new() -> Self {
        let mut story = Story::new();
        let stream = ReceiveStream {
            ssrcs: vec![(1, 0), (2, 0), (3, 0)],
            ..camera()
        };
        story.publish(1, ALICE, stream);
        story.publish(2, ALICE, microphone());
        for at in 0..VIEWERS {
            let to = viewer(at);
            story.router.add_transport(to);
            story.subscribe(VIDEO + at, to, screen(20), 1);
            story.subscribe(SOUND + at, to, speaker(60), 2);
            let priority = u8::from(at == FIRST) * 9;
            let id = SubscriptionId(VIDEO + at);
            story.router.set_priority(id, priority);
        }
        let layers = (1..=3).map(|ssrc| Source {
            tail: 1_000,
            ..Source::new(ssrc, 96, 1)
        });
        let mut room = Self {
            story,
            layers: layers.collect(),
            voice: Source::new(2_000, 111, 1),
        };
        room.run(4_000);
        assert_eq!(room.sizes(), [3; VIEWERS as usize]);
        room.forget();
        room
    }

    /// The publisher answers each request for a key frame with its next frame.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            let asked = self.story.plis(ALICE);
            for (layer, packets) in self.layers.iter_mut().zip([1, 2, 4]) {
                let is_key = asked.iter().any(|(_, ssrc)| *ssrc == layer.ssrc);
                for packet in layer.frame(is_key, packets) {
                    self.story.rtp(ALICE, &packet);
                }
            }
            let packet = self.voice.sound();
            self.story.rtp(ALICE, &packet);
            self.story.pass(20);
        }
    }

    fn allot(&mut self, budget_bps: Option<u64>) {
        let Story {
            router,
            record,
            now,
        } = &mut self.story;
        router.allot(budget_bps, *now, record);
    }

    /// What each viewer gets, 0 = no picture.
    fn sizes(&self) -> [u64; VIEWERS as usize] {
        std::array::from_fn(|at| self.story.subscription(VIDEO + at as u64).layer)
    }

    fn forget(&mut self) {
        self.story.record.rtp.clear();
        self.story.record.events.clear();
    }

    /// Told since the last call: (paused, resumed), by viewer.
    fn told(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut paused, mut resumed) = (Vec::new(), Vec::new());
        for event in self.story.record.events.drain(..) {
            match event {
                Event::Paused(id) => paused.push(id.0 - VIDEO),
                Event::Resumed(id) => resumed.push(id.0 - VIDEO),
                _ => {}
            }
        }
        paused.sort_unstable();
        resumed.sort_unstable();
        (paused, resumed)
    }

    /// Everybody's numbers go on by one, and of the voice so many packets came.
    fn assert_whole(&mut self, voice_packets: usize) {
        for at in 0..VIEWERS {
            let seen = self.story.seen(viewer(at));
            let (sound, pictures): (Vec<_>, Vec<_>) =
                seen.into_iter().partition(|one| one.header.ssrc == 60);
            assert_continuous(&pictures);
            assert_continuous(&sound);
            assert_eq!(sound.len(), voice_packets);
        }
    }
}

#[test]
fn high_layers_go_first_but_for_the_pinned_one() {
    let mut room = Room::new();
    // As measured: four packets of the highest layer to one of the lowest. What somebody has counts for a little less.
    let top_bps = room.story.router.flow().wanted_bps / VIEWERS;
    let lowest_bps = top_bps / 4;
    let needed_bps = top_bps + (VIEWERS - 1) * lowest_bps;
    room.allot(Some(needed_bps));
    room.run(2_000);
    assert_eq!(room.sizes(), [3, 1, 1, 1, 1, 1]);
    assert_eq!(room.told(), (vec![], vec![]), "everybody has a picture");
    let flow = room.story.router.flow();
    assert_eq!(flow.flowing_bps, flow.granted_bps);
    assert!(flow.wanted_bps > 2 * flow.flowing_bps, "{flow:?}");
    assert!(room.story.subscription(VIDEO + 1).limited);
    assert_eq!(room.story.router.shed_streams(), (0, 5));
    room.assert_whole(100);
}

#[test]
fn then_pictures_and_people_are_told_sound_goes_on() {
    let mut room = Room::new();
    room.allot(Some(2 * LOWEST_BPS));
    room.run(1_000);
    assert_eq!(room.sizes(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(room.told(), (vec![2, 3, 4, 5], vec![]));
    room.allot(Some(0));
    room.run(1_000);
    assert_eq!(room.sizes(), [0; VIEWERS as usize]);
    assert_eq!(room.told(), (vec![0, 1], vec![]));
    room.allot(None);
    room.run(2_000);
    assert_eq!(room.sizes(), [3; VIEWERS as usize]);
    assert_eq!(room.told(), (vec![], (0..VIEWERS).collect()));
    assert!(!room.story.subscription(VIDEO).limited);
    assert_eq!(room.story.router.shed_streams(), (0, 0));
    room.assert_whole(200);
}

/// What is too much stops with the order, not with the key frame of a lower layer, which may be far.
#[test]
fn less_is_less_at_once() {
    let mut room = Room::new();
    room.allot(Some(VIEWERS * LOWEST_BPS));
    let flow = room.story.router.flow();
    assert_eq!(flow.flowing_bps, 0);
    assert!(flow.granted_bps > 0);
}

#[test]
fn a_brake_stops_all_video_and_tells_nobody() {
    let mut room = Room::new();
    room.story.router.brake();
    room.run(200);
    assert_eq!(room.sizes(), [0; VIEWERS as usize]);
    for at in 0..VIEWERS {
        let seen = room.story.seen(viewer(at));
        assert!(seen.iter().all(|one| one.header.ssrc == 60));
        assert_eq!(seen.len(), 10);
    }
    // What would start it otherwise does not.
    room.story.layer(VIDEO, 2, false);
    room.run(1_200);
    assert_eq!(room.sizes(), [0; VIEWERS as usize]);
    room.allot(None);
    room.run(1_000);
    assert_eq!(room.sizes(), [3; VIEWERS as usize]);
    assert_eq!(room.told(), (vec![], vec![]));
}

#[test]
fn what_is_held_back_stays_so_after_a_renegotiation() {
    let mut room = Room::new();
    room.allot(Some(0));
    room.run(200);
    assert_eq!(room.sizes(), [0; VIEWERS as usize]);
    room.forget();
    let mut stream = ReceiveStream {
        ssrcs: vec![(1, 0), (2, 0), (3, 0)],
        ..camera()
    };
    stream.extensions.playout_delay = 12;
    let id = PublicationId(1);
    room.story.router.update_publication(id, stream);
    room.run(400);
    let all = &room.story.record.rtp;
    assert!(all.iter().all(|one| one.header.ssrc == 60), "sound only");
    room.allot(None);
    room.run(1_000);
    assert_eq!(room.sizes(), [3; VIEWERS as usize]);
}

/// A wish, a link and the CPU: each may pause a picture, and all must agree that it goes on.
#[test]
fn what_the_subscriber_paused_is_not_told() {
    let mut room = Room::new();
    room.story.layer(VIDEO + 1, 2, true);
    room.allot(Some(0));
    assert_eq!(room.told().0, vec![0, 2, 3, 4, 5]);
    room.story.layer(VIDEO + 1, 2, false);
    room.allot(Some(0));
    assert_eq!(room.told().0, vec![1]);
    room.allot(None);
    assert_eq!(room.told().1, (0..VIEWERS).collect::<Vec<_>>());
}

#[test]
fn last_of_all_only_the_loudest_are_heard() {
    let mut story = Story::new();
    let mut voices = Vec::new();
    for id in 1..=6 {
        let from = TransportId(1_000 + id);
        story.router.add_transport(from);
        let ssrc = 3_000 + id as u32;
        let stream = ReceiveStream {
            ssrcs: vec![(ssrc, 0)],
            ..microphone()
        };
        story.publish(id, from, stream);
        story.subscribe(SOUND + id, BOB, speaker(500 + id as u32), id);
        let mut voice = Source::new(ssrc, 111, 1);
        voice.level = 0x80 | (10 * id as u8);
        voices.push(voice);
    }
    let mut run = |story: &mut Story| {
        for _ in 0..50 {
            for (voice, id) in voices.iter_mut().zip(1..) {
                let packet = voice.sound();
                story.rtp(TransportId(1_000 + id), &packet);
            }
            story.pass(20);
        }
        story.seen(BOB)
    };
    let mut all = run(&mut story);
    assert_eq!(all.len(), 300);
    story.router.hush(true);
    let hushed = run(&mut story);
    assert_eq!(hushed.len(), 150);
    assert!(hushed.iter().all(|seen| seen.header.ssrc <= 503));
    story.router.limit_voices(GROUP, 0, None); // the policy has no limit: that one stays
    assert_eq!(run(&mut story).len(), 150);
    story.router.hush(false);
    let after = run(&mut story);
    assert_eq!(after.len(), 300);
    // Nothing looks lost to those who were left out.
    all.extend(after);
    let quiet: Vec<_> = all
        .into_iter()
        .filter(|seen| seen.header.ssrc == 506)
        .collect();
    assert_continuous(&quiet);
}

/// The brake stops what is muted too, and nothing of it is divided until it is unmuted.
#[test]
fn a_camera_that_was_muted_during_a_brake_is_seen_again() {
    let mut room = Room::new();
    let camera = PublicationId(1);
    room.story.router.set_gate(camera, false);
    room.run(500);
    room.story.router.brake();
    room.run(200);
    room.allot(Some(100_000_000));
    room.run(1_000);
    room.allot(None);
    room.run(1_000);
    room.story.router.set_gate(camera, true);
    room.run(2_000);
    assert_eq!(room.sizes(), [3; VIEWERS as usize]);
}
