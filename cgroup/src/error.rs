//! What can be wrong with a cgroup.

use std::io;

/// An error about one cgroup or one of its files.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path does not exist.
    #[error("there is no cgroup {path}; create it first, or correct the target")]
    NoSuchCgroup {
        /// Path below the cgroup root.
        path: String,
    },
    /// The path exists and is not a cgroup.
    #[error("{path} is not a cgroup (cgroups are directories of the cgroup v2 file system)")]
    NotACgroup {
        /// Path below the cgroup root.
        path: String,
    },
    /// The memory controller is not enabled for the cgroup.
    #[error(
        "the memory controller is not enabled for the cgroup {path}; write +memory to cgroup.subtree_control of its parent"
    )]
    NoMemoryController {
        /// Path below the cgroup root.
        path: String,
    },
    /// The cgroup was removed while it was held.
    #[error("the cgroup {path} has been removed")]
    Dying {
        /// Path below the cgroup root.
        path: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the kernel does not look as documented.
    #[error("{path} reads {found:?}, which is not {expected}")]
    Malformed {
        /// The file.
        path: String,
        /// The start of its content.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
}
