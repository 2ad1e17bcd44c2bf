//! Making a mount, step by step. Nothing is visible before the last step, and a failed attach leaves nothing (R3).

use std::{
    os::fd::{AsFd, OwnedFd},
    time::SystemTime,
};

use memcharge_cgroup::User;
use memcharge_faults::may_die;
use memcharge_policy::{
    Bytes, KernelVersion, MIN_KERNEL, MountName, MountPolicy, OnFull, Target,
    link::{Handover, Home, MountRecord, Previous, StoreLimits},
    mountinfo::{is_within, own_above, topmost},
};

use super::{
    Shared, blocking,
    detach::release,
    entry::is_open,
    launch::{Launched, Parts, launch},
    undo::Undo,
};
use crate::{
    attach::{
        backing::{Backing, make_backing},
        fuse::{self, FuseMount, make_fuse},
        holders::read_mounts,
        host,
        point::{MadePoint, Point},
    },
    error::{DaemonError, Result},
    placement::{
        handover::make_listener,
        systemd::UnitState,
        target::{Site, check_scope, find_path, is_raw, is_unit, leaf_path, open_site, resolve_cap},
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
    /// The connection to its store; `None`: it does not answer just now.
    pub(super) link: Option<Link>,
    /// Its data; `None`: the store has them alone.
    pub(super) backing: Option<Backing>,
}

/// On which terms a mount is made.
#[derive(Debug)]
pub(super) struct Terms {
    /// The file that configures it; empty: none.
    pub(super) fragment: String,
    /// Whether it is made also if its target is not there yet.
    pub(super) wait: bool,
    /// The user for whom it is made; `None`: root.
    pub(super) on_behalf: Option<User>,
}

/// Makes a mount. When that fails, or the daemon is about to exit, everything is undone.
pub(super) async fn attach(shared: &Shared, policy: &MountPolicy, terms: Terms) -> Result<Attached> {
    let _slot = shared.slots.acquire().await.map_err(|_| DaemonError::Stopping)?;
    let mut undo = Undo::default();
    let attached = tokio::select! {
        attached = make(shared, policy, terms, &mut undo) => attached,
        () = shared.stopped() => Err(DaemonError::Stopping),
    };
    match attached {
        Ok(_) => undo.made.keep(),
        Err(_) => undo.roll_back(shared).await,
    }
    attached
}

async fn make(shared: &Shared, policy: &MountPolicy, terms: Terms, undo: &mut Undo) -> Result<Attached> {
    let name = &policy.name;
    check_kernel()?;
    check_name(shared, name).await?;
    let owner = terms.on_behalf.as_ref().map(|user| user.uid);
    let point = find_point(&policy.place, owner).await?;
    let (path, site) = find_site(shared, &policy.target, terms.wait, undo).await?;
    if let Some(user) = &terms.on_behalf {
        // Again, on what is held by descriptor from here on.
        may_pay(user, &path, site.as_ref())?;
    }
    let cap = check_policy(shared, policy, &path, site.as_ref())?;
    let fuse = make_fuse(policy)?;
    let mut record = MountRecord {
        policy: policy.clone(),
        cap,
        mount_id: fuse::mount_id(fuse.mount.as_fd())?,
        attached: false,
        mounted_on: point.path.clone(),
        made_directories: made_directories(&point, record::read_all()?),
        leaf: site.as_ref().map(|_| leaf_path(name, &policy.target, &path)).unwrap_or_default(),
        made_leaf: is_raw(&policy.target) && !is_unit(&policy.target),
        target_id: site.as_ref().map_or(0, |site| site.cgroup.id()),
        target_path: path,
        slot: take_slot(shared, site.as_ref(), undo)?,
        base: None,
        generation: 0,
        made_usec: now_usec(),
        recovering: false,
        moving: false,
        previous: Previous::default(),
        fragment: terms.fragment,
        owner: terms.on_behalf.map_or(0, |user| user.uid),
    };
    undo.record = Some(name.clone());
    record::write(&record)?;
    may_die("mount.recorded");
    let mut directory = blocking("making the mount point", move || point.make()).await?;
    undo.made = std::mem::take(&mut directory.made);
    may_die("mount.directory");
    let FuseMount { connection, mount } = fuse;
    let parts = Parts {
        backing: make_backing(policy)?,
        connection,
        listener: make_listener(name)?.into(),
        state: None,
        handover: handover(&record, shared.dry_run),
    };
    let Launched { pid, link, backing } = launch(shared, &record, site, parts, undo).await?;
    may_die("mount.launched");
    show(&mount, &directory, &record)?;
    may_die("mount.shown");
    record.attached = true;
    if !record::exists(name) {
        // The store was stopped just before, and what undoes a mount did not see this one.
        release(shared, &record, true).await?;
        return Err(DaemonError::Store { name: name.to_string(), what: "was stopped meanwhile".to_owned() });
    }
    record::write(&record)?;
    may_die("mount.attached");
    Ok(Attached { record, pid, link: Some(link), backing: Some(backing) })
}

/// Mounts the data of a mount again whose store was given up. On a failure the data, and the record, stay.
pub(super) async fn revive(shared: &Shared, record: MountRecord, backing: &Backing) -> Result<Attached> {
    let _slot = shared.slots.acquire().await.map_err(|_| DaemonError::Stopping)?;
    let mut undo = Undo::default();
    let attached = tokio::select! {
        attached = make_again(shared, record, backing, &mut undo) => attached,
        () = shared.stopped() => Err(DaemonError::Stopping),
    };
    match attached {
        Ok(_) => undo.made.keep(),
        Err(_) => undo.roll_back(shared).await,
    }
    attached
}

async fn make_again(
    shared: &Shared,
    mut record: MountRecord,
    backing: &Backing,
    undo: &mut Undo,
) -> Result<Attached> {
    let (policy, name) = (record.policy.clone(), record.policy.name.clone());
    // Nobody can use the old mount any more: its connection is gone.
    release(shared, &record, true).await?;
    let (path, site) = find_site(shared, &policy.target, true, undo).await?;
    let fuse = make_fuse(&policy)?;
    record.mount_id = fuse::mount_id(fuse.mount.as_fd())?;
    // Whoever undoes what follows leaves the record: without it the next daemon would drop the data.
    record.recovering = true;
    record = placed(record, path, site.as_ref());
    let levels = site.as_ref().map_or(&[0][..], |site| &site.level_ids);
    if !shared.ledger.0.assign(record.slot, levels) {
        return Err(DaemonError::TooDeep { target: record.target_path, levels: levels.len() });
    }
    record::write(&record)?;
    may_die("recover.recorded");
    let point = find_point(&record.mounted_on, None).await?;
    let mut directory = blocking("making the mount point", move || point.make()).await?;
    undo.made = std::mem::take(&mut directory.made);
    let copied = || backing.try_clone().map_err(DaemonError::io("copy", "the descriptors of the data"));
    let FuseMount { connection, mount } = fuse;
    let parts = Parts {
        backing: copied()?,
        connection,
        listener: make_listener(&name)?.into(),
        state: None,
        handover: handover(&record, shared.dry_run),
    };
    let Launched { pid, link, backing } = launch(shared, &record, site, parts, undo).await?;
    may_die("recover.launched");
    show(&mount, &directory, &record)?;
    may_die("recover.shown");
    record.recovering = false;
    record::write(&record)?;
    Ok(Attached { record, pid, link: Some(link), backing: Some(backing) })
}

/// Whether the target takes this policy, and the cap there in bytes.
pub(super) fn check_policy(
    shared: &Shared,
    policy: &MountPolicy,
    path: &str,
    site: Option<&Site>,
) -> Result<Option<Bytes>> {
    // A share of the target's limit is known when it comes; until then nothing can grow.
    let Some(site) = site else { return Ok(policy.size.and_then(|size| size.resolve(None))) };
    check_scope(&shared.hierarchy, policy, path)?;
    resolve_cap(policy.size, &site.sample)
}

/// The record of a mount whose store goes to the cgroup at `path`, or waits for that.
pub(super) fn placed(record: MountRecord, path: String, site: Option<&Site>) -> MountRecord {
    let target = &record.policy.target;
    let leaf = site.map(|_| leaf_path(&record.policy.name, target, &path)).unwrap_or_default();
    let made_leaf = is_raw(target) && !is_unit(target);
    let target_id = site.map_or(0, |site| site.cgroup.id());
    MountRecord { leaf, made_leaf, target_id, target_path: path, ..record }
}

/// Refuses a target that is not the user's.
pub(super) fn may_pay(user: &User, path: &str, site: Option<&Site>) -> Result<()> {
    match site {
        Some(site) if site.cgroup.may_be_entered_by(user)? => Ok(()),
        _ => Err(DaemonError::NotPermitted(format!("uid {} may not have {path} pay", user.uid))),
    }
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

/// The mount point, in a directory of `owner` if there is one.
async fn find_point(place: &str, owner: Option<u32>) -> Result<Point> {
    if !place.starts_with('/') {
        return Err(DaemonError::InvalidOption(format!("where: `{place}` is not an absolute path")));
    }
    let (place, mounts) = (place.to_owned(), read_mounts()?);
    let look = move || {
        let point = Point::resolve(&place, &mounts)?;
        // First, so that nothing is told of what is in somebody else's.
        owner.map_or(Ok(()), |owner| point.check_owner(owner))?;
        point.check()?;
        Ok(point)
    };
    blocking("looking at the mount point", || host::within(look)).await
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

/// Where the target is, and what it is like; the latter is missing for one that is not there yet and may come later.
pub(super) async fn find_site(
    shared: &Shared,
    target: &Target,
    wait: bool,
    undo: &mut Undo,
) -> Result<(String, Option<Site>)> {
    if let Target::Slice(slice) = target
        && shared.systemd.state(slice).await? == UnitState::Down
    {
        undo.slice = Some(target.clone());
        shared.systemd.start(slice).await?;
    }
    let path = find_path(&shared.systemd, target).await?;
    if is_open(&shared.systemd, &shared.hierarchy, target, &path, None).await? {
        let site = open_site(&shared.hierarchy, target, &path)?;
        return Ok((path, Some(site)));
    }
    if wait {
        return Ok((path, None));
    }
    if is_unit(target) {
        let why = "it has no tasks; start it, or wait for it with --wait".to_owned();
        return Err(DaemonError::NoSuchTarget { target: target.to_string(), why });
    }
    Err(memcharge_cgroup::CgroupError::NoSuchCgroup { path }.into())
}

/// Microseconds since 1970.
fn now_usec() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// A line in the ledger for the store.
fn take_slot(shared: &Shared, site: Option<&Site>, undo: &mut Undo) -> Result<u32> {
    // Without a target it holds nothing, below no cgroup.
    let levels = site.map_or(&[0][..], |site| &site.level_ids);
    let slot = shared.ledger.0.take(levels).ok_or_else(|| DaemonError::TooDeep {
        target: site.map(|site| site.cgroup.path().to_owned()).unwrap_or_default(),
        levels: levels.len(),
    })?;
    undo.slot = Some(slot);
    Ok(slot)
}

/// What a store is told of its mount.
pub(super) fn handover(record: &MountRecord, dry_run: bool) -> Handover {
    Handover { limits: limits(&record.policy, record.cap, dry_run), slot: record.slot, home: home(record) }
}

/// Where a store belongs.
pub(super) fn home(record: &MountRecord) -> Home {
    Home {
        leaf: record.leaf.clone(),
        target: record.target_path.clone(),
        target_id: record.target_id,
        by_systemd: !is_raw(&record.policy.target),
    }
}

/// What a store keeps of a policy. Under `--dry-run` it does what admission alone does.
pub(super) fn limits(policy: &MountPolicy, cap: Option<Bytes>, dry_run: bool) -> StoreLimits {
    StoreLimits {
        cap,
        inodes: policy.inodes,
        reserve: policy.reserve,
        sparse: policy.sparse,
        reclaim: policy.reclaim && !dry_run,
        ask: policy.on_full == OnFull::Kill && !dry_run,
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
    host::within(|| fuse::attach(mount.as_fd(), directory.as_fd(), &record.mounted_on))
}
