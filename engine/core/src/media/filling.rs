//! Lost padding that only its neighbours, repaired meanwhile, give away: subscribers get padding under its number.
//!
//! Not here: what is known at once and closed up (`ingress`), how padding is told from pictures (`place`).

use crate::id::Micros;

use super::fanout::Copied;
use super::packet::Meta;
use super::place::Place;
use super::publication::Layer;
use super::router::Router;
use super::Sink;

/// So far the neighbours may be: longer runs of padding are an outage.
const REACH: u64 = 64;
/// A cached packet is never empty, and of this one nothing is read.
const NOTHING: [u8; 1] = [0];

/// A missing number that carried nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blank {
    publication: u32,
    layer: u8,
    number: u64,
    /// Of the picture before.
    timestamp: u32,
}

impl Router {
    /// Before they are asked for a second time: fill what was padding.
    pub(super) fn fill_blanks(&mut self, now: Micros, sink: &mut impl Sink) {
        let mut blanks = std::mem::take(&mut self.blanks);
        for (entry, publication) in self.publications.iter().zip(0u32..) {
            let layers = entry.iter().flat_map(|publication| &publication.layers);
            for (entry, layer) in layers.zip(0u8..) {
                let holes = entry
                    .receive
                    .iter()
                    .flat_map(|receive| receive.unanswered(now));
                blanks.extend(holes.filter_map(|number| {
                    Some(Blank {
                        publication,
                        layer,
                        number,
                        timestamp: entry.padding_at(number)?,
                    })
                }));
            }
        }
        for blank in &blanks {
            self.fill(*blank, now, sink);
        }
        if !blanks.is_empty() {
            self.release(now, sink);
        }
        blanks.clear();
        self.blanks = blanks;
    }

    fn fill(&mut self, blank: Blank, now: Micros, sink: &mut impl Sink) {
        let Some(Some(publication)) = self.publications.get_mut(blank.publication as usize) else {
            return;
        };
        let meta = Meta {
            codec: publication.codec,
            timestamp: blank.timestamp,
            ..Meta::default()
        };
        let layer = &mut publication.layers[usize::from(blank.layer)];
        let (Some(receive), Some(cache)) = (&mut layer.receive, &mut layer.cache) else {
            return;
        };
        let Some(dense) = receive.fill(blank.number) else {
            return;
        };
        let copied = Copied {
            layer: blank.layer,
            dense,
            newest: false,
            padding: 0,
        };
        let is_kept = cache.put(dense, meta, &NOTHING);
        if !publication.remotes.is_empty() {
            self.relay(blank.publication, copied, &meta, &NOTHING, sink);
        }
        if is_kept {
            self.hold(blank.publication, copied, now, sink);
        }
    }
}

impl Layer {
    /// If a missing number carried padding: the timestamp it had.
    fn padding_at(&self, number: u64) -> Option<u32> {
        let (receive, cache) = (self.receive.as_ref()?, self.cache.as_ref()?);
        let dense = receive.dense(number)?;
        let seen = |dense| {
            cache
                .get(dense)
                .filter(|(meta, _)| !meta.payload.is_empty())
        };
        let (before, packet) = (1..=REACH).find_map(|away| seen(dense - away))?;
        let (after, next) = (1..=REACH).find_map(|away| seen(dense + away))?;
        let is_padding = Place::of(&before, packet).adjoins(&Place::of(&after, next));
        is_padding.then_some(before.timestamp)
    }
}
