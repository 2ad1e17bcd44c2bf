//! What an ask gets by itself: whatever else waits, and whoever was killed before.

use super::Ask;
use crate::{
    Bytes, OnFull,
    admission::{MACHINE_MARGIN, MARGIN, default_reserve},
    mountinfo::is_within,
    outcome::{LimitName, Operation, Reason},
    sample::{LevelSample, Sample},
};

/// What an ask gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// There is room.
    Grant,
    /// No kill may be made for it, or none would help.
    Refuse(Reason),
    /// So many bytes have to be freed, and a kill may do it.
    Short(Bytes),
}

/// Judges an ask. `promised` is what others were granted and the sample may not show yet.
pub(super) fn judge(target: &str, ask: &Ask, sample: &Sample, promised: Bytes) -> Judgement {
    match ask.asked.limit {
        LimitName::Unreadable => return Judgement::Refuse(Reason::TargetLost),
        // Room in the target is no room below the mount's own cap.
        LimitName::Size | LimitName::Inodes => return Judgement::Refuse(Reason::Cap),
        LimitName::Max | LimitName::High | LimitName::Machine => {}
    }
    let shortage = Shortage::of(ask, sample, promised);
    let is_seen = sees(target, &ask.asked.limit_path);
    if is_seen && shortage.missing().0 == 0 {
        return Judgement::Grant;
    }
    if ask.rules.on_full == OnFull::Enospc {
        return Judgement::Refuse(Reason::Policy);
    }
    if is_metadata(ask.asked.operation) {
        return Judgement::Refuse(Reason::Metadata);
    }
    if ask.asked.limit == LimitName::Machine || shortage.machine > shortage.levels {
        return Judgement::Refuse(Reason::Machine);
    }
    if is_seen { Judgement::Short(shortage.missing()) } else { Judgement::Refuse(Reason::NoVictim) }
}

/// Whether a sample of the target shows the limit at `path`. One of a cgroup below the target, such as the store's
/// own, it does not show; and no death elsewhere in the target would free anything there.
fn sees(target: &str, path: &str) -> bool {
    path.is_empty() || is_within(target, path)
}

fn is_metadata(operation: Operation) -> bool {
    match operation {
        Operation::Make | Operation::Change | Operation::Look => true,
        Operation::Write | Operation::Truncate | Operation::Fallocate | Operation::Copy => false,
    }
}

/// What is missing at the cgroups' limits and in the machine.
///
/// Not [`Sample::headroom`]: that is 0 however far a cgroup is beyond its limit, and all of it must be freed first.
struct Shortage {
    levels: Bytes,
    machine: Bytes,
}

impl Shortage {
    fn of(ask: &Ask, sample: &Sample, promised: Bytes) -> Self {
        let reserve = ask.reserve.unwrap_or_else(|| default_reserve(sample.smallest_limit()));
        let wanted = ask.need().plus(reserve).plus(MARGIN).plus(promised);
        let missing = |level: &LevelSample| {
            level.limit().map_or(Bytes(0), |(limit, _)| level.current.plus(wanted).minus(limit))
        };
        Self {
            levels: sample.levels.iter().map(missing).max().unwrap_or_default().page_ceil(),
            machine: MACHINE_MARGIN.plus(wanted).minus(sample.available).page_ceil(),
        }
    }

    fn missing(&self) -> Bytes {
        self.levels.max(self.machine)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fixtures::*, *};

    #[test]
    fn the_first_rule_that_applies_is_the_reason() {
        use LimitName::{High, Inodes, Machine, Max, Size, Unreadable};
        let (full, empty) = (sample(64), sample(0));
        for (limit, on_full, operation, sample, judgement) in [
            (Max, OnFull::Enospc, Operation::Write, &empty, Judgement::Grant),
            (Max, OnFull::Enospc, Operation::Write, &full, Judgement::Refuse(Reason::Policy)),
            (Max, OnFull::Kill, Operation::Write, &full, Judgement::Short(Bytes::mib(1 + 4 + 1))),
            (High, OnFull::Kill, Operation::Copy, &full, Judgement::Short(Bytes::mib(1 + 4 + 1))),
            (Max, OnFull::Kill, Operation::Make, &full, Judgement::Refuse(Reason::Metadata)),
            (Max, OnFull::Kill, Operation::Change, &full, Judgement::Refuse(Reason::Metadata)),
            (Max, OnFull::Kill, Operation::Look, &full, Judgement::Refuse(Reason::Metadata)),
            (Machine, OnFull::Kill, Operation::Write, &full, Judgement::Refuse(Reason::Machine)),
            (Machine, OnFull::Kill, Operation::Write, &empty, Judgement::Grant),
            (Size, OnFull::Kill, Operation::Write, &empty, Judgement::Refuse(Reason::Cap)),
            (Inodes, OnFull::Enospc, Operation::Make, &empty, Judgement::Refuse(Reason::Cap)),
            (Unreadable, OnFull::Kill, Operation::Write, &empty, Judgement::Refuse(Reason::TargetLost)),
        ] {
            let mut ask = ask(1);
            ask.asked.limit = limit;
            ask.asked.operation = operation;
            ask.rules.on_full = on_full;
            assert_eq!(judge(TARGET, &ask, sample, Bytes(0)), judgement, "{limit} {on_full} {operation}");
        }
    }

    #[test]
    fn nobody_is_killed_for_the_machine_although_the_cgroup_s_limit_was_hit_before() {
        let sample = Sample { available: Bytes::mib(33), ..sample(0) };
        assert_eq!(judge(TARGET, &ask(1), &sample, Bytes(0)), Judgement::Refuse(Reason::Machine));
    }

    #[test]
    fn a_limit_below_the_target_is_not_judged_by_a_sample_of_the_target() {
        for (path, judgement) in [
            ("/t.slice", Judgement::Grant),
            ("/", Judgement::Grant),
            ("/t.slice/memcharge-store-m.service", Judgement::Refuse(Reason::NoVictim)),
            ("/elsewhere.slice", Judgement::Refuse(Reason::NoVictim)),
        ] {
            let mut ask = ask(1);
            ask.asked.limit_path = path.into();
            assert_eq!(judge(TARGET, &ask, &sample(0), Bytes(0)), judgement, "{path}");
        }
    }

    #[test]
    fn what_is_over_the_limit_is_missing_too() {
        let judgement = judge(TARGET, &ask(1), &sample(70), Bytes::mib(2));
        assert_eq!(judgement, Judgement::Short(Bytes::mib(6 + 1 + 4 + 1 + 2)));
    }

    proptest! {
        #[test]
        fn there_is_room_if_the_headroom_says_so(
            currents in proptest::collection::vec(0u64..128, 0..3), available in 0u64..128, need in 0u64..16,
            promised in 0u64..16, reserve in proptest::option::of(0u64..16),
        ) {
            let levels = currents.iter().map(|current| level(*current)).collect();
            let sample = Sample { levels, available: Bytes::mib(available) };
            let mut ask = ask(1);
            ask.asked.bytes = Bytes::mib(need);
            ask.reserve = reserve.map(Bytes::mib);
            let kept = ask.reserve.unwrap_or_else(|| default_reserve(sample.smallest_limit()));
            let wanted = Bytes::mib(need + promised).plus(kept).plus(MARGIN);
            let fits = sample.headroom(MACHINE_MARGIN).bytes >= wanted;
            let granted = judge(TARGET, &ask, &sample, Bytes::mib(promised)) == Judgement::Grant;
            prop_assert_eq!(granted, fits);
        }
    }
}
