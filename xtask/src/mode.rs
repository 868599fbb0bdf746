//! `--mode`: how the module tells writes.

use clap::ValueEnum;
use vfsx_tests::lab;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Ranges that were written; vfsxd reads the content.
    Map,
    /// Written data, too: every recovery point is a state that the share had.
    Copy,
}

impl From<Mode> for lab::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Map => Self::Map,
            Mode::Copy => Self::Copy,
        }
    }
}

/// The chosen one, else that of the environment.
pub fn chosen(mode: Option<Mode>) -> lab::Mode {
    mode.map_or_else(lab::Mode::of_environment, Into::into)
}
