//! What is tried before a growth is refused: other requests finish, the target's cache gives way, what there is is
//! taken, and memcharged is asked, who may kill. All of it within the mount's deadline, one request at a time.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memcharge_policy::{
    Bytes,
    outcome::{Outcome, Reason},
};

use super::{Denied, Gate, Looked};
use crate::case::Case;

impl Gate {
    /// Tries everything for a request that was `denied`. `look` looks again at all that it wants, `least` at the least
    /// that it is content with, where that is less.
    pub(super) fn arbitrate<T>(
        &self,
        case: &Case,
        asked: Bytes,
        denied: Denied,
        look: &dyn Fn() -> Looked<T>,
        least: Option<&dyn Fn() -> Looked<T>>,
    ) -> Looked<T> {
        let all_or_nothing = least.is_none();
        let least = least.unwrap_or(look);
        let note = |denied: Denied| {
            case.obstruct(denied.obstacle.clone(), asked, denied.missing);
            denied
        };
        let mut denied = note(denied);
        let Some(_place) = self.queue.enter() else {
            return least().map_err(note).inspect_err(|_| case.reason.set(Reason::Busy));
        };
        let limits = self.lock().limits;
        let until = case.until(Duration::from_micros(limits.deadline_usec));
        // A service that starts uses its mount before the store is with it.
        let recent = self.reports.is_recent(&denied.obstacle, denied.missing);
        if !recent && self.come_home(until) || self.settle(case, until) {
            match look() {
                Ok(granted) => return Ok(granted),
                Err(again) => denied = note(again),
            }
        }
        if self.reports.is_recent(&denied.obstacle, denied.missing) {
            case.quick.set(true);
            return if all_or_nothing { Err(denied) } else { least().map_err(note) };
        }
        let Some(turn) = self.queue.turn(until) else {
            return least().map_err(note).inspect_err(|_| case.reason.set(Reason::Deadline));
        };
        if turn.waited {
            match look() {
                Ok(granted) => return Ok(done(case, Outcome::Granted, granted)),
                Err(again) => denied = note(again),
            }
        }
        case.tried.set(true);
        let in_time = !limits.reclaim || self.reclaim(case, &denied, until);
        let after = if case.reclaimed.get() > Bytes(0) { Some(Outcome::GrantedAfterReclaim) } else { None };
        if after.is_some()
            && let Ok(granted) = look()
        {
            return Ok(done(case, Outcome::GrantedAfterReclaim, granted));
        }
        // What there is, before anybody is killed. Where nothing has happened since the last look, it is not repeated.
        if !all_or_nothing || after.is_some() {
            match least() {
                Ok(granted) => {
                    return Ok(match after {
                        Some(outcome) => done(case, outcome, granted),
                        None => granted,
                    });
                }
                Err(again) => denied = note(again),
            }
        }
        if !limits.ask || denied.obstacle.path.is_none() {
            if !in_time {
                case.reason.set(Reason::Deadline);
            }
            return Err(denied);
        }
        self.ask(case, denied, until, least).map_err(|(denied, reason)| {
            let denied = note(denied);
            case.reason.set(reason);
            denied
        })
    }

    /// Asks the target's cache to give way. `false`: it took too long.
    fn reclaim(&self, case: &Case, denied: &Denied, until: Instant) -> bool {
        // The cap is no matter of memory, and the machine's memory none of this target's cache alone.
        if denied.obstacle.path.is_none() || !self.lock().has_cache() {
            return true;
        }
        let before = self.lock().target.charged();
        let reclaimed = self.reclaimer.reclaim(denied.missing, until);
        // A kernel that finds less than it is asked for has freed what it found.
        let freed = before.minus(self.lock().target.charged()).max(reclaimed.bytes);
        case.reclaimed.set(case.reclaimed.get().plus(freed));
        reclaimed.in_time
    }

    /// Asks memcharged.
    fn ask<T>(
        &self,
        case: &Case,
        denied: Denied,
        until: Instant,
        least: &dyn Fn() -> Looked<T>,
    ) -> Result<T, (Denied, Reason)> {
        if let Some(reason) = case.answered.get() {
            return Err((denied, reason));
        }
        let verdict = self.reports.ask(case, &denied.obstacle, until);
        case.answered.set(Some(match verdict {
            None => Reason::Deadline,
            Some(verdict) if verdict.grant => Reason::Taken,
            Some(verdict) => verdict.reason,
        }));
        match verdict {
            None => Err((denied, Reason::Deadline)),
            Some(verdict) if !verdict.grant => Err((denied, verdict.reason)),
            Some(verdict) => {
                let outcome = if verdict.killed { Outcome::GrantedAfterKill } else { Outcome::Granted };
                least().map(|granted| done(case, outcome, granted)).map_err(|again| (again, Reason::Taken))
            }
        }
    }
}

fn done<T>(case: &Case, outcome: Outcome, granted: T) -> T {
    case.granted.set(Some(outcome));
    granted
}

/// Requests that wait. There is always a thread left that does not, and one request at a time has its turn.
pub(super) struct Queue {
    most: usize,
    inner: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    places: usize,
    turn: bool,
}

/// A place among those that wait.
pub(super) struct Place<'a>(&'a Queue);

/// The turn of one request.
pub(super) struct Turn<'a> {
    queue: &'a Queue,
    /// Whether another one had it first.
    pub(super) waited: bool,
}

impl Queue {
    /// A queue with so many places.
    pub(super) fn new(most: usize) -> Self {
        Self { most, inner: Mutex::default(), changed: Condvar::new() }
    }

    /// A place, if there is one.
    pub(super) fn enter(&self) -> Option<Place<'_>> {
        let mut inner = self.lock();
        (inner.places < self.most).then(|| {
            inner.places += 1;
            Place(self)
        })
    }

    /// Waits for the turn. `None`: it did not come in time.
    pub(super) fn turn(&self, until: Instant) -> Option<Turn<'_>> {
        let inner = self.lock();
        let waited = inner.turn;
        let patience = until.saturating_duration_since(Instant::now());
        let (mut inner, _) = self
            .changed
            .wait_timeout_while(inner, patience, |inner| inner.turn)
            .unwrap_or_else(PoisonError::into_inner);
        if inner.turn {
            return None;
        }
        inner.turn = true;
        Some(Turn { queue: self, waited })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().places -= 1;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queue.lock().turn = false;
        self.queue.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_always_left() {
        let queue = Queue::new(2);
        let first = queue.enter();
        let second = queue.enter();
        assert!(first.is_some() && second.is_some());
        assert!(queue.enter().is_none());
        drop(first);
        assert!(queue.enter().is_some());
    }

    #[test]
    fn turns_are_taken_one_after_the_other_and_waited_for_no_longer_than_allowed() {
        let queue = Queue::new(2);
        let soon = || Instant::now() + Duration::from_millis(20);
        let turn = queue.turn(soon()).unwrap();
        assert!(!turn.waited);
        assert!(queue.turn(soon()).is_none());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.turn(Instant::now() + Duration::from_secs(10)).map(|t| t.waited));
            std::thread::sleep(Duration::from_millis(20));
            drop(turn);
            assert_eq!(next.join().unwrap(), Some(true));
        });
        assert!(queue.turn(soon()).is_some());
    }
}
