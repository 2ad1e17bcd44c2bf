//! The mounts: a table of them, and one actor for each, which alone changes it.

mod actor;
mod adopt;
mod attach;
mod detach;
mod handle;
mod launch;
mod state;
mod table;
mod undo;

use std::time::Duration;

use memcharge_cgroup::Hierarchy;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::timeout,
};

pub(crate) use handle::MountHandle;
#[cfg(test)]
pub(crate) use state::State;
pub(crate) use state::{MountView, Source, changed_keys};
pub(crate) use table::{Request, Table, TableHandle};

use crate::{
    bus::Publisher,
    error::{DaemonError, Result},
    placement::systemd::Systemd,
};

/// As many mounts are made at once: each one reads and starts a program.
const ATTACH_SLOTS: usize = 4;

/// A directory or a mount that does not answer by then (a network file system, a dead store) is given up.
const BLOCKING_LIMIT: Duration = Duration::from_secs(20);

/// What every actor uses.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The service manager.
    pub(crate) systemd: Systemd,
    /// The tree of cgroups.
    pub(crate) hierarchy: Hierarchy,
    /// The objects on the bus.
    pub(crate) publisher: Publisher,
    /// The store program.
    pub(crate) store: String,
    /// Becomes true when the daemon is about to exit.
    pub(crate) stopping: watch::Receiver<bool>,
    slots: Semaphore,
}

impl Shared {
    /// Puts the parts together.
    pub(crate) fn new(
        systemd: Systemd,
        publisher: Publisher,
        store: String,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let slots = Semaphore::new(ATTACH_SLOTS);
        Self { systemd, hierarchy: Hierarchy::system(), publisher, store, stopping, slots }
    }

    /// Returns when the daemon is about to exit.
    async fn stopped(&self) {
        // An error means that the sender is gone: the daemon is exiting too.
        drop(self.stopping.clone().wait_for(|stopping| *stopping).await);
    }
}

/// Runs system calls that may block on a thread of their own, and waits for them within a limit.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match timeout(BLOCKING_LIMIT, spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(DaemonError::io("run", what)(std::io::Error::other(error))),
        Err(_) => Err(DaemonError::Late { what: what.to_owned(), limit: BLOCKING_LIMIT }),
    }
}
