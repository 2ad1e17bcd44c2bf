//! Ending a mount. What undoes it is the store's program, in one way, whoever asks for it.

use std::{process::Stdio, time::Duration};

use memcharge_policy::{
    link::MountRecord,
    mountinfo::{MountEntry, find_own, is_hidden},
};
use rustix::{io::Errno, mount::UnmountFlags};
use tokio::{process::Command, time::timeout};

use super::{Shared, blocking};
use crate::{
    attach::{
        holders::{find_binds, find_holders, read_mounts},
        host,
    },
    error::{DaemonError, Result},
    record,
};

/// The store's program needs this long to undo a mount, at most.
const END_LIMIT: Duration = Duration::from_secs(20);

/// As much of what the store's program says is quoted.
const MAX_QUOTE: usize = 400;

/// Takes the mount away from its mount point. Refused while anybody uses it, unless `lazy`: then it is only hidden,
/// and its users get errors once its store has ended.
pub(super) async fn release(shared: &Shared, record: &MountRecord, lazy: bool) -> Result<()> {
    let (name, id, store) = (record.policy.name.to_string(), record.mount_id, shared.store.clone());
    blocking("unmounting", move || host::within(|| release_now(&name, id, &store, lazy))).await
}

fn release_now(name: &str, id: u32, store: &str, lazy: bool) -> Result<()> {
    let busy = |holders| DaemonError::Busy { name: name.to_owned(), holders };
    let mounts = read_mounts()?;
    let Some(own) = find_own(&mounts, id) else { return Ok(()) };
    let place = own.place.as_str();
    if is_hidden(&mounts, own) {
        return Err(busy(format!("another mount on {place}, on top of it")));
    }
    if lazy {
        return unmount(place, UnmountFlags::DETACH).map_err(DaemonError::io("unmount", place));
    }
    if let Some(binds) = find_binds(own, &mounts, store) {
        return Err(busy(binds));
    }
    match unmount(place, UnmountFlags::empty()) {
        Err(Errno::BUSY) => Err(busy(holders_of(own, store))),
        other => other.map_err(DaemonError::io("unmount", place)),
    }
}

fn unmount(place: &str, flags: UnmountFlags) -> Result<(), Errno> {
    match rustix::mount::unmount(place, flags | UnmountFlags::NOFOLLOW) {
        // Not mounted any more.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn holders_of(own: &MountEntry, store: &str) -> String {
    find_holders(own, store).unwrap_or_else(|| "somebody who cannot be found in /proc".to_owned())
}

/// Stops the store and sees to it that nothing of the mount is left.
pub(super) async fn clear(shared: &Shared, record: &MountRecord) -> Result<()> {
    let name = &record.policy.name;
    shared.systemd.stop(&name.unit()).await?;
    memcharge_faults::may_die("unmount.stopped");
    if record::exists(name) {
        run_end(shared, record).await?;
    }
    if record::exists(name) {
        let what = "did not clean up after itself".to_owned();
        return Err(DaemonError::Store { name: name.to_string(), what });
    }
    Ok(())
}

/// Runs what undoes a mount, for a store whose unit is gone.
async fn run_end(shared: &Shared, record: &MountRecord) -> Result<()> {
    let name = &record.policy.name;
    let mut command = Command::new(&shared.store);
    command.arg("end").arg(name.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    // The program takes this for how its unit ended.
    command.env_remove("SERVICE_RESULT").env_remove("NOTIFY_SOCKET");
    let output = timeout(END_LIMIT, command.output()).await;
    let output = output
        .map_err(|_| DaemonError::Late { what: format!("cleaning up after {name}"), limit: END_LIMIT })?;
    let output = output.map_err(DaemonError::io("run", &shared.store))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).chars().take(MAX_QUOTE).collect();
    let what = format!("cannot be cleaned up after ({}): {}", output.status, said.trim());
    Err(DaemonError::Store { name: name.to_string(), what })
}
