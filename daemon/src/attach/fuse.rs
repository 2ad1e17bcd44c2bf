//! The FUSE mount that clients see: made detached, attached once its store serves it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use memcharge_policy::{MountOption, MountPolicy};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags},
};

use crate::error::{DaemonError, Result};

/// The largest read request in bytes: what the store has buffers for.
const MAX_READ: u32 = 128 << 10;

/// `S_IFDIR`: the type of a mount's root.
const DIRECTORY: u32 = 0o040_000;

/// A FUSE connection and its mount.
#[derive(Debug)]
pub(crate) struct FuseMount {
    /// Where the store reads requests.
    pub(crate) connection: OwnedFd,
    /// The detached mount.
    pub(crate) mount: OwnedFd,
}

/// Makes the mount. Nobody serves it yet, and nobody can see it.
pub(crate) fn make_fuse(policy: &MountPolicy) -> Result<FuseMount> {
    let failed =
        |action| DaemonError::io::<rustix::io::Errno>(action, format!("the FUSE mount of {}", policy.name));
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let connection = rustix::fs::openat(CWD, "/dev/fuse", flags, Mode::empty())
        .map_err(DaemonError::io("open", "/dev/fuse (is the kernel module `fuse` there?)"))?;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("prepare"))?;
    for (key, value) in parameters(policy, connection.as_fd()) {
        rustix::mount::fsconfig_set_string(&context, key, value.as_str()).map_err(failed("configure"))?;
    }
    for flag in ["allow_other", "default_permissions"] {
        rustix::mount::fsconfig_set_flag(&context, flag).map_err(failed("configure"))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed("make"))?;
    let attributes = attributes(&policy.options);
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("mount"))?;
    Ok(FuseMount { connection, mount })
}

/// Attaches a detached mount to a directory, both by descriptor. `path` is for the message only.
pub(crate) fn attach(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", directory, "", flags).map_err(DaemonError::io("mount on", path))
}

/// The id of a mount, without a request to whoever serves it.
pub(crate) fn mount_id(mount: BorrowedFd<'_>) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", mount.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(DaemonError::io("read", &path))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| DaemonError::io("read", path)(std::io::Error::other("it has no mnt_id")))
}

fn parameters(policy: &MountPolicy, connection: BorrowedFd<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("source", policy.target.to_string()),
        ("subtype", "memcharge".to_owned()),
        // As text: kernels differ in whether they take a descriptor here.
        ("fd", connection.as_raw_fd().to_string()),
        ("rootmode", format!("{:o}", DIRECTORY | policy.mode)),
        ("user_id", "0".to_owned()),
        ("group_id", "0".to_owned()),
        ("max_read", MAX_READ.to_string()),
    ]
}

fn attributes(options: &[MountOption]) -> MountAttrFlags {
    options.iter().fold(MountAttrFlags::empty(), |flags, option| {
        flags
            | match option {
                MountOption::Nosuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
                MountOption::Nodev => MountAttrFlags::MOUNT_ATTR_NODEV,
                MountOption::Noexec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
                MountOption::Ro => MountAttrFlags::MOUNT_ATTR_RDONLY,
                MountOption::Noatime => MountAttrFlags::MOUNT_ATTR_NOATIME,
                MountOption::Relatime => MountAttrFlags::MOUNT_ATTR_RELATIME,
                MountOption::Suid | MountOption::Dev | MountOption::Exec | MountOption::Rw => {
                    MountAttrFlags::empty()
                }
            }
    })
}

#[cfg(test)]
mod tests {
    use memcharge_policy::Target;

    use super::*;

    #[test]
    fn options_become_attributes() {
        use MountOption::{Dev, Exec, Noatime, Nodev, Noexec, Nosuid, Relatime, Ro, Rw, Suid};
        for (options, bits) in [
            (&[][..], 0),
            (&[Suid, Dev, Exec, Rw, Relatime], 0),
            (&[Nosuid, Nodev], 0x2 | 0x4),
            (&[Ro, Noexec, Noatime], 0x1 | 0x8 | 0x10),
        ] {
            assert_eq!(attributes(options).bits(), bits, "{options:?}");
        }
    }

    #[test]
    fn r31_the_source_is_the_target() {
        let target = Target::Path("/pods/a".into());
        let policy = MountPolicy::new("m".parse().unwrap(), "/run/m".into(), target);
        let stdin = std::io::stdin();
        let parameters = parameters(&policy, stdin.as_fd());
        assert!(parameters.contains(&("source", "/pods/a".to_owned())));
        assert!(parameters.contains(&("rootmode", "41777".to_owned())));
        assert!(parameters.contains(&("fd", "0".to_owned())));
    }
}
