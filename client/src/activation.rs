//! Starting memcharged where it is not there: the bus does it, for a daemon that is enabled.
//!
//! The bus waits 25 seconds for a daemon whose start has failed. systemd knows at once.

use futures_util::{Stream, StreamExt};
use memcharge_dbus::BUS_NAME;
use zbus::{Connection, fdo::DBusProxy, zvariant::OwnedObjectPath};

use crate::error::ClientError;

const UNIT: &str = "memcharged.service";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Systemd {
    fn subscribe(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// Returns when memcharged has its name on the bus. An error says that it has not, and cannot be started.
pub(crate) async fn ensure(connection: &Connection) -> Result<(), ClientError> {
    let bus = DBusProxy::new(connection).await?;
    let name = BUS_NAME.try_into().map_err(zbus::Error::from)?;
    if bus.name_has_owner(name).await.map_err(zbus::Error::from)? {
        return Ok(());
    }
    // Before the start, so that its end is not missed.
    let mut failures = Box::pin(failures(connection).await?);
    let name = BUS_NAME.try_into().map_err(zbus::Error::from)?;
    tokio::select! {
        started = bus.start_service_by_name(name, 0) => started.map(drop).map_err(|e| zbus::Error::from(e).into()),
        Some(()) = failures.next() => Err(ClientError::NotStarted),
    }
}

/// An item for each failed start of memcharged. Where systemd does not tell, there are none.
async fn failures(connection: &Connection) -> Result<impl Stream<Item = ()> + use<>, ClientError> {
    let systemd = SystemdProxy::new(connection).await?;
    let ended = systemd.receive_job_removed().await?;
    drop(systemd.subscribe().await);
    Ok(ended.filter_map(async |job| {
        let job = job.args().ok()?;
        (job.unit == UNIT && job.result != "done").then_some(())
    }))
}
