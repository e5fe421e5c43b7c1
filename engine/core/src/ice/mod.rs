//! One answering ICE endpoint per transport (RFC 8445, RFC 8489 section 9.1, RFC 7675). It never opens a pair.
//!
//! * A check with the right password validates the 5-tuple it came from; checks of either role get a success.
//! * If we offered and the peer is controlled, that same 5-tuple gets a triggered check with USE-CANDIDATE.
//!   An authenticated 487 follows only when no DTLS comes within 1.5 s.
//! * Consent checks of our own go to validated pairs only. A matching response or an authenticated request
//!   renews consent, an indication never; a pair without consent for 30 s is forgotten.
//! * Media goes to the pair that the peer nominated last, or, when it nominates none, to the one it uses.
//! * A restart adds a generation: the old password keeps answering and the old pair keeps sending until the
//!   peer uses the new one.
//!
//! Not here: our own checks and what time brings (`timers`), which transport a ufrag belongs to, and dropping what comes
//! from other 5-tuples (`plane`).

mod pair;
#[cfg(test)]
mod tests;
mod timers;

use crate::id::Micros;
use crate::random::Random;
use crate::stun::{Class, Key, Message, Role, Transaction, Writer};
use crate::wire::{Output, Path};

use pair::Pair;

/// 5-tuples one transport may have validated at once. Browsers show one per local interface and family.
pub const MAX_PAIRS: usize = 16;
/// RFC 7675 section 5.1.
const CONSENT_US: u64 = 30_000_000;
/// RFC 7675 section 5.1: 5 s times 0.8..1.2.
const CHECK_US: (u64, u64) = (4_000_000, 6_000_000);
/// A pair on which the peer itself sent nothing for this long gives way to one where it does: more than the
/// 2.5-2.7 s between libwebrtc's checks of its selected pair.
const STALE_US: u64 = 3_000_000;
/// A nominated pair gives way to one that carries media after this long.
const MEDIA_MOVED_US: u64 = 1_000_000;
const DTLS_PATIENCE_US: u64 = 1_500_000;
const CONFLICT_GAP_US: u64 = 1_000_000;
/// More role conflicts than these would only flip the role to and fro.
const MAX_CONFLICTS: u8 = 3;

/// What changed; the plane keeps its tables by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first 5-tuple of the transport.
    Validated,
    /// Datagrams from this 5-tuple are ours from now on.
    Added(Path),
    /// And no longer.
    Removed(Path),
    /// No authenticated packet for five seconds.
    Silent,
    /// One came after all.
    Heard,
    /// No pair has consent; only a restart can wake this transport.
    Expired,
}

/// What became of a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was authentic.
    Authentic,
    /// MESSAGE-INTEGRITY is missing or wrong.
    Forged,
    /// Nothing that we asked for, or nothing that matters.
    Ignored,
}

#[derive(Debug)]
struct Remote {
    ufrag: Vec<u8>,
    key: Key,
}

/// One pair of credentials on each side (RFC 8445 section 9).
#[derive(Debug)]
struct Generation {
    serial: u32,
    local_ufrag: Vec<u8>,
    local_key: Key,
    remote: Option<Remote>,
}

/// Where a transport stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No authenticated check yet.
    #[default]
    Waiting,
    /// Validated, and heard within five seconds.
    Heard,
    /// Validated, and silent.
    Silent,
    /// Consent is lost.
    Expired,
}

/// The ICE state of one transport.
#[derive(Debug)]
pub struct Ice {
    offered_by_us: bool,
    generations: Vec<Generation>,
    pairs: Vec<Pair>,
    active: Option<Path>,
    /// What the peer's last check said of itself.
    peer_role: Option<Role>,
    first_validated: Option<Micros>,
    dtls_path: Option<Path>,
    last_conflict: Option<Micros>,
    conflicts: u8,
    last_heard: Micros,
    /// Without any pair, the peer may come until then: as long as the consent of a pair that was lost before would have
    /// lasted, or after a restart.
    awaited_until: Option<Micros>,
    is_silent: bool,
    is_expired: bool,
    random: Random,
    changes: Vec<Change>,
}

impl Ice {
    /// Answer checks under these credentials.
    #[must_use]
    pub fn new(ufrag: &[u8], password: &[u8], offered_by_us: bool, now: Micros, seed: u64) -> Self {
        let mut ice = Self {
            offered_by_us,
            generations: Vec::with_capacity(2),
            pairs: Vec::new(),
            active: None,
            peer_role: None,
            first_validated: None,
            dtls_path: None,
            last_conflict: None,
            conflicts: 0,
            last_heard: now,
            awaited_until: None,
            is_silent: false,
            is_expired: false,
            random: Random::new(seed),
            changes: Vec::new(),
        };
        ice.add_generation(ufrag, password);
        ice
    }

    fn add_generation(&mut self, ufrag: &[u8], password: &[u8]) -> u32 {
        let serial = self
            .generations
            .last()
            .map_or(0, |newest| newest.serial + 1);
        self.generations.push(Generation {
            serial,
            local_ufrag: ufrag.to_vec(),
            local_key: Key::new(password),
            remote: None,
        });
        serial
    }

    /// A new generation. Returns its serial and the ufrag that nobody answers any more, if one had to go.
    pub fn restart(
        &mut self,
        ufrag: &[u8],
        password: &[u8],
        now: Micros,
    ) -> (u32, Option<Vec<u8>>) {
        let forgotten =
            (self.generations.len() == 2).then(|| self.generations.remove(0).local_ufrag);
        let serial = self.add_generation(ufrag, password);
        if self.is_expired {
            self.is_expired = false;
            self.first_validated = None;
            self.last_heard = now;
        }
        self.awaited_until = Some(Micros(now.0 + CONSENT_US));
        self.conflicts = 0;
        (serial, forgotten)
    }

    /// The peer's credentials, for the newest generation.
    pub fn set_remote(
        &mut self,
        ufrag: &[u8],
        password: &[u8],
        now: Micros,
        out: &mut impl Output,
    ) {
        let newest = self
            .generations
            .last_mut()
            .expect("there is always a generation");
        newest.remote = Some(Remote {
            ufrag: ufrag.to_vec(),
            key: Key::new(password),
        });
        let serial = newest.serial;
        for at in 0..self.pairs.len() {
            if self.pairs[at].serial == serial {
                self.pairs[at].next_check = now.plus_ms(self.random.between(0, 500));
                self.nominate(at, now, out);
            }
        }
    }

    /// Every ufrag that answers.
    pub fn ufrags(&self) -> impl Iterator<Item = &[u8]> {
        self.generations
            .iter()
            .map(|generation| generation.local_ufrag.as_slice())
    }

    /// The validated 5-tuples.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.pairs.iter().map(|pair| pair.path)
    }

    /// What changed since the last call, in order.
    pub fn take_change(&mut self) -> Option<Change> {
        (!self.changes.is_empty()).then(|| self.changes.remove(0))
    }

    /// Whether `take_change` has something.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Where media goes; None = nowhere.
    #[must_use]
    pub fn active(&self) -> Option<&Path> {
        self.active.as_ref()
    }

    /// Where a DTLS record goes: to the 5-tuple of the last one, or else to the active pair.
    #[must_use]
    pub fn dtls_path(&self) -> Option<&Path> {
        self.dtls_path.as_ref().or(self.active.as_ref())
    }

    /// Round trip of the active pair, microseconds; 0 = not measured.
    #[must_use]
    pub fn rtt_us(&self) -> u64 {
        let active = self.active.and_then(|path| self.position(&path));
        active.map_or(0, |at| self.pairs[at].rtt_us)
    }

    /// When the transport was last heard, authenticated.
    #[must_use]
    pub fn last_heard(&self) -> Micros {
        self.last_heard
    }

    fn position(&self, path: &Path) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.path == *path)
    }

    fn generation(&self, serial: u32) -> Option<&Generation> {
        self.generations
            .iter()
            .find(|generation| generation.serial == serial)
    }

    /// Whether a Binding request for the ufrag of this generation knows its password.
    #[must_use]
    pub fn is_authentic(&self, serial: u32, message: &Message<'_>) -> bool {
        let generation = self.generation(serial);
        generation.is_some_and(|generation| message.is_authentic(&generation.local_key))
    }

    /// A Binding request that asked for the ufrag of this generation.
    pub fn request(
        &mut self,
        serial: u32,
        message: &Message<'_>,
        path: &Path,
        now: Micros,
        out: &mut impl Output,
    ) -> Verdict {
        let Some(generation) = self.generation(serial) else {
            return Verdict::Ignored;
        };
        if !message.is_authentic(&generation.local_key) {
            return Verdict::Forged;
        }
        if self.is_expired {
            return Verdict::Ignored; // RFC 7675 section 5.1: only new credentials start sending again
        }
        if let Some(unknown) = message.unknown {
            self.answer(
                serial,
                path,
                out,
                Class::Error,
                &message.transaction,
                |writer| writer.error(420).unknown(unknown),
            );
            return Verdict::Authentic;
        }
        if message.role.is_some() {
            self.peer_role = message.role;
        }
        if self.is_conflict_due(message, now) {
            self.last_conflict = Some(now);
            self.conflicts += 1;
            self.answer(
                serial,
                path,
                out,
                Class::Error,
                &message.transaction,
                |writer| writer.error(487),
            );
        } else {
            self.answer(
                serial,
                path,
                out,
                Class::Success,
                &message.transaction,
                |writer| writer.mapped(path.remote),
            );
        }
        self.validated(serial, message.use_candidate, path, now);
        if let Some(at) = self.position(path) {
            self.nominate(at, now, out);
        }
        Verdict::Authentic
    }

    /// The late fallback: the peer is as passive as we are, and neither our success nor our nomination moved it.
    fn is_conflict_due(&self, message: &Message<'_>, now: Micros) -> bool {
        let gap = CONFLICT_GAP_US.max(2 * self.rtt_us());
        self.offered_by_us
            && message.role == Some(Role::Controlled)
            && self.dtls_path.is_none()
            && self
                .first_validated
                .is_some_and(|since| now.since(since) > DTLS_PATIENCE_US)
            && self.last_conflict.is_none_or(|last| now.since(last) > gap)
            && self.conflicts < MAX_CONFLICTS
    }

    fn answer(
        &self,
        serial: u32,
        path: &Path,
        out: &mut impl Output,
        class: Class,
        transaction: &Transaction,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) {
        let generation = self.generation(serial).expect("the caller looked it up");
        let len = fill(Writer::new(out.slot(), class, transaction)).finish(&generation.local_key);
        out.commit(path, len);
    }

    /// An authenticated request came from this path: it is a pair, it has consent, and media may move to it.
    fn validated(&mut self, serial: u32, is_nominated: bool, path: &Path, now: Micros) {
        let at = match self.position(path) {
            Some(at) => {
                let pair = &mut self.pairs[at];
                if serial > pair.serial {
                    pair.join(serial, now);
                }
                at
            }
            None => self.add_pair(serial, path, now),
        };
        let is_new = self.pairs[at].requests == 0;
        let pair = &mut self.pairs[at];
        pair.requests += 1;
        pair.consent_at = now;
        pair.used_at = now;
        pair.is_nominated |= is_nominated && serial == pair.serial;
        if self.may_move(at, is_nominated, is_new, now) {
            self.active = Some(*path);
        }
        if self.first_validated.is_none() {
            self.first_validated = Some(now);
            self.changes.push(Change::Validated);
        }
        self.heard(now);
    }

    /// Whether a check on this pair moves media to it.
    fn may_move(&self, to: usize, is_nominated: bool, is_new: bool, now: Micros) -> bool {
        let Some(from) = self.active.and_then(|path| self.position(&path)) else {
            return true;
        };
        let (from, to) = (&self.pairs[from], &self.pairs[to]);
        if to.serial < from.serial {
            return false; // a late check under old credentials
        }
        if is_nominated {
            return true;
        }
        let is_quiet = now.since(from.used_at) > STALE_US;
        // A controlling peer will say which pair it wants; a controlled one shows it by using it.
        is_quiet || (is_new && self.peer_role != Some(Role::Controlling) && !from.is_nominated)
    }

    fn add_pair(&mut self, serial: u32, path: &Path, now: Micros) -> usize {
        if self.pairs.len() >= MAX_PAIRS {
            let active = self.active;
            let spare = self
                .pairs
                .iter()
                .enumerate()
                .filter(|(_, pair)| Some(pair.path) != active);
            let oldest = spare.min_by_key(|(_, pair)| pair.consent_at);
            let (at, _) = oldest.expect("more pairs than the active one");
            self.remove_pair(at);
        }
        let next_check = Micros(now.0 + self.random.between(CHECK_US.0, CHECK_US.1));
        self.pairs.push(Pair::new(serial, *path, now, next_check));
        self.changes.push(Change::Added(*path));
        self.pairs.len() - 1
    }

    fn remove_pair(&mut self, at: usize) {
        let path = self.pairs.swap_remove(at).path;
        self.changes.push(Change::Removed(path));
        if self.dtls_path == Some(path) {
            self.dtls_path = None;
        }
        if self.active == Some(path) {
            let best = self
                .pairs
                .iter()
                .max_by_key(|pair| (pair.serial, pair.used_at));
            self.active = best.map(|pair| pair.path);
        }
    }

    /// Another transport took this 5-tuple over by an authenticated check; the plane knows already.
    pub fn forget(&mut self, path: &Path) {
        if self.lose(path) {
            self.changes.pop();
        }
    }

    /// The connection that was this pair is closed (RFC 6544 section 9): nothing can be sent there any more.
    pub fn hung_up(&mut self, path: &Path) {
        self.lose(path);
    }

    /// A pair ends before its consent does. False: there is none.
    fn lose(&mut self, path: &Path) -> bool {
        let Some(at) = self.position(path) else {
            return false;
        };
        let end = Micros(self.pairs[at].consent_at.0 + CONSENT_US);
        self.awaited_until = self.awaited_until.max(Some(end));
        self.remove_pair(at);
        true
    }

    /// A response to one of our checks.
    pub fn response(&mut self, message: &Message<'_>, path: &Path, now: Micros) -> Verdict {
        let Some(at) = self.position(path) else {
            return Verdict::Ignored;
        };
        let Some(asked_at) = self.pairs[at].asked_at(&message.transaction) else {
            return Verdict::Ignored;
        };
        let remote = self
            .generation(self.pairs[at].serial)
            .and_then(|own| own.remote.as_ref());
        if !remote.is_some_and(|remote| message.is_authentic(&remote.key)) {
            return Verdict::Forged;
        }
        self.heard(now);
        let pair = &mut self.pairs[at];
        pair.answered(&message.transaction);
        if message.class == Class::Success {
            pair.consent_at = now;
            pair.rtt_us = now.since(asked_at).max(1);
        }
        Verdict::Authentic
    }

    /// A DTLS datagram came from a validated path. False: more than a handshake needs, drop it.
    pub fn dtls(&mut self, path: &Path, is_keyed: bool, now: Micros) -> bool {
        let Some(at) = self.position(path) else {
            return false;
        };
        if !is_keyed && !self.pairs[at].handshake.take(now) {
            return false;
        }
        self.dtls_path = Some(*path);
        true
    }

    /// An SRTP or SRTCP packet from a validated path was authenticated.
    pub fn media(&mut self, path: &Path, now: Micros) {
        self.heard(now);
        let Some(at) = self.position(path) else {
            return;
        };
        self.pairs[at].used_at = now;
        if self.active == Some(*path) {
            return;
        }
        let active = self
            .active
            .and_then(|path| self.position(&path))
            .map(|at| &self.pairs[at]);
        let is_moving = active.is_none_or(|active| {
            let is_free = !active.is_nominated && active.serial <= self.pairs[at].serial;
            is_free || now.since(active.used_at) > MEDIA_MOVED_US
        });
        if is_moving {
            self.active = Some(*path);
        }
    }

    fn heard(&mut self, now: Micros) {
        self.last_heard = now;
        if self.is_silent {
            self.is_silent = false;
            self.changes.push(Change::Heard);
        }
    }

    /// What the changes told so far come to, for an owner that missed some.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.first_validated, self.is_expired, self.is_silent) {
            (_, true, _) => State::Expired,
            (None, ..) => State::Waiting,
            (Some(_), _, true) => State::Silent,
            (Some(_), ..) => State::Heard,
        }
    }
}
