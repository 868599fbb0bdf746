//! Ways for the fuzz targets to decoders that nobody else outside needs. No interface: it changes with what it leads to.

pub use crate::catalog::fuzzing as catalog;
pub use crate::config::fuzzing as config;
pub use crate::intake::fuzzing as intake;
pub use crate::journal::fuzzing as journal;
