//! Whether a file still is what was written.
//!
//! Rows have checksums, so one that is read and was changed shows. One that is not read does not: with another key it may
//! sort behind the range that it belongs to, or lead a search past others, and a page may have lost the place of a row. So
//! SQLite's own check of its tree (each page used once, each byte of a page accounted for, all keys in order) belongs to it.

use super::{KvError, SqliteKv, connect, kv_error, not_as_written, opened};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// What is wrong is told up to here.
const MOST_DAMAGES: usize = 100;
/// Steps of SQLite between two questions whether to go on: some thousand rows, or a few dozen MiB.
const STEPS: i32 = 10_000;
const CACHE: usize = 2 * 1024 * 1024;

/// What a look through a whole file found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    pub rows: u64,
    /// What is wrong, or the first of it.
    pub damages: Vec<String>,
}

impl SqliteKv {
    /// Reads the whole file, beside which others read and write. `None`: `go_on` said that it is to end.
    pub fn check(
        &self,
        mut go_on: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Option<Checked>, KvError> {
        let mut checked = Checked::default();
        // A connection of its own: what counts is what the file says, not what another keeps in memory.
        let looked = connect(&self.options, OpenFlags::empty(), CACHE).and_then(|connection| {
            let all = || {
                connection.progress_handler(STEPS, Some(move || !go_on()))?;
                look_at_tree(&connection, &mut checked)?;
                look_at_rows(&connection, &mut checked)
            };
            match all() {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(false),
                looked => looked.map(|()| true).map_err(kv_error),
            }
        });
        match looked {
            Ok(true) => Ok(Some(checked)),
            Ok(false) => Ok(None),
            Err(KvError::Corrupt(text) | KvError::Format(text)) => {
                checked.note(text);
                Ok(Some(checked))
            }
            Err(error) => Err(error),
        }
    }
}

impl Checked {
    fn note(&mut self, damage: String) {
        if self.damages.len() < MOST_DAMAGES {
            self.damages.push(damage);
        }
    }
}

fn look_at_tree(connection: &Connection, checked: &mut Checked) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let text: String = row.get(0)?;
        if text != "ok" {
            checked.note(text);
        }
    }
    Ok(())
}

fn look_at_rows(connection: &Connection, checked: &mut Checked) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT k, v FROM kv ORDER BY k")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        checked.rows += 1;
        match (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_blob()) {
            (Ok(key), Ok(stored)) if opened(key, stored).is_some() => {}
            (Ok(key), _) => checked.note(not_as_written(key)),
            (Err(_), _) => checked.note(format!("row {} has no key that was written", checked.rows)),
        }
    }
    Ok(())
}
