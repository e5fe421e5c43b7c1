//! From the router to the wire: protect in place, to the pair that media goes to.

use crate::id::TransportId;
use crate::media::{self, Sink, MAX_PACKET_BYTES};
use crate::shard::Notice;
use crate::wire::{Event, Output};

use super::transport::Table;

/// Where the router puts what it makes.
pub struct Egress<'a, O> {
    table: &'a mut Table,
    out: &'a mut O,
    /// Place of the transport whose slot was handed out.
    pending: Option<usize>,
}

impl<'a, O: Output> Egress<'a, O> {
    pub fn new(table: &'a mut Table, out: &'a mut O) -> Self {
        Self {
            table,
            out,
            pending: None,
        }
    }
}

impl<O: Output> Egress<'_, O> {
    fn send(&mut self, len: usize, repeatable: bool) {
        let Some(transport) = self.pending.take().and_then(|at| self.table.at_mut(at)) else {
            return;
        };
        if len == 0 {
            return;
        }
        if let (Some(session), Some(path)) = (&mut transport.srtp, transport.ice.active()) {
            let traffic = transport.carried.traffic(self.out.slot());
            let sealed = if repeatable {
                session.sender.rtp_repeatable(self.out.slot(), len)
            } else {
                session.sender.rtp(self.out.slot(), len)
            };
            if let Ok(len) = sealed {
                transport.counters.sent(len);
                self.out.commit_as(path, len, traffic);
            }
        }
    }
}

impl<O: Output> Sink for Egress<'_, O> {
    fn rtp(&mut self, to: TransportId) -> Option<&mut [u8]> {
        let at = self.table.place(to)?;
        let transport = self.table.at_mut(at)?;
        if transport.srtp.is_none() || transport.ice.active().is_none() {
            return None;
        }
        self.pending = Some(at);
        Some(self.out.slot())
    }

    fn rtp_done(&mut self, len: usize) {
        self.send(len, false);
    }

    fn rtp_done_repeatable(&mut self, len: usize) {
        self.send(len, true);
    }

    fn rtcp(&mut self, to: TransportId, compound: &[u8]) {
        let Some(transport) = self.table.get_mut(to) else {
            return;
        };
        if let (Some(session), Some(path)) = (&mut transport.srtp, transport.ice.active()) {
            if compound.len() > MAX_PACKET_BYTES {
                return;
            }
            let slot = self.out.slot();
            slot[..compound.len()].copy_from_slice(compound);
            if let Ok(len) = session.sender.rtcp(slot, compound.len()) {
                transport.counters.sent(len);
                self.out.commit(path, len);
            }
        }
    }

    fn event(&mut self, event: media::Event) {
        self.out.event(Event::Media(event));
    }

    fn relay(&mut self, to: u8, packet: &media::Relayed, bytes: &[u8]) {
        self.out.relay(to, packet, bytes);
    }

    fn notify(&mut self, to: u8, notice: media::Notice) {
        self.out.notify(to, Notice::Media(notice));
    }
}
