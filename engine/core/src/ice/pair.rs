//! A validated 5-tuple: when it was used, when it was asked, whether it has consent.

use crate::id::Micros;
use crate::limit::Bucket;
use crate::stun::Transaction;
use crate::wire::Path;

/// Checks whose answer may still come: 30 s of consent at one per 3 s at most.
const OUTSTANDING: usize = 10;
/// DTLS datagrams before the keys are set. A Chromium ClientHello is two datagrams and both sides retransmit
/// with growing pauses, so a handshake needs about ten; a flood gets no further than this.
const HANDSHAKE_BURST: u64 = 40;
const HANDSHAKE_PER_S: u64 = 20;
/// Sends of one triggered check, and the pauses between them.
const NOMINATION_PAUSES_MS: [u64; 2] = [500, 1_000];

/// Our triggered check with USE-CANDIDATE.
#[derive(Clone, Copy, Debug)]
pub enum Nomination {
    /// Not sent under this generation.
    None,
    /// Sent, unanswered; to be repeated then, if at all.
    Asked {
        transaction: Transaction,
        again: Option<Micros>,
        sends: usize,
    },
    /// Answered.
    Done,
}

impl Nomination {
    /// Just sent.
    pub fn first(transaction: Transaction, now: Micros) -> Self {
        let again = Some(now.plus_ms(NOMINATION_PAUSES_MS[0]));
        Self::Asked {
            transaction,
            again,
            sends: 1,
        }
    }

    /// The transaction to repeat now, if it is time.
    pub fn due(&mut self, now: Micros) -> Option<Transaction> {
        let Self::Asked {
            transaction,
            again,
            sends,
        } = self
        else {
            return None;
        };
        if again.is_none_or(|at| now < at) {
            return None;
        }
        *again = NOMINATION_PAUSES_MS
            .get(*sends)
            .map(|pause| now.plus_ms(*pause));
        *sends += 1;
        Some(*transaction)
    }
}

/// One validated 5-tuple.
#[derive(Debug)]
pub struct Pair {
    pub path: Path,
    /// The newest generation whose credentials it was validated with.
    pub serial: u32,
    /// Authenticated requests under that generation.
    pub requests: u64,
    /// The last proof of consent.
    pub consent_at: Micros,
    /// The last thing the peer sent here by itself: a request or media.
    pub used_at: Micros,
    /// The peer nominated it.
    pub is_nominated: bool,
    pub nomination: Nomination,
    pub next_check: Micros,
    pub checked_at: Option<Micros>,
    /// 0 = not measured.
    pub rtt_us: u64,
    pub handshake: Bucket,
    outstanding: [Option<(Transaction, Micros)>; OUTSTANDING],
    next_slot: usize,
}

impl Pair {
    pub fn new(serial: u32, path: Path, now: Micros, next_check: Micros) -> Self {
        Self {
            path,
            serial,
            requests: 0,
            consent_at: now,
            used_at: now,
            is_nominated: false,
            nomination: Nomination::None,
            next_check,
            checked_at: None,
            rtt_us: 0,
            handshake: Bucket::new(HANDSHAKE_PER_S, HANDSHAKE_BURST),
            outstanding: [None; OUTSTANDING],
            next_slot: 0,
        }
    }

    /// The same 5-tuple was validated again under newer credentials.
    pub fn join(&mut self, serial: u32, now: Micros) {
        self.serial = serial;
        self.requests = 0;
        self.is_nominated = false;
        self.nomination = Nomination::None;
        self.next_check = now.plus_ms(1_000);
        self.outstanding = [None; OUTSTANDING];
    }

    /// We sent a check.
    pub fn asked(&mut self, transaction: Transaction, now: Micros) {
        self.checked_at = Some(now);
        self.outstanding[self.next_slot] = Some((transaction, now));
        self.next_slot = (self.next_slot + 1) % OUTSTANDING;
    }

    /// When the check of this transaction was last sent.
    pub fn asked_at(&self, transaction: &Transaction) -> Option<Micros> {
        let own = self
            .outstanding
            .iter()
            .flatten()
            .filter(|(own, _)| own == transaction);
        own.map(|(_, at)| *at).max()
    }

    /// Its answer came: nothing more will count for it.
    pub fn answered(&mut self, transaction: &Transaction) {
        for slot in &mut self.outstanding {
            if slot.is_some_and(|(own, _)| own == *transaction) {
                *slot = None;
            }
        }
        if matches!(&self.nomination, Nomination::Asked { transaction: own, .. } if own == transaction)
        {
            self.nomination = Nomination::Done;
        }
    }
}
