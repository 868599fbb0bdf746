//! A client of a site's RPC interface that shares no code with it: JSON-RPC 2.0 as text over a WebSocket.

use crate::lab::{BUCKET, Site};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

/// No call on an idle site takes so long.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A connection to the site's Unix socket, where root needs no token.
#[derive(Debug)]
pub struct Rpc {
    socket: WebSocket<UnixStream>,
    calls: u64,
}

impl Rpc {
    pub fn connect(site: &Site) -> Result<Self> {
        let path = site.socket();
        let stream = UnixStream::connect(&path).with_context(|| format!("connect to {}", path.display()))?;
        stream.set_read_timeout(Some(CALL_LIMIT))?;
        let mut request = "ws://localhost/".into_client_request()?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("restfs.json"));
        let (socket, _) = tungstenite::client(request, stream).context("WebSocket handshake")?;
        Ok(Self { socket, calls: 0 })
    }

    /// Up to `length` bytes from the beginning of the bucket's file at `path`, `None` while the site has no such file.
    pub fn read(&mut self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        self.read_at(path, 0, length)
    }

    /// The same from `offset` on.
    pub fn read_at(&mut self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>> {
        let object = json!({ "path": format!("/{path}") });
        let params = json!({ "bucket": BUCKET, "object": object, "offset": offset, "length": length });
        self.content(params)
    }

    /// From the beginning of the file as it was at a recovery point.
    pub fn read_point(&mut self, point: u64, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        let object = json!({ "path": format!("/{path}") });
        let params =
            json!({ "bucket": BUCKET, "object": object, "point": point, "offset": 0, "length": length });
        self.content(params)
    }

    fn content(&mut self, params: Value) -> Result<Option<Vec<u8>>> {
        let Ok(found) = self.call("object.read", params)? else {
            return Ok(None);
        };
        let content = found
            .get("content")
            .and_then(Value::as_str)
            .context("object.read without content")?;
        Ok(Some(STANDARD.decode(content)?))
    }

    /// The call's result, or the error that the site answered.
    pub fn call(&mut self, method: &str, params: Value) -> Result<std::result::Result<Value, String>> {
        self.calls += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.calls, "method": method, "params": params });
        self.socket.send(Message::text(request.to_string()))?;
        loop {
            let message = match self.socket.read() {
                // This process was stopped for a while.
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.with_context(|| format!("answer to {method}"))?,
            };
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text)?;
            if answer.get("id").and_then(Value::as_u64) != Some(self.calls) {
                continue;
            }
            return match (answer.get("result"), answer.get("error")) {
                (Some(result), _) => Ok(Ok(result.clone())),
                (None, Some(error)) => Ok(Err(error.to_string())),
                (None, None) => bail!("{method}: an answer without result and error: {text}"),
            };
        }
    }
}
