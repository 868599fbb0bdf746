//! Content of `write` edits: stored before the transaction, which then only names the blocks.

use crate::auth::{Identity, Need};
use crate::service::Service;
use crate::service::access::{find_bucket, find_object};
use restfs_lib::content::hash_block;
use restfs_lib::model::{BlockRef, Layout};
use restfs_lib::tree::Tree;
use restfs_lib::wire::RpcError;
use restfs_lib::wire::method::Edit;
use restfs_lib::wire::values::ObjectAt;

/// The blocks of one `write`, in order.
pub(super) struct Written {
    /// Of the object when they were cut.
    pub(super) layout: Layout,
    pub(super) blocks: Vec<BlockRef>,
}

/// One for each `write` among the edits. Durable when it returns.
pub(super) fn store(
    service: &Service,
    identity: &Identity,
    bucket: &str,
    edits: &[Edit],
) -> Result<Vec<Written>, RpcError> {
    let mut written = Vec::new();
    for edit in edits {
        let Edit::Write { object, content, .. } = edit else {
            continue;
        };
        let layout = layout_of(service, identity, bucket, object)?;
        let mut blocks = Vec::new();
        for part in content.0.chunks(layout.block_size as usize) {
            let block = hash_block(part, layout.hash);
            service.blocks.put(block.key, part, layout.compression)?;
            blocks.push(block);
        }
        written.push(Written { layout, blocks });
    }
    service.blocks.flush()?;
    Ok(written)
}

/// A file that an earlier edit of the same call makes has the bucket's layout.
fn layout_of(
    service: &Service,
    identity: &Identity,
    bucket: &str,
    at: &ObjectAt,
) -> Result<Layout, RpcError> {
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Write, bucket)?;
        let tree = Tree::head(kv, bucket.id);
        let object = match find_object(&tree, at) {
            Ok(id) => tree.object(id)?,
            Err(_) => None,
        };
        Ok(object.map_or(bucket.layout, |(object, _)| object.layout))
    })
}
