//! The last kill of a target, and the wait for what it frees.

use std::time::Duration;

use super::{Candidate, Moment};
use crate::{
    KillScope,
    mountinfo::is_within,
    outcome::{EventId, Victim},
};

/// The first wait for memory after a kill: a small process is gone by then.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest wait between two samples: short against a deadline, long against the price of a sample.
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// How far a kill has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It was asked for, and nobody has said yet whether the signal was sent.
    Asked,
    /// The signal was sent.
    Sent,
    /// The signal was not sent, or under `--dry-run` never meant to be.
    NotSent,
}

/// A kill.
#[derive(Debug)]
pub(super) struct Kill {
    /// Whom it was for.
    pub(super) id: EventId,
    /// When it was asked for.
    pub(super) at: Moment,
    /// Who is named as killed.
    pub(super) victim: Victim,
    /// How far it has got.
    pub(super) progress: Progress,
    /// The identities of all that die.
    dying: Vec<(u32, u64)>,
}

impl Kill {
    /// A kill of `chosen`, one of `found`, that is asked for now.
    pub(super) fn new(
        id: EventId,
        at: Moment,
        chosen: &Candidate,
        scope: KillScope,
        found: &[Candidate],
    ) -> Self {
        let dies = |candidate: &&Candidate| match scope {
            KillScope::Process => candidate.identity() == chosen.identity(),
            KillScope::Cgroup => is_within(&candidate.cgroup, &chosen.cgroup),
        };
        let dying = found.iter().filter(dies).map(Candidate::identity).collect();
        Self { id, at, victim: chosen.named(), progress: Progress::Asked, dying }
    }

    /// A kill that is only imagined: it has a cool-down and kills nobody.
    pub(super) fn imagined(id: EventId, at: Moment, chosen: &Candidate) -> Self {
        Self { id, at, victim: chosen.named(), progress: Progress::NotSent, dying: Vec::new() }
    }

    /// Whether another one would come too soon.
    pub(super) fn is_recent(&self, now: Moment, cooldown: Duration) -> bool {
        now.saturating_sub(self.at) < cooldown
    }

    /// Whether a candidate was killed already and has only not ended yet: another signal frees nothing.
    pub(super) fn has_hit(&self, candidate: &Candidate) -> bool {
        self.progress != Progress::NotSent && self.dying.contains(&candidate.identity())
    }
}

impl Candidate {
    fn identity(&self) -> (u32, u64) {
        (self.pid, self.started)
    }

    /// How it is named in an event.
    pub(super) fn named(&self) -> Victim {
        Victim { pid: self.pid, comm: self.comm.clone(), cgroup: self.cgroup.clone() }
    }
}

/// When to look next whether memory was freed: no event of the kernel says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// The moment of the next look.
    pub(super) next: Moment,
    pause: Duration,
}

impl Backoff {
    /// The first look after a kill.
    pub(super) fn start(now: Moment) -> Self {
        Self { next: now.saturating_add(FIRST_PAUSE), pause: FIRST_PAUSE }
    }

    /// The look after one at `now`.
    pub(super) fn after(self, now: Moment) -> Self {
        if now < self.next {
            return self;
        }
        let pause = self.pause.saturating_mul(2).min(LAST_PAUSE);
        Self { next: now.saturating_add(pause), pause }
    }
}
