//! Blocks that travel as what differs from an older one.

use crate::common::*;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use restfs_lib::client::{Block, Client, Endpoint};
use restfs_lib::content::{Difference, differing, hash_block, page_sums};
use restfs_lib::model::{BlockKey, HashAlgorithm};
use restfs_lib::wire::limits::{MAX_BASES, MAX_BLOCK, MAX_PATCHED};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Compression, Role};
use restfs_lib::wire::{Code, Content, Encoding, Message, Payload, RpcError};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

const BLOCK: usize = 64 * 1024;

fn noise(seed: u64) -> Vec<u8> {
    let mut content = vec![0; BLOCK];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut content);
    content
}

fn key(content: &[u8]) -> BlockKey {
    hash_block(content, HashAlgorithm::Blake3).key
}

fn changed(base: &[u8], content: &[u8]) -> Block {
    Block {
        key: key(content),
        content: Bytes::copy_from_slice(content),
        since: Some(Difference::new(key(base), differing(base, content))),
    }
}

async fn put(client: &Client, content: &[u8]) {
    let block = (key(content), Bytes::copy_from_slice(content));
    client.put_blocks(vec![block]).await.unwrap();
}

async fn get(client: &Client, content: &[u8]) -> Vec<u8> {
    client.get_blocks(&[key(content)]).await.unwrap()[0].to_vec()
}

/// 4 KiB of a block written anew.
fn rewritten(base: &[u8], at: usize, seed: u64) -> Vec<u8> {
    let mut content = base.to_vec();
    content[at..at + 4096].copy_from_slice(&noise(seed)[..4096]);
    content
}

#[tokio::test]
async fn a_small_change_of_a_block_costs_what_it_changed() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let base = noise(1);
    put(&client, &base).await;
    let new = rewritten(&base, 20_000, 2);
    let before = client.wire().total();
    client.put_blocks(vec![changed(&base, &new)]).await.unwrap();
    let sent = client.wire().total() - before;
    assert!((4096..5000).contains(&sent), "{sent}");
    assert_eq!(get(&client, &new).await, new);
    // On top of what a patch made, and with the end moved in and out.
    for length in [100, 0x8000, BLOCK, 1] {
        let mut next = new.clone();
        next.resize(length, 7);
        let next = next.as_slice();
        client.put_blocks(vec![changed(&new, next)]).await.unwrap();
        assert_eq!(get(&client, next).await, next);
    }
}

#[tokio::test]
async fn a_block_whose_base_is_not_there_or_is_another_arrives_all_the_same() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let (base, other) = (noise(1), noise(2));
    let new = rewritten(&base, 0, 3);
    client.put_blocks(vec![changed(&base, &new)]).await.unwrap();
    assert_eq!(get(&client, &new).await, new);
    // A write that nobody told of yet lies outside of what is said to differ.
    put(&client, &other).await;
    let told = rewritten(&other, 4096, 4);
    let untold = rewritten(&told, 40_000, 5);
    let wrong = Block {
        since: changed(&other, &told).since,
        ..changed(&other, &untold)
    };
    let right = changed(&other, &told);
    let before = client.wire().total();
    client.put_blocks(vec![right, wrong]).await.unwrap();
    let sent = client.wire().total() - before;
    assert!(
        (5 * 4096..6 * 4096).contains(&sent),
        "{sent}: what was told, of both; then three pages of the second"
    );
    assert_eq!(get(&client, &told).await, told);
    assert_eq!(get(&client, &untold).await, untold);
}

#[tokio::test]
async fn of_a_base_of_which_nothing_else_is_known_the_server_says_where_the_block_is_another() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let base = noise(1);
    put(&client, &base).await;
    for length in [BLOCK, BLOCK - 100, 5000, BLOCK + 9000] {
        let mut new = rewritten(&base, 0, length as u64);
        new.resize(length, 9);
        let unknown = Block {
            since: Some(Difference::new(key(&base), Vec::new())),
            ..changed(&base, &new)
        };
        let before = client.wire().total();
        client.put_blocks(vec![unknown]).await.unwrap();
        let sent = client.wire().total() - before;
        assert!(sent < 14_000, "{sent} for {length}");
        assert_eq!(get(&client, &new).await, new);
    }
}

/// A block that was read and sent while its base was on its way too is told once more, since a base that never arrived.
#[tokio::test]
async fn a_block_that_is_there_does_not_travel_again_for_a_base_that_is_not() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let (base, new) = (noise(1), noise(2));
    put(&client, &new).await;
    let wrong = Block {
        since: Some(Difference::new(key(&base), vec![0..10, 100..110])),
        ..changed(&base, &new)
    };
    let before = client.wire().total();
    client.put_blocks(vec![wrong]).await.unwrap();
    let sent = client.wire().total() - before;
    assert!(sent < 1000, "{sent}");
}

#[tokio::test]
async fn a_difference_that_is_no_smaller_than_the_block_is_not_sent() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let (base, zeros) = (noise(1), vec![0; BLOCK]);
    put(&client, &base).await;
    // Compresses to almost nothing as it is.
    let mut new = zeros.clone();
    new[..100].copy_from_slice(&base[..100]);
    let before = client.wire().total();
    client.put_blocks(vec![changed(&base, &new)]).await.unwrap();
    assert!(client.wire().total() - before < 1000);
    assert_eq!(get(&client, &new).await, new);
}

#[tokio::test]
async fn a_damaged_base_is_no_base() {
    let mut site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    let base = noise(1);
    put(&client, &base).await;
    client
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    drop(client);
    site.stop().await;
    damage(&site, &base);
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    let new = rewritten(&base, 0, 2);
    client.put_blocks(vec![changed(&base, &new)]).await.unwrap();
    assert_eq!(get(&client, &new).await, new);
    assert_eq!(client.missing(&[key(&base)]).await.unwrap(), [key(&base)]);
}

/// Turns a bit of the block in the pack file.
fn damage(site: &Site, content: &[u8]) {
    use std::os::unix::fs::FileExt;
    let packs = std::fs::read_dir(site.config.data_dir.join("blocks/packs")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&pack).unwrap();
        let Some(at) = bytes.windows(64).position(|window| window == &content[..64]) else {
            continue;
        };
        let file = std::fs::File::options().write(true).open(&pack).unwrap();
        file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
        return;
    }
    panic!("the block is in no pack");
}

fn patch(base: &[u8], new: &[u8]) -> PatchContent {
    PatchContent {
        key: key(new).into(),
        length: new.len() as u32,
        base: key(base).into(),
        pieces: vec![Piece(0, 10), Piece(20, 10)],
        compression: Compression::None,
        content: Content(Bytes::copy_from_slice(&[&new[..10], &new[20..30]].concat())),
    }
}

#[tokio::test]
async fn patches_that_make_no_sense_are_refused_and_store_nothing() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let base = noise(1);
    put(&client, &base).await;
    let mut new = base.clone();
    new[5] ^= 1;
    new[25] ^= 1;
    let send =
        async |patches: Vec<PatchContent>| client.call::<BlockPatch>(&BlockPatchParams { patches }).await;
    let bombs = vec![0; 1 << 20];
    let bomb = restfs_lib::content::compress(&bombs, restfs_lib::model::Compression::Zstd).unwrap();
    let pieces = |pieces: &[(u32, u32)]| PatchContent {
        pieces: pieces.iter().map(|(at, length)| Piece(*at, *length)).collect(),
        ..patch(&base, &new)
    };
    for (wrong, error) in [
        (pieces(&[(0, 10), (9, 10)]), Code::InvalidParams),
        (pieces(&[(20, 10), (0, 10)]), Code::InvalidParams),
        (pieces(&[(0, 0), (0, 20)]), Code::InvalidParams),
        (pieces(&[(0, 10), (BLOCK as u32 - 9, 10)]), Code::InvalidParams),
        (pieces(&[(0, 10), (u32::MAX, 10)]), Code::InvalidParams),
        (pieces(&[(0, 10)]), Code::InvalidParams),
        (pieces(&[(0, 10), (20, 11)]), Code::InvalidParams),
        (pieces(&vec![(0, 1); 1025]), Code::TooLarge),
        (
            PatchContent {
                length: 0,
                ..patch(&base, &new)
            },
            Code::InvalidParams,
        ),
        (
            PatchContent {
                length: MAX_BLOCK as u32 + 1,
                ..patch(&base, &new)
            },
            Code::InvalidParams,
        ),
        (
            PatchContent {
                compression: Compression::Zstd,
                content: Content(bomb.into()),
                ..patch(&base, &new)
            },
            Code::InvalidParams,
        ),
    ] {
        assert_eq!(code(send(vec![wrong.clone()]).await), error, "{wrong:?}");
    }
    let large = PatchContent {
        length: MAX_BLOCK as u32,
        ..patch(&base, &new)
    };
    let many = vec![large; MAX_PATCHED / MAX_BLOCK + 1];
    assert_eq!(code(send(many).await), Code::TooLarge);
    assert_eq!(client.missing(&[key(&new)]).await.unwrap(), [key(&new)]);
    // The same without a fault.
    assert_eq!(send(vec![patch(&base, &new)]).await.unwrap().wanted, []);
    assert_eq!(get(&client, &new).await, new);
}

/// Blocks of a byte each, of bases of 4 MiB: hardly anything to send, and much to read.
#[tokio::test]
async fn few_bytes_do_not_make_a_server_read_without_end() {
    let site = Site::start().await;
    let client = site.client(Role::Replicator).await;
    let mut patches = Vec::new();
    for n in 0..10u8 {
        let base = vec![n; MAX_BLOCK];
        put(&client, &base).await;
        patches.push(PatchContent {
            key: key(&[n]).into(),
            length: 1,
            pieces: Vec::new(),
            content: Content(Bytes::new()),
            ..patch(&base, &base)
        });
    }
    let keys: Vec<_> = patches.iter().map(|patch| patch.key).collect();
    let params = BlockPatchParams { patches };
    let wanted = client.call::<BlockPatch>(&params).await.unwrap().wanted;
    let wanted: Vec<_> = wanted.into_iter().map(|block| block.key).collect();
    assert_eq!(wanted, keys[MAX_BASES / MAX_BLOCK..]);
}

#[tokio::test]
async fn who_may_not_put_blocks_learns_nothing_by_patching() {
    let site = Site::start().await;
    let base = noise(1);
    let new = rewritten(&base, 0, 2);
    put(&site.client(Role::Replicator).await, &base).await;
    for role in [Role::Reader, Role::Writer] {
        let params = BlockPatchParams {
            patches: vec![patch(&base, &new)],
        };
        let sent = site.client(role).await.call::<BlockPatch>(&params).await;
        assert_eq!(code(sent), Code::Forbidden);
    }
}

/// A server as it was before it knew `block.patch` and numbers of parts: notes the calls.
pub(crate) async fn older_server() -> (Endpoint, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[allow(clippy::result_large_err, reason = "the callback's signature")]
        let accept = |_: &_, mut response: tokio_tungstenite::tungstenite::handshake::server::Response| {
            let name = "restfs.bson".parse().unwrap();
            response.headers_mut().insert("Sec-WebSocket-Protocol", name);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, accept).await.unwrap();
        let mut calls = Vec::new();
        while let Some(Ok(Frame::Binary(bytes))) = socket.next().await {
            let Message::Request { id, method, params } = Message::decode(Encoding::Bson, &bytes).unwrap()
            else {
                continue;
            };
            let answer = match method.as_str() {
                BlockPut::NAME => {
                    let params: BlockPutParams = params.decode().unwrap();
                    calls.extend(
                        params
                            .blocks
                            .iter()
                            .map(|block| format!("put {}", hex::encode(block.key.0))),
                    );
                    Message::Response {
                        id,
                        result: Payload::empty(Encoding::Bson),
                    }
                }
                ReplicationCommit::NAME => {
                    let params: CommitParams = params.decode().unwrap();
                    calls.push(format!("commit {}", params.first));
                    match params.first {
                        0 => Message::Response {
                            id,
                            result: Payload::encode(
                                Encoding::Bson,
                                &CommitResult {
                                    point: 5,
                                    repeated: false,
                                },
                            )
                            .unwrap(),
                        },
                        _ => Message::Error {
                            id: Some(id),
                            error: RpcError::invalid_params("`first` is 0 with `resync`"),
                        },
                    }
                }
                _ => {
                    let error = RpcError::new(Code::MethodNotFound, "there is no such method");
                    calls.push(method);
                    Message::Error { id: Some(id), error }
                }
            };
            let answer = answer.encode(Encoding::Bson).unwrap();
            socket.send(Frame::Binary(answer.into())).await.unwrap();
        }
        calls
    });
    (Endpoint::new(&url).unwrap(), server)
}

#[tokio::test]
async fn a_server_of_an_older_version_gets_whole_blocks_and_is_asked_once() {
    let (endpoint, server) = older_server().await;
    let client = Client::connect(&endpoint).await.unwrap();
    let base = noise(1);
    let (first, second) = (rewritten(&base, 0, 2), rewritten(&base, 8192, 3));
    client.put_blocks(vec![changed(&base, &first)]).await.unwrap();
    client.put_blocks(vec![changed(&base, &second)]).await.unwrap();
    drop(client);
    let put = |content: &[u8]| format!("put {}", hex::encode(key(content).0));
    let expected = [BlockPatch::NAME.to_owned(), put(&first), put(&second)];
    assert_eq!(server.await.unwrap(), expected);
}

#[tokio::test]
async fn both_encodings_carry_patches() {
    let site = Site::start().await;
    let base = noise(1);
    let token = site.token(Role::Replicator, None).await.token;
    for (seed, encoding) in Encoding::ALL.into_iter().enumerate() {
        let mut endpoint = site.endpoint().with_token(token.clone());
        endpoint.encoding = encoding;
        let client = Client::connect(&endpoint).await.unwrap();
        put(&client, &base).await;
        let new = rewritten(&base, 30_000, 10 + seed as u64);
        client.put_blocks(vec![changed(&base, &new)]).await.unwrap();
        assert_eq!(get(&client, &new).await, new);
        let [stranger, other] = [20, 30].map(|n| noise(n + seed as u64));
        let params = BlockPatchParams {
            patches: vec![patch(&base, &stranger), patch(&stranger, &other)],
        };
        let wanted = client.call::<BlockPatch>(&params).await.unwrap().wanted;
        let sums = Some(Content(page_sums(&base).into()));
        let expected = [(&stranger, sums), (&other, None)].map(|(block, sums)| WantedBlock {
            key: key(block).into(),
            sums,
        });
        assert_eq!(wanted, expected);
    }
}
