//! Names: looking them up, making, linking, renaming and removing them.

use std::{
    ffi::{CStr, OsStr},
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use memcharge_faults::may_die;
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, RenameFlags, Stat, Uid},
    io::Errno,
};

use super::{Entry, Fs, c_name};
use crate::{case::Case, keep::Run};

/// Who asks: new inodes belong to them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// The caller's umask; a default ACL of the directory takes its place.
    pub(crate) umask: u32,
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NewKind<'a> {
    /// A file, a device node, a FIFO or a socket: the mode says which; the number is a device's, as FUSE encodes it.
    Node(u32),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(&'a CStr),
}

/// The process' umask is the caller's while something is made for them: tmpfs itself then applies either the umask
/// or the directory's default ACL, as it does for a local caller.
static UMASK: Mutex<()> = Mutex::new(());

impl Fs {
    /// Finds `name` in the directory `parent`.
    pub(crate) fn lookup(&self, case: &Case, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        self.gate.lookup(&self.backing, case)?;
        let dir = self.inodes.path_fd(&self.backing, parent)?;
        self.entry(dir.as_fd(), &c_name(name)?)
    }

    /// Makes `name` in the directory `parent`. `mode` has the file type, except for directories and links.
    pub(crate) fn make(
        &self,
        case: &Case,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        kind: NewKind<'_>,
    ) -> Result<Entry, Errno> {
        self.admit(case)?;
        let dir = self.inodes.path_fd(&self.backing, parent)?;
        let (dir, name) = (dir.as_fd(), c_name(name)?);
        if !self.is_made(case, dir, &name)? {
            make_inode(dir, &name, mode, kind, caller.umask)?;
            may_die("make.made");
        }
        let made = give_to(dir, &name, caller)
            .inspect(|()| may_die("make.given"))
            .and_then(|()| self.entry(dir, &name));
        made.inspect_err(|_| {
            let directory = matches!(kind, NewKind::Directory);
            let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // Best effort: the reason for the failure is what the caller needs.
            let _ = rustix::fs::unlinkat(dir, name.as_c_str(), flags);
        })
    }

    /// Admits what makes metadata. What a store that was killed may have done already is not refused afterwards.
    fn admit(&self, case: &Case) -> Result<(), Errno> {
        if case.run.armed().is_some() { Ok(()) } else { self.gate.metadata(&self.backing, case) }
    }

    /// Takes a file back that was made and could not be opened: the kernel never learns of it. Returns why.
    pub(crate) fn unmake(&self, parent: u64, name: &OsStr, ino: u64, why: Errno) -> Errno {
        self.forget(ino, 1);
        let dir = self.inodes.path_fd(&self.backing, parent);
        let _ = dir.and_then(|dir| rustix::fs::unlinkat(dir, c_name(name)?, AtFlags::empty()));
        self.gate.tighten(&self.backing);
        why
    }

    /// Whether this very request has made `name` already, when a store that was killed ran it; if not, it may be made
    /// now. The kernel holds the directory's lock for the request, so no other can have made it.
    fn is_made(&self, case: &Case, dir: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
        let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match found {
            Ok(_) if case.run.armed().is_some() => return Ok(true),
            Ok(_) => return Err(Errno::EXIST),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        if case.run.armed().is_some() {
            self.gate.metadata(&self.backing, case)?;
        }
        case.run.arm(0);
        Ok(false)
    }

    /// Reads a symbolic link.
    pub(crate) fn readlink(&self, case: &Case, ino: u64) -> Result<std::ffi::CString, Errno> {
        self.may_find(case, ino)?;
        rustix::fs::readlinkat(self.inodes.path_fd(&self.backing, ino)?, "", Vec::new())
    }

    /// Makes another name for an inode.
    pub(crate) fn link(&self, case: &Case, ino: u64, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        self.admit(case)?;
        let dir = self.inodes.path_fd(&self.backing, parent)?;
        let name = c_name(name)?;
        if !self.is_made(case, dir.as_fd(), &name)? {
            let inode = self.inodes.path_fd(&self.backing, ino)?;
            rustix::fs::linkat(&inode, "", &dir, name.as_c_str(), AtFlags::EMPTY_PATH)?;
            may_die("link.made");
        }
        self.entry(dir.as_fd(), &name).inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&dir, name.as_c_str(), AtFlags::empty());
        })
    }

    /// Removes a name of something that is not a directory. Never refused at the limit: it gives memory back.
    pub(crate) fn unlink(&self, run: &Run, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.remove(run, parent, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, run: &Run, parent: u64, name: &OsStr) -> Result<(), Errno> {
        self.remove(run, parent, name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, run: &Run, parent: u64, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
        let dir = self.inodes.path_fd(&self.backing, parent)?;
        let name = c_name(name)?;
        match rustix::fs::statat(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            // Removed by this very request, when a store that was killed ran it.
            Err(Errno::NOENT) if run.armed().is_some() => {}
            Err(e) => return Err(e),
            Ok(_) => {
                run.arm(0);
                rustix::fs::unlinkat(dir, name, flags)?;
                may_die("remove.removed");
            }
        }
        self.gate.tighten(&self.backing);
        Ok(())
    }

    /// Renames; `flags` are renameat2(2)'s.
    pub(crate) fn rename(
        &self,
        case: &Case,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: u32,
    ) -> Result<(), Errno> {
        self.admit(case)?;
        let from_dir = self.inodes.path_fd(&self.backing, from.0)?;
        let to_dir = self.inodes.path_fd(&self.backing, to.0)?;
        let (from, to) = (c_name(from.1)?, c_name(to.1)?);
        let moves = match rustix::fs::statat(&from_dir, from.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat.st_ino,
            Err(Errno::NOENT) if case.run.armed().is_some() => 0,
            Err(e) => return Err(e),
        };
        // Where another inode has the old name, or none has it, this very request has moved the one that had.
        if case.run.armed().is_none_or(|before| before == moves) {
            if case.run.armed().is_some() {
                self.gate.metadata(&self.backing, case)?;
            }
            case.run.arm(moves);
            let flags = RenameFlags::from_bits_retain(flags);
            rustix::fs::renameat_with(from_dir, from, to_dir, to, flags)?;
            may_die("rename.moved");
        }
        self.gate.tighten(&self.backing);
        Ok(())
    }
}

fn make_inode(
    dir: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    kind: NewKind<'_>,
    umask: u32,
) -> Result<(), Errno> {
    let _held = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
    let permissions = Mode::from_raw_mode(mode & 0o7777);
    match kind {
        NewKind::Node(device) => {
            rustix::fs::mknodat(dir, name, FileType::from_raw_mode(mode), permissions, device_number(device))
        }
        NewKind::Directory => rustix::fs::mkdirat(dir, name, permissions),
        NewKind::Symlink(target) => rustix::fs::symlinkat(target, dir, name),
    }
}

/// A device number from FUSE's encoding (the kernel's `new_encode_dev`).
fn device_number(encoded: u32) -> u64 {
    let major = (encoded & 0xfff00) >> 8;
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
    rustix::fs::makedev(major, minor)
}

/// Gives a new inode, which the store has made as root, to the caller; to the directory's group if that is
/// set-group-id. The kernel has checked already what mode the caller may give it.
fn give_to(dir: BorrowedFd<'_>, name: &CStr, caller: Caller) -> Result<(), Errno> {
    let parent = rustix::fs::fstat(dir)?;
    let made = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let gid = if parent.st_mode & 0o2000 != 0 { made.st_gid } else { caller.gid };
    if (made.st_uid, made.st_gid) == (caller.uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(caller.uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    restore_set_ids(dir, name, &made)
}

/// chown clears the set-id bits of a file.
fn restore_set_ids(dir: BorrowedFd<'_>, name: &CStr, made: &Stat) -> Result<(), Errno> {
    let is_directory = FileType::from_raw_mode(made.st_mode) == FileType::Directory;
    if made.st_mode & 0o6000 == 0 || is_directory {
        return Ok(());
    }
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(made.st_mode & 0o7777), AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_decoded_as_the_kernel_encodes_them() {
        for (major, minor) in [(1, 3), (8, 255), (259, 0), (4095, 0xfffff)] {
            let encoded = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
            assert_eq!(device_number(encoded), rustix::fs::makedev(major, minor));
        }
    }
}
