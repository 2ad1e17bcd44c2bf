//! The mount point: resolved once, held by descriptor, made where it is missing.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use memcharge_policy::{
    is_unsafe_mount_point,
    mountinfo::{MountEntry, own_above},
};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
};

use crate::error::{DaemonError, Result};

/// As many symlinks as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Permissions of directories that are made.
const DIRECTORY_MODE: u32 = 0o755;

/// Where a mount shall be, symlinks resolved.
#[derive(Debug)]
pub(crate) struct Point {
    /// The whole path.
    pub(crate) path: String,
    /// The deepest directory that is there.
    base: OwnedFd,
    /// What is missing below it.
    missing: Vec<String>,
}

/// A mount point that is there.
#[derive(Debug)]
pub(crate) struct MadePoint {
    directory: OwnedFd,
    /// What was made for it.
    pub(crate) made: MadeDirs,
}

/// Directories that were made, outermost first: where, and under which name. They are removed again when this is
/// dropped (also by a thread that nobody waits for any more), unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct MadeDirs(Vec<(OwnedFd, String)>);

impl Point {
    /// Walks to `place`, component by component. A mount of memcharge in the way is refused before it is touched: a
    /// store that does not answer would hold up the daemon.
    pub(crate) fn resolve(place: &str, mounts: &[MountEntry]) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(DaemonError::io("open", "/"))?;
        let mut walk = Walk { root, stack: Vec::new(), links: 0 };
        let mut todo: VecDeque<String> = place.split('/').map(str::to_owned).collect();
        while let Some(part) = todo.pop_front() {
            match part.as_str() {
                "" | "." => {}
                ".." => drop(walk.stack.pop()),
                _ => match walk.enter(&part, mounts)? {
                    Step::Entered => {}
                    Step::Link(target) => walk.follow(&target, &mut todo)?,
                    Step::Missing => return walk.end(std::iter::once(part).chain(todo)),
                },
            }
        }
        walk.end(std::iter::empty())
    }

    /// Refuses a place where a mount would do harm, or that is in use.
    pub(crate) fn check(&self) -> Result<()> {
        if is_unsafe_mount_point(Path::new(&self.path)) {
            return Err(DaemonError::UnsafeMountPoint { path: self.path.clone() });
        }
        if !self.missing.is_empty() {
            return Ok(());
        }
        let stat = rustix::fs::statx(&self.base, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
            .map_err(DaemonError::io("inspect", &self.path))?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(
                self.busy("is a mount point already; unmount what is there, or give another directory")
            );
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = rustix::fs::openat(&self.base, ".", flags, Mode::empty())
            .and_then(Dir::new)
            .map_err(DaemonError::io("list", &self.path))?;
        for entry in listing {
            let entry = entry.map_err(DaemonError::io("list", &self.path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(
                    self.busy("is not empty; a mount would hide what is in it; give an empty directory")
                );
            }
        }
        Ok(())
    }

    /// Refuses a place that is not in a directory of this user: a mount there would hide what is somebody else's.
    pub(crate) fn check_owner(&self, uid: u32) -> Result<()> {
        let stat = rustix::fs::fstat(&self.base).map_err(DaemonError::io("inspect", &self.path))?;
        if stat.st_uid == uid {
            return Ok(());
        }
        let shown = &self.path;
        Err(DaemonError::NotPermitted(format!(
            "{shown} is not in a directory of uid {uid}; give a directory of your own, or one to be made in it"
        )))
    }

    /// The paths of the directories that are still to be made, outermost first.
    pub(crate) fn missing_paths(&self) -> Vec<String> {
        let ends = self.path.match_indices('/').map(|(at, _)| at).chain([self.path.len()]);
        let paths: Vec<_> = ends.skip(1).map(|end| self.path[..end].to_owned()).collect();
        paths[paths.len() - self.missing.len().min(paths.len())..].to_vec()
    }

    /// Makes what is missing.
    pub(crate) fn make(self) -> Result<MadePoint> {
        let mut made = MadeDirs::default();
        let mut directory = self.base;
        for (at, name) in self.missing.iter().enumerate() {
            let parent = match make_directory(directory.as_fd(), name) {
                Ok(next) => std::mem::replace(&mut directory, next),
                // Another mount below it is being made at the same time. The mount point itself is nobody else's.
                Err(Errno::EXIST) if at + 1 < self.missing.len() => {
                    directory = open_directory(directory.as_fd(), name)
                        .map_err(DaemonError::io("open a directory above", &self.path))?;
                    continue;
                }
                Err(error) => return Err(DaemonError::io("make the directory", &self.path)(error)),
            };
            made.0.push((parent, name.clone()));
        }
        Ok(MadePoint { directory, made })
    }

    fn busy(&self, why: &str) -> DaemonError {
        DaemonError::MountPointBusy { path: self.path.clone(), why: why.to_owned() }
    }
}

impl AsFd for MadePoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl MadeDirs {
    /// Leaves the directories where they are.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for MadeDirs {
    /// Removes the directories, innermost first, as far as they are empty and still there.
    fn drop(&mut self) {
        while let Some((parent, name)) = self.0.pop() {
            match rustix::fs::unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => tracing::warn!("cannot remove the directory {name}, made for a mount: {error}"),
            }
        }
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(DIRECTORY_MODE))?;
    open_directory(parent, name)
}

fn open_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// What the next component is.
enum Step {
    Entered,
    Link(String),
    Missing,
}

/// The directories from the root to where the walk is.
struct Walk {
    root: OwnedFd,
    stack: Vec<(String, OwnedFd)>,
    links: usize,
}

impl Walk {
    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn path<'a>(&'a self, more: impl IntoIterator<Item = &'a str>) -> String {
        let parts = self.stack.iter().map(|(name, _)| name.as_str()).chain(more);
        parts.map(|part| format!("/{part}")).collect()
    }

    fn enter(&mut self, part: &str, mounts: &[MountEntry]) -> Result<Step> {
        let path = self.path([part]);
        if let Some(own) = own_above(mounts, &path) {
            let why = format!("is in the mount of memcharge on {}; give a directory outside", own.place);
            return Err(DaemonError::MountPointBusy { path, why });
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self.here(), part, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Step::Missing),
            Err(error) => return Err(DaemonError::io("open", path)(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(DaemonError::io("inspect", &path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.stack.push((part.to_owned(), fd));
                Ok(Step::Entered)
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(DaemonError::io("follow", &path))?;
                let target = target.into_string();
                target.map(Step::Link).map_err(|_| {
                    DaemonError::InvalidOption(format!("where: {path} leads to a path that is not UTF-8"))
                })
            }
            _ => Err(DaemonError::InvalidOption(format!("where: {path} is not a directory"))),
        }
    }

    fn follow(&mut self, target: &str, todo: &mut VecDeque<String>) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            let here = self.path([]);
            return Err(DaemonError::InvalidOption(format!("where: too many symlinks below {here}")));
        }
        if target.starts_with('/') {
            self.stack.clear();
        }
        for part in target.split('/').rev() {
            todo.push_front(part.to_owned());
        }
        Ok(())
    }

    fn end(mut self, missing: impl Iterator<Item = String>) -> Result<Point> {
        let missing: Vec<String> = missing.filter(|part| !matches!(part.as_str(), "" | ".")).collect();
        let path = self.path(missing.iter().map(String::as_str));
        if missing.iter().any(|part| part == "..") {
            return Err(DaemonError::InvalidOption(format!(
                "where: {path} has `..` behind a missing directory"
            )));
        }
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let base = self.stack.pop().map_or(self.root, |(_, fd)| fd);
        Ok(Point { path, base, missing })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use memcharge_policy::mountinfo::parse_mountinfo;

    fn tree() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("full")).unwrap();
        fs::write(root.join("full/file"), "").unwrap();
        symlink("a", root.join("link")).unwrap();
        symlink(root.join("link/b"), root.join("far")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("../full/../a", root.join("a/up")).unwrap();
        (dir, root.display().to_string())
    }

    #[test]
    fn symlinks_are_resolved_and_what_is_missing_is_known() {
        let (_dir, root) = tree();
        for (place, path, missing) in [
            ("a/b", "a/b", 0),
            ("link/b/", "a/b", 0),
            ("far", "a/b", 0),
            ("far/./c//d", "a/b/c/d", 2),
            ("a/up/new", "a/new", 1),
        ] {
            let point = Point::resolve(&format!("{root}/{place}"), &[]).unwrap();
            assert_eq!(point.path, format!("{root}/{path}"), "{place}");
            assert_eq!(point.missing.len(), missing, "{place}");
        }
        let point = Point::resolve(&format!("{root}/far/c/d"), &[]).unwrap();
        assert_eq!(point.missing_paths(), [format!("{root}/a/b/c"), format!("{root}/a/b/c/d")]);
        assert!(Point::resolve("/", &[]).unwrap().missing_paths().is_empty());
    }

    #[test]
    fn wrong_places_are_refused() {
        let (_dir, root) = tree();
        let error = |place: &str| {
            let point = Point::resolve(&format!("{root}/{place}"), &[]);
            point.and_then(|point| point.check()).unwrap_err()
        };
        assert!(matches!(error("full/file"), DaemonError::InvalidOption(_)));
        assert!(matches!(error("loop"), DaemonError::InvalidOption(_)));
        assert!(matches!(error("none/../x"), DaemonError::InvalidOption(_)));
        assert!(matches!(error("full"), DaemonError::MountPointBusy { .. }));
        let unsafe_link = format!("{root}/etc-link");
        symlink("/etc", &unsafe_link).unwrap();
        let point = Point::resolve(&unsafe_link, &[]).unwrap();
        assert!(matches!(point.check(), Err(DaemonError::UnsafeMountPoint { .. })), "R2: after resolution");
        assert!(matches!(
            Point::resolve("/proc", &[]).unwrap().check(),
            Err(DaemonError::UnsafeMountPoint { .. })
        ));
    }

    #[test]
    fn a_mount_of_memcharge_is_not_walked_into() {
        let (_dir, root) = tree();
        let mounts = parse_mountinfo(&format!("9 1 0:5 / {root}/a rw - fuse.memcharge x.slice rw")).unwrap();
        for place in ["a", "a/b/c", "far"] {
            let point = Point::resolve(&format!("{root}/{place}"), &mounts);
            assert!(matches!(point, Err(DaemonError::MountPointBusy { .. })), "{place}");
        }
    }

    #[test]
    fn r3_only_what_was_made_is_removed() {
        let (_dir, root) = tree();
        let point = Point::resolve(&format!("{root}/a/x/y"), &[]).unwrap();
        point.check().unwrap();
        let point = point.make().unwrap();
        assert!(Path::new(&root).join("a/x/y").is_dir());
        drop(point);
        assert!(!Path::new(&root).join("a/x").exists() && Path::new(&root).join("a").exists());

        let [one, other] =
            ["x/y", "x/z"].map(|place| Point::resolve(&format!("{root}/a/{place}"), &[]).unwrap());
        let (one, other) = (one.make().unwrap(), other.make().unwrap());
        drop(one);
        assert!(Path::new(&root).join("a/x/z").exists(), "made at the same time");
        drop(other);
        fs::remove_dir(format!("{root}/a/x")).unwrap();

        let point = Point::resolve(&format!("{root}/a/x/y"), &[]).unwrap().make().unwrap();
        fs::write(format!("{root}/a/x/other"), "").unwrap();
        drop(point);
        assert!(Path::new(&root).join("a/x/other").exists());
    }
}
