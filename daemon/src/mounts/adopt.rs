//! Finding a mount again that an earlier daemon made. Its store goes on meanwhile.

use std::os::fd::OwnedFd;

use memcharge_policy::{MountName, link::MountRecord, mountinfo::find_own};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::{Shared, attach::Attached, detach::clear, retarget::resume};
use crate::{
    attach::{backing::Backing, holders::read_mounts, line::Line},
    error::{DaemonError, Result},
    keeper,
    placement::systemd::UnitState,
    record,
    store_link::{CONNECT_LIMIT, Link},
};

/// What became of a mount that is on record.
#[derive(Debug)]
pub(super) enum Adopted {
    /// It works.
    Active(Box<Attached>),
    /// Its store is gone for good.
    Broken,
    /// It was not mounted, and what was left of it is cleared.
    Cleared,
}

/// Looks at what is left of a mount. `backing`, its data if they were kept, is taken where the mount works.
pub(super) async fn adopt(
    shared: &Shared,
    mut record: MountRecord,
    backing: &mut Option<Backing>,
    line: Option<Line>,
) -> Result<Adopted> {
    let name = record.policy.name.clone();
    if record.moving {
        let resumed = take_back(shared, &record, backing, line).await;
        keeper::forget_line(record.slot);
        match resumed {
            Ok(Some(attached)) => return Ok(Adopted::Active(Box::new(attached))),
            // Its store had not been stopped yet, or there is nothing that another one could go on with.
            Ok(None) => {}
            // From here on it is a mount like others whose store is gone, with its data: what ends it must end it.
            Err(error) => tracing::error!(mount = %name, "mount {name} cannot go on in its target: {error}"),
        }
        record.moving = false;
        record::write(&record)?;
    }
    let mounted = find_own(&read_mounts()?, record.mount_id).is_some();
    let up = shared.systemd.state(&name.unit()).await? == UnitState::Up;
    let used_elsewhere = record.attached && up;
    if !mounted && !up && record.attached && backing.is_some() {
        // A mount that could not be recovered: its data are here.
        return Ok(Adopted::Broken);
    }
    if !mounted && !used_elsewhere {
        // Half made when its daemon ended, or unmounted: there is nothing to keep. A store that still runs after its
        // mount was attached has users elsewhere, through a bind mount.
        clear(shared, &record).await?;
        return Ok(Adopted::Cleared);
    }
    match reach(&record).await {
        Ok(mut link) => {
            let pid = shared.systemd.main_pid(&name.unit()).await?;
            let backing = match backing.take() {
                Some(backing) => Some(backing),
                None => copy_backing(&name, &mut link, pid).await,
            };
            Ok(Adopted::Active(Box::new(Attached { record, pid, link: Some(link), backing })))
        }
        // It runs: it is slow, or frozen, and is asked again.
        Err(_) if up => {
            let pid = shared.systemd.main_pid(&name.unit()).await?;
            Ok(Adopted::Active(Box::new(Attached { record, pid, link: None, backing: backing.take() })))
        }
        Err(_) => Ok(Adopted::Broken),
    }
}

/// Goes back to the target on record with a mount whose daemon was killed while its store was on the way to another one.
/// `None`: it is there, or is lost.
async fn take_back(
    shared: &Shared,
    record: &MountRecord,
    backing: &mut Option<Backing>,
    line: Option<Line>,
) -> Result<Option<Attached>> {
    let unit = record.policy.name.unit();
    let mut line = line;
    if shared.systemd.state(&unit).await? == UnitState::Up {
        let pid = shared.systemd.main_pid(&unit).await?;
        if shared.hierarchy.open_of(Some(pid)).is_ok_and(|own| own.path() == record.leaf) {
            return Ok(None);
        }
        // What was kept is lost where systemd had given up on memcharged meanwhile; the store has it, too.
        if let Ok(mut link) = reach(record).await {
            line = copy_line(&mut link, pid).await.ok().or(line);
            if backing.is_none() {
                *backing = copy_backing(&record.policy.name, &mut link, pid).await;
            }
        }
    }
    let (Some(line), Some(backing)) = (line, backing.as_ref()) else { return Ok(None) };
    tracing::warn!(mount = %record.policy.name, "mount {} goes on where it was: its move was interrupted", record.policy.name);
    resume(shared, record, &line, backing).await.map(Some)
}

/// What another store would need, from the one that serves.
pub(super) async fn copy_line(link: &mut Link, pid: u32) -> Result<Line> {
    copy_fds(pid, link.lifeline().await?).map(Line::from_fds)
}

/// Copies of the data of a mount, from its store.
pub(super) async fn copy_backing(name: &MountName, link: &mut Link, pid: u32) -> Option<Backing> {
    let copied = async { copy_fds(pid, link.descriptors().await?).map(Backing::from_fds) };
    copied
        .await
        .inspect_err(|error| {
            tracing::warn!(mount = %name, "mount {name}: its data are held by its store alone: {error}");
        })
        .ok()
}

/// Copies descriptors of another process.
fn copy_fds(pid: u32, numbers: [i32; 3]) -> Result<[OwnedFd; 3]> {
    let failed = || DaemonError::io::<rustix::io::Errno>("copy the descriptors of", format!("process {pid}"));
    let gone = || failed()(rustix::io::Errno::SRCH);
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    let process = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(failed())?;
    let copy =
        |number| rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).map_err(failed());
    let [first, second, third] = numbers;
    Ok([copy(first)?, copy(second)?, copy(third)?])
}

async fn reach(record: &MountRecord) -> Result<Link> {
    let mut link = Link::connect(&record.policy.name).await?;
    link.status(CONNECT_LIMIT).await?;
    Ok(link)
}
