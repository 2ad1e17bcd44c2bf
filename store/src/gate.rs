//! The gate that every growth passes: it samples the target, asks the policy, and sets the backing tmpfs' size.
//!
//! A *grant* lets the store allocate without looking at the target. Bytes of a grant that nobody asked for yet are
//! `credit`; bytes that a request holds while it allocates are `in_flight`. Neither shows in a sample, so both count
//! as taken.
//!
//! Under `sparse = "sigbus"` the backing tmpfs has no free block at rest: its size is raised for the time of one
//! allocation and pinned to what is used right after, so that a client that touches a hole gets SIGBUS instead of a
//! page on its own bill.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
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
const PIN_TRIES: usize = 3;

/// Owner of the grant.
pub(crate) struct Gate {
    limits: StoreLimits,
    sampler: Sampler,
    reclaimer: Option<Reclaimer>,
    denials: AtomicU64,
    state: Mutex<State>,
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
        Ok(Self { limits, sampler, reclaimer, denials: AtomicU64::new(0), state: Mutex::new(state) })
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
    ) -> Result<Permit<'a>, Errno> {
        match self.try_grow(backing, need, need)? {
            Ok(permit) => return Ok(permit),
            Err(refusal) if !self.make_room(refusal) && need <= least => return Err(self.refused(refusal)),
            Err(_) => {}
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
        let used = backing.usage()?.used;
        // What is left of the old grant is given up: the new one is measured against a fresh sample.
        state.credit = Bytes(0);
        let standing = Standing { used, outstanding: state.in_flight };
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
        let grant = match self.limits.sparse {
            Sparse::Reserve => grant,
            Sparse::Sigbus => bytes,
        };
        backing.set_size(used.plus(state.in_flight).plus(grant))?;
        state.credit = grant.minus(bytes);
        state.in_flight = state.in_flight.plus(bytes);
        permit(bytes)
    }

    /// Asks the target's cache to give way. `true`: look again.
    fn make_room(&self, refusal: Refusal) -> bool {
        match (&self.reclaimer, refusal.bound) {
            // The cap is no matter of memory, and the machine's memory none of this target's cache alone.
            (None, _) | (_, Bound::Cap | Bound::Machine) => false,
            (Some(reclaimer), Bound::Level { .. }) => reclaimer.reclaim(refusal.missing),
        }
    }

    /// Whether `need` bytes would be admitted now: the quick refusal of a request that is much too large.
    pub(crate) fn would_fit(&self, backing: &Backing, need: Bytes) -> Result<(), Errno> {
        let look = || {
            let mut state = self.lock();
            let standing = Standing { used: backing.usage()?.used, outstanding: state.in_flight };
            self.sample(&mut state.sample)?;
            Ok(admission::admit(need, &state.sample, standing, self.budget()))
        };
        match look()? {
            Err(refusal) if self.make_room(refusal) => {
                look()?.map(drop).map_err(|refusal| self.refused(refusal))
            }
            result => result.map(drop).map_err(|refusal| self.refused(refusal)),
        }
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

    /// To be called after files gave memory back.
    pub(crate) fn freed(&self, backing: &Backing) {
        if self.limits.sparse == Sparse::Sigbus {
            self.pin(backing, &self.lock());
        }
    }

    /// Gives up what is granted and not asked for, so that the backing refuses every new page.
    pub(crate) fn trim(&self, backing: &Backing) {
        let mut state = self.lock();
        state.credit = Bytes(0);
        self.pin(backing, &state);
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

    /// Pins the backing's size to what is used. Where a concurrent request allocates meanwhile the size is too small
    /// and refused; that request pins again when it is done.
    fn pin(&self, backing: &Backing, state: &State) {
        for _ in 0..PIN_TRIES {
            let Ok(usage) = backing.usage() else { return };
            match backing.set_size(usage.used.plus(state.in_flight)) {
                Err(Errno::INVAL) => {}
                _ => return,
            }
        }
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
            self.gate.pin(self.backing, &state);
        }
    }
}

/// One page.
pub(crate) const PAGE: Bytes = Bytes(PAGE_SIZE);
