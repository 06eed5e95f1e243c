//! Writing answers: documents, tables, moments.

use std::io::Write as _;

use serde::Serialize;

use crate::failure::Failure;

/// Writes bytes to stdout.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Failure::NobodyReads)
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a document as JSON.
pub(crate) fn json<T: Serialize>(document: &T) -> Result<(), Failure> {
    // What comes from the API can be written as JSON again: this cannot fail.
    line(&serde_json::to_string_pretty(document).unwrap_or_default())
}

/// Columns of text, aligned; nothing where there are no rows.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// Starts with the titles.
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self(vec![titles.iter().map(|title| (*title).to_owned()).collect()])
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    /// The lines.
    pub(crate) fn render(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.chars().count() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Writes it to stdout; says so on one line where there is nothing.
    pub(crate) fn print(&self, nothing: &str) -> Result<(), Failure> {
        if self.0.len() < 2 { line(nothing) } else { bytes(self.render().as_bytes()) }
    }
}

/// A moment in UTC to the second: `2026-11-21 00:07:49`.
pub(crate) fn moment(unix_ms: u64) -> String {
    let secs = unix_ms / 1000;
    let (mut days, of_day) = (secs / 86_400, secs % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "PATH"]);
        table.row(["größer".to_owned(), "/a".to_owned()]);
        table.row(["x".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME    PATH\ngrößer  /a\nx\n");
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(951_827_696_789), "2000-02-29 12:34:56");
        assert_eq!(moment(1_795_219_669_001), "2026-11-21 00:07:49");
        assert_eq!(moment(4_102_444_799_999), "2099-12-31 23:59:59");
    }
}
