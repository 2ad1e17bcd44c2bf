//! Which inodes the kernel knows, how to find them again, and which are open.
//!
//! A node id is the inode number of the backing tmpfs (its root is 1, as FUSE wants it). The table is a B-tree, not a
//! hash table: it grows by small nodes, so that no insertion allocates more than the admission margin.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fuser::BackingId;
use rustix::{fs::OFlags, io::Errno};

use crate::{backing::Backing, handle::Handle, memory};

/// FUSE's number of the root directory; tmpfs' too.
pub(crate) const ROOT: u64 = 1;

/// The table has eaten a good part of the heap's cushion after so many new nodes; it is renewed then. They were admitted,
/// so there is room.
const CUSHION_NODES: usize = 512;

/// An inode that clients have open.
pub(crate) struct Opened {
    /// Open for reading and writing, whatever the clients may do: the kernel has checked their rights.
    file: OwnedFd,
    /// What the kernel maps and reads from. One for each inode: it refuses an open with another one while the inode
    /// is open.
    pub(crate) backing_id: BackingId,
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file descriptor of an inode, for one operation.
pub(crate) enum InodeFd<'a> {
    /// The root directory.
    Root(BorrowedFd<'a>),
    /// A file that clients have open.
    Opened(Arc<Opened>),
    /// Found by its handle, for this operation only.
    Found(OwnedFd),
}

impl AsFd for InodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(opened) => opened.as_fd(),
            Self::Found(fd) => fd.as_fd(),
        }
    }
}

struct Node {
    handle: Handle,
    /// References that the kernel holds; it returns them by FORGET.
    lookups: u64,
    /// Opens that the kernel has not released.
    opens: u64,
    opened: Option<Arc<Opened>>,
}

/// The table.
#[derive(Default)]
pub(crate) struct Inodes {
    nodes: Mutex<BTreeMap<u64, Node>>,
}

impl Inodes {
    /// Takes one reference to an inode for the kernel. To be called before the reply that tells the kernel of it.
    pub(crate) fn remember(&self, handle: Handle) {
        let mut nodes = self.lock();
        let before = nodes.len();
        let node = nodes.entry(handle.ino()).or_insert(Node { handle, lookups: 0, opens: 0, opened: None });
        node.lookups += 1;
        if nodes.len() > before && nodes.len().is_multiple_of(CUSHION_NODES) {
            memory::renew_cushion();
        }
    }

    /// The kernel returns `count` references.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        let mut nodes = self.lock();
        if let Some(node) = nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 && node.opens == 0 {
                nodes.remove(&ino);
            }
        }
    }

    /// A descriptor of the inode that serves for metadata (`O_PATH`, or better).
    pub(crate) fn path_fd<'a>(&self, backing: &'a Backing, ino: u64) -> Result<InodeFd<'a>, Errno> {
        if ino == ROOT {
            return Ok(InodeFd::Root(backing.root()));
        }
        self.find(backing, ino, OFlags::PATH)
    }

    /// A descriptor of a regular file that serves for data.
    pub(crate) fn data_fd<'a>(&self, backing: &'a Backing, ino: u64) -> Result<InodeFd<'a>, Errno> {
        self.find(backing, ino, OFlags::RDWR)
    }

    /// A descriptor of a directory that serves for reading it, not shared with anybody.
    pub(crate) fn dir_fd(&self, backing: &Backing, ino: u64) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if ino == ROOT {
            return rustix::fs::openat(
                backing.root(),
                ".",
                flags | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            );
        }
        let handle = self.lock().get(&ino).map(|node| node.handle).ok_or(Errno::STALE)?;
        handle.open(backing.root(), flags)
    }

    fn find<'a>(&self, backing: &'a Backing, ino: u64, flags: OFlags) -> Result<InodeFd<'a>, Errno> {
        let handle = match self.lock().get(&ino) {
            Some(Node { opened: Some(opened), .. }) => return Ok(InodeFd::Opened(Arc::clone(opened))),
            Some(node) => node.handle,
            None => return Err(Errno::STALE),
        };
        handle.open(backing.root(), flags).map(InodeFd::Found)
    }

    /// Counts one more open of a regular file, and opens it if it is the first. `register` makes the backing id.
    pub(crate) fn open(
        &self,
        backing: &Backing,
        ino: u64,
        register: impl FnOnce(BorrowedFd<'_>) -> Result<BackingId, Errno>,
    ) -> Result<Arc<Opened>, Errno> {
        // The table stays locked while the file is opened: two first opens must not make two backing ids.
        let mut nodes = self.lock();
        let node = nodes.get_mut(&ino).ok_or(Errno::STALE)?;
        let opened = match &node.opened {
            Some(opened) => Arc::clone(opened),
            None => {
                let file = node.handle.open(backing.root(), OFlags::RDWR)?;
                let backing_id = register(file.as_fd())?;
                Arc::clone(node.opened.insert(Arc::new(Opened { file, backing_id })))
            }
        };
        node.opens += 1;
        Ok(opened)
    }

    /// The kernel releases one open. Returns whether it was the last one of this inode.
    pub(crate) fn release(&self, ino: u64) -> bool {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(&ino) else { return false };
        node.opens = node.opens.saturating_sub(1);
        let last = node.opens == 0;
        // Dropped outside of the lock: closing a file may free all its pages.
        let closed = if last { node.opened.take() } else { None };
        if last && node.lookups == 0 {
            nodes.remove(&ino);
        }
        drop(nodes);
        drop(closed);
        last
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
