//! The configuration's text, for the fuzz targets.

use super::{file, parse_bytes, parse_duration, parse_interval, parse_rate};

/// The first byte says whether the rest is a file, or one value of it.
pub fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    if mode % 2 == 0 {
        // Not resolved: that looks at the files that it names.
        if let Err((at, why)) = file::parse(&text) {
            assert!(at.unwrap_or_default() <= text.len() && !why.contains('\n'));
        }
        return;
    }
    if let Ok(bytes) = parse_bytes(&text) {
        assert_eq!(parse_bytes(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(duration) = parse_duration(&text) {
        assert!(parse_interval(&text) == Ok(Some(duration)));
    }
    let _ = parse_rate(&text);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let file = "state_dir = \"/s\"\nallow_uids = [0, 5]\njournal_max = \"64MiB\"\nage = \"250ms\"\nsessions_max = 7\nlog = \"debug\"\n\
        metrics = \"127.0.0.1:9\"\n[verify]\nevery = \"12h\"\ndeep_every = \"never\"\nrate = 5\n[space]\nwarn = 9\nreserve = \"1GB\"\n[[share]]\nname = \"data\"\npath = \"/d\"\n\
        mode = \"map\"\n[[site]]\nname = \"b\"\nurl = \"ws://127.0.0.1:7400\"\ntoken_file = \"/t\"\nlimit = \"10MB/s\"\ninsecure = true\n";
    let values = [
        "500MB",
        "4GiB",
        "18446744073709551615",
        "10MB/s",
        "none",
        "5m",
        "never",
        "2 h",
    ];
    let mut seeds = vec![[&[0], file.as_bytes()].concat()];
    seeds.extend(values.iter().map(|value| [&[1], value.as_bytes()].concat()));
    seeds
}
