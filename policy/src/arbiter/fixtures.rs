//! A small target and those who ask, for tests.

use std::time::Duration;

use super::{Ask, Candidate, Moment, Rules};
use crate::{
    Bytes, KillPolicy, MountName, OnFull,
    link::Asked,
    outcome::{EventId, LimitName, Operation},
    sample::{LevelSample, Sample},
};

/// The target's cgroup, of 64 MiB.
pub(super) const TARGET: &str = "/t.slice";

pub(super) fn ms(n: u64) -> Moment {
    Duration::from_millis(n)
}

pub(super) fn id(n: u64) -> EventId {
    EventId::new(1, n)
}

pub(super) fn name(text: &str) -> MountName {
    text.parse().unwrap()
}

/// A cgroup of 64 MiB with `current` MiB in use.
pub(super) fn level(current: u64) -> LevelSample {
    LevelSample { current: Bytes::mib(current), max: Some(Bytes::mib(64)), high: None }
}

/// The target with `current` MiB in use.
pub(super) fn sample(current: u64) -> Sample {
    Sample { levels: vec![level(current)], available: Bytes::mib(4096) }
}

pub(super) fn rules() -> Rules {
    Rules {
        on_full: OnFull::Kill,
        kill: KillPolicy { cooldown: Duration::from_secs(1), ..KillPolicy::default() },
        dry_run: false,
    }
}

/// A write of 1 MiB of a mount whose reserve is 4 MiB. With the margin it needs 6 MiB of headroom.
pub(super) fn ask(n: u64) -> Ask {
    let asked = Asked {
        operation: Operation::Write,
        bytes: Bytes::mib(1),
        missing: Bytes::mib(1),
        reclaimed: Bytes(0),
        limit: LimitName::Max,
        limit_path: TARGET.into(),
        tid: 100,
        uid: 1000,
    };
    let reserve = Some(Bytes::mib(4));
    Ask { id: id(n), mount: name("m"), asked, deadline: ms(200), reserve, rules: rules() }
}

/// A process in a cgroup of its own below the target, with `mib` MiB that its death frees.
pub(super) fn candidate(pid: u32, mib: u64) -> Candidate {
    Candidate {
        pid,
        started: 1000,
        comm: format!("task-{pid}"),
        cgroup: format!("{TARGET}/app-{pid}.service"),
        frees: Bytes::mib(mib),
        oom_score: 100,
        oom_score_adj: 0,
    }
}
