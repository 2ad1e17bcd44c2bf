//! The last refusal at each limit, which stands for a moment for others like it.

use std::time::{Duration, Instant};

use memcharge_policy::{
    Bytes,
    link::{Notice, Report},
    outcome::EventId,
};

use crate::case::{Case, Obstacle};

/// Limits that are remembered. A target has a few levels with two limits each, and a mount has two limits of its own.
const MAX_RECENT: usize = 16;

/// How long a refusal stands for others like it. Meanwhile they are answered as soon as it is clear that the same limit is
/// still in the way.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

/// A refusal is like another one if not more than this much less is missing: `memory.current` moves in batches.
const LIKE: Bytes = Bytes::kib(256);

/// Repeats are told this often at most.
pub(super) const TELL_REPEATS: Duration = Duration::from_secs(1);

/// The last refusals.
pub(super) struct Recents(Vec<Recent>);

/// The last refusal at one limit.
struct Recent {
    obstacle: Obstacle,
    missing: Bytes,
    until: Instant,
    /// Whether everything was tried before it was refused: only then it stands for others that would have to be tried.
    tried: bool,
    report: Report,
    repeats: u64,
    told: u64,
    told_at: Instant,
}

/// When a count was told that can be told again now.
fn long_ago(now: Instant) -> Instant {
    now.checked_sub(TELL_REPEATS).unwrap_or(now)
}

impl Recents {
    /// None yet. All capacity is there before the target can be full.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(MAX_RECENT))
    }

    /// Whether a refusal of `missing` bytes at `obstacle` would repeat one for which everything was tried.
    pub(super) fn stand_for(&self, obstacle: &Obstacle, missing: Bytes, now: Instant) -> bool {
        self.0.iter().any(|recent| recent.tried && recent.is_like(obstacle, missing, now))
    }

    /// Counts a refusal as a repeat, if it is one: `Some` says whether it is to be told of soon.
    pub(super) fn repeat(&mut self, obstacle: &Obstacle, case: &Case, now: Instant) -> Option<bool> {
        let recent = self.0.iter_mut().find(|recent| recent.obstacle == *obstacle)?;
        // One that was answered at once because of this one is its repeat, however long that took.
        let like = case.quick.get()
            || (recent.tried || !case.tried.get()) && recent.is_like(obstacle, case.missing.get(), now);
        like.then(|| recent.count())
    }

    /// Counts a repeat of the event `id`, if that is remembered.
    pub(super) fn repeat_event(&mut self, id: EventId) -> bool {
        let recent = self.0.iter_mut().find(|recent| recent.report.id == id);
        recent.map(Recent::count).is_some()
    }

    /// Remembers a refusal. What it takes the place of was repeated for the last time: that one's report is returned, with
    /// its last count, if there was any.
    pub(super) fn remember(
        &mut self,
        obstacle: Obstacle,
        case: &Case,
        report: Report,
        now: Instant,
    ) -> Option<Report> {
        let recent = Recent {
            obstacle,
            missing: case.missing.get(),
            until: now + REPEAT_WINDOW,
            tried: case.tried.get(),
            report,
            repeats: 0,
            told: 0,
            // The first repeat is told at once.
            told_at: long_ago(now),
        };
        let place = self.0.iter().position(|old| old.obstacle == recent.obstacle);
        let place = place.or_else(|| {
            let full = self.0.len() == MAX_RECENT;
            full.then(|| self.0.iter().enumerate().min_by_key(|(_, old)| old.until))?.map(|(at, _)| at)
        });
        let Some(old) = place.and_then(|at| self.0.get_mut(at)) else {
            self.0.push(recent);
            return None;
        };
        let old = std::mem::replace(old, recent);
        (old.repeats > 0).then_some(Report { repeats: old.repeats, ..old.report })
    }

    /// From now on none stands for others. Their counts are still owed.
    pub(super) fn end(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|recent| recent.until = now);
    }

    /// Counts are to be told at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|recent| recent.told_at = long_ago(now));
    }

    /// Somebody new listens, who was told nothing.
    pub(super) fn tell_again(&mut self) {
        self.0.iter_mut().for_each(|recent| recent.told = 0);
    }

    /// Whether there is a count to tell now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.0.iter().any(|recent| recent.repeats > recent.told && now >= recent.told_at + TELL_REPEATS)
    }

    /// A count to tell, or how long until there is one.
    pub(super) fn next_notice(&mut self, now: Instant) -> (Option<Notice>, Option<Duration>) {
        let mut wait: Option<Duration> = None;
        for recent in self.0.iter_mut().filter(|recent| recent.repeats > recent.told) {
            let due = (recent.told_at + TELL_REPEATS).saturating_duration_since(now);
            if due.is_zero() {
                (recent.told, recent.told_at) = (recent.repeats, now);
                return (Some(Notice::Repeats { id: recent.report.id, repeats: recent.repeats }), None);
            }
            wait = Some(wait.map_or(due, |wait| wait.min(due)));
        }
        (None, wait)
    }
}

impl Recent {
    fn is_like(&self, obstacle: &Obstacle, missing: Bytes, now: Instant) -> bool {
        now < self.until && missing.plus(LIKE) >= self.missing && self.obstacle == *obstacle
    }

    /// Whether this is the first repeat after a quiet time, which starts the clock.
    fn count(&mut self) -> bool {
        self.repeats += 1;
        self.repeats == self.told + 1
    }
}
