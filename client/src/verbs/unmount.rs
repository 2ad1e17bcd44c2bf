//! `unmount`: ends a mount.

use std::collections::HashMap;

use memcharge_policy::MountName;
use zbus::zvariant::Value;

use crate::{bus::Bus, error::ClientError, output::Report};

/// Ends the mount of this name. The daemon's refusal names the processes that use it.
pub(crate) async fn run(name: &MountName, lazy: bool) -> Result<Report, ClientError> {
    let yes = Value::from(true);
    let options = if lazy { HashMap::from([("Lazy", &yes)]) } else { HashMap::new() };
    Bus::connect().await?.manager.unmount(name.as_str(), options).await?;
    Ok(Report::default())
}
