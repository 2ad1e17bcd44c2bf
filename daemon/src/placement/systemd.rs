//! systemd over the bus: units started and stopped, each with a deadline, without polling.

use std::{future::Future, time::Duration};

use futures_util::StreamExt;
use memcharge_policy::Target;
use tokio::time::timeout;
use zbus::{
    Connection,
    fdo::PropertiesProxy,
    proxy::CacheProperties,
    zvariant::{OwnedObjectPath, Value},
};

use super::unit::{Property, unit_path};
use crate::error::{DaemonError, Result};

/// How long a slice may take to start or stop, and any unit to become what it is about to become.
pub(crate) const UNIT_LIMIT: Duration = Duration::from_secs(30);

/// What systemd is called on the bus.
const SYSTEMD: &str = "org.freedesktop.systemd1";

/// systemd's answer about a unit that is not loaded.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Value<'_>)],
        auxiliary: &[(&str, Vec<(&str, Value<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
    #[zbus(signal)]
    fn unit_removed(&self, id: String, unit: OwnedObjectPath) -> zbus::Result<()>;
}

/// How a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitState {
    /// Not loaded, inactive or failed.
    Down,
    /// Starting, running, reloading or stopping.
    Up,
}

/// The system's service manager.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    manager: ManagerProxy<'static>,
}

/// A job that systemd is running.
#[derive(Debug)]
pub(crate) struct Job {
    unit: String,
    action: &'static str,
    path: OwnedObjectPath,
    ends: JobRemovedStream,
    ended: Vec<(OwnedObjectPath, String)>,
}

impl Systemd {
    /// Talks to systemd on this connection.
    pub(crate) async fn new(connection: &Connection) -> Result<Self> {
        let manager = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await;
        let manager = manager.map_err(DaemonError::bus("talk to systemd"))?;
        manager.subscribe().await.map_err(DaemonError::bus("subscribe to systemd's signals"))?;
        Ok(Self { manager })
    }

    /// Starts a unit and waits until it has started.
    pub(crate) async fn start(&self, unit: &str) -> Result<()> {
        let job = self.job(unit, "start", self.manager.start_unit(unit, "replace")).await?;
        self.expect_done(job, UNIT_LIMIT).await
    }

    /// Stops a unit and waits until nothing of it runs any more. One that is not loaded is no error.
    pub(crate) async fn stop(&self, unit: &str) -> Result<()> {
        match self.job(unit, "stop", self.manager.stop_unit(unit, "replace")).await {
            Ok(job) => self.expect_done(job, UNIT_LIMIT).await,
            Err(DaemonError::Bus { source, .. }) if is_no_such_unit(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a transient unit and begins to start it. With the property `AddRef` it stays loaded until
    /// [`Systemd::let_go`].
    pub(crate) async fn start_transient(&self, unit: &str, properties: &[Property<'_>]) -> Result<Job> {
        self.job(unit, "start", self.manager.start_transient_unit(unit, "fail", properties, &[])).await
    }

    /// Waits for the end of a job; anything but "done" is an error.
    pub(crate) async fn expect_done(&self, mut job: Job, limit: Duration) -> Result<()> {
        let what = || format!("the {} of {}", job.action, job.unit);
        let result = timeout(limit, next_end(&job.path, &mut job.ended, &mut job.ends)).await;
        let result = result.map_err(|_| DaemonError::Late { what: what(), limit })??;
        if result == "done" {
            return Ok(());
        }
        let service = self.result(&job.unit).await;
        let service = service.unwrap_or_else(|_| "unknown".to_owned());
        Err(DaemonError::Unit { unit: job.unit, action: job.action, job: result, result: service })
    }

    /// Lets systemd forget a transient unit once it is down.
    pub(crate) async fn let_go(&self, unit: &str) {
        let released = timeout(UNIT_LIMIT, self.manager.unref_unit(unit)).await;
        // Not held (any more), or not there: as good.
        tracing::debug!("released {unit}: {released:?}");
    }

    /// How a unit stands now.
    pub(crate) async fn state(&self, unit: &str) -> Result<UnitState> {
        match self.manager.get_unit(unit).await {
            Err(error) if is_no_such_unit(&error) => return Ok(UnitState::Down),
            other => other.map_err(DaemonError::bus(format!("find {unit}")))?,
        };
        match self.property::<String>(unit, "Unit", "ActiveState").await {
            Ok(state) if matches!(state.as_str(), "inactive" | "failed") => Ok(UnitState::Down),
            Ok(_) => Ok(UnitState::Up),
            Err(DaemonError::Bus { source, .. }) if is_gone(&source) => Ok(UnitState::Down),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a unit of this name, in whatever state.
    pub(crate) async fn is_loaded(&self, unit: &str) -> Result<bool> {
        match self.manager.get_unit(unit).await {
            Ok(_) => Ok(true),
            Err(error) if is_no_such_unit(&error) => Ok(false),
            Err(error) => Err(DaemonError::bus(format!("find {unit}"))(error)),
        }
    }

    /// Waits until a unit is down, by the signals of its changes.
    pub(crate) async fn wait_down(&self, unit: &str) -> Result<()> {
        let failed = || DaemonError::bus::<zbus::Error>(format!("watch {unit}"));
        let properties = self.properties(unit).await?;
        let mut changes = properties.receive_properties_changed().await.map_err(failed())?;
        let mut removals =
            self.manager.receive_unit_removed_with_args(&[(0, unit)]).await.map_err(failed())?;
        let wait = async {
            while self.state(unit).await? != UnitState::Down {
                let more = tokio::select! {
                    change = changes.next() => change.is_some(),
                    removal = removals.next() => removal.is_some(),
                };
                if !more {
                    return Err(closed());
                }
            }
            Ok(())
        };
        let late = |_| DaemonError::Late { what: format!("the end of {unit}"), limit: UNIT_LIMIT };
        timeout(UNIT_LIMIT, wait).await.map_err(late)?
    }

    /// Waits until systemd has forgotten a unit that is down, so that there can be another one of its name.
    pub(crate) async fn wait_forgotten(&self, unit: &str) -> Result<()> {
        let removals = self.manager.receive_unit_removed_with_args(&[(0, unit)]).await;
        let mut removals = removals.map_err(DaemonError::bus(format!("watch {unit}")))?;
        let wait = async {
            while self.is_loaded(unit).await? {
                removals.next().await.ok_or_else(closed)?;
            }
            Ok(())
        };
        let late = |_| DaemonError::Late { what: format!("the removal of {unit}"), limit: UNIT_LIMIT };
        timeout(UNIT_LIMIT, wait).await.map_err(late)?
    }

    /// How a service that is still loaded has ended.
    pub(crate) async fn result(&self, unit: &str) -> Result<String> {
        self.property(unit, "Service", "Result").await
    }

    /// The main process of a service; 0 where it has none.
    pub(crate) async fn main_pid(&self, unit: &str) -> Result<u32> {
        self.property(unit, "Service", "MainPID").await
    }

    /// The cgroup of a slice; `None` where it has none.
    pub(crate) async fn slice_cgroup(&self, slice: &str) -> Result<Option<String>> {
        let path = self.property::<String>(slice, "Slice", "ControlGroup").await?;
        Ok(Some(path).filter(|path| !path.is_empty()))
    }

    /// The cgroup of a service or a scope, or where it will be: where systemd puts one that it starts in the unit's slice.
    pub(crate) async fn unit_cgroup(&self, unit: &str) -> Result<String> {
        let loaded = timeout(UNIT_LIMIT, self.manager.load_unit(unit)).await;
        let late =
            |_| DaemonError::Late { what: format!("systemd's answer about {unit}"), limit: UNIT_LIMIT };
        loaded.map_err(late)?.map_err(DaemonError::bus(format!("load {unit}")))?;
        let interface = if unit.ends_with(".scope") { "Scope" } else { "Service" };
        let path = self.property::<String>(unit, interface, "ControlGroup").await?;
        if !path.is_empty() {
            return Ok(path);
        }
        let slice = self.property::<String>(unit, interface, "Slice").await?;
        let slice = if slice.is_empty() { "system.slice".to_owned() } else { slice };
        let above = Target::Slice(slice).slice_path().unwrap_or_else(|| "/".to_owned());
        Ok(format!("{}/{unit}", above.trim_end_matches('/')))
    }

    /// Whether a unit runs, or is about to: one that is being stopped does not.
    pub(crate) async fn runs(&self, unit: &str) -> Result<bool> {
        match self.property::<String>(unit, "Unit", "ActiveState").await {
            Ok(state) => Ok(matches!(state.as_str(), "active" | "activating" | "reloading" | "refreshing")),
            Err(DaemonError::Bus { source, .. }) if is_gone(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Calls systemd and takes down which job came of it.
    async fn job(
        &self,
        unit: &str,
        action: &'static str,
        call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<Job> {
        let failed = || DaemonError::bus::<zbus::Error>(format!("{action} {unit}"));
        let mut ends = self.manager.receive_job_removed_with_args(&[(2, unit)]).await.map_err(failed())?;
        let mut ended = Vec::new();
        let mut call = std::pin::pin!(timeout(UNIT_LIMIT, call));
        // A job can end before the call that started it returns.
        let path = loop {
            tokio::select! {
                called = &mut call => break called,
                Some(end) = ends.next() => ended.push(read_end(&end)?),
            }
        };
        let path = path.map_err(|_| DaemonError::Late {
            what: format!("systemd's answer about {unit}"),
            limit: UNIT_LIMIT,
        })?;
        Ok(Job { unit: unit.to_owned(), action, path: path.map_err(failed())?, ends, ended })
    }

    async fn property<T>(&self, unit: &str, interface: &str, property: &str) -> Result<T>
    where
        T: TryFrom<zbus::zvariant::OwnedValue>,
        T::Error: Into<zbus::zvariant::Error>,
    {
        let failed = |error: zbus::Error| DaemonError::bus(format!("read {property} of {unit}"))(error);
        let interface = format!("{SYSTEMD}.{interface}");
        let interface =
            interface.as_str().try_into().map_err(|error: zbus::names::Error| failed(error.into()))?;
        let value = timeout(UNIT_LIMIT, async {
            self.properties(unit).await?.get(interface, property).await.map_err(|error| failed(error.into()))
        });
        let late = |_| DaemonError::Late { what: format!("{property} of {unit}"), limit: UNIT_LIMIT };
        T::try_from(value.await.map_err(late)??).map_err(|error| failed(zbus::Error::Variant(error.into())))
    }

    async fn properties(&self, unit: &str) -> Result<PropertiesProxy<'static>> {
        let failed = || DaemonError::bus::<zbus::Error>(format!("find {unit}"));
        let builder = PropertiesProxy::builder(self.manager.inner().connection());
        let builder = builder.destination(SYSTEMD).and_then(|builder| builder.path(unit_path(unit)));
        builder.map_err(failed())?.cache_properties(CacheProperties::No).build().await.map_err(failed())
    }
}

async fn next_end(
    job: &OwnedObjectPath,
    ended: &mut Vec<(OwnedObjectPath, String)>,
    ends: &mut JobRemovedStream,
) -> Result<String> {
    loop {
        let (path, result) = match ended.pop() {
            Some(end) => end,
            None => read_end(&ends.next().await.ok_or_else(closed)?)?,
        };
        if path == *job {
            return Ok(result);
        }
    }
}

fn read_end(end: &JobRemoved) -> Result<(OwnedObjectPath, String)> {
    let args = end.args().map_err(DaemonError::bus("read systemd's answer"))?;
    Ok((args.job().clone(), args.result().clone()))
}

fn closed() -> DaemonError {
    let source = zbus::Error::Failure("the connection is closed".to_owned());
    DaemonError::bus("hear from systemd")(source)
}

fn is_no_such_unit(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _) if name.as_str() == NO_SUCH_UNIT)
}

/// Whether systemd says that the object of a unit is not there (any more).
fn is_gone(error: &zbus::Error) -> bool {
    let named = |name: &str| {
        name == NO_SUCH_UNIT
            || matches!(
                name,
                "org.freedesktop.DBus.Error.UnknownObject" | "org.freedesktop.DBus.Error.UnknownInterface"
            )
    };
    match error {
        zbus::Error::MethodError(name, _, _) => named(name.as_str()),
        zbus::Error::FDO(inner) => match inner.as_ref() {
            zbus::fdo::Error::ZBus(inner) => is_gone(inner),
            other => named(zbus::DBusError::name(other).as_str()),
        },
        _ => false,
    }
}
