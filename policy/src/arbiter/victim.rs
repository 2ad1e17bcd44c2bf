//! Whom to kill.

use std::{collections::BTreeMap, path::Path};

use super::{
    Candidate,
    kill::Kill,
    protect::{Protection, is_below, is_inside},
};
use crate::{Bytes, KillPolicy, KillScope, KillVictim};

/// The kernel's name for a process that it never kills.
const NEVER_KILLED: i32 = -1000;

/// The candidate to kill: one that may be killed and whose death frees at least `missing`; the first by the policy,
/// then the one with the greater pid. With [`KillScope::Cgroup`] it stands for its cgroup, which is below the target.
/// `found` must be all processes of the target's subtree. Those that the `last` kill has hit and that have not ended
/// yet free nothing more.
pub(super) fn choose<'a>(
    target: &str,
    found: &'a [Candidate],
    missing: Bytes,
    policy: &KillPolicy,
    last: Option<&Kill>,
) -> Option<&'a Candidate> {
    let protection = Protection::new(target, &policy.protect);
    match policy.scope {
        KillScope::Process => found
            .iter()
            .filter(|candidate| candidate.frees >= missing && is_inside(&candidate.cgroup, target))
            .filter(|candidate| is_killable(candidate) && !is_dying(candidate, last))
            .filter(|candidate| !protection.covers(&candidate.cgroup))
            .max_by_key(|candidate| rank(candidate, candidate.frees, policy.victim)),
        KillScope::Cgroup => {
            let groups = groups(target, found, &protection, last);
            let tolls = tolls(target, &groups);
            let allowed = |path: &Path| {
                tolls.get(path).filter(|toll| !toll.is_spared && toll.frees >= missing).map(|toll| toll.frees)
            };
            groups
                .iter()
                .filter_map(|(path, group)| Some((group.named(policy.victim)?, allowed(path)?)))
                .max_by_key(|(named, frees)| rank(named, *frees, policy.victim))
                .map(|(named, _)| named)
        }
    }
}

/// The greatest is killed. The pid makes it the same one each time.
fn rank(candidate: &Candidate, frees: Bytes, by: KillVictim) -> (u64, u32) {
    let first = match by {
        KillVictim::Largest => frees.0,
        KillVictim::Newest => candidate.started,
        KillVictim::OomScore => candidate.oom_score.into(),
    };
    (first, candidate.pid)
}

fn is_killable(candidate: &Candidate) -> bool {
    candidate.pid > 1 && candidate.oom_score_adj > NEVER_KILLED
}

fn is_dying(candidate: &Candidate, last: Option<&Kill>) -> bool {
    last.is_some_and(|kill| kill.has_hit(candidate))
}

/// What the death of a cgroup, or of a part of it, costs and brings.
#[derive(Default, Clone, Copy)]
struct Toll {
    frees: Bytes,
    is_spared: bool,
}

/// The processes of one cgroup, without those below it.
struct Group<'a> {
    toll: Toll,
    /// Who can stand for it.
    members: Vec<&'a Candidate>,
}

impl<'a> Group<'a> {
    fn named(&self, by: KillVictim) -> Option<&'a Candidate> {
        self.members.iter().copied().max_by_key(|member| rank(member, member.frees, by))
    }
}

/// The cgroups below the target that have processes.
fn groups<'a>(
    target: &str,
    found: &'a [Candidate],
    protection: &Protection<'_>,
    last: Option<&Kill>,
) -> BTreeMap<&'a Path, Group<'a>> {
    let mut groups: BTreeMap<&Path, Group<'_>> = BTreeMap::new();
    for candidate in found.iter().filter(|candidate| is_below(&candidate.cgroup, target)) {
        let group = groups.entry(Path::new(&candidate.cgroup)).or_insert_with(|| {
            let is_spared = protection.covers(&candidate.cgroup);
            Group { toll: Toll { frees: Bytes(0), is_spared }, members: Vec::new() }
        });
        group.toll.is_spared |= !is_killable(candidate);
        if !is_dying(candidate, last) {
            group.toll.frees = group.toll.frees.plus(candidate.frees);
            group.members.push(candidate);
        }
    }
    groups
}

/// What each cgroup costs and brings with all that is below it, as `cgroup.kill` takes that along.
fn tolls<'a>(target: &str, groups: &BTreeMap<&'a Path, Group<'a>>) -> BTreeMap<&'a Path, Toll> {
    let mut tolls: BTreeMap<&Path, Toll> = BTreeMap::new();
    for (path, group) in groups {
        for above in path.ancestors().take_while(|above| *above != Path::new(target)) {
            let toll = tolls.entry(above).or_default();
            toll.frees = toll.frees.plus(group.toll.frees);
            toll.is_spared |= group.toll.is_spared;
        }
    }
    tolls
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};

    fn policy(victim: KillVictim, scope: KillScope) -> KillPolicy {
        KillPolicy { victim, scope, protect: vec!["db-*".into()], ..KillPolicy::default() }
    }

    fn chosen(found: &[Candidate], missing: u64, victim: KillVictim, scope: KillScope) -> Option<u32> {
        choose(TARGET, found, Bytes::mib(missing), &policy(victim, scope), None)
            .map(|candidate| candidate.pid)
    }

    #[test]
    fn r20_only_who_may_be_killed_and_frees_enough_is_chosen() {
        let cgroup = |cgroup: &str| Candidate { cgroup: cgroup.into(), ..candidate(9, 8) };
        for (why, candidate, eligible) in [
            ("in the target itself", cgroup("/t.slice"), true),
            ("below it", cgroup("/t.slice/a/b"), true),
            ("just enough", candidate(9, 4), true),
            ("too little", Candidate { frees: Bytes(Bytes::mib(4).0 - 1), ..candidate(9, 8) }, false),
            ("outside", cgroup("/u.slice"), false),
            ("above", cgroup("/"), false),
            ("a name that begins alike", cgroup("/t.slice-2"), false),
            ("out of the target again", cgroup("/t.slice/../u.slice"), false),
            ("protected by the policy", cgroup("/t.slice/db-1/x"), false),
            ("a store's cgroup", cgroup("/t.slice/memcharge-store-m.service"), false),
            (
                "one that calls itself a store",
                Candidate { comm: "memcharge-store".into(), ..candidate(9, 8) },
                true,
            ),
            ("never killed", Candidate { oom_score_adj: -1000, ..candidate(9, 8) }, false),
            ("hardly ever killed", Candidate { oom_score_adj: -999, ..candidate(9, 8) }, true),
            ("init", candidate(1, 8), false),
            ("no process", candidate(0, 8), false),
        ] {
            let by_process = chosen(&[candidate], 4, KillVictim::Largest, KillScope::Process);
            assert_eq!(by_process.is_some(), eligible, "{why}");
        }
    }

    #[test]
    fn the_policy_names_the_first_and_the_pid_decides_between_equals() {
        let found = [
            Candidate { started: 5, oom_score: 1, ..candidate(10, 9) },
            Candidate { started: 7, oom_score: 1, ..candidate(11, 8) },
            Candidate { started: 6, oom_score: 3, ..candidate(12, 7) },
            Candidate { started: 7, oom_score: 3, ..candidate(13, 9) },
            Candidate { started: 9, oom_score: 9, ..candidate(14, 1) },
        ];
        for (victim, all, fewer) in
            [(KillVictim::Largest, 13, 10), (KillVictim::Newest, 13, 11), (KillVictim::OomScore, 13, 12)]
        {
            assert_eq!(chosen(&found, 4, victim, KillScope::Process), Some(all), "{victim}");
            assert_eq!(chosen(&found[..3], 4, victim, KillScope::Process), Some(fewer), "{victim}");
            let reversed: Vec<_> = found.iter().rev().cloned().collect();
            assert_eq!(chosen(&reversed, 4, victim, KillScope::Process), Some(all), "{victim}");
        }
    }

    #[test]
    fn a_cgroup_counts_with_all_that_is_below_it() {
        let at = |pid, mib, cgroup: &str| Candidate { cgroup: cgroup.into(), ..candidate(pid, mib) };
        let by =
            |found: &[Candidate], missing| chosen(found, missing, KillVictim::Largest, KillScope::Cgroup);
        let pair = [at(10, 3, "/t.slice/a"), at(11, 2, "/t.slice/a"), at(12, 4, "/t.slice/b")];
        assert_eq!(by(&pair, 5), Some(10), "together they free enough; the largest stands for them");
        assert_eq!(by(&pair, 6), None);
        let nested = [at(10, 1, "/t.slice/a"), at(11, 4, "/t.slice/a/x")];
        assert_eq!(by(&nested, 5), Some(10), "what is killed is the named one's cgroup");
        let no_own = [at(11, 3, "/t.slice/a/x"), at(12, 3, "/t.slice/a/y")];
        assert_eq!(by(&no_own, 4), None, "no process stands for a");
        assert_eq!(by(&no_own, 3), Some(12));
    }

    #[test]
    fn a_cgroup_is_spared_with_whatever_must_live_in_it() {
        let at = |pid, mib, cgroup: &str| Candidate { cgroup: cgroup.into(), ..candidate(pid, mib) };
        for (why, found, eligible) in [
            ("the target itself", vec![at(10, 9, "/t.slice")], None),
            ("outside", vec![at(10, 9, "/u.slice/a")], None),
            ("nothing special", vec![at(10, 9, "/t.slice/a"), at(11, 0, "/t.slice/a/x")], Some(10)),
            ("protected below it", vec![at(10, 9, "/t.slice/a"), at(11, 0, "/t.slice/a/db-1")], None),
            ("a store below it", vec![at(10, 9, "/t.slice/a"), at(11, 0, "/t.slice/a/b/memcharge-m")], None),
            (
                "unkillable in it",
                vec![at(10, 9, "/t.slice/a"), Candidate { oom_score_adj: -1000, ..at(11, 0, "/t.slice/a") }],
                None,
            ),
            ("a store elsewhere", vec![at(10, 9, "/t.slice/a"), at(11, 0, "/t.slice/memcharge-m")], Some(10)),
            ("protected elsewhere", vec![at(10, 9, "/t.slice/a"), at(11, 9, "/t.slice/db-1")], Some(10)),
        ] {
            assert_eq!(chosen(&found, 4, KillVictim::Largest, KillScope::Cgroup), eligible, "{why}");
        }
    }

    #[test]
    fn cgroups_are_chosen_by_the_one_that_stands_for_them() {
        let found = [
            Candidate { started: 1, oom_score: 9, cgroup: "/t.slice/a".into(), ..candidate(10, 5) },
            Candidate { started: 2, oom_score: 2, cgroup: "/t.slice/b".into(), ..candidate(11, 6) },
            Candidate { started: 3, oom_score: 1, cgroup: "/t.slice/a".into(), ..candidate(12, 2) },
        ];
        for (victim, pid) in [(KillVictim::Largest, 10), (KillVictim::Newest, 12), (KillVictim::OomScore, 10)]
        {
            assert_eq!(chosen(&found, 4, victim, KillScope::Cgroup), Some(pid), "{victim}");
        }
    }

    #[test]
    fn who_is_dying_frees_nothing_and_still_counts_for_its_cgroup() {
        let [hit, other] =
            [candidate(10, 8), Candidate { pid: 11, frees: Bytes::mib(5), ..candidate(10, 8) }];
        let kill = Kill::new(id(1), ms(0), &hit, KillScope::Process, std::slice::from_ref(&hit));
        let by = |found: &[Candidate], missing, scope| {
            let policy = policy(KillVictim::Largest, scope);
            choose(TARGET, found, Bytes::mib(missing), &policy, Some(&kill)).map(|candidate| candidate.pid)
        };
        let pair = [hit.clone(), other.clone()];
        for scope in [KillScope::Process, KillScope::Cgroup] {
            assert_eq!(by(&pair, 5, scope), Some(11), "{scope}");
            assert_eq!(by(&pair, 6, scope), None, "{scope}");
        }
        let spared = [Candidate { oom_score_adj: -1000, ..hit }, other];
        assert_eq!(by(&spared, 5, KillScope::Cgroup), None);
    }
}
