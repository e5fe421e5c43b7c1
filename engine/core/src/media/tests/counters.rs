//! Statistics: each layer by itself, what subscribers report, whose wish decides.

use super::*;
use crate::media::clock;

#[test]
fn each_layer_counts_for_itself() {
    let mut story = Story::new();
    story.publish(1, ALICE, simulcast());
    story.subscribe(1, BOB, screen(77), 1);
    story.layer(1, 1, false);
    let mut sources = [Source::new(501, 96, 10), Source::new(601, 96, 10)];
    for (source, rid) in sources.iter_mut().zip(["q", "h"]) {
        (source.mid, source.rid) = ("0", rid);
    }
    for turn in 0..100 {
        for (index, source) in sources.iter_mut().enumerate() {
            for packet in source.frame(turn == 0, 1 + index) {
                story.rtp(ALICE, &packet);
            }
        }
        story.pass(40);
    }
    let publication = story.publication(1);
    let [low, high, none, _] = publication.by_layer;
    assert_eq!((low.frames, low.key_frames, low.packets), (100, 1, 100));
    assert_eq!((high.frames, high.packets), (100, 200));
    assert!(low.live && high.live && low.bps > 0 && high.bps > low.bps);
    assert_eq!(none, crate::media::LayerStatistics::default());
    assert_eq!(low.packets + high.packets, publication.packets);
    assert_eq!(low.bytes + high.bytes, publication.bytes);
    assert_eq!(low.octets + high.octets, publication.octets);
    assert!(publication.octets + 12 * publication.packets <= publication.bytes);
    let own = story.subscription(1);
    assert_eq!((own.layer, own.limited), (2, false));
    assert_eq!(own.target_bps, high.bps);
    story.layer(1, 1, true);
    assert_eq!(story.subscription(1).layer, 0);
}

#[test]
fn what_a_subscriber_reports_is_its_own() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.subscribe(2, CAROL, screen(77), 1);
    let mut camera = Source::new(1_000, 96, 5);
    for packet in camera.frame(true, 2) {
        story.rtp(ALICE, &packet);
    }
    let sent = (clock::ntp(story.now) >> 16) as u32;
    story.pass(150);
    let report = crate::media::rtcp::Report {
        ssrc: 77,
        fraction_lost: 64,
        lost: 3,
        jitter: 900,
        last_sr: sent,
        delay: 65_536 / 10,
        ..Default::default()
    };
    story.rtcp(BOB, |b| b.receiver_report(1, &[report]));
    let heard = story.subscription(1).reception;
    assert_eq!((heard.lost, heard.fraction, heard.jitter), (3, 64, 900));
    assert!(
        (49_000..=51_000).contains(&heard.rtt_us),
        "{}",
        heard.rtt_us
    );
    assert_eq!(story.subscription(2).reception.lost, 0);
    // A negative sum (duplicates) is no loss.
    let less = crate::media::rtcp::Report {
        lost: 0x00ff_ffff,
        ..report
    };
    story.rtcp(BOB, |b| b.receiver_report(1, &[less]));
    assert_eq!(story.subscription(1).reception.lost, 0);
    story.rtcp(BOB, |b| b.pli(1, 77));
    let own = story.subscription(1);
    assert_eq!((own.plis, own.firs), (1, 0));
}
