//! Descriptors written by the letter of the specification, read back; and everything else, which must not panic.

use proptest::prelude::*;

use super::*;
use crate::media::bits::Writer;

/// A structure as an encoder means it.
#[derive(Clone, Debug)]
pub struct Meant {
    pub offset: u8,
    /// (spatial, temporal) in the order written.
    pub layers: Vec<(u8, u8)>,
    pub targets: usize,
    /// By template and target.
    pub indications: Vec<Vec<u8>>,
    pub diffs: Vec<Vec<u16>>,
    pub protected_by: Vec<u8>,
    pub chain_count: u8,
    pub chains: Vec<Vec<u8>>,
    pub sizes: Option<Vec<(u32, u32)>>,
}

fn below(writer: &mut Writer<'_>, n: u32, value: u32) {
    let width = 32 - n.leading_zeros();
    let short = (1u32 << width) - n;
    if value < short {
        writer.put(value, width as usize - 1);
    } else {
        writer.put((value + short) >> 1, width as usize - 1);
        writer.put((value + short) & 1, 1);
    }
}

impl Meant {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(u32::from(self.offset), 6);
        writer.put(self.targets as u32 - 1, 5);
        for pair in self.layers.windows(2) {
            let next = match (pair[1].0 - pair[0].0, pair[1].1) {
                (0, temporal) if temporal == pair[0].1 => 0,
                (0, _) => 1,
                _ => 2,
            };
            writer.put(next, 2);
        }
        writer.put(3, 2);
        for indication in self.indications.iter().flatten() {
            writer.put(u32::from(*indication), 2);
        }
        for diffs in &self.diffs {
            for diff in diffs {
                writer.put(1, 1);
                writer.put(u32::from(*diff) - 1, 4);
            }
            writer.put(0, 1);
        }
        below(writer, self.targets as u32 + 1, u32::from(self.chain_count));
        if self.chain_count > 0 {
            for chain in &self.protected_by {
                below(writer, u32::from(self.chain_count), u32::from(*chain));
            }
            for diff in self.chains.iter().flatten() {
                writer.put(u32::from(*diff), 4);
            }
        }
        writer.put(u32::from(self.sizes.is_some()), 1);
        for (width, height) in self.sizes.iter().flatten() {
            writer.put(width - 1, 16);
            writer.put(height - 1, 16);
        }
    }
}

/// One packet's descriptor as an encoder means it.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    pub first: bool,
    pub last: bool,
    pub template: u8,
    pub frame: u16,
    pub active: Option<u32>,
    pub indications: Option<Vec<u8>>,
    pub diffs: Option<Vec<u16>>,
    pub chains: Option<Vec<u8>>,
}

impl Packet {
    /// `structure`: attached if `attach`.
    pub fn write(&self, structure: &Meant, attach: bool) -> Vec<u8> {
        let mut room = [0; 1_000];
        let mut writer = Writer::new(&mut room);
        writer.put(u32::from(self.first), 1);
        writer.put(u32::from(self.last), 1);
        writer.put(u32::from((self.template + structure.offset) % 64), 6);
        writer.put(u32::from(self.frame), 16);
        let own = [
            attach,
            self.active.is_some(),
            self.indications.is_some(),
            self.diffs.is_some(),
            self.chains.is_some(),
        ];
        if own.contains(&true) {
            for flag in own {
                writer.put(u32::from(flag), 1);
            }
        }
        if attach {
            structure.write(&mut writer);
        }
        if let Some(active) = self.active {
            writer.put(active, structure.targets);
        }
        for indication in self.indications.iter().flatten() {
            writer.put(u32::from(*indication), 2);
        }
        if let Some(diffs) = &self.diffs {
            for diff in diffs {
                let size = if *diff <= 16 {
                    1
                } else if *diff <= 256 {
                    2
                } else {
                    3
                };
                writer.put(size, 2);
                writer.put(u32::from(*diff) - 1, 4 * size as usize);
            }
            writer.put(0, 2);
        }
        for chain in self.chains.iter().flatten() {
            writer.put(u32::from(*chain), 8);
        }
        let len = writer.finish().expect("a kilobyte is enough");
        room[..len].to_vec()
    }
}

prop_compose! {
    fn any_structure()(
        steps in prop::collection::vec(0u8..3, 0..12),
        targets in 1usize..33,
        chain_count in 0u8..5,
        offset in 0u8..64,
        with_sizes in any::<bool>(),
    )(
        indications in prop::collection::vec(prop::collection::vec(0u8..4, targets), steps.len() + 1),
        diffs in prop::collection::vec(prop::collection::vec(1u16..17, 0..4), steps.len() + 1),
        protected_by in prop::collection::vec(0..chain_count.max(1), targets),
        chains in prop::collection::vec(prop::collection::vec(0u8..16, usize::from(chain_count.min(targets as u8))), steps.len() + 1),
        sizes in prop::array::uniform4((1u32..65_537, 1u32..65_537)),
        steps in Just(steps), targets in Just(targets), chain_count in Just(chain_count), offset in Just(offset),
        with_sizes in Just(with_sizes),
    ) -> Meant {
        let mut layers = vec![(0, 0)];
        for step in &steps {
            let (spatial, temporal): (u8, u8) = *layers.last().expect("one");
            layers.push(match step {
                1 if temporal < 7 => (spatial, temporal + 1),
                2 if spatial < 3 => (spatial + 1, 0),
                _ => (spatial, temporal),
            });
        }
        let chain_count = chain_count.min(targets as u8);
        let protected_by = protected_by.iter().map(|chain| chain % chain_count.max(1)).collect();
        let top = layers.last().expect("one").0;
        let sizes = with_sizes.then(|| sizes[..=usize::from(top)].to_vec());
        Meant { offset, layers, targets, indications, diffs, protected_by, chain_count, chains, sizes }
    }
}

prop_compose! {
    fn any_packet(structure: Meant)(
        first in any::<bool>(), last in any::<bool>(), frame in any::<u16>(),
        template in 0..structure.layers.len() as u8,
        active in prop::option::of(any::<u32>()),
        indications in prop::option::of(prop::collection::vec(0u8..4, structure.targets)),
        diffs in prop::option::of(prop::collection::vec(1u16..4_097, 0..7)),
        chains in prop::option::of(prop::collection::vec(any::<u8>(), usize::from(structure.chain_count))),
    ) -> Packet {
        let mask = ((1u64 << structure.targets) - 1) as u32;
        Packet { first, last, template, frame, active: active.map(|all| all & mask), indications, diffs, chains }
    }
}

fn packed(indications: &[u8]) -> u64 {
    (0..)
        .zip(indications)
        .fold(0, |all, (index, one)| all | u64::from(*one) << (2 * index))
}

proptest! {
    /// What the specification's writer writes is what is read, with and without structure; naming other decode
    /// targets changes those and nothing else; every cut and every flip is a value or `Malformed`.
    #[test]
    fn a_descriptor_survives((structure, packet, later, active) in any_structure().prop_flat_map(|structure| {
        let (one, two) = (any_packet(structure.clone()), any_packet(structure.clone()));
        (Just(structure), one, two, any::<u32>())
    })) {
        let bytes = packet.write(&structure, true);
        prop_assume!(bytes.len() <= MAX_BYTES);
        let mut fresh = None;
        let found = parse(&bytes, None, &mut fresh).expect("by the letter");
        let known = fresh.take().expect("attached");
        prop_assert_eq!(known.templates().len(), structure.layers.len());
        prop_assert_eq!(usize::from(known.targets()), structure.targets);
        prop_assert_eq!(known.chains(), structure.chain_count);
        if structure.chain_count > 0 {
            prop_assert_eq!(&known.protected_by[..structure.targets], &structure.protected_by[..]);
        }
        for (index, template) in known.templates().iter().enumerate() {
            prop_assert_eq!((template.spatial, template.temporal), structure.layers[index]);
            prop_assert_eq!(template.indications, packed(&structure.indications[index]));
            prop_assert_eq!(template.diffs.as_slice(), &structure.diffs[index][..]);
            prop_assert_eq!(&template.chains[..usize::from(structure.chain_count)], &structure.chains[index][..]);
        }
        if let Some(sizes) = &structure.sizes {
            prop_assert_eq!(&known.sizes[..sizes.len()], &sizes[..]);
        }
        let everything = ((1u64 << structure.targets) - 1) as u32;
        prop_assert_eq!(found.active, Some(packet.active.unwrap_or(everything)));

        let bytes = later.write(&structure, false);
        prop_assume!(bytes.len() <= MAX_BYTES - 8);
        let found = parse(&bytes, Some(&known), &mut fresh).expect("by the letter");
        prop_assert!(fresh.is_none() && !found.structured);
        prop_assert_eq!((found.first, found.last, found.frame), (later.first, later.last, later.frame));
        let template = &known.templates()[usize::from(later.template)];
        let indications = later.indications.as_deref().map_or(template.indications, packed);
        prop_assert_eq!(found.indications, indications);
        let diffs = later.diffs.as_deref().unwrap_or(template.diffs.as_slice());
        prop_assert_eq!(found.diffs.as_slice(), diffs);
        if let Some(chains) = &later.chains {
            prop_assert_eq!(&found.chains[..chains.len()], &chains[..]);
        }
        prop_assert_eq!(found.active, later.active);

        let mut room = [0xff; MAX_BYTES];
        let len = write_active(&bytes, found.mask_at, found.targets, active & everything, &mut room);
        let again = parse(&room[..len.expect("room")], Some(&known), &mut fresh).expect("still whole");
        let expected = Descriptor { active: Some(active & everything), masked: true, ..found };
        prop_assert_eq!(again, expected);

        for cut in 0..bytes.len() {
            let _ = parse(&bytes[..cut], Some(&known), &mut fresh);
        }
        for bit in 0..8 * bytes.len() {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 0x80 >> (bit % 8);
            let _ = parse(&bent, Some(&known), &mut fresh);
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_malformed(
        stream in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
    ) {
        let mut state = State::default();
        for bytes in &stream {
            if let Some(shape) = state.read(bytes) {
                prop_assert!(shape.present & !steps::EVERY == 0 && shape.targets > 0);
            }
        }
    }
}

/// Three sizes at three rates as AV1 encoders send them: all of a picture refer to the size below.
pub fn full_svc() -> Meant {
    layered(false)
}

/// The same, sizes referring to each other at key pictures only.
pub fn key_svc() -> Meant {
    layered(true)
}

/// Templates: a key picture's three frames, then T0, T2, T1 of each size.
fn layered(only_key: bool) -> Meant {
    let mut meant = Meant {
        offset: 0,
        layers: vec![],
        targets: 9,
        indications: vec![],
        diffs: vec![],
        protected_by: vec![0, 0, 0, 1, 1, 1, 2, 2, 2],
        chain_count: 3,
        chains: vec![],
        sizes: Some(vec![(320, 180), (640, 360), (1_280, 720)]),
    };
    for spatial in 0..3u8 {
        for (temporal, key) in [(0, true), (0, false), (1, false), (2, false)] {
            let target = |index: u8| (index / 3, index % 3);
            let indications = (0..9).map(target).map(|(s, t)| {
                let size = if key || !only_key {
                    s >= spatial
                } else {
                    s == spatial
                };
                match (size && t >= temporal, key || s == spatial, temporal) {
                    (false, ..) => indication::ABSENT,
                    (true, false, _) => indication::REQUIRED,
                    (true, true, 2) if !key => indication::DISCARDABLE,
                    (true, true, _) => indication::SWITCH,
                }
            });
            meant.layers.push((spatial, temporal));
            meant.indications.push(indications.collect());
            // Three frames a picture: T0 of the picture four back, T1 two back, T2 one back; and the size below.
            let mut diffs = match (key, temporal) {
                (true, _) => vec![],
                (false, 0) => vec![12],
                (false, 1) => vec![6],
                _ => vec![3],
            };
            if spatial > 0 && (key || !only_key) {
                diffs.insert(0, 1);
            }
            meant.diffs.push(diffs);
            meant.chains.push(vec![if key { 0 } else { 12 }; 3]);
        }
    }
    meant
}

#[test]
fn decode_targets_are_steps() {
    for (meant, nested) in [(full_svc(), true), (key_svc(), false)] {
        let packet = Packet {
            first: true,
            ..Packet::default()
        };
        let mut state = State::default();
        let shape = state.read(&packet.write(&meant, true)).expect("whole");
        let structure = state.structure().expect("attached");
        assert_eq!(structure.steps(), 0b1_1111_1111);
        assert_eq!(structure.is_nested(), nested);
        assert_eq!(
            (shape.present, shape.switch),
            (0b1_1111_1111, 0b1_1111_1111)
        );
        assert_eq!(structure.targets_within(4), 0b011_011);
        assert_eq!(structure.steps_of(0b111), 0b111);
        // T1 of the middle size.
        let packet = Packet {
            template: 6,
            frame: 6,
            ..Packet::default()
        };
        let shape = state.read(&packet.write(&meant, false)).expect("known");
        assert_eq!(
            shape.present,
            if nested { 0b1_1011_0000 } else { 0b11_0000 }
        );
    }
}

#[test]
fn who_lacks_what_a_frame_refers_to_cannot_begin_with_it() {
    let meant = full_svc();
    let mut state = State::default();
    let mut read = |template: u8, frame: u16, attach: bool| {
        let packet = Packet {
            first: true,
            template,
            frame,
            ..Packet::default()
        };
        state.read(&packet.write(&meant, attach)).expect("whole")
    };
    assert_eq!(read(0, 0, true).base, !0);
    assert_eq!(
        read(4, 1, false).base,
        0b1_1111_1111,
        "the lowest size of the key picture"
    );
    assert_eq!(read(8, 2, false).base, 0b1_1111_1000, "and the middle one");
    // T1 of the lowest size, two pictures later, refers to the key picture.
    assert_eq!(read(2, 6, false).base, 0b1_1111_1111);
    // T1 of the middle size to that and to the middle size of the key picture.
    assert_eq!(read(6, 7, false).base, 0b1_1011_0000);
    assert_eq!(read(2, 2_000, false).base, 0, "refers to what nobody knows");
}

#[test]
fn an_old_structure_does_not_come_back() {
    let (old, new) = (full_svc(), key_svc());
    let mut state = State::default();
    let packet = |frame| Packet {
        first: true,
        frame,
        ..Packet::default()
    };
    state.read(&packet(10).write(&old, true));
    state.read(&packet(40).write(&new, true));
    assert!(!state.structure().expect("new").is_nested());
    state.read(&packet(10).write(&old, true));
    assert!(!state.structure().expect("still new").is_nested());
}
