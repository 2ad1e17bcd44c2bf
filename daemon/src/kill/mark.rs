//! Tells systemd that a kill was for lack of memory, so that the victim's unit shows `Result=oom-kill` and its
//! `OOMPolicy=` applies, as after a kill by systemd-oomd or by the kernel.
//!
//! When a process of a unit has ended, systemd (since 250; as seen on 252 and 257) looks at the attribute
//! `user.oomd_ooms` of the unit's cgroup: a decimal number that has grown means such a kill. `user.oomd_kill` counts
//! the processes and is only shown. Both are written before the kill, since systemd may look right after it.

use std::num::IntErrorKind;

use memcharge_cgroup::{Cgroup, Hierarchy};
use rustix::{fs::XattrFlags, io::Errno};

/// Kills.
const OOMS: &str = "user.oomd_ooms";

/// Processes that were killed.
const KILLS: &str = "user.oomd_kill";

/// Large enough for a number of 64 bits.
const VALUE_BUFFER: usize = 24;

/// What was written down for a kill.
#[derive(Debug, Default)]
pub(super) struct Mark {
    unit: Option<Cgroup>,
    counts: Vec<Count>,
}

/// One attribute.
#[derive(Debug)]
struct Count {
    name: &'static str,
    before: Option<u64>,
    now: u64,
}

impl Mark {
    /// Marks the unit that encloses the cgroup at `path` for a kill of so many processes. What does not work is left
    /// out: the mark is for the administrator's eyes, and the kill does not depend on it.
    pub(super) fn write(hierarchy: &Hierarchy, path: &str, processes: u64) -> Self {
        let Some(unit) = unit_path(path) else { return Self::default() };
        let unit = match hierarchy.open(unit) {
            Ok(unit) => unit,
            Err(error) => {
                tracing::debug!("systemd is not told of a kill in {path}: {error}");
                return Self::default();
            }
        };
        let mut counts = Vec::new();
        for (name, more) in [(OOMS, 1), (KILLS, processes)] {
            match increase(&unit, name, more) {
                Ok(count) => counts.push(count),
                Err(e) => tracing::debug!("cannot set {name} of {}: {e}", unit.path()),
            }
        }
        Self { unit: Some(unit), counts }
    }

    /// Takes it back: nobody was killed. What somebody else has written since is left alone.
    pub(super) fn undo(self) {
        let Some(unit) = &self.unit else { return };
        for count in self.counts {
            let undone = match (read(unit, count.name), count.before) {
                (Ok(Some(now)), _) if now != count.now => Ok(()),
                (Ok(_), Some(before)) => write(unit, count.name, before),
                (Ok(_), None) => rustix::fs::fremovexattr(unit, count.name),
                (Err(e), _) => Err(e),
            };
            if let Err(e) = undone {
                tracing::debug!("cannot restore {} of {}: {e}", count.name, unit.path());
            }
        }
    }
}

/// The nearest cgroup at or above `path` that is a service or a scope.
fn unit_path(path: &str) -> Option<&str> {
    let mut path = path;
    while !(path.ends_with(".service") || path.ends_with(".scope")) {
        path = path.rsplit_once('/')?.0;
    }
    Some(path)
}

fn increase(unit: &Cgroup, name: &'static str, more: u64) -> Result<Count, Errno> {
    let before = read(unit, name)?;
    let now = before.unwrap_or(0).checked_add(more).ok_or(Errno::OVERFLOW)?;
    write(unit, name, now)?;
    Ok(Count { name, before, now })
}

/// An attribute that is not a number is somebody else's, and an error.
fn read(unit: &Cgroup, name: &str) -> Result<Option<u64>, Errno> {
    let mut buffer = [0; VALUE_BUFFER];
    let length = match rustix::fs::fgetxattr(unit, name, &mut buffer) {
        Ok(length) => length,
        Err(Errno::NODATA) => return Ok(None),
        Err(e) => return Err(e),
    };
    let text = str::from_utf8(&buffer[..length]).map_err(|_| Errno::INVAL)?;
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        // As systemd reads it.
        Err(e) if *e.kind() == IntErrorKind::Empty => Ok(None),
        Err(_) => Err(Errno::INVAL),
    }
}

fn write(unit: &Cgroup, name: &str, value: u64) -> Result<(), Errno> {
    rustix::fs::fsetxattr(unit, name, value.to_string().as_bytes(), XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_unit_is_told() {
        for (path, unit) in [
            ("/a.slice/x.service", Some("/a.slice/x.service")),
            ("/a.slice/x.service/sub/group", Some("/a.slice/x.service")),
            (
                "/user.slice/user@1.service/app.slice/y.scope",
                Some("/user.slice/user@1.service/app.slice/y.scope"),
            ),
            ("/user.slice/user@1.service/app.slice", Some("/user.slice/user@1.service")),
            ("/a.slice/b.slice", None),
            ("/kubepods/pod1", None),
            ("/", None),
        ] {
            assert_eq!(unit_path(path), unit, "{path}");
        }
    }

    #[test]
    fn a_mark_counts_on_and_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x.service/sub")).unwrap();
        let hierarchy = Hierarchy::stand_in(dir.path());
        let unit = hierarchy.open("/x.service").unwrap();
        let counts = || (read(&unit, OOMS).unwrap(), read(&unit, KILLS).unwrap());
        let mark = |processes| Mark::write(&hierarchy, "/x.service/sub", processes);

        mark(3).undo();
        assert_eq!(counts(), (None, None));
        let first = mark(3);
        assert_eq!(counts(), (Some(1), Some(3)));
        let second = mark(1);
        assert_eq!(counts(), (Some(2), Some(4)));
        first.undo();
        assert_eq!(counts(), (Some(2), Some(4)), "it is not the last one any more");
        second.undo();
        assert_eq!(counts(), (Some(1), Some(3)));

        rustix::fs::fsetxattr(&unit, OOMS, b"many", XattrFlags::empty()).unwrap();
        mark(1).undo();
        assert_eq!(read(&unit, OOMS), Err(Errno::INVAL), "what somebody else has put there stays");
    }
}
