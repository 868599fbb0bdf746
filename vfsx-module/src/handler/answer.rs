//! Answers: a number in ASCII that tells by itself where it ends, since the classic protocol has no end mark.

use super::Failure;

/// More than any answer with its end marks, and enough of a wrong one for the log.
pub(super) const LIMIT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `0`
    GoOn,
    /// `-1`
    Error,
    /// `-2`
    Authorization,
}

impl Answer {
    /// What the client's call fails with; `None` when it goes on.
    pub fn errno(self) -> Option<i32> {
        match self {
            Answer::GoOn => None,
            Answer::Error => Some(libc::EIO),
            Answer::Authorization => Some(libc::EACCES),
        }
    }

    /// The answer in `bytes`, `None` while its end is not there. What is neither an answer nor an end mark is a failure, also
    /// behind an answer: it would be taken for that of the next question.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        let start = bytes
            .iter()
            .position(|byte| !is_mark(*byte))
            .unwrap_or(bytes.len());
        let (answer, rest) = match bytes.get(start..).unwrap_or_default() {
            [] | [b'-'] => return Ok(None),
            [b'0', rest @ ..] => (Self::GoOn, rest),
            [b'-', b'1', rest @ ..] => (Self::Error, rest),
            [b'-', b'2', rest @ ..] => (Self::Authorization, rest),
            _ => return Err(Failure::Nonsense(bytes.to_vec())),
        };
        if rest.iter().copied().all(is_mark) {
            Ok(Some(answer))
        } else {
            Err(Failure::Nonsense(bytes.to_vec()))
        }
    }
}

/// What handlers put around an answer: a line's end, the NUL of a C string.
pub(super) fn is_mark(byte: u8) -> bool {
    matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_handlers_send_is_read() {
        for (bytes, answer) in [
            (&b"0"[..], Answer::GoOn),
            (b"0\n", Answer::GoOn),
            (b"\n0\0", Answer::GoOn),
            (b"-1", Answer::Error),
            (b"-1\r\n", Answer::Error),
            (b"-2\0", Answer::Authorization),
        ] {
            assert_eq!(Answer::read(bytes).ok().flatten(), Some(answer), "{bytes:?}");
        }
    }

    #[test]
    fn a_part_of_an_answer_is_none_yet() {
        for bytes in [&b""[..], b"-", b"\n", b"\n-"] {
            assert!(matches!(Answer::read(bytes), Ok(None)), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_never_taken_for_permission() {
        for bytes in [
            &b"1"[..],
            b"00",
            b"0-1",
            b"-3",
            b"-10",
            b"ok",
            b"+0",
            b"- 1",
            b"--",
            b"-0",
            b"\xff",
        ] {
            assert!(
                matches!(Answer::read(bytes), Err(Failure::Nonsense(_))),
                "{bytes:?}"
            );
        }
    }
}
