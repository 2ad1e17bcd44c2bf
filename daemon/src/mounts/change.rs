//! Changing the policy of a mount while it is mounted.

use std::sync::Arc;

use memcharge_faults::may_die;
use memcharge_policy::{
    Bytes, MountPolicy, PolicyPatch, SizeCap,
    arbiter::Rules,
    link::{MountRecord, Request},
};

use super::{actor::Actor, attach::limits, state::Source};
use crate::{
    error::{DaemonError, Result},
    placement::target::{check_scope, resolve_cap},
    record,
};

impl Actor {
    /// Changes the policy, or goes back to the one that the mount was made with. All of it takes effect, or nothing:
    /// the store first, which can refuse, then the record, then everybody else.
    pub(super) async fn set_policy(&mut self, patch: Option<Box<PolicyPatch>>) -> Result<u64> {
        let old = self.record_in_use()?;
        let base = old.base.clone().unwrap_or_else(|| old.policy.clone());
        let (policy, base) = match patch {
            Some(patch) => (old.policy.patched(*patch), Some(base)),
            None => (base, None),
        };
        let new = MountRecord { base, policy, ..old.clone() };
        self.change(&old, new).await
    }

    /// Follows what the configuration says now. What was changed at run time stays, and what cannot change while the
    /// mount is there waits.
    pub(super) async fn follow(&mut self, file: &MountPolicy, source: Source) -> Result<()> {
        let old = self.record_in_use()?;
        let (policy, base) = old.policy.rebased(old.base.as_ref().unwrap_or(&old.policy), file);
        let base = (base != policy).then_some(base);
        let new = MountRecord { base, policy, fragment: source.fragment.clone(), ..old.clone() };
        if new.policy != old.policy {
            self.change(&old, new).await?;
        } else if new != old {
            record::write(&new)?;
            self.take_base(&new);
            self.assets.record = Some(new);
        }
        self.show(|view| view.source = source).await;
        Ok(())
    }

    pub(super) fn record_in_use(&self) -> Result<MountRecord> {
        let state = self.view.borrow().state.clone();
        let inactive = || DaemonError::NotActive { name: self.handle.name.to_string(), state: state.word() };
        self.assets.record.clone().filter(|_| state.has_store()).ok_or_else(inactive)
    }

    async fn change(&mut self, old: &MountRecord, new: MountRecord) -> Result<u64> {
        let cap = self.cap(&new.policy, old)?;
        let new = MountRecord { cap, generation: old.generation + 1, ..new };
        check_scope(&self.shared.hierarchy, &new.policy, &new.target_path)?;
        if let Err(error) = self.give(&new).await {
            if !matches!(
                error,
                DaemonError::Refused { .. } | DaemonError::Shrinks { .. } | DaemonError::ShrinksInodes { .. }
            ) {
                // It may have them all the same, a little later: it gets the old ones again.
                self.assets.retry = Some(tokio::time::Instant::now());
            }
            return Err(error);
        }
        may_die("set.given");
        if let Err(error) = record::write(&new) {
            // What is not written would be forgotten by the next daemon: then it does not hold now either.
            self.give(old).await?;
            return Err(error);
        }
        may_die("set.written");
        self.take_policy(new).await
    }

    fn cap(&self, policy: &MountPolicy, old: &MountRecord) -> Result<Option<Bytes>> {
        if policy.size == old.policy.size {
            // A share of the limit is not taken anew because something else changes.
            return Ok(old.cap);
        }
        match policy.size {
            Some(SizeCap::Percent(_)) => {
                let sampler = memcharge_cgroup::Sampler::open(&self.shared.hierarchy, &old.target_path)?;
                resolve_cap(policy.size, &sampler.sample()?)
            }
            size => Ok(size.and_then(|size| size.resolve(None))),
        }
    }

    async fn give(&mut self, record: &MountRecord) -> Result<()> {
        let name = self.handle.name.to_string();
        let Some(link) = &mut self.assets.link else {
            return Err(DaemonError::NotActive { name, state: "without a store" });
        };
        if record.cap.is_some() || record.policy.inodes.is_some() {
            let status = link.status(crate::store_link::ANSWER_LIMIT).await?;
            let (used, inodes) = (status.used, status.inodes_used);
            if let Some(wanted) = record.cap.filter(|wanted| *wanted < used) {
                return Err(DaemonError::Shrinks { name, used, wanted });
            }
            if let Some(wanted) = record.policy.inodes.filter(|wanted| *wanted < inodes) {
                return Err(DaemonError::ShrinksInodes { name, used: inodes, wanted });
            }
        }
        let limits = limits(&record.policy, record.cap, self.shared.dry_run);
        link.order(&Request::Limits(limits)).await
    }

    fn take_base(&self, new: &MountRecord) {
        let base = new.base.as_ref().unwrap_or(&new.policy).clone();
        self.view.send_modify(|view| view.base = Arc::new(base));
    }

    async fn take_policy(&mut self, new: MountRecord) -> Result<u64> {
        let before = self.view.borrow().clone();
        self.take_base(&new);
        self.view.send_modify(|view| {
            view.policy = Arc::new(new.policy.clone());
            if let Some(placement) = &mut view.placement {
                placement.cap = new.cap;
            }
        });
        let after = self.view.borrow().clone();
        let name = &self.handle.name;
        let keys = super::changed_keys(&before.policy, &after.policy).join(", ");
        tracing::info!(mount = %name, "the policy of mount {name} has changed ({keys})");
        self.shared.publisher.changed(name, &before, &after).await;
        if let Some(target) = &self.assets.target {
            let (on_full, kill) = (new.policy.on_full, new.policy.kill.clone());
            target.policy(name.clone(), Rules { on_full, kill, dry_run: self.shared.dry_run }).await;
        }
        let generation = new.generation;
        self.assets.record = Some(new);
        Ok(generation)
    }
}
