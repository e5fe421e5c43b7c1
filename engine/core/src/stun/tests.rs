use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    crate::srtp::tests::hex(text)
}

/// RFC 5769 section 2.1: sample request, password "VOkJxbRl1RmTxUk/WvJxBt".
#[test]
fn the_sample_request_of_rfc_5769() {
    let bytes = hex("000100582112a442b7e7a701bc34d686fa87dfae80220010535455\
                     4e207465737420636c69656e74002400046e0001ff80290008932ff9b1\
                     51263b36000600096576746a3a68367659202020000800149aeaa70cbf\
                     d8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf");
    let message = Message::parse(&bytes).expect("the RFC's own message");
    assert_eq!(message.class, Class::Request);
    assert_eq!(message.username, Some(b"evtj:h6vY".as_slice()));
    assert_eq!(message.asked(), Some(b"evtj".as_slice()));
    assert_eq!(message.role, Some(Role::Controlled));
    assert!(message.is_authentic(&Key::new(b"VOkJxbRl1RmTxUk/WvJxBt")));
    assert!(!message.is_authentic(&Key::new(b"VOkJxbRl1RmTxUk/WvJxBs")));
}

/// RFC 5769 section 2.2: sample IPv4 response.
#[test]
fn the_sample_response_of_rfc_5769() {
    let bytes = hex("0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420\
                     766563746f7220002000080001a147e112a643000800142b91f599fd9e\
                     90c38c7489f92af9ba53f06be7d780280004c07d4c96");
    let message = Message::parse(&bytes).expect("the RFC's own message");
    assert_eq!(message.class, Class::Success);
    assert_eq!(
        message.mapped,
        Some("192.0.2.1:32853".parse().expect("address"))
    );
    assert!(message.is_authentic(&Key::new(b"VOkJxbRl1RmTxUk/WvJxBt")));
}

/// Every length of a valid message that is cut, and every single flipped bit, is refused or not authentic.
#[test]
fn no_damage_goes_unnoticed() {
    let key = Key::new(b"a password of 22 chars");
    let mut room = [0; 512];
    let len = Writer::new(&mut room, Class::Request, &[7; 12])
        .username(b"them", b"us")
        .priority(1)
        .role(Role::Controlling, 9)
        .use_candidate()
        .finish(&key);
    let good = room[..len].to_vec();
    assert!(Message::parse(&good)
        .expect("our own message")
        .is_authentic(&key));
    for cut in 0..len {
        assert!(Message::parse(&good[..cut]).is_err(), "cut at {cut}");
    }
    // The type of the last attribute is covered by nothing: without it the message has no FINGERPRINT, no more.
    let fingerprint = len - 8;
    for bit in (0..fingerprint * 8).chain((fingerprint + 4) * 8..len * 8) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(message) = Message::parse(&bad) {
            assert!(!message.is_authentic(&key), "bit {bit}");
        }
    }
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let key = Key::new(b"a password of 22 chars");
    let mut room = [0; 512];
    let len = Writer::new(&mut room, Class::Request, &[7; 12])
        .username(b"them", b"us")
        .finish(&key);
    // USE-CANDIDATE in the place of FINGERPRINT.
    room[len - 8..len - 4].copy_from_slice(&[0, 0x25, 0, 0]);
    room[3] -= 4;
    let message = Message::parse(&room[..len - 4]).expect("well formed");
    assert!(message.is_authentic(&key));
    assert!(!message.use_candidate);
}

#[test]
fn an_unknown_attribute_that_must_be_understood_is_named() {
    let key = Key::new(b"a password of 22 chars");
    let mut room = [0; 512];
    let len = Writer::new(&mut room, Class::Request, &[7; 12])
        .attribute(0x7001, b"what")
        .attribute(0xC057, b"network info")
        .finish(&key);
    let message = Message::parse(&room[..len]).expect("well formed");
    assert_eq!(message.unknown, Some(0x7001));
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    prop_oneof![v4, v6]
}

proptest! {
    /// Total: any bytes give a value or `Malformed`, never a panic.
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..1_600)) {
        if let Ok(message) = Message::parse(&bytes) {
            let _ = message.is_authentic(&Key::new(b"x"));
            let _ = message.asked();
        }
    }

    /// The same with a header that lets everything through to the attributes.
    #[test]
    fn any_attributes_parse_or_are_refused(
        body in prop::collection::vec(any::<u32>(), 0..64),
        kinds in prop::collection::vec(prop::sample::select(vec![
            0x0001u16, 0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x0025, 0x8028, 0x8029, 0x802A, 0x7777
        ]), 0..8),
    ) {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        bytes.extend([9; 12]);
        for (at, word) in body.iter().enumerate() {
            // A plausible attribute header now and then, with a short length.
            match kinds.get(at / 3).filter(|_| at % 3 == 0) {
                Some(kind) => {
                    bytes.extend(kind.to_be_bytes());
                    bytes.extend([0, *word as u8 % 24]);
                }
                None => bytes.extend(word.to_be_bytes()),
            }
        }
        let length = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        if let Ok(message) = Message::parse(&bytes) {
            let _ = message.is_authentic(&Key::new(b"x"));
            let _ = message.asked();
        }
    }

    /// Printing is the inverse of parsing.
    #[test]
    fn what_we_write_we_read(
        address in addresses(),
        transaction in any::<[u8; 12]>(),
        theirs in "[a-zA-Z0-9+/]{4,200}",
        ours in "[a-zA-Z0-9+/]{4,200}",
        nominates in any::<bool>(),
        code in 300u16..700,
    ) {
        let key = Key::new(theirs.as_bytes());
        let mut room = [0; 1_536];
        let mut writer = Writer::new(&mut room, Class::Error, &transaction)
            .username(theirs.as_bytes(), ours.as_bytes())
            .mapped(address)
            .error(code)
            .role(Role::Controlling, 3);
        if nominates {
            writer = writer.use_candidate();
        }
        let len = writer.finish(&key);
        let message = Message::parse(&room[..len]).expect("our own message");
        prop_assert_eq!(message.transaction, transaction);
        prop_assert_eq!(message.asked(), Some(theirs.as_bytes()));
        prop_assert_eq!(message.mapped, Some(address));
        prop_assert_eq!(message.error, Some(code));
        prop_assert_eq!(message.use_candidate, nominates);
        prop_assert_eq!(message.role, Some(Role::Controlling));
        prop_assert!(message.is_authentic(&key));
    }
}
