//! The gap flag: a small file that outlives smbd and tells vfsxd that changes of a session were lost.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use vfsx_proto::{GapReason, SessionId};

/// What is lost, from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub since_ns: i64,
    pub reason: GapReason,
}

/// `STATE/gaps/SHARE/SESSION`, the session in hexadecimal. A slash in the share's name becomes `_`.
pub fn path(state: &Path, share: &str, session: SessionId) -> PathBuf {
    let hex: String = session.0.iter().map(|byte| format!("{byte:02x}")).collect();
    state.join("gaps").join(share.replace('/', "_")).join(hex)
}

/// Writes the flag so that vfsxd sees it whole or not at all, also after a loss of power. Needs root.
pub fn write(path: &Path, lost: Lost, pid: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text(lost, pid).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(dir)?.sync_all()
}

fn text(lost: Lost, pid: u32) -> String {
    let reason = match lost.reason {
        GapReason::RingFull => "RingFull",
        GapReason::DaemonAbsent => "DaemonAbsent",
        GapReason::Panic => "Panic",
        GapReason::Unrepresentable => "Unrepresentable",
    };
    format!(
        "{{\"since_ns\":{},\"reason\":\"{reason}\",\"pid\":{pid}}}\n",
        lost.since_ns
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_one_line_of_json_and_nothing_else_stays() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = path(dir.path(), "a/b", SessionId([0xab; 16]));
        write(
            &path,
            Lost {
                since_ns: 17,
                reason: GapReason::DaemonAbsent,
            },
            42,
        )
        .expect("written");
        let text = fs::read_to_string(&path).expect("readable");
        assert_eq!(text, "{\"since_ns\":17,\"reason\":\"DaemonAbsent\",\"pid\":42}\n");
        let names: Vec<_> = fs::read_dir(dir.path().join("gaps/a_b"))
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["ab".repeat(16).as_str()]);
    }
}
