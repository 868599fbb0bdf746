//! The ways to set up smbd, and what is done with each of them, for each file system and mode.

use crate::stage::{SMB1, Stage};
use crate::{content, handles, mac, metadata, names, snapshots, space, special, streams, unix};

/// Without these smbd gives out no durable handles.
const DURABLE: [&str; 2] = ["posix locking = no", "kernel share modes = no"];
/// Most stages have the log of calls, and nothing else that does anything.
const AUDITED: &str = "full_audit vfsx";
const CATIA: &str = "catia:mappings = 0x22:0xa8";
// Good for all shares or for none.
const COPYFILE: &str = "fruit:copyfile = yes";
const RECOMMENDED: &str = "catia fruit streams_xattr acl_xattr shadow_copy2 full_audit vfsx";

/// Of both modes.
const RINGS: Stage = Stage::new(
    "rings",
    "fruit streams_xattr acl_xattr vfsx io_uring",
    &[content::ACTIONS, space::ACTIONS, streams::ACTIONS, mac::ACTIONS],
)
.global(&[COPYFILE]);
const SNAPSHOTS: Stage = Stage::new(
    "snapshots",
    "shadow_copy2 full_audit vfsx btrfs",
    &[snapshots::ACTIONS],
);
const BYTES: Stage = Stage::new("bytes", "vfsx", &[special::BYTES]);

pub const EXT4: &[Stage] = &[
    Stage::new(
        "alone",
        "vfsx",
        &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
        ],
    ),
    Stage::new(
        "acls",
        "acl_xattr full_audit vfsx",
        &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            special::KEPT_ACLS,
            special::CANCELLED,
        ],
    ),
    Stage::new(
        "recommended",
        RECOMMENDED,
        &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            streams::ACTIONS,
            mac::ACTIONS,
            special::TRANSLATED,
        ],
    )
    .global(&[COPYFILE])
    .share(&[CATIA]),
    Stage::new(
        "recycled",
        "streams_xattr acl_xattr recycle shadow_copy2 vfsx",
        &[names::ACTIONS, streams::ACTIONS, special::RECYCLED],
    )
    .share(&["recycle:keeptree = yes", "recycle:versions = yes"]),
    Stage::new(
        "filtered",
        "streams_xattr acl_xattr virusfilter full_audit vfsx",
        &[special::INFECTED, streams::ACTIONS],
    )
    .share(&[
        "virusfilter:scanner = dummy",
        "virusfilter:infected files = /eicar/",
        "virusfilter:infected file action = quarantine",
        "virusfilter:scan on close = yes",
        "virusfilter:cache entry limit = 0",
    ]),
    Stage::new(
        "snapshots",
        "shadow_copy2 full_audit vfsx",
        &[snapshots::WRITABLE],
    ),
    Stage::new("unix", AUDITED, &[unix::ACTIONS, unix::ADMIN])
        .global(&[SMB1, "host msdfs = yes"])
        .share(&["admin users = vfsxlab", "msdfs root = yes"]),
    Stage::new(
        "strict",
        AUDITED,
        &[special::STRICT, special::RECEIVED, handles::ACTIONS],
    )
    .global(&["min receivefile size = 16384", "server smb encrypt = off"])
    .share(&["strict allocate = yes", DURABLE[0], DURABLE[1]]),
    Stage::new("hasty", AUDITED, &[special::SYNCED]).share(&["strict sync = no"]),
    Stage::new("careful", AUDITED, &[special::SYNCED]).share(&["sync always = yes"]),
    Stage::new(
        "mapped",
        AUDITED,
        &[special::MAPPED, special::LATIN, special::VETOED],
    )
    .global(&["unix charset = ISO8859-1"])
    .share(&[
        "store dos attributes = no",
        "create mask = 0777",
        "map archive = yes",
        "map hidden = yes",
        "map system = yes",
        "veto files = /*.veto/",
        "delete veto files = yes",
    ]),
    Stage::new("heirs", AUDITED, &[unix::HEIRS]).share(&["inherit owner = yes", "admin users = vfsxlab"]),
];

pub const XFS: &[Stage] = &[
    Stage::new(
        "depot",
        "streams_depot acl_xattr full_audit vfsx",
        &[content::ACTIONS, space::ACTIONS, names::ACTIONS, streams::ACTIONS],
    ),
    Stage::new(
        "fruit",
        "fruit streams_xattr acl_xattr vfsx",
        &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            streams::ACTIONS,
            mac::ACTIONS,
        ],
    )
    .global(&[COPYFILE]),
    // With multi channel, which is the default, files are never opened in threads. No durable handles: nobody gets one back of a
    // file that a thread has made.
    Stage::new(
        "threads",
        "full_audit vfsx aio_pthread",
        &[
            special::OPENED_LATER,
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
        ],
    )
    .global(&["server multi channel support = no"])
    .share(&["aio_pthread:aio open = yes"]),
    BYTES,
];

pub const BTRFS: &[Stage] = &[
    Stage::new(
        "clones",
        "full_audit vfsx btrfs",
        &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            special::CLONED,
            special::COMPRESSED,
            handles::ACTIONS,
        ],
    )
    .share(&DURABLE),
    RINGS,
    SNAPSHOTS,
];

/// In mode `copy`, what has to do with content; all else is told the same way whatever the file system, and ext4 has all of it.
pub const XFS_COPY: &[Stage] = &[
    Stage::new(
        "depot",
        "streams_depot acl_xattr full_audit vfsx",
        &[content::ACTIONS, space::ACTIONS, streams::ACTIONS],
    ),
    BYTES,
];

pub const BTRFS_COPY: &[Stage] = &[
    Stage::new(
        "clones",
        "full_audit vfsx btrfs",
        &[space::ACTIONS, special::CLONED, special::COMPRESSED],
    ),
    RINGS,
    SNAPSHOTS,
];
