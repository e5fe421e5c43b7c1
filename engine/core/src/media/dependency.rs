//! The dependency descriptor: which frame a packet belongs to and who needs it, without a look at the payload.
//!
//! RTP Payload Format For AV1 v1.0.0 appendix A (the descriptor is not tied to AV1). A *decode target* is a set
//! of frames that is decodable by itself; we name it by the step (`steps`) it is. The structure that
//! explains descriptors comes with key frames and is kept per stream.
//! Not here: which step a subscriber gets (`selection`).

use super::bits::{Reader, Writer};
use super::shapes::Shape;
use super::steps::{self, Steps};
use super::Error;

/// Template ids are six bits.
pub const MAX_TEMPLATES: usize = 64;
/// Decode targets are counted in five bits.
pub const MAX_TARGETS: usize = 32;
/// Ours: no encoder references more frames (AV1 has seven), the format sets no limit.
pub const MAX_DIFFS: usize = 8;
/// Longest descriptor that is understood; an element of the two-byte form is not longer.
pub const MAX_BYTES: usize = 255;
/// Frames whose readers are remembered, to tell who could decode one that refers to them.
const FRAMES: usize = 128;

const CUT: Error = Error::Malformed("dependency descriptor: cut off");
const UNKNOWN: Error = Error::Malformed("dependency descriptor: unknown template");
const LIMIT: Error = Error::Malformed("dependency descriptor: too much of something");

/// Frames that one refers to, as differences of frame numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diffs {
    list: [u16; MAX_DIFFS],
    len: u8,
}

impl Diffs {
    fn push(&mut self, diff: u16) -> Result<(), Error> {
        let place = self.list.get_mut(usize::from(self.len)).ok_or(LIMIT)?;
        *place = diff;
        self.len += 1;
        Ok(())
    }

    /// In the order written.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.list[..usize::from(self.len)]
    }
}

/// What a frame is to a decode target (appendix A.2).
pub mod indication {
    /// Not part of it.
    pub const ABSENT: u8 = 0;
    /// Part of it, and nothing refers to it.
    pub const DISCARDABLE: u8 = 1;
    /// Part of it, and decoding may begin with it.
    pub const SWITCH: u8 = 2;
    /// Part of it.
    pub const REQUIRED: u8 = 3;
}

/// One frame shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Spatial id, at most 3.
    pub spatial: u8,
    /// Temporal id, at most 7.
    pub temporal: u8,
    /// Indications, two bits per decode target, the first lowest.
    pub indications: u64,
    /// Frames it refers to.
    pub diffs: Diffs,
    /// Distance to the frame before in each chain, 0 = none.
    pub chains: [u8; MAX_TARGETS],
}

const EMPTY: Template = Template {
    spatial: 0,
    temporal: 0,
    indications: 0,
    diffs: Diffs {
        list: [0; MAX_DIFFS],
        len: 0,
    },
    chains: [0; MAX_TARGETS],
};

/// What a key frame says about all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Template id of the first template.
    pub offset: u8,
    templates: [Template; MAX_TEMPLATES],
    template_count: u8,
    target_count: u8,
    chain_count: u8,
    /// Which chain protects each decode target.
    pub protected_by: [u8; MAX_TARGETS],
    /// Width and height of each spatial layer, 0 = not told.
    pub sizes: [(u32, u32); 4],
    target_steps: [Steps; MAX_TARGETS],
    target_layers: [(u8, u8); MAX_TARGETS],
    steps: Steps,
    nested: bool,
}

impl Default for Structure {
    fn default() -> Self {
        Self {
            offset: 0,
            templates: [EMPTY; MAX_TEMPLATES],
            template_count: 0,
            target_count: 0,
            chain_count: 0,
            protected_by: [0; MAX_TARGETS],
            sizes: [(0, 0); 4],
            target_steps: [0; MAX_TARGETS],
            target_layers: [(0, 0); MAX_TARGETS],
            steps: 0,
            nested: true,
        }
    }
}

impl Structure {
    /// In order of their ids, from `offset` on.
    #[must_use]
    pub fn templates(&self) -> &[Template] {
        &self.templates[..usize::from(self.template_count)]
    }

    /// Number of decode targets.
    #[must_use]
    pub const fn targets(&self) -> u8 {
        self.target_count
    }

    /// Number of chains.
    #[must_use]
    pub const fn chains(&self) -> u8 {
        self.chain_count
    }

    /// The steps there are.
    #[must_use]
    pub const fn steps(&self) -> Steps {
        self.steps
    }

    /// Whoever has a step has all frames of those below it.
    #[must_use]
    pub const fn is_nested(&self) -> bool {
        self.nested
    }

    /// The decode targets up to a step, a bit each.
    #[must_use]
    pub fn targets_within(&self, step: u8) -> u32 {
        let (spatial, temporal) = (steps::layer_of(step), steps::temporal_of(step));
        let most = steps::highest_temporal(temporal, self.most_temporal());
        let targets = self.target_layers[..usize::from(self.target_count)].iter();
        targets
            .enumerate()
            .filter(|(_, (s, t))| *s <= spatial && *t <= most)
            .fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// The steps that these decode targets are.
    #[must_use]
    pub fn steps_of(&self, targets: u32) -> Steps {
        self.union(|index| targets >> index & 1 == 1) & self.steps
    }

    /// The highest spatial layer.
    #[must_use]
    pub const fn top_size(&self) -> u8 {
        if self.steps == 0 {
            return 0;
        }
        steps::layer_of(15 - self.steps.leading_zeros() as u8)
    }

    fn most_temporal(&self) -> u8 {
        let targets = self.target_layers[..usize::from(self.target_count)].iter();
        targets.map(|(_, temporal)| *temporal).max().unwrap_or(0)
    }

    fn union(&self, includes: impl Fn(usize) -> bool) -> Steps {
        let targets = self.target_steps[..usize::from(self.target_count)].iter();
        targets
            .enumerate()
            .filter(|(index, _)| includes(*index))
            .fold(0, |all, (_, steps)| all | steps)
    }

    fn present(&self, indications: u64) -> Steps {
        self.union(|index| indication_of(indications, index) != indication::ABSENT)
    }

    fn switchable(&self, indications: u64) -> Steps {
        self.union(|index| indication_of(indications, index) == indication::SWITCH)
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut found = Self {
            offset: reader.take(6).ok_or(CUT)? as u8,
            target_count: 1 + reader.take(5).ok_or(CUT)? as u8,
            ..Self::default()
        };
        found.read_layers(reader)?;
        let (templates, targets) = (
            usize::from(found.template_count),
            usize::from(found.target_count),
        );
        for template in &mut found.templates[..templates] {
            template.indications = read_indications(reader, targets)?;
        }
        for template in &mut found.templates[..templates] {
            while reader.flag().ok_or(CUT)? {
                template.diffs.push(1 + reader.take(4).ok_or(CUT)? as u16)?;
            }
        }
        found.chain_count = reader.below(1 + u32::from(found.target_count)).ok_or(CUT)? as u8;
        if found.chain_count > 0 {
            for chain in &mut found.protected_by[..targets] {
                *chain = reader.below(u32::from(found.chain_count)).ok_or(CUT)? as u8;
            }
            for template in &mut found.templates[..templates] {
                for chain in &mut template.chains[..usize::from(found.chain_count)] {
                    *chain = reader.take(4).ok_or(CUT)? as u8;
                }
            }
        }
        if reader.flag().ok_or(CUT)? {
            let spatials = 1 + usize::from(found.templates[templates - 1].spatial);
            for size in &mut found.sizes[..spatials] {
                let mut side = || reader.take(16).map(|side| side + 1).ok_or(CUT);
                *size = (side()?, side()?);
            }
        }
        found.derive();
        Ok(found)
    }

    fn read_layers(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            let place = self.templates.get_mut(usize::from(self.template_count));
            let place = place.ok_or(LIMIT)?;
            (place.spatial, place.temporal) = (spatial, temporal);
            self.template_count += 1;
            match reader.take(2).ok_or(CUT)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Ok(()),
            }
            if spatial > 3 || temporal > 7 {
                return Err(LIMIT);
            }
        }
    }

    /// Which step each decode target is (appendix A.8.3.6, decode_target_layers).
    fn derive(&mut self) {
        for target in 0..usize::from(self.target_count) {
            let (mut spatial, mut temporal) = (0, 0);
            for template in &self.templates[..usize::from(self.template_count)] {
                if indication_of(template.indications, target) != indication::ABSENT {
                    spatial = template.spatial.max(spatial);
                    temporal = template.temporal.max(temporal);
                }
            }
            self.target_layers[target] = (spatial, temporal);
        }
        let most = self.most_temporal();
        for target in 0..usize::from(self.target_count) {
            let (spatial, temporal) = self.target_layers[target];
            self.target_steps[target] = steps::of(spatial, temporal, most);
            self.steps |= steps::named(spatial, temporal, most);
        }
        let present = |template: &Template| self.present(template.indications);
        self.nested = self
            .templates()
            .iter()
            .all(|template| steps::is_upward(present(template), self.steps));
    }
}

const fn indication_of(indications: u64, target: usize) -> u8 {
    (indications >> (2 * target) & 3) as u8
}

fn read_indications(reader: &mut Reader<'_>, targets: usize) -> Result<u64, Error> {
    (0..targets).try_fold(0, |all, index| {
        Ok(all | u64::from(reader.take(2).ok_or(CUT)?) << (2 * index))
    })
}

/// One descriptor, explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of its frame.
    pub first: bool,
    /// Last packet of its frame.
    pub last: bool,
    /// Frame number.
    pub frame: u16,
    /// Spatial id.
    pub spatial: u8,
    /// Temporal id.
    pub temporal: u8,
    /// See `Template::indications`.
    pub indications: u64,
    /// Frames it refers to.
    pub diffs: Diffs,
    /// Distance to the frame before in each chain, 0 = none.
    pub chains: [u8; MAX_TARGETS],
    /// Carries a structure.
    pub structured: bool,
    /// Decode targets that are sent, if it says so: all, with a structure.
    pub active: Option<u32>,
    /// Bit at which the mask of active decode targets is, or would be.
    pub mask_at: u16,
    /// The mask is there.
    pub masked: bool,
    /// Decode targets.
    pub targets: u8,
}

/// Number and edges of the frame, which need no structure: (first, last, frame number).
#[must_use]
pub const fn mandatory(bytes: &[u8]) -> Option<(bool, bool, u16)> {
    if let [flags, high, low, ..] = bytes {
        let number = u16::from_be_bytes([*high, *low]);
        Some((*flags & 0x80 != 0, *flags & 0x40 != 0, number))
    } else {
        None
    }
}

/// Read a descriptor by the structure it carries, or else by `known`. The new structure, if it carries one, is
/// left in `fresh`.
///
/// # Errors
/// `Malformed` if it is cut off, beyond our limits, or its template is unknown.
pub fn parse(
    bytes: &[u8],
    known: Option<&Structure>,
    fresh: &mut Option<Structure>,
) -> Result<Descriptor, Error> {
    *fresh = None;
    if bytes.len() > MAX_BYTES {
        return Err(LIMIT);
    }
    let (first, last, frame) = mandatory(bytes).ok_or(CUT)?;
    let id = bytes[0] & 0x3f;
    let mut reader = Reader::new(bytes);
    reader.take(24).ok_or(CUT)?;
    let mut flags = [false; 5];
    let is_extended = bytes.len() > 3;
    if is_extended {
        for flag in &mut flags {
            *flag = reader.flag().ok_or(CUT)?;
        }
    }
    let [structured, masked, own_indications, own_diffs, own_chains] = flags;
    if structured {
        *fresh = Some(Structure::parse(&mut reader)?);
    }
    let structure = fresh.as_ref().or(known).ok_or(UNKNOWN)?;
    let mask_at = if is_extended { reader.position() } else { 29 } as u16;
    let everything = ((1u64 << structure.target_count) - 1) as u32;
    let mut active = structured.then_some(everything);
    if masked {
        active = Some(
            reader
                .take(usize::from(structure.target_count))
                .ok_or(CUT)?,
        );
    }
    let index = usize::from((id + 64 - structure.offset) % 64);
    let template = structure.templates().get(index).ok_or(UNKNOWN)?;
    let mut found = Descriptor {
        first,
        last,
        frame,
        spatial: template.spatial,
        temporal: template.temporal,
        indications: template.indications,
        diffs: template.diffs,
        chains: template.chains,
        structured,
        active,
        mask_at,
        masked,
        targets: structure.target_count,
    };
    if own_indications {
        let targets = usize::from(structure.target_count);
        found.indications = read_indications(&mut reader, targets)?;
    }
    if own_diffs {
        found.diffs = Diffs::default();
        loop {
            let size = reader.take(2).ok_or(CUT)? as usize;
            if size == 0 {
                break;
            }
            let diff = 1 + reader.take(4 * size).ok_or(CUT)?;
            found.diffs.push(diff as u16)?;
        }
    }
    if own_chains {
        for chain in &mut found.chains[..usize::from(structure.chain_count)] {
            *chain = reader.take(8).ok_or(CUT)? as u8;
        }
    }
    Ok(found)
}

/// Write a descriptor again, saying that only these decode targets are sent. None: no room.
///
/// `mask_at` and `targets` are those of `Descriptor`.
pub fn write_active(
    bytes: &[u8],
    mask_at: u16,
    targets: u8,
    active: u32,
    out: &mut [u8],
) -> Option<usize> {
    let (mask_at, width) = (usize::from(mask_at), usize::from(targets));
    let room = out.len().min(MAX_BYTES);
    let mut writer = Writer::new(&mut out[..room]);
    if bytes.len() <= 3 {
        writer.copy(bytes, 0, 24);
        writer.put(0b01_000, 5);
        writer.put(active, width);
        return writer.finish();
    }
    let masked = bytes[3] & 0x40 != 0;
    writer.copy(bytes, 0, 25);
    writer.put(1, 1);
    writer.copy(bytes, 26, mask_at);
    writer.put(active, width);
    let rest = if masked { mask_at + width } else { mask_at };
    writer.copy(bytes, rest, 8 * bytes.len());
    writer.finish()
}

/// What one stream's descriptors said so far.
#[derive(Debug)]
pub struct State {
    structure: Option<Structure>,
    /// Frame that brought it.
    since: u16,
    /// Frame that told which decode targets are sent, and what.
    active: (u16, u32),
    frames: [(u16, Steps); FRAMES],
    heard: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            structure: None,
            since: 0,
            active: (0, 0),
            frames: [(0, 0); FRAMES],
            heard: false,
        }
    }
}

impl State {
    /// The structure in force.
    #[must_use]
    pub const fn structure(&self) -> Option<&Structure> {
        self.structure.as_ref()
    }

    /// The steps that the publisher says it sends.
    #[must_use]
    pub fn active_steps(&self) -> Steps {
        self.structure
            .as_ref()
            .map_or(0, |structure| structure.steps_of(self.active.1))
    }

    /// The decode targets that the publisher says it sends, a bit each.
    #[must_use]
    pub const fn active_targets(&self) -> u32 {
        self.active.1
    }

    /// Read a packet's descriptor; None: it cannot be understood (yet).
    pub fn read(&mut self, bytes: &[u8]) -> Option<Shape> {
        let mut fresh = None;
        let found = parse(bytes, self.structure.as_ref(), &mut fresh).ok()?;
        let heard = self.heard;
        let is_newer = |frame: u16, than: u16| !heard || frame.wrapping_sub(than) as i16 >= 0;
        // A repeated packet of the past changes nothing.
        if is_newer(found.frame, self.active.0) {
            if let Some(active) = found.active {
                self.active = (found.frame, active);
            }
        }
        if fresh.is_some() && is_newer(found.frame, self.since) {
            self.since = found.frame;
            self.structure.clone_from(&fresh);
            self.heard = true;
        }
        let structure = fresh.as_ref().or(self.structure.as_ref())?;
        let present = structure.present(found.indications);
        let base = found.diffs.as_slice().iter().fold(!0, |base, diff| {
            let number = found.frame.wrapping_sub(*diff);
            let (known, readers) = self.frames[usize::from(number) % FRAMES];
            base & if known == number { readers } else { 0 }
        });
        self.frames[usize::from(found.frame) % FRAMES] = (found.frame, present);
        Some(Shape {
            spatial: found.spatial,
            first: found.first,
            last: found.last,
            structured: found.structured,
            present,
            switch: structure.switchable(found.indications),
            across: true,
            base,
            nested: structure.nested,
            mask_at: found.mask_at,
            targets: found.targets,
        })
    }
}

#[cfg(test)]
pub(in crate::media) mod tests;
