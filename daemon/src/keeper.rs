//! The data of all mounts, held by the daemon as well as by their stores, and by systemd for the next daemon: also a unit
//! that is given up, and loses what systemd keeps for it, loses no data.
//!
//! The connections to the kernel are held only while a store is moved to another target: one that nobody serves any more
//! must end, so that clients get an error instead of waiting for ever.

use std::{
    collections::BTreeMap,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
};

use memcharge_policy::link::{BACKING_FDS, LINE_FDS};
use sd_notify::NotifyState;

use crate::{
    attach::{backing::Backing, line::Line},
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

/// The same, in the order of [`LINE_FDS`].
fn line_names(slot: u32) -> [String; LINE_FDS.len()] {
    ["f", "l", "s"].map(|kind| format!("{kind}{slot}"))
}

/// What was kept of one mount.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Its data.
    pub(crate) backing: Option<Backing>,
    /// What another store would need to go on.
    pub(crate) line: Option<Line>,
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

    /// What was kept of the mount with this place in the ledger: of each, all or nothing.
    pub(crate) fn take(&mut self, slot: u32) -> Held {
        let backing = self.take_whole(kept_names(slot)).map(Backing::from_fds);
        Held { backing, line: self.take_whole(line_names(slot)).map(Line::from_fds) }
    }

    fn take_whole(&mut self, names: [String; 3]) -> Option<[OwnedFd; 3]> {
        match names.map(|name| self.0.remove(&name)) {
            [Some(first), Some(second), Some(third)] => Some([first, second, third]),
            _ => None,
        }
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
    keep_all(&kept_names(slot), backing.all());
}

/// Has systemd keep also the connection of a mount, while it has no store.
pub(crate) fn keep_line(slot: u32, line: &Line) {
    keep_all(&line_names(slot), line.all());
}

fn keep_all(names: &[String; 3], fds: [BorrowedFd<'_>; 3]) {
    for (name, fd) in names.iter().zip(fds) {
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

/// Has systemd forget the connection of a mount: a store has it again, or it is to end.
pub(crate) fn forget_line(slot: u32) {
    line_names(slot).iter().for_each(|name| remove(name));
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
        assert!(Kept(named(2)).take(17).backing.is_none());
        let mut kept = Kept(named(3));
        assert!(kept.take(1).backing.is_none());
        let held = kept.take(17);
        assert!(held.backing.is_some() && held.line.is_none());
        assert!(kept.take(17).backing.is_none());
        let mut kept = Kept(line_names(17).into_iter().map(|name| (name, fd())).collect());
        assert!(kept.take(17).line.is_some());
    }
}
