//! Finding a mount again that an earlier daemon made. Its store goes on meanwhile.

use memcharge_policy::{link::MountRecord, mountinfo::find_own};

use super::{Shared, attach::Attached, detach::clear};
use crate::{
    attach::holders::read_mounts,
    error::Result,
    placement::systemd::UnitState,
    store_link::{CONNECT_LIMIT, Link},
};

/// What became of a mount that is on record.
#[derive(Debug)]
pub(super) enum Adopted {
    /// It works.
    Active(Box<Attached>),
    /// It does not, for this reason.
    Broken(String),
    /// It was not mounted, and what was left of it is cleared.
    Cleared,
}

/// Looks at what is left of a mount.
pub(super) async fn adopt(shared: &Shared, record: MountRecord) -> Result<Adopted> {
    let name = record.policy.name.clone();
    let mounted = find_own(&read_mounts()?, record.mount_id).is_some();
    let up = shared.systemd.state(&name.unit()).await? == UnitState::Up;
    let used_elsewhere = record.attached && up;
    if !mounted && !used_elsewhere {
        // Half made when its daemon ended, or unmounted: there is nothing to keep. A store that still runs after its
        // mount was attached has users elsewhere, through a bind mount.
        clear(shared, &record).await?;
        return Ok(Adopted::Cleared);
    }
    match reach(&record).await {
        Ok(link) => {
            let pid = shared.systemd.main_pid(&name.unit()).await?;
            Ok(Adopted::Active(Box::new(Attached { record, pid, link })))
        }
        Err(error) if up => Ok(Adopted::Broken(format!("the store does not answer: {error}"))),
        Err(_) => Ok(Adopted::Broken(super::actor::lost(&name))),
    }
}

async fn reach(record: &MountRecord) -> Result<Link> {
    let mut link = Link::connect(&record.policy.name).await?;
    link.status(CONNECT_LIMIT).await?;
    Ok(link)
}
