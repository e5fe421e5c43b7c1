//! What an endpoint does by itself: consent checks, repeated nominations, the end of pairs, silence.
//!
//! Not here: what checks and answers that arrive change (`ice`), one pair's state (`pair`).

use crate::id::Micros;
use crate::stun::{Class, Role, Transaction, Writer};
use crate::wire::Output;

use super::pair::{Nomination, Pair};
use super::{Change, Ice, CHECK_US, CONSENT_US};

/// A quiet active pair is asked sooner than consent needs, so that "silent" at 5 s never means "nobody asked".
const PROBE_AFTER_US: u64 = 3_000_000;
const SILENT_US: u64 = 5_000_000;
/// We always mean to win a conflict (RFC 8445 section 7.3.1.1).
const TIE_BREAKER: u64 = u64::MAX;
/// PRIORITY of a peer-reflexive candidate of ours (RFC 8445 section 5.1.2.1), which is what our checks would show.
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

impl Ice {
    /// When `tick` has something to do.
    #[must_use]
    pub fn timeout(&self) -> Option<Micros> {
        if self.is_expired {
            return None;
        }
        let silent = (self.first_validated.is_some() && !self.is_silent)
            .then_some(Micros(self.last_heard.0 + SILENT_US));
        let is_awaited = self.first_validated.is_some() && self.pairs.is_empty();
        let awaited = self.awaited_until.filter(|_| is_awaited);
        let pairs = self.pairs.iter().map(|pair| self.pair_timeout(pair));
        pairs.chain(silent).chain(awaited).min()
    }

    fn pair_timeout(&self, pair: &Pair) -> Micros {
        let end = Micros(pair.consent_at.0 + CONSENT_US);
        let is_askable = self
            .generation(pair.serial)
            .is_some_and(|own| own.remote.is_some());
        if !is_askable {
            return end;
        }
        let check = if self.active == Some(pair.path) {
            let probe =
                self.last_heard.0.max(pair.checked_at.map_or(0, |at| at.0)) + PROBE_AFTER_US;
            pair.next_check.min(Micros(probe))
        } else {
            pair.next_check
        };
        let nomination = match pair.nomination {
            Nomination::Asked { again, .. } => again,
            Nomination::None | Nomination::Done => None,
        };
        end.min(check).min(nomination.unwrap_or(end))
    }

    /// Consent checks, repeated nominations, expiry, silence.
    pub fn tick(&mut self, now: Micros, out: &mut impl Output) {
        if self.is_expired {
            return;
        }
        let mut at = 0;
        while at < self.pairs.len() {
            if now.since(self.pairs[at].consent_at) >= CONSENT_US {
                self.remove_pair(at);
                continue;
            }
            self.renominate(at, now, out);
            let pair = &self.pairs[at];
            let is_quiet = self.active == Some(pair.path)
                && now.since(self.last_heard) >= PROBE_AFTER_US
                && pair
                    .checked_at
                    .is_none_or(|last| now.since(last) >= PROBE_AFTER_US);
            if now >= pair.next_check || is_quiet {
                self.pairs[at].next_check =
                    Micros(now.0 + self.random.between(CHECK_US.0, CHECK_US.1));
                let transaction = self.transaction();
                self.check(at, transaction, false, now, out);
            }
            at += 1;
        }
        if self.first_validated.is_none() {
            return;
        }
        let is_awaited = self.awaited_until.is_some_and(|until| now < until);
        if self.pairs.is_empty() && !is_awaited {
            self.is_expired = true;
            self.active = None;
            self.changes.push(Change::Expired);
        } else if !self.is_silent && now.since(self.last_heard) >= SILENT_US {
            self.is_silent = true;
            self.changes.push(Change::Silent);
        }
    }

    /// The triggered check with USE-CANDIDATE, once per pair and generation.
    pub(super) fn nominate(&mut self, at: usize, now: Micros, out: &mut impl Output) {
        let is_ours = self.offered_by_us && self.peer_role == Some(Role::Controlled);
        if !is_ours || !matches!(self.pairs[at].nomination, Nomination::None) {
            return;
        }
        let transaction = self.transaction();
        if self.check(at, transaction, true, now, out) {
            self.pairs[at].nomination = Nomination::first(transaction, now);
        }
    }

    fn renominate(&mut self, at: usize, now: Micros, out: &mut impl Output) {
        if let Some(transaction) = self.pairs[at].nomination.due(now) {
            self.check(at, transaction, true, now, out);
        }
    }

    fn transaction(&mut self) -> Transaction {
        let mut transaction = [0; 12];
        transaction[..8].copy_from_slice(&self.random.next_u64().to_be_bytes());
        transaction[8..].copy_from_slice(&self.random.next_u64().to_be_bytes()[..4]);
        transaction
    }

    /// A Binding request on this pair with the credentials of its generation. False: the peer's are unknown.
    fn check(
        &mut self,
        at: usize,
        transaction: Transaction,
        is_nomination: bool,
        now: Micros,
        out: &mut impl Output,
    ) -> bool {
        let pair = &self.pairs[at];
        let Some(generation) = self.generation(pair.serial) else {
            return false;
        };
        let Some(remote) = &generation.remote else {
            return false;
        };
        // The opposite of what the peer says of itself, so that a check never starts a role conflict.
        let role = match self.peer_role {
            Some(Role::Controlled) => Role::Controlling,
            Some(Role::Controlling) => Role::Controlled,
            None if self.offered_by_us => Role::Controlling,
            None => Role::Controlled,
        };
        let mut writer = Writer::new(out.slot(), Class::Request, &transaction)
            .username(&remote.ufrag, &generation.local_ufrag)
            .priority(PRIORITY)
            .role(role, TIE_BREAKER);
        if is_nomination {
            writer = writer.use_candidate();
        }
        let len = writer.finish(&remote.key);
        out.commit(&pair.path, len);
        self.pairs[at].asked(transaction, now);
        true
    }
}
