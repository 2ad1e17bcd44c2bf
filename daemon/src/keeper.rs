//! The data of all mounts, held by the daemon as well as by their stores, and by systemd for the next daemon: also a unit
//! that is given up, and loses what systemd keeps for it, loses no data.
//!
//! Only the data are held, not the connections to the kernel: a connection that nobody serves any more must end, so that
//! clients get an error instead of waiting for ever.

use std::{
    collections::BTreeMap,
    os::fd::{FromRawFd, OwnedFd},
};

use memcharge_policy::link::BACKING_FDS;
use sd_notify::NotifyState;

use crate::{
    attach::backing::Backing,
    error::{DaemonError, Result},
};

/// What systemd has kept for this daemon and no mount has taken yet, by its name there.
#[derive(Debug, Default)]
pub(crate) struct Kept(BTreeMap<String, OwnedFd>);

/// What the descriptors of a mount are called in systemd's store, in the order of [`BACKING_FDS`]: short, since the names
/// of all mounts together come in one variable of the environment. A mount has its place in the ledger for itself.
fn kept_names(slot: u32) -> [String; BACKING_FDS.len()] {
    ["m", "r", "b"].map(|kind| format!("{kind}{slot}"))
}

impl Kept {
    /// Takes what systemd has kept. To be called once, first of all.
    pub(crate) fn take_all() -> Result<Self> {
        let kept = sd_notify::listen_fds_with_names()
            .map_err(DaemonError::io("take", "the descriptors that systemd keeps"))?
            // SAFETY: systemd has put these descriptors here for this process, and nobody else takes them.
            .map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }));
        Ok(Self(kept.collect()))
    }

    /// The data of the mount with this place in the ledger, if they were kept: all of it or nothing.
    pub(crate) fn take(&mut self, slot: u32) -> Option<Backing> {
        let [Some(mount), Some(root), Some(ballast)] = kept_names(slot).map(|name| self.0.remove(&name))
        else {
            return None;
        };
        Some(Backing::from_fds([mount, root, ballast]))
    }

    /// Has systemd forget what was kept for mounts that are gone.
    pub(crate) fn forget_rest(self) {
        for (name, fd) in self.0 {
            drop(fd);
            remove(&name);
        }
    }
}

/// Has systemd keep the data of a mount for the next daemon. What is kept already is kept once.
pub(crate) fn keep(slot: u32, backing: &Backing) {
    for (name, fd) in kept_names(slot).iter().zip(backing.all()) {
        // None of them can be polled, or has anything to say.
        let say = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
        if let Err(error) = sd_notify::notify_with_fds(&say, &[fd]) {
            tracing::warn!("the data of a mount are not kept by systemd: {error}");
        }
    }
}

/// Has systemd forget the data of a mount that is gone: as long as anybody holds them, their memory is not free.
pub(crate) fn forget(slot: u32) {
    kept_names(slot).iter().for_each(|name| remove(name));
}

fn remove(name: &str) {
    if let Err(error) =
        sd_notify::notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::FdName(name)])
    {
        tracing::warn!("systemd cannot be told to forget {name}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_mount_are_taken_whole_and_once() {
        let fd = || OwnedFd::from(tempfile::tempfile().unwrap());
        let named = |count: usize| kept_names(17).into_iter().take(count).map(|name| (name, fd())).collect();
        assert!(Kept(named(2)).take(17).is_none());
        let mut kept = Kept(named(3));
        assert!(kept.take(1).is_none());
        assert!(kept.take(17).is_some());
        assert!(kept.take(17).is_none());
    }
}
