//! What an administrator decides about a mount.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Bytes, MountName, PolicyError, Target, words::words};

words!(
    /// What a remote charger gets when the target is out of memory.
    OnFull, "a value of on-full", "\"enospc\" or \"kill\"", {
        /// The charger gets ENOSPC; nobody is killed.
        Enospc = "enospc",
        /// A process inside the target is killed if that frees memory.
        Kill = "kill",
    }
);

words!(
    /// What happens to holes in files.
    Sparse, "a value of sparse", "\"reserve\" or \"sigbus\"", {
        /// Every page below the end of a file is allocated when the file grows: ENOSPC comes there.
        Reserve = "reserve",
        /// Holes stay holes; touching one through a mapping raises SIGBUS.
        Sigbus = "sigbus",
    }
);

words!(
    /// Which process of the target is killed.
    KillVictim, "a value of victim", "\"largest\", \"newest\" or \"oom-score\"", {
        /// The one with the most private anonymous memory.
        Largest = "largest",
        /// The one that was started last.
        Newest = "newest",
        /// The one with the highest `/proc/PID/oom_score`.
        OomScore = "oom-score",
    }
);

words!(
    /// How much is killed at once.
    KillScope, "a value of scope", "\"process\" or \"cgroup\"", {
        /// One process.
        Process = "process",
        /// The victim's whole cgroup below the target.
        Cgroup = "cgroup",
    }
);

words!(
    /// A mount option.
    MountOption, "a mount option", "nosuid, suid, nodev, dev, noexec, exec, ro, rw, relatime or noatime", {
        /// Set-user-id bits are ignored.
        Nosuid = "nosuid",
        /// Set-user-id bits count.
        Suid = "suid",
        /// Device nodes cannot be opened.
        Nodev = "nodev",
        /// Device nodes can be opened.
        Dev = "dev",
        /// Programs cannot be executed.
        Noexec = "noexec",
        /// Programs can be executed.
        Exec = "exec",
        /// Read only.
        Ro = "ro",
        /// Read and write.
        Rw = "rw",
        /// Access times are updated now and then.
        Relatime = "relatime",
        /// Access times are not updated.
        Noatime = "noatime",
    }
);

/// Refuses two options that exclude each other, such as `suid` and `nosuid`.
pub fn check_options(options: &[MountOption]) -> Result<(), PolicyError> {
    use MountOption::{Dev, Exec, Noatime, Nodev, Noexec, Nosuid, Relatime, Ro, Rw, Suid};
    for (a, b) in [(Nosuid, Suid), (Nodev, Dev), (Noexec, Exec), (Ro, Rw), (Relatime, Noatime)] {
        if options.contains(&a) && options.contains(&b) {
            return Err(PolicyError::OptionConflict(a.as_str(), b.as_str()));
        }
    }
    Ok(())
}

/// A mount's cap: a number of bytes, or a share of the target's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SizeCap {
    /// This many bytes.
    Bytes(Bytes),
    /// 1 to 100 percent of the smallest `memory.max` of the target and its ancestors.
    Percent(u8),
}

impl SizeCap {
    /// The cap in bytes. `limit` is the smallest `memory.max` of the target and its ancestors; `None` where there is
    /// none, so that a share of it means nothing.
    pub fn resolve(self, limit: Option<Bytes>) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes.page_ceil()),
            Self::Percent(percent) => limit
                .map(|limit| Bytes((u128::from(limit.0) * u128::from(percent) / 100) as u64).page_floor()),
        }
    }
}

impl FromStr for SizeCap {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let Some(share) = text.strip_suffix('%') else { return text.parse().map(Self::Bytes) };
        match share.parse() {
            Ok(percent @ 1..=100) if share.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Percent(percent)),
            _ => Err(PolicyError::Percent(text.to_owned())),
        }
    }
}

impl fmt::Display for SizeCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl TryFrom<String> for SizeCap {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        text.parse()
    }
}

impl From<SizeCap> for String {
    fn from(cap: SizeCap) -> Self {
        cap.to_string()
    }
}

/// Whom to kill, when `on-full` is `kill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillPolicy {
    /// Which process.
    pub victim: KillVictim,
    /// How much of its surroundings.
    pub scope: KillScope,
    /// Globs of cgroup names that are never killed.
    pub protect: Vec<String>,
    /// The shortest time between two kills.
    pub cooldown: Duration,
}

impl Default for KillPolicy {
    fn default() -> Self {
        Self {
            victim: KillVictim::Largest,
            scope: KillScope::Process,
            protect: Vec::new(),
            cooldown: Duration::from_secs(15),
        }
    }
}

/// All that is decided about one mount: validated, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPolicy {
    /// The mount's name.
    pub name: MountName,
    /// The mount point, absolute.
    pub place: String,
    /// Who pays.
    pub target: Target,
    /// Mount options, at most one of each pair.
    pub options: Vec<MountOption>,
    /// The cap; `None`: only the target's limits count.
    pub size: Option<SizeCap>,
    /// The inode cap; `None`: the default of tmpfs.
    pub inodes: Option<u64>,
    /// Permission bits of the root directory, with the sticky and the set-id bits.
    pub mode: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// What a remote charger gets at the limit.
    pub on_full: OnFull,
    /// Headroom left to the target's own tasks; `None`: see [`crate::admission::default_reserve`].
    pub reserve: Option<Bytes>,
    /// Whether the target's cache is reclaimed before a charge is refused.
    pub reclaim: bool,
    /// What happens to holes.
    pub sparse: Sparse,
    /// The longest time that one arbitration may take.
    pub deadline: Duration,
    /// Whom to kill.
    pub kill: KillPolicy,
}

impl MountPolicy {
    /// The options of a mount that names none.
    pub const DEFAULT_OPTIONS: [MountOption; 2] = [MountOption::Nosuid, MountOption::Nodev];

    /// A mount with every default.
    pub fn new(name: MountName, place: String, target: Target) -> Self {
        Self {
            name,
            place,
            target,
            options: Self::DEFAULT_OPTIONS.to_vec(),
            size: None,
            inodes: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            on_full: OnFull::Enospc,
            reserve: None,
            reclaim: true,
            sparse: Sparse::Reserve,
            deadline: Duration::from_millis(200),
            kill: KillPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_others_refused() {
        for word in OnFull::WORDS {
            assert_eq!(word.parse::<OnFull>().unwrap().as_str(), *word);
        }
        assert!("Enospc".parse::<OnFull>().is_err());
        let error = "sigbuss".parse::<Sparse>().unwrap_err().to_string();
        assert_eq!(error, "`sigbuss` is not a value of sparse; give \"reserve\" or \"sigbus\"");
    }

    #[test]
    fn caps() {
        assert_eq!("2G".parse(), Ok(SizeCap::Bytes(Bytes(2 << 30))));
        assert_eq!("50%".parse(), Ok(SizeCap::Percent(50)));
        for bad in ["0%", "101%", "%", "5.5%", "+5%", "x"] {
            assert!(bad.parse::<SizeCap>().is_err(), "{bad}");
        }
        assert_eq!(SizeCap::Percent(50).resolve(Some(Bytes::mib(10))), Some(Bytes::mib(5)));
        assert_eq!(SizeCap::Percent(50).resolve(None), None);
        assert_eq!(SizeCap::Bytes(Bytes(1)).resolve(None), Some(Bytes(4096)));
        assert_eq!(SizeCap::Percent(100).resolve(Some(Bytes(u64::MAX))), Some(Bytes(u64::MAX).page_floor()));
    }

    #[test]
    fn options_exclude_each_other() {
        assert!(check_options(&[MountOption::Nosuid, MountOption::Ro]).is_ok());
        assert_eq!(
            check_options(&[MountOption::Suid, MountOption::Nosuid]),
            Err(PolicyError::OptionConflict("nosuid", "suid"))
        );
    }
}
