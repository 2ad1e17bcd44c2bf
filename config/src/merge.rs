//! Fragments laid over each other: what the upper one says counts, the rest shows through.

use crate::{
    fragment::{Fragment, KillFragment},
    main_file::{HistoryFragment, MainFragment},
};

/// Lays `over` over `base`, key by key. Lists are replaced, not joined.
#[must_use]
pub fn merge(base: Fragment, over: Fragment) -> Fragment {
    Fragment {
        place: over.place.or(base.place),
        target: over.target.or(base.target),
        options: over.options.or(base.options),
        size: over.size.or(base.size),
        inodes: over.inodes.or(base.inodes),
        mode: over.mode.or(base.mode),
        uid: over.uid.or(base.uid),
        gid: over.gid.or(base.gid),
        on_full: over.on_full.or(base.on_full),
        reserve: over.reserve.or(base.reserve),
        reclaim: over.reclaim.or(base.reclaim),
        sparse: over.sparse.or(base.sparse),
        deadline: over.deadline.or(base.deadline),
        kill: merge_kill(base.kill, over.kill),
    }
}

/// Lays the main file `over` over `base`, key by key.
#[must_use]
pub fn merge_main(base: MainFragment, over: MainFragment) -> MainFragment {
    MainFragment {
        log_level: over.log_level.or(base.log_level),
        history: HistoryFragment {
            max_entries: over.history.max_entries.or(base.history.max_entries),
            max_size: over.history.max_size.or(base.history.max_size),
        },
        defaults: merge(base.defaults, over.defaults),
    }
}

fn merge_kill(base: KillFragment, over: KillFragment) -> KillFragment {
    KillFragment {
        victim: over.victim.or(base.victim),
        scope: over.scope.or(base.scope),
        protect: over.protect.or(base.protect),
        cooldown: over.cooldown.or(base.cooldown),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memcharge_policy::{KillScope, KillVictim, MountOption};

    use super::*;

    #[test]
    fn the_upper_counts_and_the_rest_shows_through() {
        let base = Fragment {
            mode: Some(0o755),
            options: Some(vec![MountOption::Nosuid, MountOption::Nodev]),
            kill: KillFragment { victim: Some(KillVictim::Newest), ..KillFragment::default() },
            ..Fragment::default()
        };
        let over = Fragment {
            options: Some(vec![MountOption::Ro]),
            deadline: Some(Duration::from_secs(1)),
            kill: KillFragment { scope: Some(KillScope::Cgroup), ..KillFragment::default() },
            ..Fragment::default()
        };
        let merged = merge(base.clone(), over);
        assert_eq!(merged.mode, Some(0o755));
        assert_eq!(merged.options, Some(vec![MountOption::Ro]));
        assert_eq!(merged.deadline, Some(Duration::from_secs(1)));
        assert_eq!(merged.kill.victim, Some(KillVictim::Newest));
        assert_eq!(merged.kill.scope, Some(KillScope::Cgroup));
        assert_eq!(merge(base.clone(), Fragment::default()), base);
        assert_eq!(merge(Fragment::default(), base.clone()), base);
    }
}
