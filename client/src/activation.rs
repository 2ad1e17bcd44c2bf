//! Starting memcharged where it is not there: the bus does it, for a daemon that is enabled.
//!
//! The bus waits 25 seconds for a daemon whose start has failed, or was not even tried. systemd knows at once.

use std::time::Duration;

use futures_util::StreamExt;
use memcharge_dbus::BUS_NAME;
use tokio::time::timeout;
use zbus::{Connection, fdo::DBusProxy, zvariant::OwnedObjectPath};

use crate::error::ClientError;

const UNIT: &str = "memcharged.service";

/// systemd answers at once, or is busy.
const PATIENCE: Duration = Duration::from_secs(5);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
trait Systemd {
    fn subscribe(&self) -> zbus::Result<()>;
    #[zbus(object = "Unit")]
    fn load_unit(&self, name: &str);
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
trait Unit {
    /// Id and object; 0: none is under way.
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
}

/// Returns when memcharged has its name on the bus. An error says that it has not, and cannot be started.
pub(crate) async fn ensure(connection: &Connection) -> Result<(), ClientError> {
    let bus = DBusProxy::new(connection).await?;
    let name = BUS_NAME.try_into().map_err(zbus::Error::from)?;
    if bus.name_has_owner(name).await.map_err(zbus::Error::from)? {
        return Ok(());
    }
    // Before the start, so that its end is not missed. Where systemd does not tell, the bus alone does.
    let systemd = SystemdProxy::new(connection).await?;
    let mut ended = systemd.receive_job_removed_with_args(&[(2, UNIT)]).await?;
    drop(timeout(PATIENCE, systemd.subscribe()).await);
    let name = BUS_NAME.try_into().map_err(zbus::Error::from)?;
    let started = bus.start_service_by_name(name, 0);
    tokio::pin!(started);
    loop {
        tokio::select! {
            // First of all the bus has to be asked.
            biased;
            started = &mut started => return started.map(drop).map_err(|e| zbus::Error::from(e).into()),
            Some(_) = ended.next() => if is_down(&systemd).await { return Err(ClientError::NotStarted) },
        }
    }
}

/// Whether memcharged does not run, and is not about to be started again.
async fn is_down(systemd: &SystemdProxy<'_>) -> bool {
    let look = async {
        let unit = systemd.load_unit(UNIT).await?;
        let is_down = matches!(unit.active_state().await?.as_str(), "failed" | "inactive");
        zbus::Result::Ok(is_down && unit.job().await?.0 == 0)
    };
    timeout(PATIENCE, look).await.is_ok_and(|looked| looked.unwrap_or(false))
}
