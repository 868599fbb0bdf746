//! Questions: `operation:user:origpath:arg1,arg2` in blocks of 512 bytes.

use std::fmt::Write;

/// The original's only message size. Text of up to 511 bytes is the same on the wire as there; longer text takes more blocks.
pub(super) const BLOCK: usize = 512;
/// Longest text. Two names of Linux's longest path (4,096 bytes), every byte escaped, and the share's directory fit.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// An operation about to be done, with what it acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    name: &'static str,
    /// Escaped, separated by commas.
    arguments: Vec<u8>,
    has_arguments: bool,
}

impl Operation {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            arguments: Vec::new(),
            has_arguments: false,
        }
    }

    /// Adds a name or text, any bytes.
    pub fn text(mut self, text: &[u8]) -> Self {
        self.separate();
        escape(text, &mut self.arguments);
        self
    }

    /// Adds a number, decimal.
    pub fn number(mut self, number: impl Into<i128>) -> Self {
        self.separate();
        self.arguments.extend(number.into().to_string().into_bytes());
        self
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The blocks to send, `None` when the text is too long.
    pub(super) fn message(&self, user: &[u8], origpath: &[u8]) -> Option<Vec<u8>> {
        let mut text = self.name.as_bytes().to_vec();
        for field in [user, origpath] {
            text.push(b':');
            escape(field, &mut text);
        }
        if self.has_arguments {
            text.push(b':');
            text.extend_from_slice(&self.arguments);
        }
        if text.len() > MAX_TEXT {
            return None;
        }
        // At least one NUL: it ends the text, and the last byte of a block that is not the last is never NUL.
        let blocks = text.len() / BLOCK + 1;
        text.resize(blocks * BLOCK, 0);
        Some(text)
    }

    fn separate(&mut self) {
        if self.has_arguments {
            self.arguments.push(b',');
        }
        self.has_arguments = true;
    }
}

/// `%XX` for what separates, for control characters, and for bytes that are not UTF-8. All else stays readable.
fn escape(bytes: &[u8], to: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if matches!(character, '%' | ':' | ',' | '\0'..='\x1f' | '\x7f') {
                escape_byte(character as u8, to);
            } else {
                to.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            escape_byte(*byte, to);
        }
    }
}

fn escape_byte(byte: u8, to: &mut Vec<u8>) {
    let mut text = String::new();
    // Cannot fail: a String takes everything.
    let _ = write!(text, "%{byte:02X}");
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a handler does, written without a look at `escape`.
    fn unescape(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'%' {
                let digits = std::str::from_utf8(&tail[..2]).expect("digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                rest = &tail[2..];
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        bytes
    }

    /// Reads blocks until one ends with NUL.
    fn text_of(message: &[u8]) -> Vec<u8> {
        assert_eq!(message.len() % BLOCK, 0);
        let blocks: Vec<_> = message.chunks(BLOCK).collect();
        let last = blocks.iter().position(|block| block[BLOCK - 1] == 0);
        assert_eq!(last, Some(blocks.len() - 1), "only the last block ends with NUL");
        message.split(|byte| *byte == 0).next().expect("text").to_vec()
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let wild = proptest::collection::vec(1..=255u8, 0..700);
        let usual = "[a-zé:,%\n ]{0,40}".prop_map(String::into_bytes);
        prop_oneof![wild, usual]
    }

    proptest! {
        #[test]
        fn a_handler_that_splits_and_unescapes_gets_every_field_back(
            user in name(), root in name(), arguments in proptest::collection::vec(name(), 0..4)
        ) {
            let operation = arguments.iter().fold(Operation::new("rename"), |operation, text| operation.text(text));
            let text = text_of(&operation.message(&user, &root).expect("short enough"));
            prop_assert!(std::str::from_utf8(&text).is_ok());
            prop_assert!(!text.iter().any(u8::is_ascii_control));
            let fields: Vec<_> = text.split(|byte| *byte == b':').collect();
            prop_assert_eq!(fields[0], b"rename");
            prop_assert_eq!(unescape(fields[1]), user);
            prop_assert_eq!(unescape(fields[2]), root);
            let given: Vec<_> = match fields.get(3) {
                Some(field) => field.split(|byte| *byte == b',').map(unescape).collect(),
                None => Vec::new(),
            };
            prop_assert_eq!(fields.len(), if arguments.is_empty() { 3 } else { 4 });
            prop_assert_eq!(given, arguments);
        }
    }

    #[test]
    fn a_plain_message_is_the_originals() {
        let operation = Operation::new("rename").text(b"old").text("n\u{e9}w".as_bytes());
        let message = operation.message(b"steven", b"/home/share").expect("short");
        assert_eq!(message.len(), 512);
        assert_eq!(
            text_of(&message),
            "rename:steven:/home/share:old,n\u{e9}w".as_bytes()
        );
        let connect = Operation::new("connect")
            .message(b"steven", b"/home/share")
            .expect("short");
        assert_eq!(text_of(&connect), b"connect:steven:/home/share");
    }

    #[test]
    fn text_that_fills_a_block_gets_another_for_its_end() {
        for (length, blocks) in [(511, 1), (512, 2), (1023, 2), (1024, 3)] {
            let name = vec![b'n'; length - "unlink:u:/:".len()];
            let message = Operation::new("unlink")
                .text(&name)
                .message(b"u", b"/")
                .expect("short");
            assert_eq!(message.len(), blocks * BLOCK, "{length}");
            assert_eq!(text_of(&message).len(), length);
        }
    }

    #[test]
    fn the_longest_paths_fit_and_more_is_no_message() {
        let path = vec![0xff; 4096];
        let operation = Operation::new("rename").text(&path).text(&path);
        assert!(operation.message(b"user", &path).is_some());
        assert!(
            operation
                .text(&vec![0xff; MAX_TEXT])
                .message(b"user", &path)
                .is_none()
        );
    }

    #[test]
    fn separators_and_bytes_that_are_no_text_are_escaped() {
        let mut text = Vec::new();
        escape("a:b,c%d\n\u{e9}\u{7f}".as_bytes(), &mut text);
        escape(b"\xe9\xff", &mut text);
        assert_eq!(text, "a%3Ab%2Cc%25d%0A\u{e9}%7F%E9%FF".as_bytes());
    }
}
