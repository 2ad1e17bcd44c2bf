//! The actor of one mount: makes it or finds it again, watches its store, ends it.

use std::sync::Arc;

use memcharge_policy::{MountName, link::MountRecord};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Shared,
    adopt::{Adopted, adopt},
    attach::{Attached, attach},
    detach::{clear, release},
    handle::{Ask, MountHandle},
    state::{Event, MountView, Placement, State},
    table::Notice,
};
use crate::{
    error::{DaemonError, Result},
    placement::systemd::UnitState,
    record,
    store_link::{CONNECT_LIMIT, Link},
};

/// How a mount comes to be.
#[derive(Debug)]
pub(super) enum Start {
    /// It is made. `keep_failed`: it stays in the list if that fails.
    Make {
        /// Whether it stays in the list.
        keep_failed: bool,
    },
    /// It is on record.
    Adopt(Box<MountRecord>),
}

/// The one owner of a mount.
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: MountHandle,
    pub(super) view: watch::Sender<MountView>,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) assets: Assets,
}

/// What there is of a mount.
#[derive(Debug, Default)]
pub(super) struct Assets {
    record: Option<MountRecord>,
    link: Option<Link>,
    announced: bool,
}

/// Why a mount has failed whose store is gone.
pub(super) fn lost(name: &MountName) -> String {
    let unit = name.unit();
    format!(
        "the store process ended unexpectedly (its data are lost); `memchargectl unmount {name}` clears it; see \
         `journalctl -u {unit}`"
    )
}

impl Actor {
    /// Runs until the mount is gone or the daemon is about to exit. `settled` gets what became of the start.
    pub(super) async fn run(mut self, start: Start, settled: oneshot::Sender<Result<()>>) {
        self.shared.publisher.add(&self.handle).await;
        let (event, outcome) = self.start(start).await;
        let there = self.step(event).await;
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
            Start::Make { keep_failed } => {
                let (policy, fragment) = {
                    let view = self.view.borrow();
                    (view.policy.clone(), view.source.fragment.clone())
                };
                match attach(&shared, &policy, &fragment).await {
                    Ok(attached) => (self.take(attached), Ok(())),
                    Err(error) => {
                        let keep = keep_failed && !matches!(error, DaemonError::Stopping);
                        (Event::NotAttached { reason: error.to_string(), keep }, Err(error))
                    }
                }
            }
            Start::Adopt(record) => match adopt(&shared, (*record).clone()).await {
                Ok(Adopted::Active(attached)) => (self.take(*attached), Ok(())),
                Ok(Adopted::Broken(reason)) => {
                    self.assets.record = Some(*record);
                    (Event::NotAttached { reason, keep: true }, Ok(()))
                }
                Ok(Adopted::Cleared) => {
                    let name = &self.handle.name;
                    tracing::info!(mount = %name, "mount {name} was not mounted any more; what was left is removed");
                    (Event::Ended, Ok(()))
                }
                Err(error) => {
                    self.assets.record = Some(*record);
                    (Event::NotAttached { reason: error.to_string(), keep: true }, Err(error))
                }
            },
        }
    }

    fn take(&mut self, attached: Attached) -> Event {
        let Attached { record, pid, link } = attached;
        let placement = Placement {
            mounted_on: record.mounted_on.clone(),
            target_id: record.target_id,
            leaf: record.leaf.clone(),
            cap: record.cap,
            store_pid: Some(pid),
        };
        self.view.send_modify(|view| view.placement = Some(placement));
        self.assets = Assets { record: Some(record), link: Some(link), announced: false };
        Event::Attached
    }

    async fn serve(&mut self) {
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(Ask::Status(reply)) => drop(reply.send(self.status().await)),
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
                () = closed(&mut self.assets.link) => if !self.outlive_store().await {
                    self.leave().await;
                    return;
                },
                () = shared.stopped() => return,
            }
        }
    }

    async fn status(&mut self) -> Result<memcharge_policy::link::StoreStatus> {
        match &mut self.assets.link {
            Some(link) => link.status(crate::store_link::ANSWER_LIMIT).await,
            None => {
                let state = self.view.borrow().state.word();
                Err(DaemonError::NotActive { name: self.handle.name.to_string(), state })
            }
        }
    }

    async fn unmount(&mut self, lazy: bool) -> Result<()> {
        let Some(record) = self.assets.record.clone() else { return Ok(()) };
        // Behind a mount whose store has ended there are no data that anybody could still use. One that has failed may
        // still have a store, and users.
        let unit = self.handle.name.unit();
        let dead = self.shared.systemd.state(&unit).await? == UnitState::Down;
        release(&record, lazy || dead).await?;
        self.step(Event::Ending).await;
        self.assets.link = None;
        match clear(&self.shared, &record).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.step(Event::NotEnded(error.to_string())).await;
                Err(error)
            }
        }
    }

    /// The store has closed its connection. Returns whether there is still a mount to keep.
    async fn outlive_store(&mut self) -> bool {
        let name = self.handle.name.clone();
        self.assets.link = self.reconnect().await;
        if self.assets.link.is_some() {
            return true;
        }
        // What undoes the mount runs before its unit is down.
        if let Err(error) = self.shared.systemd.wait_down(&name.unit()).await {
            tracing::warn!(mount = %name, "mount {name}: {error}");
        }
        if record::exists(&name) {
            return self.step(Event::StoreLost(lost(&name))).await;
        }
        tracing::info!(mount = %name, "mount {name}: its store was stopped");
        false
    }

    async fn reconnect(&self) -> Option<Link> {
        let mut link = Link::connect(&self.handle.name).await.ok()?;
        link.status(CONNECT_LIMIT).await.ok()?;
        Some(link)
    }

    /// Goes to the next state and says so. Returns whether the mount is still there.
    async fn step(&mut self, event: Event) -> bool {
        let before = self.view.borrow().clone();
        let Some(state) = before.state.clone().after(event) else { return false };
        self.view.send_modify(|view| {
            if matches!(state, State::Failed(_))
                && let Some(placement) = &mut view.placement
            {
                placement.store_pid = None;
            }
            view.state = state;
        });
        let after = self.view.borrow().clone();
        let name = &self.handle.name;
        match &after.state {
            State::Active => tracing::info!(mount = %name, "mount {name} is active on {}", after.place()),
            State::Failed(reason) => tracing::error!(mount = %name, "mount {name} has failed: {reason}"),
            State::Activating | State::Deactivating => {}
        }
        self.shared.publisher.changed(&self.handle.name, &before, &after).await;
        // Without a table the daemon is exiting.
        drop(self.notices.send(Notice::Changed).await);
        true
    }

    /// The mount is gone: so are its object and its place in the table.
    async fn leave(&mut self) {
        let name = self.handle.name.clone();
        self.shared.publisher.remove(&name, self.assets.announced).await;
        drop(self.notices.send(Notice::Ended(name)).await);
    }
}

async fn closed(link: &mut Option<Link>) {
    match link {
        Some(link) => link.closed().await,
        None => std::future::pending().await,
    }
}
