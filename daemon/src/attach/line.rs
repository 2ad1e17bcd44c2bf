//! What a mount needs beside its data to go on with another store, copied from the store that it has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memcharge_policy::link::LINE_FDS;

/// While somebody holds this the mount is not at its end, and its requests wait for a store.
#[derive(Debug)]
pub(crate) struct Line {
    /// The connection to the kernel.
    pub(crate) connection: OwnedFd,
    /// The socket that the store serves.
    pub(crate) listener: OwnedFd,
    /// What the store has written down.
    pub(crate) state: OwnedFd,
}

impl Line {
    /// From descriptors in the order of [`LINE_FDS`].
    pub(crate) fn from_fds([connection, listener, state]: [OwnedFd; LINE_FDS.len()]) -> Self {
        Self { connection, listener, state }
    }

    /// Other descriptors of the same.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        let [connection, listener, state] = self.all();
        Ok(Self {
            connection: connection.try_clone_to_owned()?,
            listener: listener.try_clone_to_owned()?,
            state: state.try_clone_to_owned()?,
        })
    }

    /// All descriptors, in the order of [`LINE_FDS`].
    pub(crate) fn all(&self) -> [BorrowedFd<'_>; LINE_FDS.len()] {
        [self.connection.as_fd(), self.listener.as_fd(), self.state.as_fd()]
    }
}
