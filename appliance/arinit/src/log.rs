//! The kernel's log, which the console shows and the journal takes over.

use std::error::Error;
use std::fs::File;
use std::io::Write;

/// Something a person must know.
pub(crate) fn err(text: &str) {
    write(3, text);
}

/// Something unexpected that does not stop the start.
pub(crate) fn warn(text: &str) {
    write(4, text);
}

/// What was done.
pub(crate) fn info(text: &str) {
    write(6, text);
}

fn write(level: u8, text: &str) {
    let line = format!("<{level}>arinit: {}\n", text.replace('\n', " "));
    // Nobody can be told that nobody can be told.
    if let Ok(mut kmsg) = File::options().write(true).open("/dev/kmsg") {
        kmsg.write_all(line.as_bytes()).ok();
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
