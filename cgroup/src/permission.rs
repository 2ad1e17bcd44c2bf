//! Whether a user could move a process into a cgroup: what cgroup v2 itself asks for.

use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;

use crate::{Cgroup, CgroupError, Hierarchy};

/// Who opens `cgroup.procs` for writing may move processes in and out.
const PROCS: &str = "cgroup.procs";

/// A user with groups, as the kernel knows the processes of that user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// All groups, the first one first.
    pub groups: Vec<u32>,
}

impl User {
    /// Whether this user may write a file of this owner, group and mode. Root may write every file.
    pub fn may_write(&self, owner: u32, group: u32, mode: u32) -> bool {
        let bit = if self.uid == owner {
            0o200
        } else if self.groups.contains(&group) {
            0o020
        } else {
            0o002
        };
        self.uid == 0 || mode & bit != 0
    }
}

impl Cgroup {
    /// Whether the user may write this cgroup's `cgroup.procs`.
    pub fn may_be_entered_by(&self, user: &User) -> Result<bool, CgroupError> {
        let file = self.open_file(PROCS, OFlags::PATH)?;
        let stat = file.metadata().map_err(|source| CgroupError::Io {
            action: "inspect",
            path: format!("{}/{PROCS}", self.path()),
            source,
        })?;
        Ok(user.may_write(stat.uid(), stat.gid(), stat.mode()))
    }
}

impl Hierarchy {
    /// The cgroup that keeps the user from moving a process from the cgroup `from` to `target`; `None`: the user may.
    /// Besides the target's, `cgroup.procs` of the closest cgroup above both must be writable.
    pub fn barrier(&self, user: &User, from: &str, target: &Cgroup) -> Result<Option<String>, CgroupError> {
        if !target.may_be_entered_by(user)? {
            return Ok(Some(target.path().to_owned()));
        }
        let above = self.open(&common_ancestor(from, target.path()))?;
        Ok((!above.may_be_entered_by(user)?).then(|| above.path().to_owned()))
    }
}

/// The closest cgroup that holds both.
fn common_ancestor(a: &str, b: &str) -> String {
    let parts = |path: &'_ str| {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let common = parts(a).into_iter().zip(parts(b)).take_while(|(a, b)| a == b).map(|(a, _)| a);
    format!("/{}", common.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn ancestors() {
        for (a, b, above) in [
            ("/a/b/c", "/a/b/d", "/a/b"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a/b", "/a/b/c", "/a/b"),
            ("/ab", "/a", "/"),
            ("/", "/a", "/"),
        ] {
            assert_eq!(common_ancestor(a, b), above, "{a} {b}");
        }
    }

    #[test]
    fn the_right_bit_counts() {
        let user = |uid, groups: &[u32]| User { uid, groups: groups.to_vec() };
        for (user, mode, may) in [
            (user(0, &[]), 0o000, true),
            (user(7, &[]), 0o200, true),
            // The owner's bit counts for the owner, though others may more.
            (user(7, &[8]), 0o022, false),
            (user(1, &[3, 8]), 0o020, true),
            (user(1, &[8]), 0o202, false),
            (user(1, &[3]), 0o002, true),
            (user(1, &[3]), 0o220, false),
        ] {
            assert_eq!(user.may_write(7, 8, mode), may, "{user:?} {mode:o}");
        }
    }

    #[test]
    fn the_target_and_what_is_above_both_must_be_writable() {
        let root = tempfile::tempdir().unwrap();
        for (cgroup, mode) in [("", 0o644), ("d", 0o666), ("d/a", 0o666), ("d/b", 0o644), ("d/c", 0o666)] {
            fs::create_dir_all(root.path().join(cgroup)).unwrap();
            let procs = root.path().join(cgroup).join(PROCS);
            fs::write(&procs, "").unwrap();
            fs::set_permissions(&procs, fs::Permissions::from_mode(mode)).unwrap();
        }
        let hierarchy = Hierarchy::stand_in(root.path());
        // Nobody owns the files of this test but whoever runs it.
        let user = User { uid: u32::MAX - 1, groups: vec![] };
        for (from, target, barrier) in [
            ("/d/a", "/d/c", None),
            ("/d/a", "/d/b", Some("/d/b")),
            ("/x", "/d/a", Some("/")),
            ("/d", "/d/a", None),
        ] {
            let target = hierarchy.open(target).unwrap();
            let found = hierarchy.barrier(&user, from, &target).unwrap();
            assert_eq!(found.as_deref(), barrier, "{from} {}", target.path());
        }
    }
}
