//! Serving: from the handover to the end of the mount.

use std::{io, os::fd::AsFd, sync::Arc};

use fuser::{Config, Session, SessionACL};
use memcharge_cgroup::{Hierarchy, Sampler};
use memcharge_policy::{MountName, link::StoreLimits};
use rustix::fs::OFlags;

use crate::{
    backing::Backing,
    control,
    error::{StoreError, io as io_error},
    fs::Fs,
    fuse::Adapter,
    gate::Gate,
    handover::{self, Received},
    memory,
    reclaim::Reclaimer,
};

/// The largest write, in bytes; the kernel splits larger ones. Each serving thread has a buffer of this size on the
/// target's bill. Larger requests gain little: 1 MiB wins about 5 % on large writes.
const MAX_WRITE: u32 = 512 << 10;

/// Serving threads. Two keep a client busy; a third lets a request that waits leave others alone. More only cost
/// memory and wake-ups.
const THREADS: (usize, usize) = (2, 3);

/// The stack of the thread that answers memcharged. JSON in, JSON out.
const CONTROL_STACK: usize = 128 << 10;

/// Serves the mount `name` until its file system is unmounted everywhere, or the process is told to end.
pub(crate) fn serve(name: &MountName) -> Result<(), StoreError> {
    memory::settle()?;
    let Received { handover, fuse, backing_mount, backing_root, socket } =
        handover::receive(rustix::stdio::stdin().as_fd())?;
    memory::lock_present()?;
    let backing = Backing::new(backing_mount, backing_root)?;
    let gate = make_gate(handover.limits)?;
    let threads =
        std::thread::available_parallelism().map_or(THREADS.0, usize::from).clamp(THREADS.0, THREADS.1);
    let fs = Arc::new(Fs::new(backing, gate, threads));

    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    let adapter = Adapter::new(Arc::clone(&fs), MAX_WRITE);
    let session = Session::from_fd(adapter, fuse, SessionACL::All, config).map_err(negotiation)?;
    memory::lock_future(MAX_WRITE as usize)?;
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(CONTROL_STACK)
        .spawn(move || control::serve(socket, &fs))
        .map_err(io_error("start the control thread"))?;
    sd_notify::notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(&format!("serving the mount {name}")),
    ])
    .map_err(io_error("notify the service manager"))?;
    session.run().map_err(io_error("serve requests"))
}

/// A gate for the cgroup that this process is in. The target is the one above it.
fn make_gate(limits: StoreLimits) -> Result<Gate, StoreError> {
    let hierarchy = Hierarchy::system();
    let own = hierarchy.open_of(None)?;
    let sampler = Sampler::open(&hierarchy, own.path())?;
    let target = own.path().rsplit_once('/').map_or("/", |(parent, _)| parent);
    let reclaimer = match limits.reclaim {
        true => {
            let file = hierarchy.open(target)?.open_file("memory.reclaim", OFlags::WRONLY)?;
            Some(Reclaimer::start(file)?)
        }
        false => None,
    };
    Ok(Gate::new(limits, sampler, reclaimer)?)
}

fn negotiation(e: io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::Unsupported => StoreError::KernelTooOld("passthrough or no resending of requests"),
        _ => io_error("negotiate with the kernel's FUSE")(e),
    }
}
