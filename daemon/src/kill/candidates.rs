//! The processes of a target, and what the death of each would free.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use memcharge_cgroup::{Cgroup, CgroupError, Hierarchy, Member};
use memcharge_policy::{Bytes, PAGE_SIZE, arbiter::Candidate, mountinfo::is_within};

use super::process::Process;
use crate::error::{DaemonError, Result};

/// So many processes are looked at closely, the largest first.
const MEASURED: usize = 32;

/// `MEMCG_CHARGE_BATCH` of the kernel: pages by which each CPU may have changed a counter without having said so.
const BATCH_PAGES: u64 = 64;

/// Where the kernel lists the CPUs that are in use.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// What was found, for another thread to take before the search has ended.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Option<Vec<Candidate>>>);

impl Findings {
    /// What there is; `None`: not even the list is complete.
    pub(super) fn take(&self) -> Option<Vec<Candidate>> {
        self.lock().take()
    }

    /// Notes what a candidate's death frees. `false`: nobody waits for it any more.
    fn note(&self, index: usize, frees: Bytes) -> bool {
        let mut candidates = self.lock();
        let candidate = candidates.as_mut().and_then(|candidates| candidates.get_mut(index));
        candidate.map(|candidate| candidate.frees = frees).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Candidate>>> {
        // Nothing is left half done in there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that is listed, and not measured yet.
struct Listed {
    pid: u32,
    started: u64,
    rss_anon: Bytes,
    /// The cgroup that lists it, which is where its memory is charged.
    charged: Arc<str>,
    /// Its place in the findings.
    index: usize,
}

/// Lists all processes of the target's subtree, then measures the largest. Ends early, with what it has, once `until`
/// has passed; a process that holds the lock of its own memory can make it last longer.
pub(super) fn find(
    hierarchy: &Hierarchy,
    target: &Cgroup,
    until: Instant,
    findings: &Findings,
) -> Result<()> {
    let (mut listed, mut candidates) = (Vec::new(), Vec::new());
    for member in target.processes()? {
        if Instant::now() >= until {
            return Ok(());
        }
        // One that cannot be looked at must not shield the others.
        if let Some((candidate, rss_anon)) = look_at(member.pid, target.path()).unwrap_or_default() {
            let (Member { pid, cgroup: charged }, started) = (member, candidate.started);
            listed.push(Listed { pid, started, rss_anon, charged, index: candidates.len() });
            candidates.push(candidate);
        }
    }
    *findings.lock() = Some(candidates);

    listed.sort_by_key(|listed| Reverse(listed.rss_anon));
    let mut bounds =
        Bounds { hierarchy, lag: BATCH_PAGES * PAGE_SIZE * read_cpus()?, known: BTreeMap::new() };
    for listed in listed.into_iter().take(MEASURED) {
        let frees = measure(&listed).min(bounds.of(&listed.charged).unwrap_or_default());
        if !findings.note(listed.index, frees) || Instant::now() >= until {
            break;
        }
    }
    Ok(())
}

/// A process as a candidate that frees nothing yet, and its anonymous memory. `None`: it has ended or is about to, is
/// a thread of the kernel, or has left the target.
fn look_at(pid: u32, target: &str) -> Result<Option<(Candidate, Bytes)>> {
    let Some(process) = Process::open(pid)? else { return Ok(None) };
    let Some(stat) = process.stat()?.filter(|stat| stat.is_alive) else { return Ok(None) };
    let Some(status) = process.status()?.filter(|status| !status.is_killed) else { return Ok(None) };
    let Some(cgroup) = process.cgroup()?.filter(|cgroup| is_within(cgroup, target)) else { return Ok(None) };
    let (Some(oom_score), Some(oom_score_adj)) = (process.oom_score()?, process.oom_score_adj()?) else {
        return Ok(None);
    };
    let candidate = Candidate {
        pid,
        started: stat.started,
        comm: stat.comm,
        cgroup,
        frees: Bytes(0),
        oom_score,
        oom_score_adj,
    };
    Ok(status.rss_anon.map(|rss_anon| (candidate, rss_anon)))
}

/// The private anonymous memory of a process; nothing if it cannot be read: then nothing shows that a kill would
/// help.
fn measure(listed: &Listed) -> Bytes {
    let measured = || {
        let Some(process) = Process::open(listed.pid)? else { return Ok(None) };
        let is_same = process.stat()?.is_some_and(|stat| stat.started == listed.started);
        if is_same { process.private_memory() } else { Ok(None) }
    };
    let private: Result<Option<Bytes>> = measured();
    private
        .unwrap_or_else(|error| {
            tracing::debug!("pid {} counts as a process that frees nothing: {error}", listed.pid);
            None
        })
        .unwrap_or(Bytes(0))
}

/// What cgroups are charged for: nobody in them frees more. A process that was moved there after it had allocated is
/// charged elsewhere.
struct Bounds<'a> {
    hierarchy: &'a Hierarchy,
    /// By how many bytes `memory.stat` may lag behind.
    lag: u64,
    known: BTreeMap<Arc<str>, Bytes>,
}

impl Bounds<'_> {
    fn of(&mut self, cgroup: &Arc<str>) -> Result<Bytes> {
        if let Some(bound) = self.known.get(cgroup) {
            return Ok(*bound);
        }
        let bound = match self.hierarchy.charged_anon(cgroup) {
            Ok(Some(anon)) => anon.plus(Bytes(self.lag)),
            // Nobody is charged, or the cgroup was removed meanwhile and its processes are gone.
            Ok(None) | Err(CgroupError::NoSuchCgroup { .. } | CgroupError::Dying { .. }) => Bytes(0),
            Err(error) => return Err(error.into()),
        };
        self.known.insert(Arc::clone(cgroup), bound);
        Ok(bound)
    }
}

fn read_cpus() -> Result<u64> {
    let text = std::fs::read_to_string(ONLINE).map_err(DaemonError::io("read", ONLINE))?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no list of CPUs"));
    parse_cpus(text.trim_end()).ok_or_else(|| DaemonError::io("read", ONLINE)(wrong()))
}

/// How many CPUs are in a list like `0-3,8`.
fn parse_cpus(list: &str) -> Option<u64> {
    list.split(',').try_fold(0u64, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{super::fixtures::Stand, *};

    fn find_in(stand: &Stand) -> Vec<Candidate> {
        let findings = Findings::default();
        let until = Instant::now() + Duration::from_secs(60);
        find(&stand.hierarchy, &stand.target, until, &findings).unwrap();
        findings.take().unwrap()
    }

    #[test]
    fn cpus_are_counted() {
        for (list, count) in [
            ("0", Some(1)),
            ("0-3", Some(4)),
            ("0-1,4,8-11", Some(7)),
            ("", None),
            ("3-0", None),
            ("0-x", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(parse_cpus(list), count, "{list}");
        }
        assert!(read_cpus().unwrap() > 0);
    }

    #[test]
    fn r20_what_a_kill_frees_is_private_memory_that_the_target_is_charged_for() {
        let stand = Stand::new();
        let ballast = vec![1u8; 8 << 20];
        stand.list(&[std::process::id()]);
        assert_eq!(find_in(&stand)[0].frees, Bytes(0), "charged to nobody");
        fs::write(stand.file("memory.stat"), "anon 1073741824\n").unwrap();
        let found = find_in(&stand);
        assert!(found[0].frees >= Bytes::mib(8), "{found:?}");
        fs::write(stand.file("memory.stat"), "anon 4096\n").unwrap();
        let bound = Bytes(4096 + read_cpus().unwrap() * BATCH_PAGES * PAGE_SIZE);
        assert_eq!(find_in(&stand)[0].frees, bound.min(found[0].frees));
        drop(ballast);
    }

    #[test]
    fn who_has_ended_is_no_candidate() {
        let stand = Stand::new();
        let (live, mut dead) = (stand.sleeper(), stand.sleeper());
        stand.list(&[live.id(), dead.id()]);
        assert_eq!(find_in(&stand).len(), 2);
        // A zombie, since nobody has waited for it.
        dead.kill();
        let found = find_in(&stand);
        assert_eq!(found.iter().map(|candidate| candidate.pid).collect::<Vec<_>>(), [live.id()]);
        assert_eq!(found[0].comm, "sleep");
    }

    #[test]
    fn who_was_moved_out_of_the_target_is_no_candidate() {
        assert_eq!(look_at(std::process::id(), "/a/target").unwrap(), None);
    }

    #[test]
    fn without_a_complete_list_there_is_nothing() {
        let stand = Stand::new();
        stand.list(&[std::process::id()]);
        let findings = Findings::default();
        find(&stand.hierarchy, &stand.target, Instant::now(), &findings).unwrap();
        assert_eq!(findings.take(), None);
    }
}
