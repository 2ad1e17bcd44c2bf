//! Real processes, and a directory that stands for their cgroup.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command},
};

use memcharge_cgroup::{Cgroup, Hierarchy};
use memcharge_policy::{Bytes, arbiter::Candidate};

use super::process::Process;

/// A target at the path of this process' own cgroup, where its children live too. Below it is a cgroup `group`, which
/// lists whom a test wants.
pub(super) struct Stand {
    dir: tempfile::TempDir,
    pub(super) hierarchy: Hierarchy,
    pub(super) target: Cgroup,
}

impl Stand {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = Process::open(std::process::id()).unwrap().unwrap().cgroup().unwrap().unwrap();
        let top = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(top.join("group")).unwrap();
        fs::write(top.join("cgroup.procs"), "").unwrap();
        let hierarchy = Hierarchy::stand_in(dir.path());
        let target = hierarchy.open(&path).unwrap();
        Self { dir, hierarchy, target }
    }

    /// A file of the cgroup `group`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(self.target.path().trim_start_matches('/')).join("group").join(name)
    }

    /// The cgroup `group`, which lists these processes from now on.
    pub(super) fn list(&self, pids: &[u32]) -> Cgroup {
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(self.file("cgroup.procs"), text).unwrap();
        self.hierarchy.open(&format!("{}/group", self.target.path().trim_end_matches('/'))).unwrap()
    }

    pub(super) fn candidate(&self, pid: u32) -> Candidate {
        let process = Process::open(pid).unwrap().unwrap();
        let stat = process.stat().unwrap().unwrap();
        Candidate {
            pid,
            started: stat.started,
            comm: stat.comm,
            cgroup: process.cgroup().unwrap().unwrap(),
            frees: Bytes(0),
            oom_score: 0,
            oom_score_adj: 0,
        }
    }

    pub(super) fn sleeper(&self) -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

/// A process that sleeps until it is killed.
pub(super) struct Sleeper(Child);

impl Sleeper {
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end, which a signal should have brought.
    pub(super) fn was_killed(&mut self) -> bool {
        self.0.wait().unwrap().signal() == Some(rustix::process::Signal::KILL.as_raw())
    }

    /// Kills it and does not wait: it stays as a zombie.
    pub(super) fn kill(&mut self) {
        self.0.kill().unwrap();
        let process = Process::open(self.id()).unwrap().unwrap();
        while process.stat().unwrap().unwrap().is_alive {
            std::thread::yield_now();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have ended in the test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
