//! Frames, limits per source, and who does not read.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd};

use super::*;

const NOW: Micros = Micros(1_000_000_000);

struct Scene {
    streams: Streams,
    address: SocketAddr,
    readable: Vec<usize>,
}

impl Scene {
    fn new() -> Self {
        let listener = epoll::listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let address = listener.local_addr().expect("bound");
        let streams = Streams::new(vec![listener], None).expect("descriptors");
        Self {
            streams,
            address,
            readable: Vec::new(),
        }
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("accepted by the kernel");
        self.look(NOW);
        client
    }

    fn look(&mut self, now: Micros) {
        self.streams.look(&mut self.readable, now);
    }

    /// Everything that arrived, frame by frame.
    fn frames(&mut self) -> Vec<(Path, Vec<u8>)> {
        let mut found = Vec::new();
        for _ in 0..100 {
            self.look(NOW);
            for at in self.readable.clone() {
                let mut frame = [0; MAX_FRAME_BYTES];
                let mut reads = Streams::reads();
                while let Some((path, len)) = self.streams.next(at, &mut frame, &mut reads) {
                    found.push((path, frame[..len].to_vec()));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        found
    }

    fn path(&self) -> Path {
        *self.streams.by_path.keys().next().expect("a connection")
    }

    fn closed(&mut self) -> usize {
        std::iter::from_fn(|| self.streams.close_next()).count()
    }
}

#[test]
fn frames_survive_every_way_of_cutting_the_stream() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    let sent: Vec<Vec<u8>> = [1, 1_500, 20, 700, 1_499]
        .iter()
        .map(|len| vec![*len as u8; *len])
        .collect();
    let mut bytes = Vec::new();
    for frame in &sent {
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    for part in bytes.chunks(611) {
        client.write_all(part).expect("room");
    }
    let got: Vec<_> = scene.frames().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(got, sent);
}

#[test]
fn a_long_frame_and_the_end_close() {
    let mut scene = Scene::new();
    let mut client = scene.connect();
    client.write_all(&1_501u16.to_be_bytes()).expect("room");
    assert!(scene.frames().is_empty());
    assert_eq!(scene.closed(), 1);
    let client = scene.connect();
    drop(client);
    assert!(scene.frames().is_empty());
    assert_eq!(scene.closed(), 1);
    assert_eq!(scene.streams.counters.open, 0);
}

#[test]
fn a_source_has_only_so_many_connections_without_a_check() {
    let mut scene = Scene::new();
    let clients: Vec<_> = (0..40).map(|_| scene.connect()).collect();
    assert_eq!(scene.streams.counters.open, 16);
    assert_eq!(scene.streams.counters.refused, 24);
    for at in 0..16 {
        scene.streams.judge(at, at < 4);
    }
    assert_eq!(scene.closed(), 12);
    drop(clients);
    let more: Vec<_> = (0..40).map(|_| scene.connect()).collect();
    assert_eq!(
        scene.streams.counters.open,
        4 + 16,
        "proven ones do not count"
    );
    drop(more);
    scene
        .streams
        .sweep(Micros(NOW.0 + PATIENCE_US + 1), |_| true);
    assert_eq!(scene.closed(), 16, "too late");
    scene.streams.sweep(NOW, |_| false);
    assert_eq!(scene.closed(), 4, "consent lost");
    assert!(scene.streams.unproven.is_empty() && scene.streams.sources.is_empty());
}

#[test]
fn who_begins_with_junk_when_it_is_too_late_is_counted_once() {
    let mut scene = Scene::new();
    let _client = scene.connect();
    let late = Micros(NOW.0 + PATIENCE_US + 1);
    scene.streams.judge(0, false);
    scene.streams.sweep(late, |_| false);
    assert_eq!((scene.streams.counters.unproven, scene.closed()), (1, 1));
}

#[test]
fn who_does_not_read_loses_video_then_audio_then_the_connection() {
    let mut scene = Scene::new();
    let _client = scene.connect();
    let path = scene.path();
    let frame = [0; 1_200];
    let fill = |scene: &mut Scene, traffic, count| {
        for _ in 0..count {
            scene.streams.send(&path, &frame, traffic);
            scene.streams.flush();
        }
    };
    // The kernels' buffers take some megabytes first.
    while scene.streams.counters.dropped_video == 0 {
        fill(&mut scene, Traffic::Video, 100);
    }
    assert_eq!(scene.streams.counters.dropped_audio, 0);
    fill(&mut scene, Traffic::Audio, 1_000);
    assert!(scene.streams.counters.dropped_audio > 900);
    assert_eq!(scene.closed(), 0);
    fill(&mut scene, Traffic::Control, 1_000);
    assert_eq!(scene.streams.counters.stuck, 1);
    assert_eq!(scene.closed(), 1);
}

/// A connection that its peer tears down and opens again at once, from the same port: what ends is the old one.
#[test]
fn who_comes_back_from_the_same_port_is_answered() {
    let mut scene = Scene::new();
    let client = scene.connect();
    let path = scene.path();
    let port = client.local_addr().expect("bound").port();
    reset(client);
    let mut client = from_port(port, scene.address);
    scene.look(NOW);
    let mut frame = [0; MAX_FRAME_BYTES];
    let mut reads = Streams::reads();
    for at in scene.readable.clone() {
        assert!(scene.streams.next(at, &mut frame, &mut reads).is_none());
    }
    assert_eq!(scene.closed(), 1);
    assert_eq!(scene.streams.counters.open, 1);
    scene.streams.send(&path, &[7; 20], Traffic::Control);
    scene.streams.flush();
    let mut answer = [0; 22];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[2..], [7; 20]);
}

/// Close as a program that crashed: what was sent and not read yet is thrown away, the port is free at once.
fn reset(client: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let pointer: *const libc::linger = &linger;
    let len = std::mem::size_of::<libc::linger>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: the pointer and the length describe one live structure.
    let result =
        unsafe { libc::setsockopt(client.as_raw_fd(), level, option, pointer.cast(), len) };
    assert_eq!(result, 0);
}

fn from_port(port: u16, to: SocketAddr) -> TcpStream {
    let name = |address| sys::Name::new(address);
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked, and owned by nobody else.
    let stream = unsafe {
        let fd = sys::check(libc::socket(libc::AF_INET, kind, 0)).expect("a descriptor");
        TcpStream::from_raw_fd(fd)
    };
    sys::set_option(&stream, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).expect("an option");
    let mut own = name((Ipv4Addr::LOCALHOST, port).into());
    let mut to = name(to);
    // SAFETY: each pointer and length describe one live socket address.
    unsafe {
        let fd = stream.as_raw_fd();
        sys::check(libc::bind(fd, own.as_mut_ptr().cast(), own.len)).expect("the same port");
        sys::check(libc::connect(fd, to.as_mut_ptr().cast(), to.len)).expect("accepted");
    }
    let limit = Some(std::time::Duration::from_secs(2));
    stream.set_read_timeout(limit).expect("an option");
    stream
}
