//! The cache directory: entries that are made once, used under a shared lock and removed only when nobody uses them, and
//! scratch directories that die with their owner.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    error::{Context, VmError},
    lock::{Lock, Mode},
    process,
    progress::Say,
    prune,
};

const SCRATCH: &str = "tmp-";
const KINDS: [&str; 3] = ["image-", "state-", "layer-"];
/// A scratch directory is made a moment before it is locked; one younger than this may be in between.
const NEWBORN: Duration = Duration::from_secs(5);
/// Digits of a key: 48 bits are plenty for the few entries of one cache.
const KEY_DIGITS: usize = 12;

/// Where images and frozen machines are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// One thing in the cache, held against removal.
#[derive(Debug)]
pub(crate) struct Entry {
    path: PathBuf,
    _lock: Lock,
}

/// A directory of one run, removed with it.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Cache {
    /// The cache of this user, without what killed runs left in it.
    pub(crate) fn open() -> Result<Self, VmError> {
        let dir = directory(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
            .ok_or_else(|| {
                VmError::unavailable("no HOME to keep images in; name a directory in MEMCHARGE_VM_CACHE")
            })?;
        let dir = std::path::absolute(&dir).at("cannot use", &dir)?;
        fs::create_dir_all(&dir).at("cannot create", &dir)?;
        let cache = Self { dir };
        cache.sweep()?;
        Ok(cache)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The entry of this name, made by `make` in a fresh directory if there is none.
    pub(crate) fn entry(
        &self,
        name: &str,
        say: Say<'_>,
        make: impl Fn(&Path) -> Result<(), VmError>,
    ) -> Result<Entry, VmError> {
        let (path, lock_path) = (self.dir.join(name), self.lock_path(name));
        let waiting = format!("waiting for another process that makes {name}");
        loop {
            let lock = Lock::wait(&lock_path, Mode::Shared, &waiting, say)?;
            if path.is_dir() {
                lock.touch()?;
                return Ok(Entry { path, _lock: lock });
            }
            drop(lock);
            // Others may make it meanwhile, hence the second look; or it may be removed again before our shared lock,
            // hence the loop.
            let lock = Lock::wait(&lock_path, Mode::Exclusive, &waiting, say)?;
            if !path.is_dir() {
                let scratch = self.scratch()?;
                let draft = scratch.path().join("entry");
                fs::create_dir(&draft).at("cannot create", &draft)?;
                let start = Instant::now();
                make(&draft)?;
                fs::rename(&draft, &path).at("cannot create", &path)?;
                lock.touch()?;
                drop(lock);
                say(&format!("made {name} in {:.1} s", start.elapsed().as_secs_f64()));
                self.prune(name)?;
            }
        }
    }

    /// A fresh directory for one run.
    pub(crate) fn scratch(&self) -> Result<Scratch, VmError> {
        let dir = tempfile::Builder::new()
            .prefix(SCRATCH)
            .tempdir_in(&self.dir)
            .at("cannot create a directory in", &self.dir)?;
        let lock = File::open(dir.path()).at("cannot open", dir.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).at("cannot lock", dir.path())?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Removes what the entry just made has replaced, except what is in use.
    fn prune(&self, made: &str) -> Result<(), VmError> {
        let mut entries = Vec::new();
        for name in self.names()? {
            if self.dir.join(&name).is_dir() && !name.starts_with(SCRATCH) {
                let used = fs::metadata(self.lock_path(&name)).and_then(|m| m.modified());
                entries.push((name, used.unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        for name in prune::stale(&entries, made) {
            if let Some(lock) = Lock::attempt(&self.lock_path(&name), Mode::Exclusive)? {
                // Out of its name at once, so that an interrupted removal leaves no half entry.
                let scratch = self.scratch()?;
                let path = self.dir.join(&name);
                fs::rename(&path, scratch.path().join("entry")).at("cannot remove", &path)?;
                lock.remove()?;
            }
        }
        Ok(())
    }

    /// Removes what killed runs left: scratch directories, and the locks of entries that were never made.
    fn sweep(&self) -> Result<(), VmError> {
        for name in self.names()? {
            if name.starts_with(SCRATCH) {
                sweep_scratch(&self.dir.join(name));
            } else if let Some(entry) = name.strip_suffix(".lock")
                && KINDS.iter().any(|kind| entry.starts_with(kind))
            {
                self.sweep_lock(entry)?;
            }
        }
        Ok(())
    }

    fn sweep_lock(&self, entry: &str) -> Result<(), VmError> {
        let orphan = || !self.dir.join(entry).exists();
        // Looked at twice, since the entry may have been made before our lock.
        if orphan()
            && let Some(lock) = Lock::attempt(&self.lock_path(entry), Mode::Exclusive)?
            && orphan()
        {
            lock.remove()?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, VmError> {
        fs::read_dir(&self.dir)
            .and_then(|dir| dir.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect())
            .at("cannot read", &self.dir)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.lock"))
    }
}

impl Entry {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its key in the cache, to be a part of the names of what depends on it.
    pub(crate) fn key(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.rsplit('-').next().unwrap_or_default()
    }
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A short name for exactly these parts.
pub(crate) fn key<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part);
    }
    digits(hash)
}

/// A short name for exactly this file's content.
pub(crate) fn file_key(path: &Path) -> Result<String, VmError> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).at("cannot open", path)?;
    io::copy(&mut file, &mut hash).at("cannot read", path)?;
    Ok(digits(hash))
}

fn sweep_scratch(path: &Path) {
    let Ok(dir) = File::open(path) else { return };
    let age = dir.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    if age.is_some_and(|age| age > NEWBORN) && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // What cannot be removed now, such as a mount of a builder that was just killed, is left for the next run.
        let _ = process::command("rm").args(["-rf", "--one-file-system"]).arg(path).output();
    }
}

fn digits(hash: Sha256) -> String {
    let mut text: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(KEY_DIGITS);
    text
}

fn directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable("MEMCHARGE_VM_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("memcharge-vm")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/memcharge-vm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_parts_apart() {
        assert_eq!(key(["a", "b"]), key(["a", "b"]));
        assert_ne!(key(["a", "b"]), key(["ab", ""]));
        assert_ne!(key(["a", "b"]), key(["b", "a"]));
        assert_eq!(key(["a"]).len(), KEY_DIGITS);
    }

    #[test]
    fn a_files_key_is_its_sha256() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        assert_eq!(file_key(file.path()).unwrap(), "ba7816bf8f01");
    }

    #[test]
    fn the_directory_follows_the_environment() {
        let of = |set: &[(&str, &str)]| {
            directory(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.cache/memcharge-vm".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/memcharge-vm".into()));
        assert_eq!(of(&[("MEMCHARGE_VM_CACHE", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn an_entry_is_made_once_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { dir: dir.path().to_owned() };
        let failed = cache.entry("image-x-1-0-k", &|_| (), |_| Err(VmError::failed("no", "")));
        assert!(failed.is_err() && !dir.path().join("image-x-1-0-k").exists());
        let make = |path: &Path| fs::write(path.join("f"), "1").at("cannot write", path);
        let entry = cache.entry("image-x-1-0-k", &|_| (), make).unwrap();
        assert_eq!(fs::read(entry.file("f")).unwrap(), b"1");
        assert_eq!(entry.key(), "k");
        let again = cache.entry("image-x-1-0-k", &|_| (), |_| Err(VmError::failed("twice", "")));
        assert!(again.is_ok());
    }

    #[test]
    fn what_is_in_use_is_not_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { dir: dir.path().to_owned() };
        let old = cache.entry("image-x-1-0-old", &|_| (), |_| Ok(())).unwrap();
        cache.entry("image-x-1-0-new", &|_| (), |_| Ok(())).unwrap();
        assert!(old.path.is_dir());
        drop(old);
        cache.prune("image-x-1-0-new").unwrap();
        assert!(!dir.path().join("image-x-1-0-old").exists());
        assert!(!dir.path().join("image-x-1-0-old.lock").exists());
    }
}
