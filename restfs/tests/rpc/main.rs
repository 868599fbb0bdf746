//! The server's interface as its clients see it.

mod access;
mod common;
mod flips;
mod full;
mod gc;
mod gc_race;
mod objects;
mod patch;
mod purge;
mod rebuild;
mod replication;
mod roles;
mod scrub;
mod space;
mod tenants;
mod verify;
mod wire;
