//! Samba's API as bindgen sees it in the headers of the installed version.

#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unreachable_pub,
    unnecessary_transmutes,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    unsafe_op_in_unsafe_fn,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/samba.rs"));
