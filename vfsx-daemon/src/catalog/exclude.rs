//! Names that are not replicated: patterns as in `veto files` of `smb.conf`.

use super::store::ExcludeRow;

/// Patterns, ready to be compared with names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Exclude {
    patterns: Vec<Vec<Token>>,
    case_sensitive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`: any characters, or none.
    Any,
    /// `?`: one character.
    One,
    Is(u32),
}

/// A byte that is no part of a character of UTF-8 is a character of its own, behind all others.
const NO_TEXT: u32 = 0x11_0000;

impl Exclude {
    /// `text` is `/pattern/pattern/`; what is between two slashes is a pattern, spaces included. Nothing between them is none.
    pub(super) fn new(row: &ExcludeRow) -> Self {
        let patterns = row.text.split(|byte| *byte == b'/').filter(|p| !p.is_empty());
        Self {
            patterns: patterns.map(|p| tokens(p, row.case_sensitive)).collect(),
            case_sensitive: row.case_sensitive,
        }
    }

    /// Whether a component of a path is one of these names.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let name = characters(name, self.case_sensitive);
        self.patterns.iter().any(|pattern| matches(pattern, &name))
    }
}

fn tokens(pattern: &[u8], case_sensitive: bool) -> Vec<Token> {
    let token = |character| match char::from_u32(character) {
        Some('*') => Token::Any,
        Some('?') => Token::One,
        _ => Token::Is(character),
    };
    characters(pattern, case_sensitive)
        .into_iter()
        .map(token)
        .collect()
}

fn characters(text: &[u8], case_sensitive: bool) -> Vec<u32> {
    let mut characters = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        let fold = |c: char| if case_sensitive { c } else { folded(c) };
        characters.extend(chunk.valid().chars().map(|c| u32::from(fold(c))));
        characters.extend(chunk.invalid().iter().map(|byte| NO_TEXT + u32::from(*byte)));
    }
    characters
}

/// One character for a letter in both cases. A letter that is several in the other case stays as it is.
fn folded(c: char) -> char {
    fn only(mut mapped: impl Iterator<Item = char>, c: char) -> char {
        match (mapped.next(), mapped.next()) {
            (Some(one), None) => one,
            _ => c,
        }
    }
    let upper = only(c.to_uppercase(), c);
    only(upper.to_lowercase(), upper)
}

/// Goes back to the last `*` only: a longer match for an earlier one is never needed. So it takes at most the product of both
/// lengths.
fn matches(pattern: &[Token], name: &[u32]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while let Some(character) = name.get(n) {
        match pattern.get(p) {
            Some(Token::Any) => {
                again = Some((p + 1, n + 1));
                p += 1;
                continue;
            }
            Some(Token::One) => {}
            Some(Token::Is(wanted)) if wanted == character => {}
            _ => {
                let Some((after, from)) = again else { return false };
                (p, n) = (after, from);
                again = Some((after, from + 1));
                continue;
            }
        }
        (p, n) = (p + 1, n + 1);
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exclude(text: &str, case_sensitive: bool) -> Exclude {
        Exclude::new(&ExcludeRow {
            text: text.into(),
            case_sensitive,
            since_ns: 0,
        })
    }

    fn is(text: &str, name: &str) -> bool {
        exclude(text, false).matches(name.as_bytes())
    }

    #[test]
    fn patterns_match_whole_names_like_veto_files() {
        let text = "/~$*/*.tmp/Thumbs.db/with space/?x/";
        for name in [
            "~$report.docx",
            "~$",
            "a.tmp",
            ".tmp",
            "thumbs.DB",
            "with space",
            "ax",
            "éX",
            "A.TMP",
        ] {
            assert!(is(text, name), "{name}");
        }
        for name in [
            "report.docx",
            "a.tmp2",
            "a.tm",
            "Thumbs.db2",
            "withspace",
            "x",
            "abx",
            "$~",
            "",
        ] {
            assert!(!is(text, name), "{name}");
        }
        for nothing in ["", "/", "//"] {
            assert!(!is(nothing, "a") && !is(nothing, ""), "{nothing:?}");
        }
        assert!(is("*.bak", "a.bak"), "slashes at the ends are not needed");
    }

    #[test]
    fn case_counts_only_where_the_share_says_so() {
        assert!(exclude("/*.tmp/", true).matches(b"a.tmp"));
        assert!(!exclude("/*.tmp/", true).matches(b"a.TMP"));
        assert!(is("/STRAßE/Ünï/", "straße") && is("/STRAßE/ünÏ/", "ÜNï"));
    }

    #[test]
    fn bytes_that_are_no_text_match_themselves_and_wildcards() {
        let exclude = Exclude::new(&ExcludeRow {
            text: b"/a\xff?/\xc3*/".to_vec(),
            case_sensitive: false,
            since_ns: 0,
        });
        assert!(exclude.matches(b"A\xff\xfe"));
        assert!(exclude.matches(b"\xc3x"));
        assert!(!exclude.matches(b"a\xfe\xfe") && !exclude.matches("\u{e9}x".as_bytes()));
    }

    /// The definition.
    fn model(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => model(rest, name),
            (Some((b'*', rest)), Some((_, after))) => model(rest, name) || model(pattern, after),
            (Some((b'?', rest)), Some((_, after))) => model(rest, after),
            (Some((p, rest)), Some((n, after))) => p == n && model(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let found = exclude(&format!("/{pattern}/"), true).matches(name.as_bytes());
            prop_assert_eq!(found, model(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
