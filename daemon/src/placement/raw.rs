//! Moving a store into a cgroup that systemd does not manage.

use cgroups_rs::{CgroupPid, fs::hierarchies};
use memcharge_cgroup::Cgroup;
use memcharge_policy::MountName;

use crate::error::{DaemonError, Result};

/// The name of a store's own cgroup below a target that is not a unit.
pub(crate) fn leaf_name(name: &MountName) -> String {
    format!("memcharge-{name}")
}

/// Moves a process into `leaf`. The move is done by path, so what counts is what `leaf`, held by its directory,
/// says afterwards.
pub(crate) fn move_into(leaf: &Cgroup, pid: u32) -> Result<()> {
    let failed = |why: String| DaemonError::NoSuchTarget { target: leaf.path().to_owned(), why };
    let relative = leaf.path().trim_start_matches('/');
    // Only loaded: making it through this library would enable controllers in every ancestor.
    let by_path = cgroups_rs::fs::Cgroup::load(hierarchies::auto(), relative);
    by_path
        .add_task_by_tgid(CgroupPid::from(u64::from(pid)))
        .map_err(|error| failed(format!("process {pid} cannot be moved there: {error}")))?;
    if leaf.procs()?.contains(&pid) {
        return Ok(());
    }
    Err(failed(format!("process {pid} was moved, and is not in it: another cgroup has taken its path")))
}
