//! The daemon's life: start, signals, exit. Mounts outlive it.

use std::{path::Path, sync::Arc, time::Duration};

use memcharge_cgroup::Hierarchy;
use memcharge_config::{ConfigError, Loaded, LoadedMount, Roots};
use memcharge_dbus::{BUS_NAME, ROOT_PATH};
use memcharge_policy::link::MountRecord;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use zbus::{
    Connection,
    fdo::{ObjectManager, RequestNameFlags, RequestNameReply},
};

use crate::{
    bus::{self, LOG_CONTROL_PATH, LogControl, Manager, Publisher},
    error::{DaemonError, Result},
    history::{self, HistoryHandle, Journal},
    keeper::Kept,
    kill::Killer,
    mounts::{Request, Shared, Source, Table, TableHandle, changed_keys},
    notify,
    placement::systemd::Systemd,
    record,
    reload::{self, ReloadHandle, Reloader},
    settings,
    targets::{Means, Targets, TargetsHandle},
    watch::Watcher,
};

/// Where the history is kept.
const STATE_DIR: &str = "/var/lib/memcharge";

/// The bus answers at once, or is not there.
const BUS_LIMIT: Duration = Duration::from_secs(25);

/// Runs the daemon until it is told to exit.
pub(crate) async fn run(roots: Roots, store: String, dry_run: bool) -> Result<()> {
    let mut kept = Kept::take_all()?;
    let mut signals = Signals::new()?;
    let loaded = settings::load(&roots).map_err(log_errors)?;
    crate::logging::start(loaded.main.log_level);
    record::make_directories()?;
    let connection = connect().await?;
    let (stop, stopping) = watch::channel(false);
    let (set_ready, ready) = watch::channel(false);
    let systemd = timeout(BUS_LIMIT, Systemd::new(&connection)).await.map_err(|_| bus_late())??;
    let history = history::start(Path::new(STATE_DIR), loaded.main.history)?;
    let journal = Arc::new(Journal::new(crate::logging::is_journal())?);
    let publisher = Publisher::new(connection.clone(), history.clone());
    let targets = start_targets(&publisher, &history, &journal)?;
    let shared = Shared {
        systemd,
        hierarchy: Hierarchy::system(),
        ledger: record::open_ledger()?,
        publisher: publisher.clone(),
        targets,
        history: history.clone(),
        journal,
        dry_run,
        store,
        stopping: stopping.clone(),
        slots: Shared::attach_slots(),
    };
    let (table, handle) = Table::new(Arc::new(shared));
    let means =
        reload::Means { roots: roots.clone(), table: handle.clone(), history: history.clone(), publisher };
    let (reloader, reload) = Reloader::new(means, loaded.main.clone());
    signals.reload = Some(reload.clone());
    let manager = Manager { table: handle.clone(), ready, roots, history: history.clone(), dry_run, reload };
    own_name(&connection, manager).await?;
    let table = tokio::spawn(table.run());
    let (set_started, started) = watch::channel(false);
    tokio::spawn(reloader.run(started, stopping));
    let start = async {
        if adopt(&handle, &loaded, &mut kept).await? {
            kept.forget_rest();
        }
        set_ready.send_replace(true);
        make_configured(&handle, loaded).await
    };
    let ended = tokio::select! {
        started = start => match started {
            Ok(()) => {
                notify::ready();
                set_started.send_replace(true);
                signals.serve(&connection, &handle).await
            }
            Err(error) => Err(error),
        },
        ended = signals.wait(&connection) => ended,
    };
    notify::stopping();
    stop.send_replace(true);
    // The table has a limit of its own.
    drop(table.await);
    history.end().await;
    ended
}

fn start_targets(
    publisher: &Publisher,
    history: &HistoryHandle,
    journal: &Arc<Journal>,
) -> Result<TargetsHandle> {
    let hierarchy = Hierarchy::system();
    let means = Means {
        killer: Killer::new(hierarchy.clone()),
        hierarchy,
        watcher: Watcher::start()?,
        publisher: publisher.clone(),
        history: history.clone(),
        journal: Arc::clone(journal),
    };
    let (targets, handle) = Targets::new(means);
    tokio::spawn(targets.run());
    Ok(handle)
}

fn log_errors(errors: Vec<ConfigError>) -> DaemonError {
    crate::logging::start(memcharge_config::LogLevel::Info);
    for error in &errors {
        tracing::error!("{error}");
    }
    DaemonError::Configuration(errors.len())
}

async fn connect() -> Result<Connection> {
    let connected = timeout(BUS_LIMIT, bus::connect()).await.map_err(|_| bus_late())?;
    connected.map_err(DaemonError::bus("connect to the system bus"))
}

fn bus_late() -> DaemonError {
    DaemonError::Late { what: "an answer of the system bus".into(), limit: BUS_LIMIT }
}

/// Shows the root object, then takes the name: from then on calls come in.
async fn own_name(connection: &Connection, manager: Manager) -> Result<()> {
    let failed = || DaemonError::bus::<zbus::Error>(format!("own {BUS_NAME} on the system bus"));
    let server = connection.object_server();
    server.at(ROOT_PATH, manager).await.map_err(failed())?;
    server.at(ROOT_PATH, ObjectManager).await.map_err(failed())?;
    server.at(LOG_CONTROL_PATH, LogControl).await.map_err(failed())?;
    let flags = RequestNameFlags::DoNotQueue.into();
    let name = timeout(BUS_LIMIT, connection.request_name_with_flags(BUS_NAME, flags)).await;
    match name.map_err(|_| bus_late())?.map_err(failed())? {
        RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner => Ok(()),
        RequestNameReply::InQueue | RequestNameReply::Exists => Err(failed()(zbus::Error::NameTaken)),
    }
}

/// Finds the mounts of an earlier daemon again. Returns whether all are known: data of one whose record cannot be read
/// may be among what is kept.
async fn adopt(table: &TableHandle, loaded: &Loaded, kept: &mut Kept) -> Result<bool> {
    let mut adoptions = JoinSet::new();
    let mut all_known = true;
    for found in record::read_all()? {
        let record = match found {
            Ok(record) => record,
            Err(error) => {
                tracing::error!("{error}");
                all_known = false;
                continue;
            }
        };
        let configured = loaded.mounts.iter().find(|mount| mount.policy.name == record.policy.name);
        compare(&record, configured);
        let drop_ins = configured.map(settings::source).unwrap_or_default().drop_ins;
        let source = Source { fragment: record.fragment.clone(), drop_ins };
        let table = table.clone();
        let held = kept.take(record.slot);
        adoptions.spawn(async move {
            let name = record.policy.name.clone();
            if let Err(error) = table.adopt(record, held, source).await {
                tracing::error!(mount = %name, "mount {name}: {error}");
            }
        });
    }
    while adoptions.join_next().await.is_some() {}
    Ok(all_known)
}

fn compare(record: &MountRecord, configured: Option<&LoadedMount>) {
    let name = &record.policy.name;
    match configured {
        Some(mount) => {
            let keys = changed_keys(record.base.as_ref().unwrap_or(&record.policy), &mount.policy).join(", ");
            if !keys.is_empty() {
                tracing::warn!(
                    mount = %name,
                    "mount {name} is in use with its old settings ({keys} differ); `memchargectl reload` applies what can change"
                );
            }
        }
        None if record.fragment.is_empty() => {}
        None => {
            tracing::info!(mount = %name, "mount {name} is not configured any more, and stays until it is unmounted or memcharged reloads")
        }
    }
}

/// Makes the mounts of the configuration that are not there yet. One that fails is kept as failed.
async fn make_configured(table: &TableHandle, loaded: Loaded) -> Result<()> {
    let mut made = JoinSet::new();
    for mount in loaded.mounts {
        if table.find(&mount.policy.name).await.is_ok() {
            continue;
        }
        let source = settings::source(&mount);
        let table = table.clone();
        // What went wrong is logged and shown by the mount itself.
        made.spawn(async move {
            table
                .create(Request {
                    policy: mount.policy,
                    source,
                    keep_failed: true,
                    wait: true,
                    on_behalf: None,
                })
                .await
        });
    }
    while made.join_next().await.is_some() {}
    if table.list().await?.is_empty() {
        notify::status("no mounts configured");
    }
    Ok(())
}

/// What ends the daemon or wakes it up.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Who is told of a hang-up; `None`: nobody yet.
    reload: Option<ReloadHandle>,
    watchdog: Option<Interval>,
}

impl Signals {
    fn new() -> Result<Self> {
        let stream = |kind| signal(kind).map_err(DaemonError::io("wait for", "signals"));
        let watchdog = notify::watchdog_period().map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Ok(Self {
            terminate: stream(SignalKind::terminate())?,
            interrupt: stream(SignalKind::interrupt())?,
            hang_up: stream(SignalKind::hangup())?,
            reload: None,
            watchdog,
        })
    }

    /// Returns when the daemon has to exit.
    async fn wait(&mut self, connection: &Connection) -> Result<()> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                _ = self.hang_up.recv() => self.reload.iter().for_each(ReloadHandle::signal),
                () = tick(&mut self.watchdog) => notify::alive(),
                () = connection.closed() => return Err(lost_bus()),
            }
        }
    }

    /// As [`Signals::wait`]; the watchdog hears from the daemon only as long as its table answers.
    async fn serve(&mut self, connection: &Connection, table: &TableHandle) -> Result<()> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                _ = self.hang_up.recv() => self.reload.iter().for_each(ReloadHandle::signal),
                () = tick(&mut self.watchdog) => {
                    table.list().await?;
                    notify::alive();
                }
                () = connection.closed() => return Err(lost_bus()),
            }
        }
    }
}

fn lost_bus() -> DaemonError {
    DaemonError::bus("go on")(zbus::Error::Failure("the connection to the system bus is closed".to_owned()))
}

async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}
