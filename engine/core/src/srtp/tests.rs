use proptest::prelude::*;

use super::cipher::Cipher;
use super::*;

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = std::str::from_utf8(&digits).expect("hex is ASCII");
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

const PROFILES: [Profile; 3] = [
    Profile::Aes128CmSha1,
    Profile::Aes128Gcm,
    Profile::Aes256Gcm,
];
const NOW: Micros = Micros(1_000_000_000);

/// Two ends of one association.
fn ends(profile: Profile) -> (Session, Session) {
    let material: Vec<u8> = (0..profile.material_bytes()).map(|at| at as u8).collect();
    let client = Session::new(profile, &material, true).expect("right length");
    let server = Session::new(profile, &material, false).expect("right length");
    (client, server)
}

fn packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 111];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 1]);
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn seal(sender: &mut Sender, plain: &[u8]) -> Vec<u8> {
    let mut room = plain.to_vec();
    room.resize(plain.len() + 20, 0);
    let len = sender
        .rtp(&mut room, plain.len())
        .expect("room for the tag");
    room.truncate(len);
    room
}

fn open(receiver: &mut Receiver, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut bytes = sealed.to_vec();
    let len = receiver.rtp(&mut bytes, NOW)?;
    bytes.truncate(len);
    Ok(bytes)
}

const GALLIA: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976\
                      69736120 696e2070 61727465 73207472 6573";

/// RFC 7714 section 16.1.1: AES-128-GCM with given session keys.
#[test]
fn the_rtp_vector_of_rfc_7714() {
    let key = hex("000102030405060708090a0b0c0d0e0f");
    let salt = hex("517569642070726f2071756f")
        .try_into()
        .expect("12 bytes");
    let cipher = Cipher::gcm(&key, salt, &key, salt);
    let plain = hex(GALLIA);
    let mut room = plain.clone();
    room.resize(plain.len() + 16, 0);
    let index = u64::from(rtp_sequence(&plain));
    let ssrc = ssrc_at(&plain, 8);
    let len = cipher.seal_rtp(&mut room, 12, plain.len(), ssrc, index);
    assert_eq!(len, Ok(plain.len() + 16));
    let expected = hex(
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5\
                        0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439\
                        0cce",
    );
    assert_eq!(room, expected);
    assert_eq!(cipher.open_rtp(&mut room, 12, ssrc, index), Ok(plain.len()));
    assert_eq!(room[..plain.len()], plain);
}

/// RFC 7714 section 16.2.1: AES-256-GCM.
#[test]
fn the_long_key_vector_of_rfc_7714() {
    let key = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let salt = hex("517569642070726f2071756f")
        .try_into()
        .expect("12 bytes");
    let cipher = Cipher::gcm(&key, salt, &key, salt);
    let plain = hex(GALLIA);
    let mut room = plain.clone();
    room.resize(plain.len() + 16, 0);
    let index = u64::from(rtp_sequence(&plain));
    let ssrc = ssrc_at(&plain, 8);
    cipher
        .seal_rtp(&mut room, 12, plain.len(), ssrc, index)
        .expect("room for the tag");
    let expected = hex(
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238\
                        9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7\
                        6c13",
    );
    assert_eq!(room, expected);
}

/// The widely used AES-CM + HMAC-SHA1-80 vector on the master key of RFC 3711 appendix B.3 (28 bytes of packet).
#[test]
fn a_known_packet_under_the_keys_of_rfc_3711() {
    let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
    let salt = hex("0ec675ad498afeebb6960b3aabe6");
    let cipher = Cipher::derive(Profile::Aes128CmSha1, &key, &salt);
    let plain = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let mut room = plain.clone();
    room.resize(38, 0);
    cipher
        .seal_rtp(&mut room, 12, 28, 0xCAFE_BABE, 0x1234)
        .expect("room for the tag");
    let expected = hex(
        "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402\
                        b78d6acc 99ea179b 8dbb",
    );
    assert_eq!(room, expected);
}

#[test]
fn there_and_back_under_every_profile_in_both_directions() {
    for profile in PROFILES {
        let (mut client, mut server) = ends(profile);
        let plain = packet(7, 40_000, b"somebody speaks");
        let sealed = seal(&mut client.sender, &plain);
        assert_ne!(sealed[12..27], plain[12..27]);
        assert_eq!(open(&mut server.receiver, &sealed), Ok(plain.clone()));
        let sealed = seal(&mut server.sender, &plain);
        assert_eq!(open(&mut client.receiver, &sealed), Ok(plain));
    }
}

#[test]
fn rtcp_there_and_back_and_never_twice() {
    for profile in PROFILES {
        let (mut client, mut server) = ends(profile);
        let plain = [
            0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 206, 0, 2, 0, 0, 0, 9, 0, 0, 0, 5,
        ];
        let mut room = plain.to_vec();
        room.resize(64, 0);
        let len = client.sender.rtcp(&mut room, plain.len()).expect("room");
        let sealed = room[..len].to_vec();
        let mut copy = sealed.clone();
        assert_eq!(server.receiver.rtcp(&mut copy, NOW), Ok(plain.len()));
        assert_eq!(copy[..plain.len()], plain);
        let mut copy = sealed.clone();
        assert_eq!(server.receiver.rtcp(&mut copy, NOW), Err(Error::Replayed));
        for bit in 0..len * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(server.receiver.rtcp(&mut bad, NOW).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_forgery_changes_nothing() {
    for profile in PROFILES {
        let (mut client, mut server) = ends(profile);
        let good = seal(&mut client.sender, &packet(7, 1, b"good"));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut server.receiver, &bad).is_err(), "bit {bit}");
        }
        assert!(server.receiver.sources.is_empty());
        assert!(open(&mut server.receiver, &good).is_ok());
        assert_eq!(open(&mut server.receiver, &good), Err(Error::Replayed));
    }
}

/// S6: no length and no header of a short datagram panics.
#[test]
fn every_short_datagram_is_refused_quietly() {
    for profile in PROFILES {
        let (_, mut server) = ends(profile);
        for len in 0..64 {
            for first in 0..=255u8 {
                let mut bytes = vec![first; len];
                assert!(server.receiver.rtp(&mut bytes, NOW).is_err());
                let mut bytes = vec![first; len];
                assert!(server.receiver.rtcp(&mut bytes, NOW).is_err());
                let mut bytes = vec![first; len];
                let _ = server.sender.rtp(&mut bytes, len);
                let mut bytes = vec![first; len];
                let _ = server.sender.rtcp(&mut bytes, len);
            }
        }
    }
}

/// S7: from below 2^16 to above 2^17, a tenth lost, both ends agree on the rollover counter.
#[test]
fn the_sequence_number_wraps_with_loss() {
    for profile in PROFILES {
        let (mut client, mut server) = ends(profile);
        for index in 60_000u32..140_000 {
            let plain = packet(7, index as u16, b"x");
            let sealed = seal(&mut client.sender, &plain);
            if index % 10 != 3 {
                assert_eq!(open(&mut server.receiver, &sealed), Ok(plain), "{index}");
            }
        }
    }
}

#[test]
fn what_was_sent_once_only_is_never_sent_again() {
    for profile in PROFILES {
        let (mut client, _) = ends(profile);
        let plain = packet(7, 1, b"x");
        seal(&mut client.sender, &plain);
        for again in [Sender::rtp, Sender::rtp_repeatable] {
            let mut room = plain.clone();
            room.resize(64, 0);
            let refused = again(&mut client.sender, &mut room, plain.len());
            assert_eq!(refused, Err(Error::Replayed));
            assert_eq!(room[..plain.len()], plain, "not even sealed");
        }
    }
}

#[test]
fn the_512th_last_packet_can_be_repeated_and_no_older_one() {
    let (mut client, _) = ends(Profile::Aes128Gcm);
    let mut again = |sequence: u16| {
        let plain = packet(7, sequence, &sequence.to_be_bytes());
        let mut room = plain.clone();
        room.resize(64, 0);
        client.sender.rtp_repeatable(&mut room, plain.len())
    };
    for sequence in 1..=600 {
        assert!(again(sequence).is_ok());
    }
    assert_eq!(again(88), Err(Error::Replayed));
    assert!(again(89).is_ok());
}

#[test]
fn so_many_sources_and_no_more_until_some_are_idle() {
    let (mut client, mut server) = ends(Profile::Aes128Gcm);
    for ssrc in 0..MAX_SSRCS as u32 {
        let sealed = seal(&mut client.sender, &packet(ssrc, 1, b"x"));
        assert!(open(&mut server.receiver, &sealed).is_ok());
    }
    let mut extra = seal(&mut client.sender, &packet(9_999, 1, b"x"));
    let mut copy = extra.clone();
    assert_eq!(
        server.receiver.rtp(&mut copy, NOW),
        Err(Error::TooManySources)
    );
    assert!(server.receiver.rtp(&mut extra, NOW.plus_ms(61_000)).is_ok());
    assert_eq!(server.receiver.sources.len(), MAX_SSRCS);
}

proptest! {
    /// Reordered, doubled and lost: each packet that fits the window is delivered once, intact.
    #[test]
    fn each_packet_once(
        start in any::<u16>(),
        order in prop::collection::vec((0u64..2_000, 0u64..400), 1..400),
    ) {
        let (mut client, mut server) = ends(Profile::Aes128Gcm);
        let sealed: Vec<_> = (0..2_400u64)
            .map(|at| seal(&mut client.sender, &packet(7, start.wrapping_add(at as u16), &at.to_be_bytes())))
            .collect();
        let mut times: Vec<_> = order.iter().map(|(at, late)| (at + late, *at)).collect();
        times.sort_unstable();
        // The very first packet tells the rollover counter; without it a wrap may go unnoticed (RFC 3711 section 3.3.1).
        times.insert(0, (0, 0));
        let mut seen = std::collections::BTreeSet::new();
        for (_, at) in times {
            match open(&mut server.receiver, &sealed[at as usize]) {
                Ok(plain) => {
                    prop_assert!(plain[12..] == at.to_be_bytes());
                    prop_assert!(seen.insert(at));
                }
                Err(why) => {
                    prop_assert_eq!(why, Error::Replayed);
                    prop_assert!(seen.contains(&at));
                }
            }
        }
    }

    /// Whatever is asked for again in whatever order, also over the wrap: one number has one ciphertext, and it
    /// is that of the first packet under this number. Anything else is refused and wiped.
    #[test]
    fn one_number_is_one_ciphertext(
        start in any::<u16>(),
        asked in prop::collection::vec((0u16..700, prop::option::of((any::<prop::sample::Index>(), 1u8..=255))), 1..300),
        once in 0u16..512,
    ) {
        for profile in PROFILES {
            let (mut client, _) = ends(profile);
            let mut first = std::collections::BTreeMap::new();
            let plain = |at: u16| packet(7, start.wrapping_add(at), &[at as u8; 40]);
            for at in 0..700u16 {
                let mut room = plain(at);
                room.resize(80, 0);
                let len = if at == once {
                    client.sender.rtp(&mut room, 52)
                } else {
                    client.sender.rtp_repeatable(&mut room, 52)
                };
                room.truncate(len.expect("new"));
                first.insert(at, room);
            }
            for (at, damage) in &asked {
                let mut room = plain(*at);
                if let Some((place, flip)) = damage {
                    // Anywhere but in version, extension bits, SSRC and number: those name another packet.
                    let place = [1, 4, 5, 6, 7].into_iter().chain(12..52).nth(place.index(45)).expect("of 45");
                    room[place] ^= flip;
                }
                room.resize(80, 0);
                match client.sender.rtp_repeatable(&mut room, 52) {
                    Ok(len) => {
                        prop_assert!(damage.is_none() && *at != once && *at >= 188);
                        prop_assert_eq!(&room[..len], &first[at][..]);
                    }
                    Err(why) => {
                        prop_assert_eq!(why, Error::Replayed);
                        prop_assert!(damage.is_some() || *at == once || *at < 188);
                        if damage.is_some() && *at != once && *at >= 188 {
                            prop_assert!(room[..52].iter().all(|byte| *byte == 0));
                        }
                    }
                }
            }
        }
    }

    /// Total, whatever the header claims.
    #[test]
    fn any_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for profile in PROFILES {
            let (_, mut server) = ends(profile);
            let mut copy = bytes.clone();
            prop_assert!(server.receiver.rtp(&mut copy, NOW).is_err());
            prop_assert!(server.receiver.rtcp(&mut bytes, NOW).is_err());
        }
    }
}
