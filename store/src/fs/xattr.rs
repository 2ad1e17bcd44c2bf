//! Extended attributes, POSIX ACLs among them (the kernel passes those through as attributes).

use std::{
    ffi::{CStr, OsStr},
    os::fd::AsFd,
};

use rustix::{
    fs::{Mode, XattrFlags},
    io::Errno,
};

use super::{Caller, Fs, c_name, magic_path};
use crate::{case::Case, inodes::InodeFd, keep::Run};

/// The longest value and the longest list of names, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX: usize = 64 << 10;

/// The attribute that holds a file's ACL.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// Attributes that only privileged callers get to see in a list.
const TRUSTED: &[u8] = b"trusted.";

impl Fs {
    /// Sets an attribute; `flags` are setxattr(2)'s.
    pub(crate) fn setxattr(
        &self,
        case: &Case,
        caller: Caller,
        ino: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        self.gate.metadata(&self.backing, case)?;
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let name = c_name(name)?;
        let mut flags = XattrFlags::from_bits_retain(flags as u32);
        if flags.contains(XattrFlags::CREATE) {
            match has_attribute(&inode, &name) {
                // Made by this very request, when a store that was killed ran it.
                Ok(()) if case.run.armed().is_some() => flags.remove(XattrFlags::CREATE),
                Ok(()) => return Err(Errno::EXIST),
                Err(Errno::NODATA) => {}
                Err(e) => return Err(e),
            }
        }
        if name.as_bytes() == ACCESS_ACL && caller.uid != 0 {
            drop_foreign_set_gid(&inode, caller)?;
        }
        case.run.arm(0);
        match &inode {
            InodeFd::Found(fd) => rustix::fs::setxattr(magic_path(fd), name, value, flags),
            fd => rustix::fs::fsetxattr(fd, name, value, flags),
        }
    }

    /// Passes an attribute's value to `with`.
    pub(crate) fn getxattr<T>(
        &self,
        case: &Case,
        ino: u64,
        name: &OsStr,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        self.may_find(case, ino)?;
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let mut buffer = self.buffers.take();
        let length = get_attribute(&inode, &c_name(name)?, &mut buffer[..MAX])?;
        Ok(with(&buffer[..length]))
    }

    /// Passes the names of all attributes, each with a zero byte behind it, to `with`.
    pub(crate) fn listxattr<T>(
        &self,
        case: &Case,
        ino: u64,
        privileged: bool,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        self.may_find(case, ino)?;
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let mut buffer = self.buffers.take();
        let mut length = match &inode {
            InodeFd::Found(fd) => rustix::fs::listxattr(magic_path(fd), &mut buffer[..MAX]),
            fd => rustix::fs::flistxattr(fd, &mut buffer[..MAX]),
        }?;
        if !privileged {
            length = without_trusted(&mut buffer[..length]);
        }
        Ok(with(&buffer[..length]))
    }

    /// Removes an attribute. Never refused at the limit: it gives memory back.
    pub(crate) fn removexattr(&self, run: &Run, ino: u64, name: &OsStr) -> Result<(), Errno> {
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let name = c_name(name)?;
        match has_attribute(&inode, &name) {
            // Removed by this very request, when a store that was killed ran it.
            Err(Errno::NODATA) if run.armed().is_some() => return Ok(()),
            Err(e) => return Err(e),
            Ok(()) => run.arm(0),
        }
        match &inode {
            InodeFd::Found(fd) => rustix::fs::removexattr(magic_path(fd), name.as_c_str()),
            fd => rustix::fs::fremovexattr(fd, name.as_c_str()),
        }
    }
}

/// Reads an attribute: by the descriptor, if it is more than an `O_PATH` one. The way through `/proc` makes entries in the
/// kernel, on the target's bill, and the kernel asks for `security.capability` at the first write to each open file.
fn get_attribute(inode: &InodeFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    match inode {
        InodeFd::Found(fd) => rustix::fs::getxattr(magic_path(fd), name, buffer),
        fd => rustix::fs::fgetxattr(fd, name, buffer),
    }
}

fn has_attribute(inode: &InodeFd<'_>, name: &CStr) -> Result<(), Errno> {
    get_attribute(inode, name, &mut []).map(drop)
}

/// An ACL set by somebody outside of the file's group takes its set-group-id bit away. The request does not tell of
/// supplementary groups, so it goes for them as well.
fn drop_foreign_set_gid(inode: impl AsFd, caller: Caller) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(&inode)?;
    if stat.st_mode & 0o2000 == 0 || stat.st_gid == caller.gid {
        return Ok(());
    }
    rustix::fs::chmod(magic_path(&inode), Mode::from_raw_mode(stat.st_mode & 0o5777))
}

/// Drops the privileged names from a list, in place. Returns its new length.
fn without_trusted(list: &mut [u8]) -> usize {
    let mut kept = 0;
    let mut at = 0;
    while at < list.len() {
        let end = list[at..].iter().position(|b| *b == 0).map_or(list.len(), |zero| at + zero + 1);
        if !list[at..end].starts_with(TRUSTED) {
            list.copy_within(at..end, kept);
            kept += end - at;
        }
        at = end;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_names_are_dropped() {
        let mut list = *b"user.a\0trusted.b\0security.c\0trusted.\0user.trusted.\0";
        let length = without_trusted(&mut list);
        assert_eq!(&list[..length], b"user.a\0security.c\0user.trusted.\0");
        assert_eq!(without_trusted(&mut []), 0);
    }
}
