//! The records of mounts in `/run/memcharge/mounts`: what there is to undo, whoever does it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use memcharge_cgroup::Ledger;
use memcharge_policy::{MountName, link::MountRecord};

use crate::error::{DaemonError, Result};

/// Everything of a running daemon and its stores is below this directory.
const RUN_DIR: &str = "/run/memcharge";

/// What stores hold of their grants.
const LEDGER: &str = "/run/memcharge/ledger";

/// No record is that long; what is longer is not read.
const MAX_RECORD: u64 = 1 << 20;

/// Makes the directories below `/run/memcharge` that records and sockets are in.
pub(crate) fn make_directories() -> Result<()> {
    for (path, mode) in [(RUN_DIR, 0o755), (MountRecord::DIR, 0o700), (MountRecord::SOCKET_DIR, 0o700)] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(DaemonError::io("make", path))?;
    }
    Ok(())
}

/// Opens the ledger of what stores hold, and takes back the lines of stores that are gone.
pub(crate) fn open_ledger() -> Result<(Ledger, File)> {
    let file = Ledger::open_file(Path::new(LEDGER)).map_err(DaemonError::io("open", LEDGER))?;
    let ledger = Ledger::map(&file).map_err(DaemonError::io("map", LEDGER))?;
    let records = read_all()?;
    // A record that cannot be read may be that of a store that lives, whose line nobody else must get.
    if records.iter().all(Result::is_ok) {
        let slots: Vec<_> = records.into_iter().flatten().map(|record| record.slot).collect();
        ledger.retain(&slots);
    }
    Ok((ledger, file))
}

/// Whether there is a record of this name.
pub(crate) fn exists(name: &MountName) -> bool {
    Path::new(&MountRecord::path(name)).exists()
}

/// Writes a record, as a whole or not at all.
pub(crate) fn write(record: &MountRecord) -> Result<()> {
    let path = MountRecord::path(&record.policy.name);
    let text = serde_json::to_vec(record).map_err(|error| io::Error::other(error.to_string()));
    text.and_then(|text| write_whole(Path::new(&path), &text, 0o600)).map_err(DaemonError::io("write", path))
}

/// Removes a record. One that is not there is no error.
pub(crate) fn remove(name: &MountName) -> Result<()> {
    let path = MountRecord::path(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DaemonError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Reads all records. One that cannot be read is an error of its own and does not hide the others.
pub(crate) fn read_all() -> Result<Vec<Result<MountRecord>>> {
    let listing = fs::read_dir(MountRecord::DIR).map_err(DaemonError::io("list", MountRecord::DIR))?;
    let mut records = Vec::new();
    for entry in listing {
        let path = entry.map_err(DaemonError::io("list", MountRecord::DIR))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            records.push(read(&path));
        }
    }
    Ok(records)
}

fn read(path: &Path) -> Result<MountRecord> {
    let shown = path.display().to_string();
    let size = fs::symlink_metadata(path).map_err(DaemonError::io("read", &shown))?.len();
    let wrong = |why: String| DaemonError::Record { path: shown.clone(), why };
    if size > MAX_RECORD {
        return Err(wrong(format!("it has {size} bytes")));
    }
    let text = fs::read(path).map_err(DaemonError::io("read", &shown))?;
    let record: MountRecord = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    if stem != Some(record.policy.name.as_str()) {
        return Err(wrong(format!("it is about the mount {}", record.policy.name)));
    }
    Ok(record)
}

/// Writes a file under a name of its own, then gives it its name.
pub(crate) fn write_whole(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // What is left there of an earlier try, or was put there, is neither followed nor written into.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one that counts.
        drop(fs::remove_file(&new));
    }
    written
}

#[cfg(test)]
mod tests {
    use memcharge_policy::{MountPolicy, Target};

    use super::*;

    #[test]
    fn records_are_read_back_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let policy = MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Slice("m.slice".into()));
        let record = MountRecord {
            policy,
            cap: None,
            mount_id: 7,
            attached: true,
            mounted_on: "/run/m".into(),
            made_directories: vec!["/run/m".into()],
            leaf: "/m.slice/memcharge-store-m.service".into(),
            made_leaf: false,
            target_path: "/m.slice".into(),
            target_id: 7,
            slot: 1,
            base: None,
            generation: 0,
            made_usec: 0,
            recovering: false,
            moving: false,
            previous: memcharge_policy::link::Previous::default(),
            fragment: String::new(),
            owner: 0,
        };
        let path = dir.path().join("m.json");
        write_whole(&path, &serde_json::to_vec(&record).unwrap(), 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), record);
        assert!(!dir.path().join("m.json.new").exists());

        let other = dir.path().join("other.json");
        fs::copy(&path, &other).unwrap();
        assert!(matches!(read(&other), Err(DaemonError::Record { .. })));
        fs::write(&path, "{").unwrap();
        assert!(matches!(read(&path), Err(DaemonError::Record { .. })));
    }
}
