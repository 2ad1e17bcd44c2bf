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
    sync::{Arc, Mutex},
};

use fuser::BackingId;
use rustix::{fs::Stat, io::Errno};

pub(crate) use attr::Change;
pub(crate) use names::{Caller, NewKind};

use crate::{
    backing::Backing,
    buffers::Buffers,
    gate::Gate,
    handle::Handle,
    inodes::{Inodes, Opened},
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
}

/// An inode as the kernel gets to know it.
pub(crate) struct Entry {
    /// Its attributes.
    pub(crate) stat: Stat,
    /// Its generation.
    pub(crate) generation: u32,
}

impl Fs {
    /// Semantics over `backing`, with growth through `gate`, for `threads` serving threads.
    pub(crate) fn new(backing: Backing, gate: Gate, threads: usize) -> Self {
        Self {
            backing,
            gate,
            inodes: Inodes::default(),
            buffers: Buffers::new(threads, MAX_READ),
            dirs: Mutex::default(),
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

    /// Opens a regular file for a client.
    pub(crate) fn open(
        &self,
        ino: u64,
        register: impl FnOnce(BorrowedFd<'_>) -> Result<BackingId, Errno>,
    ) -> Result<Arc<Opened>, Errno> {
        self.gate.lookup()?;
        self.inodes.open(&self.backing, ino, register).map_err(|e| self.out_of_memory(e))
    }

    /// A client has closed a file.
    pub(crate) fn release(&self, ino: u64) {
        if self.inodes.release(ino) {
            self.gate.tighten(&self.backing);
        }
    }

    /// The kernel drops references to an inode.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// The kernel's ENOMEM for a charge that the target's limit refuses (nobody is killed for a process that the OOM
    /// killer spares) is ENOSPC to clients, and counts as a refusal.
    fn out_of_memory(&self, e: Errno) -> Errno {
        match e {
            Errno::NOMEM | Errno::NOSPC => {
                self.gate.count_denial();
                Errno::NOSPC
            }
            e => e,
        }
    }

    /// Tells the kernel of an inode: reads its attributes and takes a reference.
    fn entry(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Entry, Errno> {
        // Parallel lookups may meet a rename of the same name: both answers must be of one inode.
        loop {
            let stat = rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let handle = Handle::of(parent, name)?;
            if handle.ino() == stat.st_ino {
                self.inodes.remember(handle);
                return Ok(Entry { stat, generation: handle.generation() });
            }
        }
    }
}

/// A name as the system calls want it.
fn c_name(name: &OsStr) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)
}

/// The path that leads to what `fd` has open, for system calls that take no `O_PATH` descriptor.
fn magic_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
