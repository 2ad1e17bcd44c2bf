//! What has happened to a cgroup and how it stands: `memory.events`, `cgroup.events`, `cgroup.freeze`.

use std::io::Read;

use memcharge_policy::events::Counters;
use rustix::{fs::OFlags, io::Errno};

use crate::{Cgroup, CgroupError, cgroup::malformed, parse::parse_counters};

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

    #[test]
    fn a_cgroup_tells_its_events_and_whether_it_shall_freeze() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join("a").join(file), text).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        write("memory.events", "max 35\noom 1\n");
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
