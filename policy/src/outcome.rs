//! What an arbitration ended in, as it is recorded and shown.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Bytes, PolicyError, words::words};

words!(
    /// How an arbitration ended.
    Outcome, "an outcome", "granted, granted-after-reclaim, granted-after-kill, enospc or enospc-timeout", {
        /// There was memory by the time it was looked at again.
        Granted = "granted",
        /// Cache of the target gave way.
        GrantedAfterReclaim = "granted-after-reclaim",
        /// A process of the target was killed.
        GrantedAfterKill = "granted-after-kill",
        /// The charger got ENOSPC.
        Enospc = "enospc",
        /// The charger got ENOSPC because the deadline had passed.
        EnospcTimeout = "enospc-timeout",
    }
);

impl Outcome {
    /// Whether the charger got ENOSPC.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Enospc | Self::EnospcTimeout)
    }
}

words!(
    /// Whose limit was hit.
    LimitKind, "a kind of limit", "mount, target, ancestor or machine", {
        /// The mount's own: its cap, or its number of inodes.
        Mount = "mount",
        /// The target's, or one of a cgroup below it.
        Target = "target",
        /// That of a cgroup above the target.
        Ancestor = "ancestor",
        /// The machine's memory.
        Machine = "machine",
    }
);

words!(
    /// Which limit was hit.
    LimitName, "a limit", "size, inodes, memory.max, memory.high, MemAvailable or unreadable", {
        /// The mount's cap on the bytes in files.
        Size = "size",
        /// The mount's cap on inodes.
        Inodes = "inodes",
        /// `memory.max` of a cgroup.
        Max = "memory.max",
        /// `memory.high` of a cgroup.
        High = "memory.high",
        /// The machine's available memory.
        Machine = "MemAvailable",
        /// No limit: the target could not be read, or the store is not in it, so nothing may grow.
        Unreadable = "unreadable",
    }
);

words!(
    /// Why an arbitration ended as it did.
    Reason, "a reason", "a word of the documentation of history", {
        /// There is room now.
        Room = "room",
        /// The policy is `on-full = "enospc"`.
        Policy = "policy",
        /// The mount's own cap was hit: no kill would free anything of it.
        Cap = "cap",
        /// The machine's memory was short, which is no matter of this target.
        Machine = "machine",
        /// What makes or finds a name never waits, and nothing is killed for it.
        Metadata = "metadata",
        /// The last kill was too short a time ago.
        Cooldown = "cooldown",
        /// No process may be killed whose death would free enough.
        NoVictim = "no-victim",
        /// The kill did not work.
        KillFailed = "kill-failed",
        /// The victim was killed, and not enough was freed in time.
        NotFreed = "not-freed",
        /// The deadline passed.
        Deadline = "deadline",
        /// memcharged was not there to be asked.
        NoDaemon = "no-daemon",
        /// As many requests as may wait were waiting already.
        Busy = "busy",
        /// What had been freed was taken by others before the charge.
        Taken = "taken",
        /// The target could not be read, or the store is not in it.
        TargetLost = "target-lost",
    }
);

words!(
    /// What a charger was doing.
    Operation, "an operation", "write, truncate, fallocate, copy, make, change or look", {
        /// Writing.
        Write = "write",
        /// Setting a file's length.
        Truncate = "truncate",
        /// fallocate(2).
        Fallocate = "fallocate",
        /// copy_file_range(2).
        Copy = "copy",
        /// Making a name: a file, a directory, a link.
        Make = "make",
        /// Changing an attribute.
        Change = "change",
        /// Finding or opening what exists.
        Look = "look",
    }
);

/// The identity of one arbitration: 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(pub u128);

/// An odd number, so that multiplying by it loses nothing. It spreads the sequence over all digits: the first few of an id
/// are enough to tell it from others.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

impl EventId {
    /// The `sequence`-th event of the store that has drawn `store` at random when it started.
    pub fn new(store: u64, sequence: u64) -> Self {
        Self(((u128::from(store) << 64) | u128::from(sequence)).wrapping_mul(SPREAD))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for EventId {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let valid =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let id = valid.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| PolicyError::EventId(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for EventId {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

/// Who wanted memory. What the kernel does not tell any more, since the process has ended, is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Charger {
    /// The process; 0 where it lives in a process namespace that memcharge cannot see.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub comm: String,
    /// Its cgroup below the root.
    pub cgroup: String,
}

/// Who was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// The process that was chosen. With `scope = "cgroup"` the others of its cgroup died too.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its cgroup below the root.
    pub cgroup: String,
}

/// The limit that was hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Whose.
    pub kind: LimitKind,
    /// The cgroup below the root; empty for the mount's own limits and the machine.
    pub path: String,
    /// Which.
    pub name: LimitName,
}

/// One arbitration as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its identity.
    pub id: EventId,
    /// When it ended, in microseconds since 1970.
    pub realtime_usec: u64,
    /// The mount.
    pub mount: String,
    /// The mount's target, as it was configured.
    pub target: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What the charger was doing.
    pub operation: Operation,
    /// What was in the way.
    pub limit: Limit,
    /// What was asked for; 0 for metadata.
    pub bytes_asked: Bytes,
    /// How much was missing when it was first looked at.
    pub bytes_missing: Bytes,
    /// How much reclaim was asked to free, and did.
    pub bytes_reclaimed: Bytes,
    /// Who was killed for it.
    pub victim: Option<Victim>,
    /// Who asked.
    pub charger: Charger,
    /// From the first look to the answer, in microseconds.
    pub duration_usec: u64,
    /// Refusals for the same limit, shortly after, that were answered without arbitrating again.
    pub repeats: u64,
    /// Under `--dry-run`: what would have been the outcome, and `victim` is who would have been killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_have: Option<Outcome>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hex_digits() {
        let id = EventId::new(0xabcd, 7);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        let next = EventId::new(0xabcd, 8).to_string();
        assert_ne!(id.to_string()[..8], next[..8], "a few digits tell two events apart");
        assert_eq!(EventId(7).to_string(), "00000000000000000000000000000007");
        for bad in ["", "7", "000000000000ABCD0000000000000007", "+00000000000abcd0000000000000007"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_are_told_from_grants() {
        let refusals = Outcome::WORDS.iter().filter(|word| word.parse::<Outcome>().unwrap().is_refusal());
        assert_eq!(refusals.copied().collect::<Vec<_>>(), ["enospc", "enospc-timeout"]);
    }
}
