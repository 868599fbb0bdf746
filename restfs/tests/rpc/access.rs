//! Who may come in, by which door, and do what.

use crate::common::*;
use restfs_lib::client::{Client, ClientError, Endpoint, Trust};
use restfs_lib::model::BlockKey;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use restfs_lib::wire::{Code, Encoding};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn without_a_good_token_nobody_comes_in() {
    let site = Site::start().await;
    let good = site.token(Role::Reader, None).await.token;
    let other_secret = {
        let (front, _) = good.rsplit_once('_').unwrap();
        format!("{front}_{}", "0".repeat(64))
    };
    for bad in [
        None,
        Some(String::new()),
        Some("x".to_owned()),
        Some(other_secret),
        Some(good[1..].to_owned()),
    ] {
        let mut endpoint = site.endpoint();
        endpoint.token = bad.clone();
        let error = Client::connect(&endpoint).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unauthorized { .. }),
            "{bad:?}: {error}"
        );
    }
    Client::connect(&site.endpoint().with_token(good)).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_ends_open_connections_too() {
    let site = Site::start().await;
    let token = site.token(Role::Admin, None).await;
    let endpoint = site.endpoint().with_token(token.token);
    let client = Client::connect(&endpoint).await.unwrap();
    client.whoami().await.unwrap();
    site.admin()
        .await
        .call::<TokenRevoke>(&TokenRevokeParams { id: token.id.clone() })
        .await
        .unwrap();
    assert!(client.whoami().await.is_err());
    assert!(matches!(
        Client::connect(&endpoint).await.unwrap_err(),
        ClientError::Unauthorized { .. }
    ));
    let listed = site
        .admin()
        .await
        .call::<TokenList>(&NoParams {})
        .await
        .unwrap()
        .tokens;
    assert!(listed.iter().any(|t| t.id == token.id && t.revoked.is_some()));
}

#[tokio::test]
async fn the_secret_of_a_token_is_not_kept() {
    let mut site = Site::start().await;
    let token = site.token(Role::Reader, None).await.token;
    let text = token.rsplit_once('_').unwrap().1;
    let secret = hex_bytes(text);
    // Its hash is what is kept: in the database, and in the commit log, where a transaction this short is as it was written.
    let kept = *blake3::hash(&secret).as_bytes();
    site.stop().await;
    let mut has_hash = Vec::new();
    for path in files_below(&site.config.data_dir) {
        let bytes = std::fs::read(&path).unwrap();
        let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
        let upper = text.to_uppercase();
        for secret in [&secret[..], text.as_bytes(), upper.as_bytes()] {
            assert!(!holds(secret), "{}", path.display());
        }
        if holds(&kept) {
            let below = path.strip_prefix(&site.config.data_dir).unwrap();
            has_hash.push(below.parent().unwrap().to_owned());
        }
    }
    has_hash.sort();
    has_hash.dedup();
    assert_eq!(has_hash, ["", "commits"].map(PathBuf::from));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match (path.is_dir(), path.is_file()) {
            (true, _) => files_below(&path),
            (_, true) => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

fn hex_bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// What each role may do, one call of each kind.
#[tokio::test]
async fn roles_may_do_what_is_theirs_and_nothing_else() {
    let site = Site::start().await;
    site.bucket().await;
    site.admin()
        .await
        .apply(
            BUCKET,
            vec![Edit::Mkdir {
                path: "/d".into(),
                mode: 0o755,
            }],
        )
        .await
        .unwrap();
    for role in Role::ALL {
        let client = site.client(role).await;
        let allowed = |result: Option<Code>| result != Some(Code::Forbidden);
        let read = client
            .stat(BUCKET, ObjectAt::path("/d"), None)
            .await
            .err()
            .and_then(|e| e.code());
        assert_eq!(read, None, "{role}");
        let edit = client
            .apply(BUCKET, vec![Edit::Unlink { path: "/none".into() }])
            .await;
        assert_eq!(
            allowed(edit.unwrap_err().code()),
            matches!(role, Role::Admin | Role::Writer),
            "{role}"
        );
        let position = client.position(BUCKET, SOURCE).await.err().and_then(|e| e.code());
        assert_eq!(
            allowed(position),
            matches!(role, Role::Admin | Role::Replicator),
            "{role}"
        );
        let missing = client
            .missing(&[BlockKey([0; 32])])
            .await
            .err()
            .and_then(|e| e.code());
        assert_eq!(
            allowed(missing),
            matches!(role, Role::Admin | Role::Replicator),
            "{role}"
        );
        let delete = client
            .call::<BucketDelete>(&BucketName {
                bucket: "none".to_owned(),
            })
            .await;
        assert_eq!(allowed(delete.unwrap_err().code()), role == Role::Admin, "{role}");
        let token = TokenCreateParams {
            name: "x".to_owned(),
            role: Role::Admin,
            bucket: None,
        };
        let token = client
            .call::<TokenCreate>(&token)
            .await
            .err()
            .and_then(|e| e.code());
        assert_eq!(allowed(token), role == Role::Admin, "{role}");
        let bucket = BucketCreateParams {
            bucket: format!("b-{role}"),
            layout: None,
        };
        let bucket = client
            .call::<BucketCreate>(&bucket)
            .await
            .err()
            .and_then(|e| e.code());
        assert_eq!(allowed(bucket), role == Role::Admin, "{role}");
    }
}

#[tokio::test]
async fn a_token_bound_to_a_bucket_sees_no_other() {
    let site = Site::start().await;
    site.bucket().await;
    let other = BucketCreateParams {
        bucket: "other".to_owned(),
        layout: None,
    };
    site.admin().await.call::<BucketCreate>(&other).await.unwrap();
    let token = site.token(Role::Reader, Some(BUCKET)).await.token;
    let client = Client::connect(&site.endpoint().with_token(token)).await.unwrap();
    let info = |bucket: &str| BucketName {
        bucket: bucket.to_owned(),
    };
    client.call::<BucketInfo>(&info(BUCKET)).await.unwrap();
    // Neither whether it exists.
    for name in ["other", "none"] {
        assert_eq!(
            code(client.call::<BucketInfo>(&info(name)).await),
            Code::Forbidden
        );
    }
    let seen = client.call::<BucketList>(&NoParams {}).await.unwrap().buckets;
    assert_eq!(
        seen.iter().map(|b| b.bucket.as_str()).collect::<Vec<_>>(),
        [BUCKET]
    );
    let admin = site.admin().await;
    admin.call::<BucketDelete>(&info(BUCKET)).await.unwrap();
    site.bucket().await;
    // The new bucket of that name is another one.
    assert_eq!(
        code(client.call::<BucketInfo>(&info(BUCKET)).await),
        Code::Forbidden
    );
}

#[tokio::test]
async fn the_unix_socket_is_for_its_owner() {
    let site = Site::start().await;
    let who = site.admin().await.whoami().await.unwrap();
    assert_eq!((who.name.as_str(), who.role), ("local", Role::Admin));
    let mode = std::fs::metadata(site.server().socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn tls_is_good_for_the_certificate_that_was_agreed_on_alone() {
    let site = Site::start_with(with_tls).await;
    let token = site.token(Role::Reader, None).await.token;
    let connect = async |trust: Trust, encoding| {
        let endpoint = site
            .endpoint()
            .with_token(token.clone())
            .with_trust(trust)
            .with_encoding(encoding);
        Client::connect(&endpoint).await
    };
    let sha256 = restfs::interface::fingerprint(&site.config.tls.as_ref().unwrap().cert)
        .unwrap()
        .0;
    for encoding in Encoding::ALL {
        connect(trust(&site.config), encoding)
            .await
            .unwrap()
            .whoami()
            .await
            .unwrap();
        connect(Trust::Fingerprint(sha256), encoding)
            .await
            .unwrap()
            .whoami()
            .await
            .unwrap();
    }
    let wrong = connect(Trust::Fingerprint([7; 32]), Encoding::Bson)
        .await
        .unwrap_err();
    assert!(
        matches!(&wrong, ClientError::Tls { reason, .. } if reason.contains("fingerprint")),
        "{wrong}"
    );
    let another = Site::start_with(with_tls).await;
    let wrong = connect(trust(&another.config), Encoding::Bson).await.unwrap_err();
    assert!(matches!(wrong, ClientError::Tls { .. }), "{wrong}");
    let nobody = connect(Trust::Nobody, Encoding::Bson).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Endpoint(_)), "{nobody}");
}

#[tokio::test]
async fn a_plain_client_does_not_get_into_a_tls_port() {
    let site = Site::start_with(with_tls).await;
    let mut endpoint = Endpoint::new(&format!("ws://{}", site.server().address()))
        .unwrap()
        .with_token("x");
    endpoint.limits.connect = std::time::Duration::from_secs(5);
    assert!(Client::connect(&endpoint).await.is_err());
}

#[tokio::test]
async fn nobody_there_is_told_as_unreachable() {
    let mut site = Site::start().await;
    let endpoint = site.endpoint().with_token("x");
    site.stop().await;
    let error = Client::connect(&endpoint).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_bad_one_is_not() {
    let site = Site::start_with(with_tls).await;
    let token = site.token(Role::Reader, None).await.token;
    let tls = site.config.tls.clone().unwrap();
    let fingerprint = || restfs::interface::fingerprint(&tls.cert).unwrap().0;
    let connect = async |sha256| {
        let endpoint = site
            .endpoint()
            .with_token(token.clone())
            .with_trust(Trust::Fingerprint(sha256));
        Client::connect(&endpoint).await
    };
    let (old, kept) = (fingerprint(), connect(fingerprint()).await.unwrap());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    assert!(site.server().reload().is_err(), "the key is still the old one");
    connect(old).await.unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    site.server().reload().unwrap();
    connect(fingerprint()).await.unwrap();
    assert!(connect(old).await.is_err());
    kept.whoami().await.unwrap();
}
