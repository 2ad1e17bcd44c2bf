//! Names in a private directory, against a tree in memory: each call must say exactly what the tree says. A call that
//! was done twice, or not at all, shows as a result that is wrong for it or for a later one.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt, path::PathBuf};

use anyhow::Result;
use memcharge_tests::random::Random;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags},
    io::Errno,
};
use serde_json::{Value, json};

use crate::{
    calls::Calls,
    tree::{Kind, Path, Tree},
    worker::{Place, Work},
};

/// Few names, so that they meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const ATTRIBUTES: [&str; 3] = ["user.one", "user.two", "user.three"];

/// No path has more names.
const DEPTH: usize = 3;

/// Steps between two comparisons of everything.
const COMPARE: u64 = 100;

/// The directory, and what must be in it.
#[derive(Debug)]
pub(crate) struct Names {
    root: PathBuf,
    tree: Tree,
    /// Each file's text and each link's target is another one.
    next: u64,
    /// How many calls were to change something.
    changed: u64,
}

/// Names below the directory, and the whole path.
type Chosen = (Vec<&'static str>, PathBuf);

impl Names {
    /// An empty directory.
    pub(crate) fn new(place: &Place, calls: &mut Calls) -> Result<Self> {
        let root = place.dir.join(format!("tree-{}", place.index));
        calls.ok("mkdir", &root, || rustix::fs::mkdir(&root, Mode::from_raw_mode(0o755)))?;
        Ok(Self { root, tree: Tree::new(), next: 0, changed: 0 })
    }

    fn place(&self, path: &Path) -> PathBuf {
        path.iter().fold(self.root.clone(), |place, name| place.join(name))
    }

    /// A path: mostly of a name in a directory that there is.
    fn path(&self, random: &mut Random) -> Chosen {
        let mut path = Vec::new();
        if random.below(8) == 0 {
            path.extend((0..random.below(DEPTH as u64)).map(|_| pick(random, &NAMES)));
        } else {
            let dirs = self.tree.dirs();
            path = dirs[random.below(dirs.len() as u64) as usize].clone();
            path.truncate(DEPTH - 1);
        }
        path.push(pick(random, &NAMES));
        let place = self.place(&path);
        (path, place)
    }

    fn text(&mut self) -> String {
        self.next += 1;
        format!("text-{}", self.next)
    }

    fn create(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let (path, place) = self.path(random);
        let text = self.text();
        let expected = self.tree.make(&path, Kind::File(text.clone()));
        self.changed += u64::from(expected.is_ok());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let made = calls.exactly("open(O_CREAT | O_EXCL)", &place, expected, || {
            rustix::fs::openat(CWD, &place, flags, Mode::from_raw_mode(0o644))
        })?;
        let Some(file) = made else { return Ok(()) };
        let done = calls.ok("write", &place, || rustix::io::write(&file, text.as_bytes()))?;
        calls.same("count of write", &place, text.len(), done)?;
        self.look(calls, &path)
    }

    fn mkdir(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let (path, place) = self.path(random);
        if path.len() == DEPTH {
            // Nothing could be below it.
            return Ok(());
        }
        let expected = self.tree.make(&path, Kind::Dir(BTreeMap::new()));
        self.changed += u64::from(expected.is_ok());
        let mode = Mode::from_raw_mode(0o755);
        match calls.exactly("mkdir", &place, expected, || rustix::fs::mkdir(&place, mode))? {
            Some(()) => self.look(calls, &path),
            None => Ok(()),
        }
    }

    fn symlink(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let (path, place) = self.path(random);
        let text = self.text();
        let expected = self.tree.make(&path, Kind::Symlink(text.clone()));
        self.changed += u64::from(expected.is_ok());
        match calls.exactly("symlink", &place, expected, || rustix::fs::symlink(&text, &place))? {
            Some(()) => self.look(calls, &path),
            None => Ok(()),
        }
    }

    fn remove(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let (path, place) = self.path(random);
        let is_dir = self.tree.find(&path).is_ok_and(|key| matches!(self.tree.node(key).kind, Kind::Dir(_)));
        // Now and then the wrong call.
        let (call, expected, flags) = match is_dir == (random.below(8) != 0) {
            true => ("rmdir", self.tree.rmdir(&path), AtFlags::REMOVEDIR),
            false => ("unlink", self.tree.unlink(&path), AtFlags::empty()),
        };
        self.changed += u64::from(expected.is_ok());
        let _ = calls.exactly(call, &place, expected, || rustix::fs::unlinkat(CWD, &place, flags))?;
        Ok(())
    }

    fn link(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let ((from, from_place), (to, to_place)) = (self.path(random), self.path(random));
        let expected = self.tree.link(&from, &to);
        self.changed += u64::from(expected.is_ok());
        let linked = calls.exactly("link", &both(&from_place, &to_place), expected, || {
            rustix::fs::linkat(CWD, &from_place, CWD, &to_place, AtFlags::empty())
        })?;
        match linked {
            Some(()) => self.look(calls, &to),
            None => Ok(()),
        }
    }

    fn rename(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let ((from, from_place), (to, to_place)) = (self.path(random), self.path(random));
        let (call, flags) = match random.below(4) {
            0 => ("rename(RENAME_NOREPLACE)", RenameFlags::NOREPLACE),
            1 => ("rename(RENAME_EXCHANGE)", RenameFlags::EXCHANGE),
            _ => ("rename", RenameFlags::empty()),
        };
        let expected = self.tree.rename(&from, &to, flags);
        self.changed += u64::from(expected.is_ok());
        let renamed = calls.exactly(call, &both(&from_place, &to_place), expected, || {
            rustix::fs::renameat_with(CWD, &from_place, CWD, &to_place, flags)
        })?;
        match renamed {
            Some(()) => self.look(calls, &to),
            None => Ok(()),
        }
    }

    /// Extended attributes of files and directories; a symbolic link has none.
    fn attribute(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        let (path, place) = self.path(random);
        let name = pick(random, &ATTRIBUTES);
        let mut value = vec![0; random.below(200) as usize];
        random.fill(&mut value);
        let found = self.tree.node_mut(&path);
        if found.as_ref().is_ok_and(|node| matches!(node.kind, Kind::Symlink(_))) {
            return Ok(());
        }
        let attributes = found.map(|node| &mut node.attributes);
        let there = attributes.as_ref().map(|all| all.contains_key(name)).map_err(|e| *e);
        let (call, flags) = match random.below(4) {
            0 => {
                let expected = there.and_then(|there| if there { Ok(()) } else { Err(Errno::NODATA) });
                let _ = attributes.map(|all| all.remove(name));
                let _ = calls
                    .exactly("removexattr", &place, expected, || rustix::fs::removexattr(&place, name))?;
                return Ok(());
            }
            1 => ("setxattr(XATTR_CREATE)", XattrFlags::CREATE),
            2 => ("setxattr(XATTR_REPLACE)", XattrFlags::REPLACE),
            _ => ("setxattr", XattrFlags::empty()),
        };
        let expected = match there {
            Err(e) => Err(e),
            Ok(true) if flags == XattrFlags::CREATE => Err(Errno::EXIST),
            Ok(false) if flags == XattrFlags::REPLACE => Err(Errno::NODATA),
            Ok(_) => Ok(()),
        };
        if let (Ok(all), Ok(())) = (attributes, expected) {
            let _ = all.insert(name, value.clone());
        }
        let _ =
            calls.exactly(call, &place, expected, || rustix::fs::setxattr(&place, name, &value, flags))?;
        self.look(calls, &path)
    }

    /// Looks at one path: what it is, how many names it has, whether it is still the same inode, and all that is in it.
    fn look(&mut self, calls: &mut Calls, path: &Path) -> Result<()> {
        let place = self.place(path);
        let expected = self.tree.find(path);
        let stat = calls.exactly("lstat", &place, expected.map(drop), || rustix::fs::lstat(&place))?;
        let (Some(stat), Ok(key)) = (stat, expected) else { return Ok(()) };
        let ino = stat.st_ino;
        if let Ok(node) = self.tree.node_mut(path) {
            calls.same("inode number", &place, *node.ino.get_or_insert(ino), ino)?;
        }
        let node = self.tree.node(key);
        match &node.kind {
            Kind::File(text) => {
                same_kind(calls, &place, &stat, FileType::RegularFile, node.links)?;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    calls.ok("open", &place, || rustix::fs::openat(CWD, &place, flags, Mode::empty()))?;
                let mut found = [0; 64];
                let done = calls.ok("read", &place, || rustix::io::read(&file, &mut found[..]))?;
                calls.same_bytes("read", &place, 0, text.as_bytes(), &found[..done])?;
            }
            Kind::Symlink(text) => {
                same_kind(calls, &place, &stat, FileType::Symlink, node.links)?;
                let found = calls.ok("readlink", &place, || rustix::fs::readlink(&place, Vec::new()))?;
                calls.same("readlink", &place, text.as_bytes(), found.as_bytes())?;
                return Ok(());
            }
            Kind::Dir(_) => self.list(calls, path)?,
        }
        for name in ATTRIBUTES {
            let expected = node.attributes.get(name);
            let mut found = [0; 256];
            let result = expected.map(drop).ok_or(Errno::NODATA);
            let length = calls
                .exactly("getxattr", &place, result, || rustix::fs::getxattr(&place, name, &mut found[..]))?;
            if let (Some(length), Some(value)) = (length, expected) {
                calls.same_bytes("getxattr", &place, 0, value, &found[..length])?;
            }
        }
        Ok(())
    }

    /// The directory at `path` has these names, each once, and each of its type.
    fn list(&self, calls: &mut Calls, path: &Path) -> Result<()> {
        let place = self.place(path);
        let Ok(key) = self.tree.find(path) else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = calls.ok("opendir", &place, || rustix::fs::openat(CWD, &place, flags, Mode::empty()))?;
        let found = calls.ok("readdir", &place, || {
            let mut found = Vec::new();
            for entry in Dir::new(dir)? {
                let entry = entry?;
                let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
                if name != "." && name != ".." {
                    found.push((name, entry.file_type()));
                }
            }
            found.sort_by(|one, other| one.0.cmp(&other.0));
            Ok(found)
        })?;
        let kind = |key| match self.tree.node(key).kind {
            Kind::File(_) => FileType::RegularFile,
            Kind::Dir(_) => FileType::Directory,
            Kind::Symlink(_) => FileType::Symlink,
        };
        let names = self.tree.names(key);
        let expected: Vec<_> = names.iter().map(|(name, key)| ((*name).to_owned(), kind(*key))).collect();
        calls.same("readdir", &place, expected, found)
    }

    fn compare(&mut self, calls: &mut Calls) -> Result<()> {
        for dir in self.tree.dirs() {
            self.list(calls, &dir)?;
            // Also names that are not there.
            for name in NAMES {
                self.look(calls, &[&dir[..], &[name]].concat())?;
            }
        }
        Ok(())
    }
}

fn same_kind(calls: &Calls, place: &std::path::Path, stat: &Stat, kind: FileType, links: u64) -> Result<()> {
    calls.same("type", place, kind, FileType::from_raw_mode(stat.st_mode))?;
    calls.same("number of names", place, links, stat.st_nlink)
}

/// Two paths for a message.
fn both(from: &std::path::Path, to: &std::path::Path) -> PathBuf {
    let mut text = from.as_os_str().to_owned();
    text.push(" to ");
    text.push(std::ffi::OsStr::from_bytes(to.as_os_str().as_bytes()));
    text.into()
}

fn pick(random: &mut Random, from: &[&'static str]) -> &'static str {
    from[random.below(from.len() as u64) as usize]
}

impl Work for Names {
    fn step(&mut self, calls: &mut Calls, random: &mut Random) -> Result<()> {
        match random.below(24) {
            // As much is removed as is made: in a full tree nearly every call would be refused.
            0..4 => self.create(calls, random)?,
            4..5 => self.mkdir(calls, random)?,
            5..6 => self.symlink(calls, random)?,
            6..15 => self.remove(calls, random)?,
            15..16 => self.link(calls, random)?,
            16..20 => self.rename(calls, random)?,
            20..23 => self.attribute(calls, random)?,
            _ => {
                let (path, _) = self.path(random);
                self.look(calls, &path)?;
            }
        }
        if calls.step().is_multiple_of(COMPARE) {
            self.compare(calls)?;
        }
        Ok(())
    }

    fn end(&mut self, calls: &mut Calls) -> Result<Value> {
        self.compare(calls)?;
        Ok(json!({ "changed": self.changed }))
    }
}
