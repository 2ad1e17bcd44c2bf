//! What the daemon and a store say to each other, and what is written down about a mount while it exists.
//!
//! One [`Handover`] goes to a new store, with its file descriptors. After that both speak over the store's socket, one
//! JSON value a line: a [`Request`] is answered by a [`Reply`]; on a connection that has subscribed the store tells what
//! happens, as a [`Notice`].

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, MountPolicy, Sparse,
    outcome::{Charger, EventId, LimitName, Operation, Outcome, Reason},
};

/// The longest message, in bytes. Longer ones are refused unread.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The exit status of a store that gives its mount up. systemd does not start it again then, nor after 0.
pub const GIVEN_UP: u8 = 70;

/// The file descriptors that go with a [`Handover`], in this order. A store keeps them with systemd under these names.
pub const HANDOVER_FDS: [&str; 7] =
    ["fuse", "backing-mount", "backing-root", "backing-ballast", "socket", "ledger", "proc"];

/// Those of them that hold the data. memcharged keeps copies, so that the data outlive also a unit that fails.
pub const BACKING_FDS: [&str; 3] = ["backing-mount", "backing-root", "backing-ballast"];

/// The memory file of a store's state, as it is called among the descriptors that systemd keeps.
pub const STATE_FD: &str = "state";

/// What a mount needs beside its data to go on with another store: the connection to the kernel, the socket, and what the
/// store before it has written down.
pub const LINE_FDS: [&str; 3] = ["fuse", "socket", STATE_FD];

/// What a new store needs to serve its mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The limits to keep.
    pub limits: StoreLimits,
    /// The store's place in the ledger.
    pub slot: u32,
    /// Where the store belongs.
    pub home: Home,
}

/// The cgroup that a store belongs in, so that its target pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The store's cgroup, below the cgroup root; empty: it has none yet, as its target is not there. In a service or a scope
    /// it is the target itself, which systemd lets nobody divide.
    pub leaf: String,
    /// The target's cgroup, below the cgroup root.
    pub target: String,
    /// The target's cgroup id: what is made anew under its path is another cgroup.
    pub target_id: u64,
    /// Whether systemd starts the store there. Where it does not, the store moves in by itself when it is started
    /// again.
    pub by_systemd: bool,
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
    /// Whether to ask memcharged before refusing, which may kill a process of the target.
    pub ask: bool,
    /// The longest time that one refusal may take, in microseconds.
    pub deadline_usec: u64,
}

/// What the daemon says to a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How is it going? Answered by [`Reply::Status`].
    Status,
    /// Tell this connection, and no other, what happens; first of all what was not acknowledged yet. Answered by
    /// [`Reply::Done`].
    Subscribe,
    /// Keep these limits from now on. Answered by [`Reply::Done`].
    Limits(StoreLimits),
    /// Move into the target if you are outside, and open its files again: it is in order again. Answered by
    /// [`Reply::Done`].
    Reopen,
    /// The target has come: this is where you belong. Move there. Answered by [`Reply::Done`].
    Enter(Home),
    /// Tell at once what is owed, counts of repeats too: you are about to be stopped. Answered by [`Reply::Done`]; what is
    /// told comes after that, and before the next answer.
    TellAll,
    /// Which descriptors hold the data? Answered by [`Reply::Descriptors`].
    Descriptors,
    /// Which descriptors would another store need to go on? Answered by [`Reply::Line`].
    Line,
    /// The answer to [`Notice::Oom`]. Not answered.
    Verdict(Verdict),
    /// This report is recorded. Not answered.
    Recorded(EventId),
    /// The target is short of memory: give up what is granted and not used. Not answered.
    Trim,
}

/// A store's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(StoreStatus),
    /// The numbers of the descriptors in the store's process, in the order of [`BACKING_FDS`].
    Descriptors([i32; BACKING_FDS.len()]),
    /// The same, in the order of [`LINE_FDS`].
    Line([i32; LINE_FDS.len()]),
    /// It is done.
    Done,
    /// The question was not understood, or could not be answered.
    Error(String),
    /// Not an answer: something has happened.
    Notice(Notice),
}

/// What a store tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A charger needs memory that is not there, and waits. Answered by [`Request::Verdict`].
    Oom(RemoteOom),
    /// An arbitration has ended. Told again on a new connection until it was [`Request::Recorded`].
    Report(Report),
    /// So many refusals were answered like this event's, in all. Told at most once a second.
    Repeats {
        /// The event.
        id: EventId,
        /// The refusals since.
        repeats: u64,
    },
}

/// A charger needs memory that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteOom {
    /// The event that this will be.
    pub id: EventId,
    /// What was in the way, and who asked for what.
    pub what: Asked,
    /// How much longer the store waits for a verdict, in microseconds.
    pub patience_usec: u64,
}

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What the charger was doing.
    pub operation: Operation,
    /// What was asked for; 0 for metadata.
    pub bytes: Bytes,
    /// How much was missing at the limit.
    pub missing: Bytes,
    /// How much reclaim was asked to free, and did.
    pub reclaimed: Bytes,
    /// Which limit.
    pub limit: LimitName,
    /// The cgroup whose limit it is; empty for the mount's own and the machine.
    pub limit_path: String,
    /// The charger's thread, as the store's process namespace numbers it; 0: not in it.
    pub tid: u32,
    /// The charger's user.
    pub uid: u32,
}

/// What the store shall do about a [`RemoteOom`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub id: EventId,
    /// Whether there is room now.
    pub grant: bool,
    /// Why.
    pub reason: Reason,
    /// Whether a process of the target was killed for this.
    pub killed: bool,
}

/// An arbitration that has ended: what the charger really got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The event.
    pub id: EventId,
    /// When it ended, in microseconds since 1970.
    pub realtime_usec: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What it was about.
    pub what: Asked,
    /// From the first look to the answer, in microseconds.
    pub duration_usec: u64,
    /// See [`Notice::Repeats`].
    pub repeats: u64,
    /// Who asked, where the store has seen that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charger: Option<Charger>,
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
    /// Refusals since the mount was made.
    pub denials: u64,
    /// Kills for this mount since it was made.
    pub kills: u64,
    /// Grants after an arbitration that could not be recorded, since nobody took the records.
    pub unrecorded: u64,
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
    /// The cgroup of the store below the cgroup root; empty: the target is not there yet.
    pub leaf: String,
    /// Whether that cgroup was made by memcharged (a raw target), and so is removed with the mount.
    pub made_leaf: bool,
    /// The target's cgroup below the cgroup root.
    pub target_path: String,
    /// The target's cgroup id (inode number of its directory); 0: it is not there yet.
    pub target_id: u64,
    /// The store's place in the ledger.
    #[serde(default)]
    pub slot: u32,
    /// The policy as the configuration or `Mount` gave it, where `policy` was changed at run time.
    #[serde(default)]
    pub base: Option<MountPolicy>,
    /// How often the policy was changed.
    #[serde(default)]
    pub generation: u64,
    /// When the mount was made, in microseconds since 1970.
    #[serde(default)]
    pub made_usec: u64,
    /// Whether its data are just being mounted again: what is undone of that leaves the record.
    #[serde(default)]
    pub recovering: bool,
    /// Whether its store is just being started in another target: the end of one there is not the end of the mount. Until
    /// the store serves there everything else in the record is about the old target.
    #[serde(default)]
    pub moving: bool,
    /// What of the files was charged elsewhere before the mount got its target.
    #[serde(default)]
    pub previous: Previous,
    /// The file that configures the mount; empty for a mount made at run time.
    pub fragment: String,
    /// The user who has made the mount and may change it; 0: root, or somebody with root's consent.
    #[serde(default)]
    pub owner: u32,
}

/// What was charged before a mount got the target that it has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Previous {
    /// The targets that it had, the first one first.
    pub targets: Vec<String>,
    /// What its files held when it got the target that it has now: what of it is still there is charged to those.
    pub bytes: Bytes,
}

impl Previous {
    /// No list grows without bound. What is left out is the oldest.
    const MAX_TARGETS: usize = 16;

    /// The same after a mount with `used` bytes has left `target`.
    pub fn and(mut self, target: String, used: Bytes) -> Self {
        if used == Bytes(0) {
            return Self::default();
        }
        self.targets.retain(|known| *known != target);
        self.targets.push(target);
        let surplus = self.targets.len().saturating_sub(Self::MAX_TARGETS);
        self.targets.drain(..surplus);
        Self { bytes: used, ..self }
    }

    /// How much of `used` bytes is charged elsewhere, at most. `new`: what the store's own cgroup is charged for files, which
    /// is less than all of the new where the store was started again since.
    pub fn at_most(&self, used: Bytes, new: Option<Bytes>) -> Bytes {
        self.bytes.min(used.minus(new.unwrap_or_default()))
    }
}

impl Home {
    /// Whether the store is in the target's own cgroup, beside its processes.
    pub fn is_shared(&self) -> bool {
        self.leaf == self.target
    }
}

impl MountRecord {
    /// Where records are kept.
    pub const DIR: &str = "/run/memcharge/mounts";

    /// Where it is noted that a mount shall end.
    pub fn stop_path(name: &crate::MountName) -> String {
        format!("{}/{name}.stop", Self::SOCKET_DIR)
    }

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
            slot: 3,
            base: None,
            generation: 0,
            made_usec: 0,
            recovering: false,
            moving: false,
            previous: Previous::default().and("old.slice".into(), Bytes::mib(1)),
            fragment: String::new(),
            owner: 1000,
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<MountRecord>(&json).unwrap(), record);
        Ok(())
    }

    #[test]
    fn r29_earlier_targets_are_known_for_as_long_as_they_may_pay() {
        let first = Previous::default().and("a".into(), Bytes::mib(4));
        let second = first.clone().and("b".into(), Bytes::mib(6));
        assert_eq!((second.targets.join(" "), second.bytes), ("a b".to_owned(), Bytes::mib(6)));
        // Back and forth: each is named once.
        assert_eq!(second.clone().and("a".into(), Bytes::mib(1)).targets.join(" "), "b a");
        // Nothing was there that anybody could pay for.
        assert_eq!(second.clone().and("c".into(), Bytes(0)), Previous::default());
        let many = (0..40).fold(second, |previous, at| previous.and(at.to_string(), Bytes(1)));
        assert_eq!((many.targets.len(), many.targets.last().map(String::as_str)), (16, Some("39")));

        for (used, new, old) in [
            (Bytes::mib(4), Some(Bytes(0)), Bytes::mib(4)),
            // Written since.
            (Bytes::mib(10), Some(Bytes::mib(6)), Bytes::mib(4)),
            // Of the old, some was removed.
            (Bytes::mib(7), Some(Bytes::mib(6)), Bytes::mib(1)),
            // What is new cannot be told, or not all of it.
            (Bytes::mib(10), None, Bytes::mib(4)),
            (Bytes::mib(10), Some(Bytes::mib(1)), Bytes::mib(4)),
            (Bytes::mib(3), None, Bytes::mib(3)),
        ] {
            assert_eq!(first.at_most(used, new), old, "{used} {new:?}");
        }
    }
}
