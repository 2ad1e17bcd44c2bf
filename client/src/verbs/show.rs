//! `show`: every property of a mount.

use memcharge_policy::MountName;

use crate::{
    bus::Bus,
    cli::View,
    error::ClientError,
    output::{Report, json_text},
    properties::Properties,
};

/// Shows the mount of this name.
pub(crate) async fn run(name: &MountName, view: View) -> Result<Report, ClientError> {
    let bus = Bus::connect().await?;
    let object = bus.find(name).await?;
    let mount = Properties::read_mount(&bus, &object).await?;
    Ok(json_text(view, || mount.json()).unwrap_or_else(|| mount.lines()).into())
}
