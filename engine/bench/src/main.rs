//! `parley-load`: sends and receives what clients of one benchmark would, with real SRTP, on inherited sockets.
//!
//! Whoever starts it makes the sockets, connects them to the server and does ICE and DTLS on them; a line on the
//! standard input then hands one over:
//! ```text
//! receive <id> <descriptor> <srtp profile> <exporter's bytes, hex> <our ICE password>
//! publish <id> <descriptor> <srtp profile> <exporter's bytes, hex> <our ICE password> <ssrc> <payload type> <bytes>
//! pace <packets per second> <window, packets; 0 = none>
//! report
//! ```
//! Answers: `first <id> <monotonic ns>` when a receiver decrypted its first packet, `report <json>`.
//! Not here: signalling, DTLS, what is measured (Python package `bench`).
#![deny(unsafe_code)]

mod packet;
mod peer;
mod progress;
mod publish;
mod receive;
mod sys;

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Arc;

use peer::Peer;
use progress::{Progress, MAX_RECEIVERS};
use publish::{Pace, Sender, Stream};
use receive::Sink;

struct Desk {
    progress: Arc<Progress>,
    pace: Arc<Pace>,
    joining: SyncSender<Peer>,
    streams: SyncSender<Stream>,
}

impl Desk {
    /// None: no command of ours.
    fn command(&self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        match words.next()? {
            "receive" => self.joining.send(Peer::read(&mut words)?).ok(),
            "publish" => {
                let peer = Peer::read(&mut words)?;
                let stream = Stream {
                    peer,
                    ssrc: words.next()?.parse().ok()?,
                    payload_type: words.next()?.parse().ok().filter(|pt| *pt < 128)?,
                    packet_bytes: words
                        .next()?
                        .parse()
                        .ok()
                        .filter(|n| (100..=1_400).contains(n))?,
                };
                self.streams.send(stream).ok()
            }
            "pace" => {
                self.pace.rate.store(words.next()?.parse().ok()?, Relaxed);
                self.pace.window.store(words.next()?.parse().ok()?, Relaxed);
                Some(())
            }
            "report" => {
                println!("report {}", self.progress.report(sys::now_ns()));
                Some(())
            }
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let progress = Arc::new(Progress::new());
    let pace = Arc::new(Pace::default());
    let (joining, joined) = sync_channel(MAX_RECEIVERS);
    let (streams, stream) = sync_channel(1);
    let sink = Sink::new(Arc::clone(&progress));
    let sink = std::thread::spawn(move || sink.run(&joined));
    let (shared, own_pace) = (Arc::clone(&progress), Arc::clone(&pace));
    let sender = std::thread::spawn(move || Sender::wait_and_run(&stream, shared, own_pace));
    let desk = Desk {
        progress,
        pace: Arc::clone(&pace),
        joining,
        streams,
    };
    let mut code = ExitCode::SUCCESS;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if desk.command(&line).is_none() {
            eprintln!(
                "not a command: {}",
                line.split_whitespace().next().unwrap_or("")
            );
            code = ExitCode::FAILURE;
            break;
        }
    }
    pace.is_over.store(true, Relaxed);
    drop(desk);
    let ends = [sink.join(), sender.join()];
    if ends.iter().any(Result::is_err) {
        return ExitCode::FAILURE;
    }
    code
}
