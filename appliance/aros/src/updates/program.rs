//! Other programs of the image: run, with what they said in the error.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Why another program did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It is not there, or cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It failed.
    #[error("`{program}` failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said, on one line.
        said: String,
    },
}

/// Runs a program to its end and returns what it wrote to its standard output.
pub(crate) fn run<I, S>(program: &str, args: I) -> Result<String, ProgramError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run_with_input(program, args, b"")
}

/// The same, with something on its standard input.
pub(crate) fn run_with_input<I, S>(
    program: &str,
    args: I,
    input: &[u8],
) -> Result<String, ProgramError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let start = |source| ProgramError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input says why it failed by its exit code.
        stdin.write_all(input).ok();
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    Err(ProgramError::Failed {
        program: program.to_owned(),
        status: output.status,
        said: last_words(&said),
    })
}

/// The last lines of what a program said, as one line of at most 400 characters.
pub(crate) fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = lines.get(lines.len().saturating_sub(4)..).unwrap_or_default().join("; ");
    let skip = tail.chars().count().saturating_sub(400);
    tail.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named_with_what_it_said_last() {
        let failed = run("sh", ["-c", "echo one >&2; echo two >&2; exit 3"]).unwrap_err();
        assert_eq!(failed.to_string(), "`sh` failed (exit status: 3): one; two");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let missing = run("no-such-program", [""; 0]).unwrap_err();
        assert_eq!(missing.to_string(), "cannot start `no-such-program`");
    }
}
