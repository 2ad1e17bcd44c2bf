//! `memcharge-torture`, run by a test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by a panic.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;

use crate::{cgroup::Cg, killer, service::Said};

/// The program, beside the test.
const TORTURE: &str = "/mnt/files/memcharge-torture";

/// Where it writes to.
const OUT: &str = "/tmp/torture.out";
const ERR: &str = "/tmp/torture.err";

/// How long it may take beside its time: it starts and ends in an emulated machine.
const BESIDE: Duration = Duration::from_secs(90);

/// A torture that runs.
#[derive(Debug)]
pub struct Torture {
    child: Child,
    most: Duration,
}

impl Torture {
    /// Starts it in a cgroup.
    pub fn start(cg: &Cg, dir: &str, seconds: u64, seed: u64, more: &[&str]) -> Self {
        let mut command = Command::new("bash");
        let line = "echo 0 > /sys/fs/cgroup$0/cgroup.procs; exec \"$@\"";
        command.args(["-c", line, cg.path(), TORTURE, dir]);
        command.args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string()]).args(more);
        // Files: a pipe that nobody reads could fill up.
        let child = command.stdout(File::create(OUT).unwrap()).stderr(File::create(ERR).unwrap()).spawn();
        Self { child: child.expect("memcharge-torture"), most: Duration::from_secs(seconds) + BESIDE }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Said {
        let status = killer::wait(&mut self.child, self.most);
        let read = |path| std::fs::read_to_string(path).unwrap();
        Said { status: status.code().unwrap_or(-1), out: read(OUT), err: read(ERR) }
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it says of its work.
pub fn sum(said: &Said) -> Value {
    serde_json::from_str(said.out.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| unreachable!("{:?}: {e}", said.out))
}

/// Which locks another process would get on a file: flock's, fcntl's.
pub fn free_locks(path: &str) -> (bool, bool) {
    let said = crate::service::run(&[TORTURE, "locked", path]).ok();
    let said = sum(&said);
    (said["flock"].as_bool().unwrap(), said["fcntl"].as_bool().unwrap())
}

/// The bytes of pages that all files below a directory have.
pub fn pages(dir: &Path) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    add_pages(dir, &mut seen)
}

fn add_pages(dir: &Path, seen: &mut std::collections::BTreeSet<u64>) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let each = entries.map(|entry| {
        let metadata = std::fs::symlink_metadata(entry.path()).unwrap();
        if metadata.is_dir() {
            return add_pages(&entry.path(), seen);
        }
        // A file with several names has its pages once.
        if metadata.is_file() && seen.insert(metadata.ino()) { metadata.blocks() * 512 } else { 0 }
    });
    each.sum()
}
