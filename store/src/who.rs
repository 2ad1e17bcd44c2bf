//! Who was refused: read by the store itself, since a client that has its answer may end before memcharged looks.

use std::os::fd::OwnedFd;

use memcharge_policy::outcome::Charger;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// Large enough for the lines of `/proc/PID/status` down to the thread group.
const STATUS: usize = 256;

/// Names of processes are shorter.
const COMM: usize = 64;

/// Longer cgroups are left to memcharged.
const CGROUP: usize = 512;

/// The host's processes.
pub(crate) struct Processes {
    /// A directory of the host's `/proc`: this process' own shows few of them.
    proc: OwnedFd,
}

impl Processes {
    /// Those in `proc`.
    pub(crate) fn new(proc: OwnedFd) -> Self {
        Self { proc }
    }

    /// The process of thread `tid`; `uid` is what the request says. `None`: it cannot be seen, or has ended.
    pub(crate) fn charger(&self, tid: u32, uid: u32) -> Option<Charger> {
        // A client in a process namespace that this process does not see.
        if tid == 0 {
            return None;
        }
        let mut status = [0; STATUS];
        let pid = thread_group(self.read(tid, "status", &mut status)?)?;
        let (mut comm, mut cgroup) = ([0; COMM], [0; CGROUP]);
        let comm = self.read(pid, "comm", &mut comm)?.strip_suffix(b"\n")?;
        let cgroup = self.read(pid, "cgroup", &mut cgroup)?;
        Some(Charger {
            pid,
            uid,
            comm: String::from_utf8_lossy(comm).into_owned(),
            cgroup: String::from_utf8_lossy(own_cgroup(cgroup)?).into_owned(),
        })
    }

    fn read<'a>(&self, id: u32, file: &str, into: &'a mut [u8]) -> Option<&'a [u8]> {
        let path = format!("{id}/{file}");
        let mut read = || -> Result<usize, Errno> {
            let file = rustix::fs::openat(
                &self.proc,
                path.as_str(),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            rustix::io::read(&file, &mut *into)
        };
        let length = read().ok()?;
        into.get(..length)
    }
}

/// The thread group in the text of a `status` file.
fn thread_group(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:\t"))?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// The cgroup of cgroup v2 in the text of a `cgroup` file. A text without its end was longer than what was read of it.
fn own_cgroup(text: &[u8]) -> Option<&[u8]> {
    let lines = text.strip_suffix(b"\n")?;
    lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> Processes {
        Processes::new(std::fs::File::open("/proc").unwrap().into())
    }

    #[test]
    fn r32_a_thread_is_told_as_its_process() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert_ne!(tid, std::process::id(), "tests run in threads");
        let charger = processes().charger(tid, 7);
        // On a machine without cgroup v2 there is no such cgroup.
        let cgroup = std::fs::read("/proc/self/cgroup").unwrap();
        let Some(cgroup) = own_cgroup(&cgroup) else { return assert_eq!(charger, None) };
        let charger = charger.unwrap();
        assert_eq!((charger.pid, charger.uid), (std::process::id(), 7));
        assert_eq!(charger.comm, std::fs::read_to_string("/proc/self/comm").unwrap().trim_end());
        assert_eq!(charger.cgroup.as_bytes(), cgroup);
    }

    #[test]
    fn who_is_not_there_is_nobody() {
        assert_eq!(processes().charger(0, 7), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(processes().charger(child.id(), 7), None);
    }

    #[test]
    fn files_of_a_process_are_read_as_the_kernel_writes_them() {
        let status = b"Name:\ta\\nTgid: 3\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t431\nNgid:\t0\nPi";
        assert_eq!(thread_group(status), Some(431));
        assert_eq!(thread_group(b"Name:\tTgid:\t3\nTgid:\t4"), Some(4));
        assert_eq!(thread_group(b"Name:\tx\n"), None);
        assert_eq!(own_cgroup(b"0::/a/b\n"), Some(&b"/a/b"[..]));
        assert_eq!(own_cgroup(b"1:memory:/x\n0::/\n"), Some(&b"/"[..]));
        assert_eq!(own_cgroup(b"0::/a/b"), None, "cut off");
        assert_eq!(own_cgroup(b"1:memory:/x\n"), None);
    }
}
