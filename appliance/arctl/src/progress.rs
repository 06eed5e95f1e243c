//! How far something is: a bar on a terminal, a line now and then elsewhere, nothing for programs.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Nothing,
}

/// Progress of one thing after another, on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    form: Form,
    last: Mutex<Option<(String, u64)>>,
}

impl Progress {
    /// A bar where stderr is a terminal, else a line every tenth; nothing for programs that read JSON.
    pub(crate) fn new(json: bool) -> Self {
        let form = match std::io::stderr().is_terminal() {
            _ if json => Form::Nothing,
            true => Form::Bar,
            false => Form::Lines,
        };
        Self { form, last: Mutex::default() }
    }

    /// Shows how far `what` is.
    pub(crate) fn at(&self, what: &str, percent: u64) {
        let percent = percent.min(100);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = step(self.form, last.as_ref(), what, percent) {
            // Nobody reads it: nothing is lost.
            std::io::stderr().lock().write_all(text.as_bytes()).ok();
            *last = Some((what.to_owned(), percent));
        }
    }

    /// Ends the bar, so that other text may follow.
    pub(crate) fn end(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.form == Form::Bar && last.take().is_some() {
            std::io::stderr().lock().write_all(b"\r\x1b[K").ok();
        }
    }
}

/// What is written next, if anything.
fn step(form: Form, last: Option<&(String, u64)>, what: &str, percent: u64) -> Option<String> {
    let is_same =
        |part: u64| last.is_some_and(|(before, at)| before == what && at / part == percent / part);
    match form {
        Form::Nothing => None,
        Form::Bar if is_same(1) => None,
        Form::Bar => {
            let full = usize::try_from(percent / 4).unwrap_or(0);
            let bar = format!("{}{}", "#".repeat(full), "-".repeat(25 - full.min(25)));
            Some(format!("\r\x1b[K[{bar}] {percent:>3} %  {what}"))
        }
        Form::Lines if is_same(10) => None,
        Form::Lines => Some(format!("{what}: {percent} %\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_every_tenth_and_a_bar_every_hundredth() {
        let last = ("uploading".to_owned(), 41);
        assert_eq!(step(Form::Lines, Some(&last), "uploading", 49), None);
        assert_eq!(
            step(Form::Lines, Some(&last), "uploading", 50).as_deref(),
            Some("uploading: 50 %\n")
        );
        assert_eq!(
            step(Form::Lines, Some(&last), "installing", 41).as_deref(),
            Some("installing: 41 %\n")
        );
        assert_eq!(step(Form::Bar, Some(&last), "uploading", 41), None);
        assert_eq!(
            step(Form::Bar, Some(&last), "uploading", 42).as_deref(),
            Some("\r\x1b[K[##########---------------]  42 %  uploading")
        );
        assert_eq!(step(Form::Nothing, None, "uploading", 1), None);
    }
}
