//! The kernel's names for the files behind inodes, which it maps and reads without asking the store.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuser::BackingId;
use rustix::{
    io::Errno,
    ioctl::{Setter, opcode},
};

use crate::fuse::to_os;

/// `FUSE_DEV_IOC_BACKING_CLOSE` of `linux/fuse.h`.
const BACKING_CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);

/// The FUSE connection, as far as backing ids go.
pub(crate) struct Passthrough(OwnedFd);

impl Passthrough {
    /// The connection behind this descriptor of `/dev/fuse`.
    pub(crate) fn new(device: BorrowedFd<'_>) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(device, 3).map(Self)
    }

    /// Has the kernel name a file. The name lasts until it is closed, also when this process is gone.
    pub(crate) fn open(&self, file: impl AsFd) -> Result<u32, Errno> {
        BackingId::create_raw(&self.0, file).map_err(|e| to_os(&e))
    }

    /// Gives a name up. ENOENT: there is none.
    pub(crate) fn close(&self, id: u32) -> Result<(), Errno> {
        // SAFETY: this request of /dev/fuse takes a pointer to a u32, which the setter passes.
        unsafe { rustix::ioctl::ioctl(&self.0, Setter::<BACKING_CLOSE, u32>::new(id)) }
    }
}
