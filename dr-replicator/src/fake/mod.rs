//! A source and a site in memory, with faults, for tests: also for those of other crates (feature `test-support`).

mod model;
mod random;
mod site;
mod source;

pub use model::Model;
pub use random::Random;
pub use site::{FakeSite, Faults};
pub use source::FakeSource;
