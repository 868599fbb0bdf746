//! Binds the module to the private structures of the installed Samba.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Interface versions (`SMB_VFS_INTERFACE_VERSION`) that this source compiles against: Samba 4.17.
const SUPPORTED: &[u32] = &[47];
/// Written by `cargo xtask samba-headers` when the directory is complete.
const MARKER: &str = "VFSX-HEADERS";
const HELP: &str =
    "run `cargo xtask samba-headers`, which makes them (VFSX_SAMBA_HEADERS may name another directory)";

/// Include directories in the order of Samba's own build, and its defines. `bin/default` has what that build generated.
const INCLUDES: &[&str] = &[
    "bin/default/source3",
    "bin/default/source3/include",
    "bin/default/include",
    "bin/default/lib/param",
    "bin/default",
    "source3",
    "source3/include",
    "source3/lib",
    "include",
    "lib",
    "lib/replace",
    "lib/param",
    ".",
];
const DEFINES: &[(&str, &str)] = &[
    ("_SAMBA_BUILD_", "4"),
    ("HAVE_CONFIG_H", "1"),
    ("_GNU_SOURCE", "1"),
    ("_XOPEN_SOURCE_EXTENDED", "1"),
    ("_REENTRANT", "1"),
    ("__STDC_WANT_LIB_EXT1__", "1"),
];

/// What of Samba is called or looked into. Everything else stays unbound.
const FUNCTIONS: &[&str] = &[
    "smb_register_vfs",
    "smb_vfs_call_(connect|disconnect|create_file|create_dfs_pathat|mkdirat|openat|close|pwrite|recvfile|renameat|unlinkat|fchmod)",
    "smb_vfs_call_(fchown|lchown|fntimes|ftruncate|fallocate|symlinkat|linkat|mknodat|fset_dos_attributes|fset_nt_acl)",
    "smb_vfs_call_(sys_acl_set_fd|sys_acl_delete_def_fd|fremovexattr|fsetxattr)",
    "fsp_get_pathref_fd",
    "fsp_is_alternate_stream",
    "is_named_stream",
    "lp_parm_const_string",
    "lp_parm_ulong",
    "lp_case_sensitive",
    "lp_const_servicename",
    "lp_vfs_objects",
    "samba_version_string",
    "become_root",
    "drain_socket",
    "map_nt_error_from_unix_common",
    "unbecome_root",
    "vfs_add_fsp_extension_notype",
    "vfs_fetch_fsp_extension",
    "vfs_remove_fsp_extension",
    "vfsx_shim_.*",
];
const TYPES: &[&str] = &[
    "vfs_fn_pointers",
    "vfs_aio_state",
    "vfs_handle_struct",
    "vfs_fallocate_flags",
];
const CONSTANTS: &[&str] = &[
    "SMB_VFS_INTERFACE_VERSION",
    "SAMBA_VERSION_MAJOR",
    "SAMBA_VERSION_MINOR",
    "VFSX_.*",
];

fn main() {
    println!("cargo::rerun-if-env-changed=VFSX_SAMBA_HEADERS");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=build.rs");
    // Changes with every upgrade of Samba.
    println!("cargo::rerun-if-changed=/var/lib/dpkg/info/samba.list");
    println!("cargo::rustc-check-cfg=cfg(samba_vfs, values(\"47\"))");

    let headers = headers();
    let marker = read_marker(&headers);
    check_version(&marker);
    println!("cargo::rustc-cfg=samba_vfs=\"{}\"", marker.interface);
    bind(&headers);
    compile_shim(&headers);
}

fn headers() -> PathBuf {
    if let Some(dir) = std::env::var_os("VFSX_SAMBA_HEADERS") {
        return dir.into();
    }
    let manifest = PathBuf::from(env("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    manifest.join("..").join(target).join("samba-headers/current")
}

struct Marker {
    source_version: String,
    interface: u32,
}

fn read_marker(headers: &Path) -> Marker {
    let path = headers.join(MARKER);
    println!("cargo::rerun-if-changed={}", path.display());
    let Ok(text) = std::fs::read_to_string(&path) else {
        stop(&format!(
            "the headers of the installed Samba are not in {}: {HELP}",
            headers.display()
        ));
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    match (
        field("source_version"),
        field("interface").and_then(|n| n.parse().ok()),
    ) {
        (Some(version), Some(interface)) => Marker {
            source_version: version.to_owned(),
            interface,
        },
        _ => stop(&format!("{} is not readable: {HELP}", path.display())),
    }
}

fn check_version(marker: &Marker) {
    if let Some(installed) = installed_samba()
        && installed != marker.source_version
    {
        stop(&format!(
            "the prepared headers are of Samba {}, installed is {installed}: {HELP}",
            marker.source_version
        ));
    }
    if !SUPPORTED.contains(&marker.interface) {
        stop(&format!(
            "Samba {} has VFS interface version {}, which is not supported yet; supported: {SUPPORTED:?} (Samba 4.17)",
            marker.source_version, marker.interface
        ));
    }
}

/// `None` where dpkg does not know: the headers are then the caller's word.
fn installed_samba() -> Option<String> {
    let output = Command::new("dpkg-query")
        .args([
            "--show",
            "--showformat=${db:Status-Status} ${source:Version}",
            "samba",
        ])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

fn bind(headers: &Path) {
    let defines = DEFINES.iter().map(|(name, value)| format!("-D{name}={value}"));
    let includes = INCLUDES
        .iter()
        .map(|dir| format!("-I{}", headers.join(dir).display()));
    let builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(defines.chain(includes))
        .generate_comments(false)
        .layout_tests(false)
        .merge_extern_blocks(true);
    let builder = FUNCTIONS
        .iter()
        .fold(builder, |b, name| b.allowlist_function(name));
    let builder = TYPES.iter().fold(builder, |b, name| b.allowlist_type(name));
    let builder = CONSTANTS.iter().fold(builder, |b, name| b.allowlist_var(name));
    let bindings = builder
        .generate()
        .unwrap_or_else(|e| stop(&format!("bindgen on Samba's headers: {e}")));
    let out = PathBuf::from(env("OUT_DIR")).join("samba.rs");
    if let Err(e) = bindings.write_to_file(&out) {
        stop(&format!("cannot write {}: {e}", out.display()));
    }
}

fn compile_shim(headers: &Path) {
    let mut build = cc::Build::new();
    for (name, value) in DEFINES {
        build.define(name, *value);
    }
    build.includes(INCLUDES.iter().map(|dir| headers.join(dir)));
    // Samba's headers are not free of warnings of their own.
    build.file("shim/shim.c").warnings(false).compile("vfsx_shim");
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| stop(&format!("{name} is not set: build with cargo")))
}

fn stop(text: &str) -> ! {
    println!("cargo::error={text}");
    exit(1)
}
