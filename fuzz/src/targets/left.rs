//! What has no format of its own: files beside the socket, single lines.

use restfs_lib::client::{Trust, Url};
use vfsx_daemon::control::{Reply, Request};
use vfsx_proto::{Durability, Exclude, Hello, SessionId};

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let hello = Hello {
        session: SessionId([7; 16]),
        share: "data".to_owned(),
        pid: 4711,
        samba: "4.17.12".to_owned(),
        module: "0.1.0".to_owned(),
        durability: Durability::Noted,
        exclude: Exclude::default(),
        ring: None,
        spooled: 0,
    };
    vfsx_daemon::fuzzing::intake::seeds(hello, super::socket::events())
}

/// The first byte says what the line is.
pub(super) fn line(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match mode % 4 {
        0 => drop(serde_json::from_str::<Request>(&text)),
        1 => drop(serde_json::from_str::<Reply>(&text)),
        2 => {
            if let Ok(url) = text.parse::<Url>() {
                assert_eq!(url.to_string().parse::<Url>().ok().as_ref(), Some(&url));
            }
        }
        _ => drop(Trust::from_fingerprint(&text)),
    }
}

pub(super) fn lines() -> Vec<Vec<u8>> {
    [
        (0, r#"{"command":"status"}"#),
        (0, r#"{"command":"settle","share":"data","timeout_ms":60000}"#),
        (0, r#"{"command":"verify","deep":true,"repair":false,"rate":0}"#),
        (1, r#"{"error":{"text":"no","usage":true}}"#),
        (1, r#"{"done":{"changed":[["a","b"]]}}"#),
        (2, "wss://[::1]:7400"),
        (2, "ws://localhost/"),
        (2, "unix:///run/restfs.sock"),
        (
            3,
            "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff",
        ),
    ]
    .into_iter()
    .map(|(mode, text)| [&[mode][..], text.as_bytes()].concat())
    .collect()
}
