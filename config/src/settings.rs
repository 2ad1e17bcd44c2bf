//! A merged fragment with the built-in defaults filled in: the policy of a mount.

use memcharge_policy::{KillPolicy, MountName, MountPolicy};

pub use crate::check::check;
use crate::{check::clean_path, error::Problem, fragment::Fragment};

/// Makes the policy of a mount from its merged fragment (see [`crate::merge()`]), or says all that is missing or breaks
/// a rule. The values may come from anywhere: the same rules hold for files and for the bus.
pub fn resolve(name: MountName, merged: &Fragment) -> Result<MountPolicy, Vec<Problem>> {
    let mut found = check(merged);
    found.extend(missing(merged));
    let (Some(place), Some(target), []) = (&merged.place, &merged.target, &found[..]) else {
        return Err(found);
    };
    let built_in = MountPolicy::new(name, clean_path(place), target.clone());
    Ok(MountPolicy {
        options: merged.options.clone().unwrap_or(built_in.options),
        size: merged.size.or(built_in.size),
        inodes: merged.inodes.or(built_in.inodes),
        mode: merged.mode.unwrap_or(built_in.mode),
        uid: merged.uid.unwrap_or(built_in.uid),
        gid: merged.gid.unwrap_or(built_in.gid),
        on_full: merged.on_full.unwrap_or(built_in.on_full),
        reserve: merged.reserve.or(built_in.reserve),
        reclaim: merged.reclaim.unwrap_or(built_in.reclaim),
        sparse: merged.sparse.unwrap_or(built_in.sparse),
        deadline: merged.deadline.unwrap_or(built_in.deadline),
        kill: KillPolicy {
            victim: merged.kill.victim.unwrap_or(built_in.kill.victim),
            scope: merged.kill.scope.unwrap_or(built_in.kill.scope),
            protect: merged.kill.protect.clone().unwrap_or(built_in.kill.protect),
            cooldown: merged.kill.cooldown.unwrap_or(built_in.kill.cooldown),
        },
        name: built_in.name,
        place: built_in.place,
        target: built_in.target,
    })
}

/// The keys that a mount needs and that `merged` does not have.
pub(crate) fn missing(merged: &Fragment) -> Vec<Problem> {
    let place = (merged.place.is_none()).then_some(Problem::Missing {
        key: "where",
        example: "the mount point, such as where = \"/run/shared/models\"",
    });
    let target = (merged.target.is_none()).then_some(Problem::Missing {
        key: "target",
        example: "the cgroup that pays, such as target = \"models.slice\"",
    });
    place.into_iter().chain(target).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memcharge_policy::{Bytes, MountOption, OnFull, SizeCap, Target};

    use super::*;

    fn name() -> MountName {
        "m".parse().unwrap()
    }

    #[test]
    fn what_is_not_said_has_the_built_in_default() {
        let said = Fragment {
            place: Some("/srv//shared/./m/".into()),
            target: Some(Target::Slice("m.slice".into())),
            ..Fragment::default()
        };
        let policy = resolve(name(), &said).unwrap();
        assert_eq!(policy, MountPolicy::new(name(), "/srv/shared/m".into(), Target::Slice("m.slice".into())));
    }

    #[test]
    fn values_from_the_bus_meet_the_same_rules() {
        let said = Fragment {
            place: Some("m".into()),
            target: Some(Target::Scope("a.scope".into())),
            options: Some(vec![MountOption::Ro, MountOption::Ro, MountOption::Rw]),
            size: Some(SizeCap::Bytes(Bytes(0))),
            inodes: Some(0),
            mode: Some(0o10000),
            uid: Some(u32::MAX),
            gid: Some(u32::MAX),
            on_full: Some(OnFull::Kill),
            deadline: Some(Duration::from_secs(61)),
            kill: crate::KillFragment { protect: Some(vec![String::new()]), ..Default::default() },
            ..Fragment::default()
        };
        let found: Vec<String> = resolve(name(), &said).unwrap_err().iter().map(Problem::to_string).collect();
        let expected = [
            "`where` must be an absolute path such as \"/run/shared/models\", not `m`",
            "`options` has `ro` twice; keep one of them",
            "`size` must be at least 1, not 0; leave it out for no cap",
            "`inodes` must be at least 1, not 0",
            "`mode` must be at most octal 7777, not 10000",
            "`uid` must be at most 4294967294, not 4294967295",
            "`gid` must be at most 4294967294, not 4294967295",
            "`deadline` must be more than 0 and at most 60s",
            "`protect` cannot have ``: it takes globs of one cgroup's name, such as \"db-*.service\", without `/`",
            "`options`: the mount options `ro` and `rw` exclude each other; keep one of them",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mount_needs_where_and_target() {
        let found: Vec<String> =
            resolve(name(), &Fragment::default()).unwrap_err().iter().map(Problem::to_string).collect();
        let expected = [
            "`where` is missing; give the mount point, such as where = \"/run/shared/models\"",
            "`target` is missing; give the cgroup that pays, such as target = \"models.slice\"",
        ];
        assert_eq!(found, expected);
    }
}
