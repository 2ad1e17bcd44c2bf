//! What the service manager is told. Without one nothing is said.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    time::Duration,
};

use rustix::{
    fs::{Gid, Uid},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, UCred,
    },
    process::Pid,
};
use sd_notify::NotifyState;

/// The daemon has started.
pub(crate) fn ready() {
    send(NotifyState::Ready);
}

/// The daemon is about to exit.
pub(crate) fn stopping() {
    send(NotifyState::Stopping);
}

/// What `systemctl status` shows.
pub(crate) fn status(text: &str) {
    send(NotifyState::Status(text));
}

/// The daemon is alive.
pub(crate) fn alive() {
    send(NotifyState::Watchdog);
}

/// The store `pid` is alive, though its target is frozen, so that it cannot say so: a restart would not help it. systemd
/// takes this for the store's own word, by the sender's number, which a privileged process may name.
pub(crate) fn frozen_store_is_alive(pid: u32) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
        path => SocketAddrUnix::new(path)?,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let sender = UCred { pid, uid: Uid::ROOT, gid: Gid::ROOT };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmCredentials(sender));
    let flags = SocketFlags::CLOEXEC;
    let from = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let text = [IoSlice::new(b"WATCHDOG=1")];
    rustix::net::sendmsg_addr(&from, &address, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// How often to say [`alive`]; `None`: nobody waits for it.
pub(crate) fn watchdog_period() -> Option<Duration> {
    // Half the time, so that one that comes late is no harm.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager cannot be told how memcharged is: {error}");
    }
}
