//! Where a mount must never be.

use std::path::Path;

/// Directories that a mount may be neither at nor above: PID 1 and every login touch them, so a store that is stopped
/// there can hang the machine, with it what would restart the store.
pub const UNSAFE_MOUNT_POINTS: [&str; 12] =
    ["/dev/shm", "/run", "/tmp", "/etc", "/var", "/usr", "/dev", "/proc", "/sys", "/boot", "/root", "/home"];

/// Whether `path` (absolute, symlinks resolved) is at or above one of [`UNSAFE_MOUNT_POINTS`], or is the root, or is
/// below a kernel file system.
pub fn is_unsafe_mount_point(path: &Path) -> bool {
    let above = UNSAFE_MOUNT_POINTS.iter().any(|unsafe_path| Path::new(unsafe_path).starts_with(path));
    above || ["/proc", "/sys"].iter().any(|kernel| path.starts_with(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_or_above_is_unsafe() {
        for path in ["/", "/dev", "/dev/shm", "/run", "/tmp", "/usr", "/sys/fs/cgroup", "/proc/1"] {
            assert!(is_unsafe_mount_point(Path::new(path)), "{path}");
        }
        for path in ["/run/shared/models", "/srv/x", "/dev/shm/x", "/tmp/x", "/runner", "/mnt"] {
            assert!(!is_unsafe_mount_point(Path::new(path)), "{path}");
        }
    }
}
