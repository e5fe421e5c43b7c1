//! 5-tuples of transports that are at home in other shards.
//!
//! The kernel spreads 5-tuples over the sockets of all shards. A check goes to the home of the ufrag that it names,
//! which anybody can compute; everything else goes where an authenticated check has validated its 5-tuple, which the
//! home announces. Strangers create no state anywhere (S1, S2, S4).
//! Not here: the queues between shards (`parley-io`).

use std::sync::Arc;

use crate::hash::FastMap;
use crate::id::Micros;
use crate::shard::{shard_of, Notice, Shard};
use crate::sources::Sources;
use crate::stun::{Class, Message};
use crate::wire::{Event, Output, Path, FIRST_LISTENER};

use super::{Plane, TAKEOVER_US};

/// Least time between two questions about a 5-tuple that somebody else has: checks are repeated anyway.
const CONTEST_US: u64 = 20_000;

/// What a plane knows of the others.
#[derive(Debug)]
pub struct Routes {
    pub shard: Shard,
    paths: FastMap<Path, u8>,
    contested: Micros,
}

impl Routes {
    pub fn new(shard: Shard) -> Self {
        Self {
            shard,
            paths: FastMap::default(),
            contested: Micros(0),
        }
    }

    /// The other shard that has this 5-tuple.
    pub fn owner(&self, path: &Path) -> Option<u8> {
        if self.paths.is_empty() {
            return None;
        }
        self.paths.get(path).copied()
    }

    /// A 5-tuple became ours.
    pub fn added(&mut self, path: &Path, out: &mut impl Output) {
        self.paths.remove(path);
        self.tell(&Notice::Routed(*path), out);
    }

    /// A 5-tuple is no longer ours.
    pub fn removed(&mut self, path: &Path, out: &mut impl Output) {
        self.tell(&Notice::Unrouted(*path), out);
    }

    fn tell(&self, notice: &Notice, out: &mut impl Output) {
        for other in self.shard.others() {
            out.notify(other, notice.clone());
        }
    }
}

impl Plane {
    /// One plane of several behind one port, which count unfinished handshakes together. Before anything else.
    pub fn set_shard(&mut self, shard: Shard, half_open: Arc<Sources>) {
        self.routes = Routes::new(shard);
        self.router.set_shard(shard);
        self.half_open = half_open;
    }

    /// The other shard that answers to the ufrag of this check. For what comes over connections.
    #[must_use]
    pub fn home_of_check(&self, datagram: &[u8]) -> Option<u8> {
        let message = Message::parse(datagram).ok()?;
        let ufrag = message
            .asked()
            .filter(|_| message.class == Class::Request)?;
        self.elsewhere(ufrag)
    }

    fn elsewhere(&self, ufrag: &[u8]) -> Option<u8> {
        let Shard { own, count } = self.routes.shard;
        let home = shard_of(ufrag, count);
        (home != own && !self.ufrags.contains_key(ufrag)).then_some(home)
    }

    /// A check that names no ufrag of ours. True: it is on its way to whoever has it.
    pub(super) fn pass_check(
        &mut self,
        path: &Path,
        ufrag: Option<&[u8]>,
        datagram: &[u8],
        out: &mut impl Output,
    ) -> bool {
        if self.is_passed_on || path.socket >= FIRST_LISTENER {
            return false; // connections move as a whole, never their frames
        }
        let Some(home) = ufrag.and_then(|ufrag| self.elsewhere(ufrag)) else {
            return false;
        };
        let is_known = self.routes.owner(path) == Some(home);
        out.pass(home, path, datagram, !is_known);
        true
    }

    /// Something else that came from no 5-tuple of ours. True: it is on its way to whoever has it.
    pub(super) fn pass_on(&mut self, path: &Path, datagram: &[u8], out: &mut impl Output) -> bool {
        let Some(owner) = self.routes.owner(path).filter(|_| !self.is_passed_on) else {
            return false;
        };
        out.pass(owner, path, datagram, false);
        true
    }

    /// A datagram that reached the socket of another shard. `end_batch` must follow.
    pub fn receive_passed_on(
        &mut self,
        path: &Path,
        datagram: &mut [u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        // Nothing travels twice: who passed it on may have been wrong, and then it is nobody's.
        self.is_passed_on = true;
        self.receive_in_batch(path, datagram, now, out);
        self.is_passed_on = false;
    }

    /// Whether this check may take its 5-tuple, which another shard has. That one is asked if the check is authentic.
    pub(super) fn is_taken_elsewhere(
        &mut self,
        path: &Path,
        is_authentic: bool,
        now: Micros,
        out: &mut impl Output,
    ) -> bool {
        let Some(owner) = self.routes.owner(path) else {
            return false;
        };
        if is_authentic && now.since(self.routes.contested) >= CONTEST_US {
            self.routes.contested = now;
            out.notify(owner, Notice::Contested(*path));
        }
        true
    }

    /// Another shard tells something.
    pub fn noticed(&mut self, from: u8, notice: Notice, now: Micros, out: &mut impl Output) {
        self.current = None;
        match notice {
            Notice::Routed(path) => {
                self.routes.paths.insert(path, from);
                // Both validated it at once: the check that is repeated next decides.
                if let Some(loser) = self.paths.remove(&path) {
                    if let Some(loser) = self.table.get_mut(loser) {
                        loser.ice.forget(&path);
                    }
                }
            }
            Notice::Unrouted(path) => {
                if self.routes.owner(&path) == Some(from) {
                    self.routes.paths.remove(&path);
                }
            }
            Notice::Contested(path) => self.contested(from, &path, now, out),
            Notice::Failed(id) => {
                if self.table.get_mut(id).is_some() {
                    self.forget(id, out);
                    out.event(Event::Expired(id));
                }
            }
            Notice::Media(notice) => {
                self.end_batch(now, out); // what is held came before it, and its panics are its publisher's
                let mut egress = super::Egress::new(&mut self.table, out);
                self.router.noticed(from, notice, now, &mut egress);
            }
        }
    }

    /// Somebody else's transport has an authentic check from a 5-tuple that was ours.
    fn contested(&mut self, by: u8, path: &Path, now: Micros, out: &mut impl Output) {
        let Some(&id) = self.paths.get(path) else {
            out.notify(by, Notice::Unrouted(*path)); // it only thinks so
            return;
        };
        let owner = self.table.get_mut(id).expect("paths lead to transports");
        if now.since(owner.ice.last_heard()) >= TAKEOVER_US {
            owner.ice.forget(path);
            self.paths.remove(path);
            self.routes.removed(path, out);
        }
    }

    /// A packet of a track that is at home in another shard. `end_batch` must follow.
    pub fn relayed(
        &mut self,
        packet: &crate::media::Relayed,
        bytes: &[u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        self.current = self.router.publisher_of(packet);
        if let Some(other) = self.router.holder() {
            if self.current != Some(other) {
                let mine = self.current.replace(other); // if it panics, it is not this one's fault
                let mut egress = super::Egress::new(&mut self.table, out);
                self.router.release(now, &mut egress);
                self.current = mine;
            }
        }
        let mut egress = super::Egress::new(&mut self.table, out);
        self.router.relayed(packet, bytes, now, &mut egress);
    }

    /// After a panic: where the transport that caused it is at home, if that is elsewhere.
    #[must_use]
    pub fn home_elsewhere(&self, id: crate::id::TransportId) -> Option<u8> {
        self.routes.shard.elsewhere(id.0)
    }
}
