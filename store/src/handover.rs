//! What memcharged hands to a new store: one message on standard input, with file descriptors.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use memcharge_policy::link::{HANDOVER_FDS, Handover, MAX_MESSAGE};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::StoreError;

/// The descriptors of a mount.
pub(crate) struct Descriptors {
    /// `/dev/fuse`, with the file system's superblock made.
    pub(crate) fuse: OwnedFd,
    /// The backing tmpfs' mount.
    pub(crate) backing_mount: OwnedFd,
    /// Its root directory.
    pub(crate) backing_root: OwnedFd,
    /// Its ballast.
    pub(crate) backing_ballast: OwnedFd,
    /// The listening socket on which memcharged asks.
    pub(crate) socket: OwnedFd,
    /// The ledger of all stores, open for reading and writing.
    pub(crate) ledger: OwnedFd,
    /// The host's `/proc`.
    pub(crate) proc: OwnedFd,
}

impl Descriptors {
    /// From a list in the order of [`HANDOVER_FDS`].
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Result<Self, StoreError> {
        let wrong = |fds: Vec<_>| {
            StoreError::Handover(format!("{} file descriptors, not {}", fds.len(), HANDOVER_FDS.len()))
        };
        let [fuse, backing_mount, backing_root, backing_ballast, socket, ledger, proc]: [OwnedFd;
            HANDOVER_FDS.len()] = fds.try_into().map_err(wrong)?;
        Ok(Self { fuse, backing_mount, backing_root, backing_ballast, socket, ledger, proc })
    }

    /// All of them, in the order of [`HANDOVER_FDS`].
    pub(crate) fn all(&self) -> [BorrowedFd<'_>; HANDOVER_FDS.len()] {
        [
            self.fuse.as_fd(),
            self.backing_mount.as_fd(),
            self.backing_root.as_fd(),
            self.backing_ballast.as_fd(),
            self.socket.as_fd(),
            self.ledger.as_fd(),
            self.proc.as_fd(),
        ]
    }
}

/// What memcharged has handed over.
pub(crate) struct Received {
    /// What to do.
    pub(crate) handover: Handover,
    /// With what.
    pub(crate) descriptors: Descriptors,
    /// The state of the store in the mount's old target, where it has had one.
    pub(crate) state: Option<OwnedFd>,
}

/// Waits for the handover. It comes when this process is in its target's cgroup: nothing that is to be charged there
/// may be allocated before.
pub(crate) fn receive(from: BorrowedFd<'_>) -> Result<Received, StoreError> {
    let refuse = |why: String| StoreError::Handover(why);
    let mut text = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS.len() + 1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        from,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|e| refuse(e.to_string()))?;
    let mut fds = Vec::with_capacity(HANDOVER_FDS.len());
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 {
        // A store that was killed before its mount was made: there is nothing that could be served.
        return Err(StoreError::NothingToServe);
    }
    let state = if fds.len() > HANDOVER_FDS.len() { fds.pop() } else { None };
    let descriptors = Descriptors::new(fds)?;
    let handover = serde_json::from_slice(&text[..message.bytes]).map_err(|e| refuse(e.to_string()))?;
    Ok(Received { handover, descriptors, state })
}
