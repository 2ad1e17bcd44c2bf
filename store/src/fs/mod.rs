//! What each file system operation means on the backing tmpfs. FUSE's types stay in `fuse.rs`; errors are errnos.

mod attr;
mod data;
mod dirs;
mod names;
mod space;
mod xattr;

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use rustix::{fs::Stat, io::Errno};

pub(crate) use attr::Change;
pub(crate) use names::{Caller, NewKind};

use crate::{
    backing::Backing,
    buffers::Buffers,
    case::Case,
    gate::Gate,
    handle::Handle,
    inodes::{Inodes, Opened},
    keep::Run,
    reports::Told,
};

/// The largest request for data that a client may make at once, in bytes. The kernel splits larger ones.
pub(crate) const MAX_READ: usize = 128 << 10;

/// The mount's semantics.
pub(crate) struct Fs {
    backing: Backing,
    gate: Gate,
    inodes: Inodes,
    buffers: Buffers,
    dirs: Mutex<BTreeMap<u64, Arc<dirs::OpenDir>>>,
    next_dir: AtomicU64,
}

/// An inode as the kernel gets to know it.
pub(crate) struct Entry {
    /// Its attributes.
    pub(crate) stat: Stat,
    /// Its generation.
    pub(crate) generation: u32,
}

impl Fs {
    /// Semantics over `backing`, with growth through `gate`, for `threads` serving threads. This is the mount's store
    /// number `generation`.
    pub(crate) fn new(backing: Backing, gate: Gate, inodes: Inodes, threads: usize, generation: u64) -> Self {
        Self {
            backing,
            gate,
            inodes,
            buffers: Buffers::new(threads, MAX_READ),
            dirs: Mutex::default(),
            next_dir: AtomicU64::new(dirs::first_handle(generation)),
        }
    }

    /// The backing tmpfs.
    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The gate.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Ends a request: a refusal is counted and told, and the kernel's ENOMEM is ENOSPC to clients.
    pub(crate) fn close<T>(&self, case: &Case, result: Result<T, Errno>) -> (Result<T, Errno>, Told<'_>) {
        self.gate.close(&self.backing, case, result)
    }

    /// Admits what needs a descriptor of an inode for a moment: one that no client has open is opened for it, which costs
    /// the target.
    fn may_find(&self, case: &Case, ino: u64) -> Result<(), Errno> {
        if self.inodes.is_open(ino) { Ok(()) } else { self.gate.lookup(&self.backing, case) }
    }

    /// Opens a regular file for a client.
    pub(crate) fn open(&self, case: &Case, ino: u64) -> Result<Arc<Opened>, Errno> {
        self.gate.lookup(&self.backing, case)?;
        self.inodes.open(&self.backing, ino, &case.run)
    }

    /// What an earlier store has opened, for an answer that was not given.
    pub(crate) fn opened(&self, ino: u64) -> Result<Arc<Opened>, Errno> {
        self.inodes.reopen(&self.backing, ino)
    }

    /// A client has closed a file.
    pub(crate) fn release(&self, ino: u64, run: &Run) {
        if self.inodes.release(ino, run) {
            self.gate.tighten(&self.backing);
        }
    }

    /// The kernel drops references to an inode.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// Tells the kernel of an inode: reads its attributes and takes a reference.
    fn entry(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Entry, Errno> {
        // Parallel lookups may meet a rename of the same name: both answers must be of one inode.
        loop {
            let stat = rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let handle = Handle::of(parent, name)?;
            if handle.ino() == stat.st_ino {
                self.inodes.remember(handle)?;
                return Ok(Entry { stat, generation: handle.generation() });
            }
        }
    }

    /// An inode that an earlier store has told the kernel of, for an answer that was not given.
    pub(crate) fn known(&self, ino: u64) -> Result<Entry, Errno> {
        let stat = rustix::fs::fstat(self.inodes.path_fd(&self.backing, ino)?)?;
        Ok(Entry { stat, generation: self.inodes.generation(ino)? })
    }
}

/// A name as the system calls want it.
fn c_name(name: &OsStr) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)
}

/// The path that leads to what `fd` has open, for system calls that take no `O_PATH` descriptor.
/// It is only good while `fd` is open, so it takes no descriptor over.
fn magic_path<F: AsFd>(fd: &F) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
