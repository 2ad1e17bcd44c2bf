//! The kill itself.

use std::{
    io::Write,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use memcharge_cgroup::{Cgroup, CgroupError, Hierarchy};
use memcharge_policy::{
    KillScope,
    arbiter::{Candidate, KillFailure},
    mountinfo::is_within,
};
use rustix::{
    fs::OFlags,
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};

use super::{mark::Mark, process::Process};
use crate::error::{DaemonError, Result};

/// A process that nobody may kill.
const NEVER_KILLED: i32 = -1000;

/// How a kill went.
#[derive(Debug)]
pub(super) enum Sent {
    /// The signal was sent, to so many processes.
    To(u64, OwnedFd),
    /// It was not, and never will be.
    Not(KillFailure),
}

/// Checks that `victim` is still who it was, and kills it. `go` is asked last; `false`: nobody waits any more, so
/// nobody is killed either.
///
/// The pidfd is made first. What is then read of this pid is read of the process that the pidfd is for, or that
/// process is dead and the signal reaches nobody. A process can still be moved between the last look and the signal.
pub(super) fn kill(
    hierarchy: &Hierarchy,
    target: &Cgroup,
    victim: &Candidate,
    scope: KillScope,
    go: impl FnOnce() -> bool,
) -> Result<Option<Sent>> {
    let spare = |why| Ok(Some(Sent::Not(why)));
    let Some(pidfd) = open_pidfd(victim.pid)? else { return spare(KillFailure::Gone) };
    if let Err(why) = check(hierarchy, target, victim)? {
        return spare(why);
    }
    let group = match scope {
        KillScope::Process => None,
        KillScope::Cgroup => match open_group(hierarchy, target, victim)? {
            Ok(group) => Some(group),
            Err(why) => return spare(why),
        },
    };
    let processes = group.as_ref().map_or(1, |(_, processes)| *processes);
    let mark = Mark::write(hierarchy, &victim.cgroup, processes);
    if !go() {
        mark.undo();
        return Ok(None);
    }
    let sent = match &group {
        None => rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)
            .map_err(DaemonError::io("kill", format!("pid {}", victim.pid))),
        Some((group, _)) => kill_group(group),
    };
    match sent {
        Ok(()) => Ok(Some(Sent::To(processes, pidfd))),
        Err(error) => {
            mark.undo();
            if is_gone(&error) { spare(KillFailure::Gone) } else { Err(error) }
        }
    }
}

/// Has the memory of a process that was killed given back now, by this thread, rather than when its own threads get
/// to it. Waits for the lock of its memory. That it has ended, ends just now or shares its memory is no error.
pub(super) fn release(pidfd: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: the system call takes two integers, and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_fd().as_raw_fd(), 0) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::SRCH | Errno::INVAL | Errno::AGAIN) => Ok(()),
        _ => Err(error),
    }
}

fn open_pidfd(pid: u32) -> Result<Option<OwnedFd>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(e) => Err(DaemonError::io("open", format!("pid {pid}"))(e)),
    }
}

/// Whether the process is the one that was chosen, where it was, in the target that was meant.
fn check(hierarchy: &Hierarchy, target: &Cgroup, victim: &Candidate) -> Result<Result<(), KillFailure>> {
    let Some(process) = Process::open(victim.pid)? else { return Ok(Err(KillFailure::Gone)) };
    let (Some(stat), Some(cgroup)) = (process.stat()?, process.cgroup()?) else {
        return Ok(Err(KillFailure::Gone));
    };
    if stat.started != victim.started || !stat.is_alive {
        return Ok(Err(KillFailure::Gone));
    }
    // Another cgroup of the target may be a protected one.
    let has_moved = cgroup != victim.cgroup || !is_within(&cgroup, target.path());
    if has_moved || is_spared(&process)? || hierarchy.open(target.path())?.id() != target.id() {
        return Ok(Err(KillFailure::Changed));
    }
    Ok(Ok(()))
}

/// The victim's cgroup and the number of its processes, if it is below the target and all of them may be killed.
fn open_group(
    hierarchy: &Hierarchy,
    target: &Cgroup,
    victim: &Candidate,
) -> Result<Result<(Cgroup, u64), KillFailure>> {
    let group = hierarchy.open(&victim.cgroup)?;
    if group.id() == target.id() {
        return Ok(Err(KillFailure::Changed));
    }
    let members = group.processes()?;
    for member in &members {
        if let Some(process) = Process::open(member.pid)?
            && is_spared(&process)?
        {
            return Ok(Err(KillFailure::Changed));
        }
    }
    Ok(Ok((group, members.len() as u64)))
}

/// Whether this is memcharged, the first process, or one that nobody may kill, as every store is. Names do not count:
/// any process can call itself what it likes.
fn is_spared(process: &Process) -> Result<bool> {
    let is_never_killed = process.oom_score_adj()? == Some(NEVER_KILLED);
    Ok(process.pid() == 1 || process.pid() == std::process::id() || is_never_killed)
}

fn kill_group(group: &Cgroup) -> Result<()> {
    const FILE: &str = "cgroup.kill";
    let written = group.open_file(FILE, OFlags::WRONLY)?.write_all(b"1");
    written.map_err(DaemonError::io("write to", format!("{}/{FILE}", group.path())))
}

fn is_gone(error: &DaemonError) -> bool {
    match error {
        DaemonError::Cgroup(CgroupError::Dying { .. }) => true,
        DaemonError::Io { source, .. } => {
            matches!(source.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::SRCH | Errno::NODEV))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::fixtures::Stand, *};

    fn kill_in(stand: &Stand, victim: &Candidate, scope: KillScope) -> Sent {
        kill(&stand.hierarchy, &stand.target, victim, scope, || true).unwrap().unwrap()
    }

    #[track_caller]
    fn assert_spared(sent: &Sent, why: KillFailure) {
        assert!(matches!(sent, Sent::Not(not) if *not == why), "{sent:?}");
    }

    #[test]
    fn the_victim_and_nobody_else_dies() {
        let stand = Stand::new();
        let (mut victim, mut bystander) = (stand.sleeper(), stand.sleeper());
        let candidate = stand.candidate(victim.id());
        let Sent::To(1, pidfd) = kill_in(&stand, &candidate, KillScope::Process) else { panic!() };
        release(&pidfd).unwrap();
        assert!(victim.was_killed());
        assert!(bystander.is_alive());
        release(&pidfd).unwrap();
        assert_spared(&kill_in(&stand, &candidate, KillScope::Process), KillFailure::Gone);
    }

    #[test]
    fn another_process_of_the_same_number_is_spared() {
        let stand = Stand::new();
        let mut child = stand.sleeper();
        let older =
            Candidate { started: stand.candidate(child.id()).started - 1, ..stand.candidate(child.id()) };
        assert_spared(&kill_in(&stand, &older, KillScope::Process), KillFailure::Gone);
        assert!(child.is_alive());
    }

    #[test]
    fn who_has_moved_is_spared() {
        let stand = Stand::new();
        let mut child = stand.sleeper();
        let elsewhere = Candidate { cgroup: "/elsewhere".into(), ..stand.candidate(child.id()) };
        assert_spared(&kill_in(&stand, &elsewhere, KillScope::Process), KillFailure::Changed);
        let below = stand.list(&[]);
        let victim = stand.candidate(child.id());
        let sent = kill(&stand.hierarchy, &below, &victim, KillScope::Process, || true).unwrap();
        assert_spared(&sent.unwrap(), KillFailure::Changed);
        assert!(child.is_alive());
    }

    #[test]
    fn memcharged_is_spared() {
        let stand = Stand::new();
        let own = stand.candidate(std::process::id());
        assert_spared(&kill_in(&stand, &own, KillScope::Process), KillFailure::Changed);
    }

    #[test]
    fn a_whole_target_is_not_killed() {
        let stand = Stand::new();
        let mut child = stand.sleeper();
        assert_spared(
            &kill_in(&stand, &stand.candidate(child.id()), KillScope::Cgroup),
            KillFailure::Changed,
        );
        assert!(child.is_alive());
    }

    #[test]
    fn a_cgroup_with_memcharged_in_it_is_not_killed() {
        let stand = Stand::new();
        let child = stand.sleeper();
        let group = stand.list(&[child.id()]);
        let victim = Candidate { cgroup: group.path().to_owned(), ..stand.candidate(child.id()) };
        let open = || open_group(&stand.hierarchy, &stand.target, &victim).unwrap();
        assert_eq!(open().unwrap().1, 1);
        stand.list(&[child.id(), std::process::id()]);
        assert_eq!(open().unwrap_err(), KillFailure::Changed);

        fs::write(stand.file("cgroup.kill"), "").unwrap();
        kill_group(&group).unwrap();
        assert_eq!(fs::read_to_string(stand.file("cgroup.kill")).unwrap(), "1");
    }

    #[test]
    fn once_nobody_waits_nobody_is_killed() {
        let stand = Stand::new();
        let mut child = stand.sleeper();
        let sent =
            kill(&stand.hierarchy, &stand.target, &stand.candidate(child.id()), KillScope::Process, || false)
                .unwrap();
        assert!(sent.is_none());
        assert!(child.is_alive());
    }
}
