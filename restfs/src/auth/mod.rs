//! Who may do what: tokens, roles, and the identity of a connection.

#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod token;
pub(crate) mod tokens;

pub use identity::{Identity, Need};
pub use token::Token;
pub use tokens::{Auth, TokenRecord};
