//! Changes of a mount's policy while it is mounted.

use std::time::Duration;

use crate::{Bytes, KillScope, KillVictim, MountPolicy, OnFull, SizeCap};

/// What shall change. What is `None` stays; a limit of `Some(None)` is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyPatch {
    /// What a remote charger gets at the limit.
    pub on_full: Option<OnFull>,
    /// Headroom left to the target's own tasks.
    pub reserve: Option<Option<Bytes>>,
    /// Whether cache gives way.
    pub reclaim: Option<bool>,
    /// The longest time of one arbitration.
    pub deadline: Option<Duration>,
    /// The cap.
    pub size: Option<Option<SizeCap>>,
    /// The inode cap.
    pub inodes: Option<Option<u64>>,
    /// Which process is killed.
    pub victim: Option<KillVictim>,
    /// How much is killed at once.
    pub scope: Option<KillScope>,
    /// Cgroups that are never killed.
    pub protect: Option<Vec<String>>,
    /// The shortest time between two kills.
    pub cooldown: Option<Duration>,
}

impl PolicyPatch {
    /// What has to change to get from `old` to `new`, of what can change while a mount is there.
    pub fn between(old: &MountPolicy, new: &MountPolicy) -> Self {
        fn changed<T: PartialEq + Clone>(old: &T, new: &T) -> Option<T> {
            (old != new).then(|| new.clone())
        }
        Self {
            on_full: changed(&old.on_full, &new.on_full),
            reserve: changed(&old.reserve, &new.reserve),
            reclaim: changed(&old.reclaim, &new.reclaim),
            deadline: changed(&old.deadline, &new.deadline),
            size: changed(&old.size, &new.size),
            inodes: changed(&old.inodes, &new.inodes),
            victim: changed(&old.kill.victim, &new.kill.victim),
            scope: changed(&old.kill.scope, &new.kill.scope),
            protect: changed(&old.kill.protect, &new.kill.protect),
            cooldown: changed(&old.kill.cooldown, &new.kill.cooldown),
        }
    }
}

impl MountPolicy {
    /// The policy and its base after the configuration has become `new`. `base` is what it was before. What was changed
    /// at run time stays as it is; the rest follows. What cannot change while a mount is there stays, in both.
    #[must_use]
    pub fn rebased(&self, base: &Self, new: &Self) -> (Self, Self) {
        let (at_run_time, in_file) = (PolicyPatch::between(base, self), PolicyPatch::between(base, new));
        (self.patched(in_file.clone()).patched(at_run_time), base.patched(in_file))
    }

    /// The policy after a change.
    #[must_use]
    pub fn patched(&self, patch: PolicyPatch) -> Self {
        let mut new = self.clone();
        new.on_full = patch.on_full.unwrap_or(new.on_full);
        new.reserve = patch.reserve.unwrap_or(new.reserve);
        new.reclaim = patch.reclaim.unwrap_or(new.reclaim);
        new.deadline = patch.deadline.unwrap_or(new.deadline);
        new.size = patch.size.unwrap_or(new.size);
        new.inodes = patch.inodes.unwrap_or(new.inodes);
        new.kill.victim = patch.victim.unwrap_or(new.kill.victim);
        new.kill.scope = patch.scope.unwrap_or(new.kill.scope);
        new.kill.protect = patch.protect.unwrap_or(new.kill.protect);
        new.kill.cooldown = patch.cooldown.unwrap_or(new.kill.cooldown);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sparse, Target};

    fn policy() -> MountPolicy {
        MountPolicy::new("m".parse().unwrap(), "/run/m".into(), Target::Slice("m.slice".into()))
    }

    #[test]
    fn what_differs_is_what_has_to_change() {
        assert_eq!(PolicyPatch::between(&policy(), &policy()), PolicyPatch::default());
        let kill = crate::KillPolicy {
            victim: KillVictim::Newest,
            scope: KillScope::Cgroup,
            protect: vec!["a*".into()],
            cooldown: Duration::from_secs(1),
        };
        let new = MountPolicy {
            on_full: OnFull::Kill,
            reserve: Some(Bytes(1)),
            reclaim: false,
            deadline: Duration::from_secs(1),
            size: Some(SizeCap::Percent(50)),
            inodes: Some(9),
            kill,
            ..policy()
        };
        assert_eq!(policy().patched(PolicyPatch::between(&policy(), &new)), new);
        assert_eq!(
            new.patched(PolicyPatch::between(&new, &policy())),
            policy(),
            "limits are taken away, too"
        );
        // The rest is fixed while a mount is there.
        let moved = MountPolicy { place: "/x".into(), mode: 0, sparse: Sparse::Sigbus, ..policy() };
        assert_eq!(PolicyPatch::between(&policy(), &moved), PolicyPatch::default());
    }

    #[test]
    fn what_was_changed_at_run_time_stays_on_top_of_the_file() {
        let size = |mib| Some(SizeCap::Bytes(Bytes::mib(mib)));
        let with = |size, reclaim| MountPolicy { size, reclaim, ..policy() };
        for (base, policy, file, becomes) in [
            // Nothing was changed at run time: the file is followed.
            (with(size(1), true), with(size(1), true), with(size(2), false), with(size(2), false)),
            (with(size(1), true), with(size(1), true), with(None, true), with(None, true)),
            // The size was: it stays, and the other key follows.
            (with(size(1), true), with(size(5), true), with(size(2), false), with(size(5), false)),
            (with(size(1), true), with(None, true), with(size(2), true), with(None, true)),
            // The file has become what was set.
            (with(size(1), true), with(size(5), true), with(size(5), true), with(size(5), true)),
        ] {
            assert_eq!(policy.rebased(&base, &file), (becomes, file));
        }
        let moved = MountPolicy { place: "/x".into(), ..with(size(2), true) };
        let (now, base) = policy().rebased(&policy(), &moved);
        assert_eq!((now, base), (with(size(2), true), with(size(2), true)), "the place waits");
    }

    #[test]
    fn only_what_is_named_changes() {
        let mut old = policy();
        old.size = Some(SizeCap::Percent(50));
        old.reserve = Some(Bytes(1));
        assert_eq!(old.patched(PolicyPatch::default()), old);
        let patch = PolicyPatch {
            on_full: Some(OnFull::Kill),
            size: Some(None),
            protect: Some(vec!["a*".into()]),
            ..PolicyPatch::default()
        };
        let new = old.patched(patch);
        assert_eq!((new.on_full, new.size, new.reserve), (OnFull::Kill, None, Some(Bytes(1))));
        assert_eq!(new.kill.protect, ["a*"]);
    }
}
