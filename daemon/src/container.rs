//! Whether this is the host. In a container memcharged would see its cgroups, processes and users alone.

use std::{fs, io, os::unix::fs::MetadataExt};

use crate::error::{DaemonError, Result};

/// Those of the host, which the kernel makes first, have numbers of their own (`linux/proc_ns.h`): targets are looked up in
/// the first, who uses a mount and who is killed in the second, and only the third may keep a tmpfs out of swap.
const HOSTS: [(&str, u64); 3] = [("cgroup", 0xEFFF_FFFB), ("pid", 0xEFFF_FFFC), ("user", 0xEFFF_FFFD)];

/// Refuses to run anywhere but on the host.
pub(crate) fn check() -> Result<()> {
    let mut own = Vec::new();
    for (kind, host) in HOSTS {
        let path = format!("/proc/self/ns/{kind}");
        match fs::metadata(&path) {
            Ok(namespace) if namespace.ino() == host => {}
            Ok(_) => own.push(kind),
            // The kernel has no namespaces of this kind.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DaemonError::io("inspect", path)(error)),
        }
    }
    if own.is_empty() { Ok(()) } else { Err(DaemonError::Container { own: own.join(", ") }) }
}
