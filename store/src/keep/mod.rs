//! What outlives this process: systemd keeps the descriptors of the mount and the memory file of the store's state, and
//! gives them to the store that it starts after this one was killed.

mod slots;
mod state;

use std::{
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::Ordering,
};

use memcharge_policy::link::{HANDOVER_FDS, Handover, Home, STATE_FD, StoreLimits};
use sd_notify::NotifyState;

pub(crate) use self::{
    slots::{Run, Slots},
    state::{Record, State},
};
use crate::{
    error::{StoreError, io},
    handover::Descriptors,
    reports::Counters,
};

/// As many stores in a row may answer no request. After that it is the mount itself that none can serve.
const MAX_UNSERVED: u32 = 5;

/// Takes what systemd kept for this store. `None`: nothing, this is the mount's first one.
pub(crate) fn take() -> Result<Option<(Descriptors, OwnedFd)>, StoreError> {
    let failed = || io::<std::io::Error>("take the descriptors that systemd keeps");
    let mut kept: Vec<(String, OwnedFd)> = sd_notify::listen_fds_with_names()
        .map_err(failed())?
        // SAFETY: systemd has put these descriptors here for this process, and nobody else takes them.
        .map(|(fd, name): (RawFd, String)| (name, unsafe { OwnedFd::from_raw_fd(fd) }))
        .collect();
    if kept.is_empty() {
        return Ok(None);
    }
    let mut find = |name: &str| {
        let at = kept.iter().position(|(kept, _)| kept == name);
        at.map(|at| kept.swap_remove(at).1).ok_or_else(|| StoreError::Kept(name.to_owned()))
    };
    let state = find(STATE_FD)?;
    let mut fds = Vec::with_capacity(HANDOVER_FDS.len());
    for name in HANDOVER_FDS {
        fds.push(find(name)?);
    }
    Ok(Some((Descriptors::new(fds)?, state)))
}

/// What was handed over to the mount's first store, with the limits as they were last.
pub(crate) fn read_handover(state: BorrowedFd<'_>) -> Result<Handover, StoreError> {
    serde_json::from_slice(&State::handover_in(state)?).map_err(|e| StoreError::State(e.to_string()))
}

/// Gives systemd all that the next store needs. To be called before the first request is served: what was answered must
/// not be lost.
pub(crate) fn keep(descriptors: &Descriptors, state: &State) -> Result<(), StoreError> {
    for (name, fd) in HANDOVER_FDS.into_iter().zip(descriptors.all()) {
        keep_one(name, fd)?;
        memcharge_faults::may_die("start.keeping");
    }
    // Last: with it all are there.
    keep_one(STATE_FD, state.file())?;
    memcharge_faults::may_die("start.kept");
    Ok(())
}

fn keep_one(name: &str, fd: BorrowedFd<'_>) -> Result<(), StoreError> {
    // Not polled: an `O_PATH` descriptor cannot be, and a connection whose file system was unmounted while no store was
    // there must still be found by the next one, which then sees that the mount is over.
    let say = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&say, &[fd.as_fd()])
        .map_err(io("have systemd keep the descriptors of the mount"))
}

impl State {
    /// Counts one more store of this mount. An error: the ones before have served nothing, and this one would not either.
    pub(crate) fn begin_generation(&self) -> Result<u64, StoreError> {
        let header = self.header();
        let unserved = header.unserved.load(Ordering::SeqCst);
        if unserved >= MAX_UNSERVED {
            return Err(StoreError::CannotServe(unserved));
        }
        Ok(header.generation.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// This store has all that it needs to serve. Until it has answered a request it is one more that has not.
    pub(crate) fn count_unserved(&self) {
        self.header().unserved.fetch_add(1, Ordering::SeqCst);
    }

    /// This store has agreed with the kernel, which does that once.
    pub(crate) fn set_agreed(&self) {
        self.header().agreed.store(1, Ordering::SeqCst);
    }

    /// Whether a store has.
    pub(crate) fn is_agreed(&self) -> bool {
        self.header().agreed.load(Ordering::SeqCst) != 0
    }

    /// Nothing waits to be served, so this store cannot fail at it.
    pub(crate) fn is_idle(&self) {
        self.header().unserved.store(0, Ordering::SeqCst);
    }

    /// Writes it down for the next store.
    pub(crate) fn write_handover(&self, handover: &Handover) -> Result<(), StoreError> {
        let text = serde_json::to_vec(handover).map_err(|e| StoreError::State(e.to_string()))?;
        self.set_handover(&text)
    }

    /// The store belongs elsewhere from now on.
    pub(crate) fn write_home(&self, home: &Home) -> Result<(), StoreError> {
        self.write_handover(&Handover { home: home.clone(), ..read_handover(self.file())? })
    }

    /// The limits have changed.
    pub(crate) fn write_limits(&self, limits: StoreLimits) -> Result<(), StoreError> {
        self.write_handover(&Handover { limits, ..read_handover(self.file())? })
    }

    /// What is counted for this mount, by all its stores.
    pub(crate) fn counters(&self) -> &Counters {
        &self.header().counters
    }

    /// The last backing id that the kernel gave.
    pub(crate) fn last_backing(&self) -> u32 {
        self.header().last_backing.load(Ordering::SeqCst)
    }

    /// The kernel has given this one.
    pub(crate) fn set_last_backing(&self, id: u32) {
        self.header().last_backing.store(id, Ordering::SeqCst);
    }
}
