//! What a new store gets on its standard input: one message, with the descriptors of its mount.

use std::{
    fs,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
};

use memcharge_policy::{
    MountName,
    link::{HANDOVER_FDS, Handover, MAX_MESSAGE, MountRecord},
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::{DaemonError, Result};

/// The two ends of a store's standard input.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Where the daemon writes.
    pub(crate) daemon: OwnedFd,
    /// What the store reads.
    pub(crate) store: OwnedFd,
}

/// Makes the two ends.
pub(crate) fn make_channel() -> Result<Channel> {
    let flags = SocketFlags::CLOEXEC;
    let (daemon, store) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(DaemonError::io("make", "a pair of sockets"))?;
    Ok(Channel { daemon, store })
}

/// The socket that the store of `name` will serve. The daemon can connect from now on.
pub(crate) fn make_listener(name: &MountName) -> Result<UnixListener> {
    let path = MountRecord::socket_path(name);
    remove_socket(name)?;
    // A note for a mount of this name that is long gone.
    remove(MountRecord::stop_path(name))?;
    let listener = UnixListener::bind(&path).map_err(DaemonError::io("listen on", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .map_err(DaemonError::io("protect", path))?;
    Ok(listener)
}

/// Removes the socket of `name`. One that is not there is no error.
pub(crate) fn remove_socket(name: &MountName) -> Result<()> {
    remove(MountRecord::socket_path(name))
}

fn remove(path: String) -> Result<()> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DaemonError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Sends a handover with its descriptors, in the order of [`HANDOVER_FDS`], and the state of the store before.
pub(crate) fn send(
    to: BorrowedFd<'_>,
    handover: &Handover,
    fds: [BorrowedFd<'_>; HANDOVER_FDS.len()],
    state: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let failed = || DaemonError::io::<std::io::Error>("hand over to", "the store");
    let text =
        serde_json::to_vec(handover).map_err(|error| failed()(std::io::Error::other(error.to_string())))?;
    if text.len() > MAX_MESSAGE {
        return Err(failed()(std::io::Error::other("the message is too long")));
    }
    let fds: Vec<_> = fds.into_iter().chain(state).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS.len() + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(to.as_fd(), &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|error| failed()(error.into()))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use memcharge_policy::{
        Sparse,
        link::{Home, StoreLimits},
    };
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    use super::*;

    #[test]
    fn the_message_arrives_with_its_descriptors() {
        let limits = StoreLimits {
            cap: None,
            inodes: None,
            reserve: None,
            sparse: Sparse::Reserve,
            reclaim: true,
            ask: false,
            deadline_usec: 1,
        };
        let channel = make_channel().unwrap();
        let stdin = std::io::stdin();
        let home = Home { leaf: "/t/x".to_owned(), target: "/t".to_owned(), target_id: 7, by_systemd: false };
        send(
            channel.daemon.as_fd(),
            &Handover { limits, slot: 1, home },
            [stdin.as_fd(); HANDOVER_FDS.len()],
            Some(stdin.as_fd()),
        )
        .unwrap();
        drop(channel.daemon);

        let mut text = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut text)];
        let got = rustix::net::recvmsg(&channel.store, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.count()),
            _ => None,
        });
        assert_eq!(fds.sum::<usize>(), HANDOVER_FDS.len() + 1);
        assert_eq!(serde_json::from_slice::<Handover>(&text[..got.bytes]).unwrap().limits, limits);
    }
}
