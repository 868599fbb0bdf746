//! Harness of the end-to-end tests: a private smbd, vfsxd and recovery sites in one directory, clients that work on
//! the share, and the comparison of a restored tree with the share.

pub mod clock;
pub mod compare;
pub mod guard;
pub mod lab;
pub mod loopfs;
pub mod network;
pub mod relay;
pub mod rpc;
pub mod smb;
pub mod testlab;
pub mod thrash;
pub mod wait;
pub mod work;
