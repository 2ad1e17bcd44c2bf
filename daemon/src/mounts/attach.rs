//! Making a mount, step by step. Nothing is visible before the last step, and a failed attach leaves nothing (R3).

use std::os::fd::{AsFd, OwnedFd};

use memcharge_policy::{
    Bytes, KernelVersion, MIN_KERNEL, MountName, MountPolicy, Target,
    link::{Handover, MountRecord, StoreLimits},
    mountinfo::{is_within, own_above, topmost},
};

use super::{
    Shared, blocking,
    detach::release,
    launch::{Launched, Parts, launch},
    undo::Undo,
};
use crate::{
    attach::{
        backing::make_backing,
        fuse::{self, make_fuse},
        holders::read_mounts,
        point::{MadePoint, Point},
    },
    error::{DaemonError, Result},
    placement::{
        handover::make_listener,
        systemd::UnitState,
        target::{Site, find_path, is_raw, leaf_path, open_site, resolve_cap},
    },
    record,
    store_link::Link,
};

/// A mount that works.
#[derive(Debug)]
pub(super) struct Attached {
    /// What was written down about it.
    pub(super) record: MountRecord,
    /// Its store's process.
    pub(super) pid: u32,
    /// The connection to its store.
    pub(super) link: Link,
}

/// Makes a mount. When that fails, or the daemon is about to exit, everything is undone.
pub(super) async fn attach(shared: &Shared, policy: &MountPolicy, fragment: &str) -> Result<Attached> {
    let _slot = shared.slots.acquire().await.map_err(|_| DaemonError::Stopping)?;
    let mut undo = Undo::default();
    let attached = tokio::select! {
        attached = make(shared, policy, fragment, &mut undo) => attached,
        () = shared.stopped() => Err(DaemonError::Stopping),
    };
    match attached {
        Ok(_) => undo.made.keep(),
        Err(_) => undo.roll_back(shared).await,
    }
    attached
}

async fn make(shared: &Shared, policy: &MountPolicy, fragment: &str, undo: &mut Undo) -> Result<Attached> {
    let name = &policy.name;
    check_kernel()?;
    check_name(shared, name).await?;
    let point = find_point(&policy.place).await?;
    let site = find_site(shared, &policy.target, undo).await?;
    let cap = resolve_cap(policy.size, &site.sample)?;
    let fuse = make_fuse(policy)?;
    let mut record = MountRecord {
        policy: policy.clone(),
        cap,
        mount_id: fuse::mount_id(fuse.mount.as_fd())?,
        attached: false,
        mounted_on: point.path.clone(),
        made_directories: made_directories(&point, record::read_all()?),
        leaf: leaf_path(name, &policy.target, site.cgroup.path()),
        made_leaf: is_raw(&policy.target),
        target_path: site.cgroup.path().to_owned(),
        target_id: site.cgroup.id(),
        fragment: fragment.to_owned(),
    };
    undo.record = Some(name.clone());
    record::write(&record)?;
    let mut directory = blocking("making the mount point", move || point.make()).await?;
    undo.made = std::mem::take(&mut directory.made);
    let parts = Parts {
        backing: make_backing(policy)?,
        fuse,
        listener: make_listener(name)?,
        handover: Handover { limits: limits(policy, cap) },
    };
    let Launched { mount, pid, link } = launch(shared, &record, site, parts, undo).await?;
    show(&mount, &directory, &record)?;
    record.attached = true;
    if !record::exists(name) {
        // The store was stopped just before, and what undoes a mount did not see this one.
        release(&record, true).await?;
        return Err(DaemonError::Store { name: name.to_string(), what: "was stopped meanwhile".to_owned() });
    }
    record::write(&record)?;
    Ok(Attached { record, pid, link })
}

fn check_kernel() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match release.parse::<KernelVersion>() {
        Ok(version) if version >= MIN_KERNEL => Ok(()),
        _ => Err(DaemonError::KernelTooOld { release }),
    }
}

/// Refuses a name of which something is left. The table has seen to mounts that are there.
async fn check_name(shared: &Shared, name: &MountName) -> Result<()> {
    let unit = name.unit();
    let taken = |why| Err(DaemonError::NameTaken { name: name.to_string(), why });
    if record::exists(name) {
        return taken(format!(
            "{} is left over; restart memcharged, which clears it",
            MountRecord::path(name)
        ));
    }
    if shared.systemd.is_loaded(&unit).await? {
        return taken(format!("there is a unit {unit}; `systemctl stop {unit}` ends it"));
    }
    Ok(())
}

async fn find_point(place: &str) -> Result<Point> {
    if !place.starts_with('/') {
        return Err(DaemonError::InvalidOption(format!("where: `{place}` is not an absolute path")));
    }
    let (place, mounts) = (place.to_owned(), read_mounts()?);
    blocking("looking at the mount point", move || {
        let point = Point::resolve(&place, &mounts)?;
        point.check()?;
        Ok(point)
    })
    .await
}

/// The directories that are removed with the mount: those that are made for it, and those above it that were made for
/// another mount: the last one removes them.
fn made_directories(point: &Point, others: Vec<Result<MountRecord>>) -> Vec<String> {
    let others = others.into_iter().flatten().flat_map(|record| record.made_directories);
    let mut made: Vec<_> = others
        .filter(|directory| *directory != point.path && is_within(&point.path, directory))
        .chain(point.missing_paths())
        .collect();
    made.sort_by_key(String::len);
    made.dedup();
    made
}

async fn find_site(shared: &Shared, target: &Target, undo: &mut Undo) -> Result<Site> {
    if let Target::Slice(slice) = target
        && shared.systemd.state(slice).await? == UnitState::Down
    {
        undo.slice = Some(target.clone());
        shared.systemd.start(slice).await?;
    }
    let path = find_path(&shared.systemd, target).await?;
    open_site(&shared.hierarchy, &path)
}

fn limits(policy: &MountPolicy, cap: Option<Bytes>) -> StoreLimits {
    StoreLimits {
        cap,
        inodes: policy.inodes,
        reserve: policy.reserve,
        sparse: policy.sparse,
        reclaim: policy.reclaim,
        deadline_usec: u64::try_from(policy.deadline.as_micros()).unwrap_or(u64::MAX),
    }
}

/// Attaches the mount. There is no `await` between the look and the act.
fn show(mount: &OwnedFd, directory: &MadePoint, record: &MountRecord) -> Result<()> {
    let mounts = read_mounts()?;
    let taken = topmost(&mounts, &record.mounted_on).or_else(|| own_above(&mounts, &record.mounted_on));
    if taken.or_else(|| mounts.iter().find(|m| is_within(&m.place, &record.mounted_on))).is_some() {
        let (path, why) = (
            record.mounted_on.clone(),
            "became a mount point, or part of one, meanwhile; try again".to_owned(),
        );
        return Err(DaemonError::MountPointBusy { path, why });
    }
    fuse::attach(mount.as_fd(), directory.as_fd(), &record.mounted_on)
}
