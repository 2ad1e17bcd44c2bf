//! The processes of a cgroup and of all cgroups below it, and the memory of their own that they are charged for.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use memcharge_policy::Bytes;
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{Cgroup, CgroupError, Hierarchy, cgroup::malformed, parse};

/// Cgroups that are walked, at most.
const MAX_CGROUPS: usize = 4096;

/// Processes that are listed, at most.
const MAX_PROCESSES: usize = 16384;

/// The longest `cgroup.procs` that is read, in bytes: a process id has at most seven digits, and a newline.
const MAX_LIST: u64 = 8 * MAX_PROCESSES as u64;

/// A process and where it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub pid: u32,
    /// The cgroup that lists it, as a path below the cgroup root. What is no UTF-8 in it is replaced, so it is to be
    /// shown or compared.
    pub cgroup: Arc<str>,
}

impl Cgroup {
    /// All processes of this cgroup and of those below it. Left out is what ends or is removed meanwhile, and who
    /// lives in a process namespace that cannot be seen. More than 4096 cgroups or 16384 processes are an error: a
    /// part of them would be an arbitrary choice.
    pub fn processes(&self) -> Result<Vec<Member>, CgroupError> {
        let mut walk = Walk { top: self, found: Vec::new() };
        // Only one directory is open at a time, however deep they are.
        let mut waiting = vec![PathBuf::from(".")];
        let mut seen = 0;
        while let Some(name) = waiting.pop() {
            match walk.visit(&name) {
                Ok(children) => waiting.extend(children),
                // Cgroups below are removed at any time.
                Err(CgroupError::Dying { .. }) if seen > 0 => {}
                // A path that is too long for the kernel must not hide the others.
                Err(CgroupError::Io { source, .. })
                    if seen > 0 && source.kind() == io::ErrorKind::InvalidFilename => {}
                Err(error) => return Err(error),
            }
            seen += 1;
            walk.check(seen + waiting.len(), MAX_CGROUPS, "cgroups")?;
        }
        Ok(walk.found)
    }

    /// The anonymous memory that this cgroup and those below it are charged for, as `memory.stat` says. The kernel
    /// may hold back up to 64 pages for each CPU.
    pub fn charged_anon(&self) -> Result<Bytes, CgroupError> {
        let anon = |stat: &str| parse::parse_flat_key(stat, "anon").map(Bytes);
        self.read_as("memory.stat", "a list with `anon`", anon)
    }
}

impl Hierarchy {
    /// [`Cgroup::charged_anon`] of the cgroup at `path` or, where it has no memory controller, of its nearest
    /// ancestor that has: that is where its processes are charged. `None`: nobody has.
    pub fn charged_anon(&self, path: &str) -> Result<Option<Bytes>, CgroupError> {
        let mut path = path.trim_end_matches('/');
        while !path.is_empty() {
            match self.open(path)?.charged_anon() {
                Err(CgroupError::NoMemoryController { .. }) => {}
                anon => return anon.map(Some),
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        Ok(None)
    }
}

/// A walk through the cgroups below `top`, all of them opened below its directory.
struct Walk<'a> {
    top: &'a Cgroup,
    found: Vec<Member>,
}

impl Walk<'_> {
    /// Takes the processes of one cgroup down and returns its children.
    fn visit(&mut self, name: &Path) -> Result<Vec<PathBuf>, CgroupError> {
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat2(self.top, name, directory, Mode::empty(), flags)
            .map_err(|e| self.error(name, e.into()))?;
        self.list(name, &dir)?;
        self.children(name, &dir).map_err(|e| self.error(name, e.into()))
    }

    fn list(&mut self, name: &Path, dir: &OwnedFd) -> Result<(), CgroupError> {
        let mut text = String::new();
        let read = rustix::fs::openat(dir, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).take(MAX_LIST + 1).read_to_string(&mut text));
        match read {
            // The processes of a threaded cgroup are listed by the nearest one above that is not.
            Err(e) if e.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => return Ok(()),
            Err(e) => return Err(self.error(name, e)),
            Ok(length) => self.check(length, MAX_LIST as usize, "bytes of processes in one cgroup")?,
        }
        let cgroup: Arc<str> = self.path(name).into();
        for line in text.lines() {
            let pid = line.parse();
            let pid = pid.map_err(|_| malformed(&format!("{cgroup}/cgroup.procs"), line, "a process id"))?;
            // 0 is a process of a namespace that cannot be seen.
            if pid > 0 {
                self.found.push(Member { pid, cgroup: Arc::clone(&cgroup) });
            }
        }
        self.check(self.found.len(), MAX_PROCESSES, "processes")
    }

    fn children(&self, name: &Path, dir: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
        let mut children = Vec::new();
        for entry in Dir::read_from(dir.as_fd())? {
            let entry = entry?;
            let child = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && child != b"." && child != b".." {
                children.push(name.join(OsStr::from_bytes(child)));
            }
            // The walk ends with an error after this; the rest need not be read.
            if children.len() > MAX_CGROUPS {
                break;
            }
        }
        Ok(children)
    }

    fn check(&self, count: usize, limit: usize, what: &str) -> Result<(), CgroupError> {
        if count <= limit {
            return Ok(());
        }
        let source = io::Error::other(format!("there are more than {limit} {what}"));
        Err(CgroupError::Io { action: "list the processes of", path: self.top.path().to_owned(), source })
    }

    fn error(&self, name: &Path, source: io::Error) -> CgroupError {
        let path = self.path(name);
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NODEV) => CgroupError::Dying { path },
            _ => CgroupError::Io { action: "list the processes of", path, source },
        }
    }

    fn path(&self, name: &Path) -> String {
        let top = self.top.path().trim_end_matches('/');
        // `components` leaves out the leading ".".
        let below = name.components().skip(1).map(|part| format!("/{}", part.as_os_str().to_string_lossy()));
        let path: String = std::iter::once(top.to_owned()).chain(below).collect();
        if path.is_empty() { "/".to_owned() } else { path }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn make(root: &Path, path: &str, procs: &str) {
        fs::create_dir_all(root.join(path)).unwrap();
        fs::write(root.join(path).join("cgroup.procs"), procs).unwrap();
    }

    #[test]
    fn the_whole_subtree_is_listed_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "a", "1\n0\n");
        make(dir.path(), "a/b", "");
        make(dir.path(), "a/b/c", "22\n333\n");
        make(dir.path(), "z", "4\n");
        std::os::unix::fs::symlink("../z", dir.path().join("a/link")).unwrap();
        // Removed since its parent was read.
        fs::create_dir(dir.path().join("a/gone")).unwrap();
        let list = |path: &str| {
            let cgroup = Hierarchy::stand_in(dir.path()).open(path).unwrap();
            let mut found = cgroup.processes().unwrap();
            found.sort_by_key(|member| member.pid);
            found.into_iter().map(|member| (member.pid, member.cgroup.to_string())).collect::<Vec<_>>()
        };
        let at = |pid, path: &str| (pid, path.to_owned());
        assert_eq!(list("/a"), [at(1, "/a"), at(22, "/a/b/c"), at(333, "/a/b/c")]);
        assert_eq!(list("/z"), [at(4, "/z")]);
        fs::write(dir.path().join("cgroup.procs"), "7\n").unwrap();
        assert_eq!(list("/")[1..3], [at(4, "/z"), at(7, "/")]);
    }

    #[test]
    fn a_list_without_bound_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let processes = || Hierarchy::stand_in(dir.path()).open("/a").unwrap().processes();
        let pids = |count: usize| (1..=count).map(|pid| format!("{pid}\n")).collect::<String>();
        make(dir.path(), "a", &pids(MAX_PROCESSES));
        assert_eq!(processes().unwrap().len(), MAX_PROCESSES);
        make(dir.path(), "a", &pids(MAX_PROCESSES + 1));
        assert!(processes().unwrap_err().to_string().contains("more than 16384 processes"));
        make(dir.path(), "a", "x\n");
        assert!(matches!(processes(), Err(CgroupError::Malformed { .. })));
        make(dir.path(), "a", "");
        (0..MAX_CGROUPS).for_each(|i| fs::create_dir(dir.path().join(format!("a/{i}"))).unwrap());
        assert!(processes().unwrap_err().to_string().contains("more than 4096 cgroups"));
    }

    #[test]
    fn a_cgroup_that_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "a", "");
        let a = Hierarchy::stand_in(dir.path()).open("/a").unwrap();
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert!(matches!(a.processes(), Err(CgroupError::Dying { .. })));
    }

    #[test]
    fn without_the_controller_the_nearest_ancestor_is_charged() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "a/b/c", "");
        let hierarchy = Hierarchy::stand_in(dir.path());
        assert_eq!(hierarchy.charged_anon("/a/b/c").unwrap(), None);
        fs::write(dir.path().join("a/memory.stat"), "anon 8192\nfile 1\n").unwrap();
        assert_eq!(hierarchy.charged_anon("/a/b/c").unwrap(), Some(Bytes(8192)));
        fs::write(dir.path().join("a/b/memory.stat"), "file 1\n").unwrap();
        assert!(matches!(hierarchy.charged_anon("/a/b/c"), Err(CgroupError::Malformed { .. })));
    }
}
