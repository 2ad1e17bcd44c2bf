//! Users who own a delegated cgroup: they may have it pay for mounts of their own, below directories of their own (R1).

use memcharge_cgroup::{Hierarchy, User};
use memcharge_config::Fragment;
use memcharge_policy::{MountOption, Target};

use super::Caller;
use crate::error::DaemonError;

/// Whether a user may have a target pay.
#[derive(Debug)]
pub(in crate::bus) enum Claim {
    /// It could be the user's own process that fills it; now the mount point counts.
    Holds,
    /// The target is the user's own, and something else was asked for that is not a user's to ask for.
    TooMuch(DaemonError),
    /// The target is not the user's.
    None,
}

/// Looks at what a user asks for. A unit or a slice is systemd's, and never a user's.
pub(in crate::bus) fn claim(caller: &Caller, given: &Fragment, persist: bool) -> Claim {
    let (Some(Target::Path(target)), Some(pid)) = (&given.target, caller.pid) else { return Claim::None };
    let hierarchy = Hierarchy::system();
    let barrier = || {
        let own = hierarchy.open_of(Some(pid))?;
        hierarchy.barrier(&caller.user, own.path(), &hierarchy.open(target)?)
    };
    if !matches!(barrier(), Ok(None)) {
        return Claim::None;
    }
    match excess(&caller.user, given, persist) {
        Some(what) => Claim::TooMuch(DaemonError::NotPermitted(what)),
        None => Claim::Holds,
    }
}

/// The first of the mount options that only root may have.
pub(in crate::bus) fn root_only(options: &[MountOption]) -> Option<MountOption> {
    options.iter().copied().find(|option| matches!(option, MountOption::Suid | MountOption::Dev))
}

/// What is not a user's to ask for.
fn excess(user: &User, given: &Fragment, persist: bool) -> Option<String> {
    if let Some(option) = given.options.as_deref().and_then(root_only) {
        return Some(format!("only root may give the mount option {option}"));
    }
    if persist {
        return Some("only root may write the file of a mount".to_owned());
    }
    let owner = given.uid.filter(|owner| *owner != user.uid);
    let group = given.gid.filter(|group| !user.groups.contains(group));
    let text = |what, id| format!("only root may make a mount that belongs to {what} {id}");
    owner.map(|owner| text("uid", owner)).or_else(|| group.map(|group| text("gid", group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_ask_for() {
        let user = User { uid: 1000, groups: vec![100, 101] };
        let options =
            |options: &[MountOption]| Fragment { options: Some(options.to_vec()), ..Fragment::default() };
        for (given, persist, refused) in [
            (Fragment::default(), false, None),
            (Fragment { uid: Some(1000), ..Fragment::default() }, false, None),
            (Fragment { uid: Some(0), ..Fragment::default() }, false, Some("uid 0")),
            (Fragment { gid: Some(101), ..Fragment::default() }, false, None),
            (Fragment { gid: Some(0), ..Fragment::default() }, false, Some("gid 0")),
            (Fragment::default(), true, Some("file")),
            (options(&[MountOption::Noexec]), false, None),
            (options(&[MountOption::Nodev, MountOption::Suid]), false, Some("suid")),
            (options(&[MountOption::Dev]), false, Some("dev")),
        ] {
            let found = excess(&user, &given, persist);
            match refused {
                None => assert_eq!(found, None),
                Some(word) => assert!(found.as_deref().is_some_and(|text| text.contains(word)), "{found:?}"),
            }
        }
    }
}
