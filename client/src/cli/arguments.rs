//! The arguments of the verbs that have several, and how their values are read.

use std::ffi::OsString;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;
use memcharge_policy::MountName;

use crate::{
    completion::{mounts, targets},
    time::{Since, parse_since},
};

/// The arguments of `mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The mount's name
    pub(crate) name: MountName,
    /// The mount point; made if it is missing
    #[arg(long = "where", value_name = "DIR", value_parser = parse_place, value_hint = ValueHint::DirPath)]
    pub(crate) place: String,
    /// Who pays: a slice, service or scope, or a path below /sys/fs/cgroup
    #[arg(long, value_name = "CG", add = ArgValueCandidates::new(targets))]
    pub(crate) target: String,
    /// The cap: bytes, with K, M, G or T, or a share of the target's limit as in "50%"
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// What a remote charger gets when the target is full: enospc or kill
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_full: Option<String>,
    /// What happens to holes in files: reserve or sigbus
    #[arg(long, value_name = "POLICY")]
    pub(crate) sparse: Option<String>,
    /// Set another key, as in the mount's file: reserve=64M, kill.victim=newest
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) set: Vec<String>,
    /// Write the mount's file, so that it is there after a reboot
    #[arg(long)]
    pub(crate) persist: bool,
    /// Accept a target that is not there yet
    #[arg(long)]
    pub(crate) wait: bool,
}

/// The arguments of `retarget`.
#[derive(Debug, Args)]
pub(crate) struct RetargetArgs {
    /// The mount's name
    #[arg(add = ArgValueCandidates::new(mounts))]
    pub(crate) name: MountName,
    /// Who pays from now on: a slice, service or scope, or a path below /sys/fs/cgroup
    #[arg(add = ArgValueCandidates::new(targets))]
    pub(crate) target: String,
    /// What becomes of the memory that the files hold now; refuse where no MODE is given
    #[arg(long, value_enum)]
    pub(crate) mode: Option<RetargetMode>,
    /// Accept a target that is not there yet; nothing can grow until it is
    #[arg(long)]
    pub(crate) wait: bool,
}

/// What `retarget` does with memory that is charged already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RetargetMode {
    /// Only if no file holds memory
    Refuse,
    /// What is in memory stays on the old bill until it is freed
    FutureOnly,
    /// Moves it to the new bill; not built yet
    Migrate,
}

impl RetargetMode {
    /// The word of the contract.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::FutureOnly => "future-only",
            Self::Migrate => "migrate",
        }
    }
}

/// The arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Show those of this mount only; it need not be there any more
    #[arg(add = ArgValueCandidates::new(mounts))]
    pub(crate) name: Option<MountName>,
    /// Show those since then: "10min" ago, "@SECONDS" since 1970, or a UTC time `YYYY-MM-DD[ HH:MM[:SS]]`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: Option<Since>,
    /// Show this many at most, the newest; 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: Option<u32>,
}

/// Whatever follows a verb that is not built yet.
#[derive(Debug, Args)]
pub(crate) struct Unbuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

fn parse_place(text: &str) -> Result<String, String> {
    match text.strip_prefix('/') {
        Some(_) => Ok(text.to_owned()),
        None => Err("a mount point is an absolute path".to_owned()),
    }
}

/// The id of an event, or its first digits. Whether there is one is for the daemon to say.
pub(super) fn parse_event_id(text: &str) -> Result<String, String> {
    if (4..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("an event is named by 4 to 32 hex digits".to_owned())
    }
}
