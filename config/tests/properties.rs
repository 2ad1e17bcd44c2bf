//! What holds for every text and every fragment.

use std::time::Duration;

use memcharge_config::{Accounts, Fragment, KillFragment, MainFragment, check, merge};
use memcharge_policy::{
    Bytes, KillScope, KillVictim, MountOption, OnFull, SizeCap, Sparse, Target, arbiter::is_protect_glob,
};
use proptest::{option::of, prelude::*};

const NOBODY: Accounts<'static> = Accounts { user: &|_| None, group: &|_| None };

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        "[a-z0-9_]{1,9}\\.slice".prop_map(Target::Slice),
        "(/[^/.\\x00]{1,9}){1,3}"
            .prop_filter("the parser drops the cgroup root", |path| {
                path.parse() == Ok(Target::Path(path.clone()))
            })
            .prop_map(Target::Path),
    ]
}

fn size() -> impl Strategy<Value = SizeCap> {
    prop_oneof![(1u64..).prop_map(|n| SizeCap::Bytes(Bytes(n))), (1u8..=100).prop_map(SizeCap::Percent)]
}

fn options() -> impl Strategy<Value = Vec<MountOption>> {
    use MountOption::{Exec, Noatime, Nodev, Noexec, Nosuid, Relatime, Ro, Rw, Suid};
    prop_oneof![
        Just(vec![]),
        Just(vec![Nosuid, Nodev, Noexec, Ro, Noatime]),
        Just(vec![Suid, Exec, Rw, Relatime])
    ]
}

fn span(usec: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    usec.prop_map(Duration::from_micros)
}

fn kill() -> impl Strategy<Value = KillFragment> {
    (
        of(prop_oneof![Just(KillVictim::Largest), Just(KillVictim::Newest), Just(KillVictim::OomScore)]),
        of(prop_oneof![Just(KillScope::Process), Just(KillScope::Cgroup)]),
        of(prop::collection::vec(
            "[^/\\p{Cc}]{1,9}".prop_filter("a glob", |glob| is_protect_glob(glob)),
            0..4,
        )),
        of(span(0..=u64::MAX)),
    )
        .prop_map(|(victim, scope, protect, cooldown)| KillFragment { victim, scope, protect, cooldown })
}

prop_compose! {
    fn fragment()(
        (place, target, options, size) in (of("/srv(/[^/.\\p{Cc}]{1,9}){1,3}"), of(target()), of(options()), of(size())),
        (inodes, mode, uid, gid) in (of(1u64..), of(0u32..=0o7777), of(0..u32::MAX), of(0..u32::MAX)),
        (reserve, reclaim) in (of(any::<u64>().prop_map(Bytes)), of(any::<bool>())),
        (sparse, deadline) in (of(prop_oneof![Just(Sparse::Reserve), Just(Sparse::Sigbus)]), of(span(1..=60_000_000))),
        on_full in of(Just(OnFull::Enospc)),
        kill in kill(),
    ) -> Fragment {
        Fragment {
            place, target, options, size, inodes, mode, uid, gid, on_full, reserve, reclaim, sparse, deadline, kill,
        }
    }
}

fn toml_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("where"),
        Just("target"),
        Just("size"),
        Just("mode"),
        Just("uid"),
        Just("kill"),
        Just("protect"),
        Just("defaults"),
        Just("history"),
        Just("max-entries"),
        Just("options"),
        Just("deadline"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("="),
        Just("."),
        Just("\n"),
        Just("\n"),
        Just("\""),
        Just("'"),
        Just("-1"),
        Just("0x_f"),
        Just("1e9"),
        Just("99999999999999999999"),
        Just("true"),
        Just("\"/run\""),
        Just("\"50%\""),
        Just("1979-05-27"),
        Just("\u{0}"),
        Just("é"),
        Just(","),
        Just("#"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(fragment in fragment()) {
        prop_assert_eq!(check(&fragment), vec![]);
        let text = fragment.to_toml();
        prop_assert_eq!(Fragment::parse(&text, NOBODY), Ok(fragment), "{}", text);
    }

    #[test]
    fn merging_is_associative(a in fragment(), b in fragment(), c in fragment()) {
        let left = merge(merge(a.clone(), b.clone()), c.clone());
        prop_assert_eq!(left, merge(a, merge(b, c)));
    }

    #[test]
    fn no_text_panics(text in prop_oneof![".*", "(?s).{0,200}", toml_like()]) {
        let lines = text.matches('\n').count() + 1;
        let fragment = Fragment::parse(&text, NOBODY).err();
        let main = MainFragment::parse(&text, NOBODY).err();
        for located in fragment.into_iter().chain(main).flatten() {
            prop_assert!(located.line <= lines, "{:?}", located);
            prop_assert!(!located.problem.to_string().is_empty());
        }
    }
}
