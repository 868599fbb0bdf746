//! What there is.

mod block;
mod left;
mod socket;
mod wire;

use crate::Target;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bounds of memory: a decoder's own limit, and what the checks around it take. None depends on a number in the input.
pub const TARGETS: &[Target] = &[
    Target {
        name: "socket",
        about: "frames between the module and vfsxd, both directions, cut anywhere",
        seeds: socket::seeds,
        run: socket::run,
        longest: 64 * KIB,
        memory: 32 * MIB,
    },
    Target {
        name: "journal",
        about: "records and segments of the journal: decoding, opening, reading, going on",
        seeds: || vfsx_daemon::fuzzing::journal::seeds(socket::events()),
        run: vfsx_daemon::fuzzing::journal::run,
        longest: 64 * KIB,
        memory: 32 * MIB,
    },
    Target {
        name: "wire",
        about: "messages of the RPC in JSON and BSON, params and results of every method",
        seeds: wire::seeds,
        run: wire::run,
        longest: 64 * KIB,
        memory: 32 * MIB,
    },
    Target {
        name: "block",
        about: "blocks as they travel: zstd that lies, patches, differences",
        seeds: block::seeds,
        run: block::run,
        longest: 64 * KIB,
        memory: 16 * MIB,
    },
    Target {
        name: "pack",
        about: "pack files: headers, records, the search behind damage",
        seeds: restfs::fuzzing::pack::seeds,
        run: restfs::fuzzing::pack::run,
        longest: 64 * KIB,
        memory: 16 * MIB,
    },
    Target {
        name: "commits",
        about: "files of the commit log, and the rows in them",
        seeds: restfs::fuzzing::commits::seeds,
        run: restfs::fuzzing::commits::run,
        longest: 64 * KIB,
        memory: 32 * MIB,
    },
    Target {
        name: "rows",
        about: "rows and keys of the metadata store",
        seeds: restfs_lib::tree::fuzzing::rows,
        run: restfs_lib::tree::fuzzing::row,
        longest: 64 * KIB,
        memory: 8 * MIB,
    },
    Target {
        name: "catalog",
        about: "rows and keys of vfsxd's catalog",
        seeds: vfsx_daemon::fuzzing::catalog::seeds,
        run: vfsx_daemon::fuzzing::catalog::run,
        longest: 64 * KIB,
        memory: 16 * MIB,
    },
    Target {
        name: "left",
        about: "spool files and gap flags that modules leave for vfsxd",
        seeds: left::seeds,
        run: vfsx_daemon::fuzzing::intake::run,
        longest: 64 * KIB,
        memory: 16 * MIB,
    },
    Target {
        name: "tokens",
        about: "records of tokens",
        seeds: restfs::fuzzing::auth::records,
        run: restfs::fuzzing::auth::record,
        longest: 4 * KIB,
        memory: MIB,
    },
    Target {
        name: "vfsxd-toml",
        about: "vfsxd.toml, and the sizes, rates and durations in it",
        seeds: vfsx_daemon::fuzzing::config::seeds,
        run: vfsx_daemon::fuzzing::config::run,
        longest: 4 * KIB,
        memory: 4 * MIB,
    },
    Target {
        name: "text",
        about: "restfs.toml, points, BUCKET@POINT:/PATH, tokens",
        seeds: restfs::fuzzing::texts,
        run: restfs::fuzzing::text,
        longest: 4 * KIB,
        memory: 4 * MIB,
    },
    Target {
        name: "control",
        about: "lines of vfsxd's control socket, URLs and fingerprints",
        seeds: left::lines,
        run: left::line,
        longest: 4 * KIB,
        memory: 4 * MIB,
    },
];
