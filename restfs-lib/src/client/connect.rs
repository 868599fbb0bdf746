//! From an endpoint to a connection: socket, TLS, WebSocket.

use super::connection::Connection;
use super::wire_count::{Counted, WireCount};
use super::{Client, ClientError, Endpoint, Url, tls};
use crate::wire::limits::MAX_MESSAGE;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, handshake::client::Request};

/// Bytes gathered before a write of the socket.
const WRITE_BUFFER: usize = 128 * 1024;
/// Bytes read from the socket at a time; each read clears as many first.
const READ_BUFFER: usize = 16 * 1024;

pub(super) async fn connect(endpoint: &Endpoint) -> Result<Client, ClientError> {
    let time_limit = endpoint.limits.connect;
    let connecting = async {
        match &endpoint.url {
            Url::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|e| unreachable(endpoint, e))?;
                upgrade(stream, endpoint).await
            }
            Url::Tcp { host, port, tls } => {
                let stream = tcp(host, *port).await.map_err(|e| unreachable(endpoint, e))?;
                match tls {
                    false => upgrade(stream, endpoint).await,
                    true => {
                        let count = endpoint.wire.part();
                        let counted = Counted::new(stream, count.clone());
                        websocket(tls::connect(counted, host, endpoint).await?, count, endpoint).await
                    }
                }
            }
        }
    };
    // On the heap: handshakes keep large buffers in their futures.
    in_time(endpoint, time_limit, Box::pin(connecting)).await
}

pub(super) async fn over<S>(stream: S, endpoint: &Endpoint) -> Result<Client, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    in_time(
        endpoint,
        endpoint.limits.connect,
        Box::pin(upgrade(stream, endpoint)),
    )
    .await
}

async fn in_time(
    endpoint: &Endpoint,
    limit: Duration,
    work: impl Future<Output = Result<Client, ClientError>>,
) -> Result<Client, ClientError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(unreachable(
            endpoint,
            format!("no connection within {} s", limit.as_secs()),
        )),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // A commit must not wait for the acknowledgement of the packet before it.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn upgrade<S>(stream: S, endpoint: &Endpoint) -> Result<Client, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let count = endpoint.wire.part();
    websocket(Counted::new(stream, count.clone()), count, endpoint).await
}

async fn websocket<S>(stream: S, count: WireCount, endpoint: &Endpoint) -> Result<Client, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (websocket, _) = client_async_with_config(request(endpoint)?, stream, Some(config))
        .await
        .map_err(|error| refused(endpoint, error))?;
    Ok(Client::new(
        endpoint,
        Connection::start(websocket, count, endpoint),
    ))
}

fn request(endpoint: &Endpoint) -> Result<Request, ClientError> {
    let wrong = |e: &dyn std::fmt::Display| ClientError::Endpoint(format!("{}: {e}", endpoint.url));
    let address = match &endpoint.url {
        Url::Unix(_) => "ws://localhost/".to_owned(),
        tcp => format!("{tcp}/"),
    };
    let uri: Uri = address.parse().map_err(|e| wrong(&e))?;
    let mut builder = ClientRequestBuilder::new(uri).with_sub_protocol(endpoint.encoding.subprotocol());
    if let Some(token) = &endpoint.token {
        builder = builder.with_header("Authorization", format!("Bearer {token}"));
    }
    builder.into_client_request().map_err(|e| wrong(&e))
}

fn refused(endpoint: &Endpoint, error: WsError) -> ClientError {
    let url = endpoint.url.to_string();
    match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text = String::from_utf8_lossy(body).trim().to_owned();
            let status = response.status();
            let reason = if text.is_empty() { status.to_string() } else { text };
            match status {
                StatusCode::UNAUTHORIZED => ClientError::Unauthorized { url, reason },
                StatusCode::SERVICE_UNAVAILABLE => ClientError::Unreachable { url, reason },
                _ => ClientError::Protocol { url, reason },
            }
        }
        WsError::Io(error) => ClientError::Unreachable {
            url,
            reason: error.to_string(),
        },
        WsError::ConnectionClosed | WsError::AlreadyClosed => ClientError::Unreachable {
            url,
            reason: "the server closed the connection".to_owned(),
        },
        other => ClientError::Protocol {
            url,
            reason: format!("no RestFS server answers there: {other}"),
        },
    }
}

fn unreachable(endpoint: &Endpoint, reason: impl ToString) -> ClientError {
    ClientError::Unreachable {
        url: endpoint.url.to_string(),
        reason: reason.to_string(),
    }
}
