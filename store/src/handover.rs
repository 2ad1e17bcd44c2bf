//! What memcharged hands to a new store: one message on standard input, with file descriptors.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use memcharge_policy::link::{HANDOVER_FDS, Handover, MAX_MESSAGE};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::StoreError;

/// A handover as it arrived.
pub(crate) struct Received {
    /// What to do.
    pub(crate) handover: Handover,
    /// `/dev/fuse`, with the file system's superblock made and its first request waiting.
    pub(crate) fuse: OwnedFd,
    /// The backing tmpfs' mount.
    pub(crate) backing_mount: OwnedFd,
    /// Its root directory.
    pub(crate) backing_root: OwnedFd,
    /// The listening socket on which memcharged asks.
    pub(crate) socket: OwnedFd,
}

/// Waits for the handover. It comes when this process is in its target's cgroup: nothing that is to be charged there
/// may be allocated before.
pub(crate) fn receive(from: BorrowedFd<'_>) -> Result<Received, StoreError> {
    let refuse = |why: String| StoreError::Handover(why);
    let mut text = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS.len()))];
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
    let [fuse, backing_mount, backing_root, socket]: [OwnedFd; HANDOVER_FDS.len()] =
        fds.try_into().map_err(|fds: Vec<_>| {
            refuse(format!("{} file descriptors, not {}", fds.len(), HANDOVER_FDS.len()))
        })?;
    let handover = serde_json::from_slice(&text[..message.bytes]).map_err(|e| refuse(e.to_string()))?;
    Ok(Received { handover, fuse, backing_mount, backing_root, socket })
}
