//! The gate that every growth passes: it samples the target, asks the policy, and sets the backing tmpfs' size.
//!
//! A *grant* lets the store allocate without looking at the target. Bytes of a grant that nobody asked for yet are
//! `credit`; bytes that a request holds while it allocates are `in_flight`. Neither shows in a sample, so both count
//! as taken, here and, through the ledger, in the other stores below the same limits.
//!
//! Under `sparse = "sigbus"` the backing tmpfs has no free block at rest: its size is raised for the time of one
//! allocation and pinned to what is used right after, so that a client that touches a hole gets SIGBUS instead of a
//! page on its own bill.

mod arbitrate;
mod close;
mod guess;
mod look;
mod permit;
mod voice;

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memcharge_policy::{
    Bytes, PAGE_SIZE, Sparse,
    admission::{self, Standing},
    link::{StoreLimits, StoreStatus},
    outcome::LimitName,
    sample::Sample,
};
use rustix::io::Errno;

use self::{
    arbitrate::Queue,
    look::{Barren, Blocked},
};
pub(crate) use self::{look::Target, permit::Permit, voice::Voice};
use crate::{
    backing::Backing,
    case::{Case, Obstacle},
    reclaim::Reclaimer,
    reports::Reports,
};

/// How long a refused request waits for requests that allocate meanwhile: what they hold may be counted twice, as
/// theirs and as used. Each holds at most a few hundred pages.
const SETTLE: Duration = Duration::from_millis(100);

/// Owner of the grant.
pub(crate) struct Gate {
    sparse: Sparse,
    reclaimer: Reclaimer,
    reports: Reports,
    queue: Queue,
    state: Mutex<State>,
    /// Somebody has finished allocating.
    settled: Condvar,
}

struct State {
    limits: StoreLimits,
    /// The inode cap that the mount was made with.
    inodes: Option<u64>,
    /// Granted, and not asked for yet.
    credit: Bytes,
    /// Held by requests that allocate.
    in_flight: Bytes,
    target: Target,
    /// Reused, so that sampling does not allocate.
    sample: Sample,
    /// The limit at which the last growth was refused.
    blocked: Option<Blocked>,
    /// What counted against the cap when a growth was last looked at.
    used: Bytes,
    /// The target was seen without cache.
    barren: Option<Barren>,
}

/// What stands in the way of a request: what is missing, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Denied {
    obstacle: Obstacle,
    missing: Bytes,
}

/// The result of one look: the outer error is final.
type Looked<T> = Result<T, Denied>;

impl Gate {
    /// A gate before `target`. As many requests may `wait` at once.
    pub(crate) fn new(
        limits: StoreLimits,
        target: Target,
        reclaimer: Reclaimer,
        reports: Reports,
        wait: usize,
    ) -> Result<Self, memcharge_cgroup::CgroupError> {
        let sample = target.sampler.sample()?;
        let state = State {
            limits,
            inodes: None,
            credit: Bytes(0),
            in_flight: Bytes(0),
            target,
            sample,
            blocked: None,
            used: Bytes(0),
            barren: None,
        };
        Ok(Self {
            sparse: limits.sparse,
            reclaimer,
            reports,
            queue: Queue::new(wait),
            state: Mutex::new(state),
            settled: Condvar::new(),
        })
    }

    /// What happens to holes.
    pub(crate) fn sparse(&self) -> Sparse {
        self.sparse
    }

    /// What is told of refusals.
    pub(crate) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Admits a growth of the files by `need` bytes (whole pages), or by as many as there are, at least `least`.
    /// ENOSPC: not even `least` fit, also after all was tried that the policy allows.
    pub(crate) fn grow<'a>(
        &'a self,
        backing: &'a Backing,
        need: Bytes,
        least: Bytes,
        case: &'a Case,
    ) -> Result<Permit<'a>, Errno> {
        let denied = match self.try_grow(backing, need, need, case) {
            Ok(permit) => return Ok(permit),
            Err(denied) => denied,
        };
        let all = || self.try_grow(backing, need, need, case);
        let some = || self.try_grow(backing, need, least, case);
        let some: Option<&dyn Fn() -> Looked<Permit<'a>>> = if least < need { Some(&some) } else { None };
        let permit = self.arbitrate(case, need, denied, &all, some);
        permit.map_err(|_| Errno::NOSPC)
    }

    /// Whether `need` bytes would be admitted now: the quick refusal of a request that is much too large.
    pub(crate) fn would_fit(&self, backing: &Backing, need: Bytes, case: &Case) -> Result<(), Errno> {
        let look = || {
            let mut state = self.lock();
            let in_flight = state.in_flight;
            let scene = state.look(backing, Bytes(0), true)?;
            let standing = Standing { used: scene.used, outstanding: in_flight };
            let admitted = admission::admit(need, &state.sample, standing, scene.budget).map(drop);
            admitted.map_err(|refusal| state.denied(refusal))
        };
        match look() {
            Ok(()) => Ok(()),
            Err(denied) => self.arbitrate(case, need, denied, &look, None).map_err(|_| Errno::NOSPC),
        }
    }

    /// One look at the target, and a permit of at least `least`, or the reason why not.
    fn try_grow<'a>(
        &'a self,
        backing: &'a Backing,
        need: Bytes,
        least: Bytes,
        case: &'a Case,
    ) -> Looked<Permit<'a>> {
        let mut state = self.lock();
        if need <= state.credit && state.target.is_home() {
            state.credit = state.credit.minus(need);
            return Ok(state.hold(self, backing, need, case));
        }
        state.still_blocked(need, least)?;
        // What is left of the old grant is given up: the new one is measured against a fresh sample.
        state.credit = Bytes(0);
        let in_flight = state.in_flight;
        let scene = state.look(backing, need, true)?;
        let standing = Standing { used: scene.used, outstanding: in_flight };
        let (bytes, grant) = match admission::admit(need, &state.sample, standing, scene.budget) {
            Ok(grant) => (need, grant),
            Err(refusal) => {
                let fits = need.minus(refusal.missing).page_floor();
                if fits < least || fits == Bytes(0) {
                    state.block(&refusal, scene.budget);
                    state.write_down();
                    return Err(state.denied(refusal));
                }
                (fits, fits)
            }
        };
        let credit = match self.sparse {
            Sparse::Reserve => grant.minus(bytes),
            Sparse::Sigbus => Bytes(0),
        };
        state.credit = credit;
        if permit::fit(backing, in_flight.plus(bytes).plus(credit)).is_err() {
            state.credit = Bytes(0);
            state.write_down();
            let obstacle = Obstacle::of(LimitName::Unreadable);
            return Err(Denied { obstacle, missing: need });
        }
        memcharge_faults::may_die("grant.fitted");
        Ok(state.hold(self, backing, bytes, case))
    }

    /// Waits for requests of others that allocate. `true`: there were some, so look again.
    fn settle(&self, case: &Case, until: Instant) -> bool {
        let state = self.lock();
        let own = case.held.get();
        if state.in_flight <= own {
            return false;
        }
        let patience = SETTLE.min(until.saturating_duration_since(Instant::now()));
        drop(self.settled.wait_timeout_while(state, patience, |state| state.in_flight > own));
        true
    }

    /// Waits for the store to come to a target that has just come itself. `true`: it has come, so look again.
    fn come_home(&self, until: Instant) -> bool {
        let state = self.lock();
        if state.target.is_right() || !state.target.is_coming() {
            return false;
        }
        let patience = until.saturating_duration_since(Instant::now());
        let away = |state: &mut State| !state.target.is_right();
        let (state, _) =
            self.settled.wait_timeout_while(state, patience, away).unwrap_or_else(PoisonError::into_inner);
        state.target.is_right()
    }

    /// Admits an operation that makes metadata. It never waits, but for a store that is just on its way to the target.
    pub(crate) fn metadata(&self, backing: &Backing, case: &Case) -> Result<(), Errno> {
        let look = || {
            let mut state = self.lock();
            let standing = Standing { used: Bytes(0), outstanding: state.in_flight.plus(state.credit) };
            state.look(backing, Bytes(0), false).and_then(|scene| {
                admission::admit_metadata(&state.sample, standing, scene.budget)
                    .or_else(|refusal| state.drop_cache(refusal))
            })
        };
        look().or_else(|denied| self.once_home(denied, case, &look)).map_err(|denied| refuse(case, denied))
    }

    /// Looks again once the store has come to its target, if it is on its way there.
    fn once_home(&self, denied: Denied, case: &Case, look: &dyn Fn() -> Looked<()>) -> Looked<()> {
        if denied.obstacle.limit != LimitName::Unreadable {
            return Err(denied);
        }
        let Some(_place) = self.queue.enter() else { return Err(denied) };
        let deadline = Duration::from_micros(self.lock().limits.deadline_usec);
        if self.come_home(case.until(deadline)) { look() } else { Err(denied) }
    }

    /// Admits an operation that only finds what exists. In a target that cannot be read what exists can still be used: the
    /// little that this takes is nobody's page. Nor is it refused for cache that the kernel drops at once, whatever the
    /// policy says of reclaim: that is about growth.
    pub(crate) fn lookup(&self, backing: &Backing, case: &Case) -> Result<(), Errno> {
        let mut state = self.lock();
        let admitted = match state.look(backing, Bytes(0), false) {
            Ok(_) => admission::admit_lookup(&state.sample).or_else(|refusal| {
                if state.has_room(Err(refusal)) { Ok(()) } else { Err(state.denied(refusal)) }
            }),
            Err(_) => Ok(()),
        };
        admitted.map_err(|denied| refuse(case, denied))
    }

    /// To be called after files gave memory back, and before what may meet holes that a client made behind the store's
    /// back: no free block may be left that was not granted.
    pub(crate) fn tighten(&self, backing: &Backing) {
        self.lock().tighten(backing);
    }

    /// Gives up what is granted and not asked for, so that the backing refuses every new page.
    pub(crate) fn trim(&self, backing: &Backing) {
        let mut state = self.lock();
        if state.credit > Bytes(0) {
            state.credit = Bytes(0);
            state.write_down();
        }
        state.tighten(backing);
    }

    /// How it is going.
    pub(crate) fn status(&self, backing: &Backing) -> Result<StoreStatus, Errno> {
        let usage = backing.usage()?;
        let mut state = self.lock();
        let in_flight = state.in_flight;
        let headroom = match state.look(backing, Bytes(0), true) {
            Ok(scene) => {
                let standing = Standing { used: scene.used, outstanding: in_flight };
                admission::grantable(&state.sample, standing, scene.budget).bytes
            }
            // A target that cannot be read admits nothing.
            Err(_) => Bytes(0),
        };
        drop(state);
        let mut status = StoreStatus {
            used: usage.used,
            inodes_used: usage.inodes_used,
            inodes_max: usage.inodes_max,
            headroom,
            denials: 0,
            kills: 0,
            unrecorded: 0,
        };
        self.reports.count_into(&mut status);
        Ok(status)
    }

    /// The cap on the bytes in files.
    pub(crate) fn cap(&self) -> Option<Bytes> {
        self.lock().limits.cap
    }

    /// Keeps other limits from now on. An error says why that is not possible, and nothing has changed then.
    pub(crate) fn set_limits(&self, backing: &Backing, limits: StoreLimits) -> Result<(), String> {
        let mut state = self.lock();
        let usage = backing.usage().map_err(|e| e.to_string())?;
        let used = usage.used.plus(state.in_flight);
        if let Some(cap) = limits.cap.filter(|cap| limits.cap != state.limits.cap && *cap < used) {
            return Err(format!("the files hold {} already, more than {cap}", usage.used));
        }
        if limits.inodes != state.limits.inodes {
            let first = *state.inodes.get_or_insert(usage.inodes_max);
            backing.set_inodes(limits.inodes.unwrap_or(first)).map_err(|e| {
                format!("the number of inodes cannot be changed ({e}); {} are in use", usage.inodes_used)
            })?;
        }
        state.limits = limits;
        state.credit = Bytes(0);
        state.blocked = None;
        state.write_down();
        let _ = permit::fit(backing, state.in_flight);
        self.reports.forget();
        Ok(())
    }

    /// Takes the target's files anew: it was out of order, and is in order again.
    pub(crate) fn reopen(&self, target: Target) -> Result<(), String> {
        let reclaim = target.open_reclaim().map_err(|e| e.to_string())?;
        let mut state = self.lock();
        if !target.is_right() {
            return Err("this process is not in its cgroup any more".to_owned());
        }
        self.reclaimer.replace(reclaim);
        state.target = target;
        (state.blocked, state.barren) = (None, None);
        drop(state);
        self.reports.forget();
        self.settled.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the process (`panic = "abort"`), so a poisoned lock is never seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(case: &Case, denied: Denied) -> Errno {
    case.obstruct(denied.obstacle, Bytes(0), denied.missing);
    Errno::NOSPC
}

/// One page.
pub(crate) const PAGE: Bytes = Bytes(PAGE_SIZE);
