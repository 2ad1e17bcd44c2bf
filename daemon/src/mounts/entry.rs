//! A target that comes and goes: a service or a scope, or a cgroup that is not there yet.
//!
//! Its mount is there all the while. The store waits outside, serves what exists and refuses growth; when the target has
//! tasks of its own it moves in. When a service stops, systemd kills the store with it, and the next store waits again.

use std::sync::Arc;

use memcharge_cgroup::{CgroupError, Hierarchy};
use memcharge_policy::{
    Target,
    link::{Home, MountRecord, Request},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    actor::Actor,
    attach::{home, limits},
    cases::RETRY,
    state::{Event, Placement},
};
use crate::{
    error::{DaemonError, Result},
    placement::{
        systemd::Systemd,
        target::{check_scope, find_path, is_unit, leaf_path, open_site, resolve_cap},
    },
    record,
    watch::{Watch, Watcher},
};

/// What tells that a target may have come.
#[derive(Debug)]
pub(super) struct Door {
    wake: Arc<Notify>,
    _watches: Vec<Watch>,
}

impl Door {
    /// Watches for processes in the cgroup at `path`, or for that cgroup to be made.
    fn watch(hierarchy: &Hierarchy, watcher: &Watcher, path: &str) -> Result<Self> {
        let wake = Arc::new(Notify::new());
        let mut watches = Vec::new();
        let mut at = path.trim_end_matches('/');
        loop {
            let place = if at.is_empty() { "/" } else { at };
            match hierarchy.open(place) {
                Ok(cgroup) if place == path => {
                    watches.push(watcher.add(&cgroup, &["cgroup.events", "cgroup.procs"], &wake)?);
                }
                // Whatever is made in it may be on the way to the target.
                Ok(cgroup) => {
                    watches.push(watcher.add_directory(&cgroup, &wake)?);
                    return Ok(Self { wake, _watches: watches });
                }
                Err(CgroupError::NoSuchCgroup { .. } | CgroupError::Dying { .. }) if place != "/" => {}
                Err(error) => return Err(error.into()),
            }
            // Above it, too: a cgroup that is removed does not tell of it itself.
            at = at.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
}

/// Returns when the target may have come; never without a door.
pub(super) async fn opened(door: &Option<Door>) {
    match door {
        Some(door) => door.wake.notified().await,
        None => std::future::pending().await,
    }
}

/// Whether a store may go into the cgroup at `path` now: it is there, and where it belongs to a unit, that unit runs and
/// has tasks of its own. In one that is being stopped a store would keep systemd waiting.
pub(super) async fn is_open(
    systemd: &Systemd,
    hierarchy: &Hierarchy,
    target: &Target,
    path: &str,
    store: Option<u32>,
) -> Result<bool> {
    let cgroup = match hierarchy.open(path) {
        Ok(cgroup) => cgroup,
        Err(CgroupError::NoSuchCgroup { .. } | CgroupError::Dying { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if !is_unit(target) {
        return Ok(true);
    }
    let others = match cgroup.processes() {
        Ok(processes) => processes.iter().any(|member| Some(member.pid) != store),
        Err(CgroupError::NoSuchCgroup { .. } | CgroupError::Dying { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    Ok(others && systemd.runs(&target.to_string()).await?)
}

impl Actor {
    /// Whether the store is not where its target would pay, and could go there once the target comes.
    pub(super) fn is_away(&self) -> bool {
        let Some(record) = &self.assets.record else { return false };
        if !is_unit(&record.policy.target) {
            return record.leaf.is_empty();
        }
        let pid = self.view.borrow().placement.as_ref().and_then(|placement| placement.store_pid);
        let own = pid.and_then(|pid| self.shared.hierarchy.open_of(Some(pid)).ok());
        own.is_none_or(|own| own.path() != record.leaf)
    }

    /// Waits for the target, and goes in at once if it is there.
    pub(super) async fn wait_for_target(&mut self) {
        self.part().await;
        let target = self.assets.record.as_ref().map(|record| record.policy.target.to_string());
        let reason = format!(
            "{} has no tasks; files can be used, and nothing can grow until it has",
            target.unwrap_or_default()
        );
        self.step(Event::Waiting(reason)).await;
        self.subscribe().await;
        self.knock().await;
    }

    /// Goes in if the target is there; else waits on.
    pub(super) async fn knock(&mut self) {
        // Watched first, then looked at: nothing is missed in between.
        let watched = match self.watch_door().await {
            Ok(()) => self.enter().await,
            Err(error) => Err(error),
        };
        match watched {
            Ok(true) => {
                self.assets.door = None;
                self.join().await;
            }
            Ok(false) => {}
            Err(error) => {
                let name = &self.handle.name;
                tracing::warn!(mount = %name, "mount {name} cannot use its target, and tries again: {error}");
                self.assets.knock = Some(Instant::now() + RETRY);
            }
        }
    }

    async fn watch_door(&mut self) -> Result<()> {
        let Some(record) = &self.assets.record else { return Ok(()) };
        let path = find_path(&self.shared.systemd, &record.policy.target).await?;
        let door = Door::watch(&self.shared.hierarchy, self.shared.targets.watcher(), &path)?;
        self.assets.door = Some(door);
        Ok(())
    }

    /// Has the store go in, if the target is there. Returns whether it is in.
    async fn enter(&mut self) -> Result<bool> {
        let Some(old) = self.assets.record.clone() else { return Ok(false) };
        let (shared, target) = (self.shared.clone(), old.policy.target.clone());
        let path = find_path(&shared.systemd, &target).await?;
        let store = self.view.borrow().placement.as_ref().and_then(|placement| placement.store_pid);
        if !is_open(&shared.systemd, &shared.hierarchy, &target, &path, store).await? {
            return Ok(false);
        }
        let site = open_site(&shared.hierarchy, &target, &path)?;
        check_scope(&shared.hierarchy, &old.policy, &path)?;
        let new = MountRecord {
            cap: resolve_cap(old.policy.size, &site.sample)?,
            leaf: leaf_path(&old.policy.name, &target, &path),
            target_path: path,
            target_id: site.cgroup.id(),
            ..old
        };
        if !shared.ledger.0.assign(new.slot, &site.level_ids) {
            return Err(DaemonError::TooDeep { target: new.target_path, levels: site.level_ids.len() });
        }
        record::write(&new)?;
        let home: Home = home(&new);
        let Some(link) = &mut self.assets.link else { return Ok(false) };
        link.order(&Request::Limits(limits(&new.policy, new.cap, shared.dry_run))).await?;
        link.order(&Request::Enter(home)).await?;
        let placement = self.view.borrow().placement.clone();
        self.show(|view| {
            view.placement = placement.map(|old| Placement {
                target_id: new.target_id,
                leaf: new.leaf.clone(),
                cap: new.cap,
                ..old
            });
        })
        .await;
        self.assets.record = Some(new);
        self.step(Event::Entered).await;
        Ok(true)
    }
}
