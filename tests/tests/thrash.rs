//! Everything at once, in short: `cargo xtask thrash` plays longer rounds, and as many as wanted.

use vfsx_tests::lab::{Binaries, Mode};
use vfsx_tests::thrash::{Scale, round};

/// Its round has kills of vfsxd, of a site and of an smbd process, a cut link, a clock set back a day and a full disk. Another one: VFSX_THRASH_SEED.
const SEED: u64 = 133;

fn seed() -> u64 {
    std::env::var("VFSX_THRASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEED)
}

#[test]
fn whatever_is_killed_cut_or_filled_nothing_is_lost_and_no_status_lies() {
    let binaries = match Binaries::of_this_test() {
        Ok(binaries) => binaries,
        Err(error) => panic!("{error:#}"),
    };
    match round(binaries, Mode::of_environment(), seed(), Scale::SHORT, true) {
        Ok(outcome) => println!("{outcome:?}"),
        Err(error) => panic!("{error:#}"),
    }
}
