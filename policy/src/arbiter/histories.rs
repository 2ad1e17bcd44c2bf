//! Random histories of a target.

use std::time::Duration;

use proptest::prelude::*;

use super::{fixtures::candidate, *};
use crate::{
    KillPolicy, KillScope, KillVictim,
    events::Counters,
    outcome::{LimitName, Operation},
};

pub(super) const MOUNTS: [&str; 3] = ["a", "b", "c"];

/// Cgroups, and whether they may be killed: by every policy, by one that does not protect `db-*`, or by none.
const CGROUPS: [(&str, Spared); 10] = [
    ("/t.slice", Spared::Never),
    ("/t.slice/app", Spared::Never),
    ("/t.slice/app/x", Spared::Never),
    ("/t.slice/app/y", Spared::Never),
    ("/t.slice/app/x/db-1", Spared::ByPolicy),
    ("/t.slice/db-2", Spared::ByPolicy),
    ("/t.slice/app/y/memcharge-a", Spared::Always),
    ("/t.slice/memcharge-store-a.service", Spared::Always),
    ("/t.slicer", Spared::Always),
    ("/u.slice/app", Spared::Always),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Spared {
    Never,
    ByPolicy,
    Always,
}

/// One thing that happens. A `usize` names one of what there is at that time.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// Time passes.
    Wait(u64),
    /// From now on so many MiB are in use.
    Use(u64),
    Ask {
        mount: usize,
        mib: u64,
        patience: u64,
        limit: LimitName,
        operation: Operation,
    },
    /// A store asks again what it has asked.
    AskAgain(usize),
    /// A look is answered, perhaps not for the last time.
    Found(usize, Vec<Candidate>, bool),
    /// A kill is answered, perhaps not for the last time.
    Killed(usize, bool, bool),
    Sampled,
    Events(Delta),
    Settled(usize),
    Forget(usize),
    Policy(usize, Rules),
}

pub(super) fn may_die(candidate: &Candidate, protects: bool) -> bool {
    let spared = CGROUPS.iter().find(|(cgroup, _)| *cgroup == candidate.cgroup).unwrap().1;
    let allowed = spared == Spared::Never || (spared == Spared::ByPolicy && !protects);
    allowed && candidate.pid > 1 && candidate.oom_score_adj > -1000
}

pub(super) fn any_rules() -> impl Strategy<Value = Rules> {
    let victim = prop_oneof![Just(KillVictim::Largest), Just(KillVictim::Newest), Just(KillVictim::OomScore)];
    let scope = prop_oneof![Just(KillScope::Process), Just(KillScope::Cgroup)];
    let cooldown = prop_oneof![Just(0), Just(20), Just(100), Just(1000)].prop_map(Duration::from_millis);
    (prop::bool::weighted(0.8), victim, scope, any::<bool>(), cooldown, prop::bool::weighted(0.1)).prop_map(
        |(kills, victim, scope, protects, cooldown, dry_run)| Rules {
            on_full: if kills { OnFull::Kill } else { OnFull::Enospc },
            kill: KillPolicy {
                victim,
                scope,
                protect: if protects { vec!["db-*".into()] } else { Vec::new() },
                cooldown,
            },
            dry_run,
        },
    )
}

pub(super) fn any_candidate() -> impl Strategy<Value = Candidate> {
    let adj = prop_oneof![9 => Just(0), 1 => Just(-1000)];
    (0u32..30, 0u64..3, 0..CGROUPS.len(), 0u64..16, 0u32..5, adj).prop_map(
        |(pid, started, at, mib, oom_score, oom_score_adj)| Candidate {
            started,
            cgroup: CGROUPS[at].0.into(),
            oom_score,
            oom_score_adj,
            ..candidate(pid, mib)
        },
    )
}

fn any_ask() -> impl Strategy<Value = Happening> {
    use LimitName::{High, Inodes, Machine, Max, Size, Unreadable};
    let limit = prop_oneof![20 => Just(Max), 2 => Just(High), 1 => Just(Machine), 1 => Just(Size),
        1 => Just(Inodes), 1 => Just(Unreadable)];
    let operation = prop_oneof![20 => Just(Operation::Write), 1 => Just(Operation::Make)];
    (0..MOUNTS.len(), 0u64..8, 0u64..400, limit, operation).prop_map(
        |(mount, mib, patience, limit, operation)| Happening::Ask { mount, mib, patience, limit, operation },
    )
}

pub(super) fn any_delta() -> impl Strategy<Value = Delta> {
    let grown = prop::collection::btree_map(
        prop_oneof![Just("low"), Just("high"), Just("max"), Just("oom"), Just("oom_kill")]
            .prop_map(String::from),
        0u64..3,
        0..3,
    );
    prop_oneof![
        Just(Delta::Unchanged),
        Just(Delta::Replaced),
        grown.prop_map(|by| Delta::Grown(Counters(by))),
    ]
}

pub(super) fn any_happening() -> impl Strategy<Value = Happening> {
    let found = prop::collection::vec(any_candidate(), 0..12);
    let again = || prop::bool::weighted(0.1);
    prop_oneof![
        4 => (0u64..60).prop_map(Happening::Wait),
        1 => (0u64..5000).prop_map(Happening::Wait),
        4 => (40u64..72).prop_map(Happening::Use),
        8 => any_ask(),
        1 => any::<usize>().prop_map(Happening::AskAgain),
        6 => (any::<usize>(), found, again()).prop_map(|(which, found, again)| {
            Happening::Found(which, found, again)
        }),
        4 => (any::<usize>(), prop::bool::weighted(0.8), again()).prop_map(|(which, sent, again)| {
            Happening::Killed(which, sent, again)
        }),
        4 => Just(Happening::Sampled),
        1 => any_delta().prop_map(Happening::Events),
        2 => any::<usize>().prop_map(Happening::Settled),
        1 => (0..MOUNTS.len()).prop_map(Happening::Forget),
        1 => (0..MOUNTS.len(), any_rules()).prop_map(|(mount, rules)| Happening::Policy(mount, rules)),
    ]
}
