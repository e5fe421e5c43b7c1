//! `parley-load`: sends and receives what clients of one benchmark would, with real SRTP, on inherited sockets.
//!
//! Whoever starts it makes the sockets, connects them to the server and does ICE and DTLS on them; a line on the
//! standard input then hands one over, or says what to do:
//! ```text
//! peer <id> <descriptor> <srtp profile> <exporter's bytes, hex> <our ICE password> <DTLS client: 1|0>
//! stream <peer> <track> <layer> <v|a> <ssrc> <rtx ssrc or 0> <pt> <rtx pt> <mid> <rid or -> <packets/s>
//!        <packets per frame> <packets at once> <bytes>
//! pace <track> <packets/s> <window, packets; 0 = none>
//! weather <lost of 10,000> <round trip, us>
//! manner <decrypt every nth> <NACK and transport-cc feedback: 1|0> <kernel stamps: 1|0> <id of transport-cc down>
//!        <messages whole: 1|0>
//! report
//! ```
//! Answers: `first <id> <monotonic ns>` when a receiver decrypted its first packet, `report <json>`.
//! Not here: signalling, DTLS, what is measured (Python package `bench`).
#![deny(unsafe_code)]

mod inbox;
mod incoming;
mod link;
mod packet;
mod peer;
mod progress;
mod publish;
mod receive;
mod sys;

use std::io::BufRead;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Arc;

use link::Weather;
use packet::Shape;
use peer::Peer;
use progress::{Progress, MAX_PEERS};
use publish::{Order, Sender, State, Stream};
use receive::{Manner, Sink};

const SAMPLE: u64 = 64;
const MAX_ORDERS: usize = 4_096;

struct Desk {
    progress: Arc<Progress>,
    weather: Arc<Weather>,
    manner: Arc<Manner>,
    joining: SyncSender<Peer>,
    orders: SyncSender<Order>,
}

fn word<T: FromStr>(words: &[&str], at: usize) -> Option<T> {
    words.get(at)?.parse().ok()
}

impl Desk {
    /// None: no command of ours.
    fn command(&self, line: &str) -> Option<()> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, words) = words.split_first()?;
        match *name {
            "peer" => {
                self.orders
                    .send(Order::Join(Box::new(Peer::read(words)?)))
                    .ok()?;
                self.joining.send(Peer::read(words)?).ok()
            }
            "stream" => self.orders.send(Order::Send(stream(words)?)).ok(),
            "pace" => {
                let (track, rate) = (word(words, 0)?, word(words, 1)?);
                let order = Order::Pace(track, rate, word(words, 2)?);
                self.orders.send(order).ok()
            }
            "weather" => {
                self.weather.loss.store(word(words, 0)?, Relaxed);
                self.weather.round_trip_us.store(word(words, 1)?, Relaxed);
                Some(())
            }
            "manner" => {
                self.manner.sample.store(word(words, 0)?, Relaxed);
                let switch = |at| word::<u8>(words, at).map(|value| value == 1);
                self.manner.feedback.store(switch(1)?, Relaxed);
                self.manner.stamps.store(switch(2)?, Relaxed);
                self.manner.transport_id.store(word(words, 3)?, Relaxed);
                self.manner.whole.store(switch(4)?, Relaxed);
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

fn stream(words: &[&str]) -> Option<Box<Stream>> {
    let video = *words.get(3)? == "v";
    let (ssrc, rtx_ssrc) = (word(words, 4)?, word(words, 5)?);
    let payload_type = |at| word::<u8>(words, at).filter(|number| *number < 128);
    let (mid, rid) = (*words.get(8)?, *words.get(9)?);
    let rid = if rid == "-" { "" } else { rid };
    if mid.is_empty() || mid.len() > 16 || rid.len() > 16 {
        return None;
    }
    let positive = |at| word::<u64>(words, at).filter(|count| *count > 0);
    let names = (mid, rid);
    let shape = Shape {
        frame_packets: positive(11)?,
        packet_bytes: word(words, 13).filter(|bytes| (100..=1_400).contains(bytes))?,
        ..Shape::new(video, (payload_type(6)?, ssrc), names, false)
    };
    Some(Box::new(Stream {
        peer: word(words, 0)?,
        track: word(words, 1)?,
        layer: word(words, 2)?,
        ssrc,
        rtx_ssrc,
        shape,
        rtx: Shape::new(video, (payload_type(7)?, rtx_ssrc), names, true),
        rate: word(words, 10)?,
        window: 0,
        burst: positive(12)?,
        state: State::default(),
    }))
}

fn main() -> ExitCode {
    let progress = Arc::new(Progress::new());
    let weather = Arc::new(Weather::default());
    let manner = Arc::new(Manner {
        sample: AtomicU64::new(SAMPLE),
        feedback: AtomicBool::new(false),
        stamps: AtomicBool::new(false),
        whole: AtomicBool::new(false),
        transport_id: AtomicU8::new(packet::TRANSPORT_CC_ID),
    });
    let (joining, joined) = sync_channel(MAX_PEERS);
    let (orders, ordered) = sync_channel(MAX_ORDERS);
    let sink = Sink::new(
        Arc::clone(&progress),
        Arc::clone(&weather),
        Arc::clone(&manner),
        orders.clone(),
    );
    let sink = std::thread::spawn(move || sink.run(&joined));
    let sender = Sender::new(Arc::clone(&progress), Arc::clone(&weather));
    let sender = std::thread::spawn(move || sender.run(&ordered));
    let desk = Desk {
        progress,
        weather,
        manner,
        joining,
        orders,
    };
    let mut code = ExitCode::SUCCESS;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if desk.command(&line).is_none() {
            let name = line.split_whitespace().next().unwrap_or("");
            eprintln!("not a command: {name}");
            code = ExitCode::FAILURE;
            break;
        }
    }
    // The sink ends with the desk, and with the sink the last one who can order.
    drop(desk);
    let ends = [sink.join(), sender.join()];
    if ends.iter().any(Result::is_err) {
        return ExitCode::FAILURE;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_whole_or_not_at_all() {
        let line = "0 1 2 v 5 6 97 98 0 f 180 6 6 1180";
        let words: Vec<_> = line.split(' ').collect();
        let read = stream(&words).expect("a stream");
        assert_eq!((read.ssrc, read.rtx_ssrc, read.rate), (5, 6, 180));
        assert_eq!((read.shape.frame_packets, read.burst), (6, 6));
        for at in 0..words.len() {
            assert!(stream(&words[..at]).is_none(), "{at}");
        }
        let mut wrong = words.clone();
        wrong[13] = "9000";
        assert!(stream(&wrong).is_none());
    }
}
