//! Finding and killing processes of a target, as the [arbiter](memcharge_policy::arbiter) asks.
//!
//! All of it blocks: the kernel lets us wait for the lock of a process' memory, which the process may hold while it
//! hangs in a request to the very mount that waits for the kill. So it runs on threads of its own, few of which may
//! hang at once, and whoever waits does so until a deadline.
//!
//! memcharged needs for it CAP_KILL to kill processes of other users, CAP_SYS_PTRACE to read
//! their smaps, CAP_DAC_OVERRIDE for `cgroup.kill` and the marks of cgroups that were delegated. process_mrelease
//! needs no capability (seen on Linux 6.12), but its place in the unit's `SystemCallFilter=`.

mod candidates;
mod charger;
#[cfg(test)]
mod fixtures;
mod mark;
mod process;
mod smaps;
mod victim;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use memcharge_cgroup::{Cgroup, Hierarchy};
use memcharge_policy::{
    KillScope,
    arbiter::{Candidate, KillFailure},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::{timeout, timeout_at},
};

pub(crate) use self::charger::read_charger;
use self::{candidates::Findings, victim::Sent};
use crate::error::{DaemonError, Result};

/// So many threads may look for victims, and as many wait for memory of the killed. More than that hang only if so
/// many processes hang with the lock of their memory.
const THREADS: usize = 4;

/// Looks for victims and kills them. Clones share the threads.
#[derive(Debug, Clone)]
pub(crate) struct Killer {
    hierarchy: Hierarchy,
    searches: Arc<Semaphore>,
    releases: Arc<Semaphore>,
}

/// How a kill went, if no system call failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// SIGKILL was sent to so many processes. When they have ended, and what that frees, is not known yet.
    Sent(u64),
    /// Nobody was killed, and nobody will be.
    Spared(KillFailure),
}

impl Killer {
    /// Kills in the cgroups of `hierarchy`.
    pub(crate) fn new(hierarchy: Hierarchy) -> Self {
        let threads = || Arc::new(Semaphore::new(THREADS));
        Self { hierarchy, searches: threads(), releases: threads() }
    }

    /// All processes of the target's subtree but zombies, threads of the kernel, and those that were killed already.
    ///
    /// What the death of each frees is a lower bound, and 0 for all but the 32 with the most anonymous memory: the
    /// anonymous memory that it has for itself alone, and no more than its cgroup is charged for. What could not be
    /// measured within `limit` is 0 too. [`DaemonError::Late`]: not even the list was complete by then.
    pub(crate) async fn find_candidates(
        &self,
        target: &Arc<Cgroup>,
        limit: Duration,
    ) -> Result<Vec<Candidate>> {
        let until = Instant::now() + limit;
        let late = || DaemonError::Late { what: format!("looking for a victim in {}", target.path()), limit };
        let permit = timeout_at(until.into(), Arc::clone(&self.searches).acquire_owned());
        let permit = permit.await.map_err(|_| late())?.map_err(|_| DaemonError::Stopping)?;
        let findings = Arc::<Findings>::default();
        let (hierarchy, target, theirs) = (self.hierarchy.clone(), Arc::clone(target), Arc::clone(&findings));
        let search = spawn_blocking(move || {
            // Given back when the thread does not hang any more, rather than when nobody waits for it.
            let _permit = permit;
            candidates::find(&hierarchy, &target, until, &theirs)
        });
        if let Ok(found) = timeout_at(until.into(), search).await {
            found.map_err(thread_failed)??;
        }
        findings.take().ok_or_else(late)
    }

    /// Kills `victim`, or with [`KillScope::Cgroup`] everybody in its cgroup and below, if it is still the process
    /// that was found, where it was found, and no store, no part of memcharged and no process that nobody may kill
    /// would die.
    ///
    /// Returns when the signal is sent. [`DaemonError::Late`]: it was not within `limit`, and will not be.
    pub(crate) async fn kill(
        &self,
        target: &Arc<Cgroup>,
        victim: &Candidate,
        scope: KillScope,
        limit: Duration,
    ) -> Result<Killed> {
        let late = || DaemonError::Late { what: format!("killing pid {}", victim.pid), limit };
        // Whoever sets it first decides: the thread to kill, or the one who waits to give up.
        let decided = Arc::<AtomicBool>::default();
        let decide = {
            let decided = Arc::clone(&decided);
            move || !decided.swap(true, Ordering::AcqRel)
        };
        let (hierarchy, target, victim) = (self.hierarchy.clone(), Arc::clone(target), victim.clone());
        let mut kill = spawn_blocking(move || victim::kill(&hierarchy, &target, &victim, scope, decide));
        let sent = match timeout(limit, &mut kill).await {
            Ok(sent) => sent,
            Err(_) if !decided.swap(true, Ordering::AcqRel) => return Err(late()),
            // It is being sent; whether it was must be known.
            Err(_) => kill.await,
        };
        match sent.map_err(thread_failed)?? {
            Some(Sent::To(processes, pidfd)) => {
                self.release(pidfd);
                Ok(Killed::Sent(processes))
            }
            Some(Sent::Not(why)) => Ok(Killed::Spared(why)),
            None => Err(late()),
        }
    }

    /// Nobody waits for it: without it the memory comes back a little later.
    fn release(&self, pidfd: OwnedFd) {
        let Ok(permit) = Arc::clone(&self.releases).try_acquire_owned() else { return };
        // Not joined: it may hang for as long as the victim does.
        drop(spawn_blocking(move || {
            let _permit = permit;
            if let Err(e) = victim::release(&pidfd) {
                tracing::debug!("process_mrelease failed: {e}");
            }
        }));
    }
}

fn thread_failed(error: JoinError) -> DaemonError {
    DaemonError::io("run", "a thread")(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::{fixtures::Stand, *};

    const AMPLE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn r20_a_candidate_is_found_and_killed() {
        let stand = Stand::new();
        let (mut victim, mut bystander) = (stand.sleeper(), stand.sleeper());
        stand.list(&[victim.id()]);
        let killer = Killer::new(stand.hierarchy.clone());
        let target = Arc::new(stand.hierarchy.open(stand.target.path()).unwrap());
        let found = killer.find_candidates(&target, AMPLE).await.unwrap();
        assert_eq!(found.iter().map(|candidate| candidate.pid).collect::<Vec<_>>(), [victim.id()]);
        let killed = killer.kill(&target, &found[0], KillScope::Process, AMPLE).await.unwrap();
        assert_eq!(killed, Killed::Sent(1));
        assert!(victim.was_killed());
        assert!(bystander.is_alive());
        let again = killer.kill(&target, &found[0], KillScope::Process, AMPLE).await.unwrap();
        assert_eq!(again, Killed::Spared(KillFailure::Gone));
    }

    #[tokio::test]
    async fn a_search_that_cannot_start_is_late() {
        let stand = Stand::new();
        let killer = Killer::new(stand.hierarchy.clone());
        let _all = killer.searches.acquire_many(THREADS as u32).await.unwrap();
        let target = Arc::new(stand.hierarchy.open(stand.target.path()).unwrap());
        let late = killer.find_candidates(&target, Duration::from_millis(10)).await;
        assert!(matches!(late, Err(DaemonError::Late { .. })), "{late:?}");
    }
}
