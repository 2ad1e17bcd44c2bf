//! Which inodes the kernel knows, how to find them again, and which are open.
//!
//! A node id is the inode number of the backing tmpfs (its root is 1, as FUSE wants it). What the kernel was told stands
//! in records that outlive this process. The table that finds them is a B-tree, not a hash table: it grows by small
//! nodes, so that no insertion allocates more than the admission margin.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::SeqCst},
};

use memcharge_faults::may_die;
use rustix::{fs::OFlags, io::Errno};

use crate::{
    backing::Backing,
    handle::Handle,
    keep::{Record, Run, State},
    memory,
    passthrough::Passthrough,
};

/// FUSE's number of the root directory; tmpfs' too.
pub(crate) const ROOT: u64 = 1;

/// The table has eaten a good part of the heap's cushion after so many new nodes; it is renewed then. They were admitted,
/// so there is room.
const CUSHION_NODES: usize = 512;

/// No record.
const NONE: u32 = u32::MAX;

/// An inode that clients have open.
pub(crate) struct Opened {
    /// Open for reading and writing, whatever the clients may do: the kernel has checked their rights.
    file: OwnedFd,
    /// What the kernel maps and reads from. One for each inode: it refuses an open with another one while the inode
    /// is open.
    pub(crate) backing_id: u32,
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
    record: u32,
    /// Of a file that is open; `None` also for one that an earlier store had open, until it is used again.
    opened: Option<Arc<Opened>>,
}

/// The table.
pub(crate) struct Inodes {
    state: &'static State,
    passthrough: Passthrough,
    inner: Mutex<Inner>,
}

struct Inner {
    nodes: BTreeMap<u64, Node>,
    /// The first free record; each one names the next.
    free: u32,
}

impl Inodes {
    /// The table of the inodes in `state`. `closing`: backing ids that the last store was about to close.
    pub(crate) fn take_over(state: &'static State, passthrough: Passthrough, closing: &[u32]) -> Self {
        let mut inner = Inner { nodes: BTreeMap::new(), free: NONE };
        let mut last = state.last_backing();
        for index in (0..state.record_count()).rev() {
            let record = state.record(index);
            let ino = record.ino.load(SeqCst);
            let id = record.backing_id.load(SeqCst);
            last = last.max(id);
            let unused = record.opens.load(SeqCst) == 0;
            if id != 0 && (unused || ino == 0) {
                // It was the last user's, and may be closed already. The kernel counts these up, so it is nobody else's.
                let _ = passthrough.close(id);
                record.backing_id.store(0, SeqCst);
            }
            if ino == 0 || (unused && record.lookups.load(SeqCst) == 0) {
                inner.release(state, index);
            } else {
                inner.nodes.insert(ino, Node { record: index, opened: None });
            }
        }
        for id in closing {
            let _ = passthrough.close(*id);
        }
        // One that was made and not written down any more is the next one of the kernel's count. That it was given is
        // written down before it is closed: the one after it is the next to be lost.
        state.set_last_backing(last.wrapping_add(1));
        if passthrough.close(last.wrapping_add(1)).is_err() {
            state.set_last_backing(last);
        }
        Self { state, passthrough, inner: Mutex::new(inner) }
    }

    /// Takes one reference to an inode for the kernel. To be called before the reply that tells the kernel of it.
    pub(crate) fn remember(&self, handle: Handle) -> Result<(), Errno> {
        let mut inner = self.lock();
        if let Some(node) = inner.nodes.get(&handle.ino()) {
            self.record(node).lookups.fetch_add(1, SeqCst);
            return Ok(());
        }
        let index = inner.take_free(self.state)?;
        let record = self.state.record(index);
        record.generation.store(handle.generation(), SeqCst);
        record.lookups.store(1, SeqCst);
        record.opens.store(0, SeqCst);
        record.backing_id.store(0, SeqCst);
        // Last: with its number a record is valid.
        record.ino.store(handle.ino(), SeqCst);
        inner.nodes.insert(handle.ino(), Node { record: index, opened: None });
        if inner.nodes.len().is_multiple_of(CUSHION_NODES) {
            memory::renew_cushion();
        }
        Ok(())
    }

    /// The kernel returns `count` references.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        let mut inner = self.lock();
        let Entry::Occupied(node) = inner.nodes.entry(ino) else { return };
        let record = self.state.record(node.get().record);
        let left = record.lookups.load(SeqCst).saturating_sub(count);
        record.lookups.store(left, SeqCst);
        if left > 0 {
            return;
        }
        // The kernel holds an inode until its last release is answered. An open that is left now is one whose client died
        // while the answer was on its way from one store to the next.
        let id = record.backing_id.load(SeqCst);
        let Node { record: index, opened } = node.remove();
        inner.release(self.state, index);
        drop(inner);
        drop(opened);
        if id != 0 {
            let _ = self.passthrough.close(id);
        }
    }

    /// Whether there is a descriptor of the inode.
    pub(crate) fn is_open(&self, ino: u64) -> bool {
        ino == ROOT || self.lock().nodes.get(&ino).is_some_and(|node| node.opened.is_some())
    }

    /// The inode's generation.
    pub(crate) fn generation(&self, ino: u64) -> Result<u32, Errno> {
        self.handle(ino).map(Handle::generation)
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
        self.handle(ino)?.open(backing.root(), flags)
    }

    fn handle(&self, ino: u64) -> Result<Handle, Errno> {
        let inner = self.lock();
        let node = inner.nodes.get(&ino).ok_or(Errno::STALE)?;
        Ok(Handle::new(ino, self.record(node).generation.load(SeqCst)))
    }

    fn find<'a>(&self, backing: &'a Backing, ino: u64, flags: OFlags) -> Result<InodeFd<'a>, Errno> {
        let mut inner = self.lock();
        let node = inner.nodes.get_mut(&ino).ok_or(Errno::STALE)?;
        let record = self.record(node);
        if record.backing_id.load(SeqCst) != 0 {
            return self.opened(backing, ino, node).map(InodeFd::Opened);
        }
        let handle = Handle::new(ino, record.generation.load(SeqCst));
        drop(inner);
        handle.open(backing.root(), flags).map(InodeFd::Found)
    }

    /// Counts one more open of a regular file, and opens it if it is the first. The request is done with this.
    pub(crate) fn open(&self, backing: &Backing, ino: u64, run: &Run) -> Result<Arc<Opened>, Errno> {
        // The table stays locked while the file is opened: two first opens must not make two backing ids.
        let mut inner = self.lock();
        let node = inner.nodes.get_mut(&ino).ok_or(Errno::STALE)?;
        let opened = self.opened(backing, ino, node)?;
        let record = self.record(node);
        let opens = record.opens.load(SeqCst);
        run.count(node.record, opens);
        may_die("open.counting");
        record.opens.store(opens + 1, SeqCst);
        may_die("open.counted");
        run.finish(Ok(ino));
        Ok(opened)
    }

    /// What an open that is counted already answers.
    pub(crate) fn reopen(&self, backing: &Backing, ino: u64) -> Result<Arc<Opened>, Errno> {
        let mut inner = self.lock();
        self.opened(backing, ino, inner.nodes.get_mut(&ino).ok_or(Errno::STALE)?)
    }

    /// The open file of a node; one that an earlier store had open is opened again, under the same backing id.
    fn opened(&self, backing: &Backing, ino: u64, node: &mut Node) -> Result<Arc<Opened>, Errno> {
        if let Some(opened) = &node.opened {
            return Ok(Arc::clone(opened));
        }
        let record = self.state.record(node.record);
        let handle = Handle::new(ino, record.generation.load(SeqCst));
        let file = handle.open(backing.root(), OFlags::RDWR)?;
        let mut backing_id = record.backing_id.load(SeqCst);
        if backing_id == 0 {
            backing_id = self.passthrough.open(&file)?;
            may_die("open.named");
            record.backing_id.store(backing_id, SeqCst);
            self.state.set_last_backing(backing_id);
        }
        Ok(Arc::clone(node.opened.insert(Arc::new(Opened { file, backing_id }))))
    }

    /// The kernel releases one open; the request is done with this. Returns whether it was the last one of this inode.
    pub(crate) fn release(&self, ino: u64, run: &Run) -> bool {
        let mut inner = self.lock();
        let Some(node) = inner.nodes.get_mut(&ino) else { return false };
        let (index, record) = (node.record, self.state.record(node.record));
        let opens = record.opens.load(SeqCst);
        let last = opens == 1;
        let backing_id = if last { record.backing_id.load(SeqCst) } else { 0 };
        run.closing(backing_id);
        run.count(index, opens);
        may_die("release.counting");
        record.opens.store(opens.saturating_sub(1), SeqCst);
        may_die("release.counted");
        run.finish(Ok(0));
        // Dropped outside of the lock: closing a file may free all its pages.
        let closed = if last { node.opened.take() } else { None };
        if last {
            record.backing_id.store(0, SeqCst);
            if record.lookups.load(SeqCst) == 0 {
                inner.nodes.remove(&ino);
                inner.release(self.state, index);
            }
        }
        drop(inner);
        drop(closed);
        if backing_id != 0 {
            may_die("release.closing");
            let _ = self.passthrough.close(backing_id);
            run.closing(0);
        }
        last
    }

    fn record(&self, node: &Node) -> &'static Record {
        self.state.record(node.record)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes a free record, or makes more of them.
    fn take_free(&mut self, state: &State) -> Result<u32, Errno> {
        if self.free == NONE {
            let (first, end) = state.more_records()?;
            (first..end).rev().for_each(|index| self.release(state, index));
        }
        let index = self.free;
        self.free = state.record(index).next.load(SeqCst);
        Ok(index)
    }

    /// A record is free again.
    fn release(&mut self, state: &State, index: u32) {
        let record = state.record(index);
        record.ino.store(0, SeqCst);
        record.next.store(self.free, SeqCst);
        self.free = index;
    }
}
