//! Locks between processes: files held with flock, which a killed process lets go of by itself.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    error::{Context, VmError},
    progress::{Progress, Say},
};

/// How often a lock that somebody else holds is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// A wait shorter than this is not worth a line.
const QUIET: Duration = Duration::from_secs(5);
const WAITING: &str = "waiting for another VM to end";

/// Who else may hold the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// A lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// The lock, unless somebody holds it.
    pub(crate) fn attempt(path: &Path, mode: Mode) -> Result<Option<Self>, VmError> {
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .at("cannot open the lock file", path)?;
            match flock(&file, operation) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                other => other.at("cannot lock", path)?,
            }
            // Its holder may have removed the file between our open and our lock: then another file has the name now.
            if is_at(&file, path).at("cannot look at", path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// The lock, as soon as nobody else holds it.
    pub(crate) fn wait(path: &Path, mode: Mode, doing: &str, say: Say<'_>) -> Result<Self, VmError> {
        let mut progress = Progress::quiet(doing, QUIET, say);
        loop {
            if let Some(lock) = Self::attempt(path, mode)? {
                return Ok(lock);
            }
            progress.tick();
            thread::sleep(RETRY);
        }
    }

    /// Marks what is locked as used now.
    pub(crate) fn touch(&self) -> Result<(), VmError> {
        self.file.set_modified(SystemTime::now()).at("cannot touch", &self.path)
    }

    /// Removes the lock file and lets go.
    pub(crate) fn remove(self) -> Result<(), VmError> {
        fs::remove_file(&self.path).at("cannot remove", &self.path)
    }
}

/// The processors that a running VM has for itself: one, or all of them.
///
/// An emulated VM has two processors and keeps one busy, most of the time. Where it needs the other it shares it, and is
/// slower for a moment: not good enough for what measures time.
#[derive(Debug)]
pub(crate) struct Slot {
    _locks: Vec<Lock>,
}

/// A place for one running VM, as soon as there is one. `alone`: nothing runs beside it.
pub(crate) fn slot(dir: &Path, alone: bool, say: Say<'_>) -> Result<Slot, VmError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let paths: Vec<_> = (0..cores).map(|n| dir.join(format!("slot-{n}.lock"))).collect();
    if alone {
        // Whoever wants all of them takes them in this order, so that no two wait for each other.
        let all = paths.iter().map(|path| Lock::wait(path, Mode::Exclusive, WAITING, say));
        return Ok(Slot { _locks: all.collect::<Result<_, _>>()? });
    }
    let mut progress = Progress::quiet(WAITING, QUIET, say);
    loop {
        for path in &paths {
            if let Some(lock) = Lock::attempt(path, Mode::Exclusive)? {
                return Ok(Slot { _locks: vec![lock] });
            }
        }
        progress.tick();
        thread::sleep(RETRY);
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_exclusive_or_many_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let first = Lock::attempt(&path, Mode::Shared).unwrap().unwrap();
        let second = Lock::attempt(&path, Mode::Shared).unwrap().unwrap();
        assert!(Lock::attempt(&path, Mode::Exclusive).unwrap().is_none());
        drop((first, second));
        let only = Lock::attempt(&path, Mode::Exclusive).unwrap().unwrap();
        assert!(Lock::attempt(&path, Mode::Shared).unwrap().is_none());
        only.remove().unwrap();
        assert!(Lock::attempt(&path, Mode::Exclusive).unwrap().is_some());
    }
}
