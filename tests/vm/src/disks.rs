//! The disks of one run: `files` has what the host gives, `ctl` the job, and later what the guest gives back.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Component, Path},
};

use crate::{
    error::{Context, VmError},
    machine::DISK_BYTES,
    process,
    spec::FileIn,
};

/// The guest's answer begins here on `ctl`; what is before it is for the job. guest/job.sh has the same number.
const JOB_BYTES: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
/// Room on `files` besides the files: for the file system's own structures and for what the command writes.
const SPARE_BYTES: u64 = 64 * MIB;

/// Makes both disks empty, as the agent sees them when it is frozen.
pub(crate) fn make_empty(dir: &Path) -> Result<(), VmError> {
    sparse(&dir.join("files"))?;
    sparse(&dir.join("ctl"))
}

/// Makes `files` with copies of these files and directories.
pub(crate) fn make_files(dir: &Path, files: &[FileIn]) -> Result<(), VmError> {
    let (stage, disk) = (dir.join("stage"), dir.join("files"));
    fs::create_dir(&stage).at("cannot create", &stage)?;
    for file in files {
        put(file, &stage)?;
    }
    let bytes = size(&stage)?;
    let mib = (bytes * 5 / 4 + SPARE_BYTES) / MIB;
    let mut mkfs = process::command("mkfs.ext4");
    mkfs.args([
        "-q",
        "-F",
        "-b",
        "4096",
        "-m",
        "0",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1,root_owner=0:0",
    ]);
    process::output(mkfs.arg("-d").arg(&stage).arg(&disk).arg(format!("{mib}M")))?;
    fs::remove_dir_all(&stage).at("cannot remove", &stage)?;
    sparse(&disk)
}

/// Makes `ctl` with this job.
pub(crate) fn make_ctl(dir: &Path, script: &str) -> Result<(), VmError> {
    if script.len() as u64 > JOB_BYTES {
        return Err(VmError::Invalid { reason: "the command is too long; pass it as a file".into() });
    }
    let disk = dir.join("ctl");
    fs::write(&disk, script).at("cannot write", &disk)?;
    sparse(&disk)
}

/// Unpacks what the guest gave back.
pub(crate) fn take_out(dir: &Path, to: &Path) -> Result<(), VmError> {
    fs::create_dir_all(to).at("cannot create", to)?;
    let disk = dir.join("ctl");
    let mut file = File::open(&disk).at("cannot open", &disk)?;
    file.seek(SeekFrom::Start(JOB_BYTES)).at("cannot read", &disk)?;
    let mut first = [0; 1];
    // The guest died before it packed anything.
    if file.read(&mut first).at("cannot read", &disk)? == 0 || first == [0] {
        return Ok(());
    }
    file.seek(SeekFrom::Start(JOB_BYTES)).at("cannot read", &disk)?;
    process::output(process::command("tar").args(["--no-same-owner", "-xf", "-", "-C"]).arg(to).stdin(file))
        .map(drop)
}

fn put(file: &FileIn, stage: &Path) -> Result<(), VmError> {
    let name = Path::new(&file.name);
    if file.name.is_empty() || !name.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(VmError::Invalid { reason: format!("{:?} is not a relative path", file.name) });
    }
    let (from, to) = (fs::canonicalize(&file.host).at("cannot find", &file.host)?, stage.join(name));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).at("cannot create", parent)?;
    }
    if from.is_dir() {
        return process::output(process::command("cp").args(["-a", "--"]).arg(&from).arg(&to)).map(drop);
    }
    // A link costs nothing; it is not possible between file systems.
    fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).at("cannot copy", &from)
}

/// What the files below a directory take, at least a block for each.
fn size(dir: &Path) -> Result<u64, VmError> {
    const BLOCK: u64 = 4096;
    let mut sum = 0;
    for entry in fs::read_dir(dir).at("cannot read", dir)? {
        let entry = entry.at("cannot read", dir)?;
        let meta = entry.metadata().at("cannot look at", &entry.path())?;
        sum += BLOCK + if meta.is_dir() { size(&entry.path())? } else { meta.len().next_multiple_of(BLOCK) };
    }
    Ok(sum)
}

fn sparse(path: &Path) -> Result<(), VmError> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).at("cannot create", path)?;
    file.set_len(DISK_BYTES).at("cannot size", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_stage() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        fs::write(&host, "x").unwrap();
        for bad in ["", "/etc/x", "../x", "a/../../x"] {
            assert!(put(&FileIn { host: host.clone(), name: bad.into() }, dir.path()).is_err(), "{bad}");
        }
        put(&FileIn { host, name: "a/b".into() }, dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"x");
    }

    #[test]
    fn the_job_has_to_fit() {
        let dir = tempfile::tempdir().unwrap();
        make_ctl(dir.path(), "x").unwrap();
        assert_eq!(fs::metadata(dir.path().join("ctl")).unwrap().len(), DISK_BYTES);
        assert!(make_ctl(dir.path(), &"x".repeat(JOB_BYTES as usize + 1)).is_err());
        take_out(dir.path(), &dir.path().join("out")).unwrap();
    }
}
