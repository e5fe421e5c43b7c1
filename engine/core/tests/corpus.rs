//! Replays every seed and every finding of the fuzzer through its target, without libFuzzer (S6).

#[path = "../../fuzz/src/targets.rs"]
#[allow(dead_code)] // names that only seeds explain
mod targets;

#[path = "../../io/tests/counting/mod.rs"]
#[allow(dead_code)] // how many does not matter here
mod counting;

use std::path::Path;

use counting::LARGEST;

/// S6: what a parser may ask for at once, bytes.
const MOST: usize = 64 << 10;
/// In these a whole call runs, and the first packet of a layer begins its cache.
const CALLS: [&str; 7] = ["call", "rtx", "vp8", "vp9", "h264", "h265", "av1"];
const MOST_OF_A_CALL: usize = 384 << 10;

/// A target, and no allocation in it that is too large.
fn survive(name: &str, target: fn(&[u8]), data: &[u8]) {
    LARGEST.set(0);
    target(data);
    let largest = LARGEST.get();
    let most = if CALLS.contains(&name) {
        MOST_OF_A_CALL
    } else {
        MOST
    };
    assert!(largest <= most, "{name}: {largest} bytes for {data:02x?}");
}

/// Each file of each corpus, whole, and each of its prefixes: cutting is what networks and attackers do.
#[test]
fn seeds_and_findings_of_the_past_are_survived() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, target) in targets::ALL {
        let mut files = 0;
        for kind in ["corpus", "regressions"] {
            let Ok(folder) = std::fs::read_dir(fuzz.join(kind).join(name)) else {
                continue; // nothing was found yet
            };
            for entry in folder {
                let data = std::fs::read(entry.expect("entry").path()).expect("readable");
                for len in (0..=data.len()).rev().take(300) {
                    survive(name, target, &data[..len]);
                }
                files += 1;
            }
        }
        assert!(files > 0, "no seed of {name}");
    }
}

/// S6: every length from 0 to 64 of bytes that look like each protocol, through every target.
#[test]
fn every_short_length_is_survived() {
    for (name, target) in targets::ALL {
        for first in [0u8, 22, 63, 0x80, 0x90, 0xa0, 0xb1, 0xbf] {
            for second in [0u8, 96, 111, 200, 205, 206] {
                for len in 0..=64 {
                    let mut data = vec![if len % 2 == 0 { 0 } else { 0xff }; len];
                    for (place, byte) in data.iter_mut().zip([first, second]) {
                        *place = byte;
                    }
                    survive(name, target, &data);
                }
            }
        }
    }
}
