//! The commit log against the hazards it is built for.

use super::start::{Place, open_at};
use super::store::MARK;
use super::writer::LOG_BYTES;
use super::{DATABASE, FOLDER, LogError, LoggedKv, check, open, rebuild};
use restfs_lib::disk::Directory;
use restfs_lib::disk::hooked::Hooked;
use restfs_lib::kv::{Kv, KvError, KvWrite, SqliteKv, SqliteOptions, Synchronous, transact};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const CACHE: usize = 1024 * 1024;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn rows(kv: &dyn Kv) -> Rows {
    let all = kv.read().unwrap();
    let mut rows: Rows = all
        .scan(Bound::Unbounded, Bound::Unbounded, usize::MAX >> 1)
        .unwrap()
        .into_iter()
        .collect();
    rows.remove(MARK);
    rows
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// A transaction as the tree makes them: revisions of long rows that differ little, short rows, deletions.
fn write(kv: &dyn Kv, dice: &mut Dice, point: u64) -> Result<(), KvError> {
    let rows: Vec<(u64, u64, u64)> = (0..=dice.roll(4))
        .map(|_| (dice.roll(5), dice.roll(700), dice.roll(6)))
        .collect();
    transact(kv, |txn| -> Result<(), KvError> {
        for (row, place, kind) in &rows {
            let key = |point: u64| [&[b's'][..], &row.to_be_bytes(), &(!point).to_be_bytes()].concat();
            let end = [&[b's'][..], &(row + 1).to_be_bytes()].concat();
            let found = txn.scan(Bound::Excluded(&key(point)), Bound::Excluded(&end), 1)?;
            let before = found.into_iter().next();
            match (kind, before) {
                (0, Some((key, _))) => txn.delete(&key)?,
                (1, _) => txn.put(format!("x{row}").as_bytes(), &point.to_be_bytes())?,
                (_, before) => {
                    let mut value = before.map_or(vec![3; 700], |(_, value)| value);
                    if let Some(byte) = value.get_mut(*place as usize) {
                        *byte ^= 0x55;
                    }
                    txn.put(&key(point), &value)?;
                }
            }
        }
        txn.put(b"n", &point.to_be_bytes())
    })
}

fn fill(kv: &dyn Kv, dice: &mut Dice, points: std::ops::Range<u64>) {
    for point in points {
        write(kv, dice, point).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(FOLDER))
        .unwrap()
        .map(|e| e.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

fn remove_database(folder: &Path) {
    for name in [DATABASE, "metadata.db-wal", "metadata.db-shm"] {
        let _ = fs::remove_file(folder.join(name));
    }
}

#[test]
fn a_lost_database_is_made_anew_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(1);
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut dice, 1..60);
    // Behind an image, too.
    kv.write_image().unwrap();
    fill(&kv, &mut dice, 60..90);
    let wanted = rows(&kv);
    drop(kv);
    remove_database(folder.path());
    let refused = open(folder.path(), CACHE).err().unwrap();
    assert!(matches!(refused, LogError::DatabaseGone(_)), "{refused}");
    let rebuilt = rebuild(folder.path(), CACHE, false).unwrap();
    assert_eq!((rebuilt.commits, rebuilt.cut_bytes), (30, 0));
    let kv = open(folder.path(), CACHE).unwrap();
    assert_eq!(rows(&kv), wanted);
    // It goes on as if nothing had been.
    fill(&kv, &mut dice, 90..95);
    let wanted = rows(&kv);
    drop(kv);
    let again = rebuild(folder.path(), CACHE, true).unwrap();
    assert!(again.replaced.unwrap().exists());
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

/// After a power cut the database may be at any earlier transaction, the log is at the last that was answered.
#[test]
fn the_database_may_lose_any_number_of_its_last_transactions() {
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut dice = Dice(2);
    let mut states = Vec::new();
    let kv = open(folder.path(), CACHE).unwrap();
    for point in 0..12 {
        copy(folder.path(), &copies.path().join(point.to_string()));
        states.push(rows(&kv));
        fill(&kv, &mut dice, point + 1..point + 2);
    }
    drop(kv);
    for (database, log) in (0..12).flat_map(|d| (d..12).map(move |l| (d, l))).step_by(3) {
        let cut = tempfile::tempdir().unwrap();
        copy(&copies.path().join(database.to_string()), cut.path());
        fs::remove_dir_all(cut.path().join(FOLDER)).unwrap();
        copy(
            &copies.path().join(log.to_string()).join(FOLDER),
            &cut.path().join(FOLDER),
        );
        let kv = open(cut.path(), CACHE).unwrap();
        assert_eq!(rows(&kv), states[log], "database {database}, log {log}");
    }
}

#[test]
fn a_write_that_was_cut_off_anywhere_leaves_the_state_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(3);
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut dice, 1..5);
    let (before, log) = (rows(&kv), files(folder.path(), "log").pop().unwrap());
    let old = tempfile::tempdir().unwrap();
    copy(folder.path(), old.path());
    let whole_to = fs::metadata(&log).unwrap().len();
    fill(&kv, &mut dice, 5..6);
    let after = rows(&kv);
    drop(kv);
    let end = fs::metadata(&log).unwrap().len();
    for length in (whole_to..=end).step_by(7).chain([end]) {
        let cut = tempfile::tempdir().unwrap();
        copy(old.path(), cut.path());
        let torn = cut.path().join(FOLDER).join(log.file_name().unwrap());
        fs::copy(&log, &torn).unwrap();
        let file = File::options().write(true).open(&torn).unwrap();
        file.set_len(length).unwrap();
        let kv = open(cut.path(), CACHE).unwrap();
        let wanted = if length == end { &after } else { &before };
        assert_eq!(rows(&kv), *wanted, "cut at {length} of {whole_to}..{end}");
        // And what comes next is found behind it.
        fill(&kv, &mut Dice(9), 6..7);
        let wanted = rows(&kv);
        drop(kv);
        remove_database(cut.path());
        rebuild(cut.path(), CACHE, false).unwrap();
        assert_eq!(rows(&open(cut.path(), CACHE).unwrap()), wanted);
    }
}

#[test]
fn damage_before_commits_that_only_the_log_has_is_no_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(4);
    let kv = open(folder.path(), CACHE).unwrap();
    let empty = tempfile::tempdir().unwrap();
    copy(folder.path(), empty.path());
    let log = files(folder.path(), "log").pop().unwrap();
    let start = fs::metadata(&log).unwrap().len();
    fill(&kv, &mut dice, 1..4);
    drop(kv);
    let mut bytes = fs::read(&log).unwrap();
    bytes[start as usize + 45] ^= 1;
    fs::write(empty.path().join(FOLDER).join(log.file_name().unwrap()), &bytes).unwrap();
    let refused = open(empty.path(), CACHE).err().unwrap();
    assert!(matches!(&refused, LogError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("move commits/ away"), "{refused}");
    // The way on that it names.
    fs::remove_dir_all(empty.path().join(FOLDER)).unwrap();
    open(empty.path(), CACHE).unwrap();
}

#[test]
fn a_store_of_a_version_without_log_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let old = SqliteKv::open(SqliteOptions {
        path: folder.path().join(DATABASE),
        synchronous: Synchronous::Full,
        cache_bytes: CACHE,
    })
    .unwrap();
    fill(&old, &mut Dice(5), 1..40);
    let wanted = rows(&old);
    drop(old);
    drop(open(folder.path(), CACHE).unwrap());
    remove_database(folder.path());
    let rebuilt = rebuild(folder.path(), CACHE, false).unwrap();
    assert_eq!((rebuilt.rows, rebuilt.commits), (wanted.len() as u64, 0));
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

#[test]
fn a_site_without_database_and_log_is_not_taken_for_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("blocks/packs")).unwrap();
    fs::write(folder.path().join("blocks/packs/00000001.pack"), b"x").unwrap();
    for result in [
        open(folder.path(), CACHE).map(drop),
        rebuild(folder.path(), CACHE, false).map(drop),
    ] {
        let refused = result.unwrap_err();
        assert!(matches!(refused, LogError::NothingLeft(_)), "{refused}");
    }
    assert!(!folder.path().join(DATABASE).exists());
}

#[test]
fn the_log_of_another_database_is_left_alone() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&one, &other] {
        fill(&open(folder.path(), CACHE).unwrap(), &mut Dice(6), 1..5);
    }
    remove_database(one.path());
    fs::copy(other.path().join(DATABASE), one.path().join(DATABASE)).unwrap();
    let refused = open(one.path(), CACHE).err().unwrap();
    assert!(matches!(refused, LogError::Apart(_)), "{refused}");
    assert_eq!(files(one.path(), "log").len(), 1);
    rebuild(one.path(), CACHE, true).unwrap();
    assert_eq!(
        rows(&open(one.path(), CACHE).unwrap()).len(),
        rows(&open(other.path(), CACHE).unwrap()).len()
    );
}

#[test]
fn an_older_copy_of_the_database_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut dice, 1..10);
    drop(kv);
    let backup = fs::read(folder.path().join(DATABASE)).unwrap();
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut dice, 10..20);
    let wanted = rows(&kv);
    drop(kv);
    remove_database(folder.path());
    fs::write(folder.path().join(DATABASE), backup).unwrap();
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

#[test]
fn a_log_that_is_behind_the_database_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(8);
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut dice, 1..5);
    let backup = tempfile::tempdir().unwrap();
    copy(&folder.path().join(FOLDER), backup.path());
    fill(&kv, &mut dice, 5..9);
    let wanted = rows(&kv);
    drop(kv);
    fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
    copy(backup.path(), &folder.path().join(FOLDER));
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
    remove_database(folder.path());
    rebuild(folder.path(), CACHE, false).unwrap();
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

fn failing(data_dir: &Path, fail: &Arc<AtomicBool>) -> Place {
    let fail = Arc::clone(fail);
    let log = Hooked::new(&data_dir.join(FOLDER), move |_, file| {
        match fail.load(Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => file.sync_data(),
        }
    });
    Place {
        data_dir: data_dir.to_owned(),
        database: Arc::new(Directory::at(data_dir)),
        log,
        log_bytes: LOG_BYTES,
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let fail = Arc::new(AtomicBool::new(false));
    let mut dice = Dice(10);
    let kv = open_at(&failing(folder.path(), &fail), CACHE).unwrap();
    fill(&kv, &mut dice, 1..5);
    let wanted = rows(&kv);
    fail.store(true, Ordering::SeqCst);
    write(&kv, &mut dice, 5).unwrap_err();
    fail.store(false, Ordering::SeqCst);
    write(&kv, &mut dice, 5).unwrap_err();
    assert_eq!(rows(&kv), wanted);
    drop(kv);
    let kv = open(folder.path(), CACHE).unwrap();
    assert_eq!(rows(&kv), wanted);
    fill(&kv, &mut dice, 5..7);
}

#[test]
fn an_image_takes_the_place_of_what_is_before_it_also_while_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let kv = Arc::new(open(folder.path(), CACHE).unwrap());
    let mut dice = Dice(11);
    fill(&*kv, &mut dice, 1..100);
    let (image, log) = kv.log_bytes().unwrap();
    let writing = Arc::clone(&kv);
    let writer = std::thread::spawn(move || fill(&*writing, &mut Dice(12), 100..160));
    for _ in 0..5 {
        kv.write_image().unwrap();
    }
    writer.join().unwrap();
    kv.write_image().unwrap();
    let (image_after, log_after) = kv.log_bytes().unwrap();
    assert!(
        image_after > image && log_after < log,
        "{image} {log} -> {image_after} {log_after}"
    );
    assert_eq!(files(folder.path(), "image").len(), 1);
    fill(&*kv, &mut dice, 160..170);
    let wanted = rows(&*kv);
    drop(kv);
    remove_database(folder.path());
    rebuild(folder.path(), CACHE, false).unwrap();
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

/// Flips a bit of a value, as a disk might.
fn spoil_row(folder: &Path) {
    let raw = rusqlite::Connection::open(folder.join(DATABASE)).unwrap();
    let (key, mut value): (Vec<u8>, Vec<u8>) = raw
        .query_row(
            "SELECT k, v FROM kv WHERE substr(k, 1, 1) = x'73' LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    value[1] ^= 2;
    let changed = raw.execute("UPDATE kv SET v = ?2 WHERE k = ?1", [key, value]);
    assert_eq!(changed, Ok(1));
}

/// Takes a row away from a page of the tree: whoever reads the others finds them good.
fn spoil_page(folder: &Path) {
    const PAGE: usize = 4096;
    const LEAF: u8 = 10;
    let mut file = fs::read(folder.join(DATABASE)).unwrap();
    let leaves = file
        .chunks(PAGE)
        .skip(1)
        .position(|page| page[0] == LEAF && page[4] > 2);
    let leaf = (1 + leaves.unwrap()) * PAGE;
    file[leaf + 4] -= 1;
    fs::write(folder.join(DATABASE), file).unwrap();
}

#[test]
fn a_damaged_database_takes_the_place_of_no_log() {
    for spoil in [spoil_row, spoil_page] {
        let folder = tempfile::tempdir().unwrap();
        let kv = open(folder.path(), CACHE).unwrap();
        fill(&kv, &mut Dice(17), 1..60);
        let wanted = rows(&kv);
        drop(kv);
        spoil(folder.path());
        let logs = || {
            let mut paths: Vec<PathBuf> = fs::read_dir(folder.path().join(FOLDER))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            paths.sort();
            paths
        };
        let before = logs();
        let kv = open(folder.path(), CACHE).unwrap();
        let refused = kv.write_image().unwrap_err();
        let damaged = matches!(
            refused,
            LogError::DatabaseDamaged(_) | LogError::Kv(KvError::Corrupt(_))
        );
        assert!(damaged, "{refused}");
        assert!(!kv.check(|| true).unwrap().unwrap().damages.is_empty());
        // What is written meanwhile is in the log.
        transact(&kv, |txn| txn.put(b"y", b"later")).unwrap();
        drop(kv);
        assert_eq!(logs(), before);
        // A start without a log writes an image, too.
        let alone = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(DATABASE), alone.path().join(DATABASE)).unwrap();
        let refused = open(alone.path(), CACHE).err().unwrap().to_string();
        assert!(
            refused.contains("put back a copy of metadata.db or of commits/"),
            "{refused}"
        );
        rebuild(folder.path(), CACHE, true).unwrap();
        let kv = open(folder.path(), CACHE).unwrap();
        let mut now = rows(&kv);
        assert_eq!(now.remove(&b"y"[..]), Some(b"later".to_vec()));
        assert_eq!(now, wanted);
        kv.write_image().unwrap();
    }
}

/// A crash at any step of making an image leaves what was there before it, and the image of before or the new one.
#[test]
fn an_image_that_was_not_finished_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut Dice(13), 1..30);
    let wanted = rows(&kv);
    let before = tempfile::tempdir().unwrap();
    copy(folder.path(), before.path());
    kv.write_image().unwrap();
    drop(kv);
    let image = files(folder.path(), "image").pop().unwrap();
    let all = fs::read(&image).unwrap();
    for part in [0, 10, 40, all.len() / 2, all.len() - 1, all.len()] {
        let cut = tempfile::tempdir().unwrap();
        copy(before.path(), cut.path());
        let name = Path::new(image.file_name().unwrap()).with_extension("unfinished");
        fs::write(cut.path().join(FOLDER).join(name), &all[..part]).unwrap();
        remove_database(cut.path());
        rebuild(cut.path(), CACHE, false).unwrap();
        assert_eq!(rows(&open(cut.path(), CACHE).unwrap()), wanted);
    }
    // Renamed, and the older files not yet removed.
    let cut = tempfile::tempdir().unwrap();
    copy(before.path(), cut.path());
    fs::copy(&image, cut.path().join(FOLDER).join(image.file_name().unwrap())).unwrap();
    drop(open(cut.path(), CACHE).unwrap());
    remove_database(cut.path());
    rebuild(cut.path(), CACHE, false).unwrap();
    assert_eq!(rows(&open(cut.path(), CACHE).unwrap()), wanted);
}

#[test]
fn every_flipped_bit_of_the_log_is_found_and_an_image_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut Dice(14), 1..30);
    kv.write_image().unwrap();
    fill(&kv, &mut Dice(15), 30..40);
    let found = |kv: &LoggedKv| check(kv, |_| true).unwrap();
    assert_eq!(found(&kv), []);
    let mut dice = Dice(16);
    for path in files(folder.path(), "image")
        .into_iter()
        .chain(files(folder.path(), "log"))
    {
        let good = fs::read(&path).unwrap();
        for _ in 0..60 {
            let mut bad = good.clone();
            let bit = dice.roll(good.len() as u64 * 8) as usize;
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let damages = found(&kv);
            assert_eq!(damages.len(), 1, "{} bit {bit}", path.display());
            assert_eq!(damages[0].path, path);
            fs::write(&path, &good).unwrap();
        }
    }
    // In any file, also in the header of the one that is written.
    for round in 0..6 {
        let mut all = files(folder.path(), "image");
        all.extend(files(folder.path(), "log"));
        for path in all {
            let mut bad = fs::read(&path).unwrap();
            let byte = if round % 2 == 0 { 20 } else { bad.len() / 2 };
            bad[byte] ^= 1;
            fs::write(&path, &bad).unwrap();
        }
        assert_ne!(found(&kv), []);
        kv.write_image().unwrap();
        assert_eq!(found(&kv), []);
        if round > 2 {
            fill(&kv, &mut dice, 40 + round..41 + round);
        }
    }
    let wanted = rows(&kv);
    drop(kv);
    remove_database(folder.path());
    rebuild(folder.path(), CACHE, false).unwrap();
    assert_eq!(rows(&open(folder.path(), CACHE).unwrap()), wanted);
}

/// A transaction that is longer than one record.
#[test]
fn a_large_transaction_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let kv = open(folder.path(), CACHE).unwrap();
    fill(&kv, &mut Dice(17), 1..3);
    let before = rows(&kv);
    copy(folder.path(), old.path());
    let log = files(folder.path(), "log").pop().unwrap();
    let start = fs::metadata(&log).unwrap().len();
    let noise = |seed: u8| {
        let mut bytes = vec![0; 400_000];
        blake3::Hasher::new()
            .update(&[seed])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    };
    transact(&kv, |txn: &mut dyn KvWrite| -> Result<(), KvError> {
        (0..9u8).try_for_each(|n| txn.put(&[b'y', n], &noise(n)))
    })
    .unwrap();
    let after = rows(&kv);
    drop(kv);
    let end = fs::metadata(&log).unwrap().len();
    assert!(end - start > 3_000_000);
    let all = fs::read(&log).unwrap();
    for length in [start + 20, start + 500_000, start + 1_300_000, end - 1, end] {
        let cut: TempDir = tempfile::tempdir().unwrap();
        copy(old.path(), cut.path());
        let torn = cut.path().join(FOLDER).join(log.file_name().unwrap());
        fs::write(&torn, &all[..length as usize]).unwrap();
        let wanted = if length == end { &after } else { &before };
        assert_eq!(rows(&open(cut.path(), CACHE).unwrap()), *wanted, "{length}");
    }
    // Pages of a write that was never synced reach the disk in any order.
    let mut bytes = all;
    bytes[start as usize + 5000] ^= 0xFF;
    let torn = old.path().join(FOLDER).join(log.file_name().unwrap());
    fs::write(torn, &bytes).unwrap();
    assert_eq!(rows(&open(old.path(), CACHE).unwrap()), before);
}
