//! Attributes: getattr, setattr, statfs.

use std::os::fd::{AsFd, BorrowedFd};

use memcharge_policy::Sparse;
use rustix::{
    fs::{AtFlags, Gid, Mode, Stat, StatVfs, Timestamps, Uid},
    io::Errno,
};

use super::{Fs, magic_path};
use crate::{case::Case, inodes::InodeFd};

/// What a client wants changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// Permission bits with the set-id and the sticky bits.
    pub(crate) mode: Option<u32>,
    /// Owner.
    pub(crate) uid: Option<u32>,
    /// Group.
    pub(crate) gid: Option<u32>,
    /// Length in bytes.
    pub(crate) size: Option<u64>,
    /// Access and modification time; `UTIME_OMIT` and `UTIME_NOW` as in utimensat(2).
    pub(crate) times: Option<Timestamps>,
}

impl Fs {
    /// Reads an inode's attributes.
    pub(crate) fn getattr(&self, case: &Case, ino: u64) -> Result<Stat, Errno> {
        self.may_find(case, ino)?;
        rustix::fs::fstat(self.inodes.path_fd(&self.backing, ino)?)
    }

    /// Changes an inode's attributes. Growing a file passes the gate.
    pub(crate) fn setattr(&self, case: &Case, ino: u64, change: Change) -> Result<Stat, Errno> {
        let fd = self.inodes.path_fd(&self.backing, ino)?;
        // The owner first: chown clears the set-id bits, which the mode may set again.
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            rustix::fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = change.mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            match &fd {
                InodeFd::Found(fd) => rustix::fs::chmod(magic_path(fd), mode),
                fd => rustix::fs::fchmod(fd, mode),
            }?;
        }
        if let Some(size) = change.size {
            let file = self.inodes.data_fd(&self.backing, ino)?;
            self.resize(case, file.as_fd(), size)?;
        }
        if let Some(times) = change.times {
            set_times(fd.as_fd(), &times)?;
        }
        rustix::fs::fstat(&fd)
    }

    /// Sets a file's length. Under `reserve` all its new pages are allocated first; under `sigbus` those from the
    /// front that are admitted.
    fn resize(&self, case: &Case, file: BorrowedFd<'_>, size: u64) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(file)?;
        let old = stat.st_size as u64;
        if size > old {
            match self.gate.sparse() {
                Sparse::Reserve => self.allocate_growth(file, &stat, size, case)?,
                Sparse::Sigbus => self.allocate_front(case, file, old, size)?,
            }
        }
        rustix::fs::ftruncate(file, size)?;
        if size < old {
            self.gate.tighten(&self.backing);
        }
        Ok(())
    }

    /// What `df` shows: the size is the cap, or without one what is used and what could still be charged; available
    /// is what could be charged now.
    pub(crate) fn statfs(&self) -> Result<StatVfs, Errno> {
        let mut stat = rustix::fs::fstatvfs(self.backing.root())?;
        let status = self.gate.status(&self.backing)?;
        let blocks = |bytes: memcharge_policy::Bytes| bytes.0 / stat.f_bsize;
        let total = self.gate.cap().unwrap_or_else(|| status.used.plus(status.headroom)).max(status.used);
        let (total, used, available) = (blocks(total), blocks(status.used), blocks(status.headroom));
        stat.f_blocks = total;
        stat.f_bfree = total.saturating_sub(used);
        stat.f_bavail = available.min(stat.f_bfree);
        stat.f_files = status.inodes_max;
        stat.f_ffree = status.inodes_max.saturating_sub(status.inodes_used);
        Ok(stat)
    }
}

fn set_times(fd: BorrowedFd<'_>, times: &Timestamps) -> Result<(), Errno> {
    rustix::fs::utimensat(fd, "", times, AtFlags::EMPTY_PATH)
}

/// Clears the set-id bits of a file that is written to by somebody who may not keep them, as the kernel does for its
/// own file systems: set-group-id only if the group may execute.
pub(super) fn clear_set_ids(fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let mut mode = stat.st_mode & 0o7777;
    mode &= !0o4000;
    if mode & 0o010 != 0 {
        mode &= !0o2000;
    }
    if mode == stat.st_mode & 0o7777 {
        return Ok(());
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}
