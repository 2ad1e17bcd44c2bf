//! Cgroups made by a test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{fs, path::PathBuf};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// One cgroup, by its path below the root.
#[derive(Debug, Clone)]
pub struct Cg {
    path: String,
}

impl Cg {
    /// The cgroup at `path`, which exists.
    pub fn at(path: &str) -> Self {
        let cg = Self { path: path.to_owned() };
        assert!(cg.dir().is_dir(), "no cgroup {path}");
        cg
    }

    /// Makes a cgroup; its parent gives its children the memory controller.
    pub fn make(path: &str) -> Self {
        let cg = Self { path: path.to_owned() };
        fs::create_dir_all(cg.dir()).unwrap();
        let mut parent = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            fs::write(format!("/sys/fs/cgroup{parent}/cgroup.subtree_control"), "+memory").unwrap();
            parent = format!("{parent}/{part}");
        }
        cg
    }

    /// The path below the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup{}", self.path))
    }

    /// One of its files.
    pub fn read(&self, file: &str) -> String {
        let path = self.dir().join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic_at(&path, &e))
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.dir().join(file);
        fs::write(&path, text).unwrap_or_else(|e| panic_at(&path, &e));
    }

    /// Sets `memory.max` in bytes, and no swap.
    pub fn max(self, bytes: u64) -> Self {
        self.write("memory.max", &bytes.to_string());
        self.write("memory.swap.max", "0");
        self
    }

    /// `memory.current`.
    pub fn current(&self) -> u64 {
        self.read("memory.current").trim().parse().unwrap()
    }

    /// A counter of `memory.stat`.
    pub fn stat(&self, key: &str) -> u64 {
        flat_key(&self.read("memory.stat"), key)
    }

    /// A counter of `memory.events`.
    pub fn event(&self, key: &str) -> u64 {
        flat_key(&self.read("memory.events"), key)
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) {
        self.write("cgroup.procs", &pid.to_string());
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.dir().exists()
    }

    /// Removes it.
    pub fn remove(&self) -> std::io::Result<()> {
        fs::remove_dir(self.dir())
    }

    /// Names of its child cgroups.
    pub fn children(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap().map(Result::unwrap);
        entries
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

fn flat_key(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| unreachable!("no {key} in {text}")).parse().unwrap()
}

#[allow(clippy::panic)]
fn panic_at(path: &std::path::Path, e: &std::io::Error) -> ! {
    panic!("{}: {e}", path.display())
}
