//! What has to be done so that the mounts are as the configuration says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use memcharge_config::LoadedMount;
use memcharge_policy::{MountName, PolicyPatch};

use super::left::Left;
use crate::{
    mounts::{MountView, State, fixed_keys},
    settings,
};

/// A mount that is in the table.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// What is known of it.
    pub(super) view: MountView,
    /// Whether something of it is there, or may be: without a record there is nothing.
    pub(super) recorded: bool,
}

/// What is done, in this order.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Mounts whose file is gone: they end.
    pub(super) gone: Vec<MountName>,
    /// Mounts that could not be made, and of which there is nothing: they are tried again.
    pub(super) again: Vec<LoadedMount>,
    /// Mounts that follow their files.
    pub(super) follow: Vec<LoadedMount>,
    /// Mounts that are made.
    pub(super) make: Vec<LoadedMount>,
    /// What is not done.
    pub(super) left: Vec<Left>,
}

/// Compares the mounts with the configuration.
pub(super) fn diff(found: &[Found], configured: Vec<LoadedMount>) -> Plan {
    let mut plan = Plan::default();
    let names: BTreeSet<_> = configured.iter().map(|mount| mount.policy.name.clone()).collect();
    // One that was made at run time has no file that could be gone.
    let gone = found.iter().map(|found| &found.view).filter(|view| !view.source.fragment.is_empty());
    plan.gone = gone.map(|view| view.policy.name.clone()).filter(|name| !names.contains(name)).collect();
    let found: BTreeMap<_, _> = found.iter().map(|found| (&found.view.policy.name, found)).collect();
    for mount in configured {
        match found.get(&mount.policy.name) {
            None => plan.make.push(mount),
            Some(found) => plan.compare(found, mount),
        }
    }
    plan
}

impl Plan {
    fn compare(&mut self, Found { view, recorded }: &Found, mount: LoadedMount) {
        let name = mount.policy.name.clone();
        let same_source = view.source == settings::source(&mount);
        if matches!(view.state, State::Failed(_)) {
            match (recorded, same_source && *view.base == mount.policy) {
                (false, _) => self.again.push(mount),
                // It may have data, which nobody wanted to lose by a change of its file.
                (true, false) => self.left.push(Left::Failed { name }),
                (true, true) => {}
            }
            return;
        }
        let keys = fixed_keys(&view.base, &mount.policy);
        let at_run_time = view.source.fragment.is_empty();
        if at_run_time && !keys.is_empty() {
            // It is not the mount that the file is about.
            self.left.push(Left::Taken { name, file: mount.fragment, keys });
            return;
        }
        if !keys.is_empty() {
            self.left.push(Left::Fixed { name, keys });
        }
        // What waits is no reason to do anything now.
        if !same_source || PolicyPatch::between(&view.base, &mount.policy) != PolicyPatch::default() {
            self.follow.push(mount);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use memcharge_policy::{Bytes, MountPolicy, SizeCap, Sparse, Target};

    use super::*;
    use crate::mounts::Source;

    fn policy(name: &str) -> MountPolicy {
        MountPolicy::new(name.parse().unwrap(), format!("/run/{name}"), Target::Slice("m.slice".into()))
    }

    fn larger() -> MountPolicy {
        MountPolicy { size: Some(SizeCap::Bytes(Bytes::mib(1))), ..policy("m") }
    }

    fn moved() -> MountPolicy {
        MountPolicy { place: "/run/x".into(), sparse: Sparse::Sigbus, ..larger() }
    }

    fn file(policy: MountPolicy) -> LoadedMount {
        LoadedMount { fragment: format!("/etc/{}.toml", policy.name).into(), drop_ins: Vec::new(), policy }
    }

    /// A mount that is active, and made from its file.
    fn active() -> Found {
        let source = settings::source(&file(policy("m")));
        let view = MountView { state: State::Active, ..MountView::new(policy("m"), source) };
        Found { view, recorded: true }
    }

    fn at_run_time() -> Found {
        let view = MountView { source: Source::default(), ..active().view };
        Found { view, ..active() }
    }

    fn failed(recorded: bool) -> Found {
        Found { view: MountView { state: State::Failed("why".into()), ..active().view }, recorded }
    }

    fn name() -> MountName {
        "m".parse().unwrap()
    }

    #[test]
    fn each_mount_gets_what_its_file_says() {
        let nothing = Plan::default;
        let changed = Found { view: MountView { policy: Arc::new(larger()), ..active().view }, ..active() };
        let moved_file = LoadedMount { fragment: "/run/m.toml".into(), ..file(policy("m")) };
        let keys = || vec!["where", "sparse"];
        for (case, found, configured, plan) in [
            ("new", None, Some(file(policy("m"))), Plan { make: vec![file(policy("m"))], ..nothing() }),
            ("as before", Some(active()), Some(file(policy("m"))), nothing()),
            ("gone", Some(active()), None, Plan { gone: vec![name()], ..nothing() }),
            ("gone and failed", Some(failed(true)), None, Plan { gone: vec![name()], ..nothing() }),
            (
                "gone, and there was nothing",
                Some(failed(false)),
                None,
                Plan { gone: vec![name()], ..nothing() },
            ),
            ("made at run time", Some(at_run_time()), None, nothing()),
            (
                "changed",
                Some(active()),
                Some(file(larger())),
                Plan { follow: vec![file(larger())], ..nothing() },
            ),
            ("set at run time", Some(changed.clone()), Some(file(policy("m"))), nothing()),
            (
                "set at run time, and the file says so now",
                Some(changed),
                Some(file(larger())),
                Plan { follow: vec![file(larger())], ..nothing() },
            ),
            (
                "another file",
                Some(active()),
                Some(moved_file.clone()),
                Plan { follow: vec![moved_file], ..nothing() },
            ),
            (
                "changed and moved",
                Some(active()),
                Some(file(moved())),
                Plan {
                    follow: vec![file(moved())],
                    left: vec![Left::Fixed { name: name(), keys: keys() }],
                    ..nothing()
                },
            ),
            (
                "moved, and nothing else",
                Some(active()),
                Some(file(MountPolicy { size: None, ..moved() })),
                Plan { left: vec![Left::Fixed { name: name(), keys: keys() }], ..nothing() },
            ),
            (
                "a file for one made at run time",
                Some(at_run_time()),
                Some(file(larger())),
                Plan { follow: vec![file(larger())], ..nothing() },
            ),
            (
                "a file for another one",
                Some(at_run_time()),
                Some(file(moved())),
                Plan {
                    left: vec![Left::Taken { name: name(), file: "/etc/m.toml".into(), keys: keys() }],
                    ..nothing()
                },
            ),
            (
                "could not be made",
                Some(failed(false)),
                Some(file(policy("m"))),
                Plan { again: vec![file(policy("m"))], ..nothing() },
            ),
            (
                "could not be made, and was moved",
                Some(failed(false)),
                Some(file(moved())),
                Plan { again: vec![file(moved())], ..nothing() },
            ),
            ("failed", Some(failed(true)), Some(file(policy("m"))), nothing()),
            (
                "failed and changed",
                Some(failed(true)),
                Some(file(larger())),
                Plan { left: vec![Left::Failed { name: name() }], ..nothing() },
            ),
        ] {
            let found: Vec<_> = found.into_iter().collect();
            assert_eq!(diff(&found, configured.into_iter().collect()), plan, "{case}");
        }
    }

    #[test]
    fn mounts_are_told_apart_by_their_names() {
        let renamed = file(MountPolicy { place: "/run/m".into(), ..policy("n") });
        let plan = diff(&[active()], vec![renamed.clone()]);
        assert_eq!(plan, Plan { gone: vec![name()], make: vec![renamed], ..Plan::default() });
    }
}
