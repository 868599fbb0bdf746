//! All targets in one program, so that what they share is built and linked once: `cargo xtask fuzz` says which one it is to be.

#![no_main]
// libFuzzer calls a function of C's.
#![allow(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use std::sync::OnceLock;
use vfsx_fuzz::{Target, find, take};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("VFSX_FUZZ_TARGET").unwrap_or_default();
        find(&name).expect("VFSX_FUZZ_TARGET names a target")
    });
    take(target, &HEAP, data);
});
