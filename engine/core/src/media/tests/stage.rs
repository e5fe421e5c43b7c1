//! Only the loudest are forwarded: who is on stage, and that nobody notices the others leave.

use super::*;

const BOB_TOO: u64 = 100;

/// Microphones of `count` people, each heard by Bob, who publishes nothing.
struct Meeting {
    story: Story,
    voices: Vec<Source>,
}

impl Meeting {
    fn new(count: u64) -> Self {
        let mut story = Story::new();
        let mut voices = Vec::new();
        for id in 1..=count {
            let from = TransportId(1_000 + id);
            story.router.add_transport(from);
            let ssrc = 2_000 + id as u32;
            let stream = ReceiveStream {
                ssrcs: vec![(ssrc, 0)],
                ..microphone()
            };
            story.publish(id, from, stream);
            story.subscribe(BOB_TOO + id, BOB, speaker(500 + id as u32), id);
            voices.push(Source::new(ssrc, 111, 1));
        }
        Self { story, voices }
    }

    /// 20 ms of everybody; who was forwarded, by number.
    fn round(&mut self, levels: &[u8]) -> Vec<u64> {
        for (index, level) in levels.iter().enumerate() {
            self.voices[index].level = 0x80 | level;
            let packet = self.voices[index].sound();
            self.story.rtp(TransportId(1_001 + index as u64), &packet);
        }
        self.story.pass(20);
        let seen = self.story.seen(BOB);
        let mut who: Vec<_> = seen
            .iter()
            .map(|seen| u64::from(seen.header.ssrc - 500))
            .collect();
        who.sort_unstable();
        who
    }

    fn limit(&mut self, places: u8, dominant: Option<u64>) {
        self.story
            .router
            .set_loudest(GROUP, places, dominant.map(PublicationId));
    }
}

#[test]
fn thirty_open_microphones_are_three_streams() {
    let mut meeting = Meeting::new(30);
    assert_eq!(meeting.round(&[60; 30]).len(), 30);
    meeting.limit(3, None);
    let (mut levels, mut copies) = ([60; 30], 0);
    for turn in 0..500usize {
        levels = [60; 30];
        for talker in 0..5 {
            levels[(turn / 40 + talker * 7) % 30] = 20 + (turn % 5) as u8;
        }
        let on = meeting.round(&levels);
        copies += on.len();
        // In the round in which somebody makes room both are seen, never both later.
        assert!(on.len() <= 3 || turn % 40 < 20, "{turn}: {on:?}");
    }
    assert!((1_500..1_700).contains(&copies), "{copies}");
    let loud: Vec<_> = (1..=30)
        .filter(|id| levels[*id as usize - 1] < 60)
        .collect();
    assert!(meeting.round(&levels).iter().all(|id| loud.contains(id)));
    meeting.limit(0, None);
    assert_eq!(meeting.round(&[60; 30]).len(), 30);
}

#[test]
fn an_onset_is_forwarded_with_its_first_packet() {
    let mut meeting = Meeting::new(5);
    meeting.limit(3, None);
    for _ in 0..50 {
        assert_eq!(meeting.round(&[60, 61, 62, 60, 60]).len(), 3);
    }
    assert!(meeting.round(&[60, 61, 62, 60, 25]).contains(&5));
    // The quietest made room, and nobody else moved.
    assert_eq!(meeting.round(&[60, 61, 62, 60, 25]), [1, 2, 5]);
}

#[test]
fn equal_voices_do_not_take_turns_and_a_pause_between_words_costs_no_place() {
    let mut meeting = Meeting::new(4);
    meeting.limit(3, None);
    meeting.round(&[30, 30, 30, 127]);
    for turn in 0..200u8 {
        let swing = turn % 3;
        let levels = [30 - swing, 30 + swing, 30, 30 - swing + turn % 2];
        assert_eq!(meeting.round(&levels), [1, 2, 3]);
    }
    for turn in 0..100u8 {
        // 200 ms of speech, 200 ms of pause; the fourth is quieter than speech.
        let level = if turn / 10 % 2 == 0 { 25 } else { 90 };
        assert_eq!(meeting.round(&[level, 25, 25, 50]), [1, 2, 3]);
    }
    // Whoever stops gives way to him who goes on.
    for _ in 0..60 {
        meeting.round(&[90, 25, 25, 50]);
    }
    assert_eq!(meeting.round(&[90, 25, 25, 50]), [2, 3, 4]);
}

#[test]
fn the_dominant_speaker_is_always_there() {
    let mut meeting = Meeting::new(4);
    meeting.limit(3, Some(1));
    meeting.round(&[20, 127, 127, 127]);
    for _ in 0..100 {
        let on = meeting.round(&[60, 10, 10, 10]);
        assert!(on.contains(&1), "{on:?}");
    }
    meeting.limit(3, Some(2));
    for _ in 0..30 {
        meeting.round(&[60, 10, 10, 5]);
    }
    assert_eq!(meeting.round(&[60, 10, 10, 5]), [2, 3, 4]);
}

#[test]
fn what_is_not_forwarded_leaves_no_gap() {
    let mut meeting = Meeting::new(2);
    meeting.limit(1, None);
    let mut heard: [Vec<Seen>; 2] = [Vec::new(), Vec::new()];
    for turn in 0..400usize {
        let speaks = turn / 50 % 2;
        let mut levels = [70; 2];
        levels[speaks] = 20;
        for (index, level) in levels.iter().enumerate() {
            meeting.voices[index].level = *level;
            let packet = meeting.voices[index].sound();
            meeting
                .story
                .rtp(TransportId(1_001 + index as u64), &packet);
        }
        meeting.story.pass(20);
        for seen in meeting.story.seen(BOB) {
            heard[(seen.header.ssrc - 501) as usize].push(seen);
        }
    }
    for seen in &heard {
        assert!((180..=220).contains(&seen.len()), "{}", seen.len());
        assert_continuous(seen);
    }
}

#[test]
fn a_closed_gate_frees_the_place_and_a_gone_track_too() {
    let mut meeting = Meeting::new(3);
    meeting.limit(2, None);
    meeting.round(&[20, 20, 127]);
    meeting.story.router.set_gate(PublicationId(1), false);
    assert_eq!(meeting.round(&[20, 20, 50]), [2, 3]);
    let (now, record) = (meeting.story.now, &mut meeting.story.record);
    meeting
        .story
        .router
        .unpublish(PublicationId(2), now, record);
    meeting.story.router.set_gate(PublicationId(1), true);
    assert_eq!(meeting.round(&[20, 20, 50]), [1, 3]);
}

#[test]
fn video_and_other_groups_are_left_alone() {
    let mut meeting = Meeting::new(2);
    meeting.story.publish(50, ALICE, camera());
    meeting.story.subscribe(50, CAROL, screen(77), 50);
    meeting.story.router.set_loudest(GroupId(777), 1, None);
    assert_eq!(meeting.round(&[60, 60]).len(), 2);
    meeting.limit(1, None);
    let mut picture = Source::new(1_000, 96, 5);
    for packet in picture.frame(true, 3) {
        meeting.story.rtp(ALICE, &packet);
    }
    assert_eq!(meeting.story.seen(CAROL).len(), 3);
}
