//! Where the store belongs: in its own cgroup below the target, or in the target itself, so that the target pays.

use memcharge_cgroup::{Cgroup, CgroupError, Hierarchy};
use memcharge_policy::link::Home;
use rustix::fs::OFlags;

/// Whether `own`, the cgroup of this process, is where the store belongs, and its target is the one that it was told of.
pub(crate) fn is_home(own: &Cgroup, home: &Home) -> bool {
    own.path() == home.leaf && find_target(home).is_ok_and(|target| target.is_some())
}

/// The target; `None`: there is none, or another cgroup has its path by now.
fn find_target(home: &Home) -> Result<Option<Cgroup>, CgroupError> {
    if home.leaf.is_empty() {
        return Ok(None);
    }
    let target = Hierarchy::system().open(&home.target)?;
    Ok(Some(target).filter(|target| target.id() == home.target_id))
}

/// Moves this process where it belongs. An error, or `false`, leaves it where it is: then it serves what exists, and
/// nothing can grow. A target that its owner has removed is not made again.
///
/// A cgroup that belongs to a service is entered only when memcharged has `asked` for it: one that is just being stopped
/// would never become empty.
pub(crate) fn move_in(home: &Home, asked: bool) -> Result<bool, CgroupError> {
    let own = Hierarchy::system().open_of(None)?;
    if own.path() == home.leaf {
        return Ok(is_home(&own, home));
    }
    if home.by_systemd || (home.is_shared() && !asked) {
        return Ok(false);
    }
    let Some(target) = find_target(home)? else { return Ok(false) };
    let place = if home.is_shared() {
        target
    } else {
        let name = home.leaf.rsplit_once('/').map_or(home.leaf.as_str(), |(_, name)| name);
        // An empty cgroup is removed by whoever tidies up; the store's own may be made again.
        let leaf = target.make_child(name)?.0;
        leaf.forbid_swap()?;
        leaf
    };
    let procs = place.open_file("cgroup.procs", OFlags::WRONLY)?;
    // 0 stands for the process that writes.
    rustix::io::write(&procs, b"0").map_err(|e| CgroupError::Io {
        action: "move the store into",
        path: home.leaf.clone(),
        source: e.into(),
    })?;
    Ok(is_home(&Hierarchy::system().open_of(None)?, home))
}
