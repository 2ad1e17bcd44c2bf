//! `recover`: mounts the data of a failed mount again.

use memcharge_policy::MountName;

use super::set::proxy;
use crate::{bus::Bus, error::ClientError, output::Report};

/// Returns when the mount is usable again.
pub(crate) async fn run(name: &MountName) -> Result<Report, ClientError> {
    let bus = Bus::connect().await?;
    proxy(&bus, name).await?.recover().await?;
    Ok(Report::default())
}
