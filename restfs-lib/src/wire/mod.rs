//! Messages of the RPC: JSON-RPC 2.0, as JSON text or as BSON. Has its own types; `convert` is the one place where they
//! become the model's and are checked. Bytes are drawn in `docs/formats/wire.md`, methods in `docs/rpc.md`.

mod bytes;
pub mod check;
mod convert;
mod encoding;
mod envelope;
mod error;
mod failure;
pub mod limits;
pub mod method;
#[cfg(test)]
mod tests;
pub mod values;

pub use bytes::{Content, Hex, Name};
pub use convert::{segment_from_wire, segment_to_wire};
pub use encoding::{Encoding, Payload};
pub use envelope::{Id, Message};
pub use error::{Code, ErrorData, MAX_MISSING_NAMED, RpcError};
pub use method::Method;
