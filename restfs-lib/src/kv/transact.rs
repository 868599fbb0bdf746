//! One retry loop for all who write.

use super::{Kv, KvError, KvWrite};

/// Runs `work` in a transaction and commits it, again when it conflicts with another one.
pub fn transact<T, E>(kv: &dyn Kv, work: impl FnMut(&mut dyn KvWrite) -> Result<T, E>) -> Result<T, E>
where
    E: From<KvError>,
{
    let _ = (kv, work);
    todo!()
}
