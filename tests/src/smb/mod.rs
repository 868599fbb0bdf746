//! Real SMB clients: Samba's smbclient for what it can do, clients in Python for handles that stay open and for
//! requests that smbclient has no command for.

mod client;
mod program;
mod session;
mod unix1;

pub use client::{SmbClient, quote};
pub use session::{Basic, Descriptor, Entry, Handle, Open, Session};
pub use unix1::{AclEntry, Unix1};
