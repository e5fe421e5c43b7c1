//! Which stream a packet belongs to: its SSRC if known, else its mid and rid, else its payload type (RFC 8843 section 9.2).
//!
//! Everything is scoped to the transport the packet came on (S8).

use crate::id::Micros;

use super::ingress::end_segments;
use super::publication::LAYER_SILENT_US;
use super::router::{Router, Stream};
use super::rtp::{element, Header};

impl Router {
    /// The stream of a packet: known SSRC, else learned by mid and rid, else by payload type.
    pub(super) fn find(
        &mut self,
        slot: u32,
        header: &Header,
        packet: &[u8],
        now: Micros,
    ) -> Option<Stream> {
        let transport = self.transports[slot as usize].as_ref()?;
        let known = transport
            .streams
            .iter()
            .find(|stream| stream.ssrc == header.ssrc);
        if let Some(stream) = known {
            return Some(*stream);
        }
        let mut by_type = None;
        let mut candidates = 0;
        let mut found = None;
        let mut named = false;
        for &index in &transport.publications {
            let Some(publication) = &self.publications[index as usize] else {
                continue;
            };
            let ids = &publication.stream.extensions;
            let mid = element(header, packet, ids.mid);
            named |= mid.is_some();
            let Some((_, rtx)) = publication.codec_of(header.payload_type) else {
                continue;
            };
            if mid.is_some_and(|mid| mid == publication.stream.mid.as_bytes()) {
                let id = if rtx { ids.repaired_rid } else { ids.rid };
                let rid = element(header, packet, id);
                let layer = publication.layer_of(rid)?;
                found = Some((index, layer, rtx));
                break;
            }
            candidates += 1;
            let silent = publication.layers[0]
                .heard
                .is_none_or(|heard| now.since(heard) > LAYER_SILENT_US);
            let free = publication.layers.len() == 1 && (rtx || silent);
            by_type = free.then_some((index, 0, rtx));
        }
        // Without a mid the payload type must name exactly one section (RFC 8843 section 9.2).
        let by_type = by_type.filter(|_| !named && candidates == 1);
        let (index, layer, rtx) = found.or(by_type)?;
        let stream = Stream {
            ssrc: header.ssrc,
            publication: index,
            layer,
            rtx,
        };
        self.learn(slot, stream);
        Some(stream)
    }

    /// From now on this SSRC is that layer; the one before is forgotten.
    fn learn(&mut self, slot: u32, stream: Stream) {
        let (Some(transport), Some(publication)) = (
            &mut self.transports[slot as usize],
            &mut self.publications[stream.publication as usize],
        ) else {
            return;
        };
        transport.streams.retain(|old| {
            old.ssrc != stream.ssrc
                && (old.publication, old.layer, old.rtx)
                    != (stream.publication, stream.layer, stream.rtx)
        });
        transport.streams.push(stream);
        if stream.rtx {
            return;
        }
        let layer = &mut publication.layers[usize::from(stream.layer)];
        if layer.ssrc.replace(stream.ssrc) == Some(stream.ssrc) {
            return;
        }
        if layer.receive.is_some() {
            layer.start_over();
            end_segments(publication, &mut self.egress, stream.layer);
        }
    }

    /// Enter the signalled SSRCs of a publication.
    pub(super) fn signalled(&mut self, index: u32) {
        let Some(publication) = &self.publications[index as usize] else {
            return;
        };
        let slot = publication.transport;
        if publication.mirror.is_some() {
            return;
        }
        let pairs = publication.stream.ssrcs.clone();
        for ((ssrc, rtx_ssrc), layer) in pairs.into_iter().zip(0u8..) {
            for (ssrc, rtx) in [(ssrc, false), (rtx_ssrc, true)] {
                let known = self.transports[slot as usize]
                    .as_ref()
                    .is_none_or(|entry| entry.streams.iter().any(|stream| stream.ssrc == ssrc));
                if ssrc != 0 && !known {
                    let stream = Stream {
                        ssrc,
                        publication: index,
                        layer,
                        rtx,
                    };
                    self.learn(slot, stream);
                }
            }
        }
    }
}
