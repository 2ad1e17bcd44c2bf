//! What an arbiter is told, and what it asks for.

use std::time::Duration;

use crate::{
    Bytes, KillPolicy, KillScope, MountName, OnFull,
    events::Delta,
    link::{Asked, Verdict},
    outcome::{EventId, Outcome, Victim},
    sample::Sample,
};

/// A moment: the time since an origin that the caller has chosen once.
pub type Moment = Duration;

/// What an arbiter is told. A sample is fresh, of the target's cgroup (level 0) and its ancestors.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A store has no memory for a charger, who waits.
    RemoteOom {
        /// What is asked.
        ask: Ask,
        /// The target now.
        sample: Sample,
    },
    /// The answer to [`Effect::LookForVictims`].
    Candidates {
        /// Whom it was asked for.
        id: EventId,
        /// All processes of the target's subtree; the caller bounds how many it takes.
        found: Vec<Candidate>,
        /// The target after they were found.
        sample: Sample,
    },
    /// The answer to [`Effect::Kill`]. That the signal was sent does not mean that memory was freed.
    Killed {
        /// Whom it was asked for.
        id: EventId,
        /// Whether the signal was sent.
        result: Result<(), KillFailure>,
    },
    /// The answer to [`Effect::Arm`].
    Sampled {
        /// The target now.
        sample: Sample,
    },
    /// `memory.events` of the target or of an ancestor was read again.
    Events {
        /// What has happened since the last reading.
        delta: Delta,
        /// The target now.
        sample: Sample,
    },
    /// The store has reported how it ended, or waits no longer: what was promised is taken or not needed.
    Settled {
        /// Which.
        id: EventId,
    },
    /// The store of this mount is gone: what it asked is not answered.
    Forget {
        /// The mount.
        mount: MountName,
    },
    /// The policy of a mount has changed.
    Policy {
        /// The mount.
        mount: MountName,
        /// The rules from now on.
        rules: Rules,
    },
}

/// What an arbiter asks the caller to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a store. There is exactly one for each ask, unless the store gave up before.
    ///
    /// The store derives the outcome: a refusal for [`Reason::Deadline`](crate::outcome::Reason::Deadline) or
    /// [`Reason::NotFreed`](crate::outcome::Reason::NotFreed) is [`Outcome::EnospcTimeout`], a grant with `killed` is
    /// [`Outcome::GrantedAfterKill`].
    Answer {
        /// Which.
        id: EventId,
        /// Whose store is answered.
        mount: MountName,
        /// The answer.
        verdict: Verdict,
        /// Who was killed for it; with `would_have`, who would have been.
        victim: Option<Victim>,
        /// Under `--dry-run`, and only for a refusal: how it would have ended.
        would_have: Option<Outcome>,
    },
    /// Find the processes of the target's subtree and answer with [`Input::Candidates`].
    LookForVictims {
        /// Whom it is for.
        id: EventId,
    },
    /// Kill and answer with [`Input::Killed`], once.
    Kill {
        /// Whom it is for.
        id: EventId,
        /// The process; its cgroup is what dies with [`KillScope::Cgroup`].
        victim: Candidate,
        /// How much of its surroundings.
        scope: KillScope,
    },
    /// Answer with [`Input::Sampled`] at this moment or shortly after. Of several moments only the earliest counts;
    /// with the answer all are done with.
    Arm {
        /// The moment.
        at: Moment,
    },
    /// Ask all stores of the target to give up what is granted and not used.
    Trim,
}

/// What a store asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The event that this will be.
    pub id: EventId,
    /// The store's mount.
    pub mount: MountName,
    /// What was in the way, and who asked for what.
    pub asked: Asked,
    /// When the store waits no longer. An ask is answered before, or refused then.
    pub deadline: Moment,
    /// What must stay free for the target's own tasks; `None`: [`crate::admission::default_reserve`].
    pub reserve: Option<Bytes>,
    /// The mount's rules.
    pub rules: Rules,
}

/// The part of a mount's policy that an arbiter keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What the charger gets when there is no room.
    pub on_full: OnFull,
    /// Whom to kill.
    pub kill: KillPolicy,
    /// Whether to say only what would be done.
    pub dry_run: bool,
}

/// A process of the target's subtree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The process.
    pub pid: u32,
    /// When it was started, in clock ticks since boot. With the pid it is the process' identity.
    pub started: u64,
    /// Its name.
    pub comm: String,
    /// Its cgroup below the root, with a leading `/`.
    pub cgroup: String,
    /// What its death frees at least: private anonymous memory that is charged to its cgroup.
    pub frees: Bytes,
    /// `/proc/PID/oom_score`.
    pub oom_score: u32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
}

/// Why no signal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillFailure {
    /// The process had ended.
    Gone,
    /// The process had left the target, or something had come into the cgroup that must not be killed.
    Changed,
    /// The kernel refused.
    Refused,
}

impl Ask {
    /// What a grant lets the store take, in whole pages.
    pub(super) fn need(&self) -> Bytes {
        self.asked.bytes.page_ceil()
    }
}
