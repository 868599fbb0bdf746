//! Fuzz targets: every decoder of the project takes any bytes, keeps its promises and its limits. `docs/fuzzing.md` says how they
//! are run.

mod mutate;
mod targets;

pub use mutate::Mutator;
pub use targets::TARGETS;

use peak_alloc::PeakAlloc;

/// Something that takes bytes from outside.
pub struct Target {
    pub name: &'static str,
    /// One line for a person.
    pub about: &'static str,
    /// Valid inputs, made by the encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Longest input that is tried, in bytes.
    pub longest: usize,
    /// Most memory that one input may make it take, in bytes.
    pub memory: usize,
}

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Gives `data` to the target. `heap` is the program's allocator. Panics when a promise or the target's bound of memory is broken.
pub fn take(target: &Target, heap: &PeakAlloc, data: &[u8]) {
    let data = data.get(..target.longest).unwrap_or(data);
    let before = heap.current_usage();
    heap.reset_peak_usage();
    (target.run)(data);
    let taken = heap.peak_usage().saturating_sub(before);
    assert!(
        taken <= target.memory,
        "{taken} bytes of memory for {} bytes of input are more than the {} of target {}",
        data.len(),
        target.memory,
        target.name
    );
}
