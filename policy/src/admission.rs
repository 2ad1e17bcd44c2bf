//! May this charge grow now?
//!
//! A store asks before every growth. What is admitted is a *grant*: the store may allocate that many bytes before it
//! looks again. A grant is not a reservation: the target's own tasks can take the memory meanwhile, so grants are
//! small against the headroom, and both the reserve and a margin stay free.

use crate::{
    Bytes,
    sample::{Bound, Headroom, Sample},
};

/// Headroom that no growth through a mount touches: what the kernel charges beside the pages (index nodes, inodes,
/// dentries, the store's heap), and per-CPU charge batches of up to 64 pages.
pub const MARGIN: Bytes = Bytes::mib(1);

/// Memory of the machine that no growth touches, so that a target without a limit cannot bring the whole system to
/// its OOM killer.
pub const MACHINE_MARGIN: Bytes = Bytes::mib(32);

/// Headroom below which even looking up a name is refused: it makes a dentry and perhaps an inode, and a charge that
/// fails there would have the kernel kill a process of the target.
pub const LOOKUP_FLOOR: Bytes = Bytes::kib(256);

/// Headroom below which memcharged is not even asked: the message is charged, in pages if there is no more.
pub const QUESTION_FLOOR: Bytes = Bytes::kib(16);

/// The largest grant beyond what was asked for. Within it writes do not look at the target.
pub const GRANT_CHUNK: Bytes = Bytes::kib(64);

/// A grant beyond what was asked for takes at most one part in this many of the headroom.
pub const GRANT_SHARE: u64 = 8;

/// The default reserve takes at most one part in this many of the smallest limit.
const RESERVE_SHARE: u64 = 16;

/// The default reserve's upper end.
const RESERVE_MAX: Bytes = Bytes::mib(16);

/// The reserve of a mount that names none: 16 MiB, or a sixteenth of the smallest limit if that is less.
pub fn default_reserve(smallest_limit: Option<Bytes>) -> Bytes {
    smallest_limit.map_or(RESERVE_MAX, |limit| Bytes(limit.0 / RESERVE_SHARE).page_floor().min(RESERVE_MAX))
}

/// What a mount may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The mount's cap on the bytes in files.
    pub cap: Option<Bytes>,
    /// What must stay free for the target's own tasks; `None`: [`default_reserve`].
    pub reserve: Option<Bytes>,
}

/// What a mount has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Bytes in files.
    pub used: Bytes,
    /// Bytes that were granted and are not allocated yet: the sample does not show them.
    pub outstanding: Bytes,
}

/// A charge that was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What it would have run into.
    pub bound: Bound,
    /// How many bytes are missing there.
    pub missing: Bytes,
}

/// What stands in the way of a charge: a limit, and by how many bytes what is taken leaves it open or exceeds it.
struct Room {
    limit: Bytes,
    taken: Bytes,
    bound: Bound,
}

impl Room {
    fn left(&self) -> Bytes {
        self.limit.minus(self.taken).page_floor()
    }

    fn refuse(&self, need: Bytes) -> Refusal {
        Refusal { bound: self.bound, missing: self.taken.plus(need).minus(self.limit).page_ceil() }
    }
}

/// The tightest of the cap and the headroom, as far as growth of files is concerned.
fn room(sample: &Sample, standing: Standing, budget: Budget) -> Room {
    let reserve = budget.reserve.unwrap_or_else(|| default_reserve(sample.smallest_limit()));
    let headroom = sample.headroom(MACHINE_MARGIN);
    let taken = reserve.plus(MARGIN).plus(standing.outstanding).plus(headroom.exceeded);
    let memory = Room { limit: headroom.bytes, taken, bound: headroom.bound };
    let Some(limit) = budget.cap else { return memory };
    let cap = Room { limit, taken: standing.used.plus(standing.outstanding), bound: Bound::Cap };
    if cap.left() <= memory.left() { cap } else { memory }
}

/// What could be granted now: the least of what the cap and the headroom leave. This is what status shows as
/// headroom and `df` as available.
pub fn grantable(sample: &Sample, standing: Standing, budget: Budget) -> Headroom {
    let room = room(sample, standing, budget);
    Headroom { bytes: room.left(), bound: room.bound, exceeded: Bytes(0) }
}

/// Decides on `need` bytes of file pages (whole pages). Returns the grant: `need`, and a bit more where the headroom
/// is large.
pub fn admit(need: Bytes, sample: &Sample, standing: Standing, budget: Budget) -> Result<Bytes, Refusal> {
    let room = room(sample, standing, budget);
    let left = room.left();
    if need > left {
        return Err(room.refuse(need));
    }
    let extra = GRANT_CHUNK.min(Bytes(left.0 / GRANT_SHARE)).page_floor();
    Ok(need.max(extra))
}

/// Decides on an operation that makes metadata (an inode, a dentry, an attribute): it needs the margin, and leaves
/// the reserve alone.
pub fn admit_metadata(sample: &Sample, standing: Standing, budget: Budget) -> Result<(), Refusal> {
    let reserve = budget.reserve.unwrap_or_else(|| default_reserve(sample.smallest_limit()));
    let needed = MARGIN.plus(reserve).plus(standing.outstanding);
    above(sample.headroom(Bytes(0)), needed)
}

/// Decides on an operation that only finds what exists: it may use the reserve, down to [`LOOKUP_FLOOR`].
/// `memory.high` does not count: what exists can still be used, if slowly.
pub fn admit_lookup(sample: &Sample) -> Result<(), Refusal> {
    admit_down_to(LOOKUP_FLOOR, sample)
}

/// Decides on a question to memcharged, which may make room: it may use what is left, down to [`QUESTION_FLOOR`].
pub fn admit_question(sample: &Sample) -> Result<(), Refusal> {
    admit_down_to(QUESTION_FLOOR, sample)
}

fn admit_down_to(floor: Bytes, sample: &Sample) -> Result<(), Refusal> {
    above(sample.headroom_to_max(), floor)
}

/// Whether a small refused charge may be tried all the same, because the kernel can drop clean cache of the level that
/// refused it, at once and without killing anybody. Twice what is missing, since the target's own tasks use the cache
/// meanwhile.
pub fn cache_gives_way(refusal: Refusal, clean_cache: Bytes) -> bool {
    matches!(refusal.bound, Bound::Level { .. }) && clean_cache.0 / 2 >= refusal.missing.0
}

fn above(room: Headroom, needed: Bytes) -> Result<(), Refusal> {
    if room.bytes >= needed {
        Ok(())
    } else {
        Err(Refusal { bound: room.bound, missing: needed.plus(room.exceeded).minus(room.bytes) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        PAGE_SIZE,
        sample::{LevelSample, LimitFile},
    };

    const MAX0: Bound = Bound::Level { index: 0, file: LimitFile::Max };

    fn target(current: Bytes, max: Bytes) -> Sample {
        Sample {
            levels: vec![LevelSample { current, max: Some(max), high: None }],
            available: Bytes::mib(4096),
        }
    }

    #[test]
    fn a_small_target_leaves_room_for_its_own_tasks() {
        for (limit, reserve) in
            [(None, 16 << 20), (Some(Bytes::mib(10)), 640 << 10), (Some(Bytes::mib(4096)), 16 << 20)]
        {
            assert_eq!(default_reserve(limit), Bytes(reserve));
        }
    }

    #[test]
    fn r12_one_mib_fits_in_a_target_of_ten_and_eleven_do_not() {
        let sample = target(Bytes::mib(3), Bytes::mib(10));
        let budget = Budget { cap: None, reserve: None };
        assert!(admit(Bytes::mib(1), &sample, Standing::default(), budget).is_ok());
        let refusal = admit(Bytes::mib(11), &sample, Standing::default(), budget).unwrap_err();
        assert_eq!(refusal.bound, MAX0);
        assert_eq!(refusal.missing, Bytes::mib(11).minus(Bytes::mib(7).minus(MARGIN).minus(Bytes::kib(640))));
    }

    #[test]
    fn r19_the_cap_and_the_cgroup_s_limit_are_told_apart() {
        let sample = target(Bytes::mib(3), Bytes::mib(100));
        let budget = Budget { cap: Some(Bytes::mib(8)), reserve: None };
        let standing = Standing { used: Bytes::mib(8), outstanding: Bytes(0) };
        let refusal = admit(Bytes(PAGE_SIZE), &sample, standing, budget).unwrap_err();
        assert_eq!(refusal, Refusal { bound: Bound::Cap, missing: Bytes(PAGE_SIZE) });
        assert!(admit_metadata(&sample, standing, budget).is_ok(), "metadata is not under the cap");
    }

    #[test]
    fn finding_a_name_may_use_the_reserve() {
        let sample = target(Bytes::mib(99), Bytes::mib(100));
        let budget = Budget { cap: None, reserve: Some(Bytes::mib(2)) };
        assert!(admit_metadata(&sample, Standing::default(), budget).is_err());
        assert!(admit_lookup(&sample).is_ok());
        assert!(admit_lookup(&target(Bytes::mib(100), Bytes::mib(100))).is_err());
        let level =
            LevelSample { current: Bytes::mib(9), max: Some(Bytes::mib(100)), high: Some(Bytes::mib(5)) };
        let slowed = Sample { levels: vec![level], available: Bytes::mib(1000) };
        assert!(admit_lookup(&slowed).is_ok(), "what exists can be used above memory.high");
        assert!(admit_metadata(&slowed, Standing::default(), budget).is_err());
    }

    #[test]
    fn memcharged_is_asked_where_no_name_is_found_any_more_and_not_beyond_the_limit() {
        let left = |kib| target(Bytes::mib(100).minus(Bytes::kib(kib)), Bytes::mib(100));
        for (sample, lookup, question) in [
            (left(256), true, true),
            (left(255), false, true),
            (left(16), false, true),
            (left(15), false, false),
            (left(0), false, false),
            (target(Bytes::mib(101), Bytes::mib(100)), false, false),
        ] {
            assert_eq!(
                (admit_lookup(&sample).is_ok(), admit_question(&sample).is_ok()),
                (lookup, question),
                "{sample:?}"
            );
        }
    }

    #[test]
    fn clean_cache_makes_room_for_metadata_and_nothing_else_does() {
        let refusal = |bound| Refusal { bound, missing: Bytes::mib(1) };
        assert!(cache_gives_way(refusal(MAX0), Bytes::mib(2)));
        assert!(!cache_gives_way(refusal(MAX0), Bytes::mib(1)));
        assert!(!cache_gives_way(refusal(Bound::Machine), Bytes::mib(100)));
        assert!(!cache_gives_way(refusal(Bound::Cap), Bytes::mib(100)));
    }

    #[test]
    fn what_is_missing_counts_the_reserve_and_the_margin() {
        let budget = Budget { cap: None, reserve: Some(Bytes::mib(4)) };
        let full = target(Bytes::mib(64), Bytes::mib(64));
        let refusal = admit(Bytes(PAGE_SIZE), &full, Standing::default(), budget).unwrap_err();
        assert_eq!(
            refusal.missing,
            Bytes::mib(5).plus(Bytes(PAGE_SIZE)),
            "so much reclaim makes the charge possible"
        );
    }

    proptest! {
        #[test]
        fn a_grant_never_touches_reserve_margin_or_cap(
            current in 0u64..1 << 34, max in 0u64..1 << 34, available in 0u64..1 << 34, need in 1u64..1 << 20,
            used in 0u64..1 << 34, outstanding in 0u64..1 << 24, cap in proptest::option::of(0u64..1 << 34),
            reserve in proptest::option::of(0u64..1 << 30),
        ) {
            let sample = Sample {
                levels: vec![LevelSample { current: Bytes(current), max: Some(Bytes(max)), high: None }],
                available: Bytes(available),
            };
            let need = Bytes(need * PAGE_SIZE);
            let standing = Standing { used: Bytes(used), outstanding: Bytes(outstanding) };
            let budget = Budget { cap: cap.map(Bytes), reserve: reserve.map(Bytes) };
            if let Ok(grant) = admit(need, &sample, standing, budget) {
                prop_assert!(grant >= need);
                prop_assert_eq!(grant.0 % PAGE_SIZE, 0);
                let kept = budget.reserve.unwrap_or_else(|| default_reserve(Some(Bytes(max))));
                prop_assert!(current + outstanding + grant.0 + kept.0 + MARGIN.0 <= max);
                prop_assert!(outstanding + grant.0 + MACHINE_MARGIN.0 <= available);
                if let Some(cap) = cap {
                    prop_assert!(used + outstanding + grant.0 <= cap);
                }
                prop_assert!(grant == need || grant.0 <= (max - current) / GRANT_SHARE);
            }
        }

        #[test]
        fn what_is_missing_is_just_enough(
            current in 0u64..1 << 20, max in 0u64..1 << 20, need in 1u64..1 << 12, outstanding in 0u64..1 << 10,
            used in 0u64..1 << 20, cap in proptest::option::of(0u64..1 << 20),
        ) {
            let pages = |n: u64| Bytes(n * PAGE_SIZE);
            let budget = Budget { cap: cap.map(pages), reserve: Some(Bytes::mib(2)) };
            let standing = Standing { used: pages(used), outstanding: pages(outstanding) };
            let decide = |current, standing| {
                admit(pages(need), &target(pages(current), pages(max)), standing, budget)
            };
            if let Err(refusal) = decide(current, standing) {
                prop_assert!(refusal.missing.0 > 0);
                let fits = pages(need).minus(refusal.missing);
                if fits.0 > 0 {
                    prop_assert!(admit(fits, &target(pages(current), pages(max)), standing, budget).is_ok());
                }
            }
        }

        #[test]
        fn less_room_never_grants_more(
            current in 0u64..1 << 30, more in 0u64..1 << 24, max in 0u64..1 << 30, need in 1u64..1 << 12,
        ) {
            let budget = Budget { cap: None, reserve: None };
            let need = Bytes(need * PAGE_SIZE);
            let grant = |current| admit(need, &target(Bytes(current), Bytes(max)), Standing::default(), budget).ok();
            prop_assert!(grant(current + more) <= grant(current));
        }
    }
}
