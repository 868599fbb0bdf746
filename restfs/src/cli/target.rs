//! `BUCKET[@POINT][:/PATH]`.

use anyhow::Result;
use restfs_lib::client::Client;
use restfs_lib::wire::Name;
use restfs_lib::wire::values::ObjectAt;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What a command is about. Paths are bytes, as on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) bucket: String,
    pub(super) point: Option<String>,
    pub(super) path: Option<Vec<u8>>,
}

/// For clap: the text is checked when the command line is read.
pub(super) fn parser() -> impl clap::builder::TypedValueParser<Value = Target> {
    use clap::builder::{OsStringValueParser, TypedValueParser};
    OsStringValueParser::new().try_map(|text: OsString| Target::parse(&text))
}

/// For the fuzz targets.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(target) = Target::parse(OsStr::from_bytes(bytes)) {
        assert!(!target.bucket.is_empty());
        let _ = (target.object(), target.name());
    }
}

impl Target {
    fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        // A time in POINT has colons too, but none that a slash follows.
        let (front, path) = match bytes.windows(2).position(|pair| pair == b":/") {
            Some(at) => (&bytes[..at], Some(bytes[at + 1..].to_vec())),
            None => (bytes, None),
        };
        let front =
            std::str::from_utf8(front).map_err(|_| "names of buckets are plain letters".to_owned())?;
        let (bucket, point) = match front.split_once('@') {
            Some((bucket, point)) => (bucket, Some(point.to_owned())),
            None => (front, None),
        };
        if bucket.is_empty() || bucket.contains(':') || point.as_deref() == Some("") {
            return Err("it is BUCKET[@POINT][:/PATH], such as data@-2h:/reports".to_owned());
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            point,
            path,
        })
    }

    /// The number of its point; `None`: now.
    pub(super) async fn resolve_point(&self, client: &Client) -> Result<Option<u64>> {
        match &self.point {
            None => Ok(None),
            Some(text) => Ok(Some(client.resolve_point(&self.bucket, text).await?.point)),
        }
    }

    /// The root without a path.
    pub(super) fn object(&self) -> ObjectAt {
        ObjectAt::Path(Name(self.path.clone().unwrap_or_else(|| b"/".to_vec())))
    }

    /// Last component of the path.
    pub(super) fn name(&self) -> OsString {
        let path = self.path.as_deref().unwrap_or(b"/");
        let name = path
            .split(|byte| *byte == b'/')
            .rfind(|part| !part.is_empty())
            .unwrap_or(b"/");
        OsString::from_vec(name.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_again(
            bucket in "[a-zA-Z0-9._-]{1,20}",
            point in prop::option::of("[0-9]{1,10}|-[0-9]{1,4}[smhdw]|2026-11-20T14:00:00(\\.[0-9]{1,9})?([+-][0-9]{2}:[0-9]{2}|Z)"),
            path in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let path = path.map(|path| [b"/", &path[..]].concat());
            let mut text = bucket.clone().into_bytes();
            if let Some(point) = &point {
                text.extend([b"@", point.as_bytes()].concat());
            }
            if let Some(path) = &path {
                text.extend([b":", &path[..]].concat());
            }
            prop_assert_eq!(parse(&text), Some((bucket, point, path)));
        }

        #[test]
        fn any_bytes_are_a_target_or_none(bytes: Vec<u8>) {
            if let Ok(target) = Target::parse(OsStr::from_bytes(&bytes)) {
                prop_assert!(!target.bucket.is_empty() && !target.bucket.contains([':', '@']));
                prop_assert!(target.point != Some(String::new()));
                prop_assert!(target.path.is_none_or(|path| path.starts_with(b"/")));
            }
        }
    }

    fn parse(text: &[u8]) -> Option<(String, Option<String>, Option<Vec<u8>>)> {
        let target = Target::parse(OsStr::from_bytes(text)).ok()?;
        Some((target.bucket, target.point, target.path))
    }

    #[test]
    fn points_and_paths_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parse(b"data"), Some(("data".to_owned(), None, None)));
        assert_eq!(
            parse(b"data:/a:/b"),
            Some(("data".to_owned(), None, Some(b"/a:/b".to_vec())))
        );
        assert_eq!(
            parse(b"data@-2h:/x@y"),
            Some(("data".to_owned(), some("-2h"), Some(b"/x@y".to_vec())))
        );
        assert_eq!(
            parse(b"data@2026-11-20T14:00:00+01:00:/"),
            Some((
                "data".to_owned(),
                some("2026-11-20T14:00:00+01:00"),
                Some(b"/".to_vec())
            ))
        );
        assert_eq!(
            parse(b"data:/\xff"),
            Some(("data".to_owned(), None, Some(b"/\xff".to_vec())))
        );
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [&b""[..], b"@1", b":/x", b"data@", b"data@:/x", b"data:x", b"\xff"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
