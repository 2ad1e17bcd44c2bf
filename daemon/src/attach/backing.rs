//! The tmpfs that holds a mount's data: made detached, so that no path leads to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memcharge_policy::{MountPolicy, PAGE_SIZE, link::BACKING_FDS};
use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

use crate::error::{DaemonError, Result};

/// The inode of the ballast, which no client sees. The root directory counts, as on any tmpfs.
const OWN_INODES: u64 = 1;

/// A tmpfs, by file descriptor.
#[derive(Debug)]
pub(crate) struct Backing {
    /// The detached mount.
    pub(crate) mount: OwnedFd,
    /// Its root directory, opened for reading: an `O_PATH` descriptor cannot open file handles.
    pub(crate) root: OwnedFd,
    /// Its ballast: one page that is always in use, since tmpfs takes a size of 0 for "unlimited".
    pub(crate) ballast: OwnedFd,
}

impl Backing {
    /// From descriptors in the order of [`BACKING_FDS`].
    pub(crate) fn from_fds([mount, root, ballast]: [OwnedFd; BACKING_FDS.len()]) -> Self {
        Self { mount, root, ballast }
    }

    /// Other descriptors of the same.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        let [mount, root, ballast] = self.all();
        Ok(Self {
            mount: mount.try_clone_to_owned()?,
            root: root.try_clone_to_owned()?,
            ballast: ballast.try_clone_to_owned()?,
        })
    }

    /// All descriptors, in the order of [`BACKING_FDS`].
    pub(crate) fn all(&self) -> [BorrowedFd<'_>; BACKING_FDS.len()] {
        [self.mount.as_fd(), self.root.as_fd(), self.ballast.as_fd()]
    }
}

/// Makes the backing of a mount. Its size is one page, the ballast; the store raises it by what it is granted.
pub(crate) fn make_backing(policy: &MountPolicy) -> Result<Backing> {
    let failed =
        |action| DaemonError::io::<rustix::io::Errno>(action, format!("the tmpfs of {}", policy.name));
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("prepare"))?;
    for (key, value) in parameters(policy) {
        rustix::mount::fsconfig_set_string(&context, key, value.as_str()).map_err(failed("configure"))?;
    }
    // A node id is an inode number, so no number may ever come again.
    rustix::mount::fsconfig_set_flag(&context, "inode64").map_err(failed("set inode64 for"))?;
    // A swapped page that cannot be charged again makes the client that touches it loop in the kernel.
    rustix::mount::fsconfig_set_flag(&context, "noswap").map_err(failed("set noswap for"))?;
    rustix::mount::fsconfig_create(&context).map_err(failed("make"))?;
    // No nosuid, nodev, noexec: nobody can reach this mount, and clients map and execute through it.
    let attributes = MountAttrFlags::empty();
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("mount"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&mount, ".", flags, Mode::empty()).map_err(failed("open"))?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let ballast = rustix::fs::openat(&root, ".", flags, Mode::RUSR).map_err(failed("make the ballast of"))?;
    rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, PAGE_SIZE)
        .map_err(failed("fill the ballast of"))?;
    Ok(Backing { mount, root, ballast })
}

fn parameters(policy: &MountPolicy) -> Vec<(&'static str, String)> {
    let mut parameters = vec![
        // To tmpfs a size of 0 means that there is no limit.
        ("size", PAGE_SIZE.to_string()),
        // khugepaged would move charges to the client whose mapping it collapses.
        ("huge", "never".to_owned()),
        ("mode", format!("{:o}", policy.mode)),
        ("uid", policy.uid.to_string()),
        ("gid", policy.gid.to_string()),
    ];
    if let Some(inodes) = policy.inodes {
        parameters.push(("nr_inodes", inodes.saturating_add(OWN_INODES).to_string()));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use memcharge_policy::Target;

    use super::*;

    #[test]
    fn parameters_follow_the_policy() {
        let target = Target::Slice("m.slice".into());
        let mut policy = MountPolicy::new("m".parse().unwrap(), "/run/m".into(), target);
        let text = |policy: &MountPolicy| {
            parameters(policy)
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(text(&policy), "size=4096,huge=never,mode=1777,uid=0,gid=0");
        policy.inodes = Some(10);
        (policy.mode, policy.uid, policy.gid) = (0o700, 5, 6);
        assert_eq!(text(&policy), "size=4096,huge=never,mode=700,uid=5,gid=6,nr_inodes=11");
    }
}
