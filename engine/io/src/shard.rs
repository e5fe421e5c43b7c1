//! What a data-plane thread is started with: its sockets on the common port, its seat, its CPU.
//!
//! Not here: the loop (`run`), what goes from one thread to another (`relay`).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use parley_core::shard::MAX_SHARDS;

use crate::epoll;
use crate::relay::Bell;
use crate::report::Report;
use crate::run::THREAD_NAME;
use crate::sys::{self, Socket};

/// Tries to find one free port number on all addresses.
const PORT_TRIES: usize = 16;

/// What a thread and its callers both hold.
pub struct Seat {
    pub bell: Arc<Bell>,
    /// The thread's last word.
    pub report: Mutex<Report>,
}

impl Seat {
    pub fn new(bell: Arc<Bell>) -> Self {
        Self {
            bell,
            report: Mutex::default(),
        }
    }

    /// Let callers read this.
    pub fn publish(&self, report: &Report) {
        let shared = self.report.lock();
        shared
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(report);
    }
}

/// How many threads there will be; 0 = one for each usable CPU.
pub fn count(asked: usize) -> usize {
    let wanted = if asked == 0 {
        sys::usable_cpus().len()
    } else {
        asked
    };
    wanted.clamp(1, usize::from(MAX_SHARDS))
}

/// The name of a thread, at most 15 characters.
pub fn name(own: usize, shards: usize) -> String {
    if shards == 1 {
        THREAD_NAME.to_owned()
    } else {
        format!("{THREAD_NAME}-{own}")
    }
}

/// Keep the calling thread on its CPU, round robin over those that there are. Alone it goes where it likes.
pub fn pin(own: usize, shards: usize) {
    let cpus = sys::usable_cpus();
    if shards > 1 && !cpus.is_empty() {
        // A wish: where it is refused, the scheduler decides.
        let _ = sys::pin(cpus[own % cpus.len()]);
    }
}

/// Sockets on one port: those of each thread in the order of the addresses, and the listeners.
pub struct Bound {
    pub sockets: Vec<Vec<Socket>>,
    pub listeners: Vec<TcpListener>,
}

/// The same port number everywhere, also when any will do.
pub fn bind_all(listen: &[IpAddr], port: u16, tcp: bool, shards: usize) -> io::Result<Bound> {
    let mut tries = 0;
    loop {
        let first = Socket::bind(SocketAddr::new(listen[0], port))?;
        let chosen = first.bound.port();
        tries += 1;
        match bind_rest(first, listen, chosen, tcp) {
            Ok((sockets, listeners)) => return bind_beside(sockets, listeners, shards),
            Err(why) if port != 0 || why.kind() != io::ErrorKind::AddrInUse => return Err(why),
            Err(why) if tries == PORT_TRIES => return Err(why),
            Err(_) => {} // somebody has that number on another address: take the next one
        }
    }
}

fn bind_rest(
    first: Socket,
    listen: &[IpAddr],
    port: u16,
    tcp: bool,
) -> io::Result<(Vec<Socket>, Vec<TcpListener>)> {
    let mut sockets = vec![first];
    for ip in &listen[1..] {
        sockets.push(Socket::bind(SocketAddr::new(*ip, port))?);
    }
    let streaming = listen.iter().filter(|_| tcp);
    let listeners = streaming.map(|ip| epoll::listen(SocketAddr::new(*ip, port)));
    Ok((sockets, listeners.collect::<io::Result<_>>()?))
}

/// The first thread's sockets were bound alone, which proves that nobody has the port; the others' join them.
fn bind_beside(
    first: Vec<Socket>,
    listeners: Vec<TcpListener>,
    shards: usize,
) -> io::Result<Bound> {
    let addresses: Vec<_> = first.iter().map(|socket| socket.bound).collect();
    let mut sockets = vec![first];
    if shards > 1 {
        for socket in &sockets[0] {
            socket.share()?;
        }
    }
    for _ in 1..shards {
        let beside = addresses
            .iter()
            .map(|address| Socket::bind_beside(*address));
        sockets.push(beside.collect::<io::Result<_>>()?);
    }
    Ok(Bound { sockets, listeners })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_port_that_somebody_shares_is_not_taken() {
        let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let bound = bind_all(&localhost, 0, true, 3).expect("a port");
        assert_eq!(bound.sockets.len(), 3);
        let port = bound.sockets[0][0].bound.port();
        assert!(bound.sockets.iter().all(|own| own[0].bound.port() == port));
        let again = bind_all(&localhost, port, false, 2);
        assert_eq!(
            again.map(|_| ()).map_err(|why| why.kind()),
            Err(io::ErrorKind::AddrInUse)
        );
    }

    #[test]
    fn names_fit_and_counts_are_bounded() {
        assert_eq!(name(0, 1), "parley-engine");
        assert_eq!(name(9, 10), "parley-engine-9");
        assert_eq!(count(200), 64);
        assert!(count(0) >= 1);
    }
}
