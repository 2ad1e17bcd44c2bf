//! Which cgroups are never killed.

use std::path::{Component, Path};

use glob::{MatchOptions, Pattern};

use crate::mountinfo::is_within;

/// Cgroups that are spared wherever they are, with all that is below them.
const ALWAYS: [&str; 6] = [
    "memcharged.service",
    "memcharge-store-*.service",
    "dbus.service",
    "dbus-broker.service",
    "systemd-journald.service",
    "init.scope",
];

/// The store's own cgroup in a target that systemd does not manage. A target may have such a name itself.
const RAW_LEAF: &str = "memcharge-*";

/// How a glob with a `/` is matched: a `*` stays within one name.
const BY_PATH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Whether `glob` can be understood. One that cannot protects every cgroup.
pub fn is_protect_glob(glob: &str) -> bool {
    Pattern::new(glob).is_ok()
}

/// The cgroups of a target that are spared.
pub(super) struct Protection<'a> {
    target: &'a str,
    names: Vec<Pattern>,
    paths: Vec<Pattern>,
    all: bool,
}

impl<'a> Protection<'a> {
    /// By a policy's globs, and by what is spared always.
    pub(super) fn new(target: &'a str, globs: &[String]) -> Self {
        let mut protection = Self { target, names: Vec::new(), paths: Vec::new(), all: false };
        for glob in ALWAYS.into_iter().chain(globs.iter().map(String::as_str)) {
            let is_path = glob.contains('/');
            match Pattern::new(glob.trim_start_matches('/')) {
                Ok(pattern) if is_path => protection.paths.push(pattern),
                Ok(pattern) => protection.names.push(pattern),
                // Whom it meant to spare is not known.
                Err(_) => protection.all = true,
            }
        }
        protection
    }

    /// Whether a cgroup is spared: by its own name or path, or by that of one above it.
    pub(super) fn covers(&self, cgroup: &str) -> bool {
        self.all || self.is_raw_leaf(cgroup) || self.is_named(cgroup) || self.is_at_path(cgroup)
    }

    fn is_named(&self, cgroup: &str) -> bool {
        cgroup.split('/').any(|part| self.names.iter().any(|name| name.matches(part)))
    }

    fn is_at_path(&self, cgroup: &str) -> bool {
        let matches = |path: &str| self.paths.iter().any(|pattern| pattern.matches_with(path, BY_PATH));
        let path = cgroup.trim_matches('/');
        matches(path) || path.match_indices('/').any(|(end, _)| matches(&path[..end]))
    }

    fn is_raw_leaf(&self, cgroup: &str) -> bool {
        let name = cgroup.trim_end_matches('/').rsplit('/').next();
        is_below(cgroup, self.target)
            && name.zip(RAW_LEAF.strip_suffix('*')).is_some_and(|(name, prefix)| name.starts_with(prefix))
    }
}

/// Whether `cgroup` is `target` or below it. A `..`, as the kernel writes for a cgroup outside a namespace, never is.
pub(super) fn is_inside(cgroup: &str, target: &str) -> bool {
    is_within(cgroup, target) && !Path::new(cgroup).components().any(|part| part == Component::ParentDir)
}

/// Whether `cgroup` is below `target`.
pub(super) fn is_below(cgroup: &str, target: &str) -> bool {
    is_inside(cgroup, target) && !is_within(target, cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(globs: &[&str], cgroup: &str) -> bool {
        let globs: Vec<_> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Protection::new("/memcharge-t", &globs).covers(cgroup)
    }

    #[test]
    fn what_memcharge_and_the_system_live_on_is_always_spared() {
        for (cgroup, spared) in [
            ("/memcharge-t/app.service", false),
            ("/memcharge-t", false),
            ("/memcharge-t/memcharge-models", true),
            ("/memcharge-t/app/memcharge-models", true),
            ("/memcharge-t/memcharge-store-m.service", true),
            ("/memcharge-t/memcharge-store-m.service/below", true),
            ("/memcharge-t/system.slice/memcharged.service", true),
            ("/memcharge-t/system.slice/dbus.service", true),
            ("/memcharge-t/dbus-broker.service", true),
            ("/memcharge-t/systemd-journald.service", true),
            ("/memcharge-t/systemd-journald.service.d", false),
            ("/init.scope", true),
        ] {
            assert_eq!(covers(&[], cgroup), spared, "{cgroup}");
        }
    }

    #[test]
    fn globs_spare_a_name_anywhere_and_a_path_as_a_whole() {
        for (glob, cgroup, spared) in [
            ("db-*.service", "/memcharge-t/db-1.service", true),
            ("db-*.service", "/memcharge-t/db-1.service/worker", true),
            ("db-*.service", "/memcharge-t/mydb-1.service", false),
            ("memcharge-t/db", "/memcharge-t/db", true),
            ("/memcharge-t/db", "/memcharge-t/db/worker", true),
            ("/memcharge-t/*", "/memcharge-t/a/b", true),
            ("*/db", "/memcharge-t/db", true),
            ("*/db", "/memcharge-t/a/db", false),
            ("**/db", "/memcharge-t/a/db", true),
            ("t/db", "/memcharge-t/db", false),
        ] {
            assert_eq!(covers(&[glob], cgroup), spared, "{glob} {cgroup}");
        }
    }

    #[test]
    fn a_glob_that_cannot_be_understood_spares_everybody() {
        assert!(!is_protect_glob("db-[") && is_protect_glob("db-[0-9]"));
        assert!(covers(&["db-["], "/memcharge-t/app"));
    }

    #[test]
    fn what_is_inside_is_told_by_components() {
        for (cgroup, inside, below) in [
            ("/t.slice", true, false),
            ("/t.slice/", true, false),
            ("/t.slice/a", true, true),
            ("/t.slice2", false, false),
            ("/", false, false),
            ("/t.slice/../u", false, false),
            ("t.slice/a", false, false),
        ] {
            assert_eq!(
                (is_inside(cgroup, "/t.slice"), is_below(cgroup, "/t.slice")),
                (inside, below),
                "{cgroup}"
            );
        }
    }
}
