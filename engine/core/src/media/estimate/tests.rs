//! Liars and links, without packets.

use proptest::prelude::*;

use super::super::rtcp::{Builder, Compound, Packet};
use super::super::twcc::Recorder;
use super::detector::{Detector, Usage};
use super::history::Told;
use super::*;

const START: Micros = Micros(3_600_000_000);

/// A sender of 1,000-byte packets at `send_bps` through a link of `link_bps` for a while; feedback each 50 ms.
fn through(goog: &mut Goog, send_bps: u64, link_bps: u64, from: Micros, lasts_ms: u64) -> Micros {
    let (mut now, mut free_at, mut number) = (from, from.0, from.0);
    let mut acks = Vec::new();
    let mut credit = 0;
    for ms in 0..lasts_ms {
        now = from.plus_ms(ms);
        credit += send_bps / 1_000;
        while credit >= 8_000 {
            credit -= 8_000;
            number += 1;
            free_at = free_at.max(now.0) + 8_000_000_000 / link_bps;
            acks.push(Ack {
                number,
                sent: now,
                arrived_us: free_at as i64 + 20_000,
                bytes: 1_000,
            });
        }
        if ms % 50 == 0 {
            let arrived = |ack: &Ack| ack.arrived_us + 20_000 <= now.0 as i64;
            let told: Vec<_> = acks.iter().copied().filter(arrived).collect();
            acks.retain(|ack| !arrived(ack));
            let news = News {
                acks: &told,
                lost: 0,
                rtt_us: 40_000,
                can_probe: true,
            };
            goog.feedback(&news, now);
        }
    }
    now
}

#[test]
fn a_link_too_narrow_is_noticed_within_two_seconds_and_met() {
    let mut goog = Goog::default();
    let now = through(&mut goog, 900_000, 10_000_000, START, 2_000);
    assert!(goog.estimate_bps() >= START_BPS, "nothing was wrong");
    assert_eq!(goog.congested(), None);
    through(&mut goog, 1_500_000, 600_000, now.plus_ms(1), 2_000);
    let met = goog.estimate_bps();
    assert!((350_000..650_000).contains(&met), "{met}");
}

/// A link holds packets back for a moment, lets them go at once, and one of them comes behind the others (Wi-Fi does).
#[test]
fn a_packet_out_of_order_behind_a_burst_is_no_trend() {
    let mut detector = Detector::new();
    let mut number = 0;
    let mut tell = |sent_ms: u64, arrived_ms: u64| {
        number += 1;
        detector.packet(&Ack {
            number,
            sent: START.plus_ms(sent_ms),
            arrived_us: START.plus_ms(arrived_ms).0 as i64,
            bytes: 1_000,
        });
        detector.usage()
    };
    for packet in 0..200 {
        assert_eq!(tell(10 * packet, 10 * packet + 20), Usage::Normal);
    }
    for packet in [0, 1, 3, 4] {
        tell(2_000 + 10 * packet, 2_060);
    }
    tell(2_020, 2_062);
    for packet in 205..300 {
        assert_eq!(
            tell(10 * packet, 10 * packet + 20),
            Usage::Normal,
            "{packet}"
        );
    }
}

#[test]
fn loss_above_ten_percent_lowers_and_below_two_raises() {
    let mut goog = Goog::default();
    let mut now = START;
    let mut number = 0;
    let mut run = |goog: &mut Goog, lost: u32, seconds: u64| {
        for _ in 0..seconds * 20 {
            let ack = |at: u64| Ack {
                number: number + at,
                sent: Micros(now.0 + at * 5_000),
                arrived_us: (now.0 + at * 5_000 + 30_000) as i64,
                bytes: 1_200,
            };
            let acks: Vec<_> = (0..10).map(ack).collect();
            number += 10;
            now = now.plus_ms(50);
            let news = News {
                acks: &acks,
                lost,
                rtt_us: 60_000,
                can_probe: true,
            };
            goog.feedback(&news, now);
        }
    };
    run(&mut goog, 0, 2);
    let before = goog.estimate_bps();
    run(&mut goog, 3, 4); // 23 %
    let after = goog.estimate_bps();
    assert!(after < before * 80 / 100, "{before} {after}");
    run(&mut goog, 10, 30);
    assert!(
        goog.estimate_bps() >= 250_000,
        "loss alone leaves the lowest layer"
    );
    let low = goog.estimate_bps();
    run(&mut goog, 0, 10);
    assert!(goog.estimate_bps() > low);
}

/// All that was sent while nothing passed is told as lost at once when something passes again (libwebrtc does): that
/// is no narrow link (N8). Who makes it a habit is not spared.
#[test]
fn what_an_outage_lost_is_no_strain_but_a_habit_is() {
    let mut goog = Goog::default();
    let now = through(&mut goog, 900_000, 10_000_000, START, 4_000);
    let before = goog.estimate_bps();
    let tell = |goog: &mut Goog, now: Micros| {
        let ack = Ack {
            number: now.0,
            sent: now,
            arrived_us: now.0 as i64 + 20_000,
            bytes: 1_000,
        };
        let news = News {
            acks: &[ack; 10],
            lost: 300,
            rtt_us: 40_000,
            can_probe: true,
        };
        goog.feedback(&news, now.plus_ms(40));
    };
    tell(&mut goog, now.plus_ms(3_000));
    let back = through(&mut goog, 900_000, 10_000_000, now.plus_ms(3_050), 2_000);
    assert!(goog.estimate_bps() >= before * 9 / 10, "{before}");
    assert_eq!((goog.strained(), goog.congested()), (None, None));
    tell(&mut goog, back.plus_ms(3_000));
    through(&mut goog, 900_000, 10_000_000, back.plus_ms(3_050), 2_000);
    assert!(goog.strained().is_some(), "not again so soon");
}

#[test]
fn a_remb_limits_only_near_what_is_sent() {
    let mut remb = Remb::default();
    for second in 0..10 {
        remb.told(400_000, 100_000, START.plus_ms(second * 1_000));
    }
    assert!(remb.estimate_bps() > START_BPS, "the link is not full");
    remb.told(400_000, 900_000, START.plus_ms(11_000));
    assert_eq!(remb.estimate_bps(), 400_000);
    assert!(remb.congested().is_some());
}

/// Feedback bytes for these (number, arrival).
fn feedback(arrivals: &[(u16, u64)], tell: impl FnOnce(&super::super::twcc::Feedback<'_>)) {
    let mut recorder = Recorder::default();
    for (sequence, at) in arrivals {
        recorder.record(*sequence, 1, Micros(*at));
    }
    let mut builder = Builder::default();
    recorder.write(1, &mut builder);
    if let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(builder.bytes()).next() {
        tell(&feedback);
    }
}

#[test]
fn numbers_never_sent_and_numbers_told_before_are_no_news() {
    let mut history = History::new(100);
    for number in 101..=110 {
        history.sent(number, 1_000, START);
    }
    let mut acks = Vec::new();
    let now = START.plus_ms(80);
    feedback(&[(101, 1_000), (104, 2_000)], |feedback| {
        let told = history.learn(feedback, now, &mut acks);
        assert_eq!((told.arrived, told.lost), (2, 2));
        assert_eq!(
            acks.iter().map(|ack| ack.number).collect::<Vec<_>>(),
            [101, 104]
        );
        assert_eq!((acks[0].sent, acks[0].bytes), (START, 1_000));
        assert_eq!(acks[1].arrived_us - acks[0].arrived_us, 1_000);
        let told = history.learn(feedback, now, &mut acks);
        assert_eq!((told.arrived, told.lost), (0, 0));
        assert!(acks.is_empty(), "told before");
    });
    feedback(
        &[(99, 1_000), (103, 2_000), (110, 3_000), (111, 4_000)],
        |feedback| {
            assert_eq!(history.learn(feedback, now, &mut acks).lost, 5);
            let numbers: Vec<_> = acks.iter().map(|ack| ack.number).collect();
            assert_eq!(numbers, [103, 110], "late is news, unsent is not");
        },
    );
}

proptest! {
    /// S11: whatever a peer tells, the estimate stays in its range and never grows by more than 8 % a second
    /// (with what a probe showed as the only exception).
    #[test]
    fn lies_make_no_leaps(
        told in proptest::collection::vec(
            (0u64..2_000_000, proptest::collection::vec((any::<i32>(), 0u32..1_500), 0..30), 0u32..200, any::<u32>(), any::<bool>()),
            1..80,
        ),
    ) {
        let mut goog = Goog::default();
        let mut now = START;
        let mut number = 0;
        let mut envelope = START_BPS as f64 * 1.08;
        for (wait, packets, lost, rtt_us, can_probe) in told {
            now = Micros(now.0 + wait);
            let acks: Vec<_> = packets.iter().map(|(arrived, bytes)| {
                number += 1;
                Ack { number, sent: Micros(now.0 - u64::from(arrived.unsigned_abs() % 900_000)), arrived_us: i64::from(*arrived), bytes: *bytes }
            }).collect();
            let news = News { acks: &acks, lost, rtt_us: u64::from(rtt_us), can_probe };
            goog.feedback(&news, now);
            let after = goog.estimate_bps();
            prop_assert!((MIN_BPS..=MAX_BPS).contains(&after));
            envelope *= 1.0 + 0.08 * (wait as f64 / 1e6);
            prop_assert!(after as f64 <= envelope + 1.0, "{} over {}", after, envelope);
            // One window of a second may count at its end.
            envelope = envelope.min(after as f64 * 1.08);
        }
    }

    /// A number that was never sent is no loss to who did not get it, and a lie to who did; each is told once.
    #[test]
    fn numbers_left_out_are_seen_as_what_they_are(
        gaps in proptest::collection::btree_set(1u16..400, 1..40),
        claimed in proptest::collection::btree_set(1u16..400, 1..100),
    ) {
        let mut history = History::new(0);
        for number in 1..400u16 {
            let bytes = if gaps.contains(&number) { 0 } else { 100 };
            history.sent(u64::from(number), bytes, START);
        }
        let lies = claimed.intersection(&gaps).count() as u32;
        let arrivals: Vec<_> = claimed.iter().map(|n| (*n, 5_000_000)).collect();
        let (mut acks, mut told, mut again) = (Vec::new(), None, None);
        feedback(&arrivals, |feedback| {
            told = Some(history.learn(feedback, START.plus_ms(50), &mut acks));
            again = Some(history.learn(feedback, START.plus_ms(60), &mut acks));
        });
        let (told, again) = (told.expect("parsed"), again.expect("parsed"));
        prop_assert_eq!((told.lies, told.arrived), (lies, claimed.len() as u32 - lies));
        let (first, last) = (claimed.first().unwrap(), claimed.last().unwrap());
        let absent = (*first..=*last).filter(|n| !claimed.contains(n));
        let (unsent, lost): (Vec<_>, Vec<_>) = absent.partition(|n| gaps.contains(n));
        prop_assert_eq!((told.unsent, told.lost), (unsent.len() as u32, lost.len() as u32));
        prop_assert_eq!(again, Told::default());
    }

    /// Feedback of any bytes over any history: each packet counts at most once, as arrived or missing.
    #[test]
    fn a_packet_has_one_fate(
        sent in 1u64..3_000,
        told in proptest::collection::vec(proptest::collection::vec(0u16..3_100, 1..60), 1..20),
    ) {
        let mut history = History::new(0);
        for number in 1..=sent {
            history.sent(number, 100, START);
        }
        let mut arrived = std::collections::BTreeSet::new();
        let mut acks = Vec::new();
        for numbers in told {
            let arrivals: Vec<_> = numbers.iter().map(|n| (*n, 5_000_000)).collect();
            feedback(&arrivals, |feedback| {
                history.learn(feedback, START.plus_ms(50), &mut acks);
            });
            for ack in acks.drain(..) {
                prop_assert!(ack.number >= 1 && ack.number <= sent);
                prop_assert!(arrived.insert(ack.number));
            }
        }
    }
}
