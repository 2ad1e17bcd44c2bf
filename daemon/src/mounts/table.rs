//! All mounts by name. One task owns the table; it never waits for a mount.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use memcharge_cgroup::User;
use memcharge_policy::{MountName, MountPolicy, link::MountRecord, mountinfo::is_within};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Shared,
    actor::{Actor, Assets, Start},
    handle::MountHandle,
    state::{MountView, Source, summarize},
};
use crate::{
    error::{DaemonError, Result},
    keeper::Held,
    notify,
};

/// No machine has more; the table must not grow without end.
const MAX_MOUNTS: usize = 1024;

/// A user who is not root must not take all places.
const MAX_MOUNTS_OF_A_USER: usize = 16;

/// Questions that wait for the table, or for one actor.
const QUEUE: usize = 64;

/// What a target and the history tell one actor, and it has not read yet.
const ORDERS: usize = 256;

/// How long mounts that are being made or ended may take to stop when the daemon is about to exit.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A mount that shall be made.
#[derive(Debug)]
pub(crate) struct Request {
    /// What was decided about it.
    pub(crate) policy: MountPolicy,
    /// Where that comes from.
    pub(crate) source: Source,
    /// Whether it stays in the list if it cannot be made.
    pub(crate) keep_failed: bool,
    /// Whether it is made also if its target is not there yet.
    pub(crate) wait: bool,
    /// The user for whom it is made, who must be allowed to have all of it; `None`: root.
    pub(crate) on_behalf: Option<User>,
}

/// A question to the table.
#[derive(Debug)]
enum Ask {
    Create(Box<Request>, oneshot::Sender<Result<()>>),
    Adopt(Box<(MountRecord, Held)>, Source, oneshot::Sender<Result<()>>),
    Find(MountName, oneshot::Sender<Option<MountHandle>>),
    List(oneshot::Sender<Vec<MountHandle>>),
}

/// What an actor tells the table.
#[derive(Debug)]
pub(super) enum Notice {
    /// Its mount's state has changed.
    Changed,
    /// Its mount is gone.
    Ended(MountName),
}

/// A way to ask the table.
#[derive(Debug, Clone)]
pub(crate) struct TableHandle {
    asks: mpsc::Sender<Ask>,
}

impl TableHandle {
    /// A way to ask nobody.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self { asks: mpsc::channel(1).0 }
    }

    /// Makes a mount; returns when it is usable.
    pub(crate) async fn create(&self, request: Request) -> Result<()> {
        self.ask(|reply| Ask::Create(Box::new(request), reply)).await?
    }

    /// Finds a mount again that is on record; returns when it is clear what became of it. `held`: what was kept of
    /// it.
    pub(crate) async fn adopt(&self, record: MountRecord, held: Held, source: Source) -> Result<()> {
        self.ask(|reply| Ask::Adopt(Box::new((record, held)), source, reply)).await?
    }

    /// The mount of this name.
    pub(crate) async fn find(&self, name: &MountName) -> Result<MountHandle> {
        let found = self.ask(|reply| Ask::Find(name.clone(), reply)).await?;
        found.ok_or_else(|| DaemonError::NoSuchMount { name: name.to_string() })
    }

    /// All mounts, ordered by name.
    pub(crate) async fn list(&self) -> Result<Vec<MountHandle>> {
        self.ask(Ask::List).await
    }

    /// The mount that holds an absolute path, by its name alone: nothing is looked up in the file system.
    pub(crate) async fn find_by_path(&self, path: &str) -> Result<MountHandle> {
        let mounts = self.list().await?;
        let places = mounts.iter().map(|mount| mount.view().place().to_owned()).collect::<Vec<_>>();
        let longest = longest_prefix(path, places.iter().map(String::as_str));
        let found = longest.and_then(|at| mounts.into_iter().nth(at));
        found.ok_or_else(|| DaemonError::NoMountAt { path: path.to_owned() })
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| DaemonError::Stopping)?;
        answer.await.map_err(|_| DaemonError::Stopping)
    }
}

/// The place among `places` that is the longest prefix of `path`, by components.
fn longest_prefix<'a>(path: &str, places: impl Iterator<Item = &'a str>) -> Option<usize> {
    let path = std::path::Path::new(path);
    if !path.is_absolute() {
        return None;
    }
    let within = places.enumerate().filter(|(_, place)| path.starts_with(place));
    within.max_by_key(|(_, place)| std::path::Path::new(place).components().count()).map(|(at, _)| at)
}

/// The owner of all mounts.
#[derive(Debug)]
pub(crate) struct Table {
    shared: Arc<Shared>,
    mounts: BTreeMap<MountName, MountHandle>,
    actors: JoinSet<()>,
    asks: mpsc::Receiver<Ask>,
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    status: String,
}

impl Table {
    /// An empty table, and a way to ask it.
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, TableHandle) {
        let (asks, receiver) = mpsc::channel(QUEUE);
        let table = Self {
            shared,
            mounts: BTreeMap::new(),
            actors: JoinSet::new(),
            asks: receiver,
            notices: mpsc::channel(QUEUE),
            status: String::new(),
        };
        (table, TableHandle { asks })
    }

    /// Runs until the daemon is about to exit; then waits for what is being made or ended.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                // A mount whose end was told has no place here any more when its name is asked for again.
                biased;
                () = shared.stopped() => break,
                Some(notice) = self.notices.1.recv() => self.take(notice),
                Some(ask) = self.asks.recv() => self.answer(ask),
                Some(_) = self.actors.join_next() => {}
            }
        }
        let Self { mut actors, notices, .. } = self;
        // Nobody reads notices any more: an actor must not wait for that.
        drop(notices);
        if timeout(STOP_LIMIT, async { while actors.join_next().await.is_some() {} }).await.is_err() {
            tracing::error!("a mount is still being made or ended; the next memcharged will see to it");
        }
    }

    fn answer(&mut self, ask: Ask) {
        // Whoever asked may be gone.
        match ask {
            Ask::Create(request, reply) => match self.check(&request) {
                Ok(()) => {
                    let Request { policy, source, keep_failed, wait, on_behalf } = *request;
                    let owner = on_behalf.as_ref().map_or(0, |user| user.uid);
                    let view = MountView { owner, ..MountView::new(policy, source) };
                    self.spawn(view, Start::Make { keep_failed, wait, on_behalf }, reply);
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Ask::Adopt(found, source, reply) => {
                let (record, held) = *found;
                let mut view = MountView::new(record.policy.clone(), source);
                view.owner = record.owner;
                if let Some(base) = record.base.clone() {
                    view.base = Arc::new(base);
                }
                self.spawn(view, Start::Adopt(Box::new(record), held), reply);
            }
            Ask::Find(name, reply) => drop(reply.send(self.mounts.get(&name).cloned())),
            Ask::List(reply) => drop(reply.send(self.mounts.values().cloned().collect())),
        }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let (policy, name) = (&request.policy, &request.policy.name);
        if let Some(mount) = self.mounts.get(name) {
            let (place, state) = (mount.view().place().to_owned(), mount.view().state.word());
            let why = format!("its mount on {place} is {state}; `memchargectl unmount {name}` ends it");
            return Err(DaemonError::NameTaken { name: name.to_string(), why });
        }
        if self.mounts.len() >= MAX_MOUNTS {
            return Err(DaemonError::TooMany(MAX_MOUNTS));
        }
        if let Some(User { uid, .. }) = request.on_behalf
            && self.mounts.values().filter(|mount| mount.view().owner == uid).count() >= MAX_MOUNTS_OF_A_USER
        {
            return Err(DaemonError::TooManyOf { uid, limit: MAX_MOUNTS_OF_A_USER });
        }
        let clashes = |place: &str| is_within(place, &policy.place) || is_within(&policy.place, place);
        if let Some(other) = self.mounts.values().find(|mount| clashes(&mount.view().policy.place)) {
            let why = format!(
                "is, holds or is in the place of the mount {}, {}; give another directory",
                other.name(),
                other.view().policy.place
            );
            return Err(DaemonError::MountPointBusy { path: policy.place.clone(), why });
        }
        Ok(())
    }

    fn spawn(&mut self, view: MountView, start: Start, settled: oneshot::Sender<Result<()>>) {
        let name = view.policy.name.clone();
        let (asks, receiver) = mpsc::channel(QUEUE);
        let (view, watched) = watch::channel(view);
        let handle = MountHandle { name: name.clone(), view: watched, asks };
        let actor = Actor {
            shared: self.shared.clone(),
            handle: handle.clone(),
            view,
            asks: receiver,
            notices: self.notices.0.clone(),
            orders: mpsc::channel(ORDERS),
            assets: Assets::default(),
        };
        self.mounts.insert(name, handle);
        self.actors.spawn(actor.run(start, settled));
    }

    fn take(&mut self, notice: Notice) {
        if let Notice::Ended(name) = notice {
            self.mounts.remove(&name);
        }
        let states: Vec<_> = self.mounts.values().map(|mount| mount.view().state).collect();
        let status = summarize(&states);
        if status != self.status {
            notify::status(&status);
            self.status = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts_by_components() {
        let places = ["/run/shared/a", "/run/shared/a/b", "/srv"];
        for (path, found) in [
            ("/run/shared/a", Some(0)),
            ("/run/shared/a/x", Some(0)),
            ("/run/shared/a/b/c", Some(1)),
            ("/run/shared/ab", None),
            ("/run/shared", None),
            ("/srv//x", Some(2)),
            ("srv/x", None),
            ("", None),
        ] {
            assert_eq!(longest_prefix(path, places.into_iter()), found, "{path}");
        }
    }
}
