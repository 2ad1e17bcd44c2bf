//! Who asked for memory.

use memcharge_policy::outcome::Charger;

use super::process::Process;
use crate::error::Result;

/// Tells the process that thread `tid` belongs to; `uid` is what the request says. The texts are empty if it has
/// ended, and pid is 0 for a thread of a process namespace that cannot be seen, which the kernel calls 0.
pub(crate) fn read_charger(tid: u32, uid: u32) -> Result<Charger> {
    let unknown = Charger { pid: tid, uid, comm: String::new(), cgroup: String::new() };
    if tid == 0 {
        return Ok(unknown);
    }
    let Some(thread) = Process::open(tid)? else { return Ok(unknown) };
    let Some(status) = thread.status()? else { return Ok(unknown) };
    let process = if status.tgid == tid { Some(thread) } else { Process::open(status.tgid)? };
    let charger = Charger { pid: status.tgid, ..unknown };
    let Some(process) = process else { return Ok(charger) };
    match (process.stat()?, process.cgroup()?) {
        (Some(stat), Some(cgroup)) => Ok(Charger { comm: stat.comm, cgroup, ..charger }),
        _ => Ok(charger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r32_a_thread_is_told_as_its_process() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        assert_ne!(tid, std::process::id(), "tests run in threads");
        let charger = read_charger(tid, 7).unwrap();
        assert_eq!((charger.pid, charger.uid), (std::process::id(), 7));
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(charger.comm, comm.trim_end());
        assert!(charger.cgroup.starts_with('/'));
    }

    #[test]
    fn who_is_not_seen_has_no_name() {
        let nobody = |pid| Charger { pid, uid: 7, comm: String::new(), cgroup: String::new() };
        assert_eq!(read_charger(0, 7).unwrap(), nobody(0));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(read_charger(child.id(), 7).unwrap(), nobody(child.id()));
    }
}
