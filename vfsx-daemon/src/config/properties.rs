//! Whatever is written: it is taken as it says, or refused in one line that names the line.

use super::*;
use crate::draw::{Draw, draw};
use proptest::prelude::*;
use std::fs;

const BYTE_UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// With their milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A share's directory, and a token.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("scratch"));
        fs::create_dir(place.0.path().join("data")).expect("share");
        fs::write(place.0.path().join("token"), "restfs_1_secret\n").expect("token");
        place
    }

    /// `DIR` in the text is this place.
    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        let path = self.0.path().join("vfsxd.toml");
        fs::write(&path, text.replace("DIR", &self.0.path().display().to_string())).expect("writes");
        Config::load(&path)
    }
}

/// A file of sections, whose keys are in any order, with blank lines and remarks between them.
fn written(draw: &mut Draw, sections: &[(&str, Vec<String>)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (head, keys) in sections {
        let mut keys = keys.clone();
        lines.extend((!head.is_empty()).then(|| (*head).to_owned()));
        while !keys.is_empty() {
            let more: Vec<_> = draw.some(|draw| draw.one_of(&["", "# a remark = 5", "   ", "#[[share]]"]));
            lines.extend(more.into_iter().map(str::to_owned));
            lines.push(keys.swap_remove(draw.below(keys.len() as u64) as usize));
        }
    }
    lines
}

fn share() -> Vec<String> {
    vec!["name = \"data\"".into(), "path = \"DIR/data\"".into()]
}

fn site() -> Vec<String> {
    vec![
        "name = \"b\"".into(),
        "url = \"ws://127.0.0.1:7400\"".into(),
        "token_file = \"DIR/token\"".into(),
    ]
}

/// Mistakes, each in a line of its own: the section, what it takes the place of, and the line.
const MISTAKES: &[(usize, &str, &str)] = &[
    (0, "", "jurnal_max = 5"),
    (0, "", "journal_max = 5"),
    (0, "", "journal_max = -1"),
    (0, "", "journal_max = \"much\""),
    (0, "", "journal_max = true"),
    (0, "", "changes_max = 5"),
    (0, "", "changes_max = \"many\""),
    (0, "", "age = \"1ms\""),
    (0, "", "sessions_max = 0"),
    (0, "", "sessions_max = 60001"),
    (0, "", "age = 5"),
    (0, "", "allow_uids = []"),
    (0, "", "allow_uids = [\"root\"]"),
    (0, "", "state_dir = \"relative\""),
    (0, "", "socket = 7"),
    (0, "", "control = \"/run/vfsx/vfsxd.sock\""),
    (0, "", "metrics = \"nowhere\""),
    (0, "", "log ="),
    (0, "", "= 5"),
    (0, "", "\"unfinished"),
    (5, "", "warn = \"1MB\""),
    (5, "", "reserve = -1"),
    (5, "", "most = 1"),
    (1, "", "every = \"0s\""),
    (1, "", "deep_every = \"weekly\""),
    (1, "", "rates = 1"),
    (1, "", "every = 5"),
    (2, "", "after_gap = \"500ms\""),
    (2, "", "every = true"),
    (3, "", "colour = 1"),
    (3, "", "mode = \"all\""),
    (3, "", "reconcile = { every = \"0s\" }"),
    (3, "", "reconcile = { after = 1 }"),
    (3, "name", "name = \"../x\""),
    (3, "name", "name = 5"),
    (3, "path", "path = \"data\""),
    (3, "path", "path = \"DIR/none\""),
    (3, "path", "path = \"DIR/token\""),
    (3, "path", "path = \"DIR/x\\ny\""),
    (4, "", "limit = \"fast\""),
    (4, "", "limit = 0"),
    (4, "", "fingerprint = \"12\""),
    (4, "", "ca_file = \"/x\""),
    (4, "", "shares = [\"other\"]"),
    (4, "", "insecure = \"yes\""),
    (4, "", "bucket = 5"),
    (4, "name", "name = \"\""),
    (4, "url", "url = \"http://x\""),
    (4, "url", "url = \"ws://10.0.0.1\""),
    (4, "url", "url = \"wss://10.0.0.1\""),
    (4, "token_file", "token_file = \"DIR/none\""),
    (4, "token_file", "token_file = \"token\""),
    (4, "token_file", "token_file = \"DIR\""),
];

proptest! {
    #[test]
    fn a_size_is_its_number_times_its_unit(number: u64, shift in 0u32..64, unit in 0..BYTE_UNITS.len(), gap in " {0,2}") {
        let (number, (unit, factor)) = (number >> shift, BYTE_UNITS[unit]);
        let text = format!("{gap}{number}{gap}{unit}{gap}");
        prop_assert_eq!(parse_bytes(&text).ok(), number.checked_mul(factor));
        let rate = number.checked_mul(factor).and_then(NonZeroU64::new);
        prop_assert_eq!(parse_rate(&text).ok(), rate.map(Some));
        prop_assert_eq!(parse_rate(&format!("{text}/s")).ok(), rate.map(Some));
    }

    #[test]
    fn a_duration_is_its_number_times_its_unit(number: u64, shift in 0u32..64, unit in 0..TIME_UNITS.len(), gap in " {0,2}") {
        let (number, (unit, ms)) = (number >> shift, TIME_UNITS[unit]);
        let text = format!("{gap}{number}{gap}{unit}{gap}");
        let expected = match ms {
            1 => Some(Duration::from_millis(number)),
            ms => number.checked_mul(ms / 1000).map(Duration::from_secs),
        };
        prop_assert_eq!(parse_duration(&text).ok(), expected);
        prop_assert_eq!(parse_interval(&text).ok(), expected.map(Some));
    }

    #[test]
    fn any_text_is_a_value_or_none(text in ".{0,40}") {
        let digits = text.trim().starts_with(|c: char| c.is_ascii_digit());
        prop_assert!(digits || parse_bytes(&text).is_err());
        prop_assert!(digits || parse_duration(&text).is_err());
        prop_assert!(digits || text.trim() == "none" || parse_rate(&text).is_err());
        prop_assert!(digits || text.trim() == "never" || parse_interval(&text).is_err());
    }

    #[test]
    fn what_is_written_is_what_is_in_force(mut draw in draw()) {
        let place = Place::new();
        let (journal_mib, changes) = (16 + draw.below(1 << 30), 10_000 + draw.below(1 << 62));
        let (age_ms, every) = (50 + draw.below(3_599_951), 1 + draw.below(1 << 40));
        let uids: Vec<u32> = [vec![draw.u32()], draw.some(Draw::u32)].concat();
        let limit = 1 + draw.below(1 << 62);
        let sessions = 1 + draw.below(60_000);
        let mode = draw.one_of(&["map", "copy"]);
        let bucket: String = draw.one_of(&["x", "bücket", "a \\\"b\\\""]).to_owned();
        let top = vec![
            "state_dir = \"DIR/state\"".to_owned(),
            format!("journal_max = \"{journal_mib} MiB\""),
            format!("changes_max = {changes}"),
            format!("age = \"{age_ms}ms\""),
            format!("sessions_max = {sessions}"),
            format!("allow_uids = {uids:?}"),
        ];
        let share = [share(), vec![format!("mode = \"{mode}\""), format!("reconcile = {{ every = \"{every}s\" }}")]].concat();
        let site = [site(), vec![format!("limit = {limit}"), format!("bucket = \"{bucket}\"")]].concat();
        let verify = vec![format!("every = \"{every}s\""), "rate = \"none\"".to_owned()];
        let (reserve, above) = (draw.below(1 << 60), draw.below(1 << 60));
        let space = vec![format!("reserve = {reserve}"), format!("warn = \"{} B\"", reserve + above)];
        let sections = [("", top), ("[space]", space), ("[verify]", verify), ("[[share]]", share), ("[[site]]", site)];
        let text = written(&mut draw, &sections).join("\n");
        let config = place.load(&text).expect(&text);
        prop_assert_eq!(config.journal_max, journal_mib << 20);
        prop_assert_eq!(config.changes_max, changes);
        prop_assert_eq!(config.age, Duration::from_millis(age_ms));
        prop_assert_eq!(config.allow_uids, uids);
        prop_assert_eq!(config.sessions_max as u64, sessions);
        prop_assert_eq!(config.verify.every, Some(Duration::from_secs(every)));
        prop_assert_eq!(config.verify.rate, None);
        prop_assert_eq!((config.space.reserve, config.space.warn), (Some(reserve), Some(reserve + above)));
        prop_assert_eq!(config.shares[0].reconcile.every, Some(Duration::from_secs(every)));
        prop_assert_eq!(config.shares[0].mode == Mode::Map, mode == "map");
        prop_assert_eq!(config.sites[0].limit.map(NonZeroU64::get), Some(limit));
        prop_assert_eq!(config.sites[0].bucket.as_deref(), Some(&bucket.replace('\\', "")[..]));
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error_within_it(mut draw in draw()) {
        let pieces = [
            "[[share]]", "[[site]]", "[verify]", "[reconcile]", "name", "path", "url", "age", "every", "shares", "limit", " = ", "=",
            "\"data\"", "\"DIR/data\"", "\"ws://127.0.0.1\"", "\"1h\"", "[", "]", "{", "}", "\"", "'", "\"\"\"", "\\", "\n", "\n", "\r\n", "#",
            "5", "-1", "0x", "true", "1979-05-27", "\u{feff}", "\u{0}", "ß", ",", ".",
        ];
        let count = draw.below(30);
        let text: String = (0..count).map(|_| draw.one_of(&pieces)).collect();
        if let Err(error) = Place::new().load(&text) {
            prop_assert!(!error.to_string().contains(char::is_control), "{text:?}: {error}");
            if let ConfigError::Line { line, .. } = error {
                prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{text:?}: line {line}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_mistake_is_told_with_its_line(mut draw in draw()) {
        let place = Place::new();
        for (section, instead, mistake) in MISTAKES {
            let mut sections = [
                ("", vec!["log = \"info\"".to_owned()]),
                ("[verify]", vec!["rate = 5".to_owned()]),
                ("[reconcile]", Vec::new()),
                ("[[share]]", share()),
                ("[[site]]", site()),
                ("[space]", vec!["reserve = \"2MB\"".to_owned()]),
            ];
            let keys = &mut sections[*section].1;
            keys.retain(|key| instead.is_empty() || !key.starts_with(&format!("{instead} ")));
            if mistake.starts_with("log") || mistake.starts_with("reserve") {
                keys.clear();
            }
            keys.push((*mistake).to_owned());
            let lines = written(&mut draw, &sections);
            let at = 1 + lines.iter().position(|line| line == mistake).expect("was written");
            let text = lines.join("\n");
            let error = place.load(&text).expect_err(&text);
            let ConfigError::Line { line, .. } = &error else {
                panic!("{mistake}: no line: {error}");
            };
            prop_assert_eq!(*line, at, "{}\n{}", text, error);
            prop_assert!(!error.to_string().contains(char::is_control), "{}", error);
        }
    }
}
