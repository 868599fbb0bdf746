//! Records of tokens in the metadata store: key `u` and the token's id, value a version byte and the record in
//! postcard.

use super::{Identity, Token};
use restfs_lib::kv::{KvRead, KvWrite};
use restfs_lib::model::BucketId;
use restfs_lib::wire::values::Role;
use restfs_lib::wire::{Code, RpcError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const PREFIX: u8 = b'u';
const VERSION: u8 = 1;
/// Tokens a server keeps, revoked ones included: all are listed at once.
const MAX_TOKENS: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: String,
    pub name: String,
    pub hash: [u8; 32],
    pub role: Role,
    pub bucket: Option<BucketId>,
    pub created_ns: i64,
    pub revoked_ns: Option<i64>,
}

/// The record's own encoding.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    hash: [u8; 32],
    role: u8,
    bucket: Option<u64>,
    created_ns: i64,
    revoked_ns: Option<i64>,
}

/// Which tokens are in use by connections.
#[derive(Debug, Default)]
pub struct Auth {
    live: Mutex<HashMap<String, Weak<AtomicBool>>>,
}

impl Auth {
    /// The identity behind the value of an `Authorization` header. The error says nothing that helps guessing.
    pub fn authenticate(&self, kv: &dyn KvRead, header: Option<&str>) -> Result<Identity, RpcError> {
        let refused = |why: &str| RpcError::new(Code::Unauthorized, why);
        let header =
            header.ok_or_else(|| refused("no token was sent; set one made by `restfs token create`"))?;
        let token = header
            .strip_prefix("Bearer ")
            .and_then(|text| Token::parse(text.trim()))
            .ok_or_else(|| {
                refused("what was sent is no token; it is `restfs_ID_SECRET`, whole and on one line")
            })?;
        let unknown = || refused("the token is not one of this server, or was revoked");
        // Registered before the record is read, so that a revocation in between is not missed.
        let live = self.register(&token.id());
        let record = get(kv, &token.id())?.ok_or_else(unknown)?;
        if !token.matches(&record.hash) || record.revoked_ns.is_some() {
            return Err(unknown());
        }
        Ok(Identity {
            name: record.name,
            role: record.role,
            bucket: record.bucket,
            live,
        })
    }

    /// Ends what connections may do with a token.
    pub fn revoked(&self, id: &str) {
        let live = self
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        if let Some(live) = live.and_then(|weak| weak.upgrade()) {
            live.store(false, Ordering::Relaxed);
        }
    }

    fn register(&self, id: &str) -> Arc<AtomicBool> {
        let mut table = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = table.get(id).and_then(Weak::upgrade) {
            return live;
        }
        // Unused entries would pile up otherwise, by ids that are guessed.
        table.retain(|_, live| live.strong_count() > 0);
        let live = Arc::new(AtomicBool::new(true));
        table.insert(id.to_owned(), Arc::downgrade(&live));
        live
    }
}

pub(crate) fn get(kv: &dyn KvRead, id: &str) -> Result<Option<TokenRecord>, RpcError> {
    kv.get(&key(id))?.map(|value| decode(id, &value)).transpose()
}

/// All tokens by id, revoked ones too.
pub(crate) fn list(kv: &dyn KvRead) -> Result<Vec<TokenRecord>, RpcError> {
    let rows = kv.scan(
        Bound::Included(&[PREFIX]),
        Bound::Excluded(&[PREFIX + 1]),
        MAX_TOKENS,
    )?;
    rows.iter()
        .map(|(key, value)| decode(&String::from_utf8_lossy(key.get(1..).unwrap_or_default()), value))
        .collect()
}

pub(crate) fn put(txn: &mut dyn KvWrite, record: &TokenRecord) -> Result<(), RpcError> {
    if list(txn)?.len() >= MAX_TOKENS {
        return Err(RpcError::new(
            Code::TooLarge,
            format!("there are {MAX_TOKENS} tokens already"),
        ));
    }
    Ok(txn.put(&key(&record.id), &encode(record)?)?)
}

/// Kept with the time of revocation, so that a list shows what was once given out.
pub(crate) fn revoke(txn: &mut dyn KvWrite, id: &str, now_ns: i64) -> Result<(), RpcError> {
    let missing = || RpcError::new(Code::NotFound, format!("token `{id}` does not exist"));
    let mut record = get(txn, id)?.ok_or_else(missing)?;
    record.revoked_ns.get_or_insert(now_ns);
    Ok(txn.put(&key(id), &encode(&record)?)?)
}

fn key(id: &str) -> Vec<u8> {
    [&[PREFIX], id.as_bytes()].concat()
}

pub(super) fn encode(record: &TokenRecord) -> Result<Vec<u8>, RpcError> {
    let stored = Stored {
        name: record.name.clone(),
        hash: record.hash,
        role: role_number(record.role),
        bucket: record.bucket.map(|bucket| bucket.0),
        created_ns: record.created_ns,
        revoked_ns: record.revoked_ns,
    };
    postcard::to_extend(&stored, vec![VERSION]).map_err(|e| RpcError::new(Code::Internal, e.to_string()))
}

pub(super) fn decode(id: &str, value: &[u8]) -> Result<TokenRecord, RpcError> {
    let damaged = || {
        RpcError::new(
            Code::Corrupt,
            format!("metadata store is damaged: record of token `{id}`"),
        )
    };
    let (version, body) = value.split_first().ok_or_else(damaged)?;
    if *version != VERSION {
        return Err(damaged());
    }
    let stored: Stored = postcard::from_bytes(body).map_err(|_| damaged())?;
    Ok(TokenRecord {
        id: id.to_owned(),
        name: stored.name,
        hash: stored.hash,
        role: Role::ALL
            .into_iter()
            .find(|role| role_number(*role) == stored.role)
            .ok_or_else(damaged)?,
        bucket: stored.bucket.map(BucketId),
        created_ns: stored.created_ns,
        revoked_ns: stored.revoked_ns,
    })
}

/// As stored; never changes.
fn role_number(role: Role) -> u8 {
    match role {
        Role::Admin => 1,
        Role::Replicator => 2,
        Role::Writer => 3,
        Role::Reader => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use restfs_lib::kv::{Kv, MemoryKv};

    fn record(id: &str) -> TokenRecord {
        TokenRecord {
            id: id.to_owned(),
            name: "ab".to_owned(),
            hash: [0x11; 32],
            role: Role::Writer,
            bucket: Some(BucketId(300)),
            created_ns: 1,
            revoked_ns: None,
        }
    }

    #[test]
    fn the_bytes_of_a_record_do_not_change() {
        let bytes = hex::encode(encode(&record("x")).unwrap());
        let expected = ["01", "026162", &"11".repeat(32), "03", "01ac02", "02", "00"].concat();
        assert_eq!(bytes, expected);
        assert_eq!(key("0a"), b"u0a");
    }

    #[test]
    fn every_role_comes_back_and_damage_is_told() {
        for role in Role::ALL {
            let written = TokenRecord {
                role,
                revoked_ns: Some(-5),
                bucket: None,
                ..record("x")
            };
            let bytes = encode(&written).unwrap();
            assert_eq!(decode("x", &bytes).unwrap(), written);
            assert_eq!(
                decode("x", &bytes[..bytes.len() - 1]).unwrap_err().code,
                Code::Corrupt
            );
        }
        assert_eq!(decode("x", &[2]).unwrap_err().code, Code::Corrupt);
        assert_eq!(decode("x", &[]).unwrap_err().code, Code::Corrupt);
    }

    #[test]
    fn a_revocation_reaches_who_is_connected_and_who_connects() {
        let kv = MemoryKv::new();
        let auth = Auth::default();
        let token = Token::generate().unwrap();
        let header = format!("Bearer {}", token.reveal());
        let mut txn = kv.write().unwrap();
        put(
            &mut *txn,
            &TokenRecord {
                hash: token.hash(),
                ..record(&token.id())
            },
        )
        .unwrap();
        txn.commit().unwrap();
        let connected = auth.authenticate(&*kv.read().unwrap(), Some(&header)).unwrap();
        assert!(connected.is_live());
        let mut txn = kv.write().unwrap();
        revoke(&mut *txn, &token.id(), 9).unwrap();
        txn.commit().unwrap();
        auth.revoked(&token.id());
        assert!(!connected.is_live());
        let again = auth
            .authenticate(&*kv.read().unwrap(), Some(&header))
            .unwrap_err();
        assert_eq!(again.code, Code::Unauthorized);
        assert_eq!(list(&*kv.read().unwrap()).unwrap()[0].revoked_ns, Some(9));
    }
}
