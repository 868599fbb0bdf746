use super::{Blocks, assert_holds, content, key_of, pack_path};
use crate::storage::fs::record::RECORD_HEADER;
use crate::storage::fs::{FsStore, Options};
use crate::storage::{BlockStore, StoreError};
use restfs_lib::model::Compression;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A file system of a few megabytes; unmounted at the end, also of a failed test.
pub(super) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`: not root, so nothing can be mounted.
    pub(super) fn mount(size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(mounted.unwrap().success(), "mounting a tmpfs as root");
        Some(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn newest_pack(folder: &Path) -> u64 {
    (1..)
        .take_while(|pack| pack_path(folder, *pack).exists())
        .last()
        .unwrap()
}

#[test]
fn a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_space() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("skipped: needs root for a small file system");
        return;
    };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 2 * 1024 * 1024]).unwrap();
    for pack_size in [256 * 1024 * 1024, 200_000] {
        let folder = disk.path().join("store");
        let store = FsStore::open(
            &folder,
            &Options {
                pack_size,
                cache_bytes: 0,
            },
        )
        .unwrap();
        let mut stored = Blocks::new();
        let refused = loop {
            let content = content(stored.len() as u32 * 2, 30_000);
            match store.put(key_of(&content), &content, Compression::None) {
                Ok(()) => {
                    store.flush().unwrap();
                    stored.insert(key_of(&content), content);
                }
                Err(StoreError::Full { .. }) => break content,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(stored.len() > 10);
        assert!(!store.contains(key_of(&refused)).unwrap());
        assert_holds(&store, &stored);

        fs::remove_file(&ballast).unwrap();
        // Shorter than what the refused one may have left behind it.
        let short = content(1, 10);
        store.put(key_of(&short), &short, Compression::None).unwrap();
        store.flush().unwrap();
        let length = fs::metadata(pack_path(&folder, newest_pack(&folder)))
            .unwrap()
            .len();
        let at = store.shared.find(key_of(&short)).unwrap().unwrap();
        assert_eq!(
            length,
            at.offset + RECORD_HEADER as u64 + u64::from(at.stored),
            "a rest of the refused write"
        );
        stored.insert(key_of(&short), short);
        store.put(key_of(&refused), &refused, Compression::None).unwrap();
        store.flush().unwrap();
        stored.insert(key_of(&refused), refused);
        assert_holds(&store, &stored);
        drop(store);

        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.join(format!("index.db{suffix}")));
        }
        let store = FsStore::open(
            &folder,
            &Options {
                pack_size,
                cache_bytes: 0,
            },
        )
        .unwrap();
        assert_eq!(store.recovery().damages, [], "half a record was taken for good");
        assert_holds(&store, &stored);
        drop(store);
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&ballast, vec![1; 2 * 1024 * 1024]).unwrap();
    }
}
