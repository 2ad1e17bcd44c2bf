//! The gate that every growth passes: it samples the target, asks the policy, and sets the backing tmpfs' size.
//!
//! A *grant* lets the store allocate without looking at the target. Bytes of a grant that nobody asked for yet are
//! `credit`; bytes that a request holds while it allocates are `in_flight`. Neither shows in a sample, so both count
//! as taken.
//!
//! Under `sparse = "sigbus"` the backing tmpfs has no free block at rest: its size is raised for the time of one
//! allocation and pinned to what is used right after, so that a client that touches a hole gets SIGBUS instead of a
//! page on its own bill.

use std::{
    cell::Cell,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use memcharge_cgroup::Sampler;
use memcharge_policy::{
    Bytes, PAGE_SIZE, Sparse,
    admission::{self, Budget, Refusal, Standing},
    link::{StoreLimits, StoreStatus},
    sample::{Bound, Sample},
};
use rustix::io::Errno;

use crate::{backing::Backing, reclaim::Reclaimer};

/// How often a size that a concurrent allocation made stale is tried again.
const FIT_TRIES: usize = 4;

/// How long a refused request waits for requests that allocate meanwhile: what they hold may be counted twice, as
/// theirs and as used. Each holds at most a few hundred pages.
const SETTLE: Duration = Duration::from_millis(100);

/// Owner of the grant.
pub(crate) struct Gate {
    limits: StoreLimits,
    sampler: Sampler,
    reclaimer: Option<Reclaimer>,
    denials: AtomicU64,
    state: Mutex<State>,
    /// Nobody allocates any more.
    settled: Condvar,
}

/// How long one request may still wait for reclaim, however often it asks: the mount's deadline, from the first wait on.
#[derive(Default)]
pub(crate) struct Patience {
    until: Cell<Option<Instant>>,
}

struct State {
    /// Granted, and not asked for yet.
    credit: Bytes,
    /// Held by requests that allocate.
    in_flight: Bytes,
    /// Reused, so that sampling does not allocate.
    sample: Sample,
}

/// The right to allocate `bytes`, until it is dropped.
#[must_use]
pub(crate) struct Permit<'a> {
    gate: &'a Gate,
    backing: &'a Backing,
    bytes: Bytes,
}

impl Gate {
    /// A gate for the cgroup that `sampler` reads; with a reclaimer, cache gives way to data.
    pub(crate) fn new(
        limits: StoreLimits,
        sampler: Sampler,
        reclaimer: Option<Reclaimer>,
    ) -> Result<Self, memcharge_cgroup::CgroupError> {
        let sample = sampler.sample()?;
        let state = State { credit: Bytes(0), in_flight: Bytes(0), sample };
        Ok(Self {
            limits,
            sampler,
            reclaimer,
            denials: AtomicU64::new(0),
            state: Mutex::new(state),
            settled: Condvar::new(),
        })
    }

    /// What happens to holes.
    pub(crate) fn sparse(&self) -> Sparse {
        self.limits.sparse
    }

    /// Admits a growth of the files by `need` bytes (whole pages), or by as many as there are, at least `least`.
    /// ENOSPC: not even `least` fit, also after the target's cache was asked to give way.
    pub(crate) fn grow<'a>(
        &'a self,
        backing: &'a Backing,
        need: Bytes,
        least: Bytes,
        patience: &Patience,
    ) -> Result<Permit<'a>, Errno> {
        let mut refusal = match self.try_grow(backing, need, need)? {
            Ok(permit) => return Ok(permit),
            Err(refusal) => refusal,
        };
        if self.settle() {
            match self.try_grow(backing, need, need)? {
                Ok(permit) => return Ok(permit),
                Err(again) => refusal = again,
            }
        }
        if !self.make_room(refusal, patience) && need <= least {
            return Err(self.refused(refusal));
        }
        self.try_grow(backing, need, least)?.map_err(|refusal| self.refused(refusal))
    }

    /// One look at the target, and a permit of at least `least`, or the reason why not.
    fn try_grow<'a>(
        &'a self,
        backing: &'a Backing,
        need: Bytes,
        least: Bytes,
    ) -> Result<Result<Permit<'a>, Refusal>, Errno> {
        let mut state = self.lock();
        let permit = |bytes| Ok(Ok(Permit { gate: self, backing, bytes }));
        if need <= state.credit {
            state.credit = state.credit.minus(need);
            state.in_flight = state.in_flight.plus(need);
            return permit(need);
        }
        // What is left of the old grant is given up: the new one is measured against a fresh sample.
        state.credit = Bytes(0);
        let standing = Standing { used: backing.usage()?.used, outstanding: state.in_flight };
        self.sample(&mut state.sample)?;
        let (bytes, grant) = match admission::admit(need, &state.sample, standing, self.budget()) {
            Ok(grant) => (need, grant),
            Err(refusal) => {
                let fits = need.minus(refusal.missing).page_floor();
                if fits < least || fits == Bytes(0) {
                    return Ok(Err(refusal));
                }
                (fits, fits)
            }
        };
        let credit = match self.limits.sparse {
            Sparse::Reserve => grant.minus(bytes),
            Sparse::Sigbus => Bytes(0),
        };
        fit(backing, state.in_flight.plus(bytes).plus(credit)).map_err(|_| {
            self.count_denial();
            Errno::NOSPC
        })?;
        state.credit = credit;
        state.in_flight = state.in_flight.plus(bytes);
        permit(bytes)
    }

    /// Waits for requests that allocate. `true`: there were some, so look again.
    fn settle(&self) -> bool {
        let state = self.lock();
        if state.in_flight == Bytes(0) {
            return false;
        }
        drop(self.settled.wait_timeout_while(state, SETTLE, |state| state.in_flight > Bytes(0)));
        true
    }

    /// Asks the target's cache to give way. `true`: look again.
    fn make_room(&self, refusal: Refusal, patience: &Patience) -> bool {
        let (Some(reclaimer), Bound::Level { .. }) = (&self.reclaimer, refusal.bound) else {
            // The cap is no matter of memory, and the machine's memory none of this target's cache alone.
            return false;
        };
        let now = Instant::now();
        let until = patience.until.get().unwrap_or(now + Duration::from_micros(self.limits.deadline_usec));
        patience.until.set(Some(until));
        now < until && reclaimer.reclaim(refusal.missing, until - now)
    }

    /// Whether `need` bytes would be admitted now: the quick refusal of a request that is much too large.
    pub(crate) fn would_fit(&self, backing: &Backing, need: Bytes, patience: &Patience) -> Result<(), Errno> {
        let look = || {
            let mut state = self.lock();
            let standing = Standing { used: backing.usage()?.used, outstanding: state.in_flight };
            self.sample(&mut state.sample)?;
            Ok(admission::admit(need, &state.sample, standing, self.budget()))
        };
        let mut result = look()?;
        if result.is_err() && self.settle() {
            result = look()?;
        }
        if let Err(refusal) = result
            && self.make_room(refusal, patience)
        {
            result = look()?;
        }
        result.map(drop).map_err(|refusal| self.refused(refusal))
    }

    /// Admits an operation that makes metadata.
    pub(crate) fn metadata(&self) -> Result<(), Errno> {
        let mut state = self.lock();
        let standing = Standing { used: Bytes(0), outstanding: state.in_flight.plus(state.credit) };
        self.sample(&mut state.sample)?;
        admission::admit_metadata(&state.sample, standing, self.budget())
            .or_else(|refusal| self.drop_cache(refusal))
    }

    /// Admits an operation that only finds what exists.
    pub(crate) fn lookup(&self) -> Result<(), Errno> {
        let mut state = self.lock();
        self.sample(&mut state.sample)?;
        admission::admit_lookup(&state.sample).or_else(|refusal| self.drop_cache(refusal))
    }

    /// What makes or finds a name never waits. Where the target is full of clean cache the kernel drops some for it.
    fn drop_cache(&self, refusal: Refusal) -> Result<(), Errno> {
        let clean = match (&self.reclaimer, refusal.bound) {
            (Some(_), Bound::Level { index, .. }) => self.sampler.clean_cache(index).unwrap_or_default(),
            _ => Bytes(0),
        };
        if admission::cache_gives_way(refusal, clean) { Ok(()) } else { Err(self.refused(refusal)) }
    }

    /// To be called after files gave memory back, and before what may meet holes that a client made behind the store's
    /// back: no free block may be left that was not granted.
    pub(crate) fn tighten(&self, backing: &Backing) {
        let state = self.lock();
        let granted = state.in_flight.plus(state.credit);
        if backing.usage().is_ok_and(|usage| usage.free > granted) {
            // Where it fails an allocation under a permit came between, and its end tightens again.
            let _ = fit(backing, granted);
        }
    }

    /// Gives up what is granted and not asked for, so that the backing refuses every new page.
    pub(crate) fn trim(&self, backing: &Backing) {
        let mut state = self.lock();
        state.credit = Bytes(0);
        let _ = fit(backing, state.in_flight);
    }

    /// Counts a refusal that came from the backing file system itself.
    pub(crate) fn count_denial(&self) {
        self.denials.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is going.
    pub(crate) fn status(&self, backing: &Backing) -> Result<StoreStatus, Errno> {
        let usage = backing.usage()?;
        let mut state = self.lock();
        self.sample(&mut state.sample)?;
        let standing = Standing { used: usage.used, outstanding: state.in_flight };
        let headroom = admission::grantable(&state.sample, standing, self.budget()).bytes;
        Ok(StoreStatus {
            used: usage.used,
            inodes_used: usage.inodes_used,
            inodes_max: usage.inodes_max,
            headroom,
            denials: self.denials.load(Ordering::Relaxed),
        })
    }

    /// The cap on the bytes in files.
    pub(crate) fn cap(&self) -> Option<Bytes> {
        self.limits.cap
    }

    fn budget(&self) -> Budget {
        Budget { cap: self.limits.cap, reserve: self.limits.reserve }
    }

    fn sample(&self, sample: &mut Sample) -> Result<(), Errno> {
        // A target that cannot be read (removed, or its controller taken away) admits nothing.
        self.sampler.sample_into(sample).map_err(|_| {
            self.count_denial();
            Errno::NOSPC
        })
    }

    fn refused(&self, _refusal: Refusal) -> Errno {
        self.count_denial();
        Errno::NOSPC
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic ends the process (`panic = "abort"`), so a poisoned lock is never seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// How many bytes may be allocated.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.in_flight = state.in_flight.minus(self.bytes);
        if self.gate.limits.sparse == Sparse::Sigbus {
            let _ = fit(self.backing, state.in_flight);
        }
        if state.in_flight == Bytes(0) {
            self.gate.settled.notify_all();
        }
    }
}

/// Sets the backing's size to what is used and `granted`. A client that touches holes meanwhile makes that too small, and
/// refused: then again with what is used by now.
fn fit(backing: &Backing, granted: Bytes) -> Result<(), Errno> {
    let mut result = Err(Errno::INVAL);
    for _ in 0..FIT_TRIES {
        result = backing.set_size(backing.usage()?.used.plus(granted));
        if result != Err(Errno::INVAL) {
            break;
        }
    }
    result
}

/// One page.
pub(crate) const PAGE: Bytes = Bytes(PAGE_SIZE);
