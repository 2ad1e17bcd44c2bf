//! Reading directories.
//!
//! Each opened directory keeps a descriptor of its own, since tmpfs remembers there where a directory ended when it
//! was opened: without that, a reader that renames what it reads would never come to an end.

use std::{
    ffi::OsStr,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use rustix::{
    fs::{FileType, RawDir, SeekFrom},
    io::Errno,
};

use super::Fs;
use crate::{case::Case, memory};

/// What is read from the backing at once, in bytes.
const BATCH: usize = 4096;

/// A directory that a client has open.
pub(super) struct OpenDir {
    /// Locked while it is read: the position belongs to the description.
    fd: Mutex<OwnedFd>,
}

/// So many open directories keep a descriptor: each costs the target, and a client can open any number. What is opened
/// beyond is read through a descriptor that is made for each reading.
const MAX_OPEN: usize = 1024;

/// So many entries of the table fit into the heap's cushion together with what else uses it.
const CUSHION_DIRS: usize = 128;

/// The handle of a directory without a descriptor.
const NO_HANDLE: u64 = 0;

/// The first handle of the mount's store number `generation`. A handle of an earlier store names no directory of this
/// one: it is read as one without a descriptor.
pub(super) fn first_handle(generation: u64) -> u64 {
    (generation << 32) + 1
}

impl Fs {
    /// Opens a directory. Returns its handle.
    pub(crate) fn opendir(&self, case: &Case, ino: u64) -> Result<u64, Errno> {
        self.gate.lookup(&self.backing, case)?;
        let mut dirs = self.open_dirs();
        if dirs.len() >= MAX_OPEN {
            return Ok(NO_HANDLE);
        }
        let fd = self.inodes.dir_fd(&self.backing, ino)?;
        if dirs.len().is_multiple_of(CUSHION_DIRS) {
            memory::renew_cushion();
        }
        let handle = self.next_dir.fetch_add(1, Ordering::Relaxed);
        dirs.insert(handle, Arc::new(OpenDir { fd: Mutex::new(fd) }));
        Ok(handle)
    }

    /// Passes entries to `add` (inode, cookie of the next entry, type, name) from the cookie `offset` on, until `add`
    /// returns `true` (full) or the directory ends.
    pub(crate) fn readdir(
        &self,
        case: &Case,
        ino: u64,
        handle: u64,
        offset: u64,
        mut add: impl FnMut(u64, u64, FileType, &OsStr) -> bool,
    ) -> Result<(), Errno> {
        let known = self.open_dirs().get(&handle).map(Arc::clone);
        let dir = match known {
            Some(dir) => dir,
            None => {
                self.may_find(case, ino)?;
                Arc::new(OpenDir { fd: Mutex::new(self.inodes.dir_fd(&self.backing, ino)?) })
            }
        };
        let fd = dir.fd.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&*fd, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); BATCH];
        let mut entries = RawDir::new(&*fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if add(entry.ino(), entry.next_entry_cookie(), entry.file_type(), name) {
                break;
            }
        }
        Ok(())
    }

    /// A client has closed a directory.
    pub(crate) fn releasedir(&self, handle: u64) {
        let closed = self.open_dirs().remove(&handle);
        drop(closed);
    }

    fn open_dirs(&self) -> MutexGuard<'_, std::collections::BTreeMap<u64, Arc<OpenDir>>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
