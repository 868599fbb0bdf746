//! Records of tokens, for the fuzz targets.

use super::tokens::{TokenRecord, decode, encode};
use restfs_lib::model::BucketId;
use restfs_lib::wire::values::Role;

pub fn record(bytes: &[u8]) {
    if let Ok(record) = decode("id", bytes) {
        let again = encode(&record).expect("what was read can be written");
        assert_eq!(decode("id", &again).as_ref(), Ok(&record));
    }
}

pub fn records() -> Vec<Vec<u8>> {
    let record = |role| TokenRecord {
        id: "id".to_owned(),
        name: "name".to_owned(),
        hash: [7; 32],
        role,
        bucket: Some(BucketId(300)),
        created_ns: 1,
        revoked_ns: Some(-2),
    };
    Role::ALL
        .into_iter()
        .filter_map(|role| encode(&record(role)).ok())
        .collect()
}
