//! Starting a mount's store, in the cgroup that pays.
//!
//! In a slice systemd puts it there, and knows when it serves. Below a bare cgroup the process is moved by hand. It can
//! be moved only when the program runs: until then systemd's own code in that process moves itself into the unit's
//! cgroup, at a moment that nobody is told. So there the unit has the type `exec`, and the store says by its socket
//! that it serves.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use memcharge_faults::may_die;
use memcharge_policy::link::{Handover, MountRecord};
use tokio::time::timeout;

use super::{Shared, blocking, undo::Undo};
use crate::{
    attach::backing::Backing,
    error::{DaemonError, Result},
    placement::{
        handover::{self, Channel, make_channel},
        raw::{leaf_name, move_into},
        systemd::{UNIT_LIMIT, UnitState},
        target::{Site, is_raw, is_unit},
        unit::store_properties,
    },
    store_link::Link,
};

/// How long a store may take until it serves: the limit of its unit, and what systemd needs to act on that.
const START_LIMIT: Duration = Duration::from_secs(65);

/// How long systemd may take to notice that a process has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Where a store looks for who was refused.
const PROC: &str = "/proc";

/// What goes to the store.
#[derive(Debug)]
pub(super) struct Parts {
    /// Where the data are.
    pub(super) backing: Backing,
    /// The connection of the mount that it serves.
    pub(super) connection: OwnedFd,
    /// Where it answers.
    pub(super) listener: OwnedFd,
    /// The state of the store before it, if there was one.
    pub(super) state: Option<OwnedFd>,
    /// What it shall do.
    pub(super) handover: Handover,
}

/// A store that serves.
#[derive(Debug)]
pub(super) struct Launched {
    /// The data.
    pub(super) backing: Backing,
    /// Its process.
    pub(super) pid: u32,
    /// The connection to it.
    pub(super) link: Link,
}

/// Starts the store and returns when it serves. What it was given for the connection is its alone by then: the mount lives
/// as long as anybody has that.
pub(super) async fn launch(
    shared: &Shared,
    record: &MountRecord,
    site: Option<Site>,
    parts: Parts,
    undo: &mut Undo,
) -> Result<Launched> {
    let (systemd, unit) = (&shared.systemd, record.policy.name.unit());
    warm(&shared.store).await?;
    let Channel { daemon, store } = make_channel()?;
    let raw = is_raw(&record.policy.target);
    // Sent once: a store that is killed before the mount is there, and started again, finds the end of the channel.
    let mut daemon = Some(daemon);
    if !raw && let Some(daemon) = daemon.take() {
        parts.send(&daemon, shared)?;
    }
    undo.unit = Some(unit.clone());
    let properties =
        store_properties(&record.policy.name, &record.policy.target, &shared.store, store.as_fd());
    let job = systemd.start_transient(&unit, &properties).await?;
    may_die("mount.started");
    systemd.expect_done(job, START_LIMIT).await?;
    let placed = match site {
        Some(site) if raw => place(shared, record, site, undo).await,
        // systemd has put it there, or its target is not there yet.
        _ => Ok(()),
    };
    let served = async {
        placed?;
        check_leaf(shared, record).await?;
        may_die("mount.placed");
        if let Some(daemon) = daemon {
            // The store waits for this, so that it allocates nothing before it is where it belongs.
            parts.send(&daemon, shared)?;
        }
        // With them here a store that ends would leave its socket open, and its mount alive.
        let Parts { backing, connection, listener, state, handover: _ } = parts;
        drop((store, connection, listener, state));
        may_die("mount.sent");
        let mut link = Link::connect(&record.policy.name).await?;
        link.status(START_LIMIT).await?;
        // Now: a store that was killed while it started has another one in its place.
        let pid = check_leaf(shared, record).await?;
        Ok(Launched { pid, link, backing })
    };
    let served = tokio::select! {
        served = served => served,
        () = ended(shared, &unit) => Err(early_end(record)),
    };
    match served {
        Ok(launched) => {
            systemd.let_go(&unit).await;
            Ok(launched)
        }
        Err(error) => Err(explain(shared, unit, error).await),
    }
}

impl Parts {
    fn send(&self, daemon: &OwnedFd, shared: &Shared) -> Result<()> {
        let [mount, root, ballast] = self.backing.all();
        let (listener, ledger) = (self.listener.as_fd(), shared.ledger.1.as_fd());
        // A store sees few processes of its own /proc.
        let proc = File::open(PROC).map_err(DaemonError::io("open", PROC))?;
        let fds = [self.connection.as_fd(), mount, root, ballast, listener, ledger, proc.as_fd()];
        handover::send(daemon.as_fd(), &self.handover, fds, self.state.as_ref().map(AsFd::as_fd))
    }
}

/// Reads the store's program from here: whoever reads a file first pays for its cache, and that must not be the
/// target.
async fn warm(store: &str) -> Result<()> {
    let store = store.to_owned();
    blocking("reading the store's program", move || {
        std::fs::read(&store).map(drop).map_err(DaemonError::io("read", store))
    })
    .await
}

/// Moves the store into a cgroup of its own below the target.
async fn place(shared: &Shared, record: &MountRecord, site: Site, undo: &mut Undo) -> Result<()> {
    let pid = main_pid(shared, record).await?;
    if is_unit(&record.policy.target) {
        return move_into(&site.cgroup, pid);
    }
    let leaf = leaf_name(&record.policy.name);
    let (leaf_cgroup, _) = site.cgroup.make_child(&leaf)?;
    undo.leaf = Some((site.cgroup, leaf));
    leaf_cgroup.forbid_swap()?;
    move_into(&leaf_cgroup, pid)
}

/// Checks that the store is where it pays for the mount, and returns its process.
async fn check_leaf(shared: &Shared, record: &MountRecord) -> Result<u32> {
    let pid = main_pid(shared, record).await?;
    let cgroup = shared.hierarchy.open_of(Some(pid))?;
    if !record.leaf.is_empty() && cgroup.path() != record.leaf {
        let what = format!("is in the cgroup {}, not in {}", cgroup.path(), record.leaf);
        return Err(DaemonError::Store { name: record.policy.name.to_string(), what });
    }
    Ok(pid)
}

async fn main_pid(shared: &Shared, record: &MountRecord) -> Result<u32> {
    let name = &record.policy.name;
    let pid = timeout(UNIT_LIMIT, shared.systemd.main_pid(&name.unit())).await;
    match pid.map_err(|_| DaemonError::Late { what: "systemd's answer".into(), limit: UNIT_LIMIT })?? {
        0 => Err(early_end(record)),
        pid => Ok(pid),
    }
}

fn early_end(record: &MountRecord) -> DaemonError {
    let what = "ended as soon as it had started".to_owned();
    DaemonError::Store { name: record.policy.name.to_string(), what }
}

/// Returns when a unit is down, and never where that cannot be watched: other limits count then.
async fn ended(shared: &Shared, unit: &str) {
    if shared.systemd.wait_down(unit).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What does not work with a store has often to do with its end, and then its unit knows why.
async fn explain(shared: &Shared, unit: String, error: DaemonError) -> DaemonError {
    let systemd = &shared.systemd;
    let down = timeout(GRACE, systemd.wait_down(&unit)).await;
    if !matches!(down, Ok(Ok(()))) || !matches!(systemd.state(&unit).await, Ok(UnitState::Down)) {
        return error;
    }
    match systemd.result(&unit).await {
        Ok(result) => DaemonError::Unit { unit, action: "start", job: "done".to_owned(), result },
        Err(_) => error,
    }
}
