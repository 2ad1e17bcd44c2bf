//! Kernel file handles: they find an inode of the backing tmpfs again without a path, also one without a name.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use rustix::{fs::OFlags, io::Errno};

/// tmpfs' handles have 12 bytes: generation, inode number (low, high).
const BYTES: usize = 12;

/// A handle of an inode of the backing tmpfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    generation: u32,
    ino: u64,
}

#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    words: [u32; BYTES / 4],
}

/// `FILEID_INO32_GEN` of `linux/exportfs.h`, which tmpfs gives to its handles.
const KIND: i32 = 1;

impl Handle {
    /// The handle of `name` in the directory `dir`; with an empty name that of `dir` itself.
    pub(crate) fn of(dir: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let mut raw = RawHandle { bytes: BYTES as u32, kind: 0, words: [0; BYTES / 4] };
        let mut mount_id = 0;
        // SAFETY: `raw` has the layout of `struct file_handle` with room for the bytes that it announces; `name` ends
        // with a zero byte; both outlive the call.
        let result = unsafe {
            libc::name_to_handle_at(
                dir.as_fd().as_raw_fd(),
                name.as_ptr(),
                (&raw mut raw).cast(),
                &mut mount_id,
                libc::AT_EMPTY_PATH,
            )
        };
        if result != 0 {
            return Err(last_errno());
        }
        let [generation, low, high] = raw.words;
        Ok(Self { generation, ino: u64::from(high) << 32 | u64::from(low) })
    }

    /// Opens the inode. `root` is any directory of the file system that was opened for reading.
    pub(crate) fn open(self, root: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let words = [self.generation, self.ino as u32, (self.ino >> 32) as u32];
        let mut raw = RawHandle { bytes: BYTES as u32, kind: KIND, words };
        let flags = (flags | OFlags::CLOEXEC).bits() as i32;
        // SAFETY: `raw` is a complete `struct file_handle` that outlives the call.
        let fd = unsafe { libc::open_by_handle_at(root.as_fd().as_raw_fd(), (&raw mut raw).cast(), flags) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The handle of an inode whose number and generation are known.
    pub(crate) fn new(ino: u64, generation: u32) -> Self {
        Self { generation, ino }
    }

    /// The inode number.
    pub(crate) fn ino(self) -> u64 {
        self.ino
    }

    /// The inode's generation.
    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
