//! Virtual time: every timer of the module, and who may move media where.

use std::net::SocketAddr;

use super::*;
use crate::wire::{Event, SLOT_BYTES};

const OURS: (&[u8], &[u8]) = (b"ours", b"our password of 22 ch.");
const NEW: (&[u8], &[u8]) = (b"ours2", b"our new password of 22");
const THEIRS: (&[u8], &[u8]) = (b"them", b"their password, 22 ch.");
const START: Micros = Micros(1_000_000_000);

/// What was sent, to whom.
struct Sent {
    slot: [u8; SLOT_BYTES],
    datagrams: Vec<(Path, Vec<u8>)>,
}

impl Output for Sent {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: &Path, len: usize) {
        self.datagrams.push((*path, self.slot[..len].to_vec()));
    }

    fn event(&mut self, _event: Event) {}
}

fn path(port: u16) -> Path {
    let remote: SocketAddr = ([192, 0, 2, 1], port).into();
    Path {
        socket: 0,
        local: [198, 51, 100, 1].into(),
        remote,
    }
}

struct Scene {
    ice: Ice,
    out: Sent,
    now: Micros,
    serial: u32,
    password: &'static [u8],
    changes: Vec<(u64, Change)>,
}

impl Scene {
    fn new(offered_by_us: bool) -> Self {
        let mut out = Sent {
            slot: [0; SLOT_BYTES],
            datagrams: Vec::new(),
        };
        let mut ice = Ice::new(OURS.0, OURS.1, offered_by_us, START, 1);
        ice.set_remote(THEIRS.0, THEIRS.1, START, &mut out);
        Self {
            ice,
            out,
            now: START,
            serial: 0,
            password: OURS.1,
            changes: Vec::new(),
        }
    }

    fn note(&mut self) {
        let at = self.now.since(START) / 1_000;
        while let Some(change) = self.ice.take_change() {
            self.changes.push((at, change));
        }
    }

    /// When something was told, milliseconds from the start.
    fn told(&self, wanted: Change) -> Vec<u64> {
        let own = self.changes.iter().filter(|(_, change)| *change == wanted);
        own.map(|(at, _)| *at).collect()
    }

    /// A check of the peer; the class and the error of our answer.
    fn check(&mut self, port: u16, role: Role, nominates: bool) -> Option<(Class, Option<u16>)> {
        let mut room = [0; 512];
        let mut writer = Writer::new(&mut room, Class::Request, &[port as u8; 12])
            .username(OURS.0, THEIRS.0)
            .role(role, 5);
        if nominates {
            writer = writer.use_candidate();
        }
        let len = writer.finish(&Key::new(self.password));
        let message = Message::parse(&room[..len]).expect("well formed");
        let before = self.out.datagrams.len();
        self.ice
            .request(self.serial, &message, &path(port), self.now, &mut self.out);
        self.note();
        let (to, answer) = self.out.datagrams.get(before)?;
        assert_eq!(*to, path(port));
        let answer = Message::parse(answer).expect("our own message");
        Some((answer.class, answer.error))
    }

    /// Let time pass, running every timer when it is due. The peer answers our checks if `answers`.
    fn pass(&mut self, ms: u64, answers: bool) {
        let end = self.now.plus_ms(ms);
        while let Some(due) = self.ice.timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            let before = self.out.datagrams.len();
            self.ice.tick(self.now, &mut self.out);
            self.note();
            for (to, request) in self.out.datagrams.split_off(before) {
                let request_message = Message::parse(&request).expect("our own message");
                assert_eq!(request_message.class, Class::Request);
                assert!(request_message.is_authentic(&Key::new(THEIRS.1)));
                if answers {
                    self.answer(&request_message, &to, Key::new(THEIRS.1));
                }
                self.out.datagrams.push((to, request));
            }
        }
        self.now = end;
    }

    fn answer(&mut self, request: &Message<'_>, from: &Path, key: Key) -> Verdict {
        let mut room = [0; 512];
        let len = Writer::new(&mut room, Class::Success, &request.transaction)
            .mapped(from.remote)
            .finish(&key);
        let message = Message::parse(&room[..len]).expect("well formed");
        let verdict = self.ice.response(&message, from, self.now);
        self.note();
        verdict
    }

    fn requests(&self) -> Vec<(Path, Vec<u8>)> {
        let sent = self.out.datagrams.iter();
        sent.filter(|(_, bytes)| {
            Message::parse(bytes).is_ok_and(|message| message.class == Class::Request)
        })
        .cloned()
        .collect()
    }

    fn nominations(&self) -> usize {
        let requests = self.requests();
        let own = requests
            .iter()
            .map(|(_, bytes)| Message::parse(bytes).expect("ours"));
        own.filter(|message| message.use_candidate).count()
    }
}

#[test]
fn a_wrong_password_gets_no_answer_and_changes_nothing() {
    let mut scene = Scene::new(false);
    scene.password = b"not the password, no..";
    assert_eq!(scene.check(1, Role::Controlling, true), None);
    assert!(scene.changes.is_empty());
    assert!(scene.ice.active().is_none());
    scene.pass(60_000, true);
    assert!(scene.out.datagrams.is_empty());
}

#[test]
fn consent_is_asked_every_four_to_six_seconds_and_lives_on_answers_alone() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.pass(300_000, true);
    assert!(scene.ice.active().is_some());
    assert!(scene.told(Change::Silent).is_empty());
    assert!(scene.told(Change::Expired).is_empty());
    let count = scene.requests().len();
    assert!((50..=110).contains(&count), "{count} checks in 300 s");
}

#[test]
fn without_any_answer_silence_at_5_s_and_the_end_at_30_s() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.pass(29_000, false);
    assert!(scene.ice.active().is_some());
    scene.pass(11_000, false);
    assert_eq!(scene.told(Change::Silent), [5_000]);
    assert_eq!(scene.told(Change::Removed(path(1))), [30_000]);
    assert_eq!(scene.told(Change::Expired), [30_000]);
    assert!(scene.ice.active().is_none());
    let before = scene.out.datagrams.len();
    assert_eq!(scene.check(1, Role::Controlling, true), None);
    scene.pass(60_000, false);
    assert_eq!(
        scene.out.datagrams.len(),
        before,
        "an expired transport is mute"
    );
}

#[test]
fn forged_and_unasked_responses_renew_nothing() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    for _ in 0..7 {
        scene.pass(5_000, false);
        let Some((to, request)) = scene.requests().pop() else {
            continue;
        };
        let message = Message::parse(&request).expect("ours");
        assert_ne!(
            scene.answer(&message, &to, Key::new(b"not the password, no..")),
            Verdict::Authentic
        );
        let mut other = message.clone();
        other.transaction = [9; 12];
        assert_eq!(
            scene.answer(&other, &to, Key::new(THEIRS.1)),
            Verdict::Ignored
        );
        assert_eq!(
            scene.answer(&message, &path(2), Key::new(THEIRS.1)),
            Verdict::Ignored
        );
    }
    assert_eq!(scene.told(Change::Expired), [30_000]);
}

#[test]
fn a_request_renews_consent_and_breaks_the_silence() {
    let mut scene = Scene::new(false);
    for _ in 0..10 {
        scene.check(1, Role::Controlling, true);
        scene.pass(20_000, false);
    }
    assert!(scene.told(Change::Expired).is_empty());
    assert_eq!(scene.told(Change::Heard).len(), 9);
}

#[test]
fn a_passive_pair_is_nominated_three_times_at_most() {
    let mut scene = Scene::new(true);
    scene.check(1, Role::Controlled, false);
    assert_eq!(scene.nominations(), 1);
    scene.pass(10_000, false);
    assert_eq!(scene.nominations(), 3);
    let mut scene = Scene::new(true);
    scene.check(1, Role::Controlled, false);
    scene.check(2, Role::Controlled, false);
    let (to, first) = scene.requests().remove(0);
    let message = Message::parse(&first).expect("ours");
    assert_eq!(message.role, Some(Role::Controlling));
    scene.answer(&message, &to, Key::new(THEIRS.1));
    scene.pass(10_000, false);
    assert_eq!(scene.nominations(), 1 + 3);
}

#[test]
fn a_role_conflict_is_told_late_and_rarely_and_never_once_dtls_came() {
    let mut scene = Scene::new(true);
    let success = Some((Class::Success, None));
    let conflict = Some((Class::Error, Some(487)));
    assert_eq!(scene.check(1, Role::Controlled, false), success);
    scene.pass(1_400, true);
    assert_eq!(scene.check(1, Role::Controlled, false), success);
    scene.pass(200, true);
    assert_eq!(scene.check(1, Role::Controlling, true), success);
    assert_eq!(scene.check(1, Role::Controlled, false), conflict);
    assert_eq!(scene.check(1, Role::Controlled, false), success);
    let mut conflicts = 1;
    for _ in 0..100 {
        scene.pass(200, true);
        conflicts += usize::from(scene.check(1, Role::Controlled, false) == conflict);
    }
    assert_eq!(conflicts, 3);

    let mut scene = Scene::new(true);
    scene.check(1, Role::Controlled, false);
    assert!(scene.ice.dtls(&path(1), false, scene.now));
    scene.pass(5_000, true);
    assert_eq!(scene.check(1, Role::Controlled, false), success);
}

#[test]
fn the_latest_nomination_wins_and_a_dead_pair_gives_way() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.check(2, Role::Controlling, false);
    assert_eq!(scene.ice.active(), Some(&path(1)));
    scene.check(2, Role::Controlling, true);
    assert_eq!(scene.ice.active(), Some(&path(2)));
    // Pair 1 alone is heard from now on.
    for _ in 0..20 {
        scene.pass(2_000, false);
        scene.check(1, Role::Controlling, false);
    }
    assert_eq!(scene.ice.active(), Some(&path(1)));
    assert_eq!(scene.told(Change::Removed(path(2))), [30_000]);
    assert!(scene.told(Change::Expired).is_empty());
}

#[test]
fn media_shows_what_a_peer_that_never_nominates_uses() {
    let mut scene = Scene::new(true);
    scene.check(1, Role::Controlled, false);
    scene.check(2, Role::Controlled, false);
    scene.ice.media(&path(1), scene.now);
    assert_eq!(scene.ice.active(), Some(&path(1)));
    scene.pass(1_000, true);
    // A check on the backup pair moves nothing while the other one is in use.
    scene.check(2, Role::Controlled, false);
    assert_eq!(scene.ice.active(), Some(&path(1)));
    // A rebound port does, at once.
    scene.check(3, Role::Controlled, false);
    assert_eq!(scene.ice.active(), Some(&path(3)));
}

#[test]
fn a_restart_keeps_the_old_pair_until_the_peer_uses_the_new_credentials() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    assert_eq!(scene.ice.restart(NEW.0, NEW.1, scene.now), (1, None));
    scene.pass(2_000, true);
    assert_eq!(
        scene.check(1, Role::Controlling, true),
        Some((Class::Success, None))
    );
    assert_eq!(scene.ice.active(), Some(&path(1)));
    (scene.serial, scene.password) = (1, NEW.1);
    scene.check(2, Role::Controlling, false);
    assert_eq!(scene.ice.active(), Some(&path(1)), "not nominated yet");
    scene.check(2, Role::Controlling, true);
    assert_eq!(scene.ice.active(), Some(&path(2)));
    // A straggler under the old credentials is answered and moves nothing back.
    (scene.serial, scene.password) = (0, OURS.1);
    assert_eq!(
        scene.check(1, Role::Controlling, true),
        Some((Class::Success, None))
    );
    assert_eq!(scene.ice.active(), Some(&path(2)));
    // The third generation makes the first one mute.
    let third = scene.ice.restart(b"third", NEW.1, scene.now);
    assert_eq!(third, (2, Some(OURS.0.to_vec())));
    assert_eq!(scene.check(1, Role::Controlling, true), None);
}

#[test]
fn a_restart_wakes_an_expired_transport() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.pass(40_000, false);
    assert_eq!(scene.told(Change::Expired), [30_000]);
    scene.ice.restart(NEW.0, NEW.1, scene.now);
    scene
        .ice
        .set_remote(THEIRS.0, THEIRS.1, scene.now, &mut scene.out);
    (scene.serial, scene.password) = (1, NEW.1);
    assert_eq!(
        scene.check(1, Role::Controlling, true),
        Some((Class::Success, None))
    );
    assert_eq!(scene.told(Change::Validated).len(), 2);
    scene.pass(60_000, true);
    assert!(scene.ice.active().is_some());
}

#[test]
fn pairs_are_bounded_and_the_active_one_is_kept() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    for port in 2..200 {
        scene.pass(10, true);
        scene.check(port, Role::Controlling, false);
        assert!(scene.ice.paths().count() <= MAX_PAIRS);
        assert_eq!(scene.ice.active(), Some(&path(1)));
    }
    assert!(scene.ice.paths().any(|own| own == path(1)));
}

#[test]
fn a_flood_of_dtls_before_the_keys_is_cut() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    let now = scene.now;
    let passed = (0..1_000)
        .filter(|_| scene.ice.dtls(&path(1), false, now))
        .count();
    assert_eq!(passed, 40);
    assert!(
        scene.ice.dtls(&path(1), true, now),
        "data channels have the ingress limit instead"
    );
    assert!(
        !scene.ice.dtls(&path(2), true, now),
        "a 5-tuple that nobody validated"
    );
}

#[test]
fn a_closed_connection_is_awaited_while_its_consent_lasts() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.check(2, Role::Controlling, false);
    scene.ice.hung_up(&path(1));
    assert_eq!(
        scene.ice.active(),
        Some(&path(2)),
        "the other pair takes over"
    );
    scene.ice.hung_up(&path(2));
    assert_eq!(scene.ice.active(), None);
    scene.pass(10_000, true);
    assert!(scene.told(Change::Expired).is_empty());
    scene.check(3, Role::Controlling, true);
    assert_eq!(scene.ice.active(), Some(&path(3)));
    scene.ice.hung_up(&path(3));
    scene.pass(60_000, true);
    assert_eq!(scene.told(Change::Expired), [40_000]);
}

/// Its peer has as long to come back as its consent would have lasted, and no longer.
#[test]
fn a_transport_whose_only_5_tuple_was_taken_over_ends_with_its_consent() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.pass(6_000, false);
    scene.ice.forget(&path(1));
    assert_eq!(scene.ice.take_change(), None, "the plane knows");
    scene.pass(54_000, false);
    assert_eq!(scene.told(Change::Expired), [30_000]);
    assert_eq!(scene.ice.timeout(), None);

    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.pass(6_000, false);
    scene.ice.forget(&path(1));
    scene.pass(10_000, false);
    scene.check(2, Role::Controlling, true);
    assert_eq!(scene.ice.active(), Some(&path(2)));
    scene.pass(60_000, true);
    assert_eq!(scene.told(Change::Expired), []);
}

#[test]
fn a_restart_outlives_the_pair_that_ends_meanwhile() {
    let restarted = || {
        let mut scene = Scene::new(false);
        scene.check(1, Role::Controlling, true);
        scene.pass(29_000, false);
        scene.ice.restart(NEW.0, NEW.1, scene.now);
        let (ice, out) = (&mut scene.ice, &mut scene.out);
        ice.set_remote(THEIRS.0, THEIRS.1, scene.now, out);
        (scene.serial, scene.password) = (1, NEW.1);
        scene
    };
    let mut scene = restarted();
    scene.pass(3_000, false);
    assert_eq!(
        scene.check(2, Role::Controlling, true),
        Some((Class::Success, None))
    );
    assert_eq!(scene.ice.active(), Some(&path(2)));
    scene.pass(60_000, true);
    assert_eq!(scene.told(Change::Expired), []);
    // Nobody uses it.
    let mut scene = restarted();
    scene.pass(90_000, false);
    assert_eq!(scene.told(Change::Expired), [59_000]);
}

#[test]
fn a_restarted_transport_that_nobody_uses_wakes_nobody() {
    let mut scene = Scene::new(false);
    scene.check(1, Role::Controlling, true);
    scene.ice.hung_up(&path(1));
    scene.pass(40_000, false);
    assert_eq!(scene.told(Change::Expired), [30_000]);
    scene.ice.restart(NEW.0, NEW.1, scene.now);
    assert_eq!(scene.ice.timeout(), None);
}
