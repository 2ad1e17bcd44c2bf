//! The backing tmpfs: detached, so that no path leads to it, and with a size that this store pins.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use memcharge_policy::{Bytes, PAGE_SIZE};
use rustix::{io::Errno, mount::FsPickFlags};

/// The ballast: one page that is always in use, since tmpfs takes a size of 0 for "unlimited". memcharged puts it in.
pub(crate) const BALLAST: Bytes = Bytes(PAGE_SIZE);

/// The inode of the ballast, which no client sees.
const BALLAST_INODES: u64 = 1;

/// The backing tmpfs.
pub(crate) struct Backing {
    mount: OwnedFd,
    root: OwnedFd,
    ballast: OwnedFd,
}

/// What the backing tmpfs holds, without the ballast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes in files.
    pub(crate) used: Bytes,
    /// Bytes that the size leaves free.
    pub(crate) free: Bytes,
    /// Inodes in use, the root directory included.
    pub(crate) inodes_used: u64,
    /// The inode cap.
    pub(crate) inodes_max: u64,
}

impl Backing {
    /// Takes over the file system by its mount, its root directory and its ballast.
    pub(crate) fn new(mount: OwnedFd, root: OwnedFd, ballast: OwnedFd) -> Self {
        Self { mount, root, ballast }
    }

    /// The numbers of the descriptors in this process, in the order of [`memcharge_policy::link::BACKING_FDS`].
    pub(crate) fn descriptors(&self) -> [i32; 3] {
        [self.mount.as_raw_fd(), self.root.as_raw_fd(), self.ballast.as_raw_fd()]
    }

    /// The root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Reads what is in use now.
    pub(crate) fn usage(&self) -> Result<Usage, Errno> {
        let stat = rustix::fs::fstatfs(&self.root)?;
        let blocks = (stat.f_blocks as u64).saturating_sub(stat.f_bfree as u64);
        let files = stat.f_files as u64;
        Ok(Usage {
            used: Bytes(blocks * PAGE_SIZE).minus(BALLAST),
            free: Bytes(stat.f_bfree as u64 * PAGE_SIZE),
            inodes_used: files.saturating_sub(stat.f_ffree as u64 + BALLAST_INODES),
            inodes_max: files.saturating_sub(BALLAST_INODES),
        })
    }

    /// Sets how much the files may hold. EINVAL: they hold more already.
    pub(crate) fn set_size(&self, bytes: Bytes) -> Result<(), Errno> {
        self.reconfigure("size", bytes.page_ceil().plus(BALLAST).0)
    }

    /// Sets how many inodes there may be. EINVAL: there are more already.
    pub(crate) fn set_inodes(&self, inodes: u64) -> Result<(), Errno> {
        self.reconfigure("nr_inodes", inodes.saturating_add(BALLAST_INODES))
    }

    fn reconfigure(&self, key: &str, value: u64) -> Result<(), Errno> {
        // A context of its own each time: one that has refused a size once refuses everything after that.
        let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let context = rustix::mount::fspick(&self.mount, "", flags)?;
        rustix::mount::fsconfig_set_string(&context, key, decimal(value, &mut [0; 20]))?;
        rustix::mount::fsconfig_reconfigure(&context)
    }
}

/// `number` in decimal digits, without an allocation.
fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &str {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&buffer[at..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
    }
}
