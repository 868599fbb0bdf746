//! Ways for the fuzz targets to decoders that nobody else outside needs. No interface: it changes with what it leads to.

pub use crate::auth::fuzzing as auth;
pub use crate::metadata::commits::fuzzing as commits;
pub use crate::storage::fs::fuzzing as pack;

/// What people and programs write on a command line and into the configuration. The first byte says which it is.
pub fn text(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match mode % 4 {
        0 => {
            let parsed = crate::config::Config::parse(&text, std::path::Path::new("/etc/restfs/restfs.toml"));
            if let Err(error) = parsed {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        1 => crate::service::fuzz_point(&text),
        2 => crate::cli::fuzz_target(bytes),
        _ => {
            if let Some(token) = crate::auth::Token::parse(&text) {
                assert_eq!(crate::auth::Token::parse(&token.reveal()), Some(token));
            }
        }
    }
}

pub fn texts() -> Vec<Vec<u8>> {
    let token = format!("restfs_{}_{}", "01".repeat(8), "23".repeat(32));
    let file = "data_dir = \"/srv\"\nlisten = \"127.0.0.1:7400\"\ninsecure = true\n[limits]\nconnections = 3\nmessage_memory_mib = 64\n\
        [cache]\nblocks_mib = 1\nmetadata_mib = 2\n[scrub]\nevery_days = 3\nrate_mib = 4\n[space]\nreserve_mib = 5\nwarn_mib = 6\n[log]\nlevel = \"debug\"\n";
    [
        (0, file),
        (1, "latest"),
        (1, "17"),
        (1, "-2h"),
        (1, "-9223372036854775807w"),
        (1, "2026-11-20T14:00:00+01:00"),
        (1, "9999-12-31T23:59:59.999999999Z"),
        (2, "data@2026-11-20T14:00:00+01:00:/a:/b"),
        (2, "data@-2h"),
        (3, &token),
    ]
    .into_iter()
    .map(|(mode, text)| [&[mode][..], text.as_bytes()].concat())
    .collect()
}
