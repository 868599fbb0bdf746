//! From a socket to a WebSocket whose other end is known.

use crate::auth::Identity;
use crate::service::Service;
use restfs_lib::wire::limits::MAX_MESSAGE;
use restfs_lib::wire::{Code, Encoding, RpcError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// TLS and WebSocket handshake together: who connects and says nothing does not keep its place.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Bytes gathered before a write of the socket, per connection.
const WRITE_BUFFER: usize = 64 * 1024;
/// Bytes read from the socket at a time; each read clears as many first.
const READ_BUFFER: usize = 16 * 1024;
const PROTOCOL: &str = "Sec-WebSocket-Protocol";

pub(super) struct Accepted<S> {
    pub(super) websocket: WebSocketStream<S>,
    pub(super) identity: Identity,
    pub(super) encoding: Encoding,
}

/// `known`: who is there by the socket alone; else a token must tell. The error is for the log.
pub(super) async fn accept<S>(
    stream: S,
    service: &Service,
    known: Option<Identity>,
) -> Result<Accepted<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut agreed = None;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let callback = Upgrade {
        service,
        known,
        agreed: &mut agreed,
    };
    let websocket = accept_hdr_async_with_config(stream, callback, Some(config))
        .await
        .map_err(|e| e.to_string())?;
    let (identity, encoding) = agreed.ok_or("the upgrade was not checked")?;
    Ok(Accepted {
        websocket,
        identity,
        encoding,
    })
}

struct Upgrade<'a> {
    service: &'a Service,
    known: Option<Identity>,
    agreed: &'a mut Option<(Identity, Encoding)>,
}

impl Callback for Upgrade<'_> {
    #[allow(clippy::result_large_err, reason = "the trait's signature")]
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if request.uri().path() != "/" {
            return Err(refuse(StatusCode::NOT_FOUND, "the RPC interface is at /"));
        }
        let encoding = encoding(request.headers()).ok_or_else(|| {
            refuse(
                StatusCode::BAD_REQUEST,
                "Sec-WebSocket-Protocol must name restfs.bson or restfs.json",
            )
        })?;
        let identity = match self.known {
            Some(identity) => identity,
            None => {
                let header = request
                    .headers()
                    .get("Authorization")
                    .and_then(|value| value.to_str().ok());
                self.service
                    .authenticate(header)
                    .map_err(|e| refuse(status(&e), &e.message))?
            }
        };
        response
            .headers_mut()
            .insert(PROTOCOL, HeaderValue::from_static(encoding.subprotocol()));
        *self.agreed = Some((identity, encoding));
        Ok(response)
    }
}

/// The first that both know.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    headers
        .get_all(PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|name| Encoding::from_subprotocol(name.trim()))
}

fn status(error: &RpcError) -> StatusCode {
    match error.code {
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn refuse(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        "Content-Type",
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert("Content-Length", text.len().into());
    headers.insert("Connection", HeaderValue::from_static("close"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert("WWW-Authenticate", HeaderValue::from_static("Bearer"));
    }
    response
}
