//! `arint os time`: tells the time to whoever asks (NTP, RFC 5905, as a server), and looks for neighbours that know it
//! better.
//!
//! It asks all NTP servers of the link (`ff02::101`) only while the box's own clock follows no server; who answers
//! is told to [`super`], in a file.  It sets no clock.
//!
//! **Invariant:** an answer is never longer than its question, and a clock that was guessed is told to nobody.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arbase::notify::{notify_ready, notify_watchdog};
use rand::Rng as _;

use super::{BATTERY, MOST, NEIGHBOURS, UNKNOWN, read_worth};

/// All NTP servers of the link.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x101);
/// Length of a message without authentication.
const LENGTH: usize = 48;
/// Between two questions to the link, while there is something to gain; the first ones come sooner.
const ASK: Duration = Duration::from_secs(64);
const ASK_SOON: Duration = Duration::from_secs(8);
const SOON: u32 = 8;
/// So long answers are waited for.
const ANSWERS: Duration = Duration::from_secs(3);
/// How often interfaces and the worth of the clock are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Most questions that are answered within [`LOOK`].
const MOST_ANSWERS: u32 = 500;
/// Seconds from 1900, where NTP begins, to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

/// `arint os time`.
#[derive(Debug, clap::Args)]
pub(crate) struct TimeArgs {
    /// The folder through which it speaks with the operating system unit.
    #[arg(long, default_value = "/run/arint")]
    runtime_dir: PathBuf,
    /// The port it answers and asks on.
    #[arg(long, default_value_t = 123)]
    port: u16,
}

/// Why nobody is told the time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TimeError {
    /// The port.
    #[error("cannot listen on UDP port {port}")]
    Listen {
        /// Which.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}

/// A message, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    /// 2 bits of leap, 3 of version, 3 of mode.
    head: u8,
    stratum: u8,
    poll: u8,
    originate: u64,
    transmit: u64,
}

const CLIENT: u8 = 3;
const SERVER: u8 = 4;

impl Message {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let number = |at: usize| rest.get(at - 3..at + 5)?.try_into().ok().map(u64::from_be_bytes);
        let [first, stratum, poll] = *head;
        (bytes.len() >= LENGTH).then_some(Self {
            head: first,
            stratum,
            poll,
            originate: number(24)?,
            transmit: number(40)?,
        })
    }

    fn mode(self) -> u8 {
        self.head & 7
    }

    fn version(self) -> u8 {
        self.head >> 3 & 7
    }

    fn is_question(self) -> bool {
        self.mode() == CLIENT && (3..=4).contains(&self.version())
    }

    /// The stratum of a server that knows the time and answers this question; none otherwise.
    fn answers(self, question: u64) -> Option<u8> {
        let knows = self.head >> 6 != 3 && (1..UNKNOWN).contains(&self.stratum);
        (self.mode() == SERVER && self.originate == question && knows).then_some(self.stratum)
    }
}

/// A question with a number that only who sees it can repeat.
fn question(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = 4 << 3 | CLIENT;
    bytes[40..48].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The answer of a clock of this worth.
fn answer(asked: Message, worth: u8, received: u64, now: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = asked.version() << 3 | SERVER;
    bytes[1] = worth;
    bytes[2] = asked.poll;
    // 2^-20 s.
    bytes[3] = 0xec;
    // How far from the truth, 1/65536 s: a server's answers are some ms old, a battery's clock drifts by the second.
    let (delay, off): (u32, u32) =
        if worth < BATTERY { (1 << 10, 1 << 12) } else { (1 << 10, 1 << 16) };
    bytes[4..8].copy_from_slice(&delay.to_be_bytes());
    bytes[8..12].copy_from_slice(&off.to_be_bytes());
    bytes[12..16].copy_from_slice(&[127, 127, 1, worth]);
    bytes[16..24].copy_from_slice(&received.to_be_bytes());
    bytes[24..32].copy_from_slice(&asked.transmit.to_be_bytes());
    bytes[32..40].copy_from_slice(&received.to_be_bytes());
    bytes[40..48].copy_from_slice(&now.to_be_bytes());
    bytes
}

/// Now, as NTP writes it: seconds since 1900, modulo 2^32, and their fraction.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = (since.as_secs() + NTP_EPOCH) & u64::from(u32::MAX);
    (seconds << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
}

/// The interfaces but loopback: name and number.
fn interfaces() -> Vec<(String, u32)> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let number = |path: &Path| {
        std::fs::read_to_string(path.join("ifindex")).ok()?.trim().parse::<u32>().ok()
    };
    entries
        .filter_map(|entry| {
            Some((entry.file_name().to_string_lossy().into_owned(), number(&entry.path())?))
        })
        .filter(|(name, _)| name != "lo")
        .collect()
}

/// Answers and asks until the process is ended.
pub(crate) fn time_main(args: &TimeArgs) -> Result<(), TimeError> {
    let listen = |source| TimeError::Listen { port: args.port, source };
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, args.port)).map_err(listen)?;
    socket.set_read_timeout(Some(Duration::from_secs(1))).map_err(listen)?;
    log::info!(port = args.port; "telling the time");
    notify_ready();
    let mut clock = Clock {
        socket,
        runtime_dir: args.runtime_dir.clone(),
        port: args.port,
        worth: UNKNOWN,
        interfaces: Vec::new(),
        joined: Vec::new(),
        left: 0,
        asked: None,
        rounds: 0,
    };
    let mut looked: Option<Instant> = None;
    loop {
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            clock.look();
            notify_watchdog();
        }
        clock.round();
        clock.receive();
    }
}

/// One round of questions.
#[derive(Debug)]
struct Round {
    number: u64,
    at: Instant,
    /// Stratum and address with interface of who answered; none once they are told.
    found: Option<Vec<(u8, String)>>,
}

#[derive(Debug)]
struct Clock {
    socket: UdpSocket,
    runtime_dir: PathBuf,
    port: u16,
    worth: u8,
    interfaces: Vec<(String, u32)>,
    joined: Vec<u32>,
    /// Questions that may be answered until the next look.
    left: u32,
    asked: Option<Round>,
    rounds: u32,
}

impl Clock {
    fn look(&mut self) {
        self.left = MOST_ANSWERS;
        self.worth = read_worth(&self.runtime_dir);
        self.interfaces = interfaces();
        self.joined.retain(|number| self.interfaces.iter().any(|(_, there)| there == number));
        for (_, number) in &self.interfaces {
            // One without IPv6 refuses, and is tried again.
            if !self.joined.contains(number)
                && self.socket.join_multicast_v6(&GROUP, *number).is_ok()
            {
                self.joined.push(*number);
            }
        }
    }

    /// Begins a round of questions, or ends it.
    fn round(&mut self) {
        if let Some(round) = &mut self.asked
            && round.at.elapsed() >= ANSWERS
            && let Some(found) = round.found.take()
        {
            tell(&self.runtime_dir, found);
        }
        let pause = if self.rounds < SOON { ASK_SOON } else { ASK };
        if self.worth < BATTERY || self.asked.as_ref().is_some_and(|it| it.at.elapsed() < pause) {
            return;
        }
        let number: u64 = rand::rng().random();
        for (_, interface) in &self.interfaces {
            let group = SocketAddrV6::new(GROUP, self.port, 0, *interface);
            // An interface without a cable says so.
            self.socket.send_to(&question(number), group).ok();
        }
        self.rounds = self.rounds.saturating_add(1);
        self.asked = Some(Round { number, at: Instant::now(), found: Some(Vec::new()) });
    }

    fn receive(&mut self) {
        let mut bytes = [0; 128];
        let (length, from) = match self.socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(err) => {
                if !matches!(
                    err.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) {
                    log::debug!(error:% = err; "nothing received");
                }
                return;
            }
        };
        let received = now();
        let Some(message) = bytes.get(..length).and_then(Message::parse) else { return };
        if message.is_question() {
            let own = self.asked.as_ref().is_some_and(|round| round.number == message.transmit);
            if self.worth < UNKNOWN && self.left > 0 && !own {
                self.left -= 1;
                let answer = answer(message, self.worth, received, now());
                self.socket.send_to(&answer, from).ok();
            }
        } else {
            self.hear(message, from);
        }
    }

    /// Takes an answer in, where it is one to our question and of a better clock.
    fn hear(&mut self, message: Message, from: SocketAddr) {
        let SocketAddr::V6(from) = from else { return };
        let Some(Round { number, found: Some(found), .. }) = &mut self.asked else { return };
        let Some(stratum) = message.answers(*number).filter(|stratum| *stratum < self.worth) else {
            return;
        };
        let interface = self.interfaces.iter().find(|(_, number)| *number == from.scope_id());
        if let Some((name, _)) = interface.filter(|_| from.ip().is_unicast_link_local()) {
            found.push((stratum, format!("{}%{name}", from.ip())));
        }
    }
}

/// Tells who answered, the best clock first.  Where nobody did, what was told before stands: a neighbour may be away
/// for a moment.
fn tell(runtime_dir: &Path, mut found: Vec<(u8, String)>) {
    found.sort();
    found.dedup();
    found.truncate(MOST);
    if found.is_empty() {
        return;
    }
    let text: String = found.into_iter().map(|(_, who)| who + "\n").collect();
    let path = runtime_dir.join(NEIGHBOURS);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return;
    }
    match std::fs::write(&path, text) {
        Ok(()) => log::info!("a neighbour knows the time better"),
        Err(err) => log::warn!(error:% = err; "neighbours cannot be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_as_the_standard_says() {
        let asked = Message::parse(&question(0x0123_4567_89ab_cdef)).unwrap();
        assert!(asked.is_question());
        let (received, sent) = (7 << 32, (7 << 32) + 5);
        let bytes = answer(asked, 3, received, sent);
        assert_eq!(bytes.len(), LENGTH);
        let told = Message::parse(&bytes).unwrap();
        assert_eq!((told.mode(), told.version(), told.stratum), (SERVER, 4, 3));
        assert_eq!((told.originate, told.transmit), (asked.transmit, sent));
        assert_eq!(bytes[32..40], received.to_be_bytes());
        assert_eq!(told.answers(asked.transmit), Some(3));
        assert_eq!(told.answers(asked.transmit + 1), None, "an answer to nobody's question");
    }

    #[test]
    fn what_is_no_question_is_not_answered_and_who_does_not_know_is_not_believed() {
        assert_eq!(Message::parse(&[0x23; LENGTH - 1]), None);
        let of = |head, stratum| Message { head, stratum, poll: 0, originate: 1, transmit: 2 };
        assert!(of(3 << 3 | CLIENT, 0).is_question());
        assert!(
            !of(4 << 3 | SERVER, 0).is_question(),
            "two servers do not answer each other for ever"
        );
        assert!(!of(2 << 3 | CLIENT, 0).is_question());
        assert!(!of(4 << 3 | 6, 0).is_question(), "control messages have longer answers");
        assert_eq!(of(4 << 3 | SERVER, 0).answers(1), None);
        assert_eq!(of(4 << 3 | SERVER, UNKNOWN).answers(1), None);
        assert_eq!(of(3 << 6 | 4 << 3 | SERVER, 2).answers(1), None);
        assert_eq!(of(4 << 3 | SERVER, 2).answers(1), Some(2));
    }

    #[test]
    fn the_best_neighbour_is_told_first_and_stands_when_nobody_answers() {
        let dir = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(dir.path().join(NEIGHBOURS)).unwrap();
        tell(
            dir.path(),
            vec![(4, "fe80::1%a".into()), (3, "fe80::9%a".into()), (3, "fe80::9%a".into())],
        );
        assert_eq!(read(), "fe80::9%a\nfe80::1%a\n");
        tell(dir.path(), Vec::new());
        assert_eq!(read(), "fe80::9%a\nfe80::1%a\n");
    }

    #[test]
    fn the_moment_is_counted_from_1900() {
        let seconds = now() >> 32;
        assert_eq!(seconds, arbase::time::now_ms() / 1000 + NTP_EPOCH, "within the same second");
    }
}
