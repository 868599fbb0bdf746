//! Where a server is, and how it is talked to.

use super::ClientError;
use super::wire_count::WireCount;
use crate::wire::Encoding;
use std::path::PathBuf;
use std::time::Duration;

/// Port when the URL names none.
pub const DEFAULT_PORT: u16 = 7400;

/// A server. Connections made from clones of one endpoint count their bytes together.
#[derive(Clone)]
pub struct Endpoint {
    pub url: Url,
    /// `restfs_<id>_<secret>`. Not needed on a Unix socket.
    pub token: Option<String>,
    pub trust: Trust,
    pub encoding: Encoding,
    pub limits: Limits,
    pub wire: WireCount,
}

/// `ws://HOST[:PORT]`, `wss://HOST[:PORT]` or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

/// Whom to believe with `wss://`. The system's authorities are not asked: a recovery site has a certificate of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    #[default]
    Nobody,
    /// Certificates in this PEM file, or signed by one of them, for the host in the URL.
    CaFile(PathBuf),
    /// The one certificate with this SHA-256 (of its DER form), whatever names are in it.
    Fingerprint([u8; 32]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name look-up, TCP, TLS and WebSocket handshake together.
    pub connect: Duration,
    /// One call, from handing it over to its answer.
    pub call: Duration,
    /// A ping is sent when nothing came for this long; when nothing comes for three times this long the connection is
    /// given up.
    pub keepalive: Duration,
    /// Calls under way at once; more wait for their turn, within their own time limit.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_secs(120),
            keepalive: Duration::from_secs(10),
            in_flight: 64,
        }
    }
}

impl Endpoint {
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Ok(Self {
            url: url.parse()?,
            token: None,
            trust: Trust::default(),
            encoding: Encoding::default(),
            limits: Limits::default(),
            wire: WireCount::default(),
        })
    }

    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    pub fn with_encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }
}

/// Without the token: this may reach a log.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("trust", &self.trust)
            .field("encoding", &self.encoding)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Trust {
    /// Hex digits, with or without colons, as `openssl x509 -fingerprint -sha256` prints them.
    pub fn from_fingerprint(text: &str) -> Result<Self, ClientError> {
        let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
        let bytes = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self::Fingerprint).ok_or_else(|| {
            ClientError::Endpoint(format!(
                "fingerprint `{text}`: 64 hex digits of a SHA-256 expected"
            ))
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "wss" } else { "ws" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}"),
                    false => write!(f, "{scheme}://{host}:{port}"),
                }
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::str::FromStr for Url {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| {
            ClientError::Endpoint(format!(
                "URL `{text}`: {why}; it is wss://HOST[:PORT], ws://HOST[:PORT] or unix:///PATH"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let tls = match scheme {
            "wss" => true,
            "ws" => false,
            "unix" if rest.starts_with('/') => return Ok(Self::Unix(rest.into())),
            "unix" => return Err(wrong("the path is not absolute")),
            _ => return Err(wrong("unknown scheme")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("there is more than host and port"));
        }
        let (host, port) = split_authority(authority).ok_or_else(|| wrong("no port in it"))?;
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| wrong("the port is not a number below 65536"))?,
            None => DEFAULT_PORT,
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

/// `[v6]:port`, `host:port` or either without port.
fn split_authority(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let tcp = |host: &str, port, tls| {
            Ok(Url::Tcp {
                host: host.to_owned(),
                port,
                tls,
            })
        };
        let url = |text: &str| text.parse::<Url>().map_err(|error| error.to_string());
        assert_eq!(url("wss://site.example"), tcp("site.example", DEFAULT_PORT, true));
        assert_eq!(url("wss://site.example:1/"), tcp("site.example", 1, true));
        assert_eq!(url("ws://127.0.0.1:7400"), tcp("127.0.0.1", 7400, false));
        assert_eq!(url("ws://[::1]:9"), tcp("::1", 9, false));
        assert_eq!(url("wss://[::1]"), tcp("::1", DEFAULT_PORT, true));
        assert_eq!(url("unix:///run/x.sock"), Ok(Url::Unix("/run/x.sock".into())));
        for text in ["wss://site.example:7400", "ws://[::1]:9", "unix:///run/x.sock"] {
            assert_eq!(url(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be() {
        for bad in [
            "",
            "site",
            "http://site",
            "unix://x",
            "wss://",
            "ws://:1",
            "ws://a:x",
            "ws://a:99999",
            "ws://a/b",
            "ws://u@a",
            "ws://[::1",
            "ws://[::1]x",
            "ws://a b",
        ] {
            let error = bad.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains("wss://HOST"), "{bad}: {error}");
        }
    }

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let digits = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(
            Trust::from_fingerprint(&digits).unwrap(),
            Trust::Fingerprint([0xab; 32])
        );
        assert_eq!(
            Trust::from_fingerprint(&colons).unwrap(),
            Trust::Fingerprint([0xab; 32])
        );
        assert!(Trust::from_fingerprint("ab").is_err());
    }
}
