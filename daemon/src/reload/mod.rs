//! The configuration in force, and how another one takes its place: read as a whole, compared with what is there, done
//! mount by mount. One task does it, one reload after the other; everybody else goes on meanwhile.

mod diff;
mod left;

use std::sync::Arc;

use futures_util::future::join_all;
use memcharge_config::{LoadedMount, MainSettings, Roots};
use memcharge_faults::may_die;
use memcharge_policy::MountName;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot, watch};

pub(crate) use self::left::invalid;
use self::{
    diff::{Found, Plan, diff},
    left::{Left, incomplete},
};
use crate::{
    bus::Publisher,
    error::{DaemonError, Result},
    history::HistoryHandle,
    mounts::{Request, TableHandle},
    record, settings,
};

/// Reloads that wait. Each reads what is on disk when its turn comes, so that more would do no more.
const WAITING: usize = 16;

/// What is in force beside the mounts.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    /// The daemon's own settings.
    pub(crate) main: MainSettings,
    /// 1 at the start; one more for each reload that has changed something.
    pub(crate) generation: u64,
}

/// Who asks for a reload; nobody waits for one that a signal has asked for.
type Ask = Option<oneshot::Sender<Result<()>>>;

/// A way to ask for a reload, and to see what is in force.
#[derive(Debug, Clone)]
pub(crate) struct ReloadHandle {
    asks: mpsc::Sender<Ask>,
    in_force: watch::Receiver<InForce>,
    files: Arc<Mutex<()>>,
}

impl ReloadHandle {
    /// Puts what is on disk in force; returns when that is done.
    pub(crate) async fn reload(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Some(reply)).await.map_err(|_| DaemonError::Stopping)?;
        answer.await.map_err(|_| DaemonError::Stopping)?
    }

    /// The same for a signal, which waits for nothing.
    pub(crate) fn signal(&self) {
        // Where so many wait, the last of them reads what is there now.
        drop(self.asks.try_send(None));
    }

    /// What is in force.
    pub(crate) fn in_force(&self) -> InForce {
        self.in_force.borrow().clone()
    }

    /// Nothing is reloaded as long as this is held: who makes a mount and its file has one of them before the other.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.files.lock().await
    }

    /// A way to ask nobody.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let in_force = InForce { main: MainSettings::default(), generation: 1 };
        Self { asks: mpsc::channel(1).0, in_force: watch::channel(in_force).1, files: Arc::default() }
    }
}

/// What a reload needs.
#[derive(Debug)]
pub(crate) struct Means {
    /// Where configuration is read.
    pub(crate) roots: Roots,
    /// The mounts.
    pub(crate) table: TableHandle,
    /// The record of arbitrations.
    pub(crate) history: HistoryHandle,
    /// The objects on the bus.
    pub(crate) publisher: Publisher,
}

/// The one who reloads.
#[derive(Debug)]
pub(crate) struct Reloader {
    means: Means,
    asks: mpsc::Receiver<Ask>,
    in_force: watch::Sender<InForce>,
    files: Arc<Mutex<()>>,
}

impl Reloader {
    /// With `main` in force.
    pub(crate) fn new(means: Means, main: MainSettings) -> (Self, ReloadHandle) {
        let (asks, receiver) = mpsc::channel(WAITING);
        let (in_force, seen) = watch::channel(InForce { main, generation: 1 });
        let files = Arc::<Mutex<()>>::default();
        let handle = ReloadHandle { asks, in_force: seen, files: Arc::clone(&files) };
        (Self { means, asks: receiver, in_force, files }, handle)
    }

    /// Runs until the daemon is about to exit. `started` becomes true when the configuration that it was started with is
    /// in force.
    pub(crate) async fn run(
        mut self,
        mut started: watch::Receiver<bool>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let work = async {
            if started.wait_for(|started| *started).await.is_err() {
                return;
            }
            while let Some(reply) = self.asks.recv().await {
                let done = self.reload().await;
                if let Some(reply) = reply {
                    // Whoever asked may be gone.
                    drop(reply.send(done));
                }
            }
        };
        tokio::select! {
            () = work => {}
            // An error means that the sender is gone: the daemon is exiting too.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn reload(&self) -> Result<()> {
        let files = Arc::clone(&self.files);
        let _held = files.lock().await;
        let loaded = match settings::load_in_time(&self.means.roots).await? {
            Ok(loaded) => loaded,
            Err(errors) => {
                for error in &errors {
                    tracing::error!("{error}");
                }
                tracing::error!(
                    "reload: the configuration has {} error(s); nothing was changed",
                    errors.len()
                );
                return Err(invalid(&errors));
            }
        };
        let mounts = self.means.table.list().await?;
        let found = mounts
            .iter()
            .map(|mount| Found { view: mount.view(), recorded: record::exists(mount.name()) })
            .collect::<Vec<_>>();
        let plan = diff(&found, loaded.mounts);
        may_die("reload.planned");
        let mut changed = self.take_main(loaded.main).await;
        let left = self.carry_out(plan, &mut changed).await;
        for left in &left {
            tracing::warn!(mount = %left.name(), "{left}");
        }
        if changed {
            self.in_force.send_modify(|in_force| in_force.generation += 1);
            let generation = self.in_force.borrow().generation;
            self.means.publisher.generation(generation).await;
        }
        tracing::info!("reload: {}", outcome(changed, left.len()));
        incomplete(&left).map_or(Ok(()), Err)
    }

    /// Returns whether something is different.
    async fn take_main(&self, main: MainSettings) -> bool {
        let old = self.in_force.borrow().main.clone();
        if old == main {
            return false;
        }
        if old.log_level != main.log_level {
            crate::logging::set_level(main.log_level);
        }
        if old.history != main.history {
            self.means.history.bound(main.history).await;
        }
        self.in_force.send_modify(|in_force| in_force.main = main);
        true
    }

    /// Does what is to be done, and returns what is left. What ends goes first: its place and its name may be wanted. The
    /// mounts of each step go at once: one that takes long, or fails, does not hold up the others.
    async fn carry_out(&self, plan: Plan, changed: &mut bool) -> Vec<Left> {
        let Plan { gone, again, follow, make, mut left } = plan;
        let cleared = again.iter().map(|mount| self.end(mount.policy.name.clone()));
        // There was nothing of them: whether they can be made is what counts.
        drop(join_all(cleared).await);
        may_die("reload.cleared");
        let ended = join_all(gone.into_iter().map(|name| self.end(name))).await;
        may_die("reload.ended");
        let followed = join_all(follow.into_iter().map(|mount| self.follow(mount))).await;
        may_die("reload.followed");
        let made = join_all(again.into_iter().chain(make).map(|mount| self.make(mount))).await;
        may_die("reload.made");
        for done in ended.into_iter().chain(followed).chain(made) {
            match done {
                Ok(()) => *changed = true,
                Err(undone) => left.push(undone),
            }
        }
        left
    }

    async fn end(&self, name: MountName) -> Result<(), Left> {
        let ended = async { self.means.table.find(&name).await?.unmount(false).await };
        match ended.await {
            // Somebody else was faster.
            Ok(()) | Err(DaemonError::NoSuchMount { .. }) => Ok(()),
            Err(error) => Err(Left::kept(name, &error)),
        }
    }

    async fn follow(&self, mount: LoadedMount) -> Result<(), Left> {
        let (name, source) = (mount.policy.name.clone(), settings::source(&mount));
        let followed = async { self.means.table.find(&name).await?.follow(mount.policy, source).await };
        let undone = |error: DaemonError| (name.clone(), error.to_string());
        followed.await.map_err(undone).map_err(|(name, why)| Left::Undone { name, what: "changed", why })
    }

    async fn make(&self, mount: LoadedMount) -> Result<(), Left> {
        let (name, source) = (mount.policy.name.clone(), settings::source(&mount));
        let request =
            Request { policy: mount.policy, source, keep_failed: true, wait: true, on_behalf: None };
        let made = self.means.table.create(request).await;
        made.map_err(|error| Left::Undone { name, what: "made", why: error.to_string() })
    }
}

fn outcome(changed: bool, left: usize) -> String {
    let what = if changed { "another configuration is in force" } else { "nothing has changed" };
    match left {
        0 => what.to_owned(),
        left => format!("{what}; {left} thing(s) could not be done"),
    }
}
