//! The targets of mounts: one actor for each, which alone arbitrates between its mounts and watches its cgroup.
//!
//! Several mounts can have one target. Whoever makes a mount joins its target; the actor ends when the last one leaves.

mod actor;
mod effects;
mod health;
mod levels;

use std::{collections::BTreeMap, sync::Arc};

use memcharge_cgroup::Hierarchy;
use memcharge_policy::{
    Bytes, MountName,
    arbiter::{Ask, Rules},
    link::Verdict,
    outcome::{EventId, Outcome, Victim},
};
use tokio::sync::{mpsc, oneshot, watch};

use self::actor::{Actor, Say};
pub(crate) use self::health::Health;
use crate::{
    bus::Publisher,
    error::{DaemonError, Result},
    history::{HistoryHandle, Journal},
    kill::Killer,
    watch::Watcher,
};

/// Messages that wait for the registry, or for one target.
const QUEUE: usize = 256;

/// What every target uses.
#[derive(Debug)]
pub(crate) struct Means {
    /// The tree of cgroups.
    pub(crate) hierarchy: Hierarchy,
    /// What wakes an actor when a file of a cgroup changes.
    pub(crate) watcher: Watcher,
    /// Who kills.
    pub(crate) killer: Killer,
    /// The objects on the bus.
    pub(crate) publisher: Publisher,
    /// Where a kill is written down before it is done.
    pub(crate) history: HistoryHandle,
    /// Where it is told.
    pub(crate) journal: Arc<Journal>,
}

/// What a target tells the actor of a mount.
#[derive(Debug)]
pub(crate) enum Order {
    /// The answer to a question of the store.
    Answer {
        /// What the store shall do.
        verdict: Verdict,
        /// Who was killed for it, or under `--dry-run` would have been.
        victim: Option<Victim>,
        /// Under `--dry-run`: how it would have ended.
        would_have: Option<Outcome>,
    },
    /// The store shall give up what is granted and not used.
    Trim,
    /// The target's condition has changed.
    Health {
        /// How it is now.
        health: Health,
        /// Whether the store has to open the target's files again.
        reopen: bool,
    },
    /// A report is recorded.
    Recorded(EventId),
}

/// A mount that joins its target.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) mount: MountName,
    /// The store's own cgroup.
    pub(crate) leaf: String,
    /// What it is told.
    pub(crate) orders: mpsc::Sender<Order>,
}

/// What everybody may know of a target.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetView {
    /// Its mounts.
    pub(crate) mounts: Vec<MountName>,
}

/// A target, as its mounts know it.
#[derive(Debug, Clone)]
pub(crate) struct TargetHandle {
    id: u64,
    says: mpsc::Sender<Say>,
}

impl TargetHandle {
    /// A store has no memory for a charger. `cache_missing`: under `--dry-run`, what reclaim would have been asked for.
    pub(crate) async fn remote_oom(
        &self,
        ask: Ask,
        patience: std::time::Duration,
        cache_missing: Option<Bytes>,
    ) {
        // A target that is gone answers nobody; the store has its own deadline.
        drop(self.says.send(Say::RemoteOom { ask: Box::new(ask), patience, cache_missing }).await);
    }

    /// A store has reported how it ended.
    pub(crate) async fn settled(&self, id: EventId) {
        drop(self.says.send(Say::Settled(id)).await);
    }

    /// The policy of a mount has changed.
    pub(crate) async fn policy(&self, mount: MountName, rules: Rules) {
        drop(self.says.send(Say::Policy(mount, rules)).await);
    }
}

#[derive(Debug)]
enum Request {
    Join { path: String, id: u64, member: Member, reply: oneshot::Sender<Result<TargetHandle>> },
    Leave { id: u64, mount: MountName },
}

/// A way to the targets.
#[derive(Debug, Clone)]
pub(crate) struct TargetsHandle {
    requests: mpsc::Sender<Request>,
    watcher: Watcher,
}

impl TargetsHandle {
    /// What wakes somebody when a file of a cgroup changes.
    pub(crate) fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Joins the target with this cgroup path and id.
    pub(crate) async fn join(&self, path: &str, id: u64, member: Member) -> Result<TargetHandle> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Join { path: path.to_owned(), id, member, reply };
        self.requests.send(request).await.map_err(|_| DaemonError::Stopping)?;
        answer.await.map_err(|_| DaemonError::Stopping)?
    }

    /// A mount leaves its target.
    pub(crate) async fn leave(&self, target: &TargetHandle, mount: &MountName) {
        drop(self.requests.send(Request::Leave { id: target.id, mount: mount.clone() }).await);
    }
}

/// The owner of all targets.
#[derive(Debug)]
pub(crate) struct Targets {
    means: Arc<Means>,
    targets: BTreeMap<u64, Target>,
    requests: mpsc::Receiver<Request>,
}

#[derive(Debug)]
struct Target {
    handle: TargetHandle,
    path: String,
    view: watch::Sender<TargetView>,
}

impl Targets {
    /// No targets yet, and a way to them.
    pub(crate) fn new(means: Means) -> (Self, TargetsHandle) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let watcher = means.watcher.clone();
        let targets = Self { means: Arc::new(means), targets: BTreeMap::new(), requests: receiver };
        (targets, TargetsHandle { requests, watcher })
    }

    /// Runs until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            match request {
                // Whoever asked may be gone.
                Request::Join { path, id, member, reply } => {
                    drop(reply.send(self.join(path, id, member).await))
                }
                Request::Leave { id, mount } => self.leave(id, mount).await,
            }
        }
    }

    async fn join(&mut self, path: String, id: u64, member: Member) -> Result<TargetHandle> {
        if !self.targets.contains_key(&id) {
            let (says, inbox) = mpsc::channel(QUEUE);
            let shown = path.clone();
            let (view, watched) = watch::channel(TargetView::default());
            let actor = Actor::new(Arc::clone(&self.means), path, id, says.downgrade(), inbox);
            // Here, where joining and leaving follow each other: the object of a target that is left must be gone before
            // the next one of the same path is made.
            self.means.publisher.add_target(id, &shown, watched).await;
            tokio::spawn(actor.run());
            self.targets.insert(id, Target { handle: TargetHandle { id, says }, path: shown, view });
        }
        let Some(target) = self.targets.get(&id) else { return Err(DaemonError::Stopping) };
        target.view.send_modify(|view| view.mounts.push(member.mount.clone()));
        let joined = target.handle.says.send(Say::Join(member)).await;
        joined.map_err(|_| DaemonError::Stopping)?;
        Ok(target.handle.clone())
    }

    async fn leave(&mut self, id: u64, mount: MountName) {
        let Some(target) = self.targets.get(&id) else { return };
        target.view.send_modify(|view| view.mounts.retain(|other| *other != mount));
        let last = target.view.borrow().mounts.is_empty();
        drop(target.handle.says.send(Say::Leave(mount)).await);
        if last && let Some(target) = self.targets.remove(&id) {
            self.means.publisher.remove_target(id, &target.path).await;
        }
    }
}
