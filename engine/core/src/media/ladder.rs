//! The steps in which a publication can be had: which exist, which are sent, what each costs and shows.
//!
//! Learned from the shapes of packets, so that a copy of a publication fed with (`Meta`, packet) learns the same.
//! Only streams with temporal or spatial layers have a ladder; the others are as many steps as simulcast layers.
//! Not here: the choice (`layers`), the arithmetic of sharing (`allocation`).

use crate::id::Micros;

use super::layers::choose;
use super::publication::{Publication, NONE};
use super::pulse::Pulse;
use super::router::ROUND_US;
use super::shapes::{Shape, Told};
use super::steps::{self, Steps, MAX_STEPS};

/// Rounds over which frames are counted: a second.
const FRAME_ROUNDS: u8 = 4;
/// A step shows enough frames at this share of the wish, percent: 30 per second are often 29.97.
const ENOUGH_PERCENT: u32 = 90;

/// One step.
#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    counted: u64,
    measured: u64,
    bps: u64,
    frames: u32,
    fps: u32,
}

/// Everything known of the steps of one publication.
#[derive(Debug)]
pub struct Ladder {
    rungs: [Rung; MAX_STEPS],
    existing: Steps,
    /// Highest temporal id by layer, `NONE` = none heard.
    temporals: [u8; 4],
    /// Steps by dependency descriptor: they are told, not guessed.
    is_told: bool,
    active: Steps,
    nested: bool,
    /// When a spatial layer of a single stream was heard last, and which count as sent.
    newest: Micros,
    pulses: [Pulse; 4],
    live_sizes: u8,
    /// Spatial layers ever heard, and the one that is news.
    announced: u8,
    news: Option<u8>,
    rounds: u8,
}

const UNHEARD: u8 = 0xff;

impl Default for Ladder {
    fn default() -> Self {
        Self {
            rungs: [Rung::default(); MAX_STEPS],
            existing: 0,
            temporals: [UNHEARD; 4],
            is_told: false,
            active: 0,
            nested: true,
            newest: Micros(0),
            pulses: [Pulse::default(); 4],
            live_sizes: 0,
            announced: 0,
            news: None,
            rounds: 0,
        }
    }
}

/// Sooner or later exponentially: quickly up, slowly down, for what comes again after a quiet scene.
#[must_use]
pub const fn smoothed(before: u64, now: u64) -> u64 {
    if before == 0 {
        now
    } else if now > before {
        before + (now - before) / 6
    } else {
        before - (before - now) / 12
    }
}

impl Ladder {
    /// See `Shape::nested`.
    #[must_use]
    pub const fn is_nested(&self) -> bool {
        self.nested
    }

    fn learn(&mut self, existing: Steps, active: Steps) -> bool {
        let before = self.existing & self.active;
        self.existing = existing;
        self.active = active;
        existing & active != before
    }

    /// Ids of a frame were told by its codec. True if that makes other steps.
    fn told(&mut self, layer: u8, is_single: bool, told: Told) -> bool {
        if self.is_told {
            return false;
        }
        let own = if is_single { told.spatial } else { layer };
        let mut note = |layer: u8, temporal: u8| {
            if let Some(most) = self.temporals.get_mut(usize::from(layer)) {
                *most = if *most == UNHEARD {
                    temporal
                } else {
                    temporal.max(*most)
                };
            }
        };
        note(own, told.temporal);
        if is_single {
            for size in 0..told.spatials.min(4) {
                note(size, 0);
            }
        }
        let mut existing = 0;
        for (layer, most) in (0u8..)
            .zip(self.temporals)
            .filter(|(_, most)| *most != UNHEARD)
        {
            existing |= (0..=most).fold(0, |all, t| all | steps::named(layer, t, most));
        }
        self.learn(existing, steps::EVERY)
    }

    /// A packet of that shape and size came.
    fn count(&mut self, shape: &Shape, is_single: bool, bytes: usize) {
        let mut left = shape.present & self.existing;
        while left != 0 {
            let rung = &mut self.rungs[left.trailing_zeros() as usize];
            rung.counted += bytes as u64;
            let is_picture =
                !is_single || steps::layer_of(left.trailing_zeros() as u8) == shape.spatial;
            rung.frames += u32::from(shape.first && is_picture);
            left &= left - 1;
        }
    }

    /// Spatial layers of a single stream came, a bit each.
    fn came(&mut self, sizes: u8, now: Micros) {
        self.newest = now;
        for (size, pulse) in self.pulses.iter_mut().enumerate() {
            if sizes >> size & 1 == 1 {
                pulse.beat(self.live_sizes >> size & 1 == 1, now);
            } else {
                pulse.miss(now);
            }
        }
    }

    /// Once a round.
    fn measure(&mut self) {
        self.rounds = (self.rounds + 1) % FRAME_ROUNDS;
        for rung in &mut self.rungs {
            let bytes = rung.counted - rung.measured;
            rung.measured = rung.counted;
            rung.bps = smoothed(rung.bps, bytes * 8 * 1_000_000 / ROUND_US);
            if self.rounds == 0 {
                let frames = u64::from(std::mem::take(&mut rung.frames));
                rung.fps = (frames * 1_000_000 / (ROUND_US * u64::from(FRAME_ROUNDS))) as u32;
            }
        }
    }
}

impl Publication {
    /// A packet of a layer came: learn from its shape. True if there are other steps than before.
    pub fn climb(
        &mut self,
        layer: u8,
        shape: &Shape,
        told: Told,
        bytes: usize,
        now: Micros,
    ) -> bool {
        let is_layered =
            shape.targets > 1 || told.temporal > 0 || told.spatial > 0 || told.spatials > 1;
        if self.ladder.is_none() {
            if !is_layered {
                return false;
            }
            self.ladder = Some(Box::default());
        }
        let is_single = self.layers.len() == 1;
        let Some(ladder) = &mut self.ladder else {
            return false;
        };
        let was_nested = ladder.nested;
        let mut changed = false;
        let dependency = self.layers[usize::from(layer)].dependency.as_deref();
        if let Some((structure, active)) = dependency
            .filter(|_| shape.targets > 0)
            .and_then(|state| Some((state.structure()?, state.active_steps())))
        {
            if shape.structured || !ladder.is_told {
                ladder.is_told = true;
                ladder.nested = structure.is_nested();
            }
            let (mut existing, mut sent) = (structure.steps(), active);
            if !is_single {
                let own = steps::layer_mask(layer);
                let top = structure.top_size();
                existing = ladder.existing & !own | steps::moved(existing, top, layer);
                sent = ladder.active & !own | steps::moved(sent, top, layer);
            }
            changed |= ladder.learn(existing, sent);
        } else {
            ladder.nested = shape.nested;
            changed |= ladder.told(layer, is_single, told);
        }
        changed |= ladder.nested != was_nested;
        if is_single && shape.spatial < 4 {
            let bit = 1 << shape.spatial;
            // What a key picture announces is on its way: it counts from now on.
            let announced = if shape.structured || told.spatials > 1 {
                let sent = ladder.existing & ladder.active;
                let is_sent = |size: &u8| sent & steps::layer_mask(*size) != 0;
                (0..4).filter(is_sent).fold(0, |all, size| all | 1 << size)
            } else {
                0
            };
            ladder.came(bit | announced, now);
            changed |= ladder.live_sizes & (bit | announced) != bit | announced;
            ladder.live_sizes |= bit | announced;
            if ladder.announced & bit == 0 && shape.spatial > 0 {
                ladder.news = Some(shape.spatial);
            }
            ladder.announced |= bit;
        }
        ladder.count(shape, is_single, bytes);
        changed
    }

    /// A spatial layer above the first that was never heard before.
    pub fn take_new_size(&mut self) -> Option<u8> {
        self.ladder.as_mut()?.news.take()
    }

    /// Sizes that are sent, simulcast or spatial, a bit each.
    #[must_use]
    pub fn live_sizes(&self) -> u8 {
        let live = self.live_steps();
        (0..4)
            .filter(|size| live & steps::layer_mask(*size) != 0)
            .fold(0, |all, size| all | 1 << size)
    }

    /// The highest step up to a size that shows so many frames per second; 0 = all.
    #[must_use]
    pub fn wish(&self, max_layer: u8, fps: u8) -> u8 {
        match choose(self.live_steps(), steps::step(max_layer.min(3), 2)) {
            NONE => NONE,
            top => self.at_rate(top, fps),
        }
    }

    /// The steps that are sent.
    #[must_use]
    pub fn live_steps(&self) -> Steps {
        let is_single = self.layers.len() == 1;
        let mut live = 0;
        for (index, layer) in (0u8..).zip(&self.layers) {
            if !layer.live {
                continue;
            }
            let own = match &self.ladder {
                Some(ladder) if is_single => {
                    let sizes = (0..4).filter(|size| ladder.live_sizes >> size & 1 == 1);
                    let heard = sizes.fold(0, |all, size| all | steps::layer_mask(size));
                    ladder.existing & ladder.active & heard
                }
                Some(ladder) => ladder.existing & ladder.active & steps::layer_mask(index),
                None => 0,
            };
            live |= if own == 0 {
                1 << steps::step(index, 2)
            } else {
                own
            };
        }
        live
    }

    /// Simulcast layers that are sent, a bit each.
    #[must_use]
    pub fn live(&self) -> u8 {
        let layers = (0u8..).zip(&self.layers);
        layers
            .filter(|(_, layer)| layer.live)
            .fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// `carrier`, of a step or of none.
    #[must_use]
    pub fn carrier_of(&self, step: u8) -> u8 {
        if step == NONE {
            NONE
        } else {
            self.carrier(step)
        }
    }

    /// The simulcast layer that carries a step.
    #[must_use]
    pub fn carrier(&self, step: u8) -> u8 {
        if self.layers.len() == 1 {
            0
        } else {
            steps::layer_of(step)
        }
    }

    /// What a subscriber of a simulcast layer has if nothing is left out.
    #[must_use]
    pub fn whole(&self, layer: u8) -> u8 {
        match &self.ladder {
            Some(ladder) if self.layers.len() == 1 && ladder.existing != 0 => {
                15 - ladder.existing.leading_zeros() as u8
            }
            _ => steps::step(layer, 2),
        }
    }

    /// Whether having a step means to leave packets of its carrier out.
    #[must_use]
    pub fn is_partial(&self, step: u8) -> bool {
        let whole = self.whole(self.carrier(step));
        let is_lean = |ladder: &Ladder| step != whole || !ladder.nested;
        self.ladder.as_deref().is_some_and(is_lean)
    }

    /// The publication's sizes refer to each other only at key frames: a smaller one cannot be had by leaving out.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.ladder.as_ref().is_none_or(|ladder| ladder.is_nested())
    }

    /// Measured bits per second of a step, 0 = not yet.
    #[must_use]
    pub fn measured_bps(&self, step: u8) -> u64 {
        let own = self.layers.get(usize::from(self.carrier(step)));
        let whole = own.map_or(0, |layer| layer.bps);
        match &self.ladder {
            Some(ladder) if self.is_partial(step) => ladder.rungs[usize::from(step)].bps,
            _ => whole,
        }
    }

    /// The lowest step of the same size that shows so many frames per second.
    fn at_rate(&self, step: u8, fps: u8) -> u8 {
        let Some(ladder) = self.ladder.as_ref().filter(|_| fps > 0) else {
            return step;
        };
        let own = steps::layer_mask(steps::layer_of(step)) & self.live_steps();
        (0..step)
            .filter(|lower| own >> lower & 1 == 1)
            .find(|lower| {
                ladder.rungs[usize::from(*lower)].fps * 100 >= u32::from(fps) * ENOUGH_PERCENT
            })
            .unwrap_or(step)
    }

    /// Rates of every step, once a round.
    pub fn measure(&mut self) {
        for layer in &mut self.layers {
            layer.measure();
        }
        self.measure_steps();
    }

    /// Rates of what lies between the layers.
    pub fn measure_steps(&mut self) {
        if let Some(ladder) = &mut self.ladder {
            ladder.measure();
        }
    }

    /// Spatial layers that fell silent while others go on. True if one did.
    pub fn stop_silent_sizes(&mut self) -> bool {
        let Some(ladder) = self.ladder.as_mut().filter(|_| self.layers.len() == 1) else {
            return false;
        };
        let before = ladder.live_sizes;
        for (size, pulse) in ladder.pulses.iter_mut().enumerate() {
            if pulse.is_still(ladder.newest) {
                ladder.live_sizes &= !(1 << size);
            }
            pulse.forget();
        }
        ladder.live_sizes != before
    }
}
