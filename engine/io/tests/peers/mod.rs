//! Peers that are connected already, each on a port of its own that is its number.

use parley_core::id::{Micros, TransportId};
use parley_core::plane::{IngressLimit, Plane};
use parley_core::srtp::{Profile, Session};
use parley_core::stun::{Class, Key, Role, Writer};
use parley_core::wire::{Output, Path};

pub const START: Micros = Micros(1_000_000_000);

pub fn path(id: u64) -> Path {
    Path {
        socket: 0,
        local: [127, 0, 0, 1].into(),
        remote: ([127, 0, 0, 1], id as u16).into(),
    }
}

/// Open, validate and key a transport; returns the peer's end of its SRTP.
pub fn connect(plane: &mut Plane, id: u64, profile: Profile, out: &mut impl Output) -> Session {
    connect_as(plane, id, &format!("ufrag{id}"), profile, out)
}

pub fn connect_as(
    plane: &mut Plane,
    id: u64,
    ufrag: &str,
    profile: Profile,
    out: &mut impl Output,
) -> Session {
    let password = b"password of 22 charact";
    plane
        .open_transport(TransportId(id), ufrag.as_bytes(), password, false, START)
        .expect("distinct ufrags");
    let mut room = [0; 256];
    let len = Writer::new(&mut room, Class::Request, &[1; 12])
        .username(ufrag.as_bytes(), b"peer")
        .role(Role::Controlling, 1)
        .use_candidate()
        .finish(&Key::new(password));
    plane.receive(&path(id), &mut room[..len], START, out);
    let material = vec![id as u8; profile.material_bytes()];
    plane.set_keys(TransportId(id), profile, &material, false);
    let limit = IngressLimit {
        bits_per_s: 1 << 40,
        packets_per_s: 1 << 30,
    };
    plane.set_ingress_limit(TransportId(id), limit);
    Session::new(profile, &material, true).expect("right length")
}
