//! The host's mount namespace. memcharged lives in one of its own, where it can write to little, and where nobody would see a
//! mount. What makes, looks at and ends mounts runs here.

use std::{fs::File, os::fd::AsFd, thread};

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};

use crate::error::{DaemonError, Result};

/// The mount namespace of the service manager: the host's.
pub(crate) const NAMESPACE: &str = "/proc/1/ns/mnt";

/// Its mounts, with their paths there.
pub(crate) const MOUNTS: &str = "/proc/1/mountinfo";

/// Runs `work` in the host's mount namespace, and waits for it: on a thread of its own, since a thread that has entered
/// a mount namespace no longer shares root and working directory with the others.
pub(crate) fn within<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("host-mounts".to_owned());
        let thread = thread.spawn_scoped(scope, || enter().and_then(|()| work()));
        let thread = thread.map_err(DaemonError::io("start", "a thread for the host's mounts"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter() -> Result<()> {
    let failed = || DaemonError::io::<Errno>("enter the host's mount namespace,", NAMESPACE);
    let host = File::open(NAMESPACE).map_err(DaemonError::io("open", NAMESPACE))?;
    // SAFETY: `FS` alone, so the table of descriptors is shared as before.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.map_err(failed())?;
    rustix::thread::move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Mount)).map_err(failed())
}
