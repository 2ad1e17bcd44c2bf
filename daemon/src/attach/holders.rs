//! Who keeps a mount busy: found in `/proc` alone, the mount itself is never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use memcharge_policy::mountinfo::{MountEntry, binds, is_within, parse_mountinfo};

use super::host;
use crate::error::{DaemonError, Result};

/// As many holders are named; the others are counted.
const MAX_NAMED: usize = 8;

/// Longer names of processes do not exist; what is longer is not read.
const MAX_COMM: usize = 64;

/// The mounts of the host.
pub(crate) fn read_mounts() -> Result<Vec<MountEntry>> {
    let text = fs::read(host::MOUNTS).map_err(DaemonError::io("read", host::MOUNTS))?;
    parse_mountinfo(&String::from_utf8_lossy(&text)).map_err(|line| {
        let wrong = std::io::Error::other(format!("the line `{line}` is not as documented"));
        DaemonError::io("read", host::MOUNTS)(wrong)
    })
}

/// Bind mounts of `own`, on the host and in other mount namespaces, in words; `None`: there are none.
///
/// Those of memcharged and of the stores (whose program is `store`) do not count: see [`namespaces`].
pub(crate) fn find_binds(own: &MountEntry, mounts: &[MountEntry], store: &str) -> Option<String> {
    let here: Vec<_> = binds(own, mounts, mounts, true).iter().map(|bind| bind.place.clone()).collect();
    let mut found: Vec<_> = here.iter().map(|place| format!("a bind mount on {place}")).collect();
    for space in namespaces(store).iter().filter(|space| !space.is_host) {
        for bind in binds(own, mounts, &space.entries, false) {
            // Copies of a bind here go when that goes.
            if here.contains(&bind.place) {
                continue;
            }
            let who = process(space.pid);
            found.push(format!("a bind mount on {} for {who}", bind.place));
        }
    }
    describe(&found)
}

/// Processes and mounts that use `own` or one of its copies and binds, in words; `None`: nobody that can be found.
pub(crate) fn find_holders(own: &MountEntry, store: &str) -> Option<String> {
    let mut found = Vec::new();
    let mut spaces = BTreeMap::new();
    for space in namespaces(store) {
        if space.is_host {
            let above = space.entries.iter().filter(|entry| entry.parent == own.id);
            found.extend(above.map(|entry| format!("a mount on {}", entry.place)));
        }
        spaces.insert(space.link, Uses::new(own.device, &space.entries));
    }
    for pid in processes() {
        let link = namespace_of(pid);
        let Some(uses) = link.and_then(|link| spaces.get(&link)) else { continue };
        if uses.by(pid) {
            found.push(process(pid));
        }
    }
    describe(&found)
}

/// Names the first few, and counts the others.
fn describe(found: &[String]) -> Option<String> {
    let (named, more) = found.split_at(found.len().min(MAX_NAMED));
    match (named, more.len()) {
        ([], _) => None,
        (named, 0) => Some(named.join(", ")),
        (named, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

/// A mount namespace, seen through one of its processes.
struct Namespace {
    pid: u32,
    link: PathBuf,
    is_host: bool,
    entries: Vec<MountEntry>,
}

/// Every mount namespace that has a process. Processes that end meanwhile are left out.
///
/// So are the namespaces of memcharged and the stores, of which there are many. They have copies of all mounts, and nobody
/// uses them there; one below a mount that is not shared even stays when it is unmounted.
fn namespaces(store: &str) -> Vec<Namespace> {
    // By hand memcharged shares a cgroup with others.
    let unit = cgroup_of("self").filter(|path| path.ends_with(".service"));
    let host = fs::read_link(host::NAMESPACE).ok();
    let mut seen = BTreeSet::new();
    let mut spaces = Vec::new();
    for pid in processes() {
        let Some(link) = namespace_of(pid).filter(|link| seen.insert(link.clone())) else { continue };
        let is_host = Some(&link) == host.as_ref();
        if !is_host && is_ours(pid, unit.as_deref(), store) {
            continue;
        }
        let text = fs::read(format!("/proc/{pid}/mountinfo"));
        let entries = text.ok().and_then(|text| parse_mountinfo(&String::from_utf8_lossy(&text)).ok());
        match entries {
            Some(entries) => spaces.push(Namespace { pid, is_host, link, entries }),
            // Another process of that namespace may still be there.
            None => drop(seen.remove(&link)),
        }
    }
    spaces
}

fn processes() -> impl Iterator<Item = u32> {
    let listing = fs::read_dir("/proc").into_iter().flatten().flatten();
    listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process is of memcharged's unit, or a store.
fn is_ours(pid: u32, unit: Option<&str>, store: &str) -> bool {
    let program = || fs::read_link(format!("/proc/{pid}/exe"));
    unit.is_some_and(|unit| cgroup_of(&pid.to_string()).is_some_and(|cgroup| is_within(&cgroup, unit)))
        // A program of before an upgrade has this behind its path.
        || program().is_ok_and(|program| program.to_string_lossy().trim_end_matches(" (deleted)") == store)
}

/// The cgroup of a process.
fn cgroup_of(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.to_owned())
}

fn namespace_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// A process as an administrator knows it: `python3 (pid 812)`.
fn process(pid: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm: String = comm.trim_end().chars().take(MAX_COMM).flat_map(char::escape_debug).collect();
    if comm.is_empty() { format!("pid {pid}") } else { format!("{comm} (pid {pid})") }
}

/// How a process of one mount namespace shows that it uses a file system.
struct Uses {
    ids: BTreeSet<u32>,
    places: Vec<String>,
    /// The file system as `/proc/PID/maps` writes it.
    device: String,
}

impl Uses {
    fn new(device: (u32, u32), entries: &[MountEntry]) -> Self {
        let mounts = || entries.iter().filter(|entry| entry.device == device);
        Self {
            ids: mounts().map(|entry| entry.id).collect(),
            places: mounts().map(|entry| entry.place.clone()).collect(),
            device: format!("{:02x}:{:02x}", device.0, device.1),
        }
    }

    fn by(&self, pid: u32) -> bool {
        self.by_directory(pid) || self.by_file(pid) || self.by_mapping(pid)
    }

    fn by_directory(&self, pid: u32) -> bool {
        ["cwd", "root"].iter().filter_map(|link| fs::read_link(format!("/proc/{pid}/{link}")).ok()).any(
            |path| {
                let path = path.to_string_lossy();
                self.places.iter().any(|place| is_within(&path, place))
            },
        )
    }

    fn by_file(&self, pid: u32) -> bool {
        let listing = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        listing
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .any(|text| parse_mount_id(&text).is_some_and(|id| self.ids.contains(&id)))
    }

    fn by_mapping(&self, pid: u32) -> bool {
        let text = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().any(|line| maps_device(line) == Some(&self.device))
    }
}

/// `mnt_id` of an fdinfo file.
fn parse_mount_id(fdinfo: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// The device of a line of a maps file.
fn maps_device(line: &str) -> Option<&str> {
    line.split_ascii_whitespace().nth(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let names = |n: usize| (0..n).map(|i| format!("p{i}")).collect::<Vec<_>>();
        assert_eq!(describe(&[]), None);
        assert_eq!(describe(&names(2)).as_deref(), Some("p0, p1"));
        assert_eq!(describe(&names(10)).as_deref(), Some("p0, p1, p2, p3, p4, p5, p6, p7 and 2 more"));
    }

    #[test]
    fn files_of_proc() {
        assert_eq!(parse_mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t5\n"), Some(29));
        assert_eq!(parse_mount_id("pos:\t0\n"), None);
        let line = "7f0000000000-7f0000001000 rw-s 00000000 00:32 7      /run/shared/models/x";
        assert_eq!(maps_device(line), Some("00:32"));
    }

    #[test]
    fn a_process_that_has_a_file_open_is_found() {
        let mounts = parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap()).unwrap();
        let file = tempfile::tempfile().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let id = parse_mount_id(&info).unwrap();
        let entry = mounts.iter().find(|entry| entry.id == id).unwrap();
        assert!(Uses::new(entry.device, &mounts).by_file(std::process::id()));
        assert!(!Uses::new((0, u32::MAX), &mounts).by(std::process::id()));
    }
}
