//! The mounts: a table of them, and one actor for each, which alone changes it.

mod actor;
mod adopt;
mod attach;
mod cases;
mod change;
mod detach;
mod entry;
mod handle;
mod launch;
mod life;
mod outcome;
mod retarget;
mod state;
mod table;
mod undo;

use std::{fs::File, sync::Arc, time::Duration};

use memcharge_cgroup::{Hierarchy, Ledger};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::timeout,
};

pub(crate) use handle::MountHandle;
pub(crate) use retarget::Wanted;
pub(crate) use state::{MountView, Source, State, changed_keys, fixed_keys};
pub(crate) use table::{Request, Table, TableHandle};

use crate::{
    bus::Publisher,
    error::{DaemonError, Result},
    history::{HistoryHandle, Journal},
    placement::systemd::Systemd,
    targets::TargetsHandle,
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
    /// What the stores hold, and the file that each of them maps.
    pub(crate) ledger: (Ledger, File),
    /// The objects on the bus.
    pub(crate) publisher: Publisher,
    /// The targets.
    pub(crate) targets: TargetsHandle,
    /// The record of arbitrations.
    pub(crate) history: HistoryHandle,
    /// Where they are told.
    pub(crate) journal: Arc<Journal>,
    /// Whether nothing is done to memory, processes or errors.
    pub(crate) dry_run: bool,
    /// The store program.
    pub(crate) store: String,
    /// Becomes true when the daemon is about to exit.
    pub(crate) stopping: watch::Receiver<bool>,
    /// See [`Shared::attach_slots`].
    pub(crate) slots: Semaphore,
}

impl Shared {
    /// As many mounts are made at once as there are places in this.
    pub(crate) fn attach_slots() -> Semaphore {
        Semaphore::new(ATTACH_SLOTS)
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
