//! Every wrong configuration is one line that names the place and the remedy.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        fs::create_dir(dir.path().join("data")).expect("share");
        fs::write(dir.path().join("token"), "restfs_1_secret\n").expect("token");
        fs::set_permissions(dir.path().join("token"), fs::Permissions::from_mode(0o600)).expect("mode");
        Self { dir }
    }

    /// `DIR` in the text is the scratch directory.
    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        let path = self.dir.path().join("vfsxd.toml");
        fs::write(&path, text.replace("DIR", &self.dir.path().display().to_string())).expect("writes");
        Config::load(&path)
    }

    fn error(&self, text: &str) -> String {
        let error = self.load(text).expect_err("is wrong").to_string();
        assert!(!error.contains('\n'), "more than one line: {error}");
        error
    }
}

const SHARE: &str = "[[share]]\nname = \"data\"\npath = \"DIR/data\"\n";
const SITE: &str = "[[site]]\nname = \"b\"\nurl = \"ws://127.0.0.1:7400\"\ntoken_file = \"DIR/token\"\n";

#[test]
fn a_full_configuration_is_taken_as_written() {
    let scratch = Scratch::new();
    let text = format!(
        "state_dir = \"DIR/state\"\nsocket = \"DIR/s\"\ncontrol = \"DIR/c\"\nallow_uids = [0, 5]\n\
         journal_max = \"64MiB\"\nchanges_max = 20000\nage = \"250ms\"\nlog = \"debug\"\n{SHARE}mode = \"map\"\n{SITE}\
         limit = \"10MB/s\"\nbucket = \"x\"\nshares = [\"data\"]\n"
    );
    let config = scratch.load(&text).expect("is right");
    assert_eq!(config.journal_max, 64 << 20);
    assert_eq!(config.changes_max, 20_000);
    assert_eq!(config.age, Duration::from_millis(250));
    assert_eq!(config.allow_uids, [0, 5]);
    assert_eq!(config.shares[0].mode, Mode::Map);
    let site = &config.sites[0];
    assert_eq!(site.limit.map(NonZeroU64::get), Some(10_000_000));
    assert_eq!(site.token.as_deref(), Some("restfs_1_secret"));
    assert_eq!(site.bucket_for("data"), "x");
    assert_eq!(config.warnings, [""; 0]);
    assert!(!format!("{config:?}").contains("secret"), "the token is shown");
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = Scratch::new().load(&format!("{SHARE}{SITE}")).expect("is right");
    assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.allow_uids, [0]);
    assert_eq!(config.shares[0].mode, Mode::Copy);
    assert_eq!(config.sites[0].bucket_for("data"), "data");
    assert_eq!(config.sites[0].limit, None);
}

#[test]
fn verifies_are_planned_as_written_and_left_out_when_never() {
    let scratch = Scratch::new();
    let text = format!("{SHARE}[verify]\nevery = \"never\"\ndeep_every = \"7d\"\nrate = \"none\"\n");
    let verify = scratch.load(&text).expect("is right").verify;
    assert_eq!(verify.every, None);
    assert_eq!(verify.deep_every, Some(Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(verify.rate, None);
    let verify = scratch.load(SHARE).expect("is right").verify;
    assert_eq!(verify.every, Some(DEFAULT_VERIFY_EVERY));
    assert_eq!(
        (verify.deep_every, verify.rate),
        (None, Some(DEFAULT_VERIFY_RATE))
    );
    for (entry, expected) in [
        ("every = \"0s\"", "never"),
        ("deep_every = \"weekly\"", "7d"),
        ("rates = 1", "rates"),
    ] {
        let error = scratch.error(&format!("{SHARE}[verify]\n{entry}\n"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_share_is_reconciled_as_it_says_itself_or_else_as_all_are() {
    let scratch = Scratch::new();
    let of = |text: &str| scratch.load(text).expect("is right").shares[0].reconcile;
    let by_default = Reconcile {
        after_gap: Some(DEFAULT_AFTER_GAP),
        every: None,
    };
    assert_eq!(of(SHARE), by_default);
    let all = "[reconcile]\nafter_gap = \"never\"\nevery = \"1h\"\n";
    let hourly = Some(Duration::from_secs(3600));
    let expected = Reconcile {
        after_gap: None,
        every: hourly,
    };
    assert_eq!(of(&format!("{SHARE}{all}")), expected);
    let own = "reconcile = { after_gap = \"5s\" }\n";
    let expected = Reconcile {
        after_gap: Some(Duration::from_secs(5)),
        every: hourly,
    };
    assert_eq!(of(&format!("{SHARE}{own}{all}")), expected);
    for (entry, expected) in [
        ("after_gap = \"500ms\"", "at least 1s"),
        ("every = \"0s\"", "never"),
        ("after = 1", "after"),
    ] {
        let error = scratch.error(&format!("{SHARE}[reconcile]\n{entry}\n"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let scratch = Scratch::new();
    let error = scratch.error(&format!("{SHARE}colour = 1\n"));
    assert!(error.contains("line 4") && error.contains("colour"), "{error}");
    let error = scratch.error(&format!("jurnal_max = 5\n{SHARE}"));
    assert!(
        error.contains("line 1") && error.contains("jurnal_max"),
        "{error}"
    );
    let error = scratch.error(&format!("{SHARE}{SITE}limit = \"fast\"\n"));
    assert!(error.contains("fast") && error.contains("10MB/s"), "{error}");
}

#[test]
fn what_cannot_work_is_refused_with_a_remedy() {
    let scratch = Scratch::new();
    let loose = SITE.replace("ws://127.0.0.1", "ws://10.0.0.1");
    let wss = SITE.replace("ws://", "wss://");
    let cases = [
        (String::new(), "[[share]]"),
        (SHARE.replace("DIR/data", "DIR/none"), "create it"),
        (SHARE.replace("DIR/data", "DIR/token"), "not a directory"),
        (SHARE.replace("DIR/data", "data"), "not absolute"),
        (SHARE.replace("\"data\"", "\"../x\""), "cannot be used"),
        (
            format!("{SHARE}{}", SHARE.replace("\"data\"", "\"DATA\"")),
            "twice",
        ),
        (format!("state_dir = \"DIR/data/state\"\n{SHARE}"), "outside"),
        (format!("socket = \"/a\"\ncontrol = \"/a\"\n{SHARE}"), "own"),
        (format!("journal_max = 5\n{SHARE}"), "at least"),
        (format!("changes_max = 5\n{SHARE}"), "at least"),
        (format!("age = \"1ms\"\n{SHARE}"), "between"),
        (format!("allow_uids = []\n{SHARE}"), "allow_uids"),
        (format!("{SHARE}mode = \"all\"\n"), "copy"),
        (format!("{SHARE}{SITE}{SITE}"), "twice"),
        (
            format!("{SHARE}{SITE}{}", SITE.replace("\"b\"", "\"c\"")),
            "more than one share",
        ),
        (format!("{SHARE}{SITE}shares = [\"other\"]\n"), "other"),
        (format!("{SHARE}{loose}"), "insecure"),
        (format!("{SHARE}{wss}"), "fingerprint"),
        (format!("{SHARE}{wss}ca_file = \"DIR/none\"\n"), "recovery site"),
        (format!("{SHARE}{wss}ca_file = \"DIR/token\"\n"), "PEM"),
        (format!("{SHARE}{wss}fingerprint = \"12\"\n"), "fingerprint"),
        (format!("{SHARE}{SITE}fingerprint = \"12\"\n"), "wss://"),
        (format!("{SHARE}{}", SITE.replace("ws://", "http://")), "http://"),
        (
            format!("{SHARE}{}", SITE.replace("DIR/token", "DIR/none")),
            "restfs token create",
        ),
        (
            format!("{SHARE}{}", SITE.replace("token_file", "#")),
            "token_file",
        ),
        (format!("{SHARE}{SITE}limit = 0\n"), "not a rate"),
    ];
    for (text, expected) in cases {
        let error = scratch.error(&text);
        assert!(
            error.contains(expected),
            "{text}\ngave: {error}\nwithout: {expected}"
        );
    }
    let allowed = format!("{SHARE}{loose}insecure = true\n");
    assert!(scratch.load(&allowed).is_ok());
}

#[test]
fn a_token_that_others_can_read_and_a_share_that_goes_nowhere_are_warned_about() {
    let scratch = Scratch::new();
    fs::set_permissions(
        scratch.dir.path().join("token"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("mode");
    let config = scratch.load(&format!("{SHARE}{SITE}")).expect("is right");
    assert!(config.warnings[0].contains("chmod 600"), "{:?}", config.warnings);
    let config = scratch.load(SHARE).expect("is right");
    assert!(config.warnings[0].contains("no site"), "{:?}", config.warnings);
}

#[test]
fn units_are_what_they_say() {
    assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
    assert_eq!(parse_bytes("5"), Ok(5));
    assert!(parse_bytes("5 apples").is_err());
    assert!(parse_bytes("99999999999TB").is_err());
    assert_eq!(parse_rate("none"), Ok(None));
    assert_eq!(
        parse_rate("2KiB/s").map(|r| r.map(NonZeroU64::get)),
        Ok(Some(2048))
    );
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    assert!(parse_duration("2").is_err());
}
