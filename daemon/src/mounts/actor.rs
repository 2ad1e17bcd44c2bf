//! The actor of one mount: makes it or finds it again, watches its store, ends it.

use std::sync::Arc;

use memcharge_cgroup::User;
use memcharge_faults::may_die;
use memcharge_policy::link::MountRecord;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    adopt::{Adopted, adopt},
    attach::{Attached, Terms, attach},
    cases::{Cases, silent},
    detach::{clear, release},
    entry::{Door, opened},
    handle::{Ask, MountHandle},
    life::lost,
    state::{Event, MountView, Placement, State},
    table::Notice,
};
use crate::{
    attach::backing::Backing,
    error::{DaemonError, Result},
    keeper::{self, Held},
    placement::systemd::UnitState,
    record,
    store_link::Link,
    targets::{Health, Order, TargetHandle},
};

/// How a mount comes to be.
#[derive(Debug)]
pub(super) enum Start {
    /// It is made. `keep_failed`: it stays in the list if that fails.
    Make {
        /// Whether it stays in the list.
        keep_failed: bool,
        /// Whether it is made also if its target is not there yet.
        wait: bool,
        /// The user for whom it is made; `None`: root.
        on_behalf: Option<User>,
    },
    /// It is on record, and its data may have been kept.
    Adopt(Box<MountRecord>, Held),
}

/// The one owner of a mount.
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: MountHandle,
    pub(super) view: watch::Sender<MountView>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    pub(super) assets: Assets,
}

/// What there is of a mount.
#[derive(Debug, Default)]
pub(super) struct Assets {
    pub(super) record: Option<MountRecord>,
    pub(super) link: Option<Link>,
    /// The data, held so that they outlive also a unit that is given up.
    pub(super) backing: Option<Backing>,
    pub(super) announced: bool,
    pub(super) target: Option<TargetHandle>,
    pub(super) cases: Cases,
    /// How its place is, as its target says.
    pub(super) health: Health,
    /// Whether the store has to open its target's files again.
    pub(super) reopen: bool,
    /// When a store that did not answer is asked again.
    pub(super) retry: Option<Instant>,
    /// When the service manager is told next that a frozen store is alive.
    pub(super) pulse: Option<Instant>,
    /// What tells that the target has come, while the store waits for it.
    pub(super) door: Option<Door>,
    /// When it is looked for, whatever happens.
    pub(super) knock: Option<Instant>,
}

impl Actor {
    /// Runs until the mount is gone or the daemon is about to exit. `settled` gets what became of the start.
    pub(super) async fn run(mut self, start: Start, settled: oneshot::Sender<Result<()>>) {
        self.shared.publisher.add(&self.handle).await;
        let (event, outcome) = self.start(start).await;
        let there = self.step(event).await;
        if there && self.view.borrow().state.has_store() {
            if self.is_away() {
                self.wait_for_target().await;
            } else {
                self.join().await;
            }
            if self.assets.link.is_none() {
                self.step(Event::Health(silent())).await;
            }
        }
        if there {
            self.assets.announced = true;
            self.shared.publisher.announce_new(&self.handle.name).await;
        } else {
            self.leave().await;
        }
        // Whoever asked may be gone.
        drop(settled.send(outcome));
        if there {
            self.serve().await;
        }
    }

    async fn start(&mut self, start: Start) -> (Event, Result<()>) {
        let shared = self.shared.clone();
        match start {
            Start::Make { keep_failed, wait, on_behalf } => {
                let (policy, fragment) = {
                    let view = self.view.borrow();
                    (view.policy.clone(), view.source.fragment.clone())
                };
                match attach(&shared, &policy, Terms { fragment, wait, on_behalf }).await {
                    Ok(attached) => (self.take(attached).await, Ok(())),
                    Err(error) => {
                        let keep = keep_failed && !matches!(error, DaemonError::Stopping);
                        (Event::NotAttached { reason: error.to_string(), keep }, Err(error))
                    }
                }
            }
            Start::Adopt(mut record, Held { mut backing, line }) => {
                let adopted = adopt(&shared, (*record).clone(), &mut backing, line).await;
                // Wherever its store was on the way to.
                record.moving = false;
                match adopted {
                    Ok(Adopted::Active(attached)) => (self.take(*attached).await, Ok(())),
                    Ok(Adopted::Broken) => {
                        let reason = lost(&self.handle.name, backing.is_some());
                        self.assets.backing = backing;
                        self.assets.record = Some(*record);
                        (Event::NotAttached { reason, keep: true }, Ok(()))
                    }
                    Ok(Adopted::Cleared) => {
                        self.assets.record = Some((*record).clone());
                        let name = &self.handle.name;
                        tracing::info!(mount = %name, "mount {name} was not mounted any more; what was left is removed");
                        (Event::Ended, Ok(()))
                    }
                    Err(error) => {
                        self.assets.backing = backing;
                        self.assets.record = Some(*record);
                        (Event::NotAttached { reason: error.to_string(), keep: true }, Err(error))
                    }
                }
            }
        }
    }

    pub(super) async fn take(&mut self, attached: Attached) -> Event {
        let Attached { record, pid, link, backing } = attached;
        let placement = placement(&record, pid);
        self.show(|view| view.placement = Some(placement)).await;
        if let Some(backing) = &backing {
            keeper::keep(record.slot, backing);
        }
        // A mount that is recovered was announced before, and its end will be.
        let announced = self.assets.announced;
        self.assets = Assets { record: Some(record), link, backing, announced, ..Assets::default() };
        if self.assets.link.is_none() {
            self.assets.retry = Some(Instant::now());
        }
        Event::Attached
    }

    async fn serve(&mut self) {
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                // What others wait for with a deadline comes before what anybody can ask.
                biased;
                () = shared.stopped() => return,
                notice = next(&mut self.assets.link) => match notice {
                    Some(notice) => self.notice(notice).await,
                    None => if !self.outlive_store().await {
                        self.leave().await;
                        return;
                    },
                },
                Some(order) = self.orders.1.recv() => self.obey(order).await,
                () = at(self.assets.retry) => if !self.retry().await {
                    self.leave().await;
                    return;
                },
                () = at(self.assets.pulse) => self.vouch(),
                () = opened(&self.assets.door) => self.knock().await,
                () = at(self.assets.knock) => {
                    self.assets.knock = None;
                    self.knock().await;
                },
                ask = self.asks.recv() => match ask {
                    Some(Ask::Status(reply)) if reply.is_closed() => {}
                    Some(Ask::Status(reply)) => drop(reply.send(self.status().await)),
                    Some(Ask::Recover(reply)) => drop(reply.send(self.recover().await)),
                    Some(Ask::Retarget(wanted, reply)) => drop(reply.send(self.retarget(*wanted).await)),
                    Some(Ask::SetPolicy(patch, reply)) => drop(reply.send(self.set_policy(patch).await)),
                    Some(Ask::Follow(policy, source, reply)) => {
                        drop(reply.send(self.follow(&policy, source).await));
                    }
                    Some(Ask::Unmount { lazy, reply }) => {
                        let unmounted = self.unmount(lazy).await;
                        let gone = unmounted.is_ok();
                        if gone {
                            let name = &self.handle.name;
                            tracing::info!(mount = %name, "mount {name} is unmounted");
                            self.leave().await;
                        }
                        drop(reply.send(unmounted));
                        if gone {
                            return;
                        }
                    }
                    None => return,
                },
            }
        }
    }

    pub(super) async fn status(&mut self) -> Result<memcharge_policy::link::StoreStatus> {
        match &mut self.assets.link {
            Some(link) => link.status(crate::store_link::ANSWER_LIMIT).await,
            None => {
                let state = self.view.borrow().state.word();
                Err(DaemonError::NotActive { name: self.handle.name.to_string(), state })
            }
        }
    }

    async fn unmount(&mut self, lazy: bool) -> Result<()> {
        let Some(mut record) = self.assets.record.clone() else { return Ok(()) };
        // Behind a mount whose store has ended there are no data that anybody could still use. One that has failed may
        // still have a store, and users.
        let unit = self.handle.name.unit();
        let dead = self.shared.systemd.state(&unit).await? == UnitState::Down;
        may_die("unmount.begun");
        // Before it is unmounted: a store whose mount is over ends by itself.
        self.call_in().await;
        release(&self.shared, &record, lazy || dead).await?;
        may_die("unmount.released");
        if record.recovering || record.moving {
            // What was to be recovered is given up: now all of it goes.
            (record.recovering, record.moving) = (false, false);
            record::write(&record)?;
        }
        self.step(Event::Ending).await;
        let cleared = clear(&self.shared, &record).await;
        self.hear_out().await;
        match cleared {
            Ok(()) => {
                may_die("unmount.cleared");
                Ok(())
            }
            Err(error) => {
                self.step(Event::NotEnded(error.to_string())).await;
                Err(error)
            }
        }
    }

    /// Goes to the next state and says so. Returns whether the mount is still there.
    pub(super) async fn step(&mut self, event: Event) -> bool {
        let before = self.view.borrow().clone();
        let Some(state) = before.state.clone().after(event) else { return false };
        if state == before.state {
            return true;
        }
        self.view.send_modify(|view| {
            if matches!(state, State::Failed(_))
                && let Some(placement) = &mut view.placement
            {
                placement.store_pid = None;
            }
            view.state = state;
        });
        let after = self.view.borrow().clone();
        self.assets.pulse = matches!(after.state, State::Frozen(_)).then(Instant::now);
        let name = &self.handle.name;
        match &after.state {
            State::Active => tracing::info!(mount = %name, "mount {name} is active on {}", after.place()),
            State::Failed(reason) => tracing::error!(mount = %name, "mount {name} has failed: {reason}"),
            State::Waiting(reason) => tracing::info!(mount = %name, "mount {name} waits: {reason}"),
            State::Throttled(reason) | State::Frozen(reason) | State::Degraded(reason) => {
                tracing::warn!(mount = %name, "mount {name} is {}: {reason}", after.state.word());
            }
            State::Activating | State::Deactivating => {}
        }
        self.shared.publisher.changed(&self.handle.name, &before, &after).await;
        // Without a table the daemon is exiting.
        drop(self.notices.send(Notice::Changed).await);
        true
    }

    /// Changes what the mount shows, and says what has become different.
    pub(super) async fn show(&self, change: impl FnOnce(&mut MountView)) {
        let before = self.view.borrow().clone();
        self.view.send_modify(change);
        let after = self.view.borrow().clone();
        self.shared.publisher.changed(&self.handle.name, &before, &after).await;
    }

    /// The mount is gone: so are its object and its place in the table.
    async fn leave(&mut self) {
        let name = self.handle.name.clone();
        self.part().await;
        // Nobody else holds the data by now: with this their memory is free.
        self.assets.backing = None;
        if let Some(record) = &self.assets.record {
            keeper::forget(record.slot);
            self.shared.ledger.0.release(record.slot);
        }
        self.shared.publisher.remove(&name, self.assets.announced).await;
        drop(self.notices.send(Notice::Ended(name)).await);
    }
}

/// Where a mount and its store are.
pub(super) fn placement(record: &MountRecord, pid: u32) -> Placement {
    Placement {
        mounted_on: record.mounted_on.clone(),
        target_id: record.target_id,
        leaf: record.leaf.clone(),
        previous: record.previous.clone(),
        cap: record.cap,
        made_usec: record.made_usec,
        store_pid: Some(pid),
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What the store tells; `None`: it has closed the connection.
async fn next(link: &mut Option<Link>) -> Option<memcharge_policy::link::Notice> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}
