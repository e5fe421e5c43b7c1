//! Pictures of one batch are copied together: same packets per subscriber, another order between subscribers.

use proptest::prelude::*;

use super::*;

fn watched_by_two() -> (Story, Source) {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.subscribe(2, CAROL, screen(78), 1);
    (story, Source::new(1_000, 96, 10))
}

#[test]
fn copies_leave_subscriber_by_subscriber() {
    let (mut story, mut alice) = watched_by_two();
    for packet in alice.frame(true, 3) {
        story.rtp_in_batch(ALICE, &packet);
    }
    assert!(story.record.rtp.is_empty());
    assert_eq!(story.router.holder(), Some(ALICE));
    story.router.release(story.now, &mut story.record);
    let order: Vec<_> = story.record.rtp.iter().map(|seen| seen.to).collect();
    assert_eq!(order, [BOB, BOB, BOB, CAROL, CAROL, CAROL]);
    assert_eq!(story.router.holder(), None);
    for peer in [BOB, CAROL] {
        assert_continuous(&story.seen(peer));
    }
}

#[test]
fn a_long_batch_is_released_before_it_leaves_the_cache() {
    let (mut story, mut alice) = watched_by_two();
    for packet in alice.frame(true, 150) {
        story.rtp_in_batch(ALICE, &packet);
    }
    story.router.release(story.now, &mut story.record);
    for peer in [BOB, CAROL] {
        let seen = story.seen(peer);
        assert_eq!(seen.len(), 150);
        assert_continuous(&seen);
    }
}

#[test]
fn another_publication_comes_behind() {
    let (mut story, mut alice) = watched_by_two();
    story.publish(2, BOB, camera());
    story.subscribe(3, CAROL, screen(90), 2);
    let mut bob = Source::new(2_000, 96, 500);
    let (first, second) = (alice.frame(true, 1), bob.frame(true, 1));
    let stream = |story: &Story| -> Vec<_> {
        let all = story.record.rtp.iter();
        all.map(|seen| seen.header.ssrc).collect()
    };
    story.rtp_in_batch(ALICE, &first[0]);
    story.rtp_in_batch(BOB, &second[0]);
    assert_eq!(story.router.holder(), Some(BOB));
    assert_eq!(stream(&story), [77, 78]);
    story.router.release(story.now, &mut story.record);
    assert_eq!(stream(&story), [77, 78, 90]);
}

#[test]
fn feedback_of_the_same_batch_finds_what_was_sent() {
    let (mut story, mut alice) = watched_by_two();
    for packet in alice.frame(true, 2) {
        story.rtp_in_batch(ALICE, &packet);
    }
    story.rtcp(BOB, |builder| builder.receiver_report(1, &[]));
    assert_eq!(story.seen(BOB).len(), 2);
    assert_eq!(story.router.holder(), None);
}

/// One frame in parts of these payload sizes, as it leaves to Bob.
fn parts(sizes: &[usize], rtx: Option<u8>) -> Vec<Seen> {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    let mut bobs = screen(77);
    bobs.codecs = vec![vp8(100, rtx)];
    story.subscribe(1, BOB, bobs, 1);
    let mut alice = Source::new(1_000, 96, 10);
    for (index, size) in sizes.iter().enumerate() {
        let mut payload = alice.picture_payload(true, index == 0, 7);
        payload.resize(*size, 7);
        let packet = alice.packet(index + 1 == sizes.len(), &payload);
        story.rtp_in_batch(ALICE, &packet);
    }
    story.router.release(story.now, &mut story.record);
    story.seen(BOB)
}

#[test]
fn parts_of_a_frame_become_one_size_and_their_payload_stays() {
    let sizes = [1_000, 1_000, 1_001, 1_015, 1_016, 400];
    let seen = parts(&sizes, Some(101));
    let payloads: Vec<_> = seen.iter().map(|seen| seen.payload().len()).collect();
    assert_eq!(payloads, sizes);
    let whole: Vec<_> = seen.iter().map(|seen| seen.bytes.len()).collect();
    assert!(
        whole[..4].iter().all(|bytes| *bytes == whole[0]),
        "{whole:?}"
    );
    assert_eq!(
        whole[4] - whole[0],
        1,
        "too far from the first: a run of its own"
    );
    assert_eq!(whole[4] - whole[5], 616);
    assert!(seen
        .iter()
        .all(|seen| seen.header.marker == (seen.payload().len() == 400)));
}

#[test]
fn who_gets_repeats_without_rtx_gets_no_padding() {
    let seen = parts(&[1_000, 1_001], None);
    assert_eq!(seen[1].bytes.len() - seen[0].bytes.len(), 1);
}

/// A sender whose numbers start over: nothing of before may go out under numbers of after.
#[test]
fn a_restart_forgets_what_was_held() {
    let (mut story, mut alice) = watched_by_two();
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    story.rtp_in_batch(ALICE, &alice.frame(false, 1).remove(0));
    let mut again = Source::new(1_000, 96, 40_000);
    for packet in again.frame(false, 4) {
        story.rtp_in_batch(ALICE, &packet);
    }
    for packet in again.frame(true, 2) {
        story.rtp_in_batch(ALICE, &packet);
    }
    story.router.release(story.now, &mut story.record);
    for peer in [BOB, CAROL] {
        let seen = story.seen(peer);
        assert_continuous(&seen);
        assert_eq!(seen.len(), 1 + 2, "the first frame and the new key frame");
    }
}

/// Nor does it cost what another track of the same peer sent in the same batch.
#[test]
fn a_restart_keeps_what_is_held_of_others() {
    let (mut story, mut alice) = watched_by_two();
    let shown = ReceiveStream {
        mid: "9".into(),
        ssrcs: vec![(3_000, 3_001)],
        ..camera()
    };
    story.publish(2, ALICE, shown);
    story.subscribe(3, BOB, screen(90), 2);
    let mut shown = Source::new(3_000, 96, 10);
    story.rtp(ALICE, &alice.frame(true, 1).remove(0));
    story.rtp(ALICE, &shown.frame(true, 1).remove(0));
    story.rtp_in_batch(ALICE, &alice.frame(false, 1).remove(0));
    let mut again = Source::new(3_000, 96, 40_000);
    for packet in again.frame(false, 4) {
        story.rtp_in_batch(ALICE, &packet);
    }
    story.router.release(story.now, &mut story.record);
    let seen = story.seen(BOB);
    let of = |ssrc| seen.iter().filter(|one| one.header.ssrc == ssrc).count();
    assert_eq!((of(77), of(90)), (2, 1));
}

#[test]
fn what_was_unpublished_meanwhile_goes_nowhere() {
    let (mut story, mut alice) = watched_by_two();
    story.rtp_in_batch(ALICE, &alice.frame(true, 1).remove(0));
    story
        .router
        .unpublish(PublicationId(1), story.now, &mut story.record);
    assert_eq!(story.router.holder(), None);
    story.router.release(story.now, &mut story.record);
    assert!(story.record.rtp.is_empty());
}

proptest! {
    /// However packets fall into batches, each subscriber gets the same ones.
    #[test]
    fn batches_change_nothing_for_a_subscriber(
        frames in prop::collection::vec((prop::bool::weighted(0.2), 1usize..12), 1..20),
        ends in prop::collection::vec(prop::bool::weighted(0.3), 240),
    ) {
        let packets = {
            let mut alice = Source::new(1_000, 96, 65_500);
            let all = frames.iter().flat_map(|(key, count)| alice.frame(*key, *count));
            all.collect::<Vec<_>>()
        };
        let run = |is_batched: bool| {
            let (mut story, _) = watched_by_two();
            for (packet, end) in packets.iter().zip(&ends) {
                story.rtp_in_batch(ALICE, packet);
                if *end || !is_batched {
                    story.router.release(story.now, &mut story.record);
                }
            }
            story.router.release(story.now, &mut story.record);
            [BOB, CAROL].map(|peer| {
                let seen = story.seen(peer);
                seen.into_iter().map(|seen| seen.bytes).collect::<Vec<_>>()
            })
        };
        prop_assert_eq!(run(true), run(false));
    }
}
