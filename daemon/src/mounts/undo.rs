//! What an attach has made so far, so that a failed one leaves nothing behind.

use memcharge_cgroup::{Cgroup, CgroupError};
use memcharge_policy::{MountName, Target};

use super::Shared;
use crate::{
    attach::point::MadeDirs,
    error::Result,
    placement::{handover::remove_socket, target::find_path},
    record,
};

/// What there is to undo. Each part is written down before it is made: undoing what was not made does no harm.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// A slice that was started.
    pub(super) slice: Option<Target>,
    /// The mount's record and socket.
    pub(super) record: Option<MountName>,
    /// The store's line in the ledger.
    pub(super) slot: Option<u32>,
    /// Directories that were made, which their owner removes.
    pub(super) made: MadeDirs,
    /// The store's unit.
    pub(super) unit: Option<String>,
    /// The store's own cgroup below a target that is not a unit.
    pub(super) leaf: Option<(Cgroup, String)>,
}

impl Undo {
    /// Undoes everything, the last first. What cannot be undone is logged, and the rest goes on.
    pub(super) async fn roll_back(mut self, shared: &Shared) {
        let mut stopped = true;
        if let Some(unit) = self.unit.take() {
            let result = shared.systemd.stop(&unit).await;
            stopped = result.is_ok();
            report(result);
            shared.systemd.let_go(&unit).await;
        }
        if let Some((target, leaf)) = self.leaf.take() {
            report(target.remove_child(&leaf).map_err(Into::into));
        }
        drop(std::mem::take(&mut self.made));
        // With a store that does not stop the record stays: the next start of the daemon clears what it tells of.
        if let Some(name) = self.record.take()
            && stopped
        {
            report(remove_socket(&name));
            report(record::remove(&name));
            if let Some(slot) = self.slot.take() {
                shared.ledger.0.release(slot);
            }
        }
        if let Some(slice) = self.slice.take() {
            report(stop_slice(shared, &slice).await);
        }
    }
}

/// Stops a slice that was started for a mount, unless somebody else has moved in meanwhile.
async fn stop_slice(shared: &Shared, slice: &Target) -> Result<()> {
    let path = find_path(&shared.systemd, slice).await?;
    let populated = match shared.hierarchy.open(&path) {
        Ok(cgroup) => cgroup.is_populated()?,
        Err(CgroupError::NoSuchCgroup { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    if populated { Ok(()) } else { shared.systemd.stop(&slice.to_string()).await }
}

fn report(undone: Result<()>) {
    if let Err(error) = undone {
        tracing::error!("after a mount that failed: {error}");
    }
}
