//! Connections as such: bounds, dead ends, many calls at once, and clients that are not ours.

use crate::common::*;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use restfs_lib::client::{Client, ClientError, Endpoint};
use restfs_lib::model::BlockKey;
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Role;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use tokio_tungstenite::{WebSocketStream, client_async};

/// A WebSocket that shares no code with our client.
async fn plain(site: &Site, subprotocol: &str) -> WebSocketStream<UnixStream> {
    let stream = UnixStream::connect(site.server().socket()).await.unwrap();
    let request =
        ClientRequestBuilder::new("ws://localhost/".parse().unwrap()).with_sub_protocol(subprotocol);
    client_async(request, stream).await.unwrap().0
}

async fn say(socket: &mut WebSocketStream<UnixStream>, text: &str) -> serde_json::Value {
    socket.send(Frame::text(text)).await.unwrap();
    match socket.next().await.unwrap().unwrap() {
        Frame::Text(answer) => serde_json::from_str(&answer).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_json_rpc_is_spoken() {
    let site = Site::start().await;
    let mut socket = plain(&site, "restfs.json").await;
    let answer = say(
        &mut socket,
        r#"{"jsonrpc":"2.0","id":"x","method":"auth.whoami"}"#,
    )
    .await;
    assert_eq!(answer["id"], "x");
    assert_eq!(answer["result"]["role"], "admin");
    for (request, code) in [
        ("{", -32700),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"auth.none"}"#, -32601),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bucket.info","params":{"buckt":"x"}}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bucket.info","params":["x"]}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"bucket.info","params":{"bucket":"x"}}"#,
            3,
        ),
    ] {
        assert_eq!(
            say(&mut socket, request).await["error"]["code"],
            code,
            "{request}"
        );
    }
    // Without an id nothing is done, and nothing answered.
    let note = r#"{"jsonrpc":"2.0","method":"bucket.create","params":{"bucket":"b"}}"#;
    socket.send(Frame::text(note)).await.unwrap();
    let answer = say(&mut socket, r#"{"jsonrpc":"2.0","id":2,"method":"bucket.list"}"#).await;
    assert_eq!(
        (&answer["id"], &answer["result"]["buckets"]),
        (&2.into(), &serde_json::json!([]))
    );
}

#[tokio::test]
async fn a_message_in_the_other_encoding_ends_the_connection() {
    let site = Site::start().await;
    let mut socket = plain(&site, "restfs.json").await;
    socket.send(Frame::binary(vec![5, 0, 0, 0, 0])).await.unwrap();
    match socket.next().await.unwrap().unwrap() {
        Frame::Close(Some(frame)) => assert!(frame.reason.contains("encoding"), "{frame:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_upgrade_without_a_known_subprotocol_is_refused() {
    let site = Site::start().await;
    for name in ["chat", "restfs.xml"] {
        let stream = UnixStream::connect(site.server().socket()).await.unwrap();
        let request = ClientRequestBuilder::new("ws://localhost/".parse().unwrap()).with_sub_protocol(name);
        assert!(client_async(request, stream).await.is_err());
    }
    // The first that both know, in the client's order.
    let mut socket = plain(&site, "chat, restfs.json, restfs.bson").await;
    say(&mut socket, r#"{"jsonrpc":"2.0","id":1,"method":"auth.whoami"}"#).await;
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let site = Site::start().await;
    let mut stream = UnixStream::connect(site.server().socket()).await.unwrap();
    stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("101"));
    site.admin().await.whoami().await.unwrap();
}

#[tokio::test]
async fn blocks_of_many_messages_arrive_whole() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    // Does not compress, so that it takes three messages.
    let blocks: Vec<(BlockKey, Bytes)> = (0..12u64)
        .map(|seed| {
            let mut content = vec![0; 3 << 20];
            blake3::Hasher::new()
                .update(&seed.to_le_bytes())
                .finalize_xof()
                .fill(&mut content);
            let (key, content, _) = block(&content);
            (key, content)
        })
        .collect();
    let keys: Vec<BlockKey> = blocks.iter().map(|(key, _)| *key).collect();
    let before = client.wire().total();
    client.put_blocks(blocks.clone()).await.unwrap();
    assert_eq!(client.missing(&keys).await.unwrap(), []);
    let sent = client.wire().total() - before;
    assert!((36 << 20..37 << 20).contains(&sent), "{sent}");
    let got = client.get_blocks(&keys).await.unwrap();
    assert!(got.iter().zip(&blocks).all(|(got, (_, content))| got == content));
    let none = client.get_blocks(&[BlockKey([0; 32])]).await;
    assert_eq!(code(none), Code::NotFound);
}

#[tokio::test]
async fn more_calls_than_may_be_under_way_are_all_answered() {
    let site = Site::start().await;
    let client = site.client(Role::Reader).await;
    let calls = (0..1000).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.whoami().await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_too_large_for_a_message_is_not_sent() {
    let site = Site::start().await;
    let client = site.client(Role::Writer).await;
    let value = Bytes::from(vec![0; 17 << 20]);
    let at = restfs_lib::wire::values::ObjectAt::path("/");
    let error = client
        .set_attribute(BUCKET, at, b"restfs.x", value)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    client.whoami().await.unwrap();
}

#[tokio::test]
async fn calls_under_way_end_when_the_server_does() {
    let mut site = Site::start().await;
    let client = site.client(Role::Reader).await;
    client.whoami().await.unwrap();
    site.stop().await;
    let error = client.whoami().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(client.is_closed());
}

/// Takes the handshake and says nothing from then on.
async fn silent_server() -> (Endpoint, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the callback's signature")]
        let accept = |_: &_, mut response: tokio_tungstenite::tungstenite::handshake::server::Response| {
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", "restfs.bson".parse().unwrap());
            Ok(response)
        };
        let _socket = tokio_tungstenite::accept_hdr_async(stream, accept).await.unwrap();
        std::future::pending::<()>().await;
    });
    (Endpoint::new(&url).unwrap(), server)
}

#[tokio::test]
async fn a_server_that_does_not_answer_runs_into_the_calls_time_limit() {
    let (mut endpoint, server) = silent_server().await;
    endpoint.limits.call = Duration::from_millis(300);
    let client = Client::connect(&endpoint).await.unwrap();
    let error = client.whoami().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    server.abort();
}

#[tokio::test]
async fn a_dead_connection_is_noticed_by_its_silence() {
    let (mut endpoint, server) = silent_server().await;
    endpoint.limits.keepalive = Duration::from_millis(50);
    let client = Client::connect(&endpoint).await.unwrap();
    let started = Instant::now();
    let error = client.whoami().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreachable { reason, .. } if reason.contains("nothing came")),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    server.abort();
}

#[tokio::test]
async fn an_idle_connection_stays() {
    let site = Site::start().await;
    let token = site.token(Role::Reader, None).await.token;
    let mut endpoint = site.endpoint().with_token(token);
    endpoint.limits.keepalive = Duration::from_millis(50);
    let client = Client::connect(&endpoint).await.unwrap();
    let pongs = async {
        let start = client.wire().received();
        // Far more than the silent intervals.
        while client.wire().received() < start + 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pongs)
        .await
        .unwrap();
    client.whoami().await.unwrap();
}

#[tokio::test]
async fn a_bucket_without_content_has_a_digest() {
    let site = Site::start().await;
    site.bucket().await;
    let name = BucketName {
        bucket: BUCKET.to_owned(),
    };
    let client = site.client(Role::Reader).await;
    assert_eq!(client.call::<BucketInfo>(&name).await.unwrap().objects, 0);
    assert_eq!(client.digest(BUCKET).await.unwrap().1, 0);
}

#[tokio::test]
async fn every_method_that_is_documented_exists_and_the_other_way_round() {
    let described = include_str!("../../../docs/rpc.md");
    let methods: Vec<&str> = described
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    let dispatched = include_str!("../../src/service/dispatch.rs")
        .matches("::NAME => call.")
        .count();
    assert_eq!(methods.len(), dispatched);
    let site = Site::start().await;
    let mut socket = plain(&site, "restfs.json").await;
    for method in methods {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"unknown":1}}}}"#);
        let answer = say(&mut socket, &request).await;
        assert_eq!(answer["error"]["code"], -32602, "{method}");
    }
}

/// A hundred bytes that say that they are a block of 4 MiB, thousands of times: the server does not begin to unpack them.
#[tokio::test]
async fn blocks_that_would_become_more_than_a_call_may_are_refused_before_they_are_unpacked() {
    use restfs_lib::wire::limits::{MAX_BLOCK, MAX_PUT};
    use restfs_lib::wire::values::Compression;
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let plain = vec![0; MAX_BLOCK];
    let packed = restfs_lib::content::compress(&plain, restfs_lib::model::Compression::Zstd).unwrap();
    let bomb = BlockContent {
        key: block(&plain).0.into(),
        length: MAX_BLOCK as u32,
        compression: Compression::Zstd,
        content: restfs_lib::wire::Content(packed.into()),
    };
    let put = async |count: usize| {
        let blocks = vec![bomb.clone(); count];
        client.call::<BlockPut>(&BlockPutParams { blocks }).await
    };
    put(MAX_PUT / MAX_BLOCK).await.unwrap();
    let error = put(MAX_PUT / MAX_BLOCK + 1).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TooLarge));
    assert!(error.to_string().contains("more than the limit of"), "{error}");
}
