//! Tokens: `restfs_<id>_<secret>`, both in hex. The id finds the record, the secret is 256 random bits, so a plain
//! hash of it is enough to keep.

use std::fmt;

const PREFIX: &str = "restfs";
const ID: usize = 8;
const SECRET: usize = 32;

/// A token as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: [u8; ID],
    secret: [u8; SECRET],
}

impl Token {
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut token = Self {
            id: [0; ID],
            secret: [0; SECRET],
        };
        getrandom::fill(&mut token.id)?;
        getrandom::fill(&mut token.secret)?;
        Ok(token)
    }

    /// `None` when it has not the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let mut token = Self {
            id: [0; ID],
            secret: [0; SECRET],
        };
        hex::decode_to_slice(id, &mut token.id).ok()?;
        hex::decode_to_slice(secret, &mut token.secret).ok()?;
        Some(token)
    }

    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.secret).as_bytes()
    }

    /// Takes the same time wherever the hashes differ.
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        blake3::hash(&self.secret) == blake3::Hash::from_bytes(*hash)
    }

    /// The whole token, to be shown once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}_{}_{}", self.id(), hex::encode(self.secret))
    }
}

/// Without the secret: this may reach a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_another_secret_does_not_match() {
        let token = Token::generate().unwrap();
        let text = token.reveal();
        assert_eq!(text.len(), 6 + 1 + 16 + 1 + 64);
        assert_eq!(Token::parse(&text), Some(token.clone()));
        assert!(token.matches(&token.hash()));
        assert!(!Token::generate().unwrap().matches(&token.hash()));
    }

    #[test]
    fn a_log_never_shows_a_secret() {
        let token = Token::generate().unwrap();
        assert!(!format!("{token:?}").contains(&hex::encode(token.secret)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = Token::generate().unwrap().reveal();
        for bad in [
            "",
            "restfs",
            "restfs__",
            "restfs_00_00",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}0"),
        ] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
