//! What is told about arbitrations: each request that was refused, or that was granted only after something was done for
//! it, is one outcome, written down when the answer is known.
//!
//! A refusal like one of a moment ago is not arbitrated again; it counts as a repeat of that one. Nothing here grows:
//! what nobody takes is counted.

mod recent;
mod told;
mod waker;

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use memcharge_policy::{
    Bytes,
    link::{Asked, Notice, RemoteOom, Report, StoreStatus, Verdict},
    outcome::{Charger, EventId, Outcome, Reason},
};
use rustix::rand::GetRandomFlags;

pub(crate) use self::told::Told;
use self::{recent::Recents, waker::Waker};
use crate::{
    case::{Case, Obstacle},
    error::{StoreError, io},
    who::Processes,
};

/// Reports that wait for memcharged to record them.
const RING: usize = 64;

/// Places that a new refusal needs: its own, and one for the last count of the refusal before it. Without them it counts
/// as a repeat of the last one that is waiting.
const REFUSAL_PLACES: usize = 2;

/// Grants leave one more, so that there is always a refusal among those that wait.
const GRANT_PLACES: usize = 3;

/// What is counted for the mount. It is kept where it outlives this process.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Counters {
    /// Refusals.
    pub(crate) denials: AtomicU64,
    /// Kills for this mount.
    pub(crate) kills: AtomicU64,
    /// Grants after an arbitration that could not be recorded.
    pub(crate) unrecorded: AtomicU64,
}

/// All reports of this store.
pub(crate) struct Reports {
    /// Drawn at random, so that the events of two stores differ.
    store: u64,
    inner: Mutex<Inner>,
    /// A verdict has come, or nobody is there to give one.
    judged: Condvar,
    /// Wakes the thread that talks to memcharged.
    waker: Waker,
    /// Where those who ask are found.
    processes: Processes,
}

struct Inner {
    next: u64,
    ring: VecDeque<Entry>,
    /// Places for what was asked, and must be reported however it ends.
    reserved: usize,
    recent: Recents,
    counters: &'static Counters,
    /// Whether somebody listens.
    connected: bool,
    question: Option<Question>,
}

struct Entry {
    told: bool,
    /// How often it was told, with whatever count, and not recorded since.
    unacknowledged: u32,
    report: Report,
}

/// What memcharged is asked. One at a time.
struct Question {
    oom: RemoteOom,
    until: Instant,
    told: bool,
    verdict: Option<Verdict>,
}

impl Reports {
    /// Nothing to tell yet.
    pub(crate) fn new(counters: &'static Counters, processes: Processes) -> Result<Self, StoreError> {
        let mut store = [0; 8];
        rustix::rand::getrandom(&mut store, GetRandomFlags::empty()).map_err(io("draw a random number"))?;
        // All capacity is there before the target can be full.
        let inner = Inner {
            next: 0,
            ring: VecDeque::with_capacity(RING),
            reserved: 0,
            recent: Recents::new(),
            counters,
            connected: false,
            question: None,
        };
        Ok(Self {
            store: u64::from_ne_bytes(store),
            inner: Mutex::new(inner),
            judged: Condvar::new(),
            waker: Waker::new()?,
            processes,
        })
    }

    /// Becomes readable when there is something to tell.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }

    /// To be called by who was woken, before it looks for what to tell: what comes after that wakes it again.
    pub(crate) fn heard(&self) {
        self.waker.heard();
    }

    /// Whether a refusal of `missing` bytes at `obstacle` would repeat one that was arbitrated a moment ago.
    pub(crate) fn is_recent(&self, obstacle: &Obstacle, missing: Bytes) -> bool {
        self.lock().recent.stand_for(obstacle, missing, Instant::now())
    }

    /// The client gets ENOSPC. What is returned is to be kept until it has it.
    pub(crate) fn refused(&self, case: &Case, obstacle: Obstacle) -> Told<'_> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.counters.denials.fetch_add(1, Ordering::SeqCst);
        if case.sequence.get().is_none()
            && let Some(soon) = inner.recent.repeat(&obstacle, case, now)
        {
            return if soon { Told::soon(self) } else { Told::NOTHING };
        }
        let outcome = match case.reason.get() {
            Reason::Deadline | Reason::NotFreed => Outcome::EnospcTimeout,
            _ => Outcome::Enospc,
        };
        if !inner.may_report(case, REFUSAL_PLACES) {
            inner.repeat_last_refusal();
            return Told::soon(self);
        }
        let report = inner.report(self.store, case, &obstacle, outcome);
        let told = self.told(case, report.id);
        // An event that cannot be repeated any more is reported once more with its last count, so that this is recorded
        // for sure.
        if let Some(last) = inner.recent.remember(obstacle, case, report.clone(), now) {
            inner.push(last);
        }
        inner.push(report);
        told
    }

    /// memcharged has looked at who has asked it. Others are looked at by the store, as soon as they have their answer: they
    /// may be gone when memcharged hears of them.
    fn told(&self, case: &Case, id: EventId) -> Told<'_> {
        let who = case.sequence.get().is_none().then_some((id, case.tid, case.uid));
        Told { reports: Some(self), who }
    }

    /// The client gets what it asked for, after an arbitration.
    pub(crate) fn granted(&self, case: &Case, obstacle: &Obstacle, outcome: Outcome) -> Told<'_> {
        let mut inner = self.lock();
        if !inner.may_report(case, GRANT_PLACES) {
            inner.counters.unrecorded.fetch_add(1, Ordering::SeqCst);
            return Told::NOTHING;
        }
        let report = inner.report(self.store, case, obstacle, outcome);
        let told = self.told(case, report.id);
        inner.push(report);
        told
    }

    /// Asks memcharged, and waits for its verdict until `until`. `None`: it did not come in time.
    pub(crate) fn ask(&self, case: &Case, obstacle: &Obstacle, until: Instant) -> Option<Verdict> {
        let mut inner = self.lock();
        if !inner.connected || inner.question.is_some() || !inner.has_places(GRANT_PLACES) {
            return Some(Verdict { id: EventId(0), grant: false, reason: Reason::NoDaemon, killed: false });
        }
        let sequence = inner.take_number();
        case.sequence.set(Some(sequence));
        // A report must follow: its place is kept.
        inner.reserved += 1;
        let id = EventId::new(self.store, sequence);
        // memcharged gives up a little earlier than the store, so that its verdict is not missed by a hair.
        let left = until.saturating_duration_since(Instant::now());
        let patience = left - left / 8;
        let oom = RemoteOom { id, what: asked(case, obstacle), patience_usec: micros(patience) };
        inner.question = Some(Question { oom, until, told: false, verdict: None });
        drop(inner);
        self.waker.now();
        let inner = self.lock();
        let open = |inner: &mut Inner| inner.question.as_ref().is_some_and(|q| q.verdict.is_none());
        let (mut inner, _) =
            self.judged.wait_timeout_while(inner, left, open).unwrap_or_else(PoisonError::into_inner);
        let verdict = inner.question.take().and_then(|question| question.verdict);
        if verdict.is_some_and(|verdict| verdict.killed) {
            inner.counters.kills.fetch_add(1, Ordering::SeqCst);
        }
        verdict
    }

    /// A verdict of memcharged. One that comes too late has nobody to be told.
    pub(crate) fn judge(&self, verdict: Verdict) {
        let mut inner = self.lock();
        match &mut inner.question {
            Some(question) if question.oom.id == verdict.id => question.verdict = Some(verdict),
            // The request has its answer; but a process was killed for it all the same.
            _ => drop(inner.counters.kills.fetch_add(u64::from(verdict.killed), Ordering::SeqCst)),
        }
        drop(inner);
        self.judged.notify_all();
    }

    /// Somebody listens from now on, and is told everything that is not recorded yet; or nobody does.
    pub(crate) fn connect(&self, connected: bool) {
        let mut inner = self.lock();
        inner.connected = connected;
        inner.ring.iter_mut().for_each(|entry| (entry.told, entry.unacknowledged) = (false, 0));
        inner.recent.tell_again();
        if let Some(question) = &mut inner.question {
            question.told = false;
            if !connected {
                let id = question.oom.id;
                question.verdict =
                    Some(Verdict { id, grant: false, reason: Reason::NoDaemon, killed: false });
            }
        }
        drop(inner);
        self.judged.notify_all();
    }

    /// A report is recorded as it was told. One that was, or is, to be told again with a later count stays until that is
    /// recorded too.
    pub(crate) fn recorded(&self, id: EventId) {
        self.lock().ring.retain_mut(|entry| {
            if entry.report.id != id {
                return true;
            }
            entry.unacknowledged = entry.unacknowledged.saturating_sub(1);
            entry.unacknowledged > 0 || !entry.told
        });
    }

    /// The rules have changed: from now on no refusal stands for later ones. Their counts are still owed.
    pub(crate) fn forget(&self) {
        self.lock().recent.end(Instant::now());
    }

    /// What is told now and then is to be told now.
    pub(crate) fn hurry(&self) {
        self.lock().recent.hurry(Instant::now());
    }

    /// Whether there is something to tell now; `Some(true)`: a question.
    pub(crate) fn waits(&self) -> Option<bool> {
        let inner = self.lock();
        if !inner.connected {
            return None;
        }
        if inner.question.as_ref().is_some_and(Question::is_open) {
            return Some(true);
        }
        let due = inner.ring.iter().any(|entry| !entry.told) || inner.recent.is_due(Instant::now());
        due.then_some(false)
    }

    /// The next thing to tell, and how long until there may be something else.
    pub(crate) fn next_notice(&self) -> (Option<Notice>, Option<Duration>) {
        let now = Instant::now();
        let mut inner = self.lock();
        if !inner.connected {
            return (None, None);
        }
        if let Some(question) = inner.question.as_mut().filter(|question| question.is_open()) {
            question.told = true;
            let mut oom = question.oom.clone();
            let left = question.until.saturating_duration_since(now);
            oom.patience_usec = oom.patience_usec.min(micros(left - left / 8));
            return (Some(Notice::Oom(oom)), None);
        }
        if let Some(entry) = inner.ring.iter_mut().find(|entry| !entry.told) {
            entry.told = true;
            entry.unacknowledged += 1;
            return (Some(Notice::Report(entry.report.clone())), None);
        }
        inner.recent.next_notice(now)
    }

    /// Puts the counters into `status`.
    pub(crate) fn count_into(&self, status: &mut StoreStatus) {
        let inner = self.lock();
        let now = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let Counters { denials, kills, unrecorded } = inner.counters;
        (status.denials, status.kills, status.unrecorded) = (now(denials), now(kills), now(unrecorded));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process (`panic = "abort"`), so a poisoned lock is never seen.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_places(&self, places: usize) -> bool {
        self.ring.len() + self.reserved + places <= RING
    }

    /// Whether there is a place for the report of this request. One that was asked has its own.
    fn may_report(&mut self, case: &Case, places: usize) -> bool {
        if case.sequence.get().is_some() {
            self.reserved -= 1;
            return true;
        }
        self.has_places(places)
    }

    /// A report that waits already is told again with its new count.
    fn push(&mut self, report: Report) {
        match self.ring.iter_mut().find(|entry| entry.report.id == report.id) {
            Some(entry) => {
                let charger = entry.report.charger.take();
                (entry.told, entry.report) = (false, Report { charger, ..report });
            }
            None => self.ring.push_back(Entry { told: false, unacknowledged: 0, report }),
        }
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn report(&mut self, store: u64, case: &Case, obstacle: &Obstacle, outcome: Outcome) -> Report {
        let sequence = case.sequence.get().unwrap_or_else(|| self.take_number());
        let id = EventId::new(store, sequence);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Report {
            id,
            realtime_usec: micros(now),
            outcome,
            reason: case.reason.get(),
            what: asked(case, obstacle),
            duration_usec: micros(case.duration()),
            repeats: 0,
            charger: None,
        }
    }

    /// Writes down who has asked, unless that was told already, without them.
    fn identify(&mut self, id: EventId, charger: &Charger) {
        if let Some(entry) = self.ring.iter_mut().find(|entry| entry.report.id == id) {
            entry.report.charger = Some(charger.clone());
        }
    }

    /// Nobody takes reports: a refusal counts as a repeat of the last one.
    fn repeat_last_refusal(&mut self) {
        let Some(entry) = self.ring.iter_mut().rev().find(|entry| entry.report.outcome.is_refusal()) else {
            return;
        };
        if !self.recent.repeat_event(entry.report.id) {
            entry.report.repeats += 1;
            entry.told = false;
        }
    }
}

impl Question {
    /// Whether memcharged has to be told of it still: one that is answered already, since nobody was there, is not told to
    /// the next who comes.
    fn is_open(&self) -> bool {
        !self.told && self.verdict.is_none()
    }
}

fn asked(case: &Case, obstacle: &Obstacle) -> Asked {
    Asked {
        operation: case.operation,
        bytes: case.asked.get(),
        missing: case.missing.get(),
        reclaimed: case.reclaimed.get(),
        limit: obstacle.limit,
        limit_path: obstacle.path.as_deref().unwrap_or_default().to_owned(),
        tid: case.tid,
        uid: case.uid,
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
