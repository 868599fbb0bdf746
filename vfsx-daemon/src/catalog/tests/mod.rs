//! The catalog on a real directory, fed by hand.

mod audit;
mod content;
mod crash;
mod exact;
mod exclude;
mod names;
mod random;
mod rig;
mod scan;
mod ship;
