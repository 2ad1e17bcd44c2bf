//! What is agreed with the kernel before the first request.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use fuser::{InitFlags, KernelConfig};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// What must be negotiated, and since when the kernel has it.
const NEEDED: [(InitFlags, &str); 2] =
    [(InitFlags::FUSE_PASSTHROUGH, "passthrough"), (InitFlags::FUSE_HAS_RESEND, "resending of requests")];

/// What is negotiated beside, where the kernel has it.
///
/// Not FUSE_ASYNC_DIO: the kernel would send the pieces of one asynchronous write at once and without the inode's lock,
/// and turn a short count into EIO.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_INIT_EXT,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// Asks for all of it. An error names what a kernel that is too old lacks.
pub(super) fn ask_for(config: &mut KernelConfig, max_write: u32) -> io::Result<()> {
    for (flag, what) in NEEDED {
        config.add_capabilities(flag).map_err(|_| io::Error::new(io::ErrorKind::Unsupported, what))?;
    }
    for flag in WANTED {
        // Absent ones are told apart later, by the requests that never come.
        let _ = config.add_capabilities(flag);
    }
    let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // One level: tmpfs below. An overlay may still be stacked on the mount.
    config.set_max_stack_depth(1).map_err(refused)?;
    config.set_max_write(max_write).map_err(refused)?;
    Ok(())
}

/// Has the kernel give out again what an earlier store has read and not answered. To be called before the first request
/// is read: what is read by then would be run twice.
pub(crate) fn ask_again(connection: BorrowedFd<'_>) -> io::Result<()> {
    /// `FUSE_NOTIFY_RESEND` of `linux/fuse.h`.
    const RESEND: u32 = 7;
    // `struct fuse_out_header`: length, kind of notice, and no request that it answers.
    let mut notice = [0; 16];
    notice[..4].copy_from_slice(&16u32.to_ne_bytes());
    notice[4..8].copy_from_slice(&RESEND.to_ne_bytes());
    match rustix::io::write(connection, &notice)? {
        16 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// What the kernel says to a new server (`FUSE_INIT`), once more, for one that goes on where another one was: the kernel
/// says it once for each connection, and fuser waits for it. The answer goes nowhere.
pub(crate) fn request_again() -> io::Result<(OwnedFd, OwnedFd)> {
    /// `FUSE_INIT`, and the version of the protocol that fuser is given to understand.
    const INIT: u32 = 26;
    const VERSION: [u32; 2] = [7, 40];
    let wanted =
        NEEDED.iter().map(|(flag, _)| *flag).chain(WANTED).fold(InitFlags::empty(), |all, one| all | one);
    // `struct fuse_in_header`: length, kind, number; then `struct fuse_init_in`: version, readahead, flags.
    let mut request = [0u8; 104];
    let mut put = |at: usize, value: u32| request[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(0, 104);
    put(4, INIT);
    put(8, 1);
    put(40, VERSION[0]);
    put(44, VERSION[1]);
    put(52, wanted.bits() as u32);
    put(56, (wanted.bits() >> 32) as u32);
    let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::SEQPACKET);
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    rustix::io::write(&ours, &request)?;
    Ok((ours, theirs))
}
