//! RTCP that we send: reports, feedback, REMB, levels; and key frame requests in their time.

use super::*;
use crate::media::clock;

#[test]
fn key_frame_requests_are_half_a_second_apart() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.subscribe(1, BOB, screen(77), 1);
    story.rtp(ALICE, &Source::new(1_000, 96, 1).frame(true, 1).remove(0));
    story.pass(1_000);
    story.plis(ALICE);
    let mut asked = Vec::new();
    for _ in 0..2_000 {
        story.rtcp(BOB, |b| b.pli(1, 77));
        story.rtcp(BOB, |b| b.fir(1, 77, 0));
        story.pass(1);
        asked.extend(story.plis(ALICE));
    }
    assert!((4..=5).contains(&asked.len()), "{asked:?}");
    assert!(asked
        .windows(2)
        .all(|pair| pair[1].0.since(pair[0].0) >= 500_000));
    assert_eq!(story.subscription(1).plis, 4_000);
}

#[test]
fn a_publisher_without_pli_is_asked_by_fir() {
    let mut story = Story::new();
    let mut stream = camera();
    stream.codecs[0].pli = false;
    story.publish(1, ALICE, stream);
    story.rtp(ALICE, &Source::new(1_000, 96, 1).frame(true, 1).remove(0));
    story.subscribe(1, BOB, screen(77), 1);
    let (_, _, compound) = story.record.rtcp.last().expect("request");
    assert!(Compound::new(compound).any(|packet| matches!(packet, Ok(Packet::Fir { .. }))));
}

#[test]
fn sender_reports_carry_the_publishers_clock_over() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let mut alice = Source::new(2_000, 111, 1);
    // Alice's NTP clock is 1,000 s behind ours; captured 30 ms before it arrives.
    let ntp_us = |now: Micros| now.0 + 3_000_000_000 - 1_000_000_000 - 30_000;
    for index in 0..150 {
        if index == 20 {
            let now = story.now;
            let timestamp = alice.timestamp;
            let ntp = clock::us_to_ntp(ntp_us(now));
            story.rtcp(ALICE, |b| b.sender_report(2_000, ntp, timestamp, 1, 1));
        }
        let packet = alice.sound();
        story.rtp(ALICE, &packet);
        story.pass(20);
    }
    let sent = story.seen(BOB);
    let reports: Vec<_> = story
        .record
        .rtcp
        .iter()
        .filter(|(to, _, _)| *to == BOB)
        .filter_map(|(_, at, compound)| match Compound::new(compound).next() {
            Some(Ok(Packet::SenderReport {
                ssrc: 55,
                ntp,
                timestamp,
                ..
            })) => Some((*at, ntp, timestamp)),
            _ => None,
        })
        .collect();
    assert!(reports.len() >= 2, "one a second");
    for (at, ntp, timestamp) in reports {
        assert_eq!(ntp, clock::ntp(at));
        // The stream's clock at that instant is what a packet sent then would carry.
        let last = sent.iter().rev().find(|seen| seen.at <= at).expect("sound");
        let expected = last
            .header
            .timestamp
            .wrapping_add((at.since(last.at) * 48 / 1_000) as u32);
        assert!(
            (timestamp.wrapping_sub(expected) as i32).abs() <= 960,
            "{timestamp} {expected}"
        );
    }
}

#[test]
fn publishers_get_receiver_reports_with_their_clock() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    let mut alice = Source::new(2_000, 111, 65_500);
    for index in 0..200 {
        let packet = alice.sound();
        if index % 10 != 3 {
            story.rtp(ALICE, &packet);
        }
        if index == 10 {
            story.rtcp(ALICE, |b| {
                b.sender_report(2_000, 0x1234_5678_9abc_def0, 0, 1, 1)
            });
        }
        story.pass(20);
    }
    let reports: Vec<_> = story
        .record
        .rtcp
        .iter()
        .flat_map(|(_, _, compound)| Compound::new(compound))
        .filter_map(|packet| match packet {
            Ok(Packet::ReceiverReport { mut reports, .. }) => reports.next(),
            _ => None,
        })
        .collect();
    let last = reports.last().expect("reports");
    assert_eq!(last.ssrc, 2_000);
    assert_eq!(last.last_sr, 0x5678_9abc);
    assert!((20..=32).contains(&last.fraction_lost), "{last:?}");
    assert!(last.highest > 0x1_0000, "one cycle");
    assert!(last.delay > 65_536);
}

#[test]
fn transport_feedback_comes_within_a_tenth_of_a_second() {
    let mut story = Story::new();
    story.publish(1, ALICE, camera());
    story.publish(2, ALICE, microphone());
    let mut video = Source::new(1_000, 96, 1);
    let mut number = 65_500u16;
    for _ in 0..100 {
        video.transport_cc = Some(number);
        story.rtp(ALICE, &video.frame(false, 1).remove(0));
        let mut voice = Source::new(2_000, 111, number);
        voice.transport_cc = Some(number.wrapping_add(1));
        let packet = voice.sound();
        story.rtp(ALICE, &packet);
        number = number.wrapping_add(3); // each third is lost
        story.pass(10);
    }
    story.pass(100);
    let mut received = 0;
    let mut times = Vec::new();
    for (to, at, compound) in &story.record.rtcp {
        for packet in Compound::new(compound) {
            if let Ok(Packet::TransportCc(feedback)) = packet {
                assert_eq!(*to, ALICE);
                received += feedback.arrivals().count();
                times.push(*at);
            }
        }
    }
    assert_eq!(received, 200);
    assert!((10..=20).contains(&times.len()), "{}", times.len());
    assert!(times
        .windows(2)
        .all(|pair| pair[1].since(pair[0]) >= 50_000));
}

#[test]
fn remb_goes_to_peers_that_understand_nothing_else() {
    let mut story = Story::new();
    let mut stream = camera();
    stream.codecs[0].transport_cc = false;
    stream.codecs[0].remb = true;
    story.publish(1, ALICE, stream);
    let mut both = camera();
    both.codecs[0].remb = true;
    story.publish(2, CAROL, both);
    let mut alice = Source::new(1_000, 96, 1);
    for index in 0..300 {
        let packet = alice.frame(false, 1).remove(0);
        story.rtp(CAROL, &packet);
        // Half of what she sends is lost after three seconds.
        if index < 90 || index % 2 == 0 {
            story.rtp(ALICE, &packet);
        }
        story.pass(33);
    }
    let told: Vec<_> = story
        .record
        .rtcp
        .iter()
        .flat_map(|(to, _, compound)| Compound::new(compound).map(move |packet| (*to, packet)))
        .filter_map(|(to, packet)| match packet {
            Ok(Packet::Remb {
                bits_per_s,
                mut sources,
            }) => Some((to, bits_per_s, sources.next())),
            _ => None,
        })
        .collect();
    assert!(told.len() >= 9, "once a second: {}", told.len());
    assert!(told
        .iter()
        .all(|(to, _, source)| (*to, *source) == (ALICE, Some(1_000))));
    let rates: Vec<_> = told.iter().map(|(_, rate, _)| *rate).collect();
    assert!(
        rates[1] > rates[0] && rates[rates.len() - 1] < rates[1] / 2,
        "{rates:?}"
    );
    assert!(rates
        .iter()
        .all(|rate| (140_000..=4_000_000).contains(rate)));
}

#[test]
fn levels_are_told_ten_times_a_second_to_the_group() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.publish(2, BOB, microphone());
    story
        .router
        .publish(PublicationId(3), CAROL, GroupId(10), microphone())
        .expect("valid");
    let mut sources: Vec<_> = [30, 127, 50]
        .iter()
        .map(|level| Source {
            level: 0x80 | level,
            ..Source::new(2_000, 111, 1)
        })
        .collect();
    for _ in 0..100 {
        for (source, from) in sources.iter_mut().zip([ALICE, BOB, CAROL]) {
            let packet = source.sound();
            story.rtp(from, &packet);
        }
        story.pass(20);
    }
    let of = |group: GroupId| {
        let told = story
            .record
            .events
            .iter()
            .filter_map(move |event| match event {
                Event::Levels(found, levels) if *found == group => Some(
                    levels
                        .iter()
                        .map(|heard| (heard.publication, heard.level))
                        .collect::<Vec<_>>(),
                ),
                _ => None,
            });
        told.collect::<Vec<_>>()
    };
    let (here, there) = (of(GROUP), of(GroupId(10)));
    assert!((15..=21).contains(&here.len()), "{}", here.len());
    assert!(here
        .iter()
        .all(|levels| *levels == [(PublicationId(1), 30)]));
    assert!(there
        .iter()
        .all(|levels| *levels == [(PublicationId(3), 50)]));
}

#[test]
fn a_publisher_without_levels_is_heard_by_its_voice_activity() {
    let mut story = Story::new();
    let mut stream = microphone();
    stream.extensions.audio_level = 0;
    story.publish(1, ALICE, stream);
    let mut source = Source::new(2_000, 111, 1);
    let mut heard = |first_byte: u8| {
        story.record.events.clear();
        for _ in 0..50 {
            let packet = source.packet(false, &[0x78, first_byte, 0, 0]); // hybrid, 20 ms
            story.rtp(ALICE, &packet);
            story.pass(20);
        }
        let told = story.record.events.iter();
        told.filter(|event| matches!(event, Event::Levels(..)))
            .count()
    };
    assert!((7..=11).contains(&heard(0x80)));
    assert!(heard(0x00) <= 1); // what was waiting
}

#[test]
fn a_round_trip_is_read_from_reports_on_our_streams() {
    let mut story = Story::new();
    story.publish(1, ALICE, microphone());
    story.subscribe(1, BOB, speaker(55), 1);
    let sent = (clock::ntp(story.now) >> 16) as u32;
    story.pass(150);
    let report = crate::media::rtcp::Report {
        ssrc: 55,
        last_sr: sent,
        delay: 65_536 / 10,
        ..Default::default()
    };
    story.rtcp(BOB, |b| b.receiver_report(1, &[report]));
    let transports = story.router.statistics().transports;
    let bob = transports.iter().find(|(id, _)| *id == BOB).expect("Bob").1;
    assert!((49_000..51_000).contains(&bob.rtt_us), "{}", bob.rtt_us);
}
