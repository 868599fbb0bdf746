//! A bucket's tree over a [`crate::kv`] store, as of now or of any earlier point. Server and catalog share it.
//!
//! Rows are written by [`apply`] and [`apply_all`] alone. What is checked where:
//!
//! - **every op**: names, ids, times, layouts, limits; blocks fit the object's layout.
//! - **[`apply`]** (one op, in the order things happened): blocks and attributes need their object, blocks lie below
//!   its end, kind and layout stay what they are.
//! - **[`apply_all`] with [`Checks::Mirror`]** (a commit of a replicated bucket): the ops come in an order that need not
//!   be that of the events, and a commit may end in the middle of a rename or of a resync. So the state after all ops
//!   is put in order instead of refused: blocks beyond the end go, and attributes and blocks of objects that are not
//!   there. A directory may for a while have two names, none, or itself as an ancestor; an entry may lead to an
//!   object that is not there yet. Readers that walk a tree must bear that.
//! - **[`apply_all`] with [`Checks::Strict`]** (a client's own write): all of that is refused.

mod apply;
pub mod blocks;
pub mod bucket;
mod codec;
pub mod commit;
mod compare;
mod digest;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod held;
mod history;
mod keys;
pub mod purge;
mod read;
mod revision;
mod structure;
mod valid;
mod write;

pub use apply::{Applied, Checks, apply, apply_all};
pub use digest::{GROUP_OBJECTS, Row, Totals, group_of, row_digest};
pub use error::TreeError;
pub use history::{Changes, history};
pub use keys::RESERVED_KEYS;
pub use read::{At, Attribute, Tree};
pub use valid::{MAX_ATTRIBUTE, MAX_ATTRIBUTE_NAME, MAX_SIZE, MAX_SYMLINK};
pub use write::History;

#[cfg(test)]
mod tests;
