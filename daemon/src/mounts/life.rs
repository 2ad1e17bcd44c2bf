//! When a store ends: one that is killed comes back by itself, one that is given up leaves its data here.

use std::time::Duration;

use memcharge_policy::{Bytes, MountName};
use tokio::time::Instant;

use super::{
    actor::Actor,
    adopt::copy_backing,
    attach::revive,
    cases::silent,
    state::{Event, State},
};
use crate::{
    error::{DaemonError, Result},
    keeper, notify,
    placement::{systemd::UnitState, target::store_needs},
    record,
    store_link::{CONNECT_LIMIT, Link},
    targets::Order,
};

/// How often a frozen store is vouched for: well within the time after which systemd would restart it.
const PULSE: Duration = Duration::from_secs(30);

/// Why a mount has failed whose store is gone for good. `held`: whether its data are here.
pub(super) fn lost(name: &MountName, held: bool) -> String {
    let (unit, what) = (name.unit(), "the store process is gone for good");
    let way = if held {
        format!(
            "its data are kept; `memchargectl recover {name}` mounts them again, `memchargectl unmount {name}` drops them"
        )
    } else {
        format!("its data are lost; `memchargectl unmount {name}` clears it")
    };
    format!("{what}; {way}; see `journalctl -u {unit}`")
}

impl Actor {
    /// The store has closed its connection. Returns whether there is still a mount to keep.
    pub(super) async fn outlive_store(&mut self) -> bool {
        self.assets.link = None;
        let unit = self.handle.name.unit();
        if let Some(record) = &self.assets.record {
            // The next store needs room to start in: nobody else is granted it. It writes down what it holds itself.
            match store_needs(&record.policy.target) {
                Ok(needs) => self.shared.ledger.0.write_down(record.slot, needs),
                Err(error) => {
                    tracing::warn!(mount = %self.handle.name, "no room is kept for the store: {error}")
                }
            }
        }
        let shared = self.shared.clone();
        // systemd starts a store again that was killed. The socket is there all the while, so that this waits for it.
        let back = tokio::select! {
            link = self.reconnect() => link,
            Ok(()) = shared.systemd.wait_down(&unit) => None,
        };
        self.go_on(back).await
    }

    /// Goes on with a store that answers again, or finds out what has become of it.
    async fn go_on(&mut self, back: Option<Link>) -> bool {
        let name = self.handle.name.clone();
        if let Some(link) = back {
            self.returned(link).await;
            return true;
        }
        if matches!(self.shared.systemd.state(&name.unit()).await, Ok(UnitState::Up) | Err(_)) {
            // It runs, and does not answer: it is slow, or frozen.
            self.assets.retry = Some(Instant::now());
            let is_frozen = matches!(self.view.borrow().state, State::Frozen(_));
            return is_frozen || self.step(Event::Health(silent())).await;
        }
        self.part().await;
        if let Some(record) = &self.assets.record {
            // What a dead store was granted it will never allocate.
            self.shared.ledger.0.write_down(record.slot, Bytes(0));
        }
        if record::exists(&name) {
            let reason = lost(&name, self.assets.backing.is_some());
            return self.step(Event::StoreLost(reason)).await;
        }
        tracing::info!(mount = %name, "mount {name}: its store was stopped");
        false
    }

    /// A store answers again: the same one, or the one that systemd has started after it.
    async fn returned(&mut self, link: Link) {
        let name = self.handle.name.clone();
        self.assets.link = Some(link);
        let Ok(pid) = self.shared.systemd.main_pid(&name.unit()).await else {
            self.subscribe().await;
            return;
        };
        let before = self.view.borrow().clone();
        let old = before.placement.as_ref().and_then(|placement| placement.store_pid);
        if old == Some(pid) {
            self.subscribe().await;
            return;
        }
        tracing::warn!(mount = %name, "mount {name}: its store was restarted; nothing is lost");
        self.show(|view| {
            if let Some(placement) = &mut view.placement {
                placement.store_pid = Some(pid);
            }
        })
        .await;
        let slot = self.assets.record.as_ref().map(|record| record.slot).unwrap_or_default();
        if let (None, Some(link)) = (&self.assets.backing, &mut self.assets.link) {
            self.assets.backing = copy_backing(&name, link, pid).await;
            if let Some(backing) = &self.assets.backing {
                keeper::keep(slot, backing);
            }
        }
        // Its cgroup may be another one of the same name, and what was told of that one does not hold any more.
        self.part().await;
        while let Ok(order) = self.orders.1.try_recv() {
            if !matches!(order, Order::Health { .. }) {
                self.obey(order).await;
            }
        }
        if self.is_away() {
            self.wait_for_target().await;
        } else {
            self.join().await;
        }
    }

    /// Tells the service manager that the store is alive, which it cannot do itself while its target is frozen.
    pub(super) fn vouch(&mut self) {
        self.assets.pulse = Some(Instant::now() + PULSE);
        let pid = self.view.borrow().placement.as_ref().and_then(|placement| placement.store_pid);
        if let Some(Err(error)) = pid.map(notify::frozen_store_is_alive) {
            let name = &self.handle.name;
            tracing::debug!(mount = %name, "mount {name}: systemd is not told that its store is alive: {error}");
        }
    }

    /// Connects to the store. `None`: it does not answer.
    pub(super) async fn reconnect(&self) -> Option<Link> {
        let mut link = Link::connect(&self.handle.name).await.ok()?;
        link.status(CONNECT_LIMIT).await.ok()?;
        Some(link)
    }

    /// A store that did not answer is looked for again. Returns whether there is still a mount to keep.
    pub(super) async fn look_again(&mut self) -> bool {
        let back = self.reconnect().await;
        if back.is_none()
            && matches!(self.shared.systemd.state(&self.handle.name.unit()).await, Ok(UnitState::Up))
        {
            return true;
        }
        self.go_on(back).await
    }

    /// Mounts the data of a mount again whose store was given up. Whoever had files of the old mount open keeps getting
    /// errors from those.
    pub(super) async fn recover(&mut self) -> Result<()> {
        let name = self.handle.name.to_string();
        let state = self.view.borrow().state.clone();
        let refuse = |what: &str| DaemonError::Refused { name: name.clone(), what: what.to_owned() };
        if !matches!(state, State::Failed(_)) {
            return Err(refuse(&format!("it is {}, and there is nothing to recover", state.word())));
        }
        let (Some(record), Some(backing)) = (self.assets.record.clone(), &self.assets.backing) else {
            return Err(refuse("its data are not here; unmount it, and mount it again"));
        };
        if self.shared.systemd.state(&self.handle.name.unit()).await? == UnitState::Up {
            return Err(refuse(&format!(
                "its unit still runs; `systemctl stop {}` first",
                self.handle.name.unit()
            )));
        }
        let attached = revive(&self.shared, record, backing).await?;
        self.take(attached).await;
        tracing::info!(mount = %name, "mount {name} is recovered with its data");
        self.step(Event::Recovered).await;
        if self.is_away() {
            self.wait_for_target().await;
        } else {
            self.join().await;
        }
        Ok(())
    }
}
