use super::*;
use crate::fake::{FakeSource, Random};
use crate::handle::{SiteHandle, spawn};
use crate::options::SiteOptions;
use crate::source::ChangeSource;
use crate::status::{SiteState, SiteStatus};
use restfs::config::Config;
use restfs::server::Server;
use restfs_lib::wire::method::{
    BucketCreate, BucketCreateParams, BucketSet, BucketSetParams, NoParams, ScrubStart, ScrubStartParams,
    ScrubStatus, ScrubStatusResult, TokenCreate, TokenCreateParams,
};
use restfs_lib::wire::values::Role;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn remote(code: Code, data: ErrorData) -> SiteError {
    ClientError::Remote {
        method: "replication.commit",
        code,
        message: "why".into(),
        data,
    }
    .into()
}

#[test]
fn only_what_passes_by_itself_is_tried_again_at_once() {
    assert!(matches!(
        remote(Code::Unavailable, ErrorData::default()),
        SiteError::Unreachable(_)
    ));
    assert!(matches!(
        remote(Code::Full, ErrorData::default()),
        SiteError::Full(_)
    ));
    for code in [
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::Internal,
        Code::TooLarge,
    ] {
        let error = remote(code, ErrorData::default());
        assert!(matches!(error, SiteError::Refused(_)), "{code:?}: {error:?}");
    }
}

#[test]
fn positions_come_through() {
    let data = ErrorData {
        epoch: Some(3),
        sequence: Some(9),
        ..ErrorData::default()
    };
    let error = remote(Code::OutOfOrder, data.clone());
    assert!(
        matches!(
            error,
            SiteError::OutOfOrder {
                epoch: 3,
                sequence: 9
            }
        ),
        "{error:?}"
    );
    let error = remote(Code::Fenced, data);
    assert!(matches!(error, SiteError::Fenced { epoch: 3 }), "{error:?}");
}

const WITHIN: Duration = Duration::from_secs(60);

async fn serve(folder: &Path) -> Server {
    let text = format!("data_dir = {:?}\nlisten = \"127.0.0.1:0\"\n", folder.join("data"));
    let config = Config::parse(&text, &folder.join("restfs.toml")).unwrap();
    Server::start(&config).await.unwrap()
}

/// Over the Unix socket no token is needed.
fn endpoint(server: &Server) -> Endpoint {
    Endpoint::new(&format!("unix://{}", server.socket().display())).unwrap()
}

async fn create_bucket(server: &Server, name: &str) {
    let client = Box::pin(Client::connect(&endpoint(server))).await.unwrap();
    let params = BucketCreateParams {
        bucket: name.into(),
        layout: None,
    };
    client.call::<BucketCreate>(&params).await.unwrap();
}

async fn until(handle: &SiteHandle, what: impl FnMut(&SiteStatus) -> bool) -> SiteStatus {
    let mut status = handle.status();
    match tokio::time::timeout(WITHIN, status.wait_for(what)).await {
        Ok(found) => found.expect("the task goes on").clone(),
        Err(_) => panic!("not reached; it is {:?}", handle.status().borrow()),
    }
}

async fn assert_equal(source: &FakeSource, handle: &SiteHandle, site: &RestfsSite) {
    // The head is asked for each time: a block that is read while the caller settles enters the catalog once more.
    let status = until(handle, |s| {
        s.state == SiteState::InSync && s.cursor >= source.head_now()
    })
    .await;
    assert_eq!(status.mismatches, 0);
    assert_eq!(
        source.digest().await.unwrap(),
        (status.cursor, site.digest().await.unwrap())
    );
    let model = source.model();
    let keys: Vec<_> = model
        .segments
        .values()
        .flat_map(|s| s.values())
        .map(|b| b.key)
        .collect();
    assert_eq!(site.missing(&keys).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_and_started_again_ends_up_equal() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = serve(folder.path()).await;
    create_bucket(&server, "data").await;
    let site = Arc::new(RestfsSite::new(endpoint(&server), "data"));
    let source = Arc::new(FakeSource::default());
    let handle = spawn(source.clone(), site.clone(), SiteOptions::new("site"));
    let mut random = Random::new(1);
    for _ in 0..4 {
        for _ in 0..150 {
            source.act(&mut random);
            tokio::task::yield_now().await;
        }
        server.stop().await;
        for _ in 0..50 {
            source.act(&mut random);
        }
        until(&handle, |s| s.state == SiteState::Unreachable).await;
        server = serve(folder.path()).await;
        handle.resume();
        source.settle();
        assert_equal(&source, &handle, &site).await;
    }
    assert_eq!(handle.status().borrow().epoch, 1, "no resync was needed");
    assert!(handle.status().borrow().wire_bytes > 0);
    handle.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_log_is_made_good_by_the_difference_of_the_trees() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    create_bucket(&server, "data").await;
    let site = Arc::new(RestfsSite::new(endpoint(&server), "data"));
    let source = Arc::new(FakeSource::default());
    let mut random = Random::new(2);
    for round in 1..4 {
        for _ in 0..300 {
            source.act(&mut random);
        }
        source.trim(source.head_now());
        let handle = spawn(source.clone(), site.clone(), SiteOptions::new("site"));
        for _ in 0..100 {
            source.act(&mut random);
            tokio::task::yield_now().await;
        }
        source.settle();
        assert_equal(&source, &handle, &site).await;
        assert_eq!(handle.status().borrow().epoch, round);
        handle.stop().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_does_not_overwrite_the_copy_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    create_bucket(&server, "data").await;
    let site = Arc::new(RestfsSite::new(endpoint(&server), "data"));
    let source = Arc::new(FakeSource::default());
    source.create("a", 9, &mut Random::new(1));
    let old = spawn(source.clone(), site.clone(), SiteOptions::new("site"));
    assert_equal(&source, &old, &site).await;
    let newcomer = Arc::new(FakeSource::named("newcomer"));
    newcomer.create("b", 9, &mut Random::new(2));
    let handle = spawn(newcomer.clone(), site.clone(), SiteOptions::new("site"));
    let failed = until(&handle, |s| s.state == SiteState::Failed).await;
    let error = failed.last_error.unwrap();
    assert!(error.contains("--release-source"), "{error}");
    release_source(&server, "data").await;
    // The old server is alive after all, and first.
    source.create("c", 9, &mut Random::new(3));
    until(&old, |s| s.state == SiteState::Fenced).await;
    handle.resume();
    assert_equal(&newcomer, &handle, &site).await;
    handle.stop().await;
    // And back.
    release_source(&server, "data").await;
    old.resume();
    assert_equal(&source, &old, &site).await;
    old.stop().await;
    server.stop().await;
}

async fn release_source(server: &Server, name: &str) {
    let client = Box::pin(Client::connect(&endpoint(server))).await.unwrap();
    let params = BucketSetParams {
        bucket: name.into(),
        layout: None,
        release_source: true,
    };
    client.call::<BucketSet>(&params).await.unwrap();
}

/// Flips bits all over the site's packs.
fn spoil(folder: &Path, bits: u64, random: &mut Random) {
    let packs = folder.join("data/blocks/packs");
    for entry in std::fs::read_dir(packs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        for _ in 0..bits {
            let bit = usize::try_from(random.below(bytes.len() as u64 * 8)).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        std::fs::write(path, bytes).unwrap();
    }
}

async fn scrub(client: &Client) -> ScrubStatusResult {
    let params = ScrubStartParams {
        rate: Some(0),
        anew: true,
    };
    client.call::<ScrubStart>(&params).await.unwrap();
    loop {
        let status = client.call::<ScrubStatus>(&NoParams {}).await.unwrap();
        assert_eq!(status.error, None);
        if status.running.is_none() {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bits_that_flip_at_the_site_are_mended_by_the_source_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    create_bucket(&server, "data").await;
    let site = Arc::new(RestfsSite::new(endpoint(&server), "data"));
    let source = Arc::new(FakeSource::default());
    let mut random = Random::new(5);
    for _ in 0..300 {
        source.act(&mut random);
    }
    source.settle();
    let handle = spawn(source.clone(), site.clone(), SiteOptions::new("site"));
    assert_equal(&source, &handle, &site).await;
    spoil(folder.path(), 1000, &mut random);
    let client = Box::pin(Client::connect(&endpoint(&server))).await.unwrap();
    let found = scrub(&client).await;
    let head: u64 = found
        .last
        .unwrap()
        .objects
        .iter()
        .filter(|object| object.head)
        .map(|object| object.blocks)
        .sum();
    assert!(found.damaged_blocks > 0 && head > 0, "nothing was hit");
    // Any change has the trees compared at once, not only after a while.
    source.create("and one more", 1, &mut random);
    source.settle();
    let model = source.model();
    let blocks = model.segments.values().flat_map(|segment| segment.values());
    let keys: Vec<_> = blocks.map(|block| block.key).collect();
    let until = tokio::time::Instant::now() + WITHIN;
    loop {
        let equal = site.digest().await.unwrap() == source.digest().await.unwrap().1;
        if equal && site.missing(&keys).await.unwrap().is_empty() {
            break;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "{:?}",
            handle.status().borrow()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each is read from the disk and checked.
    for key in &keys {
        client.get_blocks(&[*key]).await.unwrap();
    }
    let last = scrub(&client).await.last.unwrap();
    assert_eq!(last.objects.iter().filter(|object| object.head).count(), 0);
    until_in_sync(&handle).await;
    handle.stop().await;
    drop(client);
    server.stop().await;
}

/// Content that only earlier points need: the share has it no more, but another site has.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_past_of_a_damaged_site_needs_comes_from_another_site() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let servers = [serve(folders[0].path()).await, serve(folders[1].path()).await];
    let source = Arc::new(FakeSource::default());
    let (mut handles, mut sites) = (Vec::new(), Vec::new());
    for (server, name) in servers.iter().zip(["one", "two"]) {
        create_bucket(server, "data").await;
        let site = Arc::new(RestfsSite::new(bound(server, "data").await, "data"));
        handles.push(spawn(source.clone(), site.clone(), SiteOptions::new(name)));
        sites.push(site);
    }
    let mut random = Random::new(7);
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..6 {
        // Both get the same commits. Else each may have states between them that the other never had.
        for handle in &handles {
            handle.pause();
            until(handle, |status| status.state == SiteState::Paused).await;
        }
        for _ in 0..60 {
            source.act(&mut random);
        }
        source.settle();
        for (handle, site) in handles.iter().zip(&sites) {
            handle.resume();
            assert_equal(&source, handle, site).await;
        }
        let model = source.model();
        let blocks = model.segments.values().flat_map(|segment| segment.values());
        keys.extend(blocks.map(|block| block.key));
    }
    let keys: Vec<BlockKey> = keys.into_iter().collect();
    spoil(folders[0].path(), 1000, &mut random);
    let client = Box::pin(Client::connect(&endpoint(&servers[0]))).await.unwrap();
    let found = scrub(&client).await.last.unwrap();
    let of_the_past = found.objects.iter().filter(|object| !object.head).count();
    assert!(of_the_past > 0, "nothing of the past was hit");
    let lacks = client.wanted("data", None, 100_000).await.unwrap();
    assert!(lacks.len() > 1 && lacks.is_sorted());
    let behind = client.wanted("data", Some(lacks[0]), 100_000).await.unwrap();
    assert_eq!(behind, lacks[1..]);
    let peers = handles.iter().zip(&sites);
    let peers = peers.map(|(handle, site)| crate::Peer::new(handle, site.clone() as Arc<dyn Site>));
    let mending = tokio::spawn(crate::Mender::new(peers.collect()).run());
    let until = tokio::time::Instant::now() + WITHIN;
    while !client.wanted("data", None, 10).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "still lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each is read from the disk and checked.
    let last = scrub(&client).await;
    assert_eq!((last.damaged_blocks, last.last.unwrap().files), (0, 0));
    for key in &keys {
        client.get_blocks(&[*key]).await.unwrap();
    }
    mending.abort();
    for handle in handles {
        until_in_sync(&handle).await;
        handle.stop().await;
    }
    drop((client, sites));
    for server in servers {
        server.stop().await;
    }
}

/// As a share's site is set up: with a token that is good for its bucket alone.
async fn bound(server: &Server, bucket: &str) -> Endpoint {
    let client = Box::pin(Client::connect(&endpoint(server))).await.unwrap();
    let params = TokenCreateParams {
        name: "source".into(),
        role: Role::Replicator,
        bucket: Some(bucket.into()),
    };
    let token = client.call::<TokenCreate>(&params).await.unwrap().token;
    Endpoint::new(&format!("ws://{}", server.address()))
        .unwrap()
        .with_token(token)
}

async fn until_in_sync(handle: &SiteHandle) {
    until(handle, |status| status.state == SiteState::InSync).await;
}
