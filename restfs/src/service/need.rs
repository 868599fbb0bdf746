//! What each method needs of its caller. A method that is not here is none, so that whoever adds one decides.

use crate::auth::Need;
use restfs_lib::wire::method::*;

/// By role; which bucket it is about shows later. `None`: there is no such method.
pub(super) fn of(method: &str) -> Option<Need> {
    Some(match method {
        ServerInfo::NAME | Whoami::NAME | BucketList::NAME => Need::Nothing,

        BucketInfo::NAME | CommitList::NAME | PointResolve::NAME => Need::Read,
        ObjectStat::NAME | ObjectLookup::NAME | ObjectList::NAME | ObjectLog::NAME => Need::Read,
        ObjectRead::NAME | ObjectSegments::NAME | BlockGet::NAME => Need::Read,
        AttributeGet::NAME | AttributeList::NAME => Need::Read,
        TreeDigest::NAME | TreeGroups::NAME | TreeRows::NAME | TreeRecount::NAME => Need::Read,

        BucketApply::NAME | AttributeSet::NAME | AttributeDelete::NAME => Need::Write,

        BlockMissing::NAME | BlockPut::NAME | BlockPatch::NAME | BlockCheck::NAME => Need::Replicate,
        BlockWanted::NAME | ReplicationPosition::NAME | ReplicationCommit::NAME => Need::Replicate,

        BucketCreate::NAME | BucketSet::NAME | BucketDelete::NAME | BucketPurge::NAME => Need::Administer,
        TokenCreate::NAME | TokenList::NAME | TokenRevoke::NAME => Need::Administer,
        ScrubStart::NAME | ScrubStatus::NAME => Need::Administer,
        GcStart::NAME | GcStatus::NAME => Need::Administer,

        _ => return None,
    })
}
