//! Files that modules leave behind, for the fuzz targets.

use super::{flags, spool};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use vfsx_proto::{Event, Hello, Stamped, ToDaemon, encode, preamble};

/// The first byte says which of the two it is.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let Ok(mut file) = file(bytes) else { return };
    if mode % 2 == 0 {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flag = flags::parse(path.clone().into()).expect("memory does not fail");
        assert_eq!(flag.path.to_str(), Some(path.as_str()));
    } else {
        file.rewind().expect("memory does not fail");
        spool::read_whole(&file);
    }
}

/// Flags, and a spool file with these events.
pub fn seeds(hello: Hello, events: Vec<Event>) -> Vec<Vec<u8>> {
    let mut spool = [&[1][..], &preamble()].concat();
    let mut put = |message| encode(&message, &mut spool).expect("is short");
    put(ToDaemon::Hello(hello));
    let token = events.len() as u64;
    for (event, sequence) in events.into_iter().zip(1..) {
        put(ToDaemon::Events(vec![Stamped {
            sequence,
            time_ns: 1,
            began_ns: 2,
            event,
        }]));
    }
    put(ToDaemon::Sent { token });
    let flag = |text: &[u8]| [&[0][..], text].concat();
    vec![
        flag(br#"{"since_ns":7,"reason":"daemon-absent","pid":3,"last":9}"#),
        flag(br#"{"since_ns":-9223372036854775808,"reason":"RingFull"}"#),
        spool,
    ]
}

fn file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}
