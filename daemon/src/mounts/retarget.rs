//! Giving a mount another target (R29). The files stay, and what they hold stays charged where it is; what is allocated
//! from then on is charged to the new target, since a store in its cgroup allocates it.
//!
//! The store's unit cannot change its slice, so it is stopped, and another one goes on in the new target as a store does
//! that comes after one that was killed. Meanwhile the connection is held here, and clients wait. Until the new store
//! serves, the record is about the old target and says that the store is on its way; whatever goes wrong, also with this
//! daemon, leads back to that.

use std::sync::Arc;

use memcharge_cgroup::User;
use memcharge_faults::may_die;
use memcharge_policy::{
    Bytes, MountPolicy, Target,
    link::{MountRecord, Previous},
};

use super::{
    Shared,
    actor::{Actor, placement},
    adopt::copy_line,
    attach::{Attached, check_policy, find_site, handover, may_pay, placed},
    launch::{Launched, Parts, launch},
    life::lost,
    state::Event,
    undo::Undo,
};
use crate::{
    attach::{backing::Backing, line::Line},
    error::{DaemonError, Result},
    keeper,
    placement::target::{Site, is_unit, look_at_site},
    record,
    targets::Health,
};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Who shall pay.
    pub(crate) target: Target,
    /// Whether what the files hold may stay charged to the old target.
    pub(crate) leave_data: bool,
    /// Whether the target may come later.
    pub(crate) wait: bool,
    /// The user who asks, and must be allowed to have it pay; `None`: root.
    pub(crate) on_behalf: Option<User>,
}

/// Where a store goes: what will be on record then, and the target, if it is there.
type Way = (MountRecord, Option<Site>);

impl Actor {
    /// Gives the mount another target. On an error everything is as before, but for a mount that has lost its store on the
    /// way back, which says so.
    pub(super) async fn retarget(&mut self, wanted: Wanted) -> Result<()> {
        let old = self.record_in_use()?;
        if wanted.target == old.policy.target && !self.is_made_anew(&old) {
            return Ok(());
        }
        let used = self.status().await?.used;
        let (name, target) = (self.handle.name.to_string(), old.policy.target.to_string());
        if used > Bytes(0) && !wanted.leave_data {
            return Err(DaemonError::HasData { name, used, target });
        }
        let (line, backing) = self.hold().await?;
        let shared = self.shared.clone();
        let _slot = shared.slots.acquire().await.map_err(|_| DaemonError::Stopping)?;
        let mut undo = Undo::default();
        let way = find_way(&shared, &old, wanted, used, &mut undo).await;
        let begun = way.and_then(|way| {
            keeper::keep_line(old.slot, &line);
            record::write(&MountRecord { moving: true, ..old.clone() }).map(|()| way)
        });
        let moved = match begun {
            Ok(way) => {
                may_die("retarget.recorded");
                self.go(way, &line, &backing, &mut undo).await
            }
            Err(error) => {
                undo.roll_back(&shared).await;
                keeper::forget_line(old.slot);
                return Err(error);
            }
        };
        match moved {
            Ok(attached) => self.arrive(&old, attached).await,
            Err(error) => {
                undo.roll_back(&shared).await;
                self.go_back(&old, &line, &backing).await;
                keeper::forget_line(old.slot);
                return Err(error);
            }
        }
        keeper::forget_line(old.slot);
        Ok(())
    }

    /// Whether another cgroup has the path of the target by now, which pays only if it is asked to.
    fn is_made_anew(&self, old: &MountRecord) -> bool {
        let found = self.shared.hierarchy.open(&old.target_path);
        !is_unit(&old.policy.target)
            && old.target_id != 0
            && found.is_ok_and(|found| found.id() != old.target_id)
    }

    /// What another store will need, held here.
    async fn hold(&mut self) -> Result<(Line, Backing)> {
        let name = self.handle.name.clone();
        let pid = self.view.borrow().placement.as_ref().and_then(|placement| placement.store_pid);
        let (Some(link), Some(pid)) = (&mut self.assets.link, pid) else {
            return Err(DaemonError::NotActive { name: name.to_string(), state: "without a store" });
        };
        let line = copy_line(link, pid).await?;
        let Some(backing) = &self.assets.backing else {
            let what = "its data are held by its store alone; restart memcharged, and try again".to_owned();
            return Err(DaemonError::Refused { name: name.to_string(), what });
        };
        let backing = backing.try_clone().map_err(DaemonError::io("copy", "the descriptors of the data"))?;
        Ok((line, backing))
    }

    /// Has another store go on, and writes down that it does.
    async fn go(&mut self, way: Way, line: &Line, backing: &Backing, undo: &mut Undo) -> Result<Attached> {
        self.call_in().await;
        self.leave_target().await;
        (self.assets.door, self.assets.knock) = (None, None);
        stop_store(&self.shared, &way.0).await?;
        self.hear_out().await;
        let attached = relaunch(&self.shared, way, line, backing, undo).await?;
        may_die("retarget.launched");
        record::write(&attached.record)?;
        may_die("retarget.written");
        Ok(attached)
    }

    /// The store is in its new target.
    async fn arrive(&mut self, old: &MountRecord, attached: Attached) {
        if old.made_leaf
            && let Err(error) = remove_leaf(&self.shared, old)
        {
            tracing::warn!(mount = %self.handle.name, "the store's old cgroup is left: {error}");
        }
        let record = attached.record.clone();
        let from = old.policy.target.to_string();
        // All that is different is told at once.
        self.show(|view| {
            view.placement = Some(placement(&record, attached.pid));
            view.policy = Arc::new(record.policy.clone());
            view.base = Arc::new(record.base.clone().unwrap_or_else(|| record.policy.clone()));
        })
        .await;
        self.take(attached).await;
        let (name, to) = (&self.handle.name, &record.policy.target);
        let left = record.previous.bytes;
        tracing::info!(mount = %name, "mount {name} is charged to {to} from now on; {left} stay with {from}");
        self.settle().await;
    }

    /// Goes on in the old target. Where that does not work either, the mount has failed, with its data held here.
    async fn go_back(&mut self, old: &MountRecord, line: &Line, backing: &Backing) {
        let name = self.handle.name.clone();
        let mut undo = Undo::default();
        let shared = self.shared.clone();
        let back = match find_back(&shared, old, &mut undo).await {
            Ok(way) => self.go(way, line, backing, &mut undo).await,
            Err(error) => Err(error),
        };
        match back {
            Ok(attached) => {
                self.take(attached).await;
                self.settle().await;
            }
            Err(error) => {
                undo.roll_back(&shared).await;
                tracing::error!(mount = %name, "mount {name} cannot go on in its target: {error}");
                if let Err(error) = record::write(old) {
                    tracing::error!(mount = %name, "{error}");
                }
                self.step(Event::StoreLost(lost(&name, true))).await;
            }
        }
    }

    /// Takes its place among the mounts of its target, or waits for that.
    async fn settle(&mut self) {
        if self.is_away() {
            self.wait_for_target().await;
        } else {
            self.step(Event::Entered).await;
            self.step(Event::Health(Health::Fine)).await;
            self.join().await;
        }
    }
}

/// Looks at the new target. Nothing is done to the mount.
async fn find_way(
    shared: &Shared,
    old: &MountRecord,
    wanted: Wanted,
    used: Bytes,
    undo: &mut Undo,
) -> Result<Way> {
    let Wanted { target, wait, on_behalf, .. } = wanted;
    let (path, site) = find_site(shared, &target, wait, undo).await?;
    if let Some(user) = &on_behalf {
        may_pay(user, &path, site.as_ref())?;
    }
    let from = old.policy.target.to_string();
    let base = old.base.clone().map(|base| MountPolicy { target: target.clone(), ..base });
    let policy = MountPolicy { target, ..old.policy.clone() };
    let cap = check_policy(shared, &policy, &path, site.as_ref())?;
    if let Some(cap) = cap.filter(|cap| *cap < used) {
        return Err(DaemonError::Shrinks { name: policy.name.to_string(), used, wanted: cap });
    }
    let previous = Previous::and(old.previous.clone(), from, used);
    let generation = old.generation + 1;
    let new = MountRecord { policy, base, cap, previous, generation, moving: false, ..old.clone() };
    Ok((placed(new, path, site.as_ref()), site))
}

/// The way back to the target that is on record, whether it has room or not: the store that was there had it.
async fn find_back(shared: &Shared, old: &MountRecord, undo: &mut Undo) -> Result<Way> {
    let (path, site) = match look_at_site(&shared.hierarchy, &old.target_path) {
        Ok(site) if !is_unit(&old.policy.target) => {
            if old.target_id != 0 && site.cgroup.id() != old.target_id {
                let why = "what is at its path is another cgroup, which was not asked to pay".to_owned();
                return Err(DaemonError::NoSuchTarget { target: old.policy.target.to_string(), why });
            }
            (old.target_path.clone(), Some(site))
        }
        _ => find_site(shared, &old.policy.target, true, undo).await?,
    };
    Ok((placed(MountRecord { moving: false, ..old.clone() }, path, site.as_ref()), site))
}

/// Stops the store where it is.
async fn stop_store(shared: &Shared, record: &MountRecord) -> Result<()> {
    let unit = record.policy.name.unit();
    shared.systemd.stop(&unit).await?;
    shared.systemd.let_go(&unit).await;
    shared.systemd.wait_forgotten(&unit).await?;
    may_die("retarget.stopped");
    Ok(())
}

/// Has another store go on elsewhere.
async fn relaunch(
    shared: &Shared,
    (record, site): Way,
    line: &Line,
    backing: &Backing,
    undo: &mut Undo,
) -> Result<Attached> {
    // What the store that was stopped had been granted it will never allocate.
    shared.ledger.0.write_down(record.slot, Bytes(0));
    let levels = site.as_ref().map_or(&[0][..], |site| &site.level_ids);
    if !shared.ledger.0.assign(record.slot, levels) {
        return Err(DaemonError::TooDeep { target: record.target_path, levels: levels.len() });
    }
    let copied = || DaemonError::io::<std::io::Error>("copy", "the descriptors of the mount");
    let Line { connection, listener, state } = line.try_clone().map_err(copied())?;
    let parts = Parts {
        backing: backing.try_clone().map_err(copied())?,
        connection,
        listener,
        state: Some(state),
        handover: handover(&record, shared.dry_run),
    };
    let Launched { pid, link, backing } = launch(shared, &record, site, parts, undo).await?;
    Ok(Attached { record, pid, link: Some(link), backing: Some(backing) })
}

/// Goes on in the old target where an earlier daemon was killed on the way to a new one.
pub(super) async fn resume(
    shared: &Shared,
    record: &MountRecord,
    line: &Line,
    backing: &Backing,
) -> Result<Attached> {
    let mut undo = Undo::default();
    let back = match find_back(shared, record, &mut undo).await {
        Ok(way) => match stop_store(shared, record).await {
            Ok(()) => relaunch(shared, way, line, backing, &mut undo).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let written = back.and_then(|attached| record::write(&attached.record).map(|()| attached));
    if written.is_err() {
        undo.roll_back(shared).await;
    }
    written
}

fn remove_leaf(shared: &Shared, record: &MountRecord) -> Result<()> {
    let Some((parent, leaf)) = record.leaf.rsplit_once('/') else { return Ok(()) };
    Ok(shared.hierarchy.open(parent)?.remove_child(leaf)?)
}
