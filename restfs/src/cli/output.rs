//! Tables for people, JSON for machines.

use anyhow::Result;
use restfs_lib::wire::values::{Kind, Object, Time};
use serde::Serialize;
use std::io::{ErrorKind, Write};

#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// The value as JSON, or what `table` makes of it.
    pub(super) fn show<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result<()> {
        let text = match self.json {
            true => serde_json::to_string_pretty(value)? + "\n",
            false => table(value),
        };
        print(text.as_bytes())
    }
}

/// Ends quietly when nobody reads any more (`| head`).
pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Columns as wide as their widest cell; the last one is not padded. Columns marked `>` are to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = head.iter().map(|name| name.starts_with('>')).collect();
    let head: Vec<String> = head
        .iter()
        .map(|name| name.trim_start_matches('>').to_owned())
        .collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| name(cell.as_bytes())).collect())
        .collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&rows).collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::new();
        for ((cell, width), right) in line.iter().zip(&widths).zip(&right) {
            let cell = match right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            };
            out += &cell;
            out += "  ";
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

/// `name  value` lines.
pub(super) fn list(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(what, value)| format!("{what:<width$}  {}\n", name(value.as_bytes())))
        .collect()
}

/// A name for a terminal: control characters could change what else is on it.
pub(super) fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// RFC 3339, in UTC.
pub(super) fn time(Time(seconds, nanoseconds): Time) -> String {
    match jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)) {
        Ok(time) => format!("{time:.3}"),
        // File systems know times that calendars do not.
        Err(_) => format!("{seconds} s"),
    }
}

/// The time of a recovery point, exact: as a POINT it leads there, and a rounded one to the point before.
pub(super) fn point_time(Time(seconds, nanoseconds): Time) -> String {
    match jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => format!("{seconds} s"),
    }
}

/// As `ls -l` shows it.
pub(super) fn mode(object: &Object) -> String {
    let kind = match object.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink { .. } => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = object.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, object.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_have_no_blanks_at_the_ends() {
        let text = table(
            &["name", ">bytes", "x"],
            &[vec!["a".into(), "1234567".into(), String::new()]],
        );
        assert_eq!(text, "name    bytes  x\na     1234567\n");
    }

    #[test]
    fn what_a_server_sends_cannot_write_over_the_terminal() {
        let text = table(&["a"], &[vec!["x\x1b[2J\ny".into()]]);
        assert_eq!(text, "a\nx\u{fffd}[2J\u{fffd}y\n");
        assert_eq!(list(&[("a", "x\r".into())]), "a  x\u{fffd}\n");
    }

    #[test]
    fn names_cannot_write_over_the_terminal() {
        assert_eq!(name(b"a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn the_time_of_a_point_is_told_to_the_nanosecond() {
        assert_eq!(point_time(Time(0, 1)), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(point_time(Time(-1, 0)), "1969-12-31T23:59:59.000000000Z");
        assert_eq!(point_time(Time(i64::MIN, 0)), format!("{} s", i64::MIN));
    }

    #[test]
    fn times_that_no_calendar_has_are_shown_all_the_same() {
        assert_eq!(time(Time(0, 1_000_000)), "1970-01-01T00:00:00.001Z");
        assert_eq!(time(Time(i64::MAX, 0)), format!("{} s", i64::MAX));
    }
}
