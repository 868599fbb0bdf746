//! What must not be in any log, whatever its level.

use crate::place::*;
use std::io::Read;
use std::process::Stdio;

/// Server and commands at the most talkative level.
#[test]
fn the_secret_of_a_token_is_in_no_log_at_any_level() {
    let place = Place::configured();
    let mut server = place.command(&["--log", "trace", "serve"]);
    let mut child = server.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = child.stderr.take().unwrap();
    let (address, addresses) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = log.read(&mut bytes) {
            all.extend_from_slice(&bytes[..count]);
            let text = String::from_utf8_lossy(&all);
            let ready = text
                .lines()
                .find(|line| line.contains("ready") && line.contains("address="));
            if let Some(line) = ready {
                let rest = line.split("address=").nth(1).unwrap();
                let _ = address.send(rest.split_whitespace().next().unwrap().to_owned());
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let address = addresses.recv_timeout(PATIENCE).unwrap();
    let mut serving = Serving { child, address };
    let ok = |words: &[&str], token: Option<&str>| {
        let mut command = place.command(&["--log", "trace"]);
        command.args(words);
        if let Some(token) = token {
            command.env("RESTFS_TOKEN", token);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let made = ok(&["--json", "token", "create", "reader", "--role", "reader"], None);
    let token = restfs_token(&made.0);
    ok(&["bucket", "create", "data"], None);
    let url = format!("ws://{}", serving.address);
    let listed = ok(&["--url", &url, "bucket", "list"], Some(&token));
    assert!(listed.0.contains("data"));
    let wrong = format!("{}{}", &token[..token.len() - 8], "00000000");
    let mut refused = place.command(&["--log", "trace", "--url", &url, "bucket", "list"]);
    let refused = refused.env("RESTFS_TOKEN", &wrong).output().unwrap();
    assert!(!refused.status.success());
    serving.stop();
    let server = reading.join().unwrap();
    // That it was as talkative as that, or this test says nothing.
    assert!(server.contains("TRACE") || server.contains("DEBUG"), "{server}");
    let secret = token.rsplit('_').next().unwrap();
    // Enough of it that nobody has to guess the rest.
    let part = &secret[..secret.len() / 2];
    for (who, log) in [
        ("server", &server),
        ("token create", &made.1),
        ("client", &listed.1),
        ("refused client", &text(&refused.stderr)),
    ] {
        assert!(
            !log.contains(part),
            "the token's secret is in the log of the {who}"
        );
    }
}

fn restfs_token(json: &str) -> String {
    let at = json.find("restfs_").unwrap();
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    json[at..].split(end).next().unwrap().to_owned()
}
