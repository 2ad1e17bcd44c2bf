//! A directory tree in memory, which knows what each call on names must say: success, or which error, as Linux decides.

use std::collections::BTreeMap;

use rustix::{fs::RenameFlags, io::Errno};

type Result<T> = std::result::Result<T, Errno>;

/// Names from the tree's root on.
pub(crate) type Path = [&'static str];

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file that holds this text.
    File(String),
    /// A directory with these names.
    Dir(BTreeMap<&'static str, u64>),
    /// A symbolic link to this text, where nothing is.
    Symlink(String),
}

/// An inode.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: Kind,
    /// How many names it has.
    pub(crate) links: u64,
    /// Its extended attributes.
    pub(crate) attributes: BTreeMap<&'static str, Vec<u8>>,
    /// Its number in the file system, once that is known.
    pub(crate) ino: Option<u64>,
}

impl Node {
    fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Dir(names) if names.is_empty())
    }
}

/// The tree. Each method that changes it returns what the call must return, and is the change if that is success.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

/// The root's key.
pub(crate) const ROOT: u64 = 0;

impl Tree {
    /// An empty root.
    pub(crate) fn new() -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), next: ROOT };
        tree.add(Kind::Dir(BTreeMap::new()));
        tree
    }

    /// A node that is there.
    pub(crate) fn node(&self, key: u64) -> &Node {
        &self.nodes[&key]
    }

    /// A node that is there, to be changed.
    pub(crate) fn node_mut(&mut self, path: &Path) -> Result<&mut Node> {
        let key = self.find(path)?;
        self.nodes.get_mut(&key).ok_or(Errno::NOENT)
    }

    /// All directories, by their paths, the root first.
    pub(crate) fn dirs(&self) -> Vec<Vec<&'static str>> {
        let mut found: Vec<Vec<&'static str>> = vec![Vec::new()];
        let mut at = 0;
        while at < found.len() {
            let path = found[at].clone();
            let below = self.find(&path).map(|key| self.names(key)).unwrap_or_default();
            let dirs = below.into_iter().filter(|(_, key)| self.node(*key).is_dir());
            found.extend(dirs.map(|(name, _)| [&path[..], &[name]].concat()));
            at += 1;
        }
        found
    }

    /// The names in a directory; none in anything else.
    pub(crate) fn names(&self, key: u64) -> BTreeMap<&'static str, u64> {
        match &self.node(key).kind {
            Kind::Dir(names) => names.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// What stands at a path. The last name is not followed if it is a symbolic link.
    pub(crate) fn find(&self, path: &Path) -> Result<u64> {
        path.iter().try_fold(ROOT, |at, name| match &self.node(at).kind {
            Kind::Dir(names) => names.get(name).copied().ok_or(Errno::NOENT),
            Kind::File(_) => Err(Errno::NOTDIR),
            // It leads to nothing.
            Kind::Symlink(_) => Err(Errno::NOENT),
        })
    }

    /// The directory that a path's last name is in.
    fn parent(&self, path: &Path) -> Result<(u64, &'static str)> {
        let (name, dir) = path.split_last().ok_or(Errno::INVAL)?;
        let key = self.find(dir)?;
        match self.node(key).kind {
            Kind::Dir(_) => Ok((key, name)),
            Kind::File(_) => Err(Errno::NOTDIR),
            Kind::Symlink(_) => Err(Errno::NOENT),
        }
    }

    fn at(&self, dir: u64, name: &str) -> Option<u64> {
        match &self.node(dir).kind {
            Kind::Dir(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn add(&mut self, kind: Kind) -> u64 {
        let key = self.next;
        self.next += 1;
        let node = Node { kind, links: 0, attributes: BTreeMap::new(), ino: None };
        let _ = self.nodes.insert(key, node);
        key
    }

    /// Puts a name there, in place of what it stood for.
    fn put(&mut self, dir: u64, name: &'static str, key: u64) {
        self.take(dir, name);
        if let Some(Node { kind: Kind::Dir(names), .. }) = self.nodes.get_mut(&dir) {
            let _ = names.insert(name, key);
        }
        if let Some(node) = self.nodes.get_mut(&key) {
            node.links += 1;
        }
    }

    /// Takes a name away, and the node with its last name.
    fn take(&mut self, dir: u64, name: &str) {
        let taken = match self.nodes.get_mut(&dir) {
            Some(Node { kind: Kind::Dir(names), .. }) => names.remove(name),
            _ => None,
        };
        let Some(key) = taken else { return };
        if let Some(node) = self.nodes.get_mut(&key) {
            node.links -= 1;
            if node.links == 0 {
                let _ = self.nodes.remove(&key);
            }
        }
    }

    /// open(O_CREAT | O_EXCL), mkdir, symlink: a new thing.
    pub(crate) fn make(&mut self, path: &Path, kind: Kind) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        if self.at(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        let key = self.add(kind);
        self.put(dir, name, key);
        Ok(())
    }

    /// unlink.
    pub(crate) fn unlink(&mut self, path: &Path) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let key = self.at(dir, name).ok_or(Errno::NOENT)?;
        if self.node(key).is_dir() {
            return Err(Errno::ISDIR);
        }
        self.take(dir, name);
        Ok(())
    }

    /// rmdir.
    pub(crate) fn rmdir(&mut self, path: &Path) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let node = self.node(self.at(dir, name).ok_or(Errno::NOENT)?);
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if !node.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.take(dir, name);
        Ok(())
    }

    /// link, which does not follow a symbolic link.
    pub(crate) fn link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let key = self.find(from)?;
        let (dir, name) = self.parent(to)?;
        if self.at(dir, name).is_some() {
            return Err(Errno::EXIST);
        }
        if self.node(key).is_dir() {
            return Err(Errno::PERM);
        }
        self.put(dir, name, key);
        Ok(())
    }

    /// renameat2 with one of its flags, or none.
    pub(crate) fn rename(&mut self, from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let source = self.at(from_dir, from_name).ok_or(Errno::NOENT)?;
        let target = self.at(to_dir, to_name);
        if flags.contains(RenameFlags::NOREPLACE) && target.is_some() {
            return Err(Errno::EXIST);
        }
        if exchange && target.is_none() {
            return Err(Errno::NOENT);
        }
        if to.len() > from.len() && to.starts_with(from) {
            return Err(Errno::INVAL);
        }
        if from.len() > to.len() && from.starts_with(to) {
            return Err(if exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if target == Some(source) {
            // Two names of one file: nothing happens, by POSIX.
            return Ok(());
        }
        let Some(target) = target else {
            self.put(to_dir, to_name, source);
            self.take(from_dir, from_name);
            return Ok(());
        };
        if exchange {
            self.exchange((from_dir, from_name, source), (to_dir, to_name, target));
            return Ok(());
        }
        match (self.node(source).is_dir(), self.node(target).is_dir()) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !self.node(target).is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.put(to_dir, to_name, source);
        self.take(from_dir, from_name);
        Ok(())
    }

    fn exchange(&mut self, one: (u64, &'static str, u64), other: (u64, &'static str, u64)) {
        for ((dir, name, _), (_, _, key)) in [(one, other), (other, one)] {
            if let Some(Node { kind: Kind::Dir(names), .. }) = self.nodes.get_mut(&dir) {
                let _ = names.insert(name, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Kind {
        Kind::File(text.to_owned())
    }

    fn dir() -> Kind {
        Kind::Dir(BTreeMap::new())
    }

    #[test]
    fn names_come_and_go() {
        let mut tree = Tree::new();
        assert_eq!(tree.make(&["d"], dir()), Ok(()));
        assert_eq!(tree.make(&["d"], file("")), Err(Errno::EXIST));
        assert_eq!(tree.make(&["d", "f"], file("1")), Ok(()));
        assert_eq!(tree.make(&["d", "f", "x"], dir()), Err(Errno::NOTDIR));
        assert_eq!(tree.make(&["e", "f"], dir()), Err(Errno::NOENT));
        assert_eq!(tree.rmdir(&["d"]), Err(Errno::NOTEMPTY));
        assert_eq!(tree.unlink(&["d"]), Err(Errno::ISDIR));
        assert_eq!(tree.link(&["d", "f"], &["g"]), Ok(()));
        assert_eq!(tree.node(tree.find(&["g"]).unwrap()).links, 2);
        assert_eq!(tree.link(&["d"], &["h"]), Err(Errno::PERM));
        assert_eq!(tree.unlink(&["d", "f"]), Ok(()));
        assert_eq!(tree.unlink(&["d", "f"]), Err(Errno::NOENT));
        assert_eq!(tree.rmdir(&["d"]), Ok(()));
        assert_eq!(tree.node(tree.find(&["g"]).unwrap()).kind, file("1"));
        assert_eq!(tree.dirs().len(), 1);
    }

    #[test]
    fn renames_are_told_apart() {
        let mut tree = Tree::new();
        for (path, kind) in [("a", file("a")), ("b", file("b")), ("d", dir()), ("e", dir())] {
            tree.make(&[path], kind).unwrap();
        }
        let none = RenameFlags::empty();
        assert_eq!(tree.rename(&["a"], &["b"], RenameFlags::NOREPLACE), Err(Errno::EXIST));
        assert_eq!(tree.rename(&["a"], &["d"], none), Err(Errno::ISDIR));
        assert_eq!(tree.rename(&["d"], &["a"], none), Err(Errno::NOTDIR));
        assert_eq!(tree.rename(&["d"], &["d", "x"], none), Err(Errno::INVAL));
        assert_eq!(tree.rename(&["a"], &["e", "a"], none), Ok(()));
        assert_eq!(tree.rename(&["e", "a"], &["e"], none), Err(Errno::NOTEMPTY));
        assert_eq!(tree.rename(&["d"], &["e"], none), Err(Errno::NOTEMPTY));
        assert_eq!(tree.rename(&["b"], &["e", "a"], RenameFlags::EXCHANGE), Ok(()));
        assert_eq!(tree.node(tree.find(&["b"]).unwrap()).kind, file("a"));
        assert_eq!(tree.rename(&["b"], &["e", "a"], none), Ok(()));
        assert_eq!(tree.find(&["b"]), Err(Errno::NOENT));
        assert_eq!(tree.node(tree.find(&["e", "a"]).unwrap()).kind, file("a"));
        assert_eq!(tree.rename(&["e"], &["d"], none), Ok(()));
        assert_eq!(tree.dirs(), [vec![], vec!["d"]]);
    }
}
