//! Extended attributes, POSIX ACLs among them (the kernel passes those through as attributes).

use std::{
    ffi::OsStr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
};

use rustix::{
    fs::{Mode, XattrFlags},
    io::Errno,
};

use super::{Caller, Fs, c_name, magic_path};

/// The longest value and the longest list of names, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX: usize = 64 << 10;

/// The attribute that holds a file's ACL.
const ACCESS_ACL: &str = "system.posix_acl_access";

/// Attributes that only privileged callers get to see in a list.
const TRUSTED: &[u8] = b"trusted.";

impl Fs {
    /// Sets an attribute; `flags` are setxattr(2)'s.
    pub(crate) fn setxattr(
        &self,
        caller: Caller,
        ino: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        self.gate.metadata()?;
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        if name == ACCESS_ACL && caller.uid != 0 {
            drop_foreign_set_gid(&inode, caller)?;
        }
        let flags = XattrFlags::from_bits_retain(flags as u32);
        rustix::fs::setxattr(magic_path(&inode), c_name(name)?, value, flags)
            .map_err(|e| self.out_of_memory(e))
    }

    /// Passes an attribute's value to `with`.
    pub(crate) fn getxattr<T>(
        &self,
        ino: u64,
        name: &OsStr,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let mut buffer = self.buffers.take();
        let length = rustix::fs::getxattr(magic_path(&inode), c_name(name)?, &mut buffer[..MAX])?;
        Ok(with(&buffer[..length]))
    }

    /// Passes the names of all attributes, each with a zero byte behind it, to `with`.
    pub(crate) fn listxattr<T>(
        &self,
        ino: u64,
        privileged: bool,
        with: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Errno> {
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        let mut buffer = self.buffers.take();
        let mut length = rustix::fs::listxattr(magic_path(&inode), &mut buffer[..MAX])?;
        if !privileged {
            length = without_trusted(&mut buffer[..length]);
        }
        Ok(with(&buffer[..length]))
    }

    /// Removes an attribute.
    pub(crate) fn removexattr(&self, ino: u64, name: &OsStr) -> Result<(), Errno> {
        let inode = self.inodes.path_fd(&self.backing, ino)?;
        rustix::fs::removexattr(magic_path(&inode), OsStr::from_bytes(c_name(name)?.as_bytes()))
    }
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
