//! Definitions of rate limits, as people write them.
//!
//! A definition is lines of `FROM = RATE`, of which the first that fits a caller counts, as in 3.2:
//!
//! ```text
//! # the office, in working hours (UTC)
//! 10.0.0.0/8, 192.168.1.7  08:00-18:00 = 1000/m
//! 10.0.0.0/8                           = 100/m
//! 203.0.113.0/24                       = none
//! *                                    = 10/m each
//! ```
//!
//! `FROM` is `*`, an address or a network; `RATE` is a number per `s`, `m`, `h` or `d`, `*` for no limit or `none` for
//! nothing at all; `each` counts every address for itself instead of all callers of the line together.
//! Nothing is counted here: that is the core's part.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most lines of a definition.
pub const MOST_LINES: usize = 200;
/// Most requests of one window.
pub const MOST_REQUESTS: u32 = 1_000_000_000;

/// A checked definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition(Vec<Line>);

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whom it is for; any one of these.
    pub from: Vec<Source>,
    /// When it holds; absent: always.
    pub hours: Option<Hours>,
    /// What may be done.
    pub rate: Rate,
}

/// Whom a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Everybody.
    Any,
    /// Who has an address in this network.
    Network(Network),
}

/// Addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    addr: IpAddr,
    prefix: u8,
}

/// A part of every day, UTC, in minutes from midnight; `until` is not in it, and may lie on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// When it begins.
    pub from: u16,
    /// When it ends.
    pub until: u16,
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Everything.
    Unlimited,
    /// Nothing.
    Refused,
    /// So many requests in each window.
    Limited {
        /// How many.
        requests: u32,
        /// How long a window is.
        unit: Unit,
        /// Whether each address is counted for itself.
        each: bool,
    },
}

/// How long a window is.  Windows begin with the second, minute, hour or day of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// Why a definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// There is no line in it.
    #[error("there is no line in it; something like `*=1000/m` was expected")]
    Empty,
    /// There are too many.
    #[error("{0} lines are above the {MOST_LINES} allowed")]
    TooMany(usize),
    /// A line is not understood.
    #[error("line {line}: {fault}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        fault: String,
    },
}

impl Unit {
    /// Its length in milliseconds.
    pub fn millis(self) -> u64 {
        match self {
            Self::Second => 1000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
        }
    }
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        masked(addr.to_canonical(), self.prefix) == Some(self.addr)
    }
}

/// The address with all bits behind the prefix cleared; None where the prefix is too long for it.
fn masked(addr: IpAddr, prefix: u8) -> Option<IpAddr> {
    let prefix = u32::from(prefix);
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V4((addr.to_bits() & mask).into()))
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V6((addr.to_bits() & mask).into()))
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{}` is no address and no network; `10.0.0.7`, `192.168.0.0/16`, `fd00::/8` or `*` was expected",
                text.escape_debug()
            )
        };
        let (addr, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((addr, prefix)) => (addr, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
        };
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let prefix = prefix.unwrap_or(if addr.is_ipv4() { 32 } else { 128 });
        // An IPv4 address in IPv6's clothes is one: that is how callers' addresses are compared.
        let (addr, prefix) = match addr.to_canonical() {
            canonical if canonical != addr => (canonical, prefix.checked_sub(96).ok_or_else(bad)?),
            same => (same, prefix),
        };
        Ok(Self { addr: masked(addr, prefix).ok_or_else(bad)?, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.addr.is_ipv4() { 32 } else { 128 };
        match self.prefix {
            prefix if prefix == whole => write!(f, "{}", self.addr),
            prefix => write!(f, "{}/{prefix}", self.addr),
        }
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{}` is no part of a day; something like `08:00-18:00` was expected",
                text.escape_debug()
            )
        };
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            if !digits(hour) || !digits(minute) {
                return None;
            }
            let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            let at = hour * 60 + minute;
            (minute < 60 && at <= 1440).then_some(at)
        };
        let (from, until) = text.split_once('-').ok_or_else(bad)?;
        let (from, until) = (minute(from).ok_or_else(bad)?, minute(until).ok_or_else(bad)?);
        if from == until || from == 1440 {
            return Err(bad());
        }
        Ok(Self { from, until })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = (self.from, self.until);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Hours {
    /// Whether a minute of the day lies in it.
    pub fn contain(&self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Unlimited),
            "none" => return Ok(Self::Refused),
            _ => {}
        }
        let bad = || {
            format!(
                "`{}` is no rate; a number per `s`, `m`, `h` or `d` (`1000/m`), `*` or `none` was expected",
                text.escape_debug()
            )
        };
        let (rate, each) = match text.strip_suffix("each") {
            Some(rest) if rest.ends_with(char::is_whitespace) => (rest.trim_end(), true),
            _ => (text, false),
        };
        let (requests, unit) = rate.split_once('/').ok_or_else(bad)?;
        let unit = match unit.trim() {
            "s" => Unit::Second,
            "m" => Unit::Minute,
            "h" => Unit::Hour,
            "d" => Unit::Day,
            _ => return Err(bad()),
        };
        let requests = requests.trim();
        if !requests.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        match requests.parse::<u32>() {
            Ok(requests @ 1..=MOST_REQUESTS) => Ok(Self::Limited { requests, unit, each }),
            Ok(0) => Err("0 requests are no rate; write `none` to let nobody in".to_owned()),
            Ok(_) | Err(_) => {
                Err(format!("`{requests}` is not a number between 1 and {MOST_REQUESTS}"))
            }
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("*"),
            Self::Refused => f.write_str("none"),
            Self::Limited { requests, unit, each } => {
                let each = if *each { " each" } else { "" };
                write!(f, "{requests}/{}{each}", unit.letter())
            }
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, rate) = text.split_once('=').ok_or_else(|| {
            format!("`{}` has no `=`; `FROM = RATE` was expected", text.escape_debug())
        })?;
        let rate = rate.trim().parse()?;
        let from = from.trim();
        let (from, hours) = match from.rsplit_once(char::is_whitespace) {
            // Only hours have a colon and a hyphen.
            Some((from, hours)) if hours.contains(':') && hours.contains('-') => {
                (from, Some(hours.parse()?))
            }
            _ => (from, None),
        };
        let source = |text: &str| match text.trim() {
            "*" => Ok(Source::Any),
            network => network.parse().map(Source::Network),
        };
        let from = from.split(',').map(source).collect::<Result<_, _>>()?;
        Ok(Self { from, hours, rate })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, source) in self.from.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match source {
                Source::Any => write!(f, "{comma}*")?,
                Source::Network(network) => write!(f, "{comma}{network}")?,
            }
        }
        if let Some(hours) = &self.hours {
            write!(f, " {hours}")?;
        }
        write!(f, " = {}", self.rate)
    }
}

impl FromStr for Definition {
    type Err = DefinitionError;

    fn from_str(text: &str) -> Result<Self, DefinitionError> {
        let mut lines = Vec::new();
        for (at, line) in text.lines().enumerate() {
            // Comments may also stand behind a line.
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let parsed =
                line.parse().map_err(|fault| DefinitionError::Line { line: at + 1, fault });
            lines.push(parsed?);
        }
        match lines.len() {
            0 => Err(DefinitionError::Empty),
            1..=MOST_LINES => Ok(Self(lines)),
            many => Err(DefinitionError::TooMany(many)),
        }
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{line}")?;
        }
        Ok(())
    }
}

impl Definition {
    /// Its lines.
    pub fn lines(&self) -> &[Line] {
        &self.0
    }

    /// The number, from 0, of the line that counts for a caller at a minute of the day; None: no line is for it, and
    /// so it may do nothing.  A caller without an address is one from inside, for whom only `*` stands.
    pub fn find(&self, addr: Option<IpAddr>, minute: u16) -> Option<usize> {
        self.0.iter().position(|line| {
            line.hours.is_none_or(|hours| hours.contain(minute))
                && line.from.iter().any(|source| match source {
                    Source::Any => true,
                    Source::Network(network) => addr.is_some_and(|addr| network.contains(addr)),
                })
        })
    }
}

/// For fuzzing: any text as a definition.  Panics where what was accepted is not read back the same.
#[expect(clippy::panic, reason = "this is how a fuzzer is told")]
pub fn fuzz(text: &str) {
    let Ok(definition) = text.parse::<Definition>() else { return };
    let written = definition.to_string();
    if written.parse::<Definition>().ok().as_ref() != Some(&definition) {
        panic!("{text:?} became {written:?}, which is another definition");
    }
    for addr in [None, "192.0.2.7".parse().ok(), "2001:db8::1".parse().ok()] {
        for minute in [0, 719, 1439] {
            if definition.find(addr, minute).is_some_and(|at| at >= definition.lines().len()) {
                panic!("{text:?} has no such line");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = text.parse::<Definition>();
        let found = found.map_or_else(|err| err.to_string(), |definition| definition.to_string());
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn definitions_of_3_2_are_read_as_they_are() {
        check("*=1000/m", "* = 1000/m");
        check(
            "  192.168.1.123 = 11/m\n 127.0.0.1/32  = 1/h\n\n# all others\n * = *\n",
            "192.168.1.123 = 11/m\n127.0.0.1 = 1/h\n* = *",
        );
        check("10.210.7.9/18 = 5/d", "10.210.0.0/18 = 5/d");
    }

    #[test]
    fn lines_may_have_networks_hours_and_a_count_for_each_address() {
        check("10.0.0.0/8,fd00::/8 08:00-18:00=5/s", "10.0.0.0/8, fd00::/8 08:00-18:00 = 5/s");
        check("* 22:00-06:00 = none # at night", "* 22:00-06:00 = none");
        check("* = 10 / m   each", "* = 10/m each");
        check("::ffff:10.0.0.0/104 = 1/m", "10.0.0.0/8 = 1/m");
    }

    #[test]
    fn what_is_no_definition_is_refused_with_its_line() {
        check("", "there is no line in it; something like `*=1000/m` was expected");
        check("*=1/m\nhello", "line 2: `hello` has no `=`; `FROM = RATE` was expected");
        check(
            "*=1/y",
            "line 1: `1/y` is no rate; a number per `s`, `m`, `h` or `d` (`1000/m`), `*` or `none` was expected",
        );
        check("*=0/m", "line 1: 0 requests are no rate; write `none` to let nobody in");
        check("*=5000000000/m", "line 1: `5000000000` is not a number between 1 and 1000000000");
        check(
            "10.0.0.0/33=1/m",
            "line 1: `10.0.0.0/33` is no address and no network; `10.0.0.7`, `192.168.0.0/16`, `fd00::/8` or `*` was expected",
        );
        check(
            "* 8:00-18:00=1/m",
            "line 1: `8:00-18:00` is no part of a day; something like `08:00-18:00` was expected",
        );
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "10.0.0.1 = none\n10.0.0.0/8 08:00-18:00 = 5/m\n10.0.0.0/8 = 1/m";
        let definition: Definition = text.parse().unwrap();
        let find = |addr: &str, minute| definition.find(addr.parse().ok(), minute);
        assert_eq!(find("10.0.0.1", 600), Some(0));
        assert_eq!(find("10.0.0.2", 600), Some(1));
        assert_eq!(find("::ffff:10.0.0.2", 600), Some(1));
        assert_eq!(find("10.0.0.2", 480), Some(1));
        assert_eq!(find("10.0.0.2", 1080), Some(2));
        assert_eq!(find("192.0.2.1", 600), None);
        assert_eq!(definition.find(None, 600), None);
        let night: Definition = "* 22:00-06:00 = 1/m".parse().unwrap();
        assert_eq!(night.find(None, 23 * 60), Some(0));
        assert_eq!(night.find(None, 5 * 60 + 59), Some(0));
        assert_eq!(night.find(None, 6 * 60), None);
    }

    #[test]
    fn no_text_makes_it_panic_and_what_it_reads_it_reads_again() {
        // A few thousand texts of the characters that matter; `make fuzz` tries more.
        let letters: Vec<char> = "*=/,.:-#0123459smhd \nfe acno".chars().collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for length in 0..20_000 {
            let text: String = (0..length % 40)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    letters[usize::try_from(state % 28).unwrap()]
                })
                .collect();
            fuzz(&text);
        }
    }
}
