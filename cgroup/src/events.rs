//! What has happened to a cgroup and how it stands: `memory.events`, `cgroup.events`, `cgroup.freeze`.

use std::io::Read;

use memcharge_policy::events::Counters;
use rustix::{fs::OFlags, io::Errno};

use crate::{Cgroup, CgroupError, cgroup::malformed};

/// Counters in one file, at most. Linux 6.12 has seven.
const MAX_COUNTERS: usize = 64;

/// The longest name of a counter, in bytes. Those of Linux 6.12 have at most 15.
const MAX_NAME: usize = 64;

/// `memory.events`, `memory.events.local`: all counters. `None` for a line that is not a name and a number, for a
/// name that comes twice, and for more than [`MAX_COUNTERS`].
fn parse_counters(text: &str) -> Option<Counters> {
    let mut counters = Counters::default();
    for line in text.lines() {
        let (name, number) = line.split_once(' ')?;
        let known = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if name.is_empty() || name.len() > MAX_NAME || !known || counters.0.len() == MAX_COUNTERS {
            return None;
        }
        if counters.0.insert(name.to_owned(), parse_count(number)?).is_some() {
            return None;
        }
    }
    Some(counters)
}

/// A decimal number without a sign: `str::parse` takes a plus.
fn parse_count(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Cgroup {
    /// The counters of `memory.events`: of this cgroup and those below it, or, if `local`, of it alone.
    pub fn events(&self, local: bool) -> Result<Counters, CgroupError> {
        let file = if local { "memory.events.local" } else { "memory.events" };
        self.read_as(file, "a list of counters", parse_counters)
    }

    /// Whether this cgroup itself was asked to freeze. One of its ancestors can freeze it as well.
    pub fn freeze_asked(&self) -> Result<bool, CgroupError> {
        self.read_as("cgroup.freeze", "0 or 1", |text| match text.trim_end() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    /// Whether any process lives in this cgroup itself, rather than below it.
    pub fn has_own_procs(&self) -> Result<bool, CgroupError> {
        const FILE: &str = "cgroup.procs";
        let mut first = [0];
        match self.open_file(FILE, OFlags::RDONLY)?.read(&mut first) {
            Ok(length) => Ok(length > 0),
            Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                Err(CgroupError::Dying { path: self.path().to_owned() })
            }
            Err(source) => {
                Err(CgroupError::Io { action: "read", path: format!("{}/{FILE}", self.path()), source })
            }
        }
    }

    /// What `parse` makes of one of the cgroup's files.
    pub(crate) fn read_as<T>(
        &self,
        file: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, CgroupError> {
        let text = self.read(file)?;
        parse(&text).ok_or_else(|| malformed(&format!("{}/{file}", self.path()), &text, expected))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Hierarchy;

    /// Linux 6.12, after one kill.
    const EVENTS: &str = "low 0\nhigh 0\nmax 35\noom 1\noom_kill 1\noom_group_kill 0\n";

    #[test]
    fn counters_are_read_by_name() {
        let counters = parse_counters(EVENTS).unwrap();
        assert_eq!((counters.get("max"), counters.get("oom_kill"), counters.0.len()), (35, 1, 6));
        assert_eq!(parse_counters(""), Some(Counters::default()));
    }

    #[test]
    fn a_malformed_counter_is_an_error() {
        for bad in ["low\n", "low x\n", "low +1\n", "low -1\n", "low 1 2\n", "low 1\nlow 2\n", " 1\n", "\n"] {
            assert_eq!(parse_counters(bad), None, "{bad:?}");
        }
        assert_eq!(parse_counters(&format!("{} 1\n", "a".repeat(MAX_NAME + 1))), None);
        let many = |count| (0..count).map(|i| format!("c{i} 1\n")).collect::<String>();
        assert!(parse_counters(&many(MAX_COUNTERS)).is_some());
        assert_eq!(parse_counters(&many(MAX_COUNTERS + 1)), None);
    }

    #[test]
    fn a_cgroup_tells_its_events_and_whether_it_shall_freeze() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join("a").join(file), text).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        write("memory.events", EVENTS);
        write("memory.events.local", "oom 0\n");
        write("cgroup.freeze", "1\n");
        write("cgroup.procs", "");
        let a = Hierarchy::stand_in(dir.path()).open("/a").unwrap();
        assert_eq!(a.events(false).unwrap().get("oom"), 1);
        assert_eq!(a.events(true).unwrap().get("oom"), 0);
        assert!(a.freeze_asked().unwrap());
        assert!(!a.has_own_procs().unwrap());
        write("cgroup.procs", "7\n");
        assert!(a.has_own_procs().unwrap());
        write("cgroup.freeze", "yes\n");
        assert!(matches!(a.freeze_asked(), Err(CgroupError::Malformed { .. })), "no default in silence");
        fs::remove_file(dir.path().join("a/memory.events")).unwrap();
        assert!(matches!(a.events(false), Err(CgroupError::NoMemoryController { .. })));
    }
}
