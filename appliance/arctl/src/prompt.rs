//! Asking for passwords: without echo on the terminal, or from stdin in scripts.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::failure::Failure;

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The terminal.
    Terminal,
    /// The first line of stdin.
    Stdin,
}

/// Reads a secret; `title` is shown on the terminal.
pub(crate) fn secret(title: &str, from: From) -> Result<String, Failure> {
    match from {
        From::Stdin => first_line_of_stdin(),
        From::Terminal => hidden(title),
    }
}

/// Reads a new secret; on the terminal twice.
pub(crate) fn new_secret(title: &str, from: From) -> Result<String, Failure> {
    let first = secret(title, from)?;
    if from == From::Terminal && hidden(&format!("{title} again"))? != first {
        return Err(Failure::Failed("the two entries differ; nothing was changed".to_owned()));
    }
    Ok(first)
}

/// Reads a line from the terminal, with echo.
pub(crate) fn visible(title: &str) -> Result<String, Failure> {
    let mut terminal = terminal()?;
    ask(&mut terminal, title)
}

/// Everything there is on stdin.
pub(crate) fn all_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut text)
        .map_err(|source| Failure::Read { path: "-".into(), source })?;
    Ok(text)
}

fn first_line_of_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|source| Failure::Read { path: "-".into(), source })?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn terminal() -> Result<File, Failure> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(Failure::Terminal)
}

fn ask(terminal: &mut File, title: &str) -> Result<String, Failure> {
    write!(terminal, "{title}: ").map_err(Failure::Terminal)?;
    let mut line = String::new();
    BufReader::new(&*terminal).read_line(&mut line).map_err(Failure::Terminal)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn hidden(title: &str) -> Result<String, Failure> {
    let mut terminal = terminal()?;
    let _echo = WithoutEcho::start(&terminal)?;
    let answer = ask(&mut terminal, title);
    // The line feed that was not echoed.
    writeln!(terminal).map_err(Failure::Terminal)?;
    answer
}

/// Switches the echo of a terminal off, and back on when dropped.
struct WithoutEcho {
    terminal: File,
    before: Termios,
}

impl WithoutEcho {
    fn start(terminal: &File) -> Result<Self, Failure> {
        let terminal = terminal.try_clone().map_err(Failure::Terminal)?;
        let fault = |err: nix::Error| Failure::Terminal(err.into());
        let before = tcgetattr(&terminal).map_err(fault)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(fault)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for WithoutEcho {
    fn drop(&mut self) {
        // Nothing can be done where it fails; the shell resets its terminal.
        tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before).ok();
    }
}
