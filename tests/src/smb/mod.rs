//! Real SMB clients: Samba's smbclient for what it can do, impacket for handles that stay open and for
//! requests that smbclient has no command for.

mod client;
mod session;

pub use client::{SmbClient, quote};
pub use session::{Handle, Session};
