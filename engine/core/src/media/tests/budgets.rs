//! What a narrow link or a budget holds back, for how long, and that it comes back.

use super::*;

const PICTURES: u64 = 1;
const OTHERS: u64 = 2;
/// Far less than any picture.
const NEXT_TO_NOTHING_BPS: u64 = 10_000;
/// Not quite as much as one camera sends.
const A_LITTLE_LESS_BPS: u64 = 400_000;
/// Every layer is wanted.
const ALL: u8 = 255;

/// Alice's camera, about 420 kbit/s of one packet each 20 ms, for Bob; another one for whoever wants it.
struct Room {
    story: Story,
    cameras: [Source; 2],
}

impl Room {
    fn new() -> Self {
        let mut story = Story::new();
        let other = ReceiveStream {
            mid: "2".into(),
            ssrcs: vec![(3_000, 3_001)],
            ..camera()
        };
        story.publish(PICTURES, ALICE, camera());
        story.publish(OTHERS, ALICE, other);
        story.subscribe(PICTURES, BOB, screen(20), PICTURES);
        let camera = |ssrc| Source {
            tail: 1_000,
            ..Source::new(ssrc, 96, 1)
        };
        let mut room = Self {
            story,
            cameras: [1_000, 3_000].map(camera),
        };
        room.run(4_000);
        room.seen();
        room
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            let asked = self.story.plis(ALICE);
            for camera in &mut self.cameras {
                let is_key = asked.iter().any(|(_, ssrc)| *ssrc == camera.ssrc);
                for packet in camera.frame(is_key, 1) {
                    self.story.rtp(ALICE, &packet);
                }
            }
            self.story.pass(20);
        }
    }

    fn budget(&mut self, bps: u64) {
        self.story.router.set_budget(BOB, bps);
    }

    /// Packets of Bob's since the last call, by stream.
    fn seen(&mut self) -> [usize; 2] {
        let seen = self.story.seen(BOB);
        [20, 30].map(|ssrc| seen.iter().filter(|one| one.header.ssrc == ssrc).count())
    }
}

#[test]
fn a_picture_that_was_hidden_while_there_was_no_room_comes_back_when_there_is() {
    let mut room = Room::new();
    room.budget(NEXT_TO_NOTHING_BPS);
    room.run(3_000);
    room.seen();
    room.run(1_000);
    assert_eq!(room.seen(), [0, 0], "no room");
    room.story.layer(PICTURES, ALL, true);
    room.run(1_000);
    room.budget(0);
    room.run(1_000);
    room.story.layer(PICTURES, ALL, false);
    room.run(3_000);
    let [pictures, _] = room.seen();
    assert!(pictures > 50, "{pictures}");
}

#[test]
fn each_time_it_is_too_narrow_the_picture_has_a_breath() {
    let mut room = Room::new();
    for _ in 0..2 {
        room.budget(A_LITTLE_LESS_BPS);
        room.run(1_000);
        let paused = |event: &Event| matches!(event, Event::Paused(_));
        assert!(!room.story.record.events.iter().any(paused));
        room.budget(0);
        room.run(20_000);
    }
}

#[test]
fn pictures_are_not_paced_by_a_budget_that_was_lifted() {
    let mut room = Room::new();
    room.budget(NEXT_TO_NOTHING_BPS);
    room.run(1_000);
    room.budget(0);
    room.run(1_000);
    room.seen();
    room.run(4_000);
    let [pictures, _] = room.seen();
    assert_eq!(pictures, 200);
}

#[test]
fn a_picture_that_is_added_on_a_narrow_link_is_paced_too() {
    let mut room = Room::new();
    room.budget(480_000);
    room.run(300);
    room.story.subscribe(OTHERS, BOB, screen(30), OTHERS);
    room.run(600);
    room.story.pass(100);
    room.seen();
    for packet in room.cameras[1].frame(false, 20) {
        room.story.rtp_in_batch(ALICE, &packet);
    }
    room.story
        .router
        .release(room.story.now, &mut room.story.record);
    let [_, at_once] = room.seen();
    assert!(at_once < 5, "{at_once}");
    room.story.pass(400);
    let [_, later] = room.seen();
    assert_eq!(at_once + later, 20);
}

#[test]
fn whoever_waited_too_long_while_the_limit_went_is_not_paced_for_ever() {
    let mut room = Room::new();
    room.budget(480_000);
    room.run(300);
    for packet in room.cameras[0].frame(false, 20) {
        room.story.rtp(ALICE, &packet);
    }
    let is_paced = |room: &Room| room.story.router.egress[0].paced;
    assert!(is_paced(&room));
    // The limit is gone; then the thread stands still, and what waits is too old.
    let slot = room.story.router.egress[0].transport;
    room.story.router.pace(slot, None);
    room.budget(0);
    room.story.now = room.story.now.plus_ms(600);
    room.story.pass(100);
    assert!(!is_paced(&room));
}

#[test]
fn a_first_remb_late_in_a_call_is_compared_with_what_is_sent_now() {
    let mut room = Room::new();
    room.run(60_000);
    for _ in 0..4 {
        room.story.rtcp(BOB, |builder| {
            builder.receiver_report(1, &[]);
            builder.remb(1, 1_500_000, &[20]);
        });
        room.run(1_000);
    }
    let all = room.story.router.statistics().transports;
    let (_, bob) = all.iter().find(|(id, _)| *id == BOB).expect("there");
    assert!(bob.estimate_bps >= 2_000_000, "{}", bob.estimate_bps);
}
