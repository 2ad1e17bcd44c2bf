//! What the daemon and a store say to each other, and what is written down about a mount while it exists.
//!
//! One [`Handover`] goes to a new store, with its file descriptors. After that the daemon asks over the store's
//! socket, one JSON value a line: a [`Request`], answered by a [`Reply`].

use serde::{Deserialize, Serialize};

use crate::{Bytes, MountPolicy, Sparse};

/// The longest message, in bytes. Longer ones are refused unread.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The file descriptors that go with a [`Handover`], in this order.
pub const HANDOVER_FDS: [&str; 4] = ["fuse", "backing-mount", "backing-root", "socket"];

/// What a new store needs to serve its mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The limits to keep.
    pub limits: StoreLimits,
}

/// The part of a mount's policy that its store keeps by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreLimits {
    /// The cap in bytes.
    pub cap: Option<Bytes>,
    /// The inode cap.
    pub inodes: Option<u64>,
    /// Headroom left to the target's own tasks; `None`: the default reserve.
    pub reserve: Option<Bytes>,
    /// What happens to holes.
    pub sparse: Sparse,
    /// Whether to reclaim before refusing.
    pub reclaim: bool,
    /// The longest time that one refusal may take, in microseconds.
    pub deadline_usec: u64,
}

/// A question to a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How is it going?
    Status,
}

/// A store's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(StoreStatus),
    /// The question was not understood, or could not be answered.
    Error(String),
}

/// A store at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Bytes in files.
    pub used: Bytes,
    /// Inodes in use, the root directory included.
    pub inodes_used: u64,
    /// The inode cap in force.
    pub inodes_max: u64,
    /// What a remote charger could still get.
    pub headroom: Bytes,
    /// Refusals since the store was started.
    pub denials: u64,
}

/// What is written down in `/run/memcharge/mounts/NAME.json` before anything of a mount is made, and removed when
/// everything of it is gone: whoever ends the mount finds there what there is to undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// The policy in force.
    pub policy: MountPolicy,
    /// The cap in bytes, as it was resolved when the mount was made.
    #[serde(default)]
    pub cap: Option<Bytes>,
    /// The mount's id in the daemon's mount namespace: what stands at a path may be another mount.
    pub mount_id: u32,
    /// Whether it was attached. Before that nobody can have put anything into it.
    pub attached: bool,
    /// Where the mount was attached (symlinks in `policy.place` resolved).
    pub mounted_on: String,
    /// The directories that were made for the mount point, outermost first; they are removed with the mount.
    pub made_directories: Vec<String>,
    /// The cgroup of the store below the cgroup root.
    pub leaf: String,
    /// Whether that cgroup was made by memcharged (a raw target), and so is removed with the mount.
    pub made_leaf: bool,
    /// The target's cgroup below the cgroup root.
    pub target_path: String,
    /// The target's cgroup id (inode number of its directory).
    pub target_id: u64,
    /// The file that configures the mount; empty for a mount made at run time.
    pub fragment: String,
}

impl MountRecord {
    /// Where records are kept.
    pub const DIR: &str = "/run/memcharge/mounts";

    /// Where the stores' sockets are.
    pub const SOCKET_DIR: &str = "/run/memcharge/stores";

    /// The record's file.
    pub fn path(name: &crate::MountName) -> String {
        format!("{}/{name}.json", Self::DIR)
    }

    /// The store's socket.
    pub fn socket_path(name: &crate::MountName) -> String {
        format!("{}/{name}.sock", Self::SOCKET_DIR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MountName, PolicyError, Target};

    #[test]
    fn a_record_is_read_back() -> Result<(), PolicyError> {
        let name: MountName = "models".parse()?;
        let target: Target = "models.slice".parse()?;
        let record = MountRecord {
            policy: MountPolicy::new(name, "/run/shared/models".into(), target),
            cap: Some(Bytes::mib(64)),
            mount_id: 61,
            attached: true,
            mounted_on: "/run/shared/models".into(),
            made_directories: vec!["/run/shared".into(), "/run/shared/models".into()],
            leaf: "/models.slice/memcharge-store-models.service".into(),
            made_leaf: false,
            target_path: "/models.slice".into(),
            target_id: 4711,
            fragment: String::new(),
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<MountRecord>(&json).unwrap(), record);
        Ok(())
    }
}
