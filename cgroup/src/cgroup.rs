//! A cgroup held by file descriptor.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{CgroupError, parse};

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// A tree of cgroups, by its root directory.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    root: PathBuf,
    is_cgroupfs: bool,
}

impl Hierarchy {
    /// Where cgroup v2 is mounted.
    pub const ROOT: &str = "/sys/fs/cgroup";

    /// The system's own tree.
    pub fn system() -> Self {
        Self { root: PathBuf::from(Self::ROOT), is_cgroupfs: true }
    }

    /// A plain directory that stands for a tree, for tests.
    pub fn stand_in(root: &Path) -> Self {
        Self { root: root.to_owned(), is_cgroupfs: false }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens the cgroup at `path` (absolute, below the root). Symlinks are not followed.
    pub fn open(&self, path: &str) -> Result<Cgroup, CgroupError> {
        let root = open_dir(rustix::fs::CWD, &self.root.to_string_lossy(), ResolveFlags::empty())
            .map_err(|e| io_error("open", &self.root.to_string_lossy(), e))?;
        let relative = match path.trim_start_matches('/') {
            "" => ".",
            relative => relative,
        };
        let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let dir = open_dir(root.as_fd(), relative, confined).map_err(|e| match e {
            Errno::NOENT => CgroupError::NoSuchCgroup { path: path.to_owned() },
            Errno::NOTDIR | Errno::LOOP | Errno::XDEV => CgroupError::NotACgroup { path: path.to_owned() },
            Errno::NODEV => CgroupError::Dying { path: path.to_owned() },
            e => io_error("open", path, e),
        })?;
        let kind = rustix::fs::fstatfs(&dir).map_err(|e| io_error("inspect", path, e))?;
        if self.is_cgroupfs && i128::from(kind.f_type) != i128::from(CGROUP2_MAGIC) {
            return Err(CgroupError::NotACgroup { path: path.to_owned() });
        }
        let id = rustix::fs::fstat(&dir).map_err(|e| io_error("inspect", path, e))?.st_ino;
        Ok(Cgroup { dir, path: path.to_owned(), id })
    }

    /// Opens the cgroup of process `pid` (`None`: the calling process).
    pub fn open_of(&self, pid: Option<u32>) -> Result<Cgroup, CgroupError> {
        let file = pid.map_or_else(|| "/proc/self/cgroup".to_owned(), |pid| format!("/proc/{pid}/cgroup"));
        let text = std::fs::read_to_string(&file).map_err(|source| CgroupError::Io {
            action: "read",
            path: file.clone(),
            source,
        })?;
        let path =
            parse::parse_own_path(&text).ok_or_else(|| malformed(&file, &text, "a cgroup v2 membership"))?;
        self.open(path)
    }
}

/// One cgroup. Every operation goes through its directory's file descriptor.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    path: String,
    id: u64,
}

impl Cgroup {
    /// The path below the cgroup root, as it was opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The cgroup's id: the inode number of its directory. A cgroup that is made anew under the same path has another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the memory controller is enabled for this cgroup.
    pub fn has_memory(&self) -> Result<bool, CgroupError> {
        self.read("cgroup.controllers").map(|text| parse::has_controller(&text, "memory"))
    }

    /// Whether any process lives in this cgroup or below it.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        let text = self.read("cgroup.events")?;
        match parse::parse_flat_key(&text, "populated") {
            Some(number) => Ok(number != 0),
            None => Err(malformed(&self.file("cgroup.events"), &text, "a list with `populated`")),
        }
    }

    /// The processes in this cgroup itself.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        let text = self.read("cgroup.procs")?;
        text.lines()
            .map(|line| line.parse().map_err(|_| malformed(&self.file("cgroup.procs"), line, "a process id")))
            .collect()
    }

    /// Makes a child cgroup and opens it. `false`: it was there before.
    pub fn make_child(&self, name: &str) -> Result<(Cgroup, bool), CgroupError> {
        let made = match rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(self.error("make a cgroup in", "", e)),
        };
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        let dir = open_dir(self.dir.as_fd(), name, flags).map_err(|e| io_error("open", &path, e))?;
        let id = rustix::fs::fstat(&dir).map_err(|e| io_error("inspect", &path, e))?.st_ino;
        Ok((Cgroup { dir, path, id }, made))
    }

    /// Has nothing of this cgroup swapped. Without the memory controller, or without swap, there is nothing to say.
    pub fn forbid_swap(&self) -> Result<(), CgroupError> {
        const FILE: &str = "memory.swap.max";
        match self.open_file(FILE, OFlags::WRONLY) {
            Ok(mut file) => file.write_all(b"0").map_err(|source| self.io("write", FILE, source)),
            Err(CgroupError::NoMemoryController { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes a child cgroup that has no processes. Removing one that is not there is no error.
    pub fn remove_child(&self, name: &str) -> Result<(), CgroupError> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error("remove a cgroup in", "", e)),
        }
    }

    /// The content of one of the cgroup's files.
    pub fn read(&self, file: &str) -> Result<String, CgroupError> {
        let mut text = String::new();
        self.open_file(file, OFlags::RDONLY)?
            .read_to_string(&mut text)
            .map_err(|source| self.io("read", file, source))?;
        Ok(text)
    }

    /// Opens one of the cgroup's files.
    pub fn open_file(&self, file: &str, flags: OFlags) -> Result<File, CgroupError> {
        match rustix::fs::openat(&self.dir, file, flags | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(e) => Err(self.error("open", file, e)),
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn error(&self, action: &'static str, file: &str, e: Errno) -> CgroupError {
        match e {
            // The directory is held, so a file that is not there means that the cgroup is gone or lacks a controller.
            Errno::NODEV => CgroupError::Dying { path: self.path.clone() },
            Errno::NOENT if file.starts_with("cgroup.") => CgroupError::Dying { path: self.path.clone() },
            Errno::NOENT if file.starts_with("memory.") => {
                CgroupError::NoMemoryController { path: self.path.clone() }
            }
            Errno::NOENT => CgroupError::Dying { path: self.path.clone() },
            e => io_error(action, &self.file(file), e),
        }
    }

    fn io(&self, action: &'static str, file: &str, source: io::Error) -> CgroupError {
        if source.raw_os_error() == Some(Errno::NODEV.raw_os_error()) {
            return CgroupError::Dying { path: self.path.clone() };
        }
        CgroupError::Io { action, path: self.file(file), source }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn open_dir(at: BorrowedFd<'_>, path: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
}

fn io_error(action: &'static str, path: &str, e: Errno) -> CgroupError {
    CgroupError::Io { action, path: path.to_owned(), source: e.into() }
}

/// A [`CgroupError::Malformed`] that quotes the start of what was found.
pub(crate) fn malformed(path: &str, found: &str, expected: &'static str) -> CgroupError {
    CgroupError::Malformed { path: path.to_owned(), found: found.chars().take(40).collect(), expected }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree() -> (tempfile::TempDir, Hierarchy) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(dir.path().join("a/cgroup.subtree_control"), "\n").unwrap();
        fs::write(dir.path().join("a/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        fs::write(dir.path().join("a/cgroup.procs"), "1\n22\n").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let hierarchy = Hierarchy::stand_in(dir.path());
        (dir, hierarchy)
    }

    #[test]
    fn a_cgroup_is_read_through_its_directory() {
        let (dir, hierarchy) = tree();
        let a = hierarchy.open("/a").unwrap();
        assert!(a.has_memory().unwrap());
        assert!(a.is_populated().unwrap());
        assert_eq!(a.procs().unwrap(), [1, 22]);
        fs::rename(dir.path().join("a"), dir.path().join("z")).unwrap();
        assert!(a.has_memory().unwrap(), "R2: a rename does not swap what is held");
    }

    #[test]
    fn r1_each_wrong_target_has_its_own_error() {
        let (_dir, hierarchy) = tree();
        let error = |path: &str| hierarchy.open(path).unwrap_err();
        assert!(matches!(error("/none"), CgroupError::NoSuchCgroup { .. }));
        assert!(matches!(error("/a/cgroup.procs"), CgroupError::NotACgroup { .. }));
        assert!(matches!(error("/link"), CgroupError::NotACgroup { .. }), "R2: symlinks are not followed");
        assert!(matches!(
            Hierarchy { is_cgroupfs: true, ..hierarchy.clone() }.open("/a"),
            Err(CgroupError::NotACgroup { .. })
        ));
        assert!(matches!(
            hierarchy.open("/a").unwrap().read("memory.max"),
            Err(CgroupError::NoMemoryController { .. })
        ));
    }

    #[test]
    fn children_come_and_go() {
        let (dir, hierarchy) = tree();
        let a = hierarchy.open("/a").unwrap();
        let (child, made) = a.make_child("leaf").unwrap();
        assert!(made);
        assert_eq!(child.path(), "/a/leaf");
        assert!(!a.make_child("leaf").unwrap().1);
        a.remove_child("leaf").unwrap();
        a.remove_child("leaf").unwrap();
        assert!(!dir.path().join("a/leaf").exists());
    }
}
