//! Whatever is written: it is taken as it says, or refused in one line that names the line.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/restfs/restfs.toml"))
}

/// Mistakes, each in a line of its own, and the section that it is in.
const MISTAKES: &[(&str, &str)] = &[
    ("", "data = \"/srv\""),
    ("", "data_dir = \"\""),
    ("", "data_dir = 5"),
    ("", "listen = \"everywhere\""),
    ("", "listen = 7400"),
    ("", "listen = \"0.0.0.0:7400\""),
    ("", "insecure = \"no\""),
    ("", "= 5"),
    ("", "\"unfinished"),
    ("[tls]", "certificate = \"c.pem\""),
    ("[limits]", "connections = 0"),
    ("[limits]", "message_memory_mib = 1"),
    ("[limits]", "connections = 4294967296"),
    ("[cache]", "blocks_mib = 0"),
    ("[cache]", "metadata_mib = -1"),
    ("[scrub]", "every_days = 3651"),
    ("[scrub]", "rate_mib = 0"),
    ("[gc]", "grace_minutes = 99999999"),
    ("[gc]", "rate_mib = \"much\""),
    ("[space]", "reserve_mib = 1048577"),
    ("[space]", "warn_mib = \"some\""),
    ("[log]", "json = 1"),
    ("[log]", "colour = true"),
];

fn remarks() -> impl Strategy<Value = Vec<&'static str>> {
    let remark = prop::sample::select(vec!["", "# a remark = 5", "  ", "#[gc]"]);
    prop::collection::vec(remark, 0..4)
}

proptest! {
    #[test]
    fn a_mistake_is_told_with_its_line(
        mistake in prop::sample::select(MISTAKES),
        before in remarks(),
        between in remarks(),
        behind in remarks(),
    ) {
        let (section, line) = mistake;
        let mut lines = before;
        if !line.starts_with("data_dir") {
            lines.push("data_dir = \"/srv\"");
        }
        lines.extend(between);
        lines.extend((!section.is_empty()).then_some(section));
        lines.extend(behind);
        lines.push(line);
        let at = lines.len();
        let text = lines.join("\n") + "\n";
        match parse(&text) {
            Err(ConfigError::Line { line, why, .. }) => {
                prop_assert_eq!(line, at, "{}\n{}", text, why);
                prop_assert!(!why.contains(char::is_control), "{}", why);
            }
            other => prop_assert!(false, "{text}\n{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_what_is_in_force(
        (connections, message, blocks, metadata) in (1u32..=100_000, 64u32..=1_048_576, 1u32..=1_048_576, 1u32..=1_048_576),
        (scrub_days, scrub_rate) in (0u32..=3650, 1u32..=1_048_576),
        (gc_days, gc_rate, grace) in (0u32..=3650, 1u32..=1_048_576, 0u32..=525_600),
        (reserve, json) in (prop::option::of(0u32..=1_048_576), any::<bool>()),
        address in any::<([u8; 4], u16)>(),
        order in Just(()).prop_perturb(|(), mut random| random.next_u64()),
    ) {
        let listen = std::net::SocketAddr::from(address);
        let mut sections = vec![
            format!("[limits]\nconnections = {connections}\nmessage_memory_mib = {message}\n"),
            format!("[cache]\nmetadata_mib = {metadata}\nblocks_mib = {blocks}\n"),
            format!("[scrub]\nevery_days = {scrub_days}\nrate_mib = {scrub_rate}\n"),
            format!("[gc]\ngrace_minutes = {grace}\nevery_days = {gc_days}\nrate_mib = {gc_rate}\n"),
            format!("[log]\njson = {json}\n"),
        ];
        sections.extend(reserve.map(|mib| format!("[space]\nreserve_mib = {mib}\n")));
        let turn = order as usize % sections.len();
        sections.rotate_left(turn);
        let text = format!("data_dir = \"/srv\"\nlisten = \"{listen}\"\ninsecure = true\n{}", sections.concat());
        let config = parse(&text).expect(&text);
        let mib = |mib: u32| (mib as usize) << 20;
        let days = |days: u32| (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400));
        prop_assert_eq!(config.listen, listen);
        prop_assert_eq!(config.max_connections, connections as usize);
        prop_assert_eq!((config.message_memory, config.block_cache, config.metadata_cache), (mib(message), mib(blocks), mib(metadata)));
        prop_assert_eq!((config.scrub.every, config.scrub.rate), (days(scrub_days), u64::from(scrub_rate) << 20));
        prop_assert_eq!((config.gc.every, config.gc.rate), (days(gc_days), u64::from(gc_rate) << 20));
        prop_assert_eq!(config.gc.grace, Duration::from_secs(u64::from(grace) * 60));
        prop_assert_eq!(config.space.reserve, reserve.map(|mib| u64::from(mib) << 20));
        prop_assert_eq!(config.log.json, json);
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error_within_it(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "[tls]", "[gc]", "[log]", "data_dir", "listen", "cert", "key", "every_days", "level", " = ", "=", "\"/srv\"", "\"[::1]:7400\"",
            "[", "]", "{", "}", "\"", "'", "\"\"\"", "\\", "\n", "\n", "\r\n", "#", "5", "-1", "0x", "true", "1979-05-27", "\u{feff}", "\u{0}",
            "\u{1b}[2J", "ß", ",", ".",
        ]), 0..30),
    ) {
        let text = pieces.concat();
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().contains(char::is_control), "{text:?}: {error}");
            if let ConfigError::Line { line, .. } = error {
                prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{text:?}: line {line}");
            }
        }
    }
}
